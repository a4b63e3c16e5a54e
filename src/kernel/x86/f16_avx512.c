/* The plain kernels that read half precision, with the CPU's conversion in place of integer arithmetic (which a
 * compiler does not find). Everything else is the plain C itself, so the bits are the same. */
#include "kernel/ref/ref.h"

#include <immintrin.h>

static void load_f16(float *dst, const uint16_t *src, size_t n)
{
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES)
        _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(src + i))));
    for (size_t i = whole; i < n; i++)
        dst[i] = f16_to_f32(src[i]);
}

#include "kernel/ref/matmul_float_tmpl.h"

SL_INLINE const float *load_f16_columns(const void *panel, size_t first_col, size_t n_cols, float *w)
{
    load_f16(w, (const uint16_t *)panel + first_col * LANES, n_cols * LANES);
    return w;
}

SL_MATMUL_FLOAT(sl_matmul_f16_avx512, load_f16_columns)
