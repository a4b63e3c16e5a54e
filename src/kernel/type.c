#include "kernel/type.h"

#include "kernel/dequant.h"

#include <string.h>

/* Sizes: GGML_QUANT_SIZES of gguf-py. Ids without a line (4, 5, 31-33, 36-38) belonged to formats that were withdrawn. */
static const sl_type_info types[] = {
    [SL_TYPE_F32] = {"F32", 1, 4, sl_dequantize_f32},
    [SL_TYPE_F16] = {"F16", 1, 2, sl_dequantize_f16},
    [SL_TYPE_Q4_0] = {"Q4_0", 32, 18, sl_dequantize_q4_0},
    [SL_TYPE_Q4_1] = {"Q4_1", 32, 20, sl_dequantize_q4_1},
    [SL_TYPE_Q5_0] = {"Q5_0", 32, 22, sl_dequantize_q5_0},
    [SL_TYPE_Q5_1] = {"Q5_1", 32, 24, sl_dequantize_q5_1},
    [SL_TYPE_Q8_0] = {"Q8_0", 32, 34, sl_dequantize_q8_0},
    [SL_TYPE_Q8_1] = {"Q8_1", 32, 40, NULL},
    [SL_TYPE_Q2_K] = {"Q2_K", 256, 84, sl_dequantize_q2_k},
    [SL_TYPE_Q3_K] = {"Q3_K", 256, 110, sl_dequantize_q3_k},
    [SL_TYPE_Q4_K] = {"Q4_K", 256, 144, sl_dequantize_q4_k},
    [SL_TYPE_Q5_K] = {"Q5_K", 256, 176, sl_dequantize_q5_k},
    [SL_TYPE_Q6_K] = {"Q6_K", 256, 210, sl_dequantize_q6_k},
    [SL_TYPE_Q8_K] = {"Q8_K", 256, 292, NULL},
    [SL_TYPE_IQ2_XXS] = {"IQ2_XXS", 256, 66, NULL},
    [SL_TYPE_IQ2_XS] = {"IQ2_XS", 256, 74, NULL},
    [SL_TYPE_IQ3_XXS] = {"IQ3_XXS", 256, 98, NULL},
    [SL_TYPE_IQ1_S] = {"IQ1_S", 256, 50, NULL},
    [SL_TYPE_IQ4_NL] = {"IQ4_NL", 32, 18, sl_dequantize_iq4_nl},
    [SL_TYPE_IQ3_S] = {"IQ3_S", 256, 110, NULL},
    [SL_TYPE_IQ2_S] = {"IQ2_S", 256, 82, NULL},
    [SL_TYPE_IQ4_XS] = {"IQ4_XS", 256, 136, sl_dequantize_iq4_xs},
    [SL_TYPE_I8] = {"I8", 1, 1, NULL},
    [SL_TYPE_I16] = {"I16", 1, 2, NULL},
    [SL_TYPE_I32] = {"I32", 1, 4, NULL},
    [SL_TYPE_I64] = {"I64", 1, 8, NULL},
    [SL_TYPE_F64] = {"F64", 1, 8, NULL},
    [SL_TYPE_IQ1_M] = {"IQ1_M", 256, 56, NULL},
    [SL_TYPE_BF16] = {"BF16", 1, 2, sl_dequantize_bf16},
    [SL_TYPE_TQ1_0] = {"TQ1_0", 256, 54, NULL},
    [SL_TYPE_TQ2_0] = {"TQ2_0", 256, 66, NULL},
    [SL_TYPE_MXFP4] = {"MXFP4", 32, 17, sl_dequantize_mxfp4},
    [SL_TYPE_NVFP4] = {"NVFP4", 64, 36, NULL},
    [SL_TYPE_Q1_0] = {"Q1_0", 128, 18, NULL},
};

const sl_type_info *sl_type_get(uint32_t type)
{
    return type < SL_COUNTOF(types) && types[type].name ? &types[type] : NULL;
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* No step here reads or makes a float32 subnormal, so the result doesn't depend on the FTZ and DAZ flags; NaNs become
 * quiet and keep their payload, as with F16C. */
float sl_f16_to_f32(uint16_t h)
{
    const uint32_t rebias = (uint32_t)(127 - 15) << 23;
    uint32_t magnitude = h & 0x7fffu;
    uint32_t bits = (magnitude << 13) + rebias;
    if (magnitude >= 0x7c00)
        bits += rebias + (magnitude > 0x7c00 && !(magnitude & 0x200) ? 1u << 22 : 0);
    else if (magnitude < 0x400) /* 2^-14 · (1 + m/1024) − 2^-14 = m · 2^-24 */
        bits = bits_of(float_of(bits + (1u << 23)) - float_of(rebias + (1u << 23)));
    return float_of(bits | (uint32_t)(h & 0x8000) << 16);
}

uint16_t sl_f32_to_f16(float f)
{
    uint32_t u = bits_of(f), magnitude = u & 0x7fffffff;
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude >= 0x38800000) { /* 2^-14: normal */
        uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
        return (uint16_t)(sign | (rounded - ((uint32_t)(127 - 15) << 23)) >> 13);
    }
    if (magnitude < 0x33000000) /* below 2^-25: zero */
        return sign;
    uint32_t shift = 126 - (magnitude >> 23); /* the unit of an f16 subnormal is 2^-24 */
    uint32_t significand = (magnitude & 0x7fffff) | 0x800000;
    uint32_t quotient = significand >> shift, rest = significand & ((1u << shift) - 1), half = 1u << (shift - 1);
    quotient += rest > half || (rest == half && (quotient & 1));
    return (uint16_t)(sign | quotient);
}

float sl_bf16_to_f32(uint16_t h)
{
    return float_of((uint32_t)h << 16);
}

uint16_t sl_f32_to_bf16(float f)
{
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
