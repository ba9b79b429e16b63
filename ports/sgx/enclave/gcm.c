/* See the header. */
#include "gcm.h"

#include <string.h>

#if TINYTEE_ENCLAVE_IPSEC_MB

/* Not in the library's header: what its manager of functions points to (lib/include/gcm.h, aes_keyexp). */
void aes_keyexp_256_enc_avx2(const void *key, void *expanded);
void aes_gcm_precomp_256_avx_gen4(struct gcm_key_data *key);
void aes_gcm_init_256_avx_gen4(const struct gcm_key_data *key, struct gcm_context_data *context, const uint8_t *nonce,
                               const uint8_t *associated, uint64_t associated_bytes);
void aes_gcm_enc_256_update_avx_gen4(const struct gcm_key_data *key, struct gcm_context_data *context, uint8_t *to,
                                     const uint8_t *from, uint64_t bytes);
void aes_gcm_dec_256_update_avx_gen4(const struct gcm_key_data *key, struct gcm_context_data *context, uint8_t *to,
                                     const uint8_t *from, uint64_t bytes);
void aes_gcm_enc_256_finalize_avx_gen4(const struct gcm_key_data *key, struct gcm_context_data *context, uint8_t *tag,
                                       uint64_t tag_bytes);
void aes_gcm_dec_256_finalize_avx_gen4(const struct gcm_key_data *key, struct gcm_context_data *context, uint8_t *tag,
                                       uint64_t tag_bytes);

/* Where they say that an argument is none, which ours are not. */
extern int imb_errno;
extern const int imb_errno_types[64];
int imb_errno;
const int imb_errno_types[64] = {0};

void tte_gcm_set_key(tte_gcm *gcm, const uint8_t key[TTO_KEY_BYTES]) {
  aes_keyexp_256_enc_avx2(key, gcm->key.expanded_keys);
  aes_gcm_precomp_256_avx_gen4(&gcm->key);
}

void tte_gcm_begin(tte_gcm *gcm, const uint8_t nonce[TTO_NONCE_BYTES], const void *associated,
                   size_t associated_bytes) {
  aes_gcm_init_256_avx_gen4(&gcm->key, &gcm->context, nonce, associated, associated_bytes);
}

void tte_gcm_run(tte_gcm *gcm, int encrypts, const void *from, size_t bytes, void *to) {
  if (encrypts)
    aes_gcm_enc_256_update_avx_gen4(&gcm->key, &gcm->context, to, from, bytes);
  else
    aes_gcm_dec_256_update_avx_gen4(&gcm->key, &gcm->context, to, from, bytes);
}

void tte_gcm_end(tte_gcm *gcm, int encrypts, uint8_t tag[TTO_TAG_BYTES]) {
  if (encrypts)
    aes_gcm_enc_256_finalize_avx_gen4(&gcm->key, &gcm->context, tag, TTO_TAG_BYTES);
  else
    aes_gcm_dec_256_finalize_avx_gen4(&gcm->key, &gcm->context, tag, TTO_TAG_BYTES);
}

#else

void tte_gcm_set_key(tte_gcm *gcm, const uint8_t key[TTO_KEY_BYTES]) {
  br_aes_x86ni_ctr_init(&gcm->key, key, TTO_KEY_BYTES);
  gcm->key.vtable = &br_aes_x86ni_ctr_vtable;
  br_gcm_init(&gcm->context, &gcm->key.vtable, br_ghash_pclmul);
}

void tte_gcm_begin(tte_gcm *gcm, const uint8_t nonce[TTO_NONCE_BYTES], const void *associated,
                   size_t associated_bytes) {
  br_gcm_reset(&gcm->context, nonce, TTO_NONCE_BYTES);
  if (associated_bytes) br_gcm_aad_inject(&gcm->context, associated, associated_bytes);
  br_gcm_flip(&gcm->context);
}

void tte_gcm_run(tte_gcm *gcm, int encrypts, const void *from, size_t bytes, void *to) {
  if (to != from) memmove(to, from, bytes);
  br_gcm_run(&gcm->context, encrypts, to, bytes);
}

void tte_gcm_end(tte_gcm *gcm, int encrypts, uint8_t tag[TTO_TAG_BYTES]) {
  (void)encrypts;
  br_gcm_get_tag(&gcm->context, tag);
}

#endif
