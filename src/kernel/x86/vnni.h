/* Matmul of int8 activations with AVX-512 VNNI, for every quantized layout. The arithmetic is that of
 * ref/matmul_quant.c, bit by bit; a layout only says how a group's lines and factors are read.
 *
 * A register tile is some rows by one panel, or few rows by some panels: per row and panel a float accumulator, per row an
 * integer one. A line (4 columns of 16
 * outputs, unsigned) is unpacked once for all rows of the tile and multiplied with 4 bytes of each row, broadcast from
 * memory. The offset of a symmetric type leaves through vpdpwssd with the row's half sums: one instruction. */
#ifndef SL_KERNEL_X86_VNNI_H
#define SL_KERNEL_X86_VNNI_H

#include "kernel/x86/many.h"

/* d: factor of isum; m: of the activations' sum (AFFINE), of the second half's isum (HALVES), or of the minimums' sum
 * (MINIMUMS). scales and mins of the two halves (SCALED, MINIMUMS): pairs of int16 in each 32 bits. */
typedef struct factors {
    __m512 d, m;
    __m512i scales, mins;
} factors;

/* A layout; constant where the functions below are inlined, so nothing of it remains at run time. */
typedef struct layout {
    sl_vnni_form form;
    int offset;         /* of the unsigned integers, to be taken out */
    size_t unit_groups; /* of a unit: groups that share factors */
    size_t unit_bytes;
    __m512i (*line)(const void *panel, size_t group, int line);
    factors (*factors)(const void *panel, size_t group);
} layout;

/* Rows of activations as the tile reads them: row r starts at base[r / 3] + r % 3 * stride, so that every operand of 12
 * rows is one address of four registers and the stride. */
enum { BASES = 4 };

typedef struct rows {
    const char *base[BASES];
    size_t stride;
} rows;

SL_INLINE rows rows_at(const char *x, size_t stride)
{
    return (rows){{x, x + 3 * stride, x + 6 * stride, x + 9 * stride}, stride};
}

SL_INLINE void rows_advance(rows *in, ptrdiff_t bytes)
{
#pragma GCC unroll 4
    for (int i = 0; i < BASES; i++)
        in->base[i] += bytes;
}

/* An instruction whose last operand is 4 bytes of row r at offset disp, broadcast to 16 lanes; r and disp are literals.
 * Written as assembly because GCC would load the broadcast separately (measured: a tenth slower) and keep an address
 * for each row, more than there are registers. */
#define BROADCAST_AT(address, instruction, acc, vector, in, r, disp)                                                   \
    __asm__(instruction " %c4" address "%{1to16%}, %1, %0"                                                             \
            : "+v"(acc)                                                                                                \
            : "v"(vector), "r"((in)->base[(r) / 3]), "r"((in)->stride), "i"(disp), "m"(*(in)->base[(r) / 3]))
#define WITH_BROADCAST(instruction, acc, vector, in, r, disp)                                                          \
    do {                                                                                                               \
        if ((r) >= n_rows)                                                                                             \
            break;                                                                                                     \
        if ((r) % 3 == 0)                                                                                              \
            BROADCAST_AT("(%2)", instruction, acc, vector, in, r, disp);                                               \
        else if ((r) % 3 == 1)                                                                                         \
            BROADCAST_AT("(%2,%3)", instruction, acc, vector, in, r, disp);                                            \
        else                                                                                                           \
            BROADCAST_AT("(%2,%3,2)", instruction, acc, vector, in, r, disp);                                          \
    } while (0);
/* The same for all rows of the tile; acc is an array, and so is vectors in EACH. */
#define ROWS_WITH_BROADCAST(instruction, acc, vector, in, disp)                                                        \
    WITH_BROADCAST(instruction, (acc)[0], vector, in, 0, disp)                                                         \
    WITH_BROADCAST(instruction, (acc)[1], vector, in, 1, disp)                                                         \
    WITH_BROADCAST(instruction, (acc)[2], vector, in, 2, disp)                                                         \
    WITH_BROADCAST(instruction, (acc)[3], vector, in, 3, disp)                                                         \
    WITH_BROADCAST(instruction, (acc)[4], vector, in, 4, disp)                                                         \
    WITH_BROADCAST(instruction, (acc)[5], vector, in, 5, disp)                                                         \
    WITH_BROADCAST(instruction, (acc)[6], vector, in, 6, disp)                                                         \
    WITH_BROADCAST(instruction, (acc)[7], vector, in, 7, disp)                                                         \
    WITH_BROADCAST(instruction, (acc)[8], vector, in, 8, disp)                                                         \
    WITH_BROADCAST(instruction, (acc)[9], vector, in, 9, disp)                                                         \
    WITH_BROADCAST(instruction, (acc)[10], vector, in, 10, disp)                                                       \
    WITH_BROADCAST(instruction, (acc)[11], vector, in, 11, disp)
#define EACH_WITH_BROADCAST(instruction, acc, vectors, in, disp)                                                       \
    WITH_BROADCAST(instruction, (acc)[0], (vectors)[0], in, 0, disp)                                                   \
    WITH_BROADCAST(instruction, (acc)[1], (vectors)[1], in, 1, disp)                                                   \
    WITH_BROADCAST(instruction, (acc)[2], (vectors)[2], in, 2, disp)                                                   \
    WITH_BROADCAST(instruction, (acc)[3], (vectors)[3], in, 3, disp)                                                   \
    WITH_BROADCAST(instruction, (acc)[4], (vectors)[4], in, 4, disp)                                                   \
    WITH_BROADCAST(instruction, (acc)[5], (vectors)[5], in, 5, disp)                                                   \
    WITH_BROADCAST(instruction, (acc)[6], (vectors)[6], in, 6, disp)                                                   \
    WITH_BROADCAST(instruction, (acc)[7], (vectors)[7], in, 7, disp)                                                   \
    WITH_BROADCAST(instruction, (acc)[8], (vectors)[8], in, 8, disp)                                                   \
    WITH_BROADCAST(instruction, (acc)[9], (vectors)[9], in, 9, disp)                                                   \
    WITH_BROADCAST(instruction, (acc)[10], (vectors)[10], in, 10, disp)                                                \
    WITH_BROADCAST(instruction, (acc)[11], (vectors)[11], in, 11, disp)

SL_INLINE __m512 load_f16(const uint16_t *h)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)h));
}

/* isum[r] += line `at` of a group times row r's bytes of it. */
#define DOT_LINE(at)                                                                                                   \
    do {                                                                                                               \
        const __m512i line_ = lay->line(panel, g, at);                                                                 \
        ROWS_WITH_BROADCAST("vpdpbusd", isum, line_, x, 4 * (at))                                                      \
    } while (0)

/* isum[r] -= offset * half_sum of the halves that mask (-offset or 0 in each 16 bits) names. */
SL_INLINE void take_offset(__m512i *isum, const rows *half_sum, const int n_rows, int mask)
{
    const __m512i out = _mm512_set1_epi32(mask);
    ROWS_WITH_BROADCAST("vpdpwssd", isum, out, half_sum, 0)
}

/* Integer sums begin at the bits of M = 1.5 * 2^23: as floats they then are M + isum. */
enum { MAGIC_BITS = 0x4b400000 };

SL_INLINE void start(__m512i *isum, const int n_rows, int value)
{
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++)
        isum[r] = _mm512_set1_epi32(value);
}

/* acc[r] += (isum[r] * d) * scale[r], where isum * d = fma(M + isum, d, -(M d)) */
SL_INLINE void add_scaled(__m512 *acc, const __m512i *isum, __m512 d, const rows *scale, const int n_rows)
{
    const __m512 less = _mm512_mul_ps(d, _mm512_set1_ps(-0x1.8p23f));
    __m512 t[12];
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++)
        t[r] = _mm512_fmadd_ps(_mm512_castsi512_ps(isum[r]), d, less);
    EACH_WITH_BROADCAST("vfmadd231ps", acc, t, scale, 0)
}

/* Sums from `from` over half h (0 or 1) of a group, without the offset. */
SL_INLINE void sum_half(__m512i *isum, const layout *lay, const void *panel, size_t g, const rows *x,
                        const rows *half_sum, const int h, const int from, const int n_rows)
{
    const uint32_t out = (uint32_t)-lay->offset;
    start(isum, n_rows, from);
    if (h == 0) {
        DOT_LINE(0);
        DOT_LINE(1);
        DOT_LINE(2);
        DOT_LINE(3);
    } else {
        DOT_LINE(4);
        DOT_LINE(5);
        DOT_LINE(6);
        DOT_LINE(7);
    }
    if (lay->offset)
        take_offset(isum, half_sum, n_rows, (int)(h == 0 ? out & 0xffff : out << 16));
}

/* A group whose halves have integer scales: the halves' sums fit 16 bits, so one instruction multiplies both of a lane
 * with their scales and adds them. */
SL_INLINE void add_scaled_halves(__m512 *acc, const layout *lay, const void *panel, size_t g, const rows *x,
                                 const rows *scale, const rows *half_sum, const int n_rows)
{
    const factors f = lay->factors(panel, g);
    __m512i isum[12], second[12];
    sum_half(isum, lay, panel, g, x, half_sum, 0, 0, n_rows);
    sum_half(second, lay, panel, g, x, half_sum, 1, 0, n_rows);
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++) {
        __m512i pairs = _mm512_mask_blend_epi16(0xaaaaaaaa, isum[r], _mm512_slli_epi32(second[r], 16));
        isum[r] = _mm512_dpwssd_epi32(_mm512_set1_epi32(MAGIC_BITS), pairs, f.scales);
    }
    add_scaled(acc, isum, f.d, scale, n_rows);
    if (lay->form == SL_VNNI_MINIMUMS) {
        start(isum, n_rows, MAGIC_BITS);
        ROWS_WITH_BROADCAST("vpdpwssd", isum, f.mins, half_sum, 0)
        add_scaled(acc, isum, f.m, scale, n_rows);
    }
}

/* One group; x, scale and last (sum or half_sum) stand at the group. */
SL_INLINE void add_group(__m512 *acc, const layout *lay, const void *panel, size_t g, const rows *x, const rows *scale,
                         const rows *last, const int n_rows)
{
    __m512i isum[12];
    if (lay->form == SL_VNNI_SCALED || lay->form == SL_VNNI_MINIMUMS) {
        add_scaled_halves(acc, lay, panel, g, x, scale, last, n_rows);
        return;
    }
    if (lay->form == SL_VNNI_HALVES) {
        sum_half(isum, lay, panel, g, x, last, 0, MAGIC_BITS, n_rows);
        add_scaled(acc, isum, lay->factors(panel, g).d, scale, n_rows);
        sum_half(isum, lay, panel, g, x, last, 1, MAGIC_BITS, n_rows);
        add_scaled(acc, isum, lay->factors(panel, g).m, scale, n_rows);
        return;
    }
    start(isum, n_rows, MAGIC_BITS);
    /* Low and high nibbles of the same bytes follow each other. */
    DOT_LINE(0);
    DOT_LINE(4);
    DOT_LINE(1);
    DOT_LINE(5);
    DOT_LINE(2);
    DOT_LINE(6);
    DOT_LINE(3);
    DOT_LINE(7);
    if (lay->offset)
        take_offset(isum, last, n_rows, (int)((uint32_t)-lay->offset << 16 | (-lay->offset & 0xffff)));
    factors f = lay->factors(panel, g);
    add_scaled(acc, isum, f.d, scale, n_rows);
    if (lay->form == SL_VNNI_AFFINE) {
        ROWS_WITH_BROADCAST("vfmadd231ps", acc, f.m, last, 0)
    }
}

/* Group i of a unit. */
SL_INLINE void next_group(__m512 *acc, const layout *lay, const char *unit, size_t i, size_t ahead, const rows *x,
                          const rows *scale, ptrdiff_t to_last, const int n_rows)
{
    const size_t bytes = lay->unit_bytes / lay->unit_groups;
    for (size_t b = 0; b < bytes; b += SL_LINE)
        _mm_prefetch(unit + ahead + i * bytes + b, _MM_HINT_T0);
    rows last = *scale;
    rows_advance(&last, to_last);
    add_group(acc, lay, unit, i, x, scale, &last, n_rows);
}

SL_INLINE void store_tile(const sl_matmul *args, const __m512 *acc, size_t row, size_t panel, const int n_rows)
{
    size_t first = panel * SL_PANEL_ROWS, left = args->weight->n_rows - first;
    __mmask16 lanes = (__mmask16)(left >= SL_PANEL_ROWS ? 0xffff : (1u << left) - 1);
    __m512 bias = args->bias ? _mm512_maskz_loadu_ps(lanes, args->bias + first) : _mm512_setzero_ps();
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++) {
        float *y = args->y + (row + (size_t)r) * args->y_stride_elems + first;
        _mm512_mask_storeu_ps(y, lanes, args->bias ? _mm512_add_ps(acc[r], bias) : acc[r]);
    }
}

/* One tile: n_rows rows of row on, by n_streams panels (constants where inlined) that are `apart` panels apart, a group of
 * each in turn: through several streams DRAM gives some CPUs' cores more (sl_reading), as long as what is computed between
 * the loads keeps one from running far enough ahead. */
SL_INLINE void tile(const sl_matmul *args, const layout *lay, size_t row, size_t panel, size_t apart, const int n_rows,
                    const int n_streams)
{
    const sl_weight *w = args->weight;
    const char *data = (const char *)w->data + panel * w->panel_bytes;
    const size_t stream_bytes = apart * w->panel_bytes, ahead = args->reading.ahead_bytes;
    size_t n_groups = w->n_cols / SL_GROUP;
    rows x = rows_at((const char *)args->x + row * args->x_stride_bytes, args->x_stride_bytes);
    rows scale = x;
    rows_advance(&scale, (ptrdiff_t)w->n_cols);
    /* From the scale on: sums after n_groups floats, half sums after twice as many. */
    const ptrdiff_t to_last = (ptrdiff_t)((lay->form == SL_VNNI_AFFINE ? 1 : 2) * n_groups * sizeof(float));
    __m512 acc[SL_MATMUL_MAX_STREAMS][12];
#pragma GCC unroll 4
    for (int s = 0; s < n_streams; s++)
#pragma GCC unroll 12
        for (int r = 0; r < n_rows; r++)
            acc[s][r] = _mm512_setzero_ps();
    /* Unit by unit, so that what its groups share is read once; written out, it comes slower from DRAM (by a tenth). */
    for (size_t g = 0; g < n_groups; g += lay->unit_groups, data += lay->unit_bytes)
        for (size_t i = 0; i < lay->unit_groups; i++) {
#pragma GCC unroll 4
            for (int s = 0; s < n_streams; s++)
                next_group(acc[s], lay, data + (size_t)s * stream_bytes, i, ahead, &x, &scale, to_last, n_rows);
            rows_advance(&x, SL_GROUP);
            rows_advance(&scale, sizeof(float));
        }
#pragma GCC unroll 4
    for (int s = 0; s < n_streams; s++)
        store_tile(args, acc[s], row, panel + (size_t)s * apart, n_rows);
}

/* n_rows rows by some panels, `apart` apart, one after the other. */
SL_INLINE void tiles(const sl_matmul *args, const layout *lay, size_t row, size_t panel, size_t apart, const int n_rows,
                     const int n_panels)
{
    for (int p = 0; p < n_panels; p++)
        tile(args, lay, row, panel + (size_t)p * apart, 0, n_rows, 1);
}

/* All rows of a block by one or two panels, `apart` apart: the largest tiles first, two panels at once where their sums fit the registers. */
SL_INLINE void panel_rows(const sl_matmul *args, const layout *lay, size_t row, size_t row_end, size_t panel,
                          size_t apart, const int n_panels)
{
    for (; row_end - row >= 12; row += 12)
        tiles(args, lay, row, panel, apart, 12, n_panels);
    for (; row_end - row >= 8; row += 8)
        if (lay->form == SL_VNNI_SCALED || lay->form == SL_VNNI_MINIMUMS)
            tiles(args, lay, row, panel, apart, 8, n_panels);
        else
            tile(args, lay, row, panel, apart, 8, n_panels);
    if (row_end - row >= 4) {
        tile(args, lay, row, panel, apart, 4, n_panels);
        row += 4;
    }
    if (row_end - row == 3)
        tile(args, lay, row, panel, apart, 3, n_panels);
    else if (row_end - row == 2)
        tile(args, lay, row, panel, apart, 2, n_panels);
    else if (row_end - row == 1)
        tile(args, lay, row, panel, apart, 1, n_panels);
}

/* Line `at` of a group times the scale of its half: bytes (q - offset) * scale + SL_VNNI_SCALED_OFFSET where there is
 * an offset, q * scale where not. All modulo 256: they are in 0-255 in the end. */
SL_INLINE __m512i scaled_line(const layout *lay, const void *panel, size_t g, int at, __m512i scales)
{
    const __m512i low = _mm512_set1_epi16(255);
    __m512i scale =
        at < 4 ? _mm512_or_si512(_mm512_slli_epi32(scales, 16), _mm512_and_si512(scales, _mm512_set1_epi32(0xffff)))
               : _mm512_or_si512(_mm512_srli_epi32(scales, 16),
                                 _mm512_and_si512(scales, _mm512_set1_epi32((int)0xffff0000)));
    __m512i q = _mm512_sub_epi8(lay->line(panel, g, at), _mm512_set1_epi8((char)lay->offset));
    __m512i even = _mm512_and_si512(_mm512_mullo_epi16(q, scale), low);
    __m512i odd = _mm512_slli_epi16(_mm512_mullo_epi16(_mm512_srli_epi16(q, 8), scale), 8);
    return _mm512_add_epi8(_mm512_or_si512(even, odd), _mm512_set1_epi8(lay->offset ? SL_VNNI_SCALED_OFFSET : 0));
}

/* Groups [first, first + n) of a panel for the kernel of many rows. */
SL_INLINE void unpack_groups(const layout *lay, const void *panel, size_t first, size_t n, sl_vnni_group *out)
{
    const __m512 magic = _mm512_set1_ps(-0x1.8p23f);
    const bool scaled = lay->form == SL_VNNI_SCALED || lay->form == SL_VNNI_MINIMUMS;
    for (size_t g = first; g < first + n; g++, out++) {
        const char *unit = (const char *)panel + g / lay->unit_groups * lay->unit_bytes;
        const size_t i = g % lay->unit_groups;
        const factors f = lay->factors(unit, i);
#pragma GCC unroll 8
        for (int at = 0; at < 8; at++)
            _mm512_store_si512(out->lines[at],
                               scaled ? scaled_line(lay, unit, i, at, f.scales) : lay->line(unit, i, at));
        _mm512_store_ps(out->d[0], f.d);
        _mm512_store_ps(out->less[0], _mm512_mul_ps(f.d, magic));
        if (lay->form == SL_VNNI_HALVES || lay->form == SL_VNNI_MINIMUMS) {
            _mm512_store_ps(out->d[1], f.m);
            _mm512_store_ps(out->less[1], _mm512_mul_ps(f.m, magic));
        }
        if (lay->form == SL_VNNI_AFFINE)
            _mm512_store_ps(out->m, f.m);
        if (lay->form == SL_VNNI_MINIMUMS)
            _mm512_store_si512(out->mins, f.mins);
    }
}

SL_INLINE void matmul(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end,
                      const layout *lay, sl_vnni_unpack_fn *unpack)
{
    if (row_end - row_begin >= SL_MATMUL_MANY_ROWS) {
        int offset = lay->form == SL_VNNI_SCALED ? SL_VNNI_SCALED_OFFSET : lay->offset;
        sl_vnni_matmul_many(args, row_begin, row_end, panel_begin, panel_end, lay->form, offset, unpack);
        return;
    }
    /* Each stream reads panels that follow each other, so that the hardware's and our own prefetching run on from one to the
     * next. */
    const uint32_t n_streams = sl_matmul_streams(&args->reading, row_end - row_begin);
    const size_t quarter = n_streams == 4 ? (panel_end - panel_begin) / 4 : 0;
    for (size_t i = 0; i < quarter; i++)
        tile(args, lay, row_begin, panel_begin + i, quarter, 1, 4);
    const size_t rest = panel_begin + 4 * quarter, half = n_streams >= 2 ? (panel_end - rest) / 2 : 0;
    for (size_t i = 0; i < half; i++)
        panel_rows(args, lay, row_begin, row_end, rest + i, half, 2);
    for (size_t panel = rest + 2 * half; panel < panel_end; panel++)
        panel_rows(args, lay, row_begin, row_end, panel, 0, 1);
}

#endif
