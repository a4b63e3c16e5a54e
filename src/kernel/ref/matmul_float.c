#include "kernel/ref/matmul_float_tmpl.h"

SL_INLINE const float *load_f32(const void *panel, size_t first_col, size_t n_cols, float *w)
{
    (void)n_cols, (void)w;
    return (const float *)panel + first_col * LANES;
}

SL_INLINE const float *load_f16(const void *panel, size_t first_col, size_t n_cols, float *w)
{
    const uint16_t *h = (const uint16_t *)panel + first_col * LANES;
    for (size_t i = 0; i < n_cols * LANES; i++)
        w[i] = f16_to_f32(h[i]);
    return w;
}

SL_INLINE const float *load_bf16(const void *panel, size_t first_col, size_t n_cols, float *w)
{
    const uint16_t *h = (const uint16_t *)panel + first_col * LANES;
    for (size_t i = 0; i < n_cols * LANES; i++)
        w[i] = bf16_to_f32(h[i]);
    return w;
}

SL_MATMUL_FLOAT(SL_REF(sl_matmul_f32), load_f32)
SL_MATMUL_FLOAT(SL_REF(sl_matmul_f16), load_f16)
SL_MATMUL_FLOAT(SL_REF(sl_matmul_bf16), load_bf16)
