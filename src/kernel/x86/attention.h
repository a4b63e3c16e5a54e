/* Attention on vector registers: the arithmetic of ref/attention_tmpl.h, which kernel/ops.h fixes, and the way through
 * queries, chunks and splits that all levels share. What makes it fast:
 *  - 12 queries at a time go through scores, softmax and values while the chunk's K and V (float32, converted once for
 *    all rows of the tile) and their scores stay in the L1 cache;
 *  - up to 6 queries are held in registers, the rescaling of acc happens while it is loaded;
 *  - blocks of 16 positions that no row of a register tile sees have no scores;
 *  - what comes next (the next chunk, q, out) is asked for a few lines at a time, between register tiles and blocks;
 *  - a split's result is merged while it is in the L1 cache.
 * A query head of a row is one "query" here. A level's file includes this, defines the four functions declared below and
 * calls attention_run. */
#ifndef SL_KERNEL_X86_ATTENTION_H
#define SL_KERNEL_X86_ATTENTION_H

#include "kernel/kv_layout.h"
#include "kernel/ref/attention_merge.h"

#include <immintrin.h>

enum { TILE_ROWS = 6, TILE_GROUPS = 4, QUERY_BLOCK = 12, LINE_BYTES = 64 };

typedef struct work {
    const sl_attention *args;
    const sl_attention_tile *tile;
    size_t kv_head, dim, padded; /* head_dim; the same rounded up to 16 */
    size_t n_heads, n_queries;   /* query heads of this KV head; n_heads * rows */
    const float *q;              /* the first query's */
    float *out;                  /* likewise */
    float *score;                /* [QUERY_BLOCK][64] */
    float *acc;                  /* [n_queries][padded], of the split in progress like max and sum */
    float *max, *sum, *keep;     /* [n_queries]; keep: what acc is still to be multiplied with */
    float *all_max, *all_sum;    /* [n_queries], of the splits so far */
    float *k;                    /* [dim][64] of the chunk */
    float *v;                    /* [64][padded] of the chunk */
    bool partial;                /* one split, which another worker merges with the others */
} work;

typedef struct query_block {
    size_t first, n; /* queries */
    span seen[QUERY_BLOCK];
} query_block;

/* Keys and values of the next chunk on their way to the L2 cache, a few lines at a time: many at once
 * would fill the buffers for misses and hold up the arithmetic. */
typedef struct ahead {
    size_t position, end; /* of the block whose part comes next; where to stop */
    bool values;          /* its values come next */
    const char *line;     /* of the part in progress */
    size_t n_lines, per_call;
} ahead;

static inline size_t lines_of(size_t n_bytes)
{
    return (n_bytes + LINE_BYTES - 1) / LINE_BYTES;
}

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

/* ---- bytes that will be needed soon ---- */

/* Asks for a few lines of the next chunk; called before each register tile and each block that is converted. */
static void fetch_ahead(const work *w, ahead *a)
{
    const sl_kv_layer *kv = &w->args->kv;
    for (size_t n = a->per_call; n > 0; n--) {
        if (a->n_lines == 0) {
            if (a->position >= a->end)
                return;
            size_t block = w->tile->blocks[a->position / SL_KV_BLOCK];
            a->line = a->values ? sl_kv_v_head(kv, block, w->kv_head) : sl_kv_k_head(kv, block, w->kv_head);
            a->n_lines =
                lines_of(a->values ? sl_kv_v_head_bytes(kv->type, w->dim) : sl_kv_k_head_bytes(kv->type, w->dim));
            a->position += a->values ? SL_KV_BLOCK : 0;
            a->values = !a->values;
        }
        _mm_prefetch(a->line, _MM_HINT_T1);
        a->line += LINE_BYTES;
        a->n_lines--;
    }
}

/* The chunk at a position is to be fetched while one is converted and n_queries pass through scores and values. */
static void ahead_init(ahead *a, const work *w, size_t chunk, size_t n_queries)
{
    const sl_kv_layer *kv = &w->args->kv;
    size_t end = (size_t)w->tile->position + w->tile->n_rows;
    a->position = chunk;
    a->end = SL_MIN(end, chunk + SL_KV_CHUNK);
    a->values = false;
    a->n_lines = 0;
    size_t n_blocks = a->end > chunk ? (a->end - chunk + SL_KV_BLOCK - 1) / SL_KV_BLOCK : 0;
    size_t n_calls = 2 * ((n_queries + TILE_ROWS - 1) / TILE_ROWS) + 2 * SL_KV_CHUNK / SL_KV_BLOCK;
    size_t n_lines =
        n_blocks * (lines_of(sl_kv_k_head_bytes(kv->type, w->dim)) + lines_of(sl_kv_v_head_bytes(kv->type, w->dim)));
    a->per_call = (n_lines + n_calls - 1) / n_calls;
}

/* Asks for what n queries from `query` on, as far as there are so many, have in q or out. */
static void fetch_queries(const work *w, const float *rows, size_t stride, size_t query, size_t n)
{
    size_t end = SL_MIN(query + n, w->n_queries), row = query / w->n_heads, head = query % w->n_heads;
    for (; query < end; query++) {
        const char *p = (const char *)(rows + row * stride + head * w->dim);
        for (size_t i = 0; i < lines_of(w->dim * sizeof *rows); i++)
            _mm_prefetch(p + i * LINE_BYTES, _MM_HINT_T1);
        if (++head == w->n_heads)
            head = 0, row++;
    }
}

/* ---- a chunk's keys and values as floats ---- */

/* Keys of the blocks that hold seen positions. */
static void load_keys(const work *w, const uint32_t *blocks, span seen, ahead *later)
{
    for (size_t b = seen.begin / SL_KV_BLOCK; b * SL_KV_BLOCK < seen.end; b++) {
        fetch_ahead(w, later);
        load_k(w, blocks[b], w->k + b * SL_KV_BLOCK);
    }
}

/* Values of the seen positions. */
static void load_values(const work *w, const uint32_t *blocks, span seen, ahead *later)
{
    for (size_t p = seen.begin, next; p < seen.end; p = next) {
        size_t b = p / SL_KV_BLOCK, begin = b * SL_KV_BLOCK;
        next = begin + SL_KV_BLOCK < seen.end ? begin + SL_KV_BLOCK : seen.end;
        fetch_ahead(w, later);
        load_v(w, blocks[b], p - begin, next - begin, w->v + p * w->padded);
    }
}

/* ---- a block of queries in a chunk ---- */

static void query_block_init(query_block *b, const work *w, size_t first, size_t n, size_t chunk_begin)
{
    size_t row = first / w->n_heads, next_row = (row + 1) * w->n_heads - first;
    span seen = sees_in_chunk(w->args, w->tile, row, chunk_begin);
    b->first = first;
    b->n = n;
    for (size_t i = 0; i < n; i++) {
        if (i == next_row) {
            seen = sees_in_chunk(w->args, w->tile, ++row, chunk_begin);
            next_row += w->n_heads;
        }
        b->seen[i] = seen;
    }
}

static void score_queries(const work *w, const query_block *b, ahead *next, bool is_first)
{
    for (size_t i = 0, n; i < b->n; i += n) {
        n = b->n - i < TILE_ROWS ? b->n - i : TILE_ROWS;
        fetch_ahead(w, next);
        if (is_first)
            fetch_queries(w, w->q, w->args->q_stride_elems, b->first + i + QUERY_BLOCK, TILE_ROWS);
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

static void add_values(const work *w, const query_block *b, ahead *next, bool is_last)
{
    for (size_t i = 0, n; i < b->n; i += n) {
        n = b->n - i < TILE_ROWS ? b->n - i : TILE_ROWS;
        fetch_ahead(w, next);
        if (is_last)
            fetch_queries(w, w->out, w->args->out_stride_elems, b->first + i, n);
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

/* ---- the end of a split ---- */

/* What a block's queries have gathered in earlier splits is to be multiplied with a, this split's part with b. */
static void merge_factors(const work *w, const query_block *q, float a[LANES], float b[LANES])
{
    float old[LANES] = {0}, new[LANES] = {0};
    memcpy(old, w->all_max + q->first, q->n * sizeof *old);
    memcpy(new, w->max + q->first, q->n * sizeof *new);
    for (int l = 0; l < LANES; l++) {
        const float top = old[l] > new[l] ? old[l] : new[l];
        a[l] = exp_f32(old[l] - top);
        b[l] = exp_f32(new[l] - top);
    }
}

/* Adds a split's part of query i to out, where nothing is yet if the split is the row's first; divides behind its last. */
static void merge_query(const work *w, size_t i, float *restrict out, float a, float b, bool is_first, bool is_last)
{
    const float *acc = w->acc + i * w->padded;
    if (is_first && is_last) {
        divide_by_sum(out, acc, w->dim, w->sum[i]);
        return;
    }
    if (is_first) {
        w->all_max[i] = w->max[i];
        w->all_sum[i] = w->sum[i];
        memcpy(out, acc, w->dim * sizeof *out);
        return;
    }
    w->all_max[i] = w->all_max[i] > w->max[i] ? w->all_max[i] : w->max[i];
    w->all_sum[i] = w->all_sum[i] * a + w->sum[i] * b;
    for (size_t d = 0; d < w->dim; d++)
        out[d] = __builtin_fmaf(acc[d], b, out[d] * a);
    if (is_last)
        divide_by_sum(out, out, w->dim, w->all_sum[i]);
}

/* Merges the block's queries for which this chunk is the last of the split, while their acc is in the L1 cache. */
static void merge_block(const work *w, const query_block *q, size_t chunk_begin)
{
    float a[LANES], b[LANES];
    const size_t chunk_end = chunk_begin + SL_KV_CHUNK, split = chunk_begin / SL_KV_SPLIT;
    merge_factors(w, q, a, b);
    for (size_t i = 0, row = q->first / w->n_heads, head = q->first % w->n_heads; i < q->n; i++) {
        const seen_range seen = row_sees(w->args, w->tile, row);
        if (seen.end <= chunk_end || chunk_end % SL_KV_SPLIT == 0)
            merge_query(w, q->first + i, w->out + row * w->args->out_stride_elems + head * w->dim, a[i], b[i],
                        split == seen.begin / SL_KV_SPLIT, split == (seen.end - 1) / SL_KV_SPLIT);
        if (++head == w->n_heads)
            head = 0, row++;
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
    const size_t chunk_end = chunk_begin + SL_KV_CHUNK;
    const seen_range row_0 = row_sees(w->args, w->tile, 0);
    const bool is_first = chunk_begin <= row_0.begin;                            /* of the tile */
    const bool is_last = chunk_end % SL_KV_SPLIT == 0 || chunk_end >= row_0.end; /* of the split, for some row */
    ahead next;
    ahead_init(&next, w, chunk_end, n);
    if (is_first)
        fetch_queries(w, w->q, w->args->q_stride_elems, query, QUERY_BLOCK);
    load_keys(w, blocks, seen, &next);
    if (n_blocks > 1)
        load_values(w, blocks, seen, &next);
    for (size_t i = 0; i < n_blocks; i++) {
        size_t at = i * QUERY_BLOCK, left = n - at;
        query_block b;
        query_block_init(&b, w, query + at, SL_MIN(left, (size_t)QUERY_BLOCK), chunk_begin);
        score_queries(w, &b, &next, is_first);
        weigh_queries(w, &b);
        if (n_blocks == 1)
            load_values(w, blocks, seen, &next);
        add_values(w, &b, &next, is_last);
        if (is_last && !w->partial)
            merge_block(w, &b, chunk_begin);
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
    w->out = args->out + tile->row * args->out_stride_elems + kv_head * n_heads * dim;
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

/* The kernel, as sl_attention_fn. */
static void attention_run(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch,
                          uint32_t split, float *partial)
{
    work w;
    work_init(&w, args, tile, kv_head, scratch);
    w.partial = partial != NULL;
    if (!partial) {
        uint32_t end;
        for (sl_attention_splits(tile, args->window, &split, &end); split < end; split++)
            run_split(&w, split);
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
