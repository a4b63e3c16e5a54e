/* Matmul of int8 activations at the levels without AVX-512 VNNI, for every quantized layout. The arithmetic is that of
 * ref/matmul_quant.c, bit by bit.
 *
 * A block of a panel's groups is unpacked once (unpack.h) into scratch that stays in L1, then a register tile, some rows
 * by the panel, runs over all rows of a chunk. Sums of a row that passes several blocks wait in y. Layouts that differ
 * in nothing but how they are unpacked share one tile (the kinds at the end).
 *
 * A level defines, before it includes this:
 *   vi, vf                     registers of int32 and float lanes; PARTS of them hold 16 outputs
 *   TILE_ROWS                  rows of the largest tile
 *   DOTS                       see unpack.h
 *   sum_line(sum, w, x)        sum + products of a line with 4 activations
 *   sum_total(sum)             such a sum as int32 lanes
 *   madd_i(sum, a, b)          sum + both products of each pair of 16 bits
 *   VI                         constraint of a register in an assembly statement
 *   load_i, spread_i, add_i, load_f, store_f, spread_f, fma_f, as_f, zero_i, zero_f, in_memory
 *
 * Sums in 16 bits wrap, so only the last value has to fit. A line adds at most 2 * 127 * q to a lane: 8 lines of 4 bits
 * (q <= 15) fit as they are. 5 bits over a group and 6 bits over a half fit when every q is taken less the middle of its
 * range (`center`, 2 * 127 * 16 * 8 = 2 * 127 * 32 * 4 = 32512): such sums start at minus center times the activations'
 * sum of the lane. Whole bytes do not fit: they and their activations are widened to 16 bits beforehand, for products
 * that vpmaddwd adds in 32 bits (as two nibbles, in 16 bits, they took a tenth longer). Where halves have integer scales,
 * vpmaddwd multiplies a half's sums with them: they fit 16 bits at every level (2 and 3 bits over a half:
 * 16 * 127 * 4 = 8128). */
#ifndef SL_KERNEL_X86_BLOCKED_H
#define SL_KERNEL_X86_BLOCKED_H

#include "kernel/x86/unpack.h"

#include <string.h>

enum {
    ROW_CHUNK = 96,    /* rows that share an unpacked block */
    BLOCK_GROUPS = 16, /* of a block */
    FEW_ROWS = 4,      /* for so many, blocks of FEW_GROUPS: memory is read in even pace */
    FEW_GROUPS = 4,
    TABLE_WORDS = 16384, /* of the rows' table */
    AHEAD_GROUPS = 16    /* prefetched this far ahead of the group that is unpacked */
};
_Static_assert(TABLE_WORDS * 2 * SL_GROUP <= SL_MATMUL_SCRATCH_BYTES, "a word at least for each row and group");

/* What a group adds to a sum; ref/matmul_quant.c has the equations. SCALED is symmetric with an integer scale of each
 * half, MINIMUMS has an integer minimum of each half besides. */
typedef enum form { FORM_SYMMETRIC, FORM_AFFINE, FORM_HALVES, FORM_SCALED, FORM_MINIMUMS } form;

enum { WHOLE_BYTES = -1 };

/* A kind of layout; constant where the functions below are inlined, so nothing of it remains at run time. */
typedef struct layout {
    form form;
    int offset; /* of the unsigned integers, to be taken out */
    int center; /* of their range, to be taken out of 16-bit sums; WHOLE_BYTES: too wide for these */
} layout;

/* Weights and activations as 16 bits; the offset is out already. */
SL_INLINE bool is_wide(const layout *lay)
{
    return !DOTS && lay->center == WHOLE_BYTES;
}

SL_INLINE int offset_of(const layout *lay)
{
    return is_wide(lay) ? 0 : lay->offset;
}

SL_INLINE bool is_scaled(const layout *lay)
{
    return lay->form == FORM_SCALED || lay->form == FORM_MINIMUMS;
}

/* What a tile needs of its rows besides their integers, in words of 4 bytes: for each group scale[R], then the words that
 * the layout wants: sum[R], MINIMUMS: half_sum[R][2] | start[halves][R], the int32 sums' start where it is not M (SCALED:
 * 0) alone | lane_start[halves][R], the 16-bit sums' starts. */
SL_INLINE int n_halves(const layout *lay)
{
    return lay->form == FORM_HALVES || is_scaled(lay) ? 2 : 1;
}

SL_INLINE int center_of(const layout *lay)
{
    return DOTS || lay->center == WHOLE_BYTES ? 0 : lay->center;
}

SL_INLINE int start_word(const layout *lay)
{
    return lay->form == FORM_AFFINE || lay->form == FORM_MINIMUMS ? 2 : 1;
}

SL_INLINE int lane_start_word(const layout *lay)
{
    return start_word(lay) + (offset_of(lay) != center_of(lay) ? n_halves(lay) : 0);
}

SL_INLINE int n_words(const layout *lay)
{
    return lane_start_word(lay) + (center_of(lay) ? n_halves(lay) : 0);
}

/* Activations as a tile reads them: row r starts at base[r / 3] + r % 3 * stride, so that few registers address all. */
enum { BASES = 4 };

typedef struct rows {
    const char *base[BASES];
    size_t stride;
} rows;

/* v = 4 bytes of row r at offset disp in every lane; r and disp are literals. Written as assembly because GCC would keep
 * an address for each row and offset, more than there are registers. */
#define SPREAD_AT(address, v, in, r, disp)                                                                             \
    __asm__("vbroadcastss %c3" address ", %0"                                                                          \
            : "=" VI(v)                                                                                                \
            : "r"((in)->base[(r) / 3]), "r"((in)->stride), "i"(disp), "m"(*(in)->base[(r) / 3]))
#define SPREAD_ROW(v, in, r, disp)                                                                                     \
    do {                                                                                                               \
        if ((r) % 3 == 0)                                                                                              \
            SPREAD_AT("(%1)", v, in, r, disp);                                                                         \
        else if ((r) % 3 == 1)                                                                                         \
            SPREAD_AT("(%1,%2)", v, in, r, disp);                                                                      \
        else                                                                                                           \
            SPREAD_AT("(%1,%2,2)", v, in, r, disp);                                                                    \
    } while (0)

SL_INLINE void rows_advance(rows *in, ptrdiff_t bytes, const int n_rows)
{
#pragma GCC unroll 4
    for (int i = 0; i < (n_rows + 2) / 3; i++) {
        in->base[i] += bytes;
    }
}

SL_INLINE rows rows_at(const char *x, size_t stride, const int n_rows)
{
    rows in = {.stride = stride};
#pragma GCC unroll 4
    for (int i = 0; i < (n_rows + 2) / 3; i++)
        in.base[i] = x + 3 * (size_t)i * stride;
    return in;
}

/* sum[r][s] += line i, held in w, times row r's bytes of it. The empty statement keeps GCC from regrouping the sums, with
 * more products at once than there are registers. */
#define ROW_LINE(r, i)                                                                                                 \
    if ((r) < n_rows) {                                                                                                \
        vi x_;                                                                                                         \
        SPREAD_ROW(x_, x, r, 4 * (i));                                                                                 \
        sum[r][0] = wide ? madd_i(sum[r][0], w[0], x_) : sum_line(sum[r][0], w[0], x_);                                \
        __asm__("" : "+" VI(sum[r][0]));                                                                               \
        if (PARTS == 2) {                                                                                              \
            sum[r][1] = wide ? madd_i(sum[r][1], w[1], x_) : sum_line(sum[r][1], w[1], x_);                            \
            __asm__("" : "+" VI(sum[r][1]));                                                                           \
        }                                                                                                              \
    }
#define LINE(i)                                                                                                        \
    if ((i) >= begin && (i) < end) {                                                                                   \
        const vi w[2] = {load_i(g->lines[i]), PARTS == 2 ? load_i(g->lines[i] + SL_LINE / 2) : zero_i()};              \
        ROW_LINE(0, i)                                                                                                 \
        ROW_LINE(1, i)                                                                                                 \
        ROW_LINE(2, i)                                                                                                 \
        ROW_LINE(3, i)                                                                                                 \
        ROW_LINE(4, i)                                                                                                 \
        ROW_LINE(5, i)                                                                                                 \
        ROW_LINE(6, i)                                                                                                 \
        ROW_LINE(7, i)                                                                                                 \
        ROW_LINE(8, i)                                                                                                 \
        ROW_LINE(9, i)                                                                                                 \
        ROW_LINE(10, i)                                                                                                \
        ROW_LINE(11, i)                                                                                                \
    }

/* sum[r][p] += lines begin … end - 1 of part p, up to 8, if wide up to 16; all constants but the pointers. */
SL_INLINE void sum_lines(vi (*sum)[2], const group *g, const rows *x, int begin, int end, const bool wide,
                         const int n_rows){LINE(0) LINE(1) LINE(2) LINE(3) LINE(4) LINE(5) LINE(6) LINE(7) LINE(8)
                                               LINE(9) LINE(10) LINE(11) LINE(12) LINE(13) LINE(14) LINE(15)}

/* acc += t(isum, d) * scale */
SL_INLINE vf add_scaled(vf acc, vi isum, const group *g, int which, int part, vf scale)
{
    const size_t at = (size_t)part * SL_PANEL_ROWS / PARTS;
    vf t = fma_f(as_f(isum), load_f(g->d[which] + at), load_f(g->less[which] + at));
    return fma_f(t, scale, acc);
}

enum { MAGIC_BITS = 0x4b400000 };
static const float magic = 0x1.8p23f; /* these bits: M of ref/matmul_quant.c */

/* M, or what the table has, to begin the int32 sum of row r with. */
SL_INLINE vi start_of(const layout *lay, const float *table, int which, int r, const int n_rows)
{
    return spread_i(offset_of(lay) == center_of(lay) ? &magic : table + (start_word(lay) + which) * n_rows + r);
}

/* Where row r's sum of lines begins: of half `which` of a group, or of all of it. */
SL_INLINE vi line_start_of(const layout *lay, const float *table, int which, int r, const int n_rows)
{
    if (center_of(lay))
        return spread_i(table + (lane_start_word(lay) + which) * n_rows + r);
    if (is_wide(lay) || (DOTS && (!is_scaled(lay) || lay->offset)))
        return start_of(lay, table, which, r, n_rows);
    return zero_i();
}

/* Half `which` of a group, or all of it. */
SL_INLINE void add_half(vf (*acc)[PARTS], const layout *lay, const group *g, const rows *x, const float *table,
                        int which, const int n_rows)
{
    vi sum[TILE_ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++) {
        vi begin = line_start_of(lay, table, which, r, n_rows);
#pragma GCC unroll 2
        for (int s = 0; s < 2; s++)
            sum[r][s] = begin;
    }
    if (lay->form == FORM_HALVES)
        sum_lines(sum, g, x, 4 * which, 4 * which + 4, false, n_rows);
    else
        sum_lines(sum, g, x, 0, is_wide(lay) ? 16 : 8, is_wide(lay), n_rows);
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++) {
        vf scale = spread_f(table + r);
#pragma GCC unroll 2
        for (int p = 0; p < PARTS; p++) {
            vi isum = sum[r][p];
            if (!DOTS && !is_wide(lay))
                isum = add_i(sum_total(isum), start_of(lay, table, which, r, n_rows));
            acc[r][p] = add_scaled(acc[r][p], isum, g, which, p, scale);
        }
    }
}

/* A group whose halves have integer scales: both sums times theirs, added as integers. */
SL_INLINE void add_scaled_halves(vf (*acc)[PARTS], const layout *lay, const group *g, const rows *x, const float *table,
                                 const int n_rows)
{
    vi isum[TILE_ROWS][PARTS];
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        vi sum[TILE_ROWS][2];
#pragma GCC unroll 12
        for (int r = 0; r < n_rows; r++)
            sum[r][0] = sum[r][1] = line_start_of(lay, table, h, r, n_rows);
        sum_lines(sum, g, x, 4 * h, 4 * h + 4, false, n_rows);
#pragma GCC unroll 12
        for (int r = 0; r < n_rows; r++)
#pragma GCC unroll 2
            for (int p = 0; p < PARTS; p++)
                isum[r][p] = madd_i(h == 0 ? spread_i(&magic) : isum[r][p], sum[r][p],
                                    load_i(g->scales[h] + p * SL_PANEL_ROWS / PARTS));
        in_memory(isum);
    }
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++) {
        const vf scale = spread_f(table + r);
#pragma GCC unroll 2
        for (int p = 0; p < PARTS; p++)
            acc[r][p] = add_scaled(acc[r][p], isum[r][p], g, 0, p, scale);
        if (lay->form != FORM_MINIMUMS)
            continue;
        const vi half_sums = spread_i(table + n_rows + r);
#pragma GCC unroll 2
        for (int p = 0; p < PARTS; p++) {
            vi least = madd_i(spread_i(&magic), load_i(g->mins[p * SL_PANEL_ROWS / PARTS]), half_sums);
            acc[r][p] = add_scaled(acc[r][p], least, g, 1, p, scale);
        }
    }
}

SL_INLINE void add_group(vf (*acc)[PARTS], const layout *lay, const group *g, const rows *x, const float *table,
                         const int n_rows)
{
    if (is_scaled(lay)) {
        add_scaled_halves(acc, lay, g, x, table, n_rows);
        return;
    }
    add_half(acc, lay, g, x, table, 0, n_rows);
    if (lay->form == FORM_HALVES)
        add_half(acc, lay, g, x, table, 1, n_rows);
    if (lay->form == FORM_AFFINE) {
#pragma GCC unroll 12
        for (int r = 0; r < n_rows; r++) {
            vf sum = spread_f(table + n_rows + r);
#pragma GCC unroll 2
            for (int p = 0; p < PARTS; p++)
                acc[r][p] = fma_f(load_f(g->m + (size_t)p * SL_PANEL_ROWS / PARTS), sum, acc[r][p]);
        }
    }
}

/* Where a tile finds and leaves its sums: rows stride floats apart; they begin at 0 when first. Some bytes from `ahead`
 * on are asked for with each group: spread like this they come at memory's pace, where many at once would hold up all
 * loads. */
typedef struct sums {
    float *y;
    size_t stride;
    bool first;
    const char *ahead;
    size_t ahead_bytes;
} sums;

/* Bytes of a row's group. */
SL_INLINE ptrdiff_t group_step(const layout *lay)
{
    return is_wide(lay) ? 2 * SL_GROUP : SL_GROUP;
}

/* One tile over groups of a panel; x and table stand at the first. */
SL_INLINE void tile(const layout *lay, const group *groups, size_t n_groups, rows x, const float *table, sums out,
                    const int n_rows)
{
    vf acc[TILE_ROWS][PARTS];
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++)
#pragma GCC unroll 2
        for (int p = 0; p < PARTS; p++)
            acc[r][p] =
                out.first ? zero_f() : load_f(out.y + (size_t)r * out.stride + (size_t)p * SL_PANEL_ROWS / PARTS);
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t b = 0; b < out.ahead_bytes; b += SL_LINE)
            _mm_prefetch(out.ahead + b, _MM_HINT_T0);
        out.ahead += out.ahead_bytes;
        in_memory(acc);
        add_group(acc, lay, groups + g, &x, table, n_rows);
        rows_advance(&x, group_step(lay), n_rows);
        table += n_words(lay) * n_rows;
    }
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++)
#pragma GCC unroll 2
        for (int p = 0; p < PARTS; p++)
            store_f(out.y + (size_t)r * out.stride + (size_t)p * SL_PANEL_ROWS / PARTS, acc[r][p]);
}

/* Rows of the next tile when so many are left. */
SL_INLINE int next_tile(size_t n_left)
{
    return n_left >= TILE_ROWS ? TILE_ROWS : n_left >= 4 ? 4 : n_left >= 2 ? 2 : 1;
}

/* Minus center times the activations' sum in each 16-bit lane: of columns 4 i, 4 i + 1 and of 4 i + 2, 4 i + 3. */
SL_INLINE __m256i lane_starts(const int8_t *x, int center)
{
    __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_loadu_si256((const __m256i *)(const void *)x));
    pairs = _mm256_add_epi16(pairs, _mm256_shuffle_epi32(pairs, 0x4e));
    pairs = _mm256_add_epi16(pairs, _mm256_shuffle_epi32(pairs, 0xb1));
    return _mm256_mullo_epi16(pairs, _mm256_set1_epi16((short)-center));
}

/* One row's words of a tile's table, groups [begin, end). */
SL_INLINE void fill_row(const layout *lay, const char *x, size_t n_cols, size_t begin, size_t end, float *table,
                        const size_t n_rows)
{
    const float *scale = sl_q8_scale(x, n_cols), *sum = sl_q8_sum(x, n_cols);
    const int16_t *half_sum = sl_q8_half_sum(x, n_cols);
    const int rest = center_of(lay) - offset_of(lay);
    for (size_t g = begin; g < end; g++, table += (size_t)n_words(lay) * n_rows) {
        int32_t start[2] = {half_sum[2 * g], half_sum[2 * g + 1]};
        table[0] = scale[g];
        if (lay->form == FORM_AFFINE)
            table[n_rows] = sum[g];
        if (lay->form == FORM_MINIMUMS)
            memcpy(table + n_rows, half_sum + 2 * g, 2 * sizeof *half_sum);
        if (n_halves(lay) == 1)
            start[0] += start[1];
        for (int h = 0; rest && h < n_halves(lay); h++) {
            int32_t word = (is_scaled(lay) ? 0 : MAGIC_BITS) + rest * start[h];
            memcpy(table + (size_t)(start_word(lay) + h) * n_rows, &word, sizeof word);
        }
        if (center_of(lay)) {
            float *to = table + (size_t)lane_start_word(lay) * n_rows;
            __m256i lanes = lane_starts((const int8_t *)x + g * SL_GROUP, center_of(lay));
            __m128i low = _mm256_castsi256_si128(lanes), high = _mm256_extracti128_si256(lanes, 1);
            int32_t word[2] = {_mm_cvtsi128_si32(low), _mm_cvtsi128_si32(high)};
            if (n_halves(lay) == 1)
                word[0] = _mm_cvtsi128_si32(_mm_add_epi16(low, high));
            for (int h = 0; h < n_halves(lay); h++)
                memcpy(to + (size_t)h * n_rows, &word[h], sizeof word[h]);
        }
    }
}

/* A chunk of rows by some groups: what all panels share. */
typedef struct span {
    const char *x; /* first row */
    size_t stride, n_rows, n_cols;
    const char *q; /* integers of the first row and group as the tiles read them, and bytes between rows */
    size_t q_stride;
    size_t begin, end;  /* groups */
    size_t group_bytes; /* of a panel, on average */
    float *table;       /* tile after tile */
} span;

SL_INLINE void fill_table(const layout *lay, const span *s)
{
    float *table = s->table;
    for (size_t row = 0, n; row < s->n_rows; row += n) {
        n = (size_t)next_tile(s->n_rows - row);
        for (size_t r = 0; r < n; r++)
            fill_row(lay, s->x + (row + r) * s->stride, s->n_cols, s->begin, s->end, table + r, n);
        table += (size_t)n_words(lay) * n * (s->end - s->begin);
    }
}

/* The span's integers: the rows' own, or widened into scratch: of each group first
 * columns 0 and 2 of each 4, then 1 and 3, as unpack.h has the weights. */
SL_INLINE void place_integers(const layout *lay, span *s, void *scratch)
{
    s->q = s->x + s->begin * SL_GROUP;
    s->q_stride = s->stride;
    if (!is_wide(lay))
        return;
    const size_t n = s->end - s->begin;
    __m256i *out = scratch;
    for (size_t r = 0; r < s->n_rows; r++) {
        for (size_t g = 0; g < n; g++, out += 2) {
            __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)(s->q + r * s->stride + g * SL_GROUP));
            _mm256_store_si256(out, even_bytes(q));
            _mm256_store_si256(out + 1, odd_bytes(q));
        }
    }
    s->q = scratch;
    s->q_stride = n * 2 * SL_GROUP;
}

/* All rows of a span by groups [begin, begin + n_groups) of a panel. */
SL_INLINE void run_tiles(const layout *lay, const span *s, const group *groups, size_t begin, size_t n_groups, sums out)
{
    const float *table = s->table;
    for (size_t row = 0, n; row < s->n_rows; row += n) {
        n = (size_t)next_tile(s->n_rows - row);
        const char *q = s->q + row * s->q_stride + (begin - s->begin) * (size_t)group_step(lay);
        const float *at = table + (size_t)n_words(lay) * n * (begin - s->begin);
        if (n == TILE_ROWS)
            tile(lay, groups, n_groups, rows_at(q, s->q_stride, TILE_ROWS), at, out, TILE_ROWS);
        else if (n == 4)
            tile(lay, groups, n_groups, rows_at(q, s->q_stride, 4), at, out, 4);
        else if (n == 2)
            tile(lay, groups, n_groups, rows_at(q, s->q_stride, 2), at, out, 2);
        else
            tile(lay, groups, n_groups, rows_at(q, s->q_stride, 1), at, out, 1);
        table += (size_t)n_words(lay) * n * (s->end - s->begin);
        out.y += n * out.stride;
        out.ahead_bytes = 0;
    }
}

SL_INLINE void run_panel(const layout *lay, const span *s, const void *panel, unpack_fn *unpack, sums out)
{
    const size_t most = s->n_rows <= FEW_ROWS ? FEW_GROUPS : BLOCK_GROUPS;
    group groups[BLOCK_GROUPS];
    for (size_t g = s->begin, n; g < s->end; g += n) {
        n = SL_MIN(s->end - g, most);
        unpack(panel, g, n, groups);
        out.ahead = (const char *)panel + (g + AHEAD_GROUPS) * s->group_bytes;
        out.ahead_bytes = s->group_bytes;
        run_tiles(lay, s, groups, g, n, out);
        out.first = false;
    }
}

/* The last lanes of a chunk's rows and the bias. */
static void finish_rows(const sl_matmul *args, size_t row, size_t n_rows, size_t panel_begin, size_t panel_end,
                        float (*tail)[SL_PANEL_ROWS])
{
    size_t n_out = args->weight->n_rows, begin = panel_begin * SL_PANEL_ROWS, end = panel_end * SL_PANEL_ROWS;
    for (size_t r = 0; r < n_rows; r++) {
        float *y = args->y + (row + r) * args->y_stride_elems;
        if (end > n_out)
            memcpy(y + n_out / SL_PANEL_ROWS * SL_PANEL_ROWS, tail[r], n_out % SL_PANEL_ROWS * sizeof *y);
        for (size_t o = begin; args->bias && o < SL_MIN(end, n_out); o++)
            y[o] += args->bias[o];
    }
}

SL_INLINE void matmul(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end,
                      unpack_fn *unpack, const layout *lay)
{
    const sl_weight *w = args->weight;
    const size_t n_groups = w->n_cols / SL_GROUP;
    float table[TABLE_WORDS], tail[ROW_CHUNK][SL_PANEL_ROWS];
    for (size_t row = row_begin; row < row_end; row += ROW_CHUNK) {
        span s = {.x = (const char *)args->x + row * args->x_stride_bytes,
                  .stride = args->x_stride_bytes,
                  .n_rows = SL_MIN(row_end - row, (size_t)ROW_CHUNK),
                  .n_cols = w->n_cols,
                  .group_bytes = w->panel_bytes / n_groups,
                  .table = table};
        const size_t most = TABLE_WORDS / (s.n_rows * (size_t)n_words(lay)) / BLOCK_GROUPS * BLOCK_GROUPS;
        for (; s.begin < n_groups; s.begin = s.end) {
            s.end = SL_MIN(s.begin + most, n_groups);
            fill_table(lay, &s);
            place_integers(lay, &s, args->scratch);
            for (size_t panel = panel_begin; panel < panel_end; panel++) {
                bool whole = (panel + 1) * SL_PANEL_ROWS <= w->n_rows;
                float *y = args->y + row * args->y_stride_elems + panel * SL_PANEL_ROWS;
                sums out = {.y = whole ? y : tail[0],
                            .stride = whole ? args->y_stride_elems : SL_PANEL_ROWS,
                            .first = s.begin == 0};
                run_panel(lay, &s, (const char *)w->data + panel * w->panel_bytes, unpack, out);
            }
        }
        finish_rows(args, row, s.n_rows, panel_begin, panel_end, tail);
    }
}

/* A kind of layouts: all of its code but the unpacking. */
#define KIND(name, ...)                                                                                                \
    static __attribute__((noinline)) void name(const sl_matmul *args, size_t row_begin, size_t row_end,                \
                                               size_t panel_begin, size_t panel_end, unpack_fn *unpack)                \
    {                                                                                                                  \
        const layout lay = {__VA_ARGS__};                                                                              \
        matmul(args, row_begin, row_end, panel_begin, panel_end, unpack, &lay);                                        \
    }

KIND(matmul_low, FORM_SYMMETRIC, 8, 0)
KIND(matmul_middle, FORM_SYMMETRIC, 16, 16)
KIND(matmul_bytes, FORM_SYMMETRIC, 128, WHOLE_BYTES)
KIND(matmul_low_affine, FORM_AFFINE, 0, 0)
KIND(matmul_middle_affine, FORM_AFFINE, 0, 16)
KIND(matmul_halves, FORM_HALVES, 32, 32)
KIND(matmul_scaled, FORM_SCALED, 4, 4)
KIND(matmul_minimums, FORM_MINIMUMS, 0, 0)

#define MATMUL(name, level, kind)                                                                                      \
    static void name##_groups(const void *panel, size_t first, size_t n, group *out)                                   \
    {                                                                                                                  \
        for (size_t g = first; g < first + n; g++)                                                                     \
            unpack_##name(panel, g, out++);                                                                            \
    }                                                                                                                  \
    void sl_matmul_##name##_##level(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin,       \
                                    size_t panel_end)                                                                  \
    {                                                                                                                  \
        kind(args, row_begin, row_end, panel_begin, panel_end, name##_groups);                                         \
    }

/* The kernels of a level; its name as in kernels.inc. */
#define MATMULS(level)                                                                                                 \
    MATMUL(q4_0, level, matmul_low)                                                                                    \
    MATMUL(q4_1, level, matmul_low_affine)                                                                             \
    MATMUL(q5_0, level, matmul_middle)                                                                                 \
    MATMUL(q5_1, level, matmul_middle_affine)                                                                          \
    MATMUL(q8_0, level, matmul_bytes)                                                                                  \
    MATMUL(q2_k, level, matmul_minimums)                                                                               \
    MATMUL(q3_k, level, matmul_scaled)                                                                                 \
    MATMUL(q4_k, level, matmul_low_affine)                                                                             \
    MATMUL(q5_k, level, matmul_middle_affine)                                                                          \
    MATMUL(q6_k, level, matmul_halves)                                                                                 \
    MATMUL(iq4_nl, level, matmul_bytes)                                                                                \
    MATMUL(iq4_xs, level, matmul_bytes)                                                                                \
    MATMUL(mxfp4, level, matmul_middle)

#endif
