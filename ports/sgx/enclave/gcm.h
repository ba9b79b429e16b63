/* AES-256-GCM in an enclave: by intel-ipsec-mb's code for AVX2 where its archive is there, else by BearSSL's for AES-NI
 * and PCLMULQDQ. Of both libraries functions are named that their own choice leads to: they would ask the processor
 * what it can do (CPUID), which an enclave may not. */
#ifndef TTE_GCM_H
#define TTE_GCM_H
#include "crypto.h"

#if TINYTEE_ENCLAVE_IPSEC_MB
#include <intel-ipsec-mb.h>
typedef struct tte_gcm {
  struct gcm_key_data key;
  struct gcm_context_data context;
} tte_gcm;
#else
#include <bearssl.h>
typedef struct tte_gcm {
  br_aes_x86ni_ctr_keys key;
  br_gcm_context context;
} tte_gcm;
#endif

void tte_gcm_set_key(tte_gcm *gcm, const uint8_t key[TTO_KEY_BYTES]);
/* A message: its associated data, its text in pieces of which all but the last are of whole blocks, its tag. 'to' may
 * equal 'from'. */
void tte_gcm_begin(tte_gcm *gcm, const uint8_t nonce[TTO_NONCE_BYTES], const void *associated, size_t associated_bytes);
void tte_gcm_run(tte_gcm *gcm, int encrypts, const void *from, size_t bytes, void *to);
void tte_gcm_end(tte_gcm *gcm, int encrypts, uint8_t tag[TTO_TAG_BYTES]);

#endif
