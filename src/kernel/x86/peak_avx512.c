/* What AVX-512 without VNNI does at most with whole bytes, as peak_avx2.c says. */
#include "kernel/peak.h"

#include <immintrin.h>

enum { SUMS = 12 };

uint64_t sl_peak_int8_avx512(uint64_t rounds, float *sink)
{
    __m512i acc[SUMS], a = _mm512_set1_epi8((char)*sink), b = _mm512_set1_epi8(3);
    const __m512i ones = _mm512_set1_epi16(1);
    for (int i = 0; i < SUMS; i++)
        acc[i] = _mm512_set1_epi32(i);
    for (uint64_t n = 0; n < rounds; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) {
            __asm__("" : "+v"(a)); /* else one product would do for all */
            acc[i] = _mm512_add_epi32(acc[i], _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), ones));
        }
    }
    for (int i = 1; i < SUMS; i++)
        acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    *sink += (float)(_mm512_reduce_add_epi32(acc[0]) & 1);
    return rounds * SUMS * 64 * 2;
}
