/* Groups of packed panels unpacked for the tiles of blocked.h, with AVX2: what a layout means at the levels without
 * AVX-512 VNNI. One function a layout; a file of a level includes this after saying how it wants whole bytes:
 *   SPLIT_BYTES   8-bit integers as low and high nibbles
 *   SPLIT_VECTOR  bytes of a level's register, between the two */
#ifndef SL_KERNEL_X86_UNPACK_H
#define SL_KERNEL_X86_UNPACK_H

#include "kernel/kernels.h"
#include "kernel/panel.h"

#include <immintrin.h>

#define SL_INLINE static inline __attribute__((always_inline))

/* 32 columns of a panel. Line i holds columns 4 i … 4 i + 3 of the 16 outputs, unsigned. Split bytes take two lines for
 * each 4 columns; see put_bytes. d: factors of the integer sum, or of the two halves' sums; less: -(M d) of each, M the
 * magic number of ref/matmul_quant.c; m: of the activations' sum. */
typedef struct group {
    float d[2][SL_PANEL_ROWS], less[2][SL_PANEL_ROWS], m[SL_PANEL_ROWS];
    uint8_t lines[16][SL_LINE];
} group;

/* Unpacks group g (from column 0) of a panel. */
typedef void unpack_fn(const void *panel, size_t g, group *out);

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

/* Half of line `at` in whole bytes. Split, a register's worth of outputs has its 8 lines one after the other, each as
 * low nibbles, then high nibbles. */
SL_INLINE void put_bytes(group *out, int at, int half, __m256i v)
{
    if (!SPLIT_BYTES) {
        put_line(out, at, half, v);
        return;
    }
    size_t first = SPLIT_VECTOR == 32 ? (size_t)half * 512 : (size_t)half * 32;
    uint8_t *low = out->lines[0] + first + (size_t)at * 2 * SPLIT_VECTOR;
    _mm256_store_si256((__m256i *)(void *)low, low_nibbles(v));
    _mm256_store_si256((__m256i *)(void *)(low + SPLIT_VECTOR), high_nibbles(v));
}

SL_INLINE __m256 load_f16(const uint16_t *h, int half)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(h + 8 * half)));
}

SL_INLINE __m256i load_u8(const uint8_t *bytes, int half)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(bytes + 8 * half)));
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
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        __m256i high = load_line(unit->high, half);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            add_bits(out, i, half, bits_at(high, 4 - i, 16));
    }
    put_f16_factors(out, unit->d);
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

SL_INLINE void unpack_q4_k(const void *panel, size_t g, group *out)
{
    const sl_unit_q4_k *unit = (const sl_unit_q4_k *)panel + g / SL_SUPER_GROUPS;
    size_t i = g % SL_SUPER_GROUPS;
    const __m256i top = _mm256_set1_epi32(0x30), low4 = _mm256_set1_epi32(15);
    const __m128i shift = _mm_cvtsi32_si128((int)(i / 4 * 4));
    put_nibbles(out, unit->lines[i]);
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        __m256i low = load_u8(unit->low[i], half), high = _mm256_srl_epi32(load_u8(unit->high[i % 4], half), shift);
        __m256i sc = _mm256_or_si256(_mm256_and_si256(low, low4), _mm256_and_si256(_mm256_slli_epi32(high, 4), top));
        __m256i mn = _mm256_or_si256(_mm256_srli_epi32(low, 4), _mm256_and_si256(_mm256_slli_epi32(high, 2), top));
        __m256 m = _mm256_mul_ps(load_f16(unit->dmin, half), _mm256_cvtepi32_ps(mn));
        put_factor(out, 0, half, _mm256_mul_ps(load_f16(unit->d, half), _mm256_cvtepi32_ps(sc)));
        _mm256_store_ps(out->m + 8 * half, _mm256_xor_ps(m, _mm256_set1_ps(-0.0f)));
    }
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

#endif
