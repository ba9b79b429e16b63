/* See peak.c. */
#ifndef PEAK_H
#define PEAK_H
#include <stddef.h>
#include <stdint.h>

/* Floating-point operations a second, two for a multiply-accumulate, all in registers. */
double peak_flops(void);

/* Integer operations a second, two for a multiply-accumulate of uint8 and int8 to int32, all in registers; 0 where the
 * processor has no instruction for their dot products. */
double peak_dots(void);

/* Bytes read a second, over and over a buffer of that size (a multiple of 512). */
double peak_read(size_t bytes, long passes);

/* Bytes read plus bytes written a second, copying that many. */
double peak_copy(size_t bytes, long passes);

#endif
