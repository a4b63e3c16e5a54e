/* Matmul over panels of float weights (F32, F16, BF16), activations in float:
 *
 *   a_j = sum over columns c = j, j + 4, j + 8, … in order of fma(W[o][c], x[r][c], a_j),   j = 0 … 3,
 *   y[r][o] = ((a_0 + a_1) + (a_2 + a_3)) + bias[o].
 *
 * Four sums, so that one row alone keeps the FPU busy. A file that includes this instantiates SL_MATMUL_FLOAT with a
 * function that reads columns. */
#ifndef SL_KERNEL_REF_MATMUL_FLOAT_TMPL_H
#define SL_KERNEL_REF_MATMUL_FLOAT_TMPL_H

#include "kernel/ref/tile.h"

enum { TILE_COLS = 256, CHUNK_ROWS = 48, REGISTER_ROWS = SL_ISA_ROWS >= 12 ? 6 : 1 };

/* Turns columns of a panel into floats, w[c * 16 + l]; may return the panel's own memory instead. */
typedef const float *load_fn(const void *panel, size_t first_col, size_t n_cols, float *w);

/* acc[r][c % 4] over n_cols columns; rows is a constant where this is inlined. */
SL_INLINE void sum_columns(const float *w, size_t n_cols, const float *x, size_t x_stride, float (*acc)[4][LANES],
                           const int rows)
{
    float a[6][4][LANES];
    memcpy(a, acc, (size_t)rows * sizeof a[0]);
    size_t whole = n_cols - n_cols % 4;
    for (size_t c = 0; c < whole; c += 4) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
                for (int l = 0; l < LANES; l++)
                    a[r][j][l] = __builtin_fmaf(w[(c + j) * LANES + l], x[r * x_stride + c + j], a[r][j][l]);
    }
    memcpy(acc, a, (size_t)rows * sizeof a[0]);
    for (size_t c = whole; c < n_cols; c++)
        for (int r = 0; r < rows; r++)
            for (int l = 0; l < LANES; l++)
                acc[r][c % 4][l] = __builtin_fmaf(w[c * LANES + l], x[r * x_stride + c], acc[r][c % 4][l]);
}

static void sum_rows(const float *w, size_t n_cols, const float *x, size_t x_stride, float (*acc)[4][LANES],
                     size_t n_rows)
{
    size_t r = 0;
    for (; r + REGISTER_ROWS <= n_rows; r += REGISTER_ROWS)
        sum_columns(w, n_cols, x + r * x_stride, x_stride, acc + r, REGISTER_ROWS);
    for (; r < n_rows; r++)
        sum_columns(w, n_cols, x + r * x_stride, x_stride, acc + r, 1);
}

static void add_four(float (*acc)[4][LANES], size_t n_rows, float (*sums)[LANES])
{
    for (size_t r = 0; r < n_rows; r++)
        for (int l = 0; l < LANES; l++)
            sums[r][l] = (acc[r][0][l] + acc[r][1][l]) + (acc[r][2][l] + acc[r][3][l]);
}

SL_INLINE void matmul_float(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin,
                            size_t panel_end, load_fn *load)
{
    const sl_weight *weight = args->weight;
    float w[TILE_COLS * LANES], acc[CHUNK_ROWS][4][LANES], sums[CHUNK_ROWS][LANES];
    for (size_t row = row_begin; row < row_end; row += CHUNK_ROWS) {
        size_t n_rows = row_end - row < CHUNK_ROWS ? row_end - row : CHUNK_ROWS;
        const float *x = (const float *)(const void *)((const char *)args->x + row * args->x_stride_bytes);
        for (size_t panel = panel_begin; panel < panel_end; panel++) {
            const char *data = (const char *)weight->data + panel * weight->panel_bytes;
            memset(acc, 0, n_rows * sizeof acc[0]);
            for (size_t col = 0; col < weight->n_cols; col += TILE_COLS) {
                size_t n_cols = weight->n_cols - col < TILE_COLS ? weight->n_cols - col : TILE_COLS;
                sum_rows(load(data, col, n_cols, w), n_cols, x + col, args->x_stride_bytes / sizeof(float), acc,
                         n_rows);
            }
            add_four(acc, n_rows, sums);
            store_sums(args, row, n_rows, panel, sums);
        }
    }
}

#define SL_MATMUL_FLOAT(name, load)                                                                                    \
    void name(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end)           \
    {                                                                                                                  \
        matmul_float(args, row_begin, row_end, panel_begin, panel_end, load);                                          \
    }

#endif
