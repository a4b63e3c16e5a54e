#include "kernel/peak.h"

#include <immintrin.h>

enum { SUMS = 12 };

uint64_t sl_peak_int8_avxvnni(uint64_t rounds, float *sink)
{
    __m256i acc[SUMS], a = _mm256_set1_epi8((char)*sink), b = _mm256_set1_epi8(3);
    for (int i = 0; i < SUMS; i++)
        acc[i] = _mm256_set1_epi32(i);
    for (uint64_t n = 0; n < rounds; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++)
            acc[i] = _mm256_dpbusd_avx_epi32(acc[i], a, b);
    }
    for (int i = 1; i < SUMS; i++)
        acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    *sink += (float)(_mm256_extract_epi32(acc[0], 0) & 1);
    return rounds * SUMS * 32 * 2;
}
