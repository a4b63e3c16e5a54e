/* Matmul over panels of float weights with AVX-512. The arithmetic is that of ref/matmul_float_tmpl.h, bit by bit: one
 * chain of fmas for each output. A register tile is rows by panels, with as many sums as there are registers for: up to
 * twelve rows share what is made of two panels' columns, and few rows read up to eight panels side by side, so that the
 * chains hide the fma's latency. */
#include "kernel/kernels.h"
#include "kernel/panel.h"

#include <immintrin.h>

#define SL_INLINE static inline __attribute__((always_inline))

enum {
    TILE_ROWS = 12,        /* at most */
    TILE_PANELS = 8,       /* the same */
    TILE_SUMS = 24,        /* the same, rows by panels */
    PREFETCH_BYTES = 8192, /* ahead of the columns at work, in all panels of a tile together */
    X_BYTES = 512 << 10,   /* of activations, which shall stay in L2 while the panels pass */
};

/* 16 weights of a panel's column, as float32. */
typedef __m512 column_fn(const char *at);

SL_INLINE __m512 column_f32(const char *at)
{
    return _mm512_loadu_ps((const float *)(const void *)at);
}

SL_INLINE __m512 column_f16(const char *at)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)at));
}

SL_INLINE __m512 column_bf16(const char *at)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)at));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

/* One tile's place. */
typedef struct job {
    const sl_matmul *args;
    size_t row, panel;
} job;

/* acc[p][r] += column by column, bytes each. Row r is at x[r / 3] + r % 3 * stride: one address of few registers. */
SL_INLINE void add_columns(__m512 acc[][TILE_ROWS], const job *j, column_fn *load, const size_t bytes, const int rows,
                           const int panels)
{
    const size_t stride = j->args->x_stride_bytes, n_cols = j->args->weight->n_cols;
    const size_t panel_bytes = j->args->weight->panel_bytes;
    const char *w = (const char *)j->args->weight->data + j->panel * panel_bytes;
    const char *first = (const char *)j->args->x + j->row * stride;
    const char *x[] = {first, first + 3 * stride, first + 6 * stride, first + 9 * stride};
    for (size_t c = 0; c < n_cols; c++, w += bytes) {
        __m512 column[TILE_PANELS];
#pragma GCC unroll 8
        for (int p = 0; p < panels; p++) {
            const char *at = w + (size_t)p * panel_bytes;
            column[p] = load(at);
            if (c * bytes % SL_LINE == 0)
                _mm_prefetch(at + PREFETCH_BYTES / panels, _MM_HINT_T0);
        }
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            const char *at = x[r / 3] + (size_t)(r % 3) * stride;
            const __m512 v = _mm512_set1_ps(*(const float *)(const void *)at);
#pragma GCC unroll 8
            for (int p = 0; p < panels; p++)
                acc[p][r] = _mm512_fmadd_ps(column[p], v, acc[p][r]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            x[i] += sizeof(float);
    }
}

/* One tile; rows, panels, load and bytes are constants where this is inlined. Only its last panel may be cut short. */
SL_INLINE void tile(const job *j, column_fn *load, const size_t bytes, const int rows, const int panels)
{
    const size_t out = j->panel * SL_PANEL_ROWS, left = j->args->weight->n_rows - out, stride = j->args->y_stride_elems;
    const __mmask16 lanes = (__mmask16)(left >= (size_t)panels * 16 ? 0xffff : (1u << left % 16) - 1);
    float *y = j->args->y + j->row * stride + out;
    __m512 acc[TILE_PANELS][TILE_ROWS];
#pragma GCC unroll 8
    for (int p = 0; p < panels; p++)
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++)
            acc[p][r] = _mm512_setzero_ps();
    add_columns(acc, j, load, bytes, rows, panels);
    if (j->args->bias) {
#pragma GCC unroll 8
        for (int p = 0; p < panels; p++) {
            const __m512 b = _mm512_maskz_loadu_ps(p < panels - 1 ? 0xffff : lanes, j->args->bias + out + p * 16);
#pragma GCC unroll 12
            for (int r = 0; r < rows; r++)
                acc[p][r] = _mm512_add_ps(acc[p][r], b);
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < panels; p++)
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++)
            _mm512_mask_storeu_ps(y + (size_t)r * stride + p * 16, p < panels - 1 ? 0xffff : lanes, acc[p][r]);
}

typedef void tile_fn(const job *j);

#define TILE(name, load, bytes, rows, panels)                                                                          \
    static void name##_##rows##x##panels(const job *j)                                                                 \
    {                                                                                                                  \
        tile(j, load, bytes, rows, panels);                                                                            \
    }
#define TILES_2(name, load, bytes, rows)                                                                               \
    TILE(name, load, bytes, rows, 1)                                                                                   \
    TILE(name, load, bytes, rows, 2)
#define TILES_4(name, load, bytes, rows)                                                                               \
    TILES_2(name, load, bytes, rows)                                                                                   \
    TILE(name, load, bytes, rows, 4)
#define TILES_8(name, load, bytes, rows)                                                                               \
    TILES_4(name, load, bytes, rows)                                                                                   \
    TILE(name, load, bytes, rows, 8)
#define NAMES_2(name, rows)                                                                                            \
    {                                                                                                                  \
        name##_##rows##x1, name##_##rows##x2                                                                           \
    }
#define NAMES_4(name, rows)                                                                                            \
    {                                                                                                                  \
        name##_##rows##x1, name##_##rows##x2, name##_##rows##x4                                                        \
    }
#define NAMES_8(name, rows)                                                                                            \
    {                                                                                                                  \
        name##_##rows##x1, name##_##rows##x2, name##_##rows##x4, name##_##rows##x8                                     \
    }

/* [rows - 1][log2 of panels] */
typedef tile_fn *tile_table[TILE_ROWS][4];
#define TABLE(name, load, bytes)                                                                                       \
    TILES_8(name, load, bytes, 1)                                                                                      \
    TILES_8(name, load, bytes, 2)                                                                                      \
    TILES_8(name, load, bytes, 3)                                                                                      \
    TILES_4(name, load, bytes, 4)                                                                                      \
    TILES_4(name, load, bytes, 5)                                                                                      \
    TILES_4(name, load, bytes, 6)                                                                                      \
    TILES_2(name, load, bytes, 7)                                                                                      \
    TILES_2(name, load, bytes, 8)                                                                                      \
    TILES_2(name, load, bytes, 9)                                                                                      \
    TILES_2(name, load, bytes, 10)                                                                                     \
    TILES_2(name, load, bytes, 11)                                                                                     \
    TILES_2(name, load, bytes, 12)                                                                                     \
    static const tile_table                                                                                            \
        name##_tiles = {NAMES_8(name, 1), NAMES_8(name, 2),  NAMES_8(name, 3),  NAMES_4(name, 4),                      \
                        NAMES_4(name, 5), NAMES_4(name, 6),  NAMES_2(name, 7),  NAMES_2(name, 8),                      \
                        NAMES_2(name, 9), NAMES_2(name, 10), NAMES_2(name, 11), NAMES_2(name, 12)};

TABLE(f32, column_f32, 64)
TABLE(f16, column_f16, 32)
TABLE(bf16, column_bf16, 32)

/* Rows [row, row + n) by each panel, in tiles of rows as equal as can be. */
static void block(const sl_matmul *args, size_t row, size_t n, size_t panel_begin, size_t panel_end,
                  const tile_table tiles)
{
    const size_t n_tiles = (n + TILE_ROWS - 1) / TILE_ROWS, most_rows = (n + n_tiles - 1) / n_tiles;
    for (size_t panel = panel_begin, log; panel < panel_end; panel += (size_t)1 << log) {
        log = 3;
        while (most_rows << log > TILE_SUMS || (size_t)1 << log > panel_end - panel)
            log--;
        for (size_t t = 0; t < n_tiles; t++) {
            const size_t begin = n * t / n_tiles, end = n * (t + 1) / n_tiles;
            tiles[end - begin - 1][log](&(job){args, row + begin, panel});
        }
    }
}

static void matmul(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end,
                   const tile_table tiles)
{
    const size_t most = SL_MAX(X_BYTES / args->x_stride_bytes, (size_t)(2 * TILE_ROWS)), n = row_end - row_begin;
    const size_t n_blocks = (n + most - 1) / most;
    for (size_t b = 0; b < n_blocks; b++) {
        const size_t begin = n * b / n_blocks, end = n * (b + 1) / n_blocks;
        block(args, row_begin + begin, end - begin, panel_begin, panel_end, tiles);
    }
}

#define MATMUL(type)                                                                                                   \
    void sl_matmul_##type##_avx512(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin,        \
                                   size_t panel_end)                                                                   \
    {                                                                                                                  \
        matmul(args, row_begin, row_end, panel_begin, panel_end, type##_tiles);                                        \
    }

MATMUL(f32)
MATMUL(f16)
MATMUL(bf16)
