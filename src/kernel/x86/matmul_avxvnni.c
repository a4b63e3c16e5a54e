/* Quantized matmuls with AVX-VNNI: four products of bytes at a time in 32 bits. */
#include "kernel/x86/simd256.h"

enum { TILE_ROWS = 6, DOTS = 1 };

static inline __m256i sum_line(__m256i sum, __m256i w, __m256i x)
{
    return _mm256_dpbusd_avx_epi32(sum, w, x);
}

static inline __m256i sum_total(__m256i sum)
{
    return sum;
}

static inline __m256i madd_i(__m256i sum, __m256i a, __m256i b)
{
    return _mm256_dpwssd_avx_epi32(sum, a, b);
}

#include "kernel/x86/blocked.h"

MATMULS(avxvnni)
