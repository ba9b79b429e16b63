/* The enclave's AES-256-GCM on standard input, which is a key, a nonce, the lengths of associated data and of the text
 * (uint32_t), and both: seals in pieces, as aead.c does, to standard output with the tag after it, and opens that
 * again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gcm.h"

enum { PIECE_BYTES = 4096, MOST_BYTES = 1 << 20 };

static void run(tte_gcm *gcm, int encrypts, const uint8_t *from, size_t bytes, uint8_t *to) {
  for (size_t at = 0; at < bytes || at == 0; at += PIECE_BYTES)
    tte_gcm_run(gcm, encrypts, from + at, bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES, to + at);
}

int main(void) {
  static uint8_t associated[MOST_BYTES], text[MOST_BYTES], sealed[MOST_BYTES], opened[MOST_BYTES];
  static _Alignas(64) tte_gcm gcm;
  uint8_t key[TTO_KEY_BYTES], nonce[TTO_NONCE_BYTES], tag[TTO_TAG_BYTES], again[TTO_TAG_BYTES];
  uint32_t bytes[2];
  if (fread(key, sizeof key, 1, stdin) != 1 || fread(nonce, sizeof nonce, 1, stdin) != 1 ||
      fread(bytes, sizeof bytes, 1, stdin) != 1 || bytes[0] > MOST_BYTES || bytes[1] > MOST_BYTES ||
      fread(associated, 1, bytes[0], stdin) != bytes[0] || fread(text, 1, bytes[1], stdin) != bytes[1])
    return 2;
  tte_gcm_set_key(&gcm, key);
  tte_gcm_begin(&gcm, nonce, associated, bytes[0]);
  run(&gcm, 1, text, bytes[1], sealed);
  tte_gcm_end(&gcm, 1, tag);
  tte_gcm_begin(&gcm, nonce, associated, bytes[0]);
  run(&gcm, 0, sealed, bytes[1], opened);
  tte_gcm_end(&gcm, 0, again);
  if (memcmp(tag, again, sizeof tag) != 0 || memcmp(text, opened, bytes[1]) != 0) return 3;
  return fwrite(sealed, 1, bytes[1], stdout) == bytes[1] && fwrite(tag, sizeof tag, 1, stdout) == 1 ? 0 : 4;
}
