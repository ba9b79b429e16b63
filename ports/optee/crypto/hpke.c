/* See the header. LabeledExtract and LabeledExpand are RFC 9180, section 4; encapsulation 4.1; the key schedule 5.1.
 * What is expanded is at most one hash long: HKDF-Expand is then one HMAC (RFC 5869, section 2.3). */
#include "hpke.h"

#include <string.h>

#define TEXT(literal) ((tto_part){(literal), sizeof(literal) - 1})

static const char version[] = "HPKE-v1";
static const uint8_t kem_suite[] = {'K', 'E', 'M', 0x00, 0x20};
static const uint8_t suite[] = {'H', 'P', 'K', 'E', 0x00, 0x20, 0x00, 0x01, 0x00, 0x03};

typedef struct scope {
  const uint8_t *suite_id;
  size_t bytes;
} scope;

static const scope in_kem = {kem_suite, sizeof kem_suite}, in_hpke = {suite, sizeof suite};

static int extract(scope s, const uint8_t *salt, size_t salt_bytes, tto_part label, const void *ikm, size_t ikm_bytes,
                   uint8_t secret[TTO_HASH_BYTES]) {
  const tto_part parts[] = {{version, sizeof version - 1}, {s.suite_id, s.bytes}, label, {ikm, ikm_bytes}};
  return tto_hmac(salt, salt_bytes, parts, sizeof parts / sizeof parts[0], secret);
}

static int expand(scope s, const uint8_t secret[TTO_HASH_BYTES], tto_part label, const void *info, size_t info_bytes,
                  uint8_t *out, size_t bytes) {
  const uint8_t length[] = {(uint8_t)(bytes >> 8), (uint8_t)bytes}, counter = 1;
  const tto_part parts[] = {{length, sizeof length}, {version, sizeof version - 1},
                            {s.suite_id, s.bytes},   label,
                            {info, info_bytes},      {&counter, 1}};
  uint8_t block[TTO_HASH_BYTES];
  const int failed = tto_hmac(secret, TTO_HASH_BYTES, parts, sizeof parts / sizeof parts[0], block);
  memcpy(out, block, bytes);
  tto_wipe(block, sizeof block);
  return failed;
}

static int schedule(const tto_hpke *m, uint8_t key[TTO_KEY_BYTES], uint8_t nonce[TTO_NONCE_BYTES]) {
  static const uint8_t zeroes[32];
  int failed = tto_equal(m->dh, zeroes, sizeof zeroes) ? -1 : 0;
  uint8_t secret[TTO_HASH_BYTES] = {0}, kem_context[64], context[1 + 2 * TTO_HASH_BYTES] = {0}; /* mode_base */
  memcpy(kem_context, m->enc, 32);
  memcpy(kem_context + 32, m->recipient, 32);
  failed |= extract(in_kem, NULL, 0, TEXT("eae_prk"), m->dh, 32, secret);
  failed |= expand(in_kem, secret, TEXT("shared_secret"), kem_context, sizeof kem_context, secret, sizeof secret);
  failed |= extract(in_hpke, NULL, 0, TEXT("psk_id_hash"), NULL, 0, context + 1);
  failed |= extract(in_hpke, NULL, 0, TEXT("info_hash"), m->info, m->info_bytes, context + 1 + TTO_HASH_BYTES);
  failed |= extract(in_hpke, secret, sizeof secret, TEXT("secret"), NULL, 0, secret);
  failed |= expand(in_hpke, secret, TEXT("key"), context, sizeof context, key, TTO_KEY_BYTES);
  failed |= expand(in_hpke, secret, TEXT("base_nonce"), context, sizeof context, nonce, TTO_NONCE_BYTES);
  tto_wipe(secret, sizeof secret);
  return failed;
}

int tto_hpke_open(const tto_hpke *message, const uint8_t *sealed, size_t bytes, uint8_t *plain) {
  uint8_t key[TTO_KEY_BYTES], nonce[TTO_NONCE_BYTES];
  int failed = schedule(message, key, nonce);
  if (!failed) failed = tto_chacha_open(key, nonce, NULL, 0, sealed, bytes, sealed + bytes, plain);
  if (failed) tto_wipe(plain, bytes);
  tto_wipe(key, sizeof key);
  return failed;
}

int tto_hpke_seal(const tto_hpke *message, uint8_t *plain, size_t bytes, uint8_t *sealed) {
  uint8_t key[TTO_KEY_BYTES], nonce[TTO_NONCE_BYTES];
  const int failed = schedule(message, key, nonce);
  if (!failed) tto_chacha_seal(key, nonce, NULL, 0, plain, bytes, sealed, sealed + bytes);
  tto_wipe(key, sizeof key);
  return failed;
}
