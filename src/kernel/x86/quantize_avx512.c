/* sl_q8 rows (kernel/ops.h) with AVX-512; the plain C's arithmetic, four groups at a time. */
#include "kernel/kernels.h"

#include <immintrin.h>

/* round(x * inv) to nearest even as int32. */
static inline __m512i round_scaled(__m512 x, __m512 inv)
{
    const __m512 magic = _mm512_set1_ps(0x1.8p23f);
    return _mm512_sub_epi32(_mm512_castps_si512(_mm512_add_ps(_mm512_mul_ps(x, inv), magic)),
                            _mm512_castps_si512(magic));
}

/* Largest lane of each of four vectors of unsigned integers. */
static inline __m128i max_of_each(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_max_epu32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_max_epu32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    __m512i all = _mm512_max_epu32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    __m256i half = _mm256_max_epu32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_max_epu32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* The bytes of four vectors of int32 within int8, one vector after the other. */
static inline __m512i pack_bytes(const __m512i v[4])
{
    /* The packs work in each 128 bits apart: four lanes of each vector follow each other. */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i packed = _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
    return _mm512_permutexvar_epi32(order, packed);
}

/* Sums of 16 bytes each, of 128 bytes in two vectors, as eight int16. By vpsadbw, which adds 8 and is unsigned: each
 * byte is lifted by 128. */
static inline __m128i half_sums(__m512i a, __m512i b)
{
    const __m512i lift = _mm512_set1_epi8((char)0x80), zero = _mm512_setzero_si512();
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m512i eights_a = _mm512_sad_epu8(_mm512_xor_si512(a, lift), zero);
    __m512i eights_b = _mm512_sad_epu8(_mm512_xor_si512(b, lift), zero);
    __m512i sums = _mm512_add_epi64(_mm512_unpacklo_epi64(eights_a, eights_b),
                                    _mm512_unpackhi_epi64(eights_a, eights_b)); /* a and b in turn */
    return _mm_shuffle_epi8(_mm512_cvtepi64_epi16(_mm512_sub_epi64(sums, _mm512_set1_epi64(16 * 128))), order);
}

/* Quantizes groups [0, n), n at most 4; the others are taken as zero and not written. */
static void quantize_groups(int8_t *q, float *scale, float *sum, int16_t *half_sum, const float *x, const int n)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512 v[8];
    __m512i most[4], bytes[2], ints[8];
    for (int h = 0; h < 8; h++)
        v[h] = h < 2 * n ? _mm512_loadu_ps(x + 16 * h) : _mm512_setzero_ps();
    for (int g = 0; g < 4; g++)
        most[g] = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(v[2 * g]), magnitude),
                                   _mm512_and_si512(_mm512_castps_si512(v[2 * g + 1]), magnitude));
    __m128 amax = _mm_castsi128_ps(max_of_each(most[0], most[1], most[2], most[3]));
    __mmask8 tiny = _mm_cmp_ps_mask(amax, _mm_set1_ps(0x1p-100f), _CMP_LT_OQ);
    __mmask8 sound = _mm_cmp_ps_mask(amax, _mm_set1_ps(0x1.fffffep127f), _CMP_LE_OQ) & (__mmask8)~tiny;
    __m128 inv = _mm_div_ps(_mm_set1_ps(127.0f), amax), nan = _mm_castsi128_ps(_mm_set1_epi32(0x7fc00000));
    __m128 scales = _mm_mask_div_ps(_mm_mask_mov_ps(nan, tiny, _mm_setzero_ps()), sound, amax, _mm_set1_ps(127.0f));
    for (int g = 0; g < 4; g++) {
        __m512 factor = _mm512_permutexvar_ps(_mm512_set1_epi32(g), _mm512_castps128_ps512(inv));
        __mmask16 keep = (__mmask16)(sound >> g & 1 ? 0xffff : 0);
        ints[2 * g] = _mm512_maskz_mov_epi32(keep, round_scaled(v[2 * g], factor));
        ints[2 * g + 1] = _mm512_maskz_mov_epi32(keep, round_scaled(v[2 * g + 1], factor));
    }
    bytes[0] = pack_bytes(ints);
    bytes[1] = pack_bytes(ints + 4);
    __m128i halves = half_sums(bytes[0], bytes[1]);
    __m128 sums = _mm_mul_ps(scales, _mm_cvtepi32_ps(_mm_madd_epi16(halves, _mm_set1_epi16(1))));
    const __mmask8 groups = (__mmask8)((1 << n) - 1);
    _mm512_mask_storeu_epi32(q, n > 1 ? 0xffff : 0xff, bytes[0]);
    _mm512_mask_storeu_epi32(q + 64, n > 3 ? 0xffff : n > 2 ? 0xff : 0, bytes[1]);
    _mm_mask_storeu_ps(scale, groups, scales);
    _mm_mask_storeu_ps(sum, groups, sums);
    _mm_mask_storeu_epi32(half_sum, groups, halves);
}

void sl_quantize_q8_avx512(void *y, const float *x, size_t n)
{
    size_t groups = n / SL_GROUP, g = 0;
    int8_t *q = y;
    float *scale = (float *)(void *)(q + n), *sum = scale + groups;
    int16_t *half_sum = (int16_t *)(void *)(sum + groups);
    for (; g + 4 <= groups; g += 4)
        quantize_groups(q + g * SL_GROUP, scale + g, sum + g, half_sum + 2 * g, x + g * SL_GROUP, 4);
    if (g < groups)
        quantize_groups(q + g * SL_GROUP, scale + g, sum + g, half_sum + 2 * g, x + g * SL_GROUP, (int)(groups - g));
}
