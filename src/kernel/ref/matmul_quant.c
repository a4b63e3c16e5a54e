/* Matmul over panels of quantized weights with int8 activations: the arithmetic every tuned kernel repeats bit by bit.
 *
 * For each row r, output o and group g of 32 columns, with q_w the weight's integer without its offset:
 *   isum = sum over the group of q_w[o][c] * q_x[r][c]                exact, in 32-bit integers
 *   t(isum, d) = fma(M + isum, d, -(M d)),  M = 1.5 * 2^23            isum * d, rounded once
 *   symmetric:  acc = fma(t(isum, d), scale, acc)
 *   affine:     the same,  then  acc = fma(m, sum, acc)
 *   halves:     acc = fma(t(isum0, d0), scale, acc),  then  acc = fma(t(isum1, d1), scale, acc),
 *               isum0 and isum1 over columns 0-15 and 16-31
 *   minimums:   as symmetric,  then  acc = fma(t(isum_m, -dmin), scale, acc),
 *               isum_m = mn0 * half_sum[0] + mn1 * half_sum[1]        exact
 * with scale, sum and half_sum those of the row's group g; groups in order from acc = 0; y = acc + bias[o].
 *
 *   symmetric: Q4_0, Q5_0, Q8_0, IQ4_NL; IQ4_XS with d := d * (sc - 32); MXFP4 with d := 2^(e - 128);
 *              Q3_K with q_w := (sc_h - 32) * (q - 4) in half h
 *   affine:    Q4_1, Q5_1; Q4_K and Q5_K with d := d * sc, m := -(dmin * mn)
 *   halves:    Q6_K with d0 := d * sc0, d1 := d * sc1
 *   minimums:  Q2_K with q_w := sc_h * q in half h
 *
 * M + isum is the float whose bits are an integer sum that began at M's bits, so a kernel that counts from there needs
 * neither conversion nor product: one fma. d has at most 18 significant bits (f16, times a 6- or 8-bit scale), so M d
 * is exact, and so is the difference before its rounding. |isum| < 2^22 (at most 32 * 255 * 127) keeps M + isum exact.
 * Only an exponent of MXFP4 above 231 makes M d infinite and the sum NaN: weights beyond 2^104, as no model has.
 *
 * Here isum is summed in float: all partial sums are integers below 2^24, so it is exact. */
#include "kernel/panel.h"
#include "kernel/ref/ref.h"

#define MAGIC 0x1.8p23f

enum { CHUNK_ROWS = 48, MAX_GROUPS = SL_SUPER_GROUPS };

typedef enum form { FORM_SYMMETRIC, FORM_AFFINE, FORM_HALVES, FORM_MINIMUMS } form;

/* A group of 32 columns of a panel: integers as floats, and the factors. HALVES: d and m are d0 and d1; MINIMUMS: d
 * and -dmin. */
typedef struct group {
    float w[SL_GROUP][LANES];
    float d[LANES], m[LANES];
    float mn[2][LANES];
} group;

/* Unpacks group index (from column 0) of a panel. */
typedef void unpack_fn(const void *panel, size_t index, group *out);

SL_INLINE void load_line(uint32_t v[LANES], const uint8_t *line)
{
    memcpy(v, line, SL_LINE);
}

SL_INLINE void load_f16(float f[LANES], const uint16_t *h)
{
    for (int l = 0; l < LANES; l++)
        f[l] = f16_to_f32(h[l]);
}

/* Nibbles of four lines, less offset. */
SL_INLINE void unpack_nibbles(group *out, const uint8_t (*lines)[SL_LINE], int offset)
{
    for (int i = 0; i < 4; i++) {
        uint32_t v[LANES];
        load_line(v, lines[i]);
        for (int j = 0; j < 4; j++) {
            for (int l = 0; l < LANES; l++)
                out->w[4 * i + j][l] = (float)((int32_t)(v[l] >> 8 * j & 15) - offset);
            for (int l = 0; l < LANES; l++)
                out->w[16 + 4 * i + j][l] = (float)((int32_t)(v[l] >> (8 * j + 4) & 15) - offset);
        }
    }
}

/* Codes that the nibbles of four lines name, less offset. */
SL_INLINE void unpack_codes(group *out, const uint8_t (*lines)[SL_LINE], const uint8_t codes[16], int offset)
{
    for (int c = 0; c < SL_GROUP; c++)
        for (int l = 0; l < LANES; l++)
            out->w[c][l] = (float)(codes[lines[c % 16 / 4][4 * l + c % 4] >> c / 16 * 4 & 15] - offset);
}

/* w += (bit of a line of bits) << shift */
SL_INLINE void add_bits(group *out, const uint8_t *line, int shift)
{
    uint32_t bits[LANES];
    load_line(bits, line);
    for (int c = 0; c < SL_GROUP; c++)
        for (int l = 0; l < LANES; l++)
            out->w[c][l] += (float)(int32_t)((bits[l] >> (8 * (c % 4) + c / 4) & 1) << shift);
}

/* w += (bit pair of the halves' lines) << shift */
SL_INLINE void add_bit_pairs(group *out, const uint8_t (*lines)[SL_LINE], int shift)
{
    for (int half = 0; half < 2; half++) {
        uint32_t bits[LANES];
        load_line(bits, lines[half]);
        for (int c = 0; c < SL_GROUP / 2; c++)
            for (int l = 0; l < LANES; l++)
                out->w[16 * half + c][l] += (float)(int32_t)((bits[l] >> (8 * (c % 4) + c / 4 * 2) & 3) << shift);
    }
}

/* Pair (a, b) of 6-bit numbers of group g. */
SL_INLINE void unpack_pair(const uint8_t (*low)[SL_PANEL_ROWS], const uint8_t (*high)[SL_PANEL_ROWS], size_t g,
                           int32_t a[LANES], int32_t b[LANES])
{
    for (int l = 0; l < LANES; l++) {
        uint32_t bits = low[g][l], top = (uint32_t)high[g % 4][l] >> g / 4 * 4;
        a[l] = (int32_t)((bits & 15) | (top & 3) << 4);
        b[l] = (int32_t)(bits >> 4 | (top & 12) << 2);
    }
}

/* Factors of Q4_K and Q5_K. */
SL_INLINE void scale_min(group *out, const int32_t sc[LANES], const int32_t mn[LANES])
{
    for (int l = 0; l < LANES; l++) {
        out->d[l] = out->d[l] * (float)sc[l];
        out->m[l] = -(out->m[l] * (float)mn[l]);
    }
}

SL_INLINE void unpack_q4_0(const void *panel, size_t index, group *out)
{
    const sl_unit_q4_0 *unit = (const sl_unit_q4_0 *)panel + index;
    unpack_nibbles(out, unit->lines, 8);
    load_f16(out->d, unit->d);
}

SL_INLINE void unpack_q4_1(const void *panel, size_t index, group *out)
{
    const sl_unit_q4_1 *unit = (const sl_unit_q4_1 *)panel + index;
    unpack_nibbles(out, unit->lines, 0);
    load_f16(out->d, unit->d);
    load_f16(out->m, unit->m);
}

SL_INLINE void unpack_q5_0(const void *panel, size_t index, group *out)
{
    const sl_unit_q5_0 *unit = (const sl_unit_q5_0 *)panel + index;
    unpack_nibbles(out, unit->lines, 16);
    add_bits(out, unit->high, 4);
    load_f16(out->d, unit->d);
}

SL_INLINE void unpack_q5_1(const void *panel, size_t index, group *out)
{
    const sl_unit_q5_1 *unit = (const sl_unit_q5_1 *)panel + index;
    unpack_nibbles(out, unit->lines, 0);
    add_bits(out, unit->high, 4);
    load_f16(out->d, unit->d);
    load_f16(out->m, unit->m);
}

SL_INLINE void unpack_q8_0(const void *panel, size_t index, group *out)
{
    const sl_unit_q8_0 *unit = (const sl_unit_q8_0 *)panel + index;
    for (int i = 0; i < 8; i++) {
        uint32_t v[LANES];
        load_line(v, unit->lines[i]);
        for (int j = 0; j < 4; j++)
            for (int l = 0; l < LANES; l++)
                out->w[4 * i + j][l] = (float)((int32_t)(v[l] >> 8 * j & 255) - 128);
    }
    load_f16(out->d, unit->d);
}

SL_INLINE void unpack_q2_k(const void *panel, size_t index, group *out)
{
    const sl_unit_q2_k *unit = (const sl_unit_q2_k *)panel + index / SL_SUPER_GROUPS;
    size_t g = index % SL_SUPER_GROUPS;
    memset(out->w, 0, sizeof out->w);
    add_bit_pairs(out, unit->lines[g], 0);
    for (int c = 0; c < SL_GROUP; c++)
        for (int l = 0; l < LANES; l++)
            out->w[c][l] *= (float)(unit->scales[g][l][c / 16] & 15);
    load_f16(out->d, unit->d);
    load_f16(out->m, unit->dmin);
    for (int l = 0; l < LANES; l++) {
        out->m[l] = -out->m[l];
        out->mn[0][l] = (float)(unit->scales[g][l][0] >> 4);
        out->mn[1][l] = (float)(unit->scales[g][l][1] >> 4);
    }
}

SL_INLINE void unpack_q3_k(const void *panel, size_t index, group *out)
{
    const sl_unit_q3_k *unit = (const sl_unit_q3_k *)panel + index / SL_SUPER_GROUPS;
    size_t g = index % SL_SUPER_GROUPS;
    const uint8_t(*lines)[SL_LINE] = unit->lines[g];
    for (int c = 0; c < SL_GROUP; c++) {
        for (int l = 0; l < LANES; l++) {
            int i = c / 4, at = 4 * l + c % 4;
            int q = i < 6 ? lines[i / 2][at] >> i % 2 * 3 & 7 : lines[i - 6][at] >> 6 | (lines[2][at] >> i & 1) << 2;
            int low = unit->low[g % 4][l][c / 16] >> g / 4 * 4 & 15;
            int high = unit->high[g % 2][l][c / 16] >> g / 2 * 2 & 3;
            out->w[c][l] = (float)(((low | high << 4) - 32) * (q - 4));
        }
    }
    load_f16(out->d, unit->d);
}

SL_INLINE void unpack_q4_k(const void *panel, size_t index, group *out)
{
    const sl_unit_q4_k *unit = (const sl_unit_q4_k *)panel + index / SL_SUPER_GROUPS;
    size_t g = index % SL_SUPER_GROUPS;
    int32_t sc[LANES], mn[LANES];
    unpack_nibbles(out, unit->lines[g], 0);
    load_f16(out->d, unit->d);
    load_f16(out->m, unit->dmin);
    unpack_pair(unit->low, unit->high, g, sc, mn);
    scale_min(out, sc, mn);
}

SL_INLINE void unpack_q5_k(const void *panel, size_t index, group *out)
{
    const sl_unit_q5_k *unit = (const sl_unit_q5_k *)panel + index / SL_SUPER_GROUPS;
    size_t g = index % SL_SUPER_GROUPS;
    int32_t sc[LANES], mn[LANES];
    unpack_nibbles(out, unit->group[g].lines, 0);
    add_bits(out, unit->group[g].high, 4);
    load_f16(out->d, unit->d);
    load_f16(out->m, unit->dmin);
    unpack_pair(unit->low, unit->high, g, sc, mn);
    scale_min(out, sc, mn);
}

SL_INLINE void unpack_q6_k(const void *panel, size_t index, group *out)
{
    const sl_unit_q6_k *unit = (const sl_unit_q6_k *)panel + index / SL_SUPER_GROUPS;
    size_t g = index % SL_SUPER_GROUPS;
    float d[LANES];
    unpack_nibbles(out, unit->group[g].lines, 32);
    add_bit_pairs(out, unit->group[g].high, 4);
    load_f16(d, unit->d);
    for (int l = 0; l < LANES; l++) {
        out->d[l] = d[l] * (float)unit->sc[g][0][l];
        out->m[l] = d[l] * (float)unit->sc[g][1][l];
    }
}

SL_INLINE void unpack_iq4_nl(const void *panel, size_t index, group *out)
{
    const sl_unit_iq4_nl *unit = (const sl_unit_iq4_nl *)panel + index;
    unpack_codes(out, unit->lines, sl_iq4_codes, SL_IQ4_OFFSET);
    load_f16(out->d, unit->d);
}

SL_INLINE void unpack_iq4_xs(const void *panel, size_t index, group *out)
{
    const sl_unit_iq4_xs *unit = (const sl_unit_iq4_xs *)panel + index / SL_SUPER_GROUPS;
    size_t g = index % SL_SUPER_GROUPS;
    unpack_codes(out, unit->lines[g], sl_iq4_codes, SL_IQ4_OFFSET);
    load_f16(out->d, unit->d);
    for (int l = 0; l < LANES; l++) {
        int32_t sc = (unit->low[g % 4][l] >> g / 4 * 4 & 15) | (unit->high[l] >> 2 * g & 3) << 4;
        out->d[l] = out->d[l] * (float)(sc - 32);
    }
}

SL_INLINE void unpack_mxfp4(const void *panel, size_t index, group *out)
{
    const sl_unit_mxfp4 *unit = (const sl_unit_mxfp4 *)panel + index;
    unpack_codes(out, unit->lines, sl_mxfp4_codes, SL_MXFP4_OFFSET);
    for (int l = 0; l < LANES; l++) {
        uint32_t e = unit->e[l];
        out->d[l] = f32_from_bits(e < 2 ? 0 : (e - 1) << 23);
    }
}

/* Row of activations in a column tile, its integers as floats. */
typedef struct rows {
    const float *x, *scale, *sum; /* of the first row and group */
    const int16_t *half_sum;
    size_t x_stride, s_stride; /* floats between rows */
} rows;

/* isum[r] += sum of w[c] * x[r][c], c in [begin, end). */
SL_INLINE void sum_products(float isum[SL_ISA_ROWS][LANES], const group *g, const float *x, size_t x_stride, int begin,
                            int end, const int n_rows)
{
    for (int c = begin; c < end; c++) {
#pragma GCC unroll 12
        for (int r = 0; r < n_rows; r++)
            for (int l = 0; l < LANES; l++)
                isum[r][l] = __builtin_fmaf(g->w[c][l], x[r * x_stride + c], isum[r][l]);
    }
}

/* acc[r] += t(isum[r], d) * scale[r] */
SL_INLINE void add_scaled(float (*acc)[LANES], float isum[SL_ISA_ROWS][LANES], const float d[LANES], const rows *in,
                          size_t index, const int n_rows)
{
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++) {
        float scale = in->scale[r * in->s_stride + index];
        for (int l = 0; l < LANES; l++) {
            float t = __builtin_fmaf(MAGIC + isum[r][l], d[l], -(MAGIC * d[l]));
            acc[r][l] = __builtin_fmaf(t, scale, acc[r][l]);
        }
    }
}

/* One group for n_rows rows, a constant where this is inlined. */
SL_INLINE void add_group(const group *g, const rows *in, size_t index, float (*acc)[LANES], const form kind,
                         const int n_rows)
{
    const float *x = in->x + index * SL_GROUP;
    float isum[SL_ISA_ROWS][LANES] = {0}, second[SL_ISA_ROWS][LANES] = {0};
    sum_products(isum, g, x, in->x_stride, 0, kind == FORM_HALVES ? SL_GROUP / 2 : SL_GROUP, n_rows);
    add_scaled(acc, isum, g->d, in, index, n_rows);
    if (kind == FORM_HALVES) {
        sum_products(second, g, x, in->x_stride, SL_GROUP / 2, SL_GROUP, n_rows);
        add_scaled(acc, second, g->m, in, index, n_rows);
    }
    if (kind == FORM_MINIMUMS) {
#pragma GCC unroll 12
        for (int r = 0; r < n_rows; r++) {
            const int16_t *sums = in->half_sum + r * in->s_stride * 2 + 2 * index;
            for (int l = 0; l < LANES; l++)
                isum[r][l] = g->mn[0][l] * (float)sums[0] + g->mn[1][l] * (float)sums[1];
        }
        add_scaled(acc, isum, g->m, in, index, n_rows);
    }
    if (kind == FORM_AFFINE) {
#pragma GCC unroll 12
        for (int r = 0; r < n_rows; r++)
            for (int l = 0; l < LANES; l++)
                acc[r][l] = __builtin_fmaf(g->m[l], in->sum[r * in->s_stride + index], acc[r][l]);
    }
}

SL_INLINE void add_groups(const group *groups, size_t n_groups, rows in, size_t n_rows, float (*acc)[LANES],
                          const form kind)
{
    while (n_rows > 0) {
        size_t done = n_rows >= SL_ISA_ROWS ? SL_ISA_ROWS : 1;
        for (size_t i = 0; i < n_groups; i++) {
            if (done == SL_ISA_ROWS)
                add_group(groups + i, &in, i, acc, kind, SL_ISA_ROWS);
            else
                add_group(groups + i, &in, i, acc, kind, 1);
        }
        n_rows -= done;
        acc += done;
        in.x += done * in.x_stride;
        in.scale += done * in.s_stride;
        in.sum += done * in.s_stride;
        in.half_sum += done * in.s_stride * 2;
    }
}

/* The rows' integers of n_cols columns from col on, as floats. */
static rows load_rows(const sl_matmul *args, size_t row, size_t n_rows, size_t col, size_t n_cols,
                      float x[CHUNK_ROWS][SL_SUPER])
{
    size_t all_cols = args->weight->n_cols;
    const char *first = (const char *)args->x + row * args->x_stride_bytes;
    for (size_t r = 0; r < n_rows; r++) {
        const int8_t *q = (const int8_t *)first + r * args->x_stride_bytes + col;
        for (size_t c = 0; c < n_cols; c++)
            x[r][c] = (float)q[c];
    }
    return (rows){x[0],
                  sl_q8_scale(first, all_cols) + col / SL_GROUP,
                  sl_q8_sum(first, all_cols) + col / SL_GROUP,
                  sl_q8_half_sum(first, all_cols) + col / SL_GROUP * 2,
                  SL_SUPER,
                  args->x_stride_bytes / sizeof(float)};
}

SL_INLINE void matmul(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end,
                      unpack_fn *unpack, const form kind)
{
    const sl_weight *weight = args->weight;
    group groups[MAX_GROUPS];
    float x[CHUNK_ROWS][SL_SUPER], acc[CHUNK_ROWS][LANES];
    for (size_t row = row_begin; row < row_end; row += CHUNK_ROWS) {
        size_t n_rows = row_end - row < CHUNK_ROWS ? row_end - row : CHUNK_ROWS;
        for (size_t panel = panel_begin; panel < panel_end; panel++) {
            const char *data = (const char *)weight->data + panel * weight->panel_bytes;
            memset(acc, 0, n_rows * sizeof acc[0]);
            for (size_t col = 0; col < weight->n_cols; col += SL_SUPER) {
                size_t n_cols = weight->n_cols - col < SL_SUPER ? weight->n_cols - col : SL_SUPER;
                for (size_t i = 0; i < n_cols / SL_GROUP; i++)
                    unpack(data, col / SL_GROUP + i, &groups[i]);
                rows in = load_rows(args, row, n_rows, col, n_cols, x);
                add_groups(groups, n_cols / SL_GROUP, in, n_rows, acc, kind);
            }
            store_sums(args, row, n_rows, panel, acc);
        }
    }
}

#define MATMUL(name, unpack, kind)                                                                                     \
    void SL_REF(name)(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end)   \
    {                                                                                                                  \
        matmul(args, row_begin, row_end, panel_begin, panel_end, unpack, kind);                                        \
    }

MATMUL(sl_matmul_q4_0, unpack_q4_0, FORM_SYMMETRIC)
MATMUL(sl_matmul_q4_1, unpack_q4_1, FORM_AFFINE)
MATMUL(sl_matmul_q5_0, unpack_q5_0, FORM_SYMMETRIC)
MATMUL(sl_matmul_q5_1, unpack_q5_1, FORM_AFFINE)
MATMUL(sl_matmul_q8_0, unpack_q8_0, FORM_SYMMETRIC)
MATMUL(sl_matmul_q2_k, unpack_q2_k, FORM_MINIMUMS)
MATMUL(sl_matmul_q3_k, unpack_q3_k, FORM_SYMMETRIC)
MATMUL(sl_matmul_q4_k, unpack_q4_k, FORM_AFFINE)
MATMUL(sl_matmul_q5_k, unpack_q5_k, FORM_AFFINE)
MATMUL(sl_matmul_q6_k, unpack_q6_k, FORM_HALVES)
MATMUL(sl_matmul_iq4_nl, unpack_iq4_nl, FORM_SYMMETRIC)
MATMUL(sl_matmul_iq4_xs, unpack_iq4_xs, FORM_SYMMETRIC)
MATMUL(sl_matmul_mxfp4, unpack_mxfp4, FORM_SYMMETRIC)
