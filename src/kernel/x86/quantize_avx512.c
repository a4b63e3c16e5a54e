/* sl_q8 rows (kernel/ops.h) with AVX-512; the plain C's arithmetic, a group in two registers. */
#include "kernel/kernels.h"

#include <immintrin.h>
#include <string.h>

/* round(x * inv) to nearest even as int32. */
static inline __m512i round_scaled(__m512 x, __m512 inv)
{
    const __m512 magic = _mm512_set1_ps(0x1.8p23f);
    return _mm512_sub_epi32(_mm512_castps_si512(_mm512_add_ps(_mm512_mul_ps(x, inv), magic)),
                            _mm512_castps_si512(magic));
}

/* Quantizes one group; *half gets its two sums. Returns its scale. */
static float quantize_group(int8_t *q, const float *x, int16_t half[2])
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    uint32_t bits = _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(a), magnitude),
                                                             _mm512_and_si512(_mm512_castps_si512(b), magnitude)));
    float amax;
    memcpy(&amax, &bits, sizeof amax);
    if (!(amax >= 0x1p-100f && amax <= 0x1.fffffep127f)) {
        memset(q, 0, SL_GROUP);
        half[0] = half[1] = 0;
        return amax < 0x1p-100f ? 0.0f : __builtin_nanf("");
    }
    __m512 inv = _mm512_set1_ps(127.0f / amax);
    __m128i qa = _mm512_cvtepi32_epi8(round_scaled(a, inv)), qb = _mm512_cvtepi32_epi8(round_scaled(b, inv));
    _mm_storeu_si128((__m128i *)(void *)q, qa);
    _mm_storeu_si128((__m128i *)(void *)(q + 16), qb);
    /* Byte sums by vpsadbw, which is unsigned: each byte lifted by 128, 16 of them in a half. */
    const __m256i lift = _mm256_set1_epi8((char)0x80);
    __m256i sums = _mm256_sad_epu8(_mm256_xor_si256(_mm256_set_m128i(qb, qa), lift), _mm256_setzero_si256());
    half[0] = (int16_t)(_mm256_extract_epi16(sums, 0) + _mm256_extract_epi16(sums, 4) - 16 * 128);
    half[1] = (int16_t)(_mm256_extract_epi16(sums, 8) + _mm256_extract_epi16(sums, 12) - 16 * 128);
    return amax / 127.0f;
}

void sl_quantize_q8_avx512(void *y, const float *x, size_t n)
{
    size_t groups = n / SL_GROUP;
    int8_t *q = y;
    float *scale = (float *)(void *)(q + n), *sum = scale + groups;
    int16_t *half_sum = (int16_t *)(void *)(sum + groups);
    for (size_t g = 0; g < groups; g++) {
        scale[g] = quantize_group(q + g * SL_GROUP, x + g * SL_GROUP, half_sum + 2 * g);
        sum[g] = scale[g] * (float)(half_sum[2 * g] + half_sum[2 * g + 1]);
    }
}
