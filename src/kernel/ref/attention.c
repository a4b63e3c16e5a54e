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
