/* Random data, guarded buffers and random weights for the kernel tests. */
#ifndef SL_TESTS_KERNEL_SUPPORT_H
#define SL_TESTS_KERNEL_SUPPORT_H

#include "kernel/ops.h"

/* Seeds the generator from $SL_TEST_SEED, or from the clock, and prints how to repeat the run. */
void seed_random(const char *program);
uint32_t random_u32(void);
uint32_t random_below(uint32_t n);
/* Uniform in [-1, 1). */
float random_float(void);

/* Memory with guard bytes before it, and less than 64 behind it before a page that can't be touched; offset_bytes (a part of
 * 64) moves the start off its 64-byte alignment. */
typedef struct guarded {
    void *data;
    size_t n_bytes;
} guarded;
guarded guarded_alloc(size_t n_bytes, size_t offset_bytes);
/* From now on 64 bytes more lie before that page, for qemu 7.2, which reads 16 bytes where scalar FMA instructions have 4. */
void guard_loosely(void);
/* True when no guard byte changed; frees the memory. */
bool guarded_free(guarded *g);

/* Random source rows of a type: random integers, finite scales of mixed size and sign. The caller frees them. */
void *random_source(sl_type type, size_t n_rows, size_t n_cols);
/* Gives some blocks of a quantized source a NaN, an infinity, a zero or an extreme as scale or minimum. */
void spoil_factors(sl_type type, void *source, size_t n_rows, size_t n_cols);

/* A described weight with its data in the level's layout, made from source. weight_free frees the packed data. */
sl_weight weight_from(sl_level level, sl_type type, const void *source, size_t n_rows, size_t n_cols);
void weight_free(sl_weight *weight);

/* Random activations for n_rows rows of weight->act, all kinds: plain, zero, saturated, huge and tiny groups. */
typedef struct activations {
    guarded memory;
    void *x;
    size_t stride_bytes;
} activations;
activations random_activations(sl_act act, size_t n_rows, size_t n_cols);

/* Source type packed as a layout. */
sl_type layout_type(sl_layout layout);

#endif
