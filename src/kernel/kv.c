/* Names and sizes of the KV pool's formats, and of what attention works in. */
#include "kernel/kv_layout.h"

#include <string.h>

static const char *const names[SL_KV_TYPE_COUNT] = {
    [SL_KV_F32] = "f32", [SL_KV_F16] = "f16", [SL_KV_BF16] = "bf16", [SL_KV_Q8] = "q8", [SL_KV_K8V4] = "k8v4",
};

const char *sl_kv_type_name(sl_kv_type type)
{
    return names[type];
}

bool sl_kv_type_parse(const char *name, sl_kv_type *out)
{
    if (strcmp(name, "int8") == 0)
        name = names[SL_KV_Q8];
    for (int i = 0; i < SL_KV_TYPE_COUNT; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (sl_kv_type)i;
            return true;
        }
    }
    return false;
}

size_t sl_kv_k_block_bytes(const sl_kv_layer *layer)
{
    return layer->n_kv_heads * sl_kv_k_head_bytes(layer->type, layer->head_dim);
}

size_t sl_kv_v_block_bytes(const sl_kv_layer *layer)
{
    return layer->n_kv_heads * sl_kv_v_head_bytes(layer->type, layer->head_dim);
}

static size_t align16(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

/* The largest of the work structs in ref/attention_tmpl.h and x86/: k, v, acc, score (at least 12 rows), q, max, sum, keep,
 * all_max, all_sum; for few queries k or v, the scores of a split, acc. */
size_t sl_attention_scratch_bytes(uint32_t n_heads, uint32_t n_kv_heads, uint32_t head_dim)
{
    size_t n = (size_t)n_heads / n_kv_heads * SL_ATTENTION_ROWS, padded = align16(head_dim);
    size_t floats = SL_KV_CHUNK * (head_dim + padded) + n * (padded + SL_KV_CHUNK) + align16(n * head_dim);
    size_t few = SL_KV_CHUNK * head_dim + SL_MIN(n, (size_t)SL_ATTENTION_FEW) * (SL_KV_SPLIT + padded);
    return SL_MAX(floats + 5 * align16(n), few) * sizeof(float);
}

size_t sl_attention_partial_elems(const sl_attention *args, uint32_t n_rows)
{
    return (size_t)n_rows * (args->n_heads / args->kv.n_kv_heads) * (align16(args->kv.head_dim) + 16);
}

/* As ref/attention.c lays it out: k, q, score, part. */
size_t sl_attention_mass_scratch_bytes(uint32_t n_heads, uint32_t n_kv_heads, uint32_t head_dim, uint32_t n_rows,
                                       uint32_t n_blocks)
{
    size_t n = (size_t)n_heads / n_kv_heads * n_rows;
    size_t floats = SL_KV_BLOCK * (size_t)head_dim + align16(n * head_dim) + n * SL_KV_BLOCK + 2 * n * n_blocks;
    return floats * sizeof(float);
}

sl_kv_layer sl_kv_layer_make(sl_kv_type type, uint32_t n_kv_heads, uint32_t head_dim)
{
    sl_kv_layer layer = {.type = type, .n_kv_heads = n_kv_heads, .head_dim = head_dim};
    layer.k_stride_bytes = sl_kv_k_block_bytes(&layer);
    layer.v_stride_bytes = sl_kv_v_block_bytes(&layer);
    return layer;
}
