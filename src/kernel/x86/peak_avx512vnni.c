#include "kernel/peak.h"

#include <immintrin.h>

enum { SUMS = 16 };

uint64_t sl_peak_int8_avx512vnni(uint64_t rounds, float *sink)
{
    __m512i acc[SUMS], a = _mm512_set1_epi8((char)*sink), b = _mm512_set1_epi8(3);
    for (int i = 0; i < SUMS; i++)
        acc[i] = _mm512_set1_epi32(i);
    for (uint64_t n = 0; n < rounds; n++) {
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++)
            acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
    }
    for (int i = 0; i < SUMS; i++)
        *sink += (float)(_mm512_reduce_add_epi32(acc[i]) & 1);
    return rounds * SUMS * 64 * 2;
}
