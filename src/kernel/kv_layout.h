/* Where the parts of the KV pool lie; the forms stand at sl_kv_type in kernel/ops.h. */
#ifndef SL_KERNEL_KV_LAYOUT_H
#define SL_KERNEL_KV_LAYOUT_H

#include "kernel/ops.h"

/* Groups of 32 columns, each with a scale, of an int8 key or a 4-bit value. */
static inline size_t sl_kv_groups(size_t dim)
{
    return (dim + SL_KV_GROUP - 1) / SL_KV_GROUP;
}

/* Bytes of an element that has no scale: 4 or 2. */
static inline size_t sl_kv_elem_bytes(sl_kv_type type)
{
    return type == SL_KV_F32 ? sizeof(float) : sizeof(uint16_t);
}

/* Bytes of the int8 values, or of the nibbles, of one head in one block; the scales follow. */
static inline size_t sl_kv_q8_bytes(size_t dim)
{
    return dim * SL_KV_BLOCK;
}
static inline size_t sl_kv_q4_bytes(size_t dim)
{
    return sl_kv_groups(dim) * (SL_KV_GROUP / 2) * SL_KV_BLOCK;
}

/* Bytes of K, and of V, of one head in one block: multiples of 32. */
static inline size_t sl_kv_k_head_bytes(sl_kv_type type, size_t dim)
{
    if (type == SL_KV_Q8 || type == SL_KV_K8V4)
        return sl_kv_q8_bytes(dim) + SL_KV_BLOCK * sl_kv_groups(dim) * sizeof(uint16_t);
    return dim * SL_KV_BLOCK * sl_kv_elem_bytes(type);
}
static inline size_t sl_kv_v_head_bytes(sl_kv_type type, size_t dim)
{
    if (type == SL_KV_K8V4)
        return sl_kv_q4_bytes(dim) + SL_KV_BLOCK * sl_kv_groups(dim) * sizeof(uint16_t);
    if (type == SL_KV_Q8)
        return sl_kv_q8_bytes(dim) + SL_KV_BLOCK * sizeof(uint16_t);
    return sl_kv_k_head_bytes(type, dim);
}

/* The part of a block and head. */
static inline char *sl_kv_k_head(const sl_kv_layer *kv, size_t block, size_t head)
{
    return (char *)kv->k + block * kv->k_stride_bytes + head * sl_kv_k_head_bytes(kv->type, kv->head_dim);
}
static inline char *sl_kv_v_head(const sl_kv_layer *kv, size_t block, size_t head)
{
    return (char *)kv->v + block * kv->v_stride_bytes + head * sl_kv_v_head_bytes(kv->type, kv->head_dim);
}

#endif
