/* One row's keys and values into the KV pool; the forms and their rounding stand at sl_kv_type in kernel/ops.h. K goes to
 * [head_dim][16 positions] of its head (a stride of 16), V to [16 positions][head_dim]. */
#include "kernel/kv_layout.h"
#include "kernel/ref/ref.h"

SL_INLINE uint16_t f32_to_bf16(float f)
{
    uint32_t u = f32_bits(f);
    uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? u >> 16 | 0x40 : rounded);
}

static void write_f32(float *k_out, float *v_out, const float *k, const float *v, size_t dim)
{
    for (size_t d = 0; d < dim; d++)
        k_out[d * SL_KV_BLOCK] = k[d];
    memcpy(v_out, v, dim * sizeof *v);
}

#define WRITE_HALF(convert)                                                                                            \
    do {                                                                                                               \
        for (size_t d = 0; d < dim; d += LANES) {                                                                      \
            uint16_t t[LANES] = {0};                                                                                   \
            size_t n = dim - d < LANES ? dim - d : LANES;                                                              \
            for (size_t l = 0; l < n; l++)                                                                             \
                t[l] = convert(k[d + l]);                                                                              \
            for (size_t l = 0; l < n; l++)                                                                             \
                k_out[(d + l) * SL_KV_BLOCK] = t[l];                                                                   \
        }                                                                                                              \
        for (size_t d = 0; d < dim; d++)                                                                               \
            v_out[d] = convert(v[d]);                                                                                  \
    } while (0)

static void write_f16(uint16_t *k_out, uint16_t *v_out, const float *k, const float *v, size_t dim)
{
    WRITE_HALF(f32_to_f16);
}

static void write_bf16(uint16_t *k_out, uint16_t *v_out, const float *k, const float *v, size_t dim)
{
    WRITE_HALF(f32_to_bf16);
}

/* Largest magnitude as bits: integers order as magnitudes do, and a NaN is the largest of all. */
static uint32_t magnitude(const float *x, size_t n)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t a = f32_bits(x[i]) & 0x7fffffffu;
        most = a > most ? a : most;
    }
    return most;
}

/* Stores a scale; what to multiply values with: its inverse, or 0 where there is none. */
static float store_scale(uint16_t *out, float scale)
{
    uint16_t h = f32_to_f16(scale);
    bool finite = (h & 0x7c00) != 0x7c00;
    *out = finite ? h : 0x7e00;
    float stored = f16_to_f32(h);
    return finite && stored != 0 ? 1.0f / stored : 0.0f;
}

/* x * inverse rounded to nearest even, kept within [low, high]; low for a NaN. */
SL_INLINE int32_t quantize(float x, float inverse, float low, float high)
{
    float t = x * inverse;
    t = t > low ? t : low;
    t = t < high ? t : high;
    return (int32_t)(f32_bits(t + 0x1.8p23f) - 0x4b400000u);
}

static void write_q8(int8_t *q, size_t stride, uint16_t *scale, const float *x, size_t dim)
{
    float inverse = store_scale(scale, f32_from_bits(magnitude(x, dim)) / 127.0f);
    for (size_t d = 0; d < dim; d++)
        q[d * stride] = (int8_t)quantize(x[d], inverse, -127.0f, 127.0f);
}

/* Keys: a scale for each 32 columns, so that a column of large values costs only its neighbours their precision. */
static void write_q8_groups(int8_t *q, uint16_t *scales, const float *x, size_t dim)
{
    for (size_t d = 0; d < dim; d += SL_KV_GROUP, scales += SL_KV_BLOCK)
        write_q8(q + d * SL_KV_BLOCK, SL_KV_BLOCK, scales, x + d, dim - d < SL_KV_GROUP ? dim - d : SL_KV_GROUP);
}

/* The value of largest magnitude becomes -8, the end of the range that has one more step. */
static void write_q4(uint8_t *nibbles, uint16_t *scales, const float *x, size_t dim)
{
    for (size_t g = 0; g < sl_kv_groups(dim); g++) {
        float t[SL_KV_GROUP] = {0};
        size_t first = g * SL_KV_GROUP, n = dim - first < SL_KV_GROUP ? dim - first : SL_KV_GROUP;
        memcpy(t, x + first, n * sizeof *t);
        uint32_t most = magnitude(t, n), positive = 0;
        for (size_t i = 0; i < n; i++)
            positive |= f32_bits(t[i]) == most;
        float extreme = f32_from_bits(most);
        float inverse = store_scale(&scales[g], (positive ? extreme : -extreme) / -8.0f);
        for (size_t i = 0; i < SL_KV_GROUP / 2; i++) {
            int32_t low = quantize(t[i], inverse, -8.0f, 7.0f) + 8;
            int32_t high = quantize(t[i + SL_KV_GROUP / 2], inverse, -8.0f, 7.0f) + 8;
            nibbles[g * (SL_KV_GROUP / 2) + i] = (uint8_t)(low | high << 4);
        }
    }
}

static void write_head(sl_kv_type type, size_t dim, char *kh, char *vh, size_t slot, const float *k, const float *v)
{
    uint16_t *k_half = (uint16_t *)(void *)kh + slot, *v_half = (uint16_t *)(void *)vh + slot * dim;
    uint16_t *k_scales = (uint16_t *)(void *)(kh + sl_kv_q8_bytes(dim)) + slot;
    size_t groups = sl_kv_groups(dim);
    switch (type) {
    case SL_KV_F32:
        write_f32((float *)(void *)kh + slot, (float *)(void *)vh + slot * dim, k, v, dim);
        break;
    case SL_KV_F16:
        write_f16(k_half, v_half, k, v, dim);
        break;
    case SL_KV_BF16:
        write_bf16(k_half, v_half, k, v, dim);
        break;
    case SL_KV_Q8:
        write_q8_groups((int8_t *)kh + slot, k_scales, k, dim);
        write_q8((int8_t *)vh + slot * dim, 1, (uint16_t *)(void *)(vh + sl_kv_q8_bytes(dim)) + slot, v, dim);
        break;
    default:
        write_q8_groups((int8_t *)kh + slot, k_scales, k, dim);
        write_q4((uint8_t *)vh + slot * groups * (SL_KV_GROUP / 2),
                 (uint16_t *)(void *)(vh + sl_kv_q4_bytes(dim)) + slot * groups, v, dim);
    }
}

void SL_REF(sl_kv_write)(const sl_kv_layer *layer, uint32_t block, uint32_t slot, const float *k, const float *v)
{
    for (size_t h = 0; h < layer->n_kv_heads; h++)
        write_head(layer->type, layer->head_dim, sl_kv_k_head(layer, block, h), sl_kv_v_head(layer, block, h), slot,
                   k + h * layer->head_dim, v + h * layer->head_dim);
}
