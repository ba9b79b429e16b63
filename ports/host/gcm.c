/* See the header. The library's functions come in a table for the processor at hand (IMB_MGR); those used here keep no
 * state in it, so that one serves all threads. */
#include "gcm.h"

#include <intel-ipsec-mb.h>
#include <pthread.h>
#include <string.h>

#include "tinytee_program.h"
#include "wipe.h"

enum { PIECE_BYTES = 32 * 1024 };

_Static_assert(sizeof(struct gcm_key_data) <= TTHI_GCM_KEY_BYTES, "an expanded key fits its place");

static pthread_once_t once = PTHREAD_ONCE_INIT;
static IMB_MGR *functions;

static const struct gcm_key_data *data_of(const tthi_gcm_key *key) {
  return (const struct gcm_key_data *)(const void *)key->bytes;
}

static void expand(const uint8_t *key, tthi_gcm_key *expanded) {
  IMB_AES256_GCM_PRE(functions, key, (struct gcm_key_data *)(void *)expanded->bytes);
}

static void open_text(const tthi_gcm_key *key, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                      const uint8_t *ciphertext, size_t bytes, uint8_t *plain, int copy_first, uint8_t *tag) {
  struct gcm_context_data context;
  const size_t step = copy_first ? PIECE_BYTES : bytes;
  IMB_AES256_GCM_INIT(functions, data_of(key), &context, nonce, associated, associated_bytes);
  for (size_t at = 0; at < bytes; at += step) {
    const size_t piece = bytes - at < step ? bytes - at : step;
    if (copy_first) memmove(plain + at, ciphertext + at, piece);
    IMB_AES256_GCM_DEC_UPDATE(functions, data_of(key), &context, plain + at, (copy_first ? plain : ciphertext) + at,
                              piece);
  }
  IMB_AES256_GCM_DEC_FINALIZE(functions, data_of(key), &context, tag, TT_TAG_BYTES);
  tthi_wipe(&context, sizeof context);
}

static void seal_text(const tthi_gcm_key *key, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                      const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag) {
  struct gcm_context_data context;
  IMB_AES256_GCM_ENC(functions, data_of(key), &context, ciphertext, plain, bytes, nonce, associated, associated_bytes,
                     tag, TT_TAG_BYTES);
  tthi_wipe(&context, sizeof context);
}

/* Without AES instructions the library would look bytes up by secrets. */
static void find_functions(void) {
  IMB_MGR *found = alloc_mb_mgr(0);
  if (found == NULL) return;
  init_mb_mgr_auto(found, NULL);
  if (imb_get_errno(found) == 0 && found->features & IMB_FEATURE_AESNI)
    functions = found;
  else
    free_mb_mgr(found);
}

const tthi_gcm *tthi_gcm_find(void) {
  static const tthi_gcm gcm = {expand, open_text, seal_text};
  return pthread_once(&once, find_functions) == 0 && functions != NULL ? &gcm : NULL;
}
