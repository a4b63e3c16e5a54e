/* Shared by the plain C kernels. Each source here is compiled once per ISA (see kernel/meson.build), which defines
 *   SL_ISA_SUFFIX  appended to the exported names
 *   SL_ISA_ROWS    rows of activations held in registers at once; changes speed, never bits
 * Loops over 16 lanes are written out so that a compiler turns each into vector instructions. Every operation is
 * IEEE single precision in a fixed order, so all compiles give the same bits. */
#ifndef SL_KERNEL_REF_H
#define SL_KERNEL_REF_H

#include "kernel/kernels.h"

#include <string.h>

#define SL_REF_PASTE_(name, suffix) name##suffix
#define SL_REF_PASTE(name, suffix)  SL_REF_PASTE_(name, suffix)
#define SL_REF(name)                SL_REF_PASTE(name, SL_ISA_SUFFIX)

#define SL_INLINE static inline __attribute__((always_inline))

enum { LANES = SL_PANEL_ROWS };

SL_INLINE uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

SL_INLINE float f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Folds the 16 values of array t into t[0] as a tree: 8 apart, 4 apart, 2 apart, 1 apart. */
#define SL_FOLD16(t, op)                                                                                               \
    do {                                                                                                               \
        for (int l_ = 0; l_ < 8; l_++)                                                                                 \
            (t)[l_] = op((t)[l_], (t)[l_ + 8]);                                                                        \
        for (int l_ = 0; l_ < 4; l_++)                                                                                 \
            (t)[l_] = op((t)[l_], (t)[l_ + 4]);                                                                        \
        for (int l_ = 0; l_ < 2; l_++)                                                                                 \
            (t)[l_] = op((t)[l_], (t)[l_ + 2]);                                                                        \
        (t)[0] = op((t)[0], (t)[1]);                                                                                   \
    } while (0)
#define SL_FOLD_ADD(a, b) ((a) + (b))
#define SL_FOLD_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Sum and largest of 16; both destroy the array. */
SL_INLINE float sum16(float s[LANES])
{
    SL_FOLD16(s, SL_FOLD_ADD);
    return s[0];
}

SL_INLINE float max16(float s[LANES])
{
    SL_FOLD16(s, SL_FOLD_MAX);
    return s[0];
}

/* Half to single precision without branches, so that a loop of it vectorises. A subnormal half becomes exact by
 * giving it the implicit bit of 2^-14 and subtracting that again. */
SL_INLINE float f16_to_f32(uint16_t h)
{
    uint32_t body = (uint32_t)(h & 0x7fff) << 13;
    uint32_t normal = body + (112u << 23);
    uint32_t special = body + (224u << 23);
    float subnormal = f32_from_bits(body + (113u << 23)) - 0x1p-14f;
    uint32_t u = body < 0x00800000u ? f32_bits(subnormal) : normal;
    u = body >= 0x0f800000u ? special : u;
    return f32_from_bits(u | (uint32_t)(h & 0x8000) << 16);
}

/* Single to half precision, to nearest even, NaN kept, without branches. Below 2^-14 the addition of 0.5 lets the FPU
 * round at the right bit (the unit in the last place of 0.5 is 2^-24, a half's smallest step). */
SL_INLINE uint16_t f32_to_f16(float f)
{
    uint32_t u = f32_bits(f), sign = u & 0x80000000u;
    u ^= sign;
    uint32_t normal = (u - (112u << 23) + 0xfff + (u >> 13 & 1)) >> 13;
    uint32_t subnormal = f32_bits(f32_from_bits(u) + 0.5f) - 0x3f000000u;
    uint32_t special = u > 0x7f800000u ? 0x7e00u | (u >> 13 & 0x3ff) : 0x7c00u;
    uint32_t h = u < 0x38800000u ? subnormal : normal;
    h = u >= 0x47800000u ? special : h;
    return (uint16_t)(h | sign >> 16);
}

SL_INLINE float bf16_to_f32(uint16_t h)
{
    return f32_from_bits((uint32_t)h << 16);
}

/* y = sums (+ bias) for n_rows rows of one panel; the lanes beyond the weight's last row are dropped. */
static inline void store_sums(const sl_matmul *args, size_t row, size_t n_rows, size_t panel, float (*sums)[LANES])
{
    size_t first = panel * LANES, left = args->weight->n_rows - first;
    size_t n_lanes = left < LANES ? left : LANES;
    for (size_t r = 0; r < n_rows; r++) {
        float *y = args->y + (row + r) * args->y_stride_elems + first;
        for (size_t l = 0; l < n_lanes; l++)
            y[l] = args->bias ? sums[r][l] + args->bias[first + l] : sums[r][l];
    }
}

#endif
