/* Many rows of int8 activations by quantized panels with AVX-512 VNNI: prefill and large batches. The arithmetic is that
 * of ref/matmul_quant.c, bit by bit.
 *
 * Both operands are first brought into the form that the inner loop wants. Activations are copied tile by tile, so that
 * all a group of a tile needs lies together (record); the offset of a symmetric type becomes the value its integer sum
 * starts from, which costs nothing later. A panel's columns are unpacked to bytes with float factors (group), as many at
 * a time as L1 holds, once for all rows; the rows' sums wait in the scratch meanwhile. The inner loop is then the same for every layout: 6 rows by 2 panels, 12 integer and 12 float sums in
 * registers, each broadcast of 4 activations used for both panels. That is 8 vpdpbusd, 2 or 3 fma and no more work for
 * the vector units per row, panel and group, and fewer loads than these. */
#include "kernel/x86/many.h"

enum {
    MANY_COLS = 4096,    /* columns at once: so many that y, whose rows lie far apart, is written once or twice */
    X_BYTES = 768 << 10, /* of the scratch, for activations */
    TILE_ROWS = 6,       /* at most, in registers */
    TILE_PANELS = 2,     /* the same */
    GROUPS = 20,         /* unpacked at once: 33 KB for two panels, which L1 holds */
    MAX_ROWS = 512,      /* at once */
    START = 0x4b400000,  /* bits of 1.5 * 2^23 */
};

/* One group of one row. */
typedef struct record {
    int8_t q[SL_GROUP];
    int32_t start[2]; /* of the integer sums: START less the offset's share; HALVES: one for each half */
    float scale, sum; /* MINIMUMS: in sum's place both half sums, 16 bits each */
} record;
_Static_assert(sizeof(record) == 48, "written as 32 and 16 bytes");

/* What the scratch holds. */
typedef struct buffers {
    _Alignas(64) char x[X_BYTES];                     /* records: tile after tile [group][row of the tile] */
    sl_vnni_group w[TILE_PANELS][GROUPS];             /* unpacked */
    float sums[MAX_ROWS][TILE_PANELS][SL_PANEL_ROWS]; /* of the panels at work, until all columns are through */
} buffers;
_Static_assert(sizeof(buffers) <= SL_MATMUL_SCRATCH_BYTES, "scratch");

typedef struct job {
    const sl_matmul *args;
    sl_vnni_form form;
    int offset;
    size_t col, n_groups;    /* columns at work: from col on */
    size_t row, n_rows;      /* rows at work */
    size_t group, group_end; /* of these columns: the unpacked ones */
    buffers *buffers;
} job;

/* Rows of the next tile when `left` (4, 5, 6 or at least 8) are left: sixes, but what remains must be one of those. */
static size_t tile_rows(size_t left)
{
    return left >= 16 || left == 12 || left == 11 || left == 10 || left == 6  ? 6
           : left == 15 || left == 14 || left == 13 || left == 9 || left == 5 ? 5
                                                                              : 4;
}

/* Groups of one row to records that lie tile_rows apart. */
static void load_row(const job *j, const char *row, record *out, size_t tile_rows)
{
    const size_t n_cols = j->args->weight->n_cols, first = j->col / SL_GROUP;
    const char *q = row + j->col;
    const int16_t *half = sl_q8_half_sum(row, n_cols) + 2 * first;
    const float *scale = sl_q8_scale(row, n_cols) + first;
    const float *sum = j->form == SL_VNNI_MINIMUMS ? (const float *)(const void *)half : sl_q8_sum(row, n_cols) + first;
    /* What each half sum takes off each start, as pairs for vpmaddwd. */
    const int16_t o = (int16_t)-j->offset, both = j->form == SL_VNNI_HALVES ? 0 : o;
    const __m128i pairs = _mm_setr_epi16(o, both, both, o, 0, 0, 0, 0), magic = _mm_setr_epi32(START, START, 0, 0);
    for (size_t g = 0; g < j->n_groups; g++, out += tile_rows) {
        __m128i sums = _mm_set1_epi32(*(const int32_t *)(const void *)(half + 2 * g));
        __m128i start = _mm_add_epi32(_mm_madd_epi16(sums, pairs), magic);
        __m128 factors = _mm_unpacklo_ps(_mm_load_ss(scale + g), _mm_load_ss(sum + g));
        _mm256_storeu_si256((__m256i *)(void *)out->q, _mm256_loadu_si256((const __m256i *)(const void *)(q + 32 * g)));
        _mm_storeu_si128((__m128i *)(void *)out->start, _mm_unpacklo_epi64(start, _mm_castps_si128(factors)));
    }
}

static void load_rows(const job *j)
{
    record *out = (record *)(void *)j->buffers->x;
    for (size_t row = 0, n; row < j->n_rows; row += n, out += n * j->n_groups) {
        n = tile_rows(j->n_rows - row);
        const char *first = (const char *)j->args->x + (j->row + row) * j->args->x_stride_bytes;
        for (size_t r = 0; r < n; r++)
            load_row(j, first + r * j->args->x_stride_bytes, out + r, n);
    }
}

/* isum += lines [begin, begin + n) of the group by the rows' bytes. */
SL_INLINE void dot_lines(__m512i isum[TILE_PANELS][TILE_ROWS], const sl_vnni_group *w, const record *x, const int begin,
                         const int n, const int rows, const int panels)
{
#pragma GCC unroll 8
    for (int at = begin; at < begin + n; at++) {
        __m512i line[TILE_PANELS];
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++)
            line[p] = _mm512_load_si512(w[p * GROUPS].lines[at]);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x[r].q + 4 * at, sizeof four);
            __m512i q = _mm512_set1_epi32(four);
#pragma GCC unroll 2
            for (int p = 0; p < panels; p++)
                isum[p][r] = _mm512_dpbusd_epi32(isum[p][r], line[p], q);
        }
    }
}

/* Lines [begin, begin + n) summed from start[half] on and scaled by factor `half`: acc += t(isum, d) * scale. */
SL_INLINE void add_lines(__m512 acc[TILE_PANELS][TILE_ROWS], const sl_vnni_group *w, const record *x, const int half,
                         const int begin, const int n, const int rows, const int panels)
{
    __m512i isum[TILE_PANELS][TILE_ROWS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++)
            isum[p][r] = _mm512_set1_epi32(x[r].start[half]);
    dot_lines(isum, w, x, begin, n, rows, panels);
#pragma GCC unroll 2
    for (int p = 0; p < panels; p++) {
        __m512 d = _mm512_load_ps(w[p * GROUPS].d[half]), less = _mm512_load_ps(w[p * GROUPS].less[half]);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m512 t = _mm512_fmadd_ps(_mm512_castsi512_ps(isum[p][r]), d, less);
            acc[p][r] = _mm512_fmadd_ps(t, _mm512_set1_ps(x[r].scale), acc[p][r]);
        }
    }
}

/* acc += t(isum, d[1]) * scale with isum = the minimums times the half sums. */
SL_INLINE void add_minimums(__m512 acc[TILE_PANELS][TILE_ROWS], const sl_vnni_group *w, const record *x, const int rows,
                            const int panels)
{
#pragma GCC unroll 2
    for (int p = 0; p < panels; p++) {
        __m512 d = _mm512_load_ps(w[p * GROUPS].d[1]), less = _mm512_load_ps(w[p * GROUPS].less[1]);
        __m512i mins = _mm512_load_si512(w[p * GROUPS].mins);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m512i half_sums = _mm512_castps_si512(_mm512_set1_ps(x[r].sum));
            __m512i isum = _mm512_dpwssd_epi32(_mm512_set1_epi32(START), mins, half_sums);
            __m512 t = _mm512_fmadd_ps(_mm512_castsi512_ps(isum), d, less);
            acc[p][r] = _mm512_fmadd_ps(t, _mm512_set1_ps(x[r].scale), acc[p][r]);
        }
    }
}

SL_INLINE void add_group(__m512 acc[TILE_PANELS][TILE_ROWS], const sl_vnni_group *w, const record *x,
                         const sl_vnni_form form, const int rows, const int panels)
{
    if (form == SL_VNNI_HALVES) {
        add_lines(acc, w, x, 0, 0, 4, rows, panels);
        add_lines(acc, w, x, 1, 4, 4, rows, panels);
        return;
    }
    add_lines(acc, w, x, 0, 0, 8, rows, panels);
    if (form == SL_VNNI_MINIMUMS)
        add_minimums(acc, w, x, rows, panels);
    if (form == SL_VNNI_AFFINE) {
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) {
            __m512 m = _mm512_load_ps(w[p * GROUPS].m);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
                acc[p][r] = _mm512_fmadd_ps(m, _mm512_set1_ps(x[r].sum), acc[p][r]);
        }
    }
}

/* Where a tile's results go: rows of y, of each panel's lanes as many as the weight has. */
typedef struct target {
    float *y;
    size_t stride;
    __mmask16 lanes[TILE_PANELS];
} target;

SL_INLINE target target_of(const job *j, size_t row, size_t panel)
{
    size_t out = panel * SL_PANEL_ROWS, left = j->args->weight->n_rows - out, stride = j->args->y_stride_elems;
    return (target){
        j->args->y + (j->row + row) * stride + out,
        stride,
        {(__mmask16)(left >= 16 ? 0xffff : (1u << left) - 1), (__mmask16)(left >= 32  ? 0xffff
                                                                          : left > 16 ? (1u << (left - 16)) - 1
                                                                                      : 0)}};
}

/* Sums so far: those of earlier groups are kept in the scratch, those of earlier columns wait in y. */
SL_INLINE void load_sums(__m512 acc[TILE_PANELS][TILE_ROWS], const job *j, size_t row, size_t panel, const int rows,
                         const int panels)
{
    const target to = target_of(j, row, panel);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) {
            if (j->group > 0)
                acc[p][r] = _mm512_load_ps(j->buffers->sums[row + (size_t)r][p]);
            else if (j->col > 0)
                acc[p][r] = _mm512_maskz_loadu_ps(to.lanes[p], to.y + (size_t)r * to.stride + p * SL_PANEL_ROWS);
            else
                acc[p][r] = _mm512_setzero_ps();
        }
}

SL_INLINE void store_sums(__m512 acc[TILE_PANELS][TILE_ROWS], const job *j, size_t row, size_t panel, const int rows,
                          const int panels)
{
    if (j->group_end < j->n_groups) {
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int p = 0; p < panels; p++)
                _mm512_store_ps(j->buffers->sums[row + (size_t)r][p], acc[p][r]);
        return;
    }
    const target to = target_of(j, row, panel);
    const bool last = j->col + j->n_groups * SL_GROUP == j->args->weight->n_cols;
    const float *bias = last && j->args->bias ? j->args->bias + panel * SL_PANEL_ROWS : NULL;
#pragma GCC unroll 2
    for (int p = 0; p < panels; p++) {
        __m512 b = bias ? _mm512_maskz_loadu_ps(to.lanes[p], bias + p * SL_PANEL_ROWS) : _mm512_setzero_ps();
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
            _mm512_mask_storeu_ps(to.y + (size_t)r * to.stride + p * SL_PANEL_ROWS, to.lanes[p],
                                  bias ? _mm512_add_ps(acc[p][r], b) : acc[p][r]);
    }
}

/* One tile by the unpacked groups; all of it constant but j, row, panel and x. */
SL_INLINE void tile(const job *j, size_t row, size_t panel, const record *x, const sl_vnni_form form, const int rows,
                    const int panels)
{
    __m512 acc[TILE_PANELS][TILE_ROWS];
    load_sums(acc, j, row, panel, rows, panels);
    const sl_vnni_group *w = j->buffers->w[0];
    x += j->group * (size_t)rows;
    for (size_t g = j->group; g < j->group_end; g++, x += rows, w++)
        add_group(acc, w, x, form, rows, panels);
    store_sums(acc, j, row, panel, rows, panels);
}

#define TILE(form, name, rows, panels)                                                                                 \
    static void name##_##rows##x##panels(const job *j, size_t row, size_t panel, const record *x)                      \
    {                                                                                                                  \
        tile(j, row, panel, x, form, rows, panels);                                                                    \
    }
#define TILES(form, name)                                                                                              \
    TILE(form, name, 4, 1)                                                                                             \
    TILE(form, name, 5, 1)                                                                                             \
    TILE(form, name, 6, 1)                                                                                             \
    TILE(form, name, 4, 2)                                                                                             \
    TILE(form, name, 5, 2)                                                                                             \
    TILE(form, name, 6, 2)
#define TILE_NAMES(name)                                                                                               \
    {                                                                                                                  \
        {name##_4x1, name##_5x1, name##_6x1},                                                                          \
        {                                                                                                              \
            name##_4x2, name##_5x2, name##_6x2                                                                         \
        }                                                                                                              \
    }

typedef void tile_fn(const job *j, size_t row, size_t panel, const record *x);

TILES(SL_VNNI_SYMMETRIC, symmetric)
TILES(SL_VNNI_AFFINE, affine)
TILES(SL_VNNI_HALVES, halves)
TILES(SL_VNNI_MINIMUMS, minimums)

/* [form][panels - 1][rows - 4] */
static tile_fn *const tiles[SL_VNNI_FORMS][TILE_PANELS][3] = {
    TILE_NAMES(symmetric), TILE_NAMES(affine), TILE_NAMES(halves), TILE_NAMES(symmetric), TILE_NAMES(minimums)};

/* Asks for a share of the next panels' bytes: they are wanted all at once when the rows are through. */
static void prefetch_share(const char *next, size_t bytes, size_t row, size_t rows, size_t n_rows)
{
    size_t begin = bytes * row / n_rows / SL_LINE * SL_LINE, end = bytes * (row + rows) / n_rows;
    for (size_t b = begin; b < end; b += SL_LINE)
        _mm_prefetch(next + b, _MM_HINT_T1);
}

/* All rows by the unpacked groups of n panels; next: the bytes of the groups of the panels that follow, or NULL. */
static void rows_by_panels(const job *j, size_t panel, size_t n, const char *next, size_t group_bytes)
{
    const record *x = (const record *)(const void *)j->buffers->x;
    for (size_t row = 0, rows; row < j->n_rows; row += rows, x += rows * j->n_groups) {
        rows = tile_rows(j->n_rows - row);
        for (size_t p = 0; p < n && next; p++)
            prefetch_share(next + p * j->args->weight->panel_bytes, group_bytes * (j->group_end - j->group), row, rows,
                           j->n_rows);
        tiles[j->form][n - 1][rows - 4](j, row, panel, x);
    }
}

static void panel_range(job *j, size_t panel_begin, size_t panel_end, sl_vnni_unpack_fn *unpack)
{
    const sl_weight *weight = j->args->weight;
    const size_t first = j->col / SL_GROUP, group_bytes = weight->panel_bytes / (weight->n_cols / SL_GROUP);
    const size_t n_parts = (j->n_groups + GROUPS - 1) / GROUPS;
    for (size_t panel = panel_begin, n; panel < panel_end; panel += n) {
        const char *data = (const char *)weight->data + panel * weight->panel_bytes;
        n = panel_end - panel < TILE_PANELS ? 1 : TILE_PANELS;
        j->group = 0;
        for (size_t part = 1; part <= n_parts; part++, j->group = j->group_end) {
            j->group_end = j->n_groups * part / n_parts;
            for (size_t p = 0; p < n; p++)
                unpack(data + p * weight->panel_bytes, first + j->group, j->group_end - j->group, j->buffers->w[p]);
            const char *next = data + n * weight->panel_bytes + (first + j->group) * group_bytes;
            rows_by_panels(j, panel, n, panel + n < panel_end ? next : NULL, group_bytes);
        }
    }
}

void sl_vnni_matmul_many(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end,
                         sl_vnni_form form, int offset, sl_vnni_unpack_fn *unpack)
{
    size_t n_cols = args->weight->n_cols, cols = SL_MIN(n_cols, (size_t)MANY_COLS), n = row_end - row_begin;
    size_t most = SL_MIN(X_BYTES / (cols / SL_GROUP * sizeof(record)), (size_t)MAX_ROWS);
    size_t n_blocks = (n + most - 1) / most, done = 0;
    job j = {.args = args, .form = form, .offset = offset, .buffers = args->scratch};
    for (size_t block = 1; block <= n_blocks; block++, done += j.n_rows) {
        j.row = row_begin + done;
        j.n_rows = n * block / n_blocks - done;
        for (j.col = 0; j.col < n_cols; j.col += MANY_COLS) {
            j.n_groups = SL_MIN(n_cols - j.col, (size_t)MANY_COLS) / SL_GROUP;
            load_rows(&j);
            panel_range(&j, panel_begin, panel_end, unpack);
        }
    }
}
