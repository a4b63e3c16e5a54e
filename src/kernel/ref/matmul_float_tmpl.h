/* Matmul over panels of float weights (F32, F16, BF16), activations in float:
 *
 *   y[r][o] = s_K + bias[o],   s_0 = 0,   s_{c+1} = fma(W[o][c], x[r][c], s_c)   for c = 0 … K-1 in order,
 *
 * as in `exact`. A file that includes this instantiates SL_MATMUL_FLOAT with a function that reads columns. */
#ifndef SL_KERNEL_REF_MATMUL_FLOAT_TMPL_H
#define SL_KERNEL_REF_MATMUL_FLOAT_TMPL_H

#include "kernel/ref/tile.h"

enum { TILE_COLS = 256, CHUNK_ROWS = 48 };

/* Turns columns of a panel into floats, w[c * 16 + l]; may return the panel's own memory instead. */
typedef const float *load_fn(const void *panel, size_t first_col, size_t n_cols, float *w);

SL_INLINE void matmul_float(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin,
                            size_t panel_end, load_fn *load)
{
    const sl_weight *weight = args->weight;
    const size_t x_stride = args->x_stride_bytes / sizeof(float);
    float w[TILE_COLS * LANES], acc[CHUNK_ROWS][LANES];
    for (size_t row = row_begin; row < row_end; row += CHUNK_ROWS) {
        size_t n_rows = row_end - row < CHUNK_ROWS ? row_end - row : CHUNK_ROWS;
        const float *x = (const float *)args->x + row * x_stride;
        for (size_t panel = panel_begin; panel < panel_end; panel++) {
            const char *data = (const char *)weight->data + panel * weight->panel_bytes;
            memset(acc, 0, n_rows * sizeof acc[0]);
            for (size_t col = 0; col < weight->n_cols; col += TILE_COLS) {
                size_t n_cols = weight->n_cols - col < TILE_COLS ? weight->n_cols - col : TILE_COLS;
                fma_tile t = {
                    .n = n_cols,
                    .w = load(data, col, n_cols, w),
                    .w_stride = LANES,
                    .x = x + col,
                    .x_stride = x_stride,
                    .acc = acc[0],
                    .acc_stride = LANES,
                };
                fma_rows(t, n_rows);
            }
            store_sums(args, row, n_rows, panel, acc);
        }
    }
}

#define SL_MATMUL_FLOAT(name, load)                                                                                    \
    void name(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end)           \
    {                                                                                                                  \
        matmul_float(args, row_begin, row_end, panel_begin, panel_end, load);                                          \
    }

#endif
