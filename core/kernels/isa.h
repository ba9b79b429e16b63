/* The instruction set that a kernel source is compiled for: TTI_ISA names it, TTI_CODE counts it. */
#ifndef TTI_ISA_H
#define TTI_ISA_H

#define TTI_JOIN2(a, b) a##b
#define TTI_JOIN(a, b) TTI_JOIN2(a, b)
#define TTI_STRING2(a) #a
#define TTI_STRING(a) TTI_STRING2(a)
#define TTI_CODE_portable 0
#define TTI_CODE_neon 1
#define TTI_CODE_neondot 1
#define TTI_CODE_avx2 2
#define TTI_CODE_avx512 3
#define TTI_CODE_avx512vnni 3
#define TTI_CODE TTI_JOIN(TTI_CODE_, TTI_ISA)

/* Whether it has dot products of four bytes. */
#define TTI_DOT_portable 0
#define TTI_DOT_neon 0
#define TTI_DOT_neondot 1
#define TTI_DOT_avx2 0
#define TTI_DOT_avx512 0
#define TTI_DOT_avx512vnni 1
#define TTI_DOT TTI_JOIN(TTI_DOT_, TTI_ISA)

#endif
