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

SL_INLINE __m512i line_q4_0(const void *panel, size_t g, int at)
{
    return nibble_line(((const sl_unit_q4_0 *)panel)[g].lines, at);
}

SL_INLINE factors factors_q4_0(const void *panel, size_t g)
{
    return (factors){load_f16(((const sl_unit_q4_0 *)panel)[g].d), _mm512_setzero_ps()};
}

SL_INLINE __m512i line_q4_1(const void *panel, size_t g, int at)
{
    return nibble_line(((const sl_unit_q4_1 *)panel)[g].lines, at);
}

SL_INLINE factors factors_q4_1(const void *panel, size_t g)
{
    const sl_unit_q4_1 *unit = (const sl_unit_q4_1 *)panel + g;
    return (factors){load_f16(unit->d), load_f16(unit->m)};
}

SL_INLINE __m512i line_q5_0(const void *panel, size_t g, int at)
{
    const sl_unit_q5_0 *unit = (const sl_unit_q5_0 *)panel + g;
    return add_high_bits(nibble_line(unit->lines, at), _mm512_loadu_si512(unit->high), at - 4, 16);
}

SL_INLINE factors factors_q5_0(const void *panel, size_t g)
{
    return (factors){load_f16(((const sl_unit_q5_0 *)panel)[g].d), _mm512_setzero_ps()};
}

SL_INLINE __m512i line_q8_0(const void *panel, size_t g, int at)
{
    return _mm512_loadu_si512(((const sl_unit_q8_0 *)panel)[g].lines[at]);
}

SL_INLINE factors factors_q8_0(const void *panel, size_t g)
{
    return (factors){load_f16(((const sl_unit_q8_0 *)panel)[g].d), _mm512_setzero_ps()};
}

SL_INLINE __m512i line_q4_k(const void *panel, size_t g, int at)
{
    return nibble_line(((const sl_unit_q4_k *)panel)[g / SL_SUPER_GROUPS].lines[g % SL_SUPER_GROUPS], at);
}

SL_INLINE __m512i bytes_to_i32(const void *bytes)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)bytes));
}

SL_INLINE factors factors_q4_k(const void *panel, size_t g)
{
    const sl_unit_q4_k *unit = (const sl_unit_q4_k *)panel + g / SL_SUPER_GROUPS;
    size_t i = g % SL_SUPER_GROUPS;
    __m512i low = bytes_to_i32(unit->low[i]);
    __m512i high = _mm512_srl_epi32(bytes_to_i32(unit->high[i % 4]), _mm_cvtsi32_si128((int)(i / 4 * 4)));
    __m512i sc = _mm512_ternarylogic_epi32(_mm512_and_si512(low, _mm512_set1_epi32(15)), _mm512_slli_epi32(high, 4),
                                           _mm512_set1_epi32(0x30), 0xf8);
    __m512i mn =
        _mm512_ternarylogic_epi32(_mm512_srli_epi32(low, 4), _mm512_slli_epi32(high, 2), _mm512_set1_epi32(0x30), 0xf8);
    __m512 m = _mm512_mul_ps(load_f16(unit->dmin), _mm512_cvtepi32_ps(mn));
    return (factors){_mm512_mul_ps(load_f16(unit->d), _mm512_cvtepi32_ps(sc)), _mm512_xor_ps(m, _mm512_set1_ps(-0.0f))};
}

SL_INLINE __m512i line_q6_k(const void *panel, size_t g, int at)
{
    const sl_unit_q6_k *unit = (const sl_unit_q6_k *)panel + g / SL_SUPER_GROUPS;
    size_t i = g % SL_SUPER_GROUPS;
    __m512i high = _mm512_loadu_si512(unit->group[i].high[at / 4]);
    return add_high_bits(nibble_line(unit->group[i].lines, at), high, at % 4 * 2 - 4, 0x30);
}

SL_INLINE __m512 signed_bytes_to_f32(const int8_t *bytes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)bytes)));
}

SL_INLINE factors factors_q6_k(const void *panel, size_t g)
{
    const sl_unit_q6_k *unit = (const sl_unit_q6_k *)panel + g / SL_SUPER_GROUPS;
    size_t i = g % SL_SUPER_GROUPS;
    __m512 d = load_f16(unit->d);
    return (factors){_mm512_mul_ps(d, signed_bytes_to_f32(unit->sc[i][0])),
                     _mm512_mul_ps(d, signed_bytes_to_f32(unit->sc[i][1]))};
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

MATMUL(sl_matmul_q4_0_avx512vnni, SL_VNNI_SYMMETRIC, 8, sizeof(sl_unit_q4_0), line_q4_0, factors_q4_0)
MATMUL(sl_matmul_q4_1_avx512vnni, SL_VNNI_AFFINE, 0, sizeof(sl_unit_q4_1), line_q4_1, factors_q4_1)
MATMUL(sl_matmul_q5_0_avx512vnni, SL_VNNI_SYMMETRIC, 16, sizeof(sl_unit_q5_0), line_q5_0, factors_q5_0)
MATMUL(sl_matmul_q8_0_avx512vnni, SL_VNNI_SYMMETRIC, 128, sizeof(sl_unit_q8_0), line_q8_0, factors_q8_0)
MATMUL(sl_matmul_q4_k_avx512vnni, SL_VNNI_AFFINE, 0, sizeof(sl_unit_q4_k) / 8, line_q4_k, factors_q4_k)
MATMUL(sl_matmul_q6_k_avx512vnni, SL_VNNI_HALVES, 32, sizeof(sl_unit_q6_k) / 8, line_q6_k, factors_q6_k)
