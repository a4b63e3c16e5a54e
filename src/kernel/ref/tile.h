/* The register tile that all float sums of products go through:
 *   acc[r][j][l] = fma(w[c][j][l], x[r][c], acc[r][j][l]),  c = 0, 1, … n - 1 in order,
 * for rows r, lane groups j and 16 lanes l. Rows and groups only choose how many independent sums are held in
 * registers; each sum's order is the same for any choice. */
#ifndef SL_KERNEL_REF_TILE_H
#define SL_KERNEL_REF_TILE_H

#include "kernel/ref/ref.h"

/* Where the operands of a tile lie; strides in floats. */
typedef struct fma_tile {
    size_t n; /* terms of each sum */
    const float *w;
    size_t w_stride, w_group; /* between columns; between lane groups */
    const float *x;
    size_t x_stride; /* between rows */
    float *acc;
    size_t acc_stride, acc_group;
} fma_tile;

/* rows * groups at most 24; both constants where this is inlined. */
SL_INLINE void fma_tile_run(const fma_tile *t, const int rows, const int groups)
{
    float acc[24][LANES];
    const float *w = t->w, *x = t->x;
    const size_t n = t->n, w_stride = t->w_stride, w_group = t->w_group, x_stride = t->x_stride;
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++)
            memcpy(acc[r * groups + j], t->acc + r * t->acc_stride + j * t->acc_group, sizeof acc[0]);
    for (size_t c = 0; c < n; c++) {
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            const float xv = x[r * x_stride + c];
#pragma GCC unroll 4
            for (int j = 0; j < groups; j++)
                for (int l = 0; l < LANES; l++)
                    acc[r * groups + j][l] =
                        __builtin_fmaf(w[c * w_stride + j * w_group + l], xv, acc[r * groups + j][l]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++)
            memcpy(t->acc + r * t->acc_stride + j * t->acc_group, acc[r * groups + j], sizeof acc[0]);
}

/* Runs rows [0, n_rows) of one lane group. */
static inline void fma_rows(fma_tile t, size_t n_rows)
{
    while (n_rows > 0) {
        size_t done = 1;
        if (n_rows >= SL_ISA_ROWS) {
            done = SL_ISA_ROWS;
            fma_tile_run(&t, SL_ISA_ROWS, 1);
        } else if (n_rows >= 4) {
            done = 4;
            fma_tile_run(&t, 4, 1);
        } else {
            fma_tile_run(&t, 1, 1);
        }
        n_rows -= done;
        t.x += done * t.x_stride;
        t.acc += done * t.acc_stride;
    }
}

/* Runs rows [0, n_rows) of four lane groups: more sums at once when rows are few. */
static inline void fma_rows_x4(fma_tile t, size_t n_rows)
{
    if (SL_ISA_ROWS < 12) { /* four groups of some rows are more sums than there are registers */
        for (int j = 0; j < 4; j++, t.w += t.w_group, t.acc += t.acc_group)
            fma_rows(t, n_rows);
        return;
    }
    while (n_rows > 0) {
        size_t done = 1;
        if (n_rows >= SL_ISA_ROWS / 2) {
            done = SL_ISA_ROWS / 2;
            fma_tile_run(&t, SL_ISA_ROWS / 2, 4);
        } else if (n_rows >= 3) {
            done = 3;
            fma_tile_run(&t, 3, 4);
        } else {
            fma_tile_run(&t, 1, 4);
        }
        n_rows -= done;
        t.x += done * t.x_stride;
        t.acc += done * t.acc_stride;
    }
}

#endif
