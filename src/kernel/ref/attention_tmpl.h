/* Attention of one tile of rows and one KV head; sl_attention in kernel/ops.h fixes the arithmetic. The file that
 * includes this defines, before it,
 *   static void load_f16(float *dst, const uint16_t *src, size_t n)   dst[i] = src[i] as float
 * and calls attention_run. A query head of a row is one "query" here: the heads that share a KV head are computed
 * together, row by row. */
#include "kernel/kv_layout.h"
#include "kernel/ref/attention_merge.h"
#include "kernel/ref/tile.h"

enum { CHUNK_BLOCKS = SL_KV_CHUNK / SL_KV_BLOCK };

typedef struct work {
    const sl_attention *args;
    const sl_attention_tile *tile;
    size_t kv_head, dim, padded; /* head_dim; the same rounded up to 16 */
    size_t n_heads, n_queries;   /* query heads of this KV head; n_heads * rows */
    float *q;                    /* [n_queries][dim] */
    float *score;                /* [n_queries][64] */
    float *acc;                  /* [n_queries][padded], of the split in progress like max and sum */
    float *max, *sum;            /* [n_queries] */
    float *all_max, *all_sum;    /* [n_queries], of the splits so far */
    float *k;                    /* [4][dim][16] of the chunk */
    float *v;                    /* [64][padded] of the chunk */
} work;

static void work_init(work *w, const sl_attention *args, const sl_attention_tile *tile, size_t kv_head, float *scratch)
{
    size_t dim = args->kv.head_dim, n_heads = args->n_heads / args->kv.n_kv_heads, n = n_heads * tile->n_rows;
    *w = (work){.args = args, .tile = tile, .kv_head = kv_head, .dim = dim, .n_heads = n_heads, .n_queries = n};
    w->padded = align16(dim);
    w->k = scratch;
    w->v = w->k + SL_KV_CHUNK * dim;
    w->acc = w->v + SL_KV_CHUNK * w->padded;
    w->score = w->acc + n * w->padded;
    w->q = w->score + n * SL_KV_CHUNK;
    w->max = w->q + align16(n * dim);
    w->sum = w->max + align16(n);
    w->all_max = w->sum + align16(n);
    w->all_sum = w->all_max + align16(n);
    for (size_t i = 0; i < n; i++) {
        size_t row = tile->row + i / n_heads, head = kv_head * n_heads + i % n_heads;
        memcpy(w->q + i * dim, args->q + row * args->q_stride_elems + head * dim, dim * sizeof *w->q);
    }
}

/* dst[d][l] = q[d][l] * scales[d / 32][l], l a position */
static void load_q8_lanes(float *dst, const int8_t *q, const uint16_t *scales, size_t dim)
{
    for (size_t first = 0; first < dim; first += SL_KV_GROUP, scales += LANES) {
        float s[LANES];
        size_t end = first + SL_KV_GROUP < dim ? first + SL_KV_GROUP : dim;
        load_f16(s, scales, LANES);
        for (size_t d = first; d < end; d++)
            for (int l = 0; l < LANES; l++)
                dst[d * LANES + l] = (float)q[d * LANES + l] * s[l];
    }
}

static void load_bf16(float *dst, const uint16_t *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = bf16_to_f32(src[i]);
}

/* Keys of one block. */
static void load_k(const work *w, size_t block, float *dst)
{
    const void *src = sl_kv_k_head(&w->args->kv, block, w->kv_head);
    size_t n = w->dim * SL_KV_BLOCK;
    switch (w->args->kv.type) {
    case SL_KV_F32:
        memcpy(dst, src, n * sizeof *dst);
        break;
    case SL_KV_F16:
        load_f16(dst, src, n);
        break;
    case SL_KV_BF16:
        load_bf16(dst, src, n);
        break;
    default:
        load_q8_lanes(dst, src, (const uint16_t *)src + n / 2, w->dim);
    }
}

static void load_q4(float *dst, const uint8_t *nibbles, const uint16_t *scales, size_t dim)
{
    for (size_t first = 0; first < dim; first += SL_KV_GROUP, nibbles += SL_KV_GROUP / 2) {
        float scale = f16_to_f32(*scales++);
        for (size_t i = 0; i < SL_KV_GROUP && first + i < dim; i++) {
            int q = i < SL_KV_GROUP / 2 ? nibbles[i] & 15 : nibbles[i - SL_KV_GROUP / 2] >> 4;
            dst[first + i] = (float)(q - 8) * scale;
        }
    }
}

/* Values of positions [from, to) of one block, rows of `padded` floats. */
static void load_v(const work *w, size_t block, size_t from, size_t to, float *dst)
{
    const char *src = sl_kv_v_head(&w->args->kv, block, w->kv_head);
    const uint16_t *half = (const uint16_t *)(const void *)src;
    size_t dim = w->dim, groups = sl_kv_groups(dim);
    for (size_t p = from; p < to; p++, dst += w->padded) {
        switch (w->args->kv.type) {
        case SL_KV_F32:
            memcpy(dst, (const float *)(const void *)src + p * dim, dim * sizeof *dst);
            break;
        case SL_KV_F16:
            load_f16(dst, half + p * dim, dim);
            break;
        case SL_KV_BF16:
            load_bf16(dst, half + p * dim, dim);
            break;
        case SL_KV_Q8: {
            float scale = f16_to_f32(((const uint16_t *)(const void *)(src + sl_kv_q8_bytes(dim)))[p]);
            for (size_t d = 0; d < dim; d++)
                dst[d] = (float)((const int8_t *)src)[p * dim + d] * scale;
            break;
        }
        default:
            load_q4(dst, (const uint8_t *)src + p * groups * (SL_KV_GROUP / 2),
                    (const uint16_t *)(const void *)(src + sl_kv_q4_bytes(dim)) + p * groups, dim);
        }
    }
}

/* The chunk's keys of visible blocks (others 0) and values of visible positions, as floats. */
static void load_chunk(const work *w, size_t chunk_begin, span seen)
{
    size_t block_elems = w->dim * SL_KV_BLOCK;
    for (size_t b = 0; b < CHUNK_BLOCKS; b++) {
        float *k = w->k + b * block_elems;
        size_t begin = b * SL_KV_BLOCK, end = begin + SL_KV_BLOCK;
        if (end <= seen.begin || begin >= seen.end) {
            memset(k, 0, block_elems * sizeof *k);
            continue;
        }
        size_t block = w->tile->blocks[chunk_begin / SL_KV_BLOCK + b];
        size_t from = seen.begin > begin ? seen.begin - begin : 0, to = (seen.end < end ? seen.end : end) - begin;
        load_k(w, block, k);
        load_v(w, block, from, to, w->v + (begin + from) * w->padded);
    }
}

/* score[i][p] = q[i] . k[p], a lane a position, dimensions in order. */
static void score_chunk(const work *w)
{
    memset(w->score, 0, w->n_queries * SL_KV_CHUNK * sizeof *w->score);
    fma_rows_x4(
        (fma_tile){
            .n = w->dim,
            .w = w->k,
            .w_stride = SL_KV_BLOCK,
            .w_group = w->dim * SL_KV_BLOCK,
            .x = w->q,
            .x_stride = w->dim,
            .acc = w->score,
            .acc_stride = SL_KV_CHUNK,
            .acc_group = SL_KV_BLOCK,
        },
        w->n_queries);
}

/* s = scale * score, capped, -inf where not seen; the new maximum. */
static float finish_scores(const work *w, float *s, span seen, float old_max)
{
    const float scale = w->args->scale, cap = w->args->softcap;
    float top[LANES];
    for (int l = 0; l < LANES; l++)
        top[l] = old_max;
    for (int i = 0; i < SL_KV_CHUNK; i += LANES) {
        float t[LANES];
        for (int l = 0; l < LANES; l++)
            t[l] = s[i + l] * scale;
        if (cap > 0)
            for (int l = 0; l < LANES; l++)
                t[l] = cap * tanh_f32(t[l] / cap);
        for (int l = 0; l < LANES; l++) {
            uint32_t p = (uint32_t)(i + l);
            t[l] = p >= (uint32_t)seen.begin && p < (uint32_t)seen.end ? t[l] : -__builtin_inff();
            top[l] = t[l] > top[l] ? t[l] : top[l];
        }
        memcpy(s + i, t, sizeof t);
    }
    return max16(top);
}

/* Turns the scores of a query into weights and rescales what it has gathered so far. */
static void softmax_chunk(const work *w, size_t query, span seen)
{
    float *s = w->score + query * SL_KV_CHUNK, *acc = w->acc + query * w->padded, part[LANES] = {0};
    float max = finish_scores(w, s, seen, w->max[query]);
    float keep = exp_f32(w->max[query] - max);
    for (int i = 0; i < SL_KV_CHUNK; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            s[i + l] = exp_f32(s[i + l] - max);
            part[l] += s[i + l];
        }
    }
    w->max[query] = max;
    w->sum[query] = w->sum[query] * keep + sum16(part);
    if (keep == 1.0f)
        return; /* as often as not: the maximum stood, and a product with 1 changes nothing */
    for (size_t d = 0; d < w->padded; d += LANES)
        for (int l = 0; l < LANES; l++)
            acc[d + l] *= keep;
}

/* acc[i][d] = fma(p, v[d], acc[i][d]) over seen positions in order, for queries [begin, end) that see the same. */
static void add_values(const work *w, size_t begin, size_t end, span seen)
{
    fma_tile t = {
        .n = seen.end - seen.begin,
        .w = w->v + seen.begin * w->padded,
        .w_stride = w->padded,
        .w_group = LANES,
        .x = w->score + begin * SL_KV_CHUNK + seen.begin,
        .x_stride = SL_KV_CHUNK,
        .acc = w->acc + begin * w->padded,
        .acc_stride = w->padded,
        .acc_group = LANES,
    };
    size_t d = 0;
    for (; d + 4 * LANES <= w->padded; d += 4 * LANES, t.w += 4 * LANES, t.acc += 4 * LANES)
        fma_rows_x4(t, end - begin);
    for (; d < w->padded; d += LANES, t.w += LANES, t.acc += LANES)
        fma_rows(t, end - begin);
}

static void add_chunk(const work *w, size_t chunk_begin)
{
    size_t n_rows = w->tile->n_rows;
    span all = {SL_KV_CHUNK, 0};
    for (size_t r = 0; r < n_rows; r++) {
        span seen = sees_in_chunk(w->args, w->tile, r, chunk_begin);
        if (seen.begin < seen.end) {
            all.begin = seen.begin < all.begin ? seen.begin : all.begin;
            all.end = seen.end > all.end ? seen.end : all.end;
        }
    }
    if (all.begin >= all.end)
        return;
    load_chunk(w, chunk_begin, all);
    score_chunk(w);
    for (size_t r = 0, next; r < n_rows; r = next) {
        span seen = sees_in_chunk(w->args, w->tile, r, chunk_begin);
        for (next = r + 1; next < n_rows; next++) {
            span other = sees_in_chunk(w->args, w->tile, next, chunk_begin);
            if (other.begin != seen.begin || other.end != seen.end)
                break;
        }
        if (seen.begin == seen.end)
            continue;
        for (size_t i = r * w->n_heads; i < next * w->n_heads; i++)
            softmax_chunk(w, i, seen);
        add_values(w, r * w->n_heads, next * w->n_heads, seen);
    }
}

static void run_split(const work *w, size_t split, size_t last_position)
{
    size_t begin = split * SL_KV_SPLIT,
           end = begin + SL_KV_SPLIT - 1 < last_position ? begin + SL_KV_SPLIT : last_position + 1;
    size_t first = row_sees(w->args, w->tile, 0).begin;
    for (size_t i = 0; i < w->n_queries; i++) {
        w->max[i] = -__builtin_inff();
        w->sum[i] = 0.0f;
    }
    memset(w->acc, 0, w->n_queries * w->padded * sizeof *w->acc);
    begin = first > begin ? first / SL_KV_CHUNK * SL_KV_CHUNK : begin;
    for (size_t chunk = begin; chunk < end; chunk += SL_KV_CHUNK)
        add_chunk(w, chunk);
}

static float *query_out(const work *w, size_t query)
{
    size_t row = w->tile->row + query / w->n_heads, head = w->kv_head * w->n_heads + query % w->n_heads;
    return w->args->out + row * w->args->out_stride_elems + head * w->dim;
}

static void merge_queries(const work *w, size_t split)
{
    for (size_t i = 0; i < w->n_queries; i++) {
        seen_range seen = row_sees(w->args, w->tile, i / w->n_heads);
        size_t first = seen.begin / SL_KV_SPLIT, last = (seen.end - 1) / SL_KV_SPLIT;
        if (split < first || split > last)
            continue;
        merge_split(query_out(w, i), &w->all_max[i], &w->all_sum[i], w->dim, w->acc + i * w->padded, w->max[i],
                    w->sum[i], split == first);
        if (split == last)
            divide_by_sum(query_out(w, i), query_out(w, i), w->dim, w->all_sum[i]);
    }
}

static void store_partial(const work *w, float *partial)
{
    for (size_t i = 0; i < w->n_queries; i++, partial += w->padded + LANES) {
        memcpy(partial, w->acc + i * w->padded, w->padded * sizeof *partial);
        partial[w->padded] = w->max[i];
        partial[w->padded + 1] = w->sum[i];
    }
}

static void attention_run(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch,
                          uint32_t split, float *partial)
{
    work w;
    uint32_t begin = split, end = split + 1;
    size_t last_position = (size_t)tile->position + tile->n_rows - 1;
    work_init(&w, args, tile, kv_head, scratch);
    if (!partial)
        sl_attention_splits(tile, args->window, &begin, &end);
    for (size_t s = begin; s < end; s++) {
        run_split(&w, s, last_position);
        if (!partial)
            merge_queries(&w, s);
    }
    if (partial)
        store_partial(&w, partial);
}
