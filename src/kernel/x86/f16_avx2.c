/* The plain matmul of half precision, with the CPU's conversion in place of integer arithmetic (which a
 * compiler does not find). Everything else is the plain C itself, so the bits are the same. */
#include "kernel/ref/ref.h"

#include <immintrin.h>

static void load_f16(float *dst, const uint16_t *src, size_t n)
{
    size_t whole = n - n % 8;
    for (size_t i = 0; i < whole; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(src + i))));
    for (size_t i = whole; i < n; i++)
        dst[i] = f16_to_f32(src[i]);
}

#include "kernel/ref/matmul_float_tmpl.h"

SL_INLINE const float *load_f16_columns(const void *panel, size_t first_col, size_t n_cols, float *w)
{
    load_f16(w, (const uint16_t *)panel + first_col * LANES, n_cols * LANES);
    return w;
}

SL_MATMUL_FLOAT(sl_matmul_f16_avx2, load_f16_columns)
