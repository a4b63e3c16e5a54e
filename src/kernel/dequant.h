/* Dequantizers: the exact meaning of each block format as float32. Reached through sl_type_info.dequantize. */
#ifndef SL_KERNEL_DEQUANT_H
#define SL_KERNEL_DEQUANT_H

#include <stddef.h>

/* dst[0..n_elems) = values of the packed blocks at src (any alignment); n_elems is a multiple of the block's elements.
 * Multiplications and additions are rounded one by one in float32, in the order that gguf-py's `gguf.quants` uses, so
 * that both give the same bits. Block layouts: docs/gguf.md and ggml-common.h of ggml. */
void sl_dequantize_f32(const void *src, float *dst, size_t n_elems);
void sl_dequantize_f16(const void *src, float *dst, size_t n_elems);
void sl_dequantize_bf16(const void *src, float *dst, size_t n_elems);
void sl_dequantize_q4_0(const void *src, float *dst, size_t n_elems);
void sl_dequantize_q4_1(const void *src, float *dst, size_t n_elems);
void sl_dequantize_q5_0(const void *src, float *dst, size_t n_elems);
void sl_dequantize_q5_1(const void *src, float *dst, size_t n_elems);
void sl_dequantize_q8_0(const void *src, float *dst, size_t n_elems);
void sl_dequantize_q2_k(const void *src, float *dst, size_t n_elems);
void sl_dequantize_q3_k(const void *src, float *dst, size_t n_elems);
void sl_dequantize_q4_k(const void *src, float *dst, size_t n_elems);
void sl_dequantize_q5_k(const void *src, float *dst, size_t n_elems);
void sl_dequantize_q6_k(const void *src, float *dst, size_t n_elems);
void sl_dequantize_iq4_nl(const void *src, float *dst, size_t n_elems);
void sl_dequantize_iq4_xs(const void *src, float *dst, size_t n_elems);
void sl_dequantize_mxfp4(const void *src, float *dst, size_t n_elems);

#endif
