/* sl_q8 rows (kernel/ops.h) with AVX2; the plain C's arithmetic, a group in four registers. */
#include "kernel/kernels.h"

#include <immintrin.h>
#include <string.h>

/* Largest of the 8 lanes. */
static inline uint32_t reduce_max(__m256i v)
{
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

/* round(x * inv) to nearest even as int32. */
static inline __m256i round_scaled(__m256 x, __m256 inv)
{
    const __m256 magic = _mm256_set1_ps(0x1.8p23f);
    return _mm256_sub_epi32(_mm256_castps_si256(_mm256_add_ps(_mm256_mul_ps(x, inv), magic)),
                            _mm256_castps_si256(magic));
}

/* Quantizes one group; *half gets its two sums. Returns its scale. */
static float quantize_group(int8_t *q, const float *x, int16_t half[2])
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256 v[4];
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        top = _mm256_max_epu32(top, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
    }
    uint32_t bits = reduce_max(top);
    float amax;
    memcpy(&amax, &bits, sizeof amax);
    if (!(amax >= 0x1p-100f && amax <= 0x1.fffffep127f)) {
        memset(q, 0, SL_GROUP);
        half[0] = half[1] = 0;
        return amax < 0x1p-100f ? 0.0f : __builtin_nanf("");
    }
    __m256 inv = _mm256_set1_ps(127.0f / amax);
    __m256i low = _mm256_packs_epi32(round_scaled(v[0], inv), round_scaled(v[1], inv));
    __m256i high = _mm256_packs_epi32(round_scaled(v[2], inv), round_scaled(v[3], inv));
    /* Packing goes lane by lane of 128 bits: dwords 0 2 4 6 | 1 3 5 7 of the group. */
    __m256i all = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)q, all);
    /* Byte sums by vpsadbw, which is unsigned: each byte lifted by 128, 16 of them in a half. */
    __m256i sums = _mm256_sad_epu8(_mm256_xor_si256(all, _mm256_set1_epi8((char)0x80)), _mm256_setzero_si256());
    half[0] = (int16_t)(_mm256_extract_epi16(sums, 0) + _mm256_extract_epi16(sums, 4) - 16 * 128);
    half[1] = (int16_t)(_mm256_extract_epi16(sums, 8) + _mm256_extract_epi16(sums, 12) - 16 * 128);
    return amax / 127.0f;
}

void sl_quantize_q8_avx2(void *y, const float *x, size_t n)
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
