#include "kernel/ref/ref.h"

static void load_f16(float *dst, const uint16_t *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = f16_to_f32(src[i]);
}

#include "kernel/ref/attention_tmpl.h"

void SL_REF(sl_attention_rows)(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch,
                               uint32_t split, float *partial)
{
    attention_run(args, tile, kv_head, scratch, split, partial);
}

void SL_REF(sl_attention_merge)(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head,
                                const float *partials)
{
    size_t dim = args->kv.head_dim, padded = align16(dim), n_heads = args->n_heads / args->kv.n_kv_heads;
    size_t n_queries = n_heads * tile->n_rows, split_elems = sl_attention_partial_elems(args, tile->n_rows);
    uint32_t begin, end;
    sl_attention_splits(tile, args->window, &begin, &end);
    for (size_t i = 0; i < n_queries; i++) {
        seen_range seen = row_sees(args, tile, i / n_heads);
        size_t first = seen.begin / SL_KV_SPLIT, last = (seen.end - 1) / SL_KV_SPLIT;
        float *out =
            args->out + (tile->row + i / n_heads) * args->out_stride_elems + (kv_head * n_heads + i % n_heads) * dim;
        float max = 0, sum = 0;
        for (size_t s = first; s <= last; s++) {
            const float *part = partials + (s - begin) * split_elems + i * (padded + LANES);
            merge_split(out, &max, &sum, dim, part, part[padded], part[padded + 1], s == first);
        }
        divide_by_sum(out, out, dim, sum);
    }
}

/* ---- how much attention blocks draw ---- */

/* A block's largest score of one query, and the sum of exp(score - largest): nothing where none is seen. */
typedef struct block_part {
    float max, sum;
} block_part;

/* score: of the n_seen first positions of a block, 16 in all. */
static block_part sum_block(const sl_attention *args, const float *score, size_t n_seen)
{
    float top[LANES], part[LANES];
    for (size_t l = 0; l < LANES; l++) {
        float s = score[l] * args->scale;
        s = args->softcap > 0 ? args->softcap * tanh_f32(s / args->softcap) : s;
        part[l] = top[l] = l < n_seen ? s : -__builtin_inff();
    }
    float max = max16(top);
    for (size_t l = 0; l < LANES; l++)
        part[l] = exp_f32(part[l] - max);
    return (block_part){max, sum16(part)};
}

/* Adds one query's weights of the blocks to mass. */
static void add_mass(const block_part *parts, size_t n_blocks, uint64_t *mass)
{
    float max = parts[0].max, sum = 0;
    for (size_t b = 1; b < n_blocks; b++)
        max = parts[b].max > max ? parts[b].max : max;
    for (size_t b = 0; b < n_blocks; b++)
        sum += parts[b].sum * exp_f32(parts[b].max - max);
    for (size_t b = 0; b < n_blocks; b++) {
        float weight = parts[b].sum * exp_f32(parts[b].max - max) / sum;
        if (weight > 0) /* not for NaN */
            mass[b] += (uint64_t)(weight * 0x1p24f + 0.5f);
    }
}

void SL_REF(sl_attention_mass)(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch,
                               uint64_t *mass)
{
    size_t dim = args->kv.head_dim, n_heads = args->n_heads / args->kv.n_kv_heads, n = n_heads * tile->n_rows;
    size_t n_blocks = (tile->position + tile->n_rows - 1) / SL_KV_BLOCK + 1;
    const work w = {.args = args, .tile = tile, .kv_head = kv_head, .dim = dim};
    float *k = scratch, *q = k + SL_KV_BLOCK * dim, *score = q + align16(n * dim);
    block_part *parts = (block_part *)(void *)(score + n * LANES); /* [n][n_blocks] */
    for (size_t i = 0; i < n; i++) {
        size_t row = tile->row + i / n_heads, head = kv_head * n_heads + i % n_heads;
        memcpy(q + i * dim, args->q + row * args->q_stride_elems + head * dim, dim * sizeof *q);
    }
    for (size_t b = 0; b < n_blocks; b++) {
        load_k(&w, tile->blocks[b], k);
        memset(score, 0, n * LANES * sizeof *score);
        fma_rows((fma_tile){.n = dim,
                            .w = k,
                            .w_stride = LANES,
                            .w_group = 0,
                            .x = q,
                            .x_stride = dim,
                            .acc = score,
                            .acc_stride = LANES,
                            .acc_group = 0},
                 n);
        for (size_t i = 0; i < n; i++) {
            size_t end = tile->position + i / n_heads + 1, begin = b * SL_KV_BLOCK;
            parts[i * n_blocks + b] =
                begin < end ? sum_block(args, score + i * LANES, end - begin) : (block_part){-__builtin_inff(), 0};
        }
    }
    for (size_t i = 0; i < n; i++)
        add_mass(parts + i * n_blocks, n_blocks, mass);
}
