/* exp and tanh for the plain kernels: one arithmetic for every ISA, no branches, so that loops of them vectorise.
 * A tuned kernel that needs them must repeat the operations in this order. */
#ifndef SL_KERNEL_REF_EXP_H
#define SL_KERNEL_REF_EXP_H

#include "kernel/ref/ref.h"

/* e^x within 1 ulp for -87.3365 <= x; 0 below (the result would be subnormal), +inf above 88.72, NaN for NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2; e^r = 1 + r + r^2 q(r), q of degree 4 by the Remez exchange algorithm
 * (relative error of the polynomial 0.06 * 2^-24); 2^n in two factors because n reaches 128. */
SL_INLINE float exp_f32(float x)
{
    const float magic = 0x1.8p23f; /* adding it rounds to an integer in the low bits */
    float c = x < -87.3365f ? -87.3365f : x;
    c = c > 89.0f ? 89.0f : c;
    float t = __builtin_fmaf(c, 0x1.715476p+0f, magic);
    float n = t - magic;
    int32_t i = (int32_t)(f32_bits(t) - 0x4b400000u);
    float r = __builtin_fmaf(n, -0x1.62e430p-1f, c);
    r = __builtin_fmaf(n, 0x1.05c610p-29f, r);
    float q = 0x1.6a23a8p-10f;
    q = __builtin_fmaf(q, r, 0x1.123a36p-7f);
    q = __builtin_fmaf(q, r, 0x1.5558f4p-5f);
    q = __builtin_fmaf(q, r, 0x1.555490p-3f);
    q = __builtin_fmaf(q, r, 0x1.fffffcp-2f);
    float e = __builtin_fmaf(q, r * r, r) + 1.0f;
    int32_t half = i >> 1;
    e *= f32_from_bits((uint32_t)(half + 127) << 23);
    e *= f32_from_bits((uint32_t)(i - half + 127) << 23);
    return x < -87.3365f ? 0.0f : e;
}

/* tanh(x) within 3 ulp; NaN for NaN. Below 0.625: x + x^3 p(x^2), p of degree 5 (Remez, 0.004 * 2^-24); above:
 * 1 - 2 / (e^(2|x|) + 1) with x's sign. */
SL_INLINE float tanh_f32(float x)
{
    float a = f32_from_bits(f32_bits(x) & 0x7fffffffu);
    float z = x * x;
    float p = 0x1.12f3d8p-9f;
    p = __builtin_fmaf(p, z, -0x1.0a5f00p-7f);
    p = __builtin_fmaf(p, z, 0x1.633b66p-6f);
    p = __builtin_fmaf(p, z, -0x1.b9e782p-5f);
    p = __builtin_fmaf(p, z, 0x1.111044p-3f);
    p = __builtin_fmaf(p, z, -0x1.555554p-2f);
    float small = __builtin_fmaf(p * z, x, x);
    float big = 1.0f - 2.0f / (exp_f32(a + a) + 1.0f);
    big = f32_from_bits(f32_bits(big) | (f32_bits(x) & 0x80000000u));
    return a < 0.625f ? small : big;
}

#endif
