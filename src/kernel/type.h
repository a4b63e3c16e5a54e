/* Element types of tensors: the numbers are GGUF's type ids, which have gaps. */
#ifndef SL_KERNEL_TYPE_H
#define SL_KERNEL_TYPE_H

#include "base/status.h"

typedef enum sl_type {
    SL_TYPE_F32 = 0,
    SL_TYPE_F16 = 1,
    SL_TYPE_Q4_0 = 2,
    SL_TYPE_Q4_1 = 3,
    SL_TYPE_Q5_0 = 6,
    SL_TYPE_Q5_1 = 7,
    SL_TYPE_Q8_0 = 8,
    SL_TYPE_Q8_1 = 9,
    SL_TYPE_Q2_K = 10,
    SL_TYPE_Q3_K = 11,
    SL_TYPE_Q4_K = 12,
    SL_TYPE_Q5_K = 13,
    SL_TYPE_Q6_K = 14,
    SL_TYPE_Q8_K = 15,
    SL_TYPE_IQ2_XXS = 16,
    SL_TYPE_IQ2_XS = 17,
    SL_TYPE_IQ3_XXS = 18,
    SL_TYPE_IQ1_S = 19,
    SL_TYPE_IQ4_NL = 20,
    SL_TYPE_IQ3_S = 21,
    SL_TYPE_IQ2_S = 22,
    SL_TYPE_IQ4_XS = 23,
    SL_TYPE_I8 = 24,
    SL_TYPE_I16 = 25,
    SL_TYPE_I32 = 26,
    SL_TYPE_I64 = 27,
    SL_TYPE_F64 = 28,
    SL_TYPE_IQ1_M = 29,
    SL_TYPE_BF16 = 30,
    SL_TYPE_TQ1_0 = 34,
    SL_TYPE_TQ2_0 = 35,
    SL_TYPE_MXFP4 = 39,
    SL_TYPE_NVFP4 = 40,
    SL_TYPE_Q1_0 = 41,
} sl_type;

typedef struct sl_type_info {
    const char *name;     /* "Q4_K" */
    uint32_t block_elems; /* weights in a block; ne[0] is a multiple of it */
    uint32_t block_bytes; /* bytes of a block */
    /* dst[0..n_elems) = values of the blocks at src; n_elems a multiple of block_elems. NULL: not a weight type
     * this build can compute with. */
    void (*dequantize)(const void *src, float *dst, size_t n_elems);
} sl_type_info;

/* Description of a GGUF type id; NULL for an id that is unknown. Static storage. */
const sl_type_info *sl_type_get(uint32_t type);

/* Scalar conversions, round to nearest even, NaN kept as NaN. */
float sl_f16_to_f32(uint16_t h);
uint16_t sl_f32_to_f16(float f);
float sl_bf16_to_f32(uint16_t h);
uint16_t sl_f32_to_bf16(float f);

#endif
