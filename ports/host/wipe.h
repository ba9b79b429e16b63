/* Zeroes memory in a way that the compiler may not leave out. */
#ifndef TTHI_WIPE_H
#define TTHI_WIPE_H
#include <openssl/crypto.h>

static inline void tthi_wipe(void *memory, size_t bytes) { OPENSSL_cleanse(memory, bytes); }

#endif
