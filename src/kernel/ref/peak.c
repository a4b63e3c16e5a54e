/* Plain C loops at the machine's limits; like all of ref/ compiled once per ISA. */
#include "kernel/peak.h"
#include "kernel/ref/ref.h"

/* Asking for lines this far ahead reads 1.15 times as fast as the hardware's prefetchers alone (26 against 30 GB/s with
 * two workers on Zen 5); one to eight streams and 2 to 16 KB make no further difference. */
enum { SUMS = SL_ISA_ROWS, READ_BYTES = 1024, READ_AHEAD_BYTES = 4096, LINE_BYTES = 64 };

uint64_t SL_REF(sl_peak_fp32)(uint64_t rounds, float *sink)
{
    float acc[SUMS][LANES];
    const float factor = *sink * 0.5f;
    for (int i = 0; i < SUMS; i++)
        for (int l = 0; l < LANES; l++)
            acc[i][l] = *sink + (float)(i + l);
    for (uint64_t n = 0; n < rounds; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++)
            for (int l = 0; l < LANES; l++)
                acc[i][l] = __builtin_fmaf(acc[i][l], factor, factor);
    }
    for (int i = 0; i < SUMS; i++)
        *sink += sum16(acc[i]);
    return rounds * SUMS * LANES * 2;
}

/* 16-bit products of pairs added in 32 bits: what an ISA without dot products of bytes offers. */
uint64_t SL_REF(sl_peak_int8)(uint64_t rounds, float *sink)
{
    int16_t a[2 * LANES], b[2 * LANES];
    int32_t acc[4][LANES] = {{0}};
    for (int l = 0; l < 2 * LANES; l++) {
        a[l] = (int16_t)((int)*sink + l);
        b[l] = (int16_t)(a[l] & 15);
    }
    for (uint64_t n = 0; n < rounds; n++) {
        b[n % LANES] = (int16_t)(n & 15);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            for (int l = 0; l < LANES; l++)
                acc[i][l] += a[2 * l] * b[2 * l] + a[2 * l + 1] * (b[2 * l + 1] + i);
    }
    for (int i = 0; i < 4; i++)
        for (int l = 0; l < LANES; l++)
            *sink += (float)(acc[i][l] & 1);
    return rounds * 4 * LANES * 2 * 2;
}

void SL_REF(sl_peak_read)(const void *bytes, size_t n_bytes, float *sink)
{
    uint32_t acc[4][LANES] = {{0}};
    const char *p = bytes;
    for (size_t at = 0; at < n_bytes; at += READ_BYTES) {
        for (size_t i = 0; i < READ_BYTES; i += sizeof acc) {
            uint32_t v[4][LANES];
            for (size_t line = 0; line < sizeof v; line += LINE_BYTES)
                __builtin_prefetch(p + at + i + READ_AHEAD_BYTES + line);
            memcpy(v, p + at + i, sizeof v);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                for (int l = 0; l < LANES; l++)
                    acc[j][l] ^= v[j][l];
        }
    }
    for (int j = 0; j < 4; j++)
        for (int l = 0; l < LANES; l++)
            *sink += (float)(acc[j][l] & 1);
}
