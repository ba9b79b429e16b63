/* Beside the client API. */
#ifndef TTX_TEEC_H
#define TTX_TEEC_H

/* Why the last enclave could not be loaded, or what it died of. */
const char *ttx_last_failure(void);

#endif
