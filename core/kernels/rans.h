/* Entropy-coded weights: eight interleaved rANS states (Duda, arXiv 1311.2540; interleaved after Giesen, arXiv
 * 1402.3392), decoded without a branch or an address that depends on what is decoded.
 *
 * A state is at least 2^16 between steps. A step finds the symbol whose starts[symbol] <= state % 2^12 is the last, by
 * 15 comparisons; takes it off the state; and appends a 16-bit word of the stream to each state that fell below 2^16,
 * in the order of the lanes. How many words that takes is a secret: the next word's place is therefore looked for,
 * within registers, in a window of TT_STREAM_WINDOW words whose own place depends on the step's number alone. Places
 * are taken modulo the window, so that no stream leads outside it.
 *
 *     rate 1.5 words a step:  step 0, words 0 .. 63;  step 1, words 1 .. 64;  step 2, words 3 .. 66; ...
 */
#ifndef TTI_RANS_H
#define TTI_RANS_H

typedef uint8_t v16b __attribute__((vector_size(16)));
typedef uint16_t v8h __attribute__((vector_size(16)));
typedef int16_t v8s __attribute__((vector_size(16)));
typedef uint32_t v4u __attribute__((vector_size(16)));
typedef int32_t v4i __attribute__((vector_size(16)));
typedef float v4f __attribute__((vector_size(16)));
typedef uint8_t v8b __attribute__((vector_size(8)));

#define TTI_LOAD(type, from)                                                                                           \
  ({                                                                                                                   \
    type loaded;                                                                                                       \
    __builtin_memcpy(&loaded, from, sizeof loaded);                                                                    \
    loaded;                                                                                                            \
  })

/* table[index], 0 where index is 128 and more; others are below 16. */
TTI_INLINE v16b in_table(v16b table, v16b index) {
#if TTI_CODE == TTI_CODE_avx512 || TTI_CODE == TTI_CODE_avx2
  return (v16b)_mm_shuffle_epi8((__m128i)table, (__m128i)index);
#elif TTI_CODE == TTI_CODE_neon
  return (v16b)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)index);
#else
  v16b found = {0};
  for (int i = 0; i < 16; i++) found |= (v16b)(index == (uint8_t)i) & table[i];
  return found;
#endif
}

/* Each symbol's 16 bits, of which 'low' and 'high' hold the bytes. */
TTI_INLINE v8h of_symbols(v16b low, v16b high, v8h symbols) {
  return (v8h)(in_table(low, (v16b)(symbols | 0x8000)) | in_table(high, (v16b)(symbols << 8 | 0x80)));
}

/* words[place], place < TT_STREAM_WINDOW. */
TTI_INLINE v8h in_window(const uint16_t *words, v8h places) {
#if TTI_CODE == TTI_CODE_avx512
  const __m512i low = _mm512_loadu_si512(words), high = _mm512_loadu_si512(words + 32);
  return (v8h)_mm512_castsi512_si128(_mm512_permutex2var_epi16(low, _mm512_castsi128_si512((__m128i)places), high));
#elif TTI_CODE == TTI_CODE_avx2
  const __m256i place = _mm256_cvtepu16_epi32((__m128i)places), pair = _mm256_srli_epi32(place, 1);
  __m256 found[4];
  for (int i = 0; i < 4; i++)
    found[i] = _mm256_permutevar8x32_ps(_mm256_loadu_ps((const float *)(const void *)(words + 16 * i)), pair);
  const __m256 bit3 = _mm256_castsi256_ps(_mm256_slli_epi32(pair, 28));
  const __m256 bit4 = _mm256_castsi256_ps(_mm256_slli_epi32(pair, 27));
  const __m256 first = _mm256_blendv_ps(found[0], found[1], bit3), last = _mm256_blendv_ps(found[2], found[3], bit3);
  const __m256i pairs = _mm256_castps_si256(_mm256_blendv_ps(first, last, bit4));
  const __m256i odd = _mm256_slli_epi32(_mm256_and_si256(place, _mm256_set1_epi32(1)), 4);
  const __m256i word = _mm256_and_si256(_mm256_srlv_epi32(pairs, odd), _mm256_set1_epi32(0xFFFF));
  return (v8h)_mm_packus_epi32(_mm256_castsi256_si128(word), _mm256_extracti128_si256(word, 1));
#elif TTI_CODE == TTI_CODE_neon
  const uint8_t *bytes = (const uint8_t *)words;
  const uint8x16x4_t low = vld1q_u8_x4(bytes), high = vld1q_u8_x4(bytes + 64);
  const uint8x16_t at = (uint8x16_t)(places * 0x0202 + 0x0100);
  return (v8h)vqtbx4q_u8(vqtbl4q_u8(low, at), high, vsubq_u8(at, vdupq_n_u8(64)));
#else
  v8h found = {0};
  for (int i = 0; i < TT_STREAM_WINDOW; i++) found |= (v8h)(places == (uint16_t)i) & words[i];
  return found;
#endif
}

/* The low halves of eight words, and eight halves as words with zeros above. */
TTI_INLINE v8h narrow(v4u a, v4u b) { return TTI_SHUFFLE(v8h, (v8h)a, (v8h)b, 0, 2, 4, 6, 8, 10, 12, 14); }
TTI_INLINE v4u widen_low(v8h a) { return (v4u)TTI_SHUFFLE(v8h, a, (v8h){0}, 0, 8, 1, 9, 2, 10, 3, 11); }
TTI_INLINE v4u widen_high(v8h a) { return (v4u)TTI_SHUFFLE(v8h, a, (v8h){0}, 4, 12, 5, 13, 6, 14, 7, 15); }

/* Element i is the sum of elements 0 .. i. */
TTI_INLINE v8h running_sums(v8h a) {
  const v8h zero = {0};
  a += TTI_SHUFFLE(v8h, zero, a, 7, 8, 9, 10, 11, 12, 13, 14);
  a += TTI_SHUFFLE(v8h, zero, a, 6, 7, 8, 9, 10, 11, 12, 13);
  return a + TTI_SHUFFLE(v8h, zero, a, 4, 5, 6, 7, 8, 9, 10, 11);
}

typedef struct rans {
  v4u low, high; /* states of lanes 0 .. 3, 4 .. 7 */
  v8h place;     /* in the stream, of the next word: the same in all lanes */
  v8s starts[16];
  v16b start[2], frequency[2]; /* low bytes, high bytes */
} rans;

TTI_INLINE v4u advanced(v4u state, v4u frequency, v4u above) { return frequency * (state >> 12) + above; }

/* The next symbol of each lane; the window begins at words[begin]. */
TTI_INLINE v8h rans_step(rans *d, const uint16_t *words, uint32_t begin) {
  const v8h slot = narrow(d->low & 4095, d->high & 4095);
  v8h symbols = (v8h){0} + 15;
  _Pragma("GCC unroll 16") for (int i = 1; i < 16; i++) symbols += (v8h)(d->starts[i] > (v8s)slot);
  const v8h frequency = of_symbols(d->frequency[0], d->frequency[1], symbols);
  const v8h above = slot - of_symbols(d->start[0], d->start[1], symbols);
  d->low = advanced(d->low, widen_low(frequency), widen_low(above));
  d->high = advanced(d->high, widen_high(frequency), widen_high(above));
  const v4u low_falls = (v4u)(d->low >> 16 == 0), high_falls = (v4u)(d->high >> 16 == 0);
  const v8h falls = narrow(low_falls, high_falls), sums = running_sums(falls & 1);
  const v8h word = in_window(words + begin, (d->place - (uint16_t)begin + sums + falls) & (TT_STREAM_WINDOW - 1));
  d->low = (low_falls & (d->low << 16 | widen_low(word))) | (~low_falls & d->low);
  d->high = (high_falls & (d->high << 16 | widen_high(word))) | (~high_falls & d->high);
  d->place += TTI_SHUFFLE(v8h, sums, sums, 7, 7, 7, 7, 7, 7, 7, 7);
  return symbols;
}

/* The panel and whether there are low bits are constants at every call. */
TTI_INLINE int decode_stream_of(const size_t panel, const int has_low, const tti_stream *s) {
  rans d;
  for (int i = 0; i < 2; i++) {
    d.start[i] = TTI_LOAD(v16b, s->alphabet + 16 * i);
    d.frequency[i] = TTI_LOAD(v16b, s->alphabet + 32 + 16 * i);
  }
  for (int i = 0; i < 16; i++) d.starts[i] = (v8s){0} + (int16_t)(s->alphabet[i] | s->alphabet[16 + i] << 8);
  d.low = TTI_LOAD(v4u, s->states);
  d.high = TTI_LOAD(v4u, s->states + 4);
  d.place = (v8h){0} + (uint16_t)s->place;
  const uint16_t *const words = s->words;
  const uint32_t last = s->word_count - TT_STREAM_WINDOW;
  const float *scales = s->scales;
  float *out = s->out;
  uint32_t step = 0;
  for (size_t row = 0; row < s->rows; row++) {
    if (row && row % s->group == 0) scales += panel;
    for (size_t n = 0; n < panel; n += 8, step++) {
      const uint32_t due = step * s->rate >> TT_STREAM_RATE_BITS;
      v8h codes = rans_step(&d, words, due < last ? due : last) - 8;
      if (has_low) {
        const v8b pairs = TTI_LOAD(v8b, s->low + row / 2 * panel + n);
        codes = codes << 4 | (__builtin_convertvector(pairs, v8h) >> row % 2 * 4 & 15);
      }
      const v4i first = (v4i)widen_low(codes) << 16, second = (v4i)widen_high(codes) << 16; /* to extend signs */
      const v4f a = __builtin_convertvector(first >> 16, v4f) * TTI_LOAD(v4f, scales + n);
      const v4f b = __builtin_convertvector(second >> 16, v4f) * TTI_LOAD(v4f, scales + n + 4);
      __builtin_memcpy(out + n, &a, sizeof a);
      __builtin_memcpy(out + n + 4, &b, sizeof b);
    }
    out += panel;
  }
  const v4u wrong = (d.low ^ 0x10000) | (d.high ^ 0x10000) | widen_low(d.place ^ (uint16_t)s->word_count);
  return (wrong[0] | wrong[1] | wrong[2] | wrong[3] | s->place >> 16) != 0;
}

static int decode_stream(const tti_stream *s) {
  if (s->panel == 32) return s->low ? decode_stream_of(32, 1, s) : decode_stream_of(32, 0, s);
  if (s->panel == 16) return s->low ? decode_stream_of(16, 1, s) : decode_stream_of(16, 0, s);
  return s->low ? decode_stream_of(8, 1, s) : decode_stream_of(8, 0, s);
}

#undef TTI_LOAD
#endif
