/* Groups of packed panels unpacked for the tiles of blocked.h, with AVX2: what a layout means at the levels without
 * AVX-512 VNNI. One function a layout; a file of a level includes this after saying how it adds products:
 *   DOTS   in 32 bits, four at a time; else in 16 bits, in pairs, and then whole bytes are widened to 16 bits */
#ifndef SL_KERNEL_X86_UNPACK_H
#define SL_KERNEL_X86_UNPACK_H

#include "kernel/kernels.h"
#include "kernel/panel.h"

#include <immintrin.h>

#define SL_INLINE static inline __attribute__((always_inline))

/* 32 columns of a panel. Line i holds columns 4 i … 4 i + 3 of the 16 outputs, unsigned. Widened, they are signed: 4 i and
 * 4 i + 2 in line i, the other two in line 8 + i. d: factors of the integer sum, or of the two halves' sums, or of it and the minimums';
 * less: -(M d) of each, M the magic number of ref/matmul_quant.c; m: of the activations' sum. scales: the halves' integer
 * ones, as a level's sums want them (see put_scales); mins: pairs of their minimums. */
typedef struct group {
    _Alignas(64) float d[2][SL_PANEL_ROWS];
    float less[2][SL_PANEL_ROWS];
    union {
        float m[SL_PANEL_ROWS];
        int16_t mins[SL_PANEL_ROWS][2];
    };
    int32_t scales[2][SL_PANEL_ROWS];
    uint8_t lines[16][SL_LINE];
} group;

/* Unpacks groups [first, first + n) (from column 0) of a panel. */
typedef void unpack_fn(const void *panel, size_t first, size_t n, group *out);

SL_INLINE __m256i load_line(const uint8_t *line, int half)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(line + 32 * half));
}

SL_INLINE void put_line(group *out, int at, int half, __m256i v)
{
    _mm256_store_si256((__m256i *)(void *)(out->lines[at] + 32 * half), v);
}

SL_INLINE __m256i low_nibbles(__m256i v)
{
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

SL_INLINE __m256i high_nibbles(__m256i v)
{
    return low_nibbles(_mm256_srli_epi16(v, 4));
}

/* Bits of each byte moved up by `up` (down where negative) and masked. */
SL_INLINE __m256i bits_at(__m256i v, int up, int8_t mask)
{
    __m256i moved = up >= 0 ? _mm256_slli_epi16(v, up) : _mm256_srli_epi16(v, -up);
    return _mm256_and_si256(moved, _mm256_set1_epi8(mask));
}

SL_INLINE void put_nibbles(group *out, const uint8_t (*lines)[SL_LINE])
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            __m256i v = load_line(lines[i], half);
            put_line(out, i, half, low_nibbles(v));
            put_line(out, 4 + i, half, high_nibbles(v));
        }
    }
}

/* Adds bits to half a line that is there. */
SL_INLINE void add_bits(group *out, int at, int half, __m256i bits)
{
    put_line(out, at, half, _mm256_or_si256(load_line(out->lines[at], half), bits));
}

/* Bytes 0 and 2 of each four as int16, and 1 and 3. */
SL_INLINE __m256i even_bytes(__m256i v)
{
    return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
}

SL_INLINE __m256i odd_bytes(__m256i v)
{
    return _mm256_srai_epi16(v, 8);
}

/* Half of line `at` in whole bytes, whose offset is 128. */
SL_INLINE void put_bytes(group *out, int at, int half, __m256i v)
{
    if (DOTS) {
        put_line(out, at, half, v);
        return;
    }
    v = _mm256_xor_si256(v, _mm256_set1_epi8((char)0x80));
    put_line(out, at, half, even_bytes(v));
    put_line(out, 8 + at, half, odd_bytes(v));
}

SL_INLINE __m256 load_f16(const uint16_t *h, int half)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(h + 8 * half)));
}

SL_INLINE __m256i load_u8(const uint8_t *bytes, int half)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(bytes + 8 * half)));
}

/* Adds a line of bits as bit 4 of lines 0-7. */
SL_INLINE void add_fifth_bits(group *out, const uint8_t *line)
{
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        __m256i high = load_line(line, half);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            add_bits(out, i, half, bits_at(high, 4 - i, 16));
    }
}

/* Bytes that the nibbles of four lines name. */
SL_INLINE __m256i load_codes(const uint8_t codes[16])
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)codes));
}

SL_INLINE void put_byte_codes(group *out, const uint8_t (*lines)[SL_LINE], const uint8_t codes[16])
{
    const __m256i table = load_codes(codes);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            __m256i v = load_line(lines[i], half);
            put_bytes(out, i, half, _mm256_shuffle_epi8(table, low_nibbles(v)));
            put_bytes(out, 4 + i, half, _mm256_shuffle_epi8(table, high_nibbles(v)));
        }
    }
}

SL_INLINE __m256 load_i8(const int8_t *bytes, int half)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(bytes + 8 * half))));
}

/* Factor number `which` of outputs 8 half … 8 half + 7. */
SL_INLINE void put_factor(group *out, int which, int half, __m256 d)
{
    _mm256_store_ps(out->d[which] + 8 * half, d);
    _mm256_store_ps(out->less[which] + 8 * half, _mm256_mul_ps(d, _mm256_set1_ps(-0x1.8p23f)));
}

/* Bytes of pairs of outputs 8 half … 8 half + 7, as pairs of int16. */
SL_INLINE __m256i load_byte_pairs(const uint8_t (*pairs)[2], int half)
{
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(pairs + 8 * half)));
}

/* Both halves' scales of outputs 8 half … 8 half + 7, from pairs of int16. A factor of vpmaddwd: the scale with zero
 * for sums in 32 bits, whose low 16 bits are all that matter, else twice. */
SL_INLINE void put_scales(group *out, int half, __m256i pairs)
{
    __m256i first = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff)), second = _mm256_srli_epi32(pairs, 16);
    if (!DOTS) {
        first = _mm256_or_si256(first, _mm256_slli_epi32(pairs, 16));
        second = _mm256_or_si256(second, _mm256_andnot_si256(_mm256_set1_epi32(0xffff), pairs));
    }
    _mm256_store_si256((__m256i *)(void *)(out->scales[0] + 8 * half), first);
    _mm256_store_si256((__m256i *)(void *)(out->scales[1] + 8 * half), second);
}

SL_INLINE void put_f16_factors(group *out, const uint16_t *d)
{
    put_factor(out, 0, 0, load_f16(d, 0));
    put_factor(out, 0, 1, load_f16(d, 1));
}

SL_INLINE void put_f16_minimums(group *out, const uint16_t *m)
{
    _mm256_store_ps(out->m, load_f16(m, 0));
    _mm256_store_ps(out->m + 8, load_f16(m, 1));
}

SL_INLINE void unpack_q4_0(const void *panel, size_t g, group *out)
{
    const sl_unit_q4_0 *unit = (const sl_unit_q4_0 *)panel + g;
    put_nibbles(out, unit->lines);
    put_f16_factors(out, unit->d);
}

SL_INLINE void unpack_q4_1(const void *panel, size_t g, group *out)
{
    const sl_unit_q4_1 *unit = (const sl_unit_q4_1 *)panel + g;
    put_nibbles(out, unit->lines);
    put_f16_factors(out, unit->d);
    put_f16_minimums(out, unit->m);
}

SL_INLINE void unpack_q5_0(const void *panel, size_t g, group *out)
{
    const sl_unit_q5_0 *unit = (const sl_unit_q5_0 *)panel + g;
    put_nibbles(out, unit->lines);
    add_fifth_bits(out, unit->high);
    put_f16_factors(out, unit->d);
}

SL_INLINE void unpack_q5_1(const void *panel, size_t g, group *out)
{
    const sl_unit_q5_1 *unit = (const sl_unit_q5_1 *)panel + g;
    put_nibbles(out, unit->lines);
    add_fifth_bits(out, unit->high);
    put_f16_factors(out, unit->d);
    put_f16_minimums(out, unit->m);
}

SL_INLINE void unpack_q8_0(const void *panel, size_t g, group *out)
{
    const sl_unit_q8_0 *unit = (const sl_unit_q8_0 *)panel + g;
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        put_bytes(out, i, 0, load_line(unit->lines[i], 0));
        put_bytes(out, i, 1, load_line(unit->lines[i], 1));
    }
    put_f16_factors(out, unit->d);
}

SL_INLINE void unpack_q2_k(const void *panel, size_t g, group *out)
{
    const sl_unit_q2_k *unit = (const sl_unit_q2_k *)panel + g / SL_SUPER_GROUPS;
    size_t i = g % SL_SUPER_GROUPS;
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
#pragma GCC unroll 8
        for (int at = 0; at < 8; at++)
            put_line(out, at, half, bits_at(load_line(unit->lines[i][at / 4], half), at % 4 * -2, 3));
        __m256i pairs = load_byte_pairs(unit->scales[i], half);
        put_scales(out, half, _mm256_and_si256(pairs, _mm256_set1_epi16(15)));
        _mm256_store_si256((__m256i *)(void *)out->mins[8 * half], _mm256_srli_epi16(pairs, 4));
        put_factor(out, 0, half, load_f16(unit->d, half));
        put_factor(out, 1, half, _mm256_xor_ps(load_f16(unit->dmin, half), _mm256_set1_ps(-0.0f)));
    }
}

SL_INLINE void unpack_q3_k(const void *panel, size_t g, group *out)
{
    const sl_unit_q3_k *unit = (const sl_unit_q3_k *)panel + g / SL_SUPER_GROUPS;
    size_t i = g % SL_SUPER_GROUPS;
    const uint8_t(*lines)[SL_LINE] = unit->lines[i];
    const __m128i down_low = _mm_cvtsi32_si128((int)(i / 4 * 4)), down_high = _mm_cvtsi32_si128((int)(i / 2 * 2));
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        __m256i top = load_line(lines[2], half);
#pragma GCC unroll 6
        for (int at = 0; at < 6; at++)
            put_line(out, at, half, bits_at(load_line(lines[at / 2], half), at % 2 * -3, 7));
#pragma GCC unroll 2
        for (int at = 6; at < 8; at++)
            put_line(out, at, half,
                     _mm256_or_si256(bits_at(load_line(lines[at - 6], half), -6, 3), bits_at(top, 2 - at, 4)));
        __m256i low = _mm256_srl_epi16(load_byte_pairs(unit->low[i % 4], half), down_low);
        __m256i high = _mm256_srl_epi16(_mm256_slli_epi16(load_byte_pairs(unit->high[i % 2], half), 4), down_high);
        low = _mm256_and_si256(low, _mm256_set1_epi16(15));
        high = _mm256_and_si256(high, _mm256_set1_epi16(0x30));
        put_scales(out, half, _mm256_sub_epi16(_mm256_or_si256(low, high), _mm256_set1_epi16(32)));
    }
    put_f16_factors(out, unit->d);
}

/* Factors of Q4_K and Q5_K: d sc and -(dmin mn) of group i of a superblock. */
SL_INLINE void put_scale_min(group *out, const uint16_t *d, const uint16_t *dmin, const uint8_t (*pairs_low)[16],
                             const uint8_t (*pairs_high)[16], size_t i)
{
    const __m256i top = _mm256_set1_epi32(0x30), low4 = _mm256_set1_epi32(15);
    const __m128i shift = _mm_cvtsi32_si128((int)(i / 4 * 4));
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        __m256i low = load_u8(pairs_low[i], half), high = _mm256_srl_epi32(load_u8(pairs_high[i % 4], half), shift);
        __m256i sc = _mm256_or_si256(_mm256_and_si256(low, low4), _mm256_and_si256(_mm256_slli_epi32(high, 4), top));
        __m256i mn = _mm256_or_si256(_mm256_srli_epi32(low, 4), _mm256_and_si256(_mm256_slli_epi32(high, 2), top));
        __m256 m = _mm256_mul_ps(load_f16(dmin, half), _mm256_cvtepi32_ps(mn));
        put_factor(out, 0, half, _mm256_mul_ps(load_f16(d, half), _mm256_cvtepi32_ps(sc)));
        _mm256_store_ps(out->m + 8 * half, _mm256_xor_ps(m, _mm256_set1_ps(-0.0f)));
    }
}

SL_INLINE void unpack_q4_k(const void *panel, size_t g, group *out)
{
    const sl_unit_q4_k *unit = (const sl_unit_q4_k *)panel + g / SL_SUPER_GROUPS;
    size_t i = g % SL_SUPER_GROUPS;
    put_nibbles(out, unit->lines[i]);
    put_scale_min(out, unit->d, unit->dmin, unit->low, unit->high, i);
}

SL_INLINE void unpack_q5_k(const void *panel, size_t g, group *out)
{
    const sl_unit_q5_k *unit = (const sl_unit_q5_k *)panel + g / SL_SUPER_GROUPS;
    size_t i = g % SL_SUPER_GROUPS;
    put_nibbles(out, unit->group[i].lines);
    add_fifth_bits(out, unit->group[i].high);
    put_scale_min(out, unit->d, unit->dmin, unit->low, unit->high, i);
}

SL_INLINE void unpack_q6_k(const void *panel, size_t g, group *out)
{
    const sl_unit_q6_k *unit = (const sl_unit_q6_k *)panel + g / SL_SUPER_GROUPS;
    size_t i = g % SL_SUPER_GROUPS;
    put_nibbles(out, unit->group[i].lines);
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        __m256 d = load_f16(unit->d, half);
#pragma GCC unroll 8
        for (int at = 0; at < 8; at++)
            add_bits(out, at, half, bits_at(load_line(unit->group[i].high[at / 4], half), 4 - at % 4 * 2, 0x30));
        put_factor(out, 0, half, _mm256_mul_ps(d, load_i8(unit->sc[i][0], half)));
        put_factor(out, 1, half, _mm256_mul_ps(d, load_i8(unit->sc[i][1], half)));
    }
}

SL_INLINE void unpack_iq4_nl(const void *panel, size_t g, group *out)
{
    const sl_unit_iq4_nl *unit = (const sl_unit_iq4_nl *)panel + g;
    put_byte_codes(out, unit->lines, sl_iq4_codes);
    put_f16_factors(out, unit->d);
}

SL_INLINE void unpack_iq4_xs(const void *panel, size_t g, group *out)
{
    const sl_unit_iq4_xs *unit = (const sl_unit_iq4_xs *)panel + g / SL_SUPER_GROUPS;
    size_t i = g % SL_SUPER_GROUPS;
    const __m128i down_low = _mm_cvtsi32_si128((int)(i / 4 * 4)), down_high = _mm_cvtsi32_si128((int)(2 * i));
    put_byte_codes(out, unit->lines[i], sl_iq4_codes);
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        __m256i low = _mm256_srl_epi32(load_u8(unit->low[i % 4], half), down_low);
        __m256i high = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(unit->high + 8 * half)));
        high = _mm256_srl_epi32(_mm256_slli_epi32(high, 4), down_high);
        __m256i sc = _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(15)),
                                     _mm256_and_si256(high, _mm256_set1_epi32(0x30)));
        sc = _mm256_sub_epi32(sc, _mm256_set1_epi32(32));
        put_factor(out, 0, half, _mm256_mul_ps(load_f16(unit->d, half), _mm256_cvtepi32_ps(sc)));
    }
}

/* The codes are raised by 4, so that the offset is that of all layouts of 5 bits. */
SL_INLINE void unpack_mxfp4(const void *panel, size_t g, group *out)
{
    const sl_unit_mxfp4 *unit = (const sl_unit_mxfp4 *)panel + g;
    const __m256i table = _mm256_add_epi8(load_codes(sl_mxfp4_codes), _mm256_set1_epi8(16 - SL_MXFP4_OFFSET));
    put_nibbles(out, unit->lines);
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
#pragma GCC unroll 8
        for (int at = 0; at < 8; at++)
            put_line(out, at, half, _mm256_shuffle_epi8(table, load_line(out->lines[at], half)));
        /* e below 2 counts as zero: saturating subtraction leaves no exponent */
        __m128i e = _mm_loadl_epi64((const __m128i *)(const void *)(unit->e + 8 * half));
        __m256i exponent = _mm256_cvtepu8_epi32(_mm_subs_epu8(e, _mm_set1_epi8(1)));
        put_factor(out, 0, half, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
    }
}

#endif
