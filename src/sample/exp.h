/* Exponentials of many logits and their sums: the same bits on every machine. For the files of this folder only. */
#ifndef SL_SAMPLE_EXP_H
#define SL_SAMPLE_EXP_H

#include "base/status.h"

/* About -ln(2^-126): beyond this a float's exponential is subnormal. */
#define SL_EXP_RANGE 87.3f

/* exp(-d) for d >= 0, at least exp(-SL_EXP_RANGE); free of branches and library calls so that it vectorises and gives the same
 * bits on every machine: -d = n ln 2 + r, Taylor to the seventh power in r, the exponent added as an integer. */
static inline float sl_exp_negative(float d)
{
    const float round = 0x1.8p23f;
    /* as integers, for positive floats order alike and the compiler vectorises only their comparison */
    union {
        float f;
        int32_t i;
    } limit = {.f = SL_EXP_RANGE}, clamped = {.f = d};
    clamped.i = SL_MIN(clamped.i, limit.i);
    float x = -clamped.f;
    union {
        float f;
        int32_t i;
    } shift = {.f = x * 0x1.715476p0f + round}, scale;
    float n = shift.f - round;
    float r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    scale.f = p * r + 1.0f;
    scale.i += (int32_t)((uint32_t)shift.i << 23);
    return scale.f;
}

/* Sum of n weights in eight interleaved partial sums: an order that is fixed and fast. */
static inline double sl_sum_weights(const float *weight, uint32_t n)
{
    double part[8] = {0};
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (uint32_t j = 0; j < 8; j++)
            part[j] += (double)weight[i + j];
    for (; i < n; i++)
        part[i % 8] += (double)weight[i];
    return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

#endif
