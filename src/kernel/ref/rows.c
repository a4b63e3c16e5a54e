/* Kernels that work on one row of floats. Each handles 16 elements at a time through a local copy (y may be x, so the
 * compiler could not vectorise a direct loop) and the tail one by one, with the same operations. */
#include "kernel/ref/exp.h"
#include "kernel/ref/ref.h"

void SL_REF(sl_rmsnorm)(float *y, const float *x, const float *w, size_t n, float eps)
{
    float part[LANES] = {0};
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++)
            part[l] = __builtin_fmaf(x[i + l], x[i + l], part[l]);
    for (size_t i = whole; i < n; i++)
        part[i - whole] = __builtin_fmaf(x[i], x[i], part[i - whole]);
    float r = 1.0f / __builtin_sqrtf(sum16(part) / (float)n + eps);
    for (size_t i = 0; i < whole; i += LANES) {
        float t[LANES];
        for (int l = 0; l < LANES; l++)
            t[l] = x[i + l] * r;
        if (w)
            for (int l = 0; l < LANES; l++)
                t[l] *= w[i + l];
        memcpy(y + i, t, sizeof t);
    }
    for (size_t i = whole; i < n; i++)
        y[i] = w ? x[i] * r * w[i] : x[i] * r;
}

/* Largest |x| of a group as bits: integers order as magnitudes do, and a NaN is the largest of all. */
SL_INLINE uint32_t group_amax(const float *x)
{
    uint32_t t[LANES];
    for (int l = 0; l < LANES; l++) {
        uint32_t a = f32_bits(x[l]) & 0x7fffffffu, b = f32_bits(x[l + LANES]) & 0x7fffffffu;
        t[l] = a > b ? a : b;
    }
    SL_FOLD16(t, SL_FOLD_MAX);
    return t[0];
}

/* q = x * inv rounded to nearest even, by the FPU: adding 1.5 * 2^23 leaves the integer in the low bits. */
SL_INLINE int16_t quantize_half(int8_t *q, const float *x, float inv)
{
    int32_t v[LANES];
    int8_t b[LANES];
    for (int l = 0; l < LANES; l++)
        v[l] = (int32_t)(f32_bits(x[l] * inv + 0x1.8p23f) - 0x4b400000u);
    for (int l = 0; l < LANES; l++)
        b[l] = (int8_t)v[l];
    memcpy(q, b, sizeof b);
    SL_FOLD16(v, SL_FOLD_ADD);
    return (int16_t)v[0];
}

void SL_REF(sl_quantize_q8)(void *y, const float *x, size_t n)
{
    const float tiny = 0x1p-100f; /* below it 127 / amax would come near overflow */
    size_t groups = n / SL_GROUP;
    int8_t *q = y;
    float *scale = (float *)(void *)(q + n), *sum = scale + groups;
    int16_t *half_sum = (int16_t *)(void *)(sum + groups);
    for (size_t g = 0; g < groups; g++) {
        float amax = f32_from_bits(group_amax(x + g * SL_GROUP));
        int16_t *h = half_sum + 2 * g;
        if (amax >= tiny && amax <= 0x1.fffffep127f) {
            float inv = 127.0f / amax;
            h[0] = quantize_half(q + g * SL_GROUP, x + g * SL_GROUP, inv);
            h[1] = quantize_half(q + g * SL_GROUP + LANES, x + g * SL_GROUP + LANES, inv);
            scale[g] = amax / 127.0f;
        } else {
            memset(q + g * SL_GROUP, 0, SL_GROUP);
            h[0] = h[1] = 0;
            scale[g] = amax < tiny ? 0.0f : f32_from_bits(0x7fc00000u);
        }
        sum[g] = scale[g] * (float)(h[0] + h[1]);
    }
}

SL_INLINE float silu(float g)
{
    return g / (1.0f + exp_f32(-g));
}

/* 0.5 (1 + tanh(u)) = 1 / (1 + e^(-2u)): one exp, and no cancellation for negative u. */
SL_INLINE float gelu_tanh(float g)
{
    float inner = __builtin_fmaf(0.044715f * g * g, g, g);
    return g / (1.0f + exp_f32(-0x1.988454p+0f * inner)); /* 2 sqrt(2 / pi) */
}

#define GLU_LOOP(act)                                                                                                  \
    for (size_t i = 0; i < whole; i += LANES) {                                                                        \
        float t[LANES];                                                                                                \
        for (int l = 0; l < LANES; l++)                                                                                \
            t[l] = act(gate[i + l]) * up[i + l];                                                                       \
        memcpy(y + i, t, sizeof t);                                                                                    \
    }                                                                                                                  \
    for (size_t i = whole; i < n; i++)                                                                                 \
        y[i] = act(gate[i]) * up[i];

void SL_REF(sl_glu)(float *y, const float *gate, const float *up, size_t n, sl_gate gate_fn)
{
    size_t whole = n - n % LANES;
    if (gate_fn == SL_GATE_SILU) {
        GLU_LOOP(silu)
    } else {
        GLU_LOOP(gelu_tanh)
    }
}

void SL_REF(sl_add)(float *y, const float *a, const float *b, size_t n)
{
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES) {
        float t[LANES];
        for (int l = 0; l < LANES; l++)
            t[l] = a[i + l] + b[i + l];
        memcpy(y + i, t, sizeof t);
    }
    for (size_t i = whole; i < n; i++)
        y[i] = a[i] + b[i];
}

void SL_REF(sl_scale)(float *y, const float *x, float factor, size_t n)
{
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES) {
        float t[LANES];
        for (int l = 0; l < LANES; l++)
            t[l] = x[i + l] * factor;
        memcpy(y + i, t, sizeof t);
    }
    for (size_t i = whole; i < n; i++)
        y[i] = x[i] * factor;
}

/* Rotates the pairs (head[i * step], head[i * step + apart]); step is a constant where this is inlined. */
SL_INLINE void rotate(float *head, size_t step, size_t apart, const float *cos, const float *sin, size_t n_pairs)
{
    for (size_t i = 0; i < n_pairs; i++) {
        float a = head[i * step], b = head[i * step + apart];
        head[i * step] = __builtin_fmaf(a, cos[i], -(b * sin[i]));
        head[i * step + apart] = __builtin_fmaf(b, cos[i], a * sin[i]);
    }
}

void SL_REF(sl_rope)(float *x, uint32_t n_heads, uint32_t head_dim, const float *cos_sin, uint32_t n_pairs,
                     sl_rope_mode mode)
{
    for (size_t h = 0; h < n_heads; h++) {
        if (mode == SL_ROPE_NORM)
            rotate(x + h * head_dim, 2, 1, cos_sin, cos_sin + n_pairs, n_pairs);
        else
            rotate(x + h * head_dim, 1, n_pairs, cos_sin, cos_sin + n_pairs, n_pairs);
    }
}

int32_t SL_REF(sl_block_max)(int32_t *out, const float *x, size_t n)
{
    int32_t lowest = INT32_MAX;
    for (size_t begin = 0; begin < n; begin += SL_KEY_BLOCK) {
        size_t n_block = n - begin < SL_KEY_BLOCK ? n - begin : SL_KEY_BLOCK;
        int32_t low = INT32_MAX, high = INT32_MIN;
        for (size_t i = 0; i < n_block; i++) {
            int32_t key = sl_float_key(x[begin + i]);
            low = low < key ? low : key;
            high = high > key ? high : key;
        }
        out[begin / SL_KEY_BLOCK] = high;
        lowest = lowest < low ? lowest : low;
    }
    return lowest;
}
