/* Attention on vector registers: the arithmetic of ref/attention_tmpl.h, which kernel/ops.h fixes, and the way through
 * queries, chunks and splits that all levels share. What makes it fast:
 *  - 12 queries at a time go through scores, softmax and values while the chunk's K and V (float32, converted once for
 *    all rows of the tile) and their scores stay in the L1 cache;
 *  - up to 6 queries are held in registers, the rescaling of acc happens while it is loaded;
 *  - blocks of 16 positions that no row of a register tile sees have no scores.
 * A query head of a row is one "query" here. A level's file includes this, defines the four functions declared below and
 * calls attention_run. */
#ifndef SL_KERNEL_X86_ATTENTION_H
#define SL_KERNEL_X86_ATTENTION_H

#include "kernel/kv_layout.h"
#include "kernel/ref/attention_merge.h"

#include <immintrin.h>

enum { TILE_ROWS = 6, TILE_GROUPS = 4, QUERY_BLOCK = 12 };

typedef struct work {
    const sl_attention *args;
    const sl_attention_tile *tile;
    size_t kv_head, dim, padded; /* head_dim; the same rounded up to 16 */
    size_t n_heads, n_queries;   /* query heads of this KV head; n_heads * rows */
    const float *q;              /* the first query's */
    float *score;                /* [QUERY_BLOCK][64] */
    float *acc;                  /* [n_queries][padded], of the split in progress like max and sum */
    float *max, *sum, *keep;     /* [n_queries]; keep: what acc is still to be multiplied with */
    float *all_max, *all_sum;    /* [n_queries], of the splits so far */
    float *k;                    /* [dim][64] of the chunk */
    float *v;                    /* [64][padded] of the chunk */
} work;

typedef struct query_block {
    size_t first, n; /* queries */
    span seen[QUERY_BLOCK];
} query_block;

/* ---- a level's part ---- */

/* acc[r][j] = fma(w[c][j], x[r][c], acc[r][j]), c = 0, 1, … n - 1; 1 to TILE_ROWS rows r, 1 to TILE_GROUPS groups j of 16
 * lanes. keep: what each row's acc is multiplied with first; NULL: acc starts at 0. Strides in floats. */
SL_INLINE void fma_tile(size_t rows, size_t groups, size_t n, const float *w, size_t w_stride,
                        const float *const x[TILE_ROWS], float *acc, size_t acc_stride, const float *keep);

/* Keys of one block to dst[d * 64]. */
static void load_k(const work *w, size_t block, float *dst);

/* Values of positions [from, to) of one block to rows of `padded` floats. */
static void load_v(const work *w, size_t block, size_t from, size_t to, float *dst);

/* Turns the scores of a block, once multiplied with scale, into weights; max, sum and keep follow. Each query sees
 * something; all_seen: each sees the whole chunk. */
static void softmax_block(const work *w, const query_block *b, bool all_seen, float scale);

/* ---- register tiles ---- */

/* Scores of `rows` queries from `query` on with the chunk's positions [16 group, 16 (group + groups)). */
static void score_tile(const work *w, size_t query, size_t rows, size_t group, size_t groups, float *acc)
{
    const float *x[TILE_ROWS];
    size_t row = query / w->n_heads, head = query % w->n_heads;
    for (size_t r = 0; r < rows; r++) {
        x[r] = w->q + row * w->args->q_stride_elems + head * w->dim;
        if (++head == w->n_heads)
            head = 0, row++;
    }
    fma_tile(rows, groups, w->dim, w->k + group * LANES, SL_KV_CHUNK, x, acc + group * LANES, SL_KV_CHUNK, NULL);
}

/* acc of `rows` queries from `query` on, which all see the positions; score is the first one's. */
static void value_tile(const work *w, size_t query, size_t rows, span seen, const float *score, const float *keep)
{
    const float *x[TILE_ROWS];
    for (size_t r = 0; r < TILE_ROWS; r++)
        x[r] = score + seen.begin + r * SL_KV_CHUNK;
    for (size_t d = 0; d < w->padded; d += TILE_GROUPS * LANES) {
        size_t groups = (w->padded - d) / LANES;
        fma_tile(rows, groups < TILE_GROUPS ? groups : TILE_GROUPS, seen.end - seen.begin,
                 w->v + seen.begin * w->padded + d, w->padded, x, w->acc + query * w->padded + d, w->padded, keep);
    }
}

/* ---- a chunk's keys and values as floats ---- */

/* Keys of the blocks that hold seen positions. */
static void load_keys(const work *w, const uint32_t *blocks, span seen)
{
    for (size_t b = seen.begin / SL_KV_BLOCK; b * SL_KV_BLOCK < seen.end; b++)
        load_k(w, blocks[b], w->k + b * SL_KV_BLOCK);
}

/* Values of the seen positions. */
static void load_values(const work *w, const uint32_t *blocks, span seen)
{
    for (size_t p = seen.begin, next; p < seen.end; p = next) {
        size_t b = p / SL_KV_BLOCK, begin = b * SL_KV_BLOCK;
        next = begin + SL_KV_BLOCK < seen.end ? begin + SL_KV_BLOCK : seen.end;
        load_v(w, blocks[b], p - begin, next - begin, w->v + p * w->padded);
    }
}

/* Brings the i-th of n parts of the next chunk near; there are n query blocks to do so between. */
static void prefetch_part(const work *w, size_t next_chunk, size_t i, size_t n)
{
    const sl_kv_layer *kv = &w->args->kv;
    size_t last = (size_t)w->tile->position + w->tile->n_rows - 1;
    enum { PARTS = 2 * SL_KV_CHUNK / SL_KV_BLOCK };
    for (size_t part = i * PARTS / n; part < (i + 1) * PARTS / n; part++) {
        size_t position = next_chunk + part / 2 * SL_KV_BLOCK;
        if (position > last)
            return;
        size_t block = w->tile->blocks[position / SL_KV_BLOCK];
        const char *p = part % 2 ? sl_kv_v_head(kv, block, w->kv_head) : sl_kv_k_head(kv, block, w->kv_head);
        size_t n_bytes = part % 2 ? sl_kv_v_head_bytes(kv->type, w->dim) : sl_kv_k_head_bytes(kv->type, w->dim);
        for (size_t at = 0; at < n_bytes; at += 64)
            _mm_prefetch(p + at, _MM_HINT_T1);
    }
}

/* ---- a block of queries in a chunk ---- */

static query_block query_block_of(const work *w, size_t first, size_t n, size_t chunk_begin)
{
    query_block b = {.first = first, .n = n};
    size_t row = first / w->n_heads, next_row = (row + 1) * w->n_heads - first;
    span seen = sees_in_chunk(w->args, w->tile, row, chunk_begin);
    for (size_t i = 0; i < n; i++) {
        if (i == next_row) {
            seen = sees_in_chunk(w->args, w->tile, ++row, chunk_begin);
            next_row += w->n_heads;
        }
        b.seen[i] = seen;
    }
    return b;
}

static void score_queries(const work *w, const query_block *b)
{
    for (size_t i = 0, n; i < b->n; i += n) {
        n = b->n - i < TILE_ROWS ? b->n - i : TILE_ROWS;
        size_t group = b->seen[i].begin / LANES, last = (b->seen[i + n - 1].end - 1) / LANES;
        score_tile(w, b->first + i, n, group, last - group + 1, w->score + i * SL_KV_CHUNK);
    }
}

/* s = cap * tanh(scale * score / cap), for the rare models that cap. */
static void cap_scores(float *s, size_t n, float scale, float cap)
{
    for (size_t i = 0; i < n; i++)
        s[i] = cap * tanh_f32(s[i] * scale / cap);
}

static void weigh_queries(const work *w, const query_block *b)
{
    const float cap = w->args->softcap;
    const span *first = &b->seen[0], *last = &b->seen[b->n - 1];
    bool all_seen = first->begin == 0 && first->end == SL_KV_CHUNK && last->begin == 0 && last->end == SL_KV_CHUNK;
    if (cap > 0)
        cap_scores(w->score, b->n * SL_KV_CHUNK, w->args->scale, cap);
    softmax_block(w, b, all_seen, cap > 0 ? 1.0f : w->args->scale);
}

static const float ones[TILE_ROWS] = {1, 1, 1, 1, 1, 1};

/* Adds to queries [i, end) of a register tile, those of a row together, the values that not all of them see: the
 * positions before `common` where `before`, else those behind it. */
static void add_uncommon(const work *w, const query_block *b, size_t i, size_t end, span common, bool before)
{
    for (size_t next; i < end; i = next) {
        span own = b->seen[i];
        for (next = i + 1; next < end && b->seen[next].begin == own.begin && b->seen[next].end == own.end; next++)
            continue;
        if (before)
            own.end = common.begin < own.end ? common.begin : own.end;
        else
            own.begin = common.end > own.begin ? common.end : own.begin;
        if (own.begin < own.end)
            value_tile(w, b->first + i, next - i, own, w->score + i * SL_KV_CHUNK, ones);
    }
}

static void add_values(const work *w, const query_block *b)
{
    for (size_t i = 0, n; i < b->n; i += n) {
        n = b->n - i < TILE_ROWS ? b->n - i : TILE_ROWS;
        const size_t query = b->first + i;
        const float *keep = w->keep + query;
        const span first = b->seen[i], last = b->seen[i + n - 1];
        span common = {last.begin, first.end};
        if (common.begin > first.begin) {
            for (size_t j = query; j < query + n; j++)
                for (size_t d = 0; d < w->padded; d++)
                    w->acc[j * w->padded + d] *= w->keep[j];
            keep = ones;
            if (common.begin >= common.end)
                common = (span){SL_KV_CHUNK, SL_KV_CHUNK};
            add_uncommon(w, b, i, i + n, common, true);
        }
        if (common.begin < common.end)
            value_tile(w, query, n, common, w->score + i * SL_KV_CHUNK, keep);
        if (last.end > first.end)
            add_uncommon(w, b, i, i + n, common, false);
    }
}

static void add_chunk(const work *w, size_t chunk_begin)
{
    size_t n_rows = w->tile->n_rows, first = 0, end = n_rows;
    while (first < n_rows && sees_in_chunk(w->args, w->tile, first, chunk_begin).end == 0)
        first++;
    while (end > first && sees_in_chunk(w->args, w->tile, end - 1, chunk_begin).end == 0)
        end--;
    if (first == end)
        return;
    const uint32_t *blocks = w->tile->blocks + chunk_begin / SL_KV_BLOCK;
    const span seen = {sees_in_chunk(w->args, w->tile, first, chunk_begin).begin,
                       sees_in_chunk(w->args, w->tile, end - 1, chunk_begin).end};
    const size_t query = first * w->n_heads, n = end * w->n_heads - query;
    const size_t n_blocks = (n + QUERY_BLOCK - 1) / QUERY_BLOCK;
    load_keys(w, blocks, seen);
    if (n_blocks > 1)
        load_values(w, blocks, seen);
    for (size_t i = 0; i < n_blocks; i++) {
        size_t at = i * QUERY_BLOCK, left = n - at;
        query_block b = query_block_of(w, query + at, left < QUERY_BLOCK ? left : QUERY_BLOCK, chunk_begin);
        prefetch_part(w, chunk_begin + SL_KV_CHUNK, i, n_blocks);
        score_queries(w, &b);
        weigh_queries(w, &b);
        if (n_blocks == 1)
            load_values(w, blocks, seen);
        add_values(w, &b);
    }
}

/* ---- splits ---- */

static void work_init(work *w, const sl_attention *args, const sl_attention_tile *tile, size_t kv_head, float *scratch)
{
    size_t dim = args->kv.head_dim, n_heads = args->n_heads / args->kv.n_kv_heads, n = n_heads * tile->n_rows;
    *w = (work){.args = args, .tile = tile, .kv_head = kv_head, .dim = dim, .n_heads = n_heads, .n_queries = n};
    w->padded = align16(dim);
    w->k = scratch;
    w->v = w->k + SL_KV_CHUNK * dim;
    w->acc = w->v + SL_KV_CHUNK * w->padded;
    if (n <= QUERY_BLOCK) /* the keys have been used when the values are loaded: half the traffic of the L1 cache */
        w->v = w->k;
    w->score = w->acc + n * w->padded;
    w->max = w->score + QUERY_BLOCK * SL_KV_CHUNK;
    w->sum = w->max + align16(n);
    w->keep = w->sum + align16(n);
    w->all_max = w->keep + align16(n);
    w->all_sum = w->all_max + align16(n);
    w->q = args->q + tile->row * args->q_stride_elems + kv_head * n_heads * dim;
}

static void run_split(const work *w, size_t split)
{
    size_t end = (split + 1) * SL_KV_SPLIT, seen_begin = row_sees(w->args, w->tile, 0).begin;
    size_t seen_end = (size_t)w->tile->position + w->tile->n_rows, chunk = split * SL_KV_SPLIT;
    end = end < seen_end ? end : seen_end;
    chunk = seen_begin > chunk ? seen_begin / SL_KV_CHUNK * SL_KV_CHUNK : chunk;
    for (size_t i = 0; i < w->n_queries; i++) {
        w->max[i] = -__builtin_inff();
        w->sum[i] = 0.0f;
    }
    memset(w->acc, 0, w->n_queries * w->padded * sizeof *w->acc);
    for (; chunk < end; chunk += SL_KV_CHUNK)
        add_chunk(w, chunk);
}

static void merge_queries(const work *w, size_t split)
{
    for (size_t i = 0; i < w->n_queries; i++) {
        size_t row = i / w->n_heads, head = w->kv_head * w->n_heads + i % w->n_heads;
        seen_range seen = row_sees(w->args, w->tile, row);
        size_t first = seen.begin / SL_KV_SPLIT, last = (seen.end - 1) / SL_KV_SPLIT;
        float *out = w->args->out + (w->tile->row + row) * w->args->out_stride_elems + head * w->dim;
        if (split < first || split > last)
            continue;
        if (first == last) {
            divide_by_sum(out, w->acc + i * w->padded, w->dim, w->sum[i]);
            continue;
        }
        merge_split(out, &w->all_max[i], &w->all_sum[i], w->dim, w->acc + i * w->padded, w->max[i], w->sum[i],
                    split == first);
        if (split == last)
            divide_by_sum(out, out, w->dim, w->all_sum[i]);
    }
}

/* The kernel, as sl_attention_fn. */
static void attention_run(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch,
                          uint32_t split, float *partial)
{
    work w;
    work_init(&w, args, tile, kv_head, scratch);
    if (!partial) {
        uint32_t end;
        for (sl_attention_splits(tile, args->window, &split, &end); split < end; split++) {
            run_split(&w, split);
            merge_queries(&w, split);
        }
        return;
    }
    run_split(&w, split);
    for (size_t i = 0; i < w.n_queries; i++, partial += w.padded + LANES) {
        memcpy(partial, w.acc + i * w.padded, w.padded * sizeof *partial);
        partial[w.padded] = w.max[i];
        partial[w.padded + 1] = w.sum[i];
    }
}

#endif
