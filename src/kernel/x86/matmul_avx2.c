/* Quantized matmuls with AVX2: products of bytes are added in 16 bits over a group. */
#include "kernel/x86/simd256.h"

enum { TILE_ROWS = 4, DOTS = 0 };

static inline __m256i sum_line(__m256i sum, __m256i w, __m256i x)
{
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
}

static inline __m256i sum_total(__m256i sum)
{
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

static inline __m256i madd_i(__m256i sum, __m256i a, __m256i b)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}

#include "kernel/x86/blocked.h"

MATMULS(avx2)
