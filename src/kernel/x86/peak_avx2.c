/* What AVX2 does at most with whole bytes: products in pairs, pairs of those, and the sum, exact as long as neither
 * operand's magnitude exceeds 128 in both of a pair. (4-bit weights let sums stay in 16 bits, and can go beyond.) */
#include "kernel/peak.h"

#include <immintrin.h>

enum { SUMS = 12 };

uint64_t sl_peak_int8_avx2(uint64_t rounds, float *sink)
{
    __m256i acc[SUMS], a = _mm256_set1_epi8((char)*sink), b = _mm256_set1_epi8(3);
    const __m256i ones = _mm256_set1_epi16(1);
    for (int i = 0; i < SUMS; i++)
        acc[i] = _mm256_set1_epi32(i);
    for (uint64_t n = 0; n < rounds; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) {
            __asm__("" : "+x"(a)); /* else one product would do for all */
            acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        }
    }
    for (int i = 1; i < SUMS; i++)
        acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    *sink += (float)(_mm256_extract_epi32(acc[0], 0) & 1);
    return rounds * SUMS * 32 * 2;
}
