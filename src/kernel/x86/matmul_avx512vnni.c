/* How each layout's groups are read; the rest is in vnni.h. */
#include "kernel/x86/vnni.h"

/* Line at (0-7) of a group kept as four lines of nibbles. */
SL_INLINE __m512i nibble_line(const uint8_t (*lines)[SL_LINE], int at)
{
    __m512i v = _mm512_loadu_si512(lines[at % 4]);
    return _mm512_and_si512(at < 4 ? v : _mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
}

/* low | (bits >> shift & mask), shift of either sign. */
SL_INLINE __m512i add_high_bits(__m512i low, __m512i bits, int shift, int8_t mask)
{
    __m512i moved = shift >= 0 ? _mm512_srli_epi16(bits, (unsigned)shift) : _mm512_slli_epi16(bits, (unsigned)-shift);
    return _mm512_ternarylogic_epi32(low, moved, _mm512_set1_epi8(mask), 0xf8); /* a | (b & c) */
}

/* Line at of a group kept as a line of bit pairs for each half. */
SL_INLINE __m512i bit_pair_line(const uint8_t (*lines)[SL_LINE], int at)
{
    __m512i v = _mm512_loadu_si512(lines[at / 4]);
    return _mm512_and_si512(_mm512_srli_epi16(v, (unsigned)(at % 4 * 2)), _mm512_set1_epi8(3));
}

/* Codes named by line at of four lines of nibbles. */
SL_INLINE __m512i code_line(const uint8_t (*lines)[SL_LINE], int at, const uint8_t codes[16])
{
    __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)codes));
    return _mm512_shuffle_epi8(table, nibble_line(lines, at));
}

SL_INLINE __m512i bytes_to_i32(const void *bytes)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)bytes));
}

/* Pair (a, b) of 6-bit numbers of group i of a superblock (kernel/panel.h). */
typedef struct six_bits {
    __m512i a, b;
} six_bits;

SL_INLINE six_bits load_pair(const uint8_t (*low)[SL_PANEL_ROWS], const uint8_t (*high)[SL_PANEL_ROWS], size_t i)
{
    __m512i bits = bytes_to_i32(low[i]), top = bytes_to_i32(high[i % 4]);
    const __m512i mask = _mm512_set1_epi32(0x30);
    __m512i top_a = i < 4 ? _mm512_slli_epi32(top, 4) : top, top_b = _mm512_slli_epi32(top, 2);
    top_b = i < 4 ? top_b : _mm512_srli_epi32(top, 2);
    return (six_bits){_mm512_ternarylogic_epi32(_mm512_and_si512(bits, _mm512_set1_epi32(15)), top_a, mask, 0xf8),
                      _mm512_ternarylogic_epi32(_mm512_srli_epi32(bits, 4), top_b, mask, 0xf8)};
}

/* f16 factors of a unit times integers of its groups. */
SL_INLINE __m512 scaled(__m512 d, __m512i by)
{
    return _mm512_mul_ps(d, _mm512_cvtepi32_ps(by));
}

SL_INLINE __m512 negative(__m512 v)
{
    return _mm512_xor_ps(v, _mm512_set1_ps(-0.0f));
}

/* Bytes of pairs to pairs of int16. */
SL_INLINE __m512i byte_pairs(const uint8_t (*bytes)[2])
{
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)bytes));
}

/* d * sc and -(dmin * mn) */
SL_INLINE factors scale_min(const uint16_t *d, const uint16_t *dmin, six_bits pair)
{
    return (factors){.d = scaled(load_f16(d), pair.a), .m = scaled(negative(load_f16(dmin)), pair.b)};
}

SL_INLINE __m512i line_q4_0(const void *unit, size_t i, int at)
{
    const sl_unit_q4_0 *u = unit;
    return nibble_line(u->lines, at);
}

SL_INLINE factors factors_q4_0(const void *unit, size_t i)
{
    const sl_unit_q4_0 *u = unit;
    return (factors){.d = load_f16(u->d)};
}

SL_INLINE __m512i line_q4_1(const void *unit, size_t i, int at)
{
    const sl_unit_q4_1 *u = unit;
    return nibble_line(u->lines, at);
}

SL_INLINE factors factors_q4_1(const void *unit, size_t i)
{
    const sl_unit_q4_1 *u = unit;
    return (factors){.d = load_f16(u->d), .m = load_f16(u->m)};
}

SL_INLINE __m512i line_q5_0(const void *unit, size_t i, int at)
{
    const sl_unit_q5_0 *u = unit;
    return add_high_bits(nibble_line(u->lines, at), _mm512_loadu_si512(u->high), at - 4, 16);
}

SL_INLINE factors factors_q5_0(const void *unit, size_t i)
{
    const sl_unit_q5_0 *u = unit;
    return (factors){.d = load_f16(u->d)};
}

SL_INLINE __m512i line_q5_1(const void *unit, size_t i, int at)
{
    const sl_unit_q5_1 *u = unit;
    return add_high_bits(nibble_line(u->lines, at), _mm512_loadu_si512(u->high), at - 4, 16);
}

SL_INLINE factors factors_q5_1(const void *unit, size_t i)
{
    const sl_unit_q5_1 *u = unit;
    return (factors){.d = load_f16(u->d), .m = load_f16(u->m)};
}

SL_INLINE __m512i line_q8_0(const void *unit, size_t i, int at)
{
    const sl_unit_q8_0 *u = unit;
    return _mm512_loadu_si512(u->lines[at]);
}

SL_INLINE factors factors_q8_0(const void *unit, size_t i)
{
    const sl_unit_q8_0 *u = unit;
    return (factors){.d = load_f16(u->d)};
}

SL_INLINE __m512i line_q2_k(const void *unit, size_t i, int at)
{
    const sl_unit_q2_k *u = unit;
    return bit_pair_line(u->lines[i], at);
}

SL_INLINE factors factors_q2_k(const void *unit, size_t i)
{
    const sl_unit_q2_k *u = unit;
    __m512i both = byte_pairs(u->scales[i]);
    return (factors){.d = load_f16(u->d),
                     .m = negative(load_f16(u->dmin)),
                     .scales = _mm512_and_si512(both, _mm512_set1_epi16(15)),
                     .mins = _mm512_srli_epi16(both, 4)};
}

SL_INLINE __m512i line_q3_k(const void *unit, size_t i, int at)
{
    const sl_unit_q3_k *u = unit;
    const uint8_t(*lines)[SL_LINE] = u->lines[i];
    __m512i v = _mm512_loadu_si512(lines[at < 6 ? at / 2 : at - 6]);
    if (at < 6)
        return _mm512_and_si512(_mm512_srli_epi16(v, (unsigned)(at % 2 * 3)), _mm512_set1_epi8(7));
    __m512i low = _mm512_and_si512(_mm512_srli_epi16(v, 6), _mm512_set1_epi8(3));
    return add_high_bits(low, _mm512_loadu_si512(lines[2]), at - 2, 4);
}

SL_INLINE factors factors_q3_k(const void *unit, size_t i)
{
    const sl_unit_q3_k *u = unit;
    __m512i low = _mm512_srli_epi16(byte_pairs(u->low[i % 4]), (unsigned)(i / 4 * 4));
    __m512i high = _mm512_srli_epi16(_mm512_slli_epi16(byte_pairs(u->high[i % 2]), 4), (unsigned)(i / 2 * 2));
    low = _mm512_and_si512(low, _mm512_set1_epi16(15));
    __m512i scales = _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi16(0x30), 0xf8);
    return (factors){.d = load_f16(u->d), .scales = _mm512_sub_epi16(scales, _mm512_set1_epi16(32))};
}

SL_INLINE __m512i line_q4_k(const void *unit, size_t i, int at)
{
    const sl_unit_q4_k *u = unit;
    return nibble_line(u->lines[i], at);
}

SL_INLINE factors factors_q4_k(const void *unit, size_t i)
{
    const sl_unit_q4_k *u = unit;
    return scale_min(u->d, u->dmin, load_pair(u->low, u->high, i));
}

SL_INLINE __m512i line_q5_k(const void *unit, size_t i, int at)
{
    const sl_unit_q5_k *u = unit;
    return add_high_bits(nibble_line(u->group[i].lines, at), _mm512_loadu_si512(u->group[i].high), at - 4, 16);
}

SL_INLINE factors factors_q5_k(const void *unit, size_t i)
{
    const sl_unit_q5_k *u = unit;
    return scale_min(u->d, u->dmin, load_pair(u->low, u->high, i));
}

SL_INLINE __m512i line_q6_k(const void *unit, size_t i, int at)
{
    const sl_unit_q6_k *u = unit;
    __m512i high = _mm512_loadu_si512(u->group[i].high[at / 4]);
    return add_high_bits(nibble_line(u->group[i].lines, at), high, at % 4 * 2 - 4, 0x30);
}

SL_INLINE __m512i signed_bytes_to_i32(const int8_t *bytes)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)bytes));
}

SL_INLINE factors factors_q6_k(const void *unit, size_t i)
{
    const sl_unit_q6_k *u = unit;
    __m512 d = load_f16(u->d);
    return (factors){.d = scaled(d, signed_bytes_to_i32(u->sc[i][0])),
                     .m = scaled(d, signed_bytes_to_i32(u->sc[i][1]))};
}

SL_INLINE __m512i line_iq4_nl(const void *unit, size_t i, int at)
{
    const sl_unit_iq4_nl *u = unit;
    return code_line(u->lines, at, sl_iq4_codes);
}

SL_INLINE factors factors_iq4_nl(const void *unit, size_t i)
{
    const sl_unit_iq4_nl *u = unit;
    return (factors){.d = load_f16(u->d)};
}

SL_INLINE __m512i line_iq4_xs(const void *unit, size_t i, int at)
{
    const sl_unit_iq4_xs *u = unit;
    return code_line(u->lines[i], at, sl_iq4_codes);
}

SL_INLINE factors factors_iq4_xs(const void *unit, size_t i)
{
    const sl_unit_iq4_xs *u = unit;
    __m512i low = _mm512_srli_epi32(bytes_to_i32(u->low[i % 4]), (unsigned)(i / 4 * 4));
    __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)u->high));
    high = _mm512_srli_epi32(_mm512_slli_epi32(high, 4), (unsigned)(2 * i));
    low = _mm512_and_si512(low, _mm512_set1_epi32(15));
    __m512i sc = _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi32(0x30), 0xf8);
    return (factors){.d = scaled(load_f16(u->d), _mm512_sub_epi32(sc, _mm512_set1_epi32(32)))};
}

SL_INLINE __m512i line_mxfp4(const void *unit, size_t i, int at)
{
    const sl_unit_mxfp4 *u = unit;
    return code_line(u->lines, at, sl_mxfp4_codes);
}

SL_INLINE factors factors_mxfp4(const void *unit, size_t i)
{
    const sl_unit_mxfp4 *u = unit;
    /* e below 2 counts as zero: saturating subtraction leaves no exponent */
    __m128i e = _mm_subs_epu8(_mm_loadu_si128((const __m128i *)(const void *)u->e), _mm_set1_epi8(1));
    return (factors){.d = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu8_epi32(e), 23))};
}

#define MATMUL(name, ...)                                                                                              \
    static void name##_unpack(const void *panel, size_t first, size_t n, sl_vnni_group *out)                           \
    {                                                                                                                  \
        const layout lay = {__VA_ARGS__};                                                                              \
        unpack_groups(&lay, panel, first, n, out);                                                                     \
    }                                                                                                                  \
    void name(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end)           \
    {                                                                                                                  \
        const layout lay = {__VA_ARGS__};                                                                              \
        matmul(args, row_begin, row_end, panel_begin, panel_end, &lay, name##_unpack);                                 \
    }

MATMUL(sl_matmul_q4_0_avx512vnni, SL_VNNI_SYMMETRIC, 8, 1, sizeof(sl_unit_q4_0), line_q4_0, factors_q4_0)
MATMUL(sl_matmul_q4_1_avx512vnni, SL_VNNI_AFFINE, 0, 1, sizeof(sl_unit_q4_1), line_q4_1, factors_q4_1)
MATMUL(sl_matmul_q5_0_avx512vnni, SL_VNNI_SYMMETRIC, 16, 1, sizeof(sl_unit_q5_0), line_q5_0, factors_q5_0)
MATMUL(sl_matmul_q5_1_avx512vnni, SL_VNNI_AFFINE, 0, 1, sizeof(sl_unit_q5_1), line_q5_1, factors_q5_1)
MATMUL(sl_matmul_q8_0_avx512vnni, SL_VNNI_SYMMETRIC, 128, 1, sizeof(sl_unit_q8_0), line_q8_0, factors_q8_0)
MATMUL(sl_matmul_q2_k_avx512vnni, SL_VNNI_MINIMUMS, 0, 8, sizeof(sl_unit_q2_k), line_q2_k, factors_q2_k)
MATMUL(sl_matmul_q3_k_avx512vnni, SL_VNNI_SCALED, 4, 8, sizeof(sl_unit_q3_k), line_q3_k, factors_q3_k)
MATMUL(sl_matmul_q4_k_avx512vnni, SL_VNNI_AFFINE, 0, 8, sizeof(sl_unit_q4_k), line_q4_k, factors_q4_k)
MATMUL(sl_matmul_q5_k_avx512vnni, SL_VNNI_AFFINE, 0, 8, sizeof(sl_unit_q5_k), line_q5_k, factors_q5_k)
MATMUL(sl_matmul_q6_k_avx512vnni, SL_VNNI_HALVES, 32, 8, sizeof(sl_unit_q6_k), line_q6_k, factors_q6_k)
MATMUL(sl_matmul_iq4_nl_avx512vnni, SL_VNNI_SYMMETRIC, SL_IQ4_OFFSET, 1, sizeof(sl_unit_iq4_nl), line_iq4_nl,
       factors_iq4_nl)
MATMUL(sl_matmul_iq4_xs_avx512vnni, SL_VNNI_SYMMETRIC, SL_IQ4_OFFSET, 8, sizeof(sl_unit_iq4_xs), line_iq4_xs,
       factors_iq4_xs)
MATMUL(sl_matmul_mxfp4_avx512vnni, SL_VNNI_SYMMETRIC, SL_MXFP4_OFFSET, 1, sizeof(sl_unit_mxfp4), line_mxfp4,
       factors_mxfp4)
