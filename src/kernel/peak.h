/* Loops that do nothing but keep one limit of the machine busy; tune/limits.c times them. */
#ifndef SL_KERNEL_PEAK_H
#define SL_KERNEL_PEAK_H

#include "base/cpu.h"

#include <stddef.h>
#include <stdint.h>

/* Runs independent multiply-adds from registers for some rounds; returns the operations done (a multiply and an add
 * are two). *sink gets a value that depends on all of them. */
typedef uint64_t sl_peak_fn(uint64_t rounds, float *sink);

/* Reads n_bytes (a multiple of 1024) once, in order; *sink gets a value that depends on all of them. */
typedef void sl_read_fn(const void *bytes, size_t n_bytes, float *sink);

typedef struct sl_peak {
    sl_peak_fn *fp32, *int8;
    sl_read_fn *read;
} sl_peak;

/* The fastest loops of arithmetic that a level has on this CPU (exact and ref: that the CPU has), and of reading that the
 * CPU has. */
sl_peak sl_peak_get(sl_level level);

sl_peak_fn sl_peak_fp32_base, sl_peak_fp32_v3, sl_peak_fp32_v4;
sl_peak_fn sl_peak_int8_base, sl_peak_int8_v3, sl_peak_int8_v4;
sl_peak_fn sl_peak_int8_avx2, sl_peak_int8_avxvnni, sl_peak_int8_avx512, sl_peak_int8_avx512vnni;
sl_read_fn sl_peak_read_base, sl_peak_read_v3, sl_peak_read_v4;

#endif
