/* Matmul of int8 activations with AVX-512 VNNI, for every quantized layout. The arithmetic is that of
 * ref/matmul_quant.c, bit by bit; a layout only says how a group's lines and factors are read.
 *
 * A register tile is some rows by one panel: per row a float and an integer accumulator. A line (4 columns of 16
 * outputs, unsigned) is unpacked once for all rows of the tile and multiplied with 4 bytes of each row, broadcast from
 * memory. The offset of a symmetric type leaves through vpdpwssd with the row's half sums: one instruction. */
#ifndef SL_KERNEL_X86_VNNI_H
#define SL_KERNEL_X86_VNNI_H

#include "kernel/x86/many.h"

enum { PREFETCH_BYTES = 4096 }; /* ahead of the group at work, for few rows */

/* d: factor of isum; m: of the activations' sum (AFFINE), or of the second half's isum (HALVES). */
typedef struct factors {
    __m512 d, m;
} factors;

/* A layout; constant where the functions below are inlined, so nothing of it remains at run time. */
typedef struct layout {
    sl_vnni_form form;
    int offset;         /* of the unsigned integers, to be taken out */
    size_t group_bytes; /* of a panel, on average */
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
SL_INLINE void start(__m512i *isum, const int n_rows)
{
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++)
        isum[r] = _mm512_set1_epi32(0x4b400000);
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

/* One group; x, scale and last (sum or half_sum) stand at the group. */
SL_INLINE void add_group(__m512 *acc, const layout *lay, const void *panel, size_t g, const rows *x, const rows *scale,
                         const rows *last, const int n_rows)
{
    __m512i isum[12];
    const int neg = -lay->offset;
    start(isum, n_rows);
    if (lay->form == SL_VNNI_HALVES) {
        DOT_LINE(0);
        DOT_LINE(1);
        DOT_LINE(2);
        DOT_LINE(3);
        take_offset(isum, last, n_rows, neg & 0xffff);
        add_scaled(acc, isum, lay->factors(panel, g).d, scale, n_rows);
        start(isum, n_rows);
        DOT_LINE(4);
        DOT_LINE(5);
        DOT_LINE(6);
        DOT_LINE(7);
        take_offset(isum, last, n_rows, (int)((uint32_t)neg << 16));
        add_scaled(acc, isum, lay->factors(panel, g).m, scale, n_rows);
        return;
    }
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
        take_offset(isum, last, n_rows, (int)((uint32_t)neg << 16 | (neg & 0xffff)));
    factors f = lay->factors(panel, g);
    add_scaled(acc, isum, f.d, scale, n_rows);
    if (lay->form == SL_VNNI_AFFINE) {
        ROWS_WITH_BROADCAST("vfmadd231ps", acc, f.m, last, 0)
    }
}

/* One tile: n_rows rows (a constant where inlined) of row on, by one panel. */
SL_INLINE void tile(const sl_matmul *args, const layout *lay, size_t row, size_t panel, const int n_rows)
{
    const sl_weight *w = args->weight;
    const char *data = (const char *)w->data + panel * w->panel_bytes;
    size_t n_groups = w->n_cols / SL_GROUP, first = panel * SL_PANEL_ROWS, left = w->n_rows - first;
    rows x = rows_at((const char *)args->x + row * args->x_stride_bytes, args->x_stride_bytes);
    rows scale = x;
    rows_advance(&scale, (ptrdiff_t)w->n_cols);
    /* From the scale on: sums after n_groups floats, half sums after twice as many. */
    const ptrdiff_t to_last = (ptrdiff_t)((lay->form == SL_VNNI_AFFINE ? 1 : 2) * n_groups * sizeof(float));
    __m512 acc[12];
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++)
        acc[r] = _mm512_setzero_ps();
    for (size_t g = 0; g < n_groups; g++) {
        const char *ahead = data + g * lay->group_bytes + PREFETCH_BYTES;
        for (size_t b = 0; b < lay->group_bytes; b += SL_LINE)
            _mm_prefetch(ahead + b, _MM_HINT_T0);
        rows last = scale;
        rows_advance(&last, to_last);
        add_group(acc, lay, data, g, &x, &scale, &last, n_rows);
        rows_advance(&x, SL_GROUP);
        rows_advance(&scale, sizeof(float));
    }
    __mmask16 lanes = (__mmask16)(left >= SL_PANEL_ROWS ? 0xffff : (1u << left) - 1);
    __m512 bias = args->bias ? _mm512_maskz_loadu_ps(lanes, args->bias + first) : _mm512_setzero_ps();
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++) {
        float *y = args->y + (row + (size_t)r) * args->y_stride_elems + first;
        _mm512_mask_storeu_ps(y, lanes, args->bias ? _mm512_add_ps(acc[r], bias) : acc[r]);
    }
}

/* All rows of a block for one panel: the largest tiles first. */
SL_INLINE void panel_rows(const sl_matmul *args, const layout *lay, size_t row, size_t row_end, size_t panel)
{
    for (; row_end - row >= 12; row += 12)
        tile(args, lay, row, panel, 12);
    for (; row_end - row >= 8; row += 8)
        tile(args, lay, row, panel, 8);
    if (row_end - row >= 4) {
        tile(args, lay, row, panel, 4);
        row += 4;
    }
    if (row_end - row >= 2) {
        tile(args, lay, row, panel, 2);
        row += 2;
    }
    if (row_end > row)
        tile(args, lay, row, panel, 1);
}

/* Groups [first, first + n) of a panel for the kernel of many rows. */
SL_INLINE void unpack_groups(const layout *lay, const void *panel, size_t first, size_t n, sl_vnni_group *out)
{
    const __m512 magic = _mm512_set1_ps(-0x1.8p23f);
    for (size_t g = first; g < first + n; g++, out++) {
#pragma GCC unroll 8
        for (int at = 0; at < 8; at++)
            _mm512_store_si512(out->lines[at], lay->line(panel, g, at));
        factors f = lay->factors(panel, g);
        _mm512_store_ps(out->d[0], f.d);
        _mm512_store_ps(out->less[0], _mm512_mul_ps(f.d, magic));
        if (lay->form == SL_VNNI_HALVES) {
            _mm512_store_ps(out->d[1], f.m);
            _mm512_store_ps(out->less[1], _mm512_mul_ps(f.m, magic));
        } else if (lay->form == SL_VNNI_AFFINE) {
            _mm512_store_ps(out->m, f.m);
        }
    }
}

SL_INLINE void matmul(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end,
                      const layout *lay, sl_vnni_unpack_fn *unpack)
{
    if (row_end - row_begin >= SL_VNNI_MANY_ROWS) {
        sl_vnni_matmul_many(args, row_begin, row_end, panel_begin, panel_end, lay->form, lay->offset, unpack);
        return;
    }
    for (size_t panel = panel_begin; panel < panel_end; panel++)
        panel_rows(args, lay, row_begin, row_end, panel);
}

#endif
