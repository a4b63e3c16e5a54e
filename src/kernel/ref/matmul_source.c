/* Matmul over the file's own rows: the yardstick `exact`.
 *
 *   y[r][o] = s_K + bias[o],   s_0 = 0,   s_{c+1} = fma(W[o][c], x[r][c], s_c)   for c = 0 … K-1 in order,
 *
 * with W the dequantized weight. 16 rows by 256 columns are dequantized at a time and used for many rows of x. */
#include "kernel/ref/tile.h"

enum { TILE_COLS = 256, CHUNK_ROWS = 384 };

/* w[c][l] = row l, column first_col + c; lanes beyond n_lanes are 0. */
static void load_tile(const sl_weight *weight, const sl_type_info *info, size_t panel, size_t first_col, size_t n_cols,
                      float w[TILE_COLS][LANES])
{
    float rows[LANES][TILE_COLS];
    size_t row_bytes = weight->n_cols / info->block_elems * info->block_bytes;
    size_t n_lanes = weight->n_rows - panel * LANES < LANES ? weight->n_rows - panel * LANES : LANES;
    for (size_t l = 0; l < n_lanes; l++) {
        const char *src = (const char *)weight->data + (panel * LANES + l) * row_bytes;
        info->dequantize(src + first_col / info->block_elems * info->block_bytes, rows[l], n_cols);
    }
    if (n_lanes < LANES)
        memset(rows[n_lanes], 0, (LANES - n_lanes) * sizeof rows[0]);
    for (size_t c = 0; c < n_cols; c++)
        for (int l = 0; l < LANES; l++)
            w[c][l] = rows[l][c];
}

void SL_REF(sl_matmul_source)(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin,
                              size_t panel_end)
{
    const sl_weight *weight = args->weight;
    const sl_type_info *info = sl_type_get((uint32_t)weight->type);
    float w[TILE_COLS][LANES], acc[CHUNK_ROWS][LANES];
    for (size_t row = row_begin; row < row_end; row += CHUNK_ROWS) {
        size_t n_rows = row_end - row < CHUNK_ROWS ? row_end - row : CHUNK_ROWS;
        for (size_t panel = panel_begin; panel < panel_end; panel++) {
            memset(acc, 0, n_rows * sizeof acc[0]);
            for (size_t col = 0; col < weight->n_cols; col += TILE_COLS) {
                size_t n_cols = weight->n_cols - col < TILE_COLS ? weight->n_cols - col : TILE_COLS;
                load_tile(weight, info, panel, col, n_cols, w);
                fma_tile t = {
                    .n = n_cols,
                    .w = w[0],
                    .w_stride = LANES,
                    .x = (const float *)(const void *)((const char *)args->x + row * args->x_stride_bytes) + col,
                    .x_stride = args->x_stride_bytes / sizeof(float),
                    .acc = acc[0],
                    .acc_stride = LANES,
                };
                fma_rows(t, n_rows);
            }
            store_sums(args, row, n_rows, panel, acc);
        }
    }
}
