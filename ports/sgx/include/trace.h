/* OP-TEE's messages: an enclave has nobody to tell. */
#ifndef TRACE_H
#define TRACE_H
#define EMSG(...) ((void)0)
#endif
