/* 256-bit registers as blocked.h wants them: 8 outputs each. */
#ifndef SL_KERNEL_X86_SIMD256_H
#define SL_KERNEL_X86_SIMD256_H

#include <immintrin.h>

typedef __m256i vi;
typedef __m256 vf;
#define VI "x"
enum { PARTS = 2 };

#define load_i(p)   _mm256_load_si256((const __m256i *)(const void *)(p))
#define spread_i(p) _mm256_castps_si256(_mm256_broadcast_ss((const float *)(const void *)(p)))
#define add_i       _mm256_add_epi32
#define zero_i      _mm256_setzero_si256
#define load_f      _mm256_loadu_ps
#define store_f     _mm256_storeu_ps
#define spread_f(p) _mm256_broadcast_ss(p)
#define fma_f       _mm256_fmadd_ps
#define as_f        _mm256_castsi256_ps
#define zero_f      _mm256_setzero_ps
/* 16 registers are few: a tile's float sums stay in memory between groups and leave them to the integers. */
#define in_memory(acc) __asm__("" : : "r"(acc) : "memory")

#endif
