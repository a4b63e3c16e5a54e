#include "kernel/dequant.h"

#include "kernel/type.h"

#include <string.h>

enum { SUPER_ELEMS = 256 }; /* weights in a block of the K and IQ4_XS formats */

/* Little-endian f16 at any address. */
static float read_f16(const uint8_t *p)
{
    return sl_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static uint32_t read_u32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void sl_dequantize_f32(const void *src, float *dst, size_t n_elems)
{
    memcpy(dst, src, n_elems * sizeof *dst);
}

void sl_dequantize_f16(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n_elems; i++)
        dst[i] = read_f16(p + 2 * i);
}

void sl_dequantize_bf16(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n_elems; i++)
        dst[i] = sl_bf16_to_f32((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
}

/* f16 d, 16 bytes: low nibbles are elements 0-15, high nibbles 16-31. */
void sl_dequantize_q4_0(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (; n_elems; n_elems -= 32, p += 18, dst += 32) {
        float d = read_f16(p);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)((p[2 + i] & 15) - 8);
            dst[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
        }
    }
}

/* f16 d, f16 m, nibbles as Q4_0. */
void sl_dequantize_q4_1(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (; n_elems; n_elems -= 32, p += 20, dst += 32) {
        float d = read_f16(p), m = read_f16(p + 2);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)(p[4 + i] & 15) + m;
            dst[i + 16] = d * (float)(p[4 + i] >> 4) + m;
        }
    }
}

/* f16 d, u32 whose bit i is bit 4 of element i, nibbles as Q4_0. */
void sl_dequantize_q5_0(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (; n_elems; n_elems -= 32, p += 22, dst += 32) {
        float d = read_f16(p);
        uint32_t high = read_u32(p + 2);
        for (int i = 0; i < 16; i++) {
            int low = (p[6 + i] & 15) | (int)(high >> i & 1) << 4;
            int up = p[6 + i] >> 4 | (int)(high >> (i + 16) & 1) << 4;
            dst[i] = d * (float)(low - 16);
            dst[i + 16] = d * (float)(up - 16);
        }
    }
}

/* f16 d, f16 m, high bits and nibbles as Q5_0. */
void sl_dequantize_q5_1(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (; n_elems; n_elems -= 32, p += 24, dst += 32) {
        float d = read_f16(p), m = read_f16(p + 2);
        uint32_t high = read_u32(p + 4);
        for (int i = 0; i < 16; i++) {
            int low = (p[8 + i] & 15) | (int)(high >> i & 1) << 4;
            int up = p[8 + i] >> 4 | (int)(high >> (i + 16) & 1) << 4;
            dst[i] = d * (float)low + m;
            dst[i + 16] = d * (float)up + m;
        }
    }
}

/* f16 d, int8[32]. */
void sl_dequantize_q8_0(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (; n_elems; n_elems -= 32, p += 34, dst += 32) {
        float d = read_f16(p);
        for (int i = 0; i < 32; i++)
            dst[i] = (float)(int8_t)p[2 + i] * d;
    }
}

/* scales[16] (low nibble scale, high nibble min), qs[64], f16 d, f16 dmin. Sub-blocks of 16; each 32 bytes of qs hold
 * 128 elements, two bits a plane of 32. */
void sl_dequantize_q2_k(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (; n_elems; n_elems -= SUPER_ELEMS, p += 84, dst += SUPER_ELEMS) {
        float d = read_f16(p + 80), dmin = read_f16(p + 82);
        for (int s = 0; s < 16; s++) {
            const uint8_t *q = p + 16 + s / 8 * 32 + s % 2 * 16;
            float dl = d * (float)(p[s] & 15), ml = dmin * (float)(p[s] >> 4);
            for (int i = 0, shift = s % 8 / 2 * 2; i < 16; i++)
                dst[s * 16 + i] = dl * (float)(q[i] >> shift & 3) - ml;
        }
    }
}

/* hmask[32], qs[64] as Q2_K, 12 bytes of 6-bit scales (low nibbles of 16 in the first 8 bytes, then their upper two
 * bits), f16 d. Bit k of hmask belongs to the k-th plane of 32 elements; a clear bit subtracts 4. */
void sl_dequantize_q3_k(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (; n_elems; n_elems -= SUPER_ELEMS, p += 110, dst += SUPER_ELEMS) {
        const uint8_t *scales = p + 96;
        float d = read_f16(p + 108);
        for (int s = 0; s < 16; s++) {
            int scale = (scales[s % 8] >> s / 8 * 4 & 15) | (scales[8 + s % 4] >> s / 4 * 2 & 3) << 4;
            const uint8_t *q = p + 32 + s / 8 * 32 + s % 2 * 16, *mask = p + s % 2 * 16;
            float dl = d * (float)(scale - 32);
            for (int i = 0, shift = s % 8 / 2 * 2; i < 16; i++)
                dst[s * 16 + i] = dl * (float)((q[i] >> shift & 3) - (mask[i] >> s / 2 & 1 ? 0 : 4));
        }
    }
}

/* Sub-block s (0-7) of the 12 bytes that pack eight 6-bit scales and eight 6-bit mins. */
static void unpack_scale_min(const uint8_t *packed, int s, float *scale, float *min)
{
    if (s < 4) {
        *scale = (float)(packed[s] & 63);
        *min = (float)(packed[4 + s] & 63);
    } else {
        *scale = (float)((packed[4 + s] & 15) | (packed[s - 4] >> 6) << 4);
        *min = (float)(packed[4 + s] >> 4 | (packed[s] >> 6) << 4);
    }
}

/* f16 d, f16 dmin, 12 bytes of scales and mins, 128 bytes: each 32 hold two sub-blocks (low nibbles, then high). */
void sl_dequantize_q4_k(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (; n_elems; n_elems -= SUPER_ELEMS, p += 144, dst += SUPER_ELEMS) {
        float d = read_f16(p), dmin = read_f16(p + 2);
        for (int s = 0; s < 8; s++) {
            const uint8_t *q = p + 16 + s / 2 * 32;
            float scale, min;
            unpack_scale_min(p + 4, s, &scale, &min);
            float dl = d * scale, ml = dmin * min;
            for (int i = 0, shift = s % 2 * 4; i < 32; i++)
                dst[s * 32 + i] = dl * (float)(q[i] >> shift & 15) - ml;
        }
    }
}

/* As Q4_K, with qh[32] before the nibbles: its bit s is bit 4 of sub-block s. */
void sl_dequantize_q5_k(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (; n_elems; n_elems -= SUPER_ELEMS, p += 176, dst += SUPER_ELEMS) {
        float d = read_f16(p), dmin = read_f16(p + 2);
        const uint8_t *high = p + 16;
        for (int s = 0; s < 8; s++) {
            const uint8_t *q = p + 48 + s / 2 * 32;
            float scale, min;
            unpack_scale_min(p + 4, s, &scale, &min);
            float dl = d * scale, ml = dmin * min;
            for (int i = 0, shift = s % 2 * 4; i < 32; i++)
                dst[s * 32 + i] = dl * (float)((q[i] >> shift & 15) | (high[i] >> s & 1) << 4) - ml;
        }
    }
}

/* ql[128], qh[64], int8 scales[16], f16 d. Two halves of 128 elements: four planes of 32, whose low nibbles are the
 * low then the high nibbles of 64 bytes of ql, and whose upper two bits are the bit pairs of 32 bytes of qh. */
void sl_dequantize_q6_k(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (; n_elems; n_elems -= SUPER_ELEMS, p += 210, dst += SUPER_ELEMS) {
        float d = read_f16(p + 208);
        for (int s = 0; s < 16; s++) {
            int half = s / 8, plane = s % 8 / 2, at = s % 2 * 16;
            const uint8_t *low = p + half * 64 + plane % 2 * 32 + at, *high = p + 128 + half * 32 + at;
            float dl = d * (float)(int8_t)p[192 + s];
            for (int i = 0; i < 16; i++) {
                int q = (low[i] >> plane / 2 * 4 & 15) | (high[i] >> plane * 2 & 3) << 4;
                dst[s * 16 + i] = dl * (float)(q - 32);
            }
        }
    }
}

/* The non-linear codebook of the IQ4 formats. */
static const float iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* f16 d, nibbles as Q4_0. */
void sl_dequantize_iq4_nl(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (; n_elems; n_elems -= 32, p += 18, dst += 32) {
        float d = read_f16(p);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * iq4_values[p[2 + i] & 15];
            dst[i + 16] = d * iq4_values[p[2 + i] >> 4];
        }
    }
}

/* f16 d, u16 upper two bits of eight scales, 4 bytes of their low nibbles, eight sub-blocks of 16 bytes as Q4_0. */
void sl_dequantize_iq4_xs(const void *src, float *dst, size_t n_elems)
{
    const uint8_t *p = src;
    for (; n_elems; n_elems -= SUPER_ELEMS, p += 136, dst += SUPER_ELEMS) {
        float d = read_f16(p);
        int scales_high = p[2] | p[3] << 8;
        for (int s = 0; s < 8; s++) {
            const uint8_t *q = p + 8 + s * 16;
            int scale = (p[4 + s / 2] >> s % 2 * 4 & 15) | (scales_high >> 2 * s & 3) << 4;
            float dl = d * (float)(scale - 32);
            for (int i = 0; i < 16; i++) {
                dst[s * 32 + i] = dl * iq4_values[q[i] & 15];
                dst[s * 32 + i + 16] = dl * iq4_values[q[i] >> 4];
            }
        }
    }
}

/* e8m0 exponent e, nibbles as Q4_0: e2m1 values times 2^(e-127). The table holds the values doubled, so the scale is
 * 2^(e-128), which for e of 0 and 1 is a subnormal. */
void sl_dequantize_mxfp4(const void *src, float *dst, size_t n_elems)
{
    static const float doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    const uint8_t *p = src;
    for (; n_elems; n_elems -= 32, p += 17, dst += 32) {
        uint32_t bits = p[0] < 2 ? UINT32_C(0x00200000) << p[0] : (uint32_t)(p[0] - 1) << 23;
        float d;
        memcpy(&d, &bits, sizeof d);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * doubled[p[1 + i] & 15];
            dst[i + 16] = d * doubled[p[1 + i] >> 4];
        }
    }
}
