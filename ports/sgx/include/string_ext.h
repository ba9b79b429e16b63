/* OP-TEE's addition to string.h. */
#ifndef STRING_EXT_H
#define STRING_EXT_H
#include "crypto.h"
#define memzero_explicit(memory, bytes) tto_wipe(memory, bytes)
#endif
