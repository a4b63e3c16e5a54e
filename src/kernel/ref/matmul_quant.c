/* Matmul over panels of quantized weights with int8 activations: the arithmetic every tuned kernel repeats bit by bit.
 *
 * For each row r, output o and group g of 32 columns, with q_w the weight's integer without its offset:
 *   isum = sum over the group of q_w[o][c] * q_x[r][c]                exact, in 32-bit integers
 *   t(isum, d) = fma(M + isum, d, -(M d)),  M = 1.5 * 2^23            isum * d, rounded once
 *   Q4_0, Q5_0, Q8_0:  acc = fma(t(isum, d), scale, acc)
 *   Q4_1:              acc = fma(t(isum, d), scale, acc),  then  acc = fma(m, sum, acc)
 *   Q4_K:              as Q4_1 with d := d * sc and m := -(dmin * mn)
 *   Q6_K:              acc = fma(t(isum0, d * sc0), scale, acc),  then  acc = fma(t(isum1, d * sc1), scale, acc),
 *                      isum0 and isum1 over columns 0-15 and 16-31
 * with scale and sum those of the row's group g; groups in order from acc = 0; y = acc + bias[o].
 *
 * M + isum is the float whose bits are an integer sum that began at M's bits, so a kernel that counts from there needs
 * neither conversion nor product: one fma. d has at most 18 significant bits (f16, times a 6- or 8-bit scale), so M d
 * is exact, and so is the difference before its rounding. |isum| < 2^22 (at most 32 * 255 * 127) keeps M + isum exact.
 *
 * Here isum is summed in float: all partial sums are integers below 2^24, so it is exact. */
#include "kernel/panel.h"
#include "kernel/ref/ref.h"

#define MAGIC 0x1.8p23f

enum { CHUNK_ROWS = 48, MAX_GROUPS = SL_SUPER_GROUPS };

typedef enum form { FORM_SYMMETRIC, FORM_AFFINE, FORM_HALVES } form;

/* A group of 32 columns of a panel: integers as floats, and the factors. HALVES: d and m are d * sc0 and d * sc1. */
typedef struct group {
    float w[SL_GROUP][LANES];
    float d[LANES], m[LANES];
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

/* Nibbles of four lines, and above each the bits that high(column) gives, less offset. */
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
    uint32_t high[LANES];
    unpack_nibbles(out, unit->lines, 16);
    load_line(high, unit->high);
    for (int c = 0; c < SL_GROUP; c++)
        for (int l = 0; l < LANES; l++)
            out->w[c][l] += (float)(int32_t)((high[l] >> (8 * (c % 4) + c / 4) & 1) << 4);
    load_f16(out->d, unit->d);
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

SL_INLINE void unpack_q4_k(const void *panel, size_t index, group *out)
{
    const sl_unit_q4_k *unit = (const sl_unit_q4_k *)panel + index / SL_SUPER_GROUPS;
    size_t g = index % SL_SUPER_GROUPS;
    unpack_nibbles(out, unit->lines[g], 0);
    load_f16(out->d, unit->d);
    load_f16(out->m, unit->dmin);
    for (int l = 0; l < LANES; l++) {
        uint32_t low = unit->low[g][l], high = (uint32_t)unit->high[g % 4][l] >> g / 4 * 4;
        int32_t sc = (int32_t)((low & 15) | (high & 3) << 4), mn = (int32_t)(low >> 4 | (high & 12) << 2);
        out->d[l] = out->d[l] * (float)sc;
        out->m[l] = -(out->m[l] * (float)mn);
    }
}

SL_INLINE void unpack_q6_k(const void *panel, size_t index, group *out)
{
    const sl_unit_q6_k *unit = (const sl_unit_q6_k *)panel + index / SL_SUPER_GROUPS;
    size_t g = index % SL_SUPER_GROUPS;
    float d[LANES];
    unpack_nibbles(out, unit->group[g].lines, 32);
    for (int half = 0; half < 2; half++) {
        uint32_t high[LANES];
        load_line(high, unit->group[g].high[half]);
        for (int c = 0; c < SL_GROUP / 2; c++)
            for (int l = 0; l < LANES; l++)
                out->w[16 * half + c][l] += (float)(int32_t)((high[l] >> (8 * (c % 4) + c / 4 * 2) & 3) << 4);
    }
    load_f16(d, unit->d);
    for (int l = 0; l < LANES; l++) {
        out->d[l] = d[l] * (float)unit->sc[g][0][l];
        out->m[l] = d[l] * (float)unit->sc[g][1][l];
    }
}

/* Row of activations in a column tile, its integers as floats. */
typedef struct rows {
    const float *x, *scale, *sum; /* of the first row and group */
    size_t x_stride, s_stride;    /* floats between rows */
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
    return (rows){x[0], sl_q8_scale(first, all_cols) + col / SL_GROUP, sl_q8_sum(first, all_cols) + col / SL_GROUP,
                  SL_SUPER, args->x_stride_bytes / sizeof(float)};
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
MATMUL(sl_matmul_q8_0, unpack_q8_0, FORM_SYMMETRIC)
MATMUL(sl_matmul_q4_k, unpack_q4_k, FORM_AFFINE)
MATMUL(sl_matmul_q6_k, unpack_q6_k, FORM_HALVES)
