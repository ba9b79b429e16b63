/* Seconds that the engine's decoders take, the least of so many repeats; see core/kernels/kernels.h. Negative: a stream
 * does not end as it must. */
double decode_codes(unsigned coding, const unsigned char *codes, const float *scales, unsigned long rows,
                    unsigned long panel, float *out, int repeats);
/* head: a stream as tt_op has it, without low bits. */
double decode_streams(const unsigned char *alphabet, const unsigned char *head, unsigned word_count, unsigned rate,
                      const float *scales, const unsigned char *low, unsigned long rows, unsigned long group,
                      unsigned long panel, float *out, int repeats);
