/* What the machine can do at most, measured: the yardstick beside every figure of speed. */
#ifndef SL_TUNE_LIMITS_H
#define SL_TUNE_LIMITS_H

#include "base/cpu.h"
#include "base/threads.h"

/* All workers together, with the instructions of one level. int8 and fp32 count a multiply and an add as two operations. */
typedef struct sl_limits {
    double dram_gbps, int8_gops, fp32_gflops;
} sl_limits;

/* Memory for the read loop, kept between slices: DRAM bandwidth swings within seconds on shared machines, so a
 * benchmark takes short slices of the limit between slices of its work. */
typedef struct sl_limits_probe sl_limits_probe;

/* Takes up to 768 MiB, at most a quarter of the free memory. SL_ERR_NOMEM below 64 MiB. The caller closes it. */
SL_WARN_UNUSED sl_status sl_limits_open(sl_threads *pool, sl_level level, sl_limits_probe **out, sl_err *err);
void sl_limits_close(sl_limits_probe *probe);

/* Average over about `seconds` of each figure. */
void sl_limits_slice(sl_limits_probe *probe, double seconds, sl_limits *out);

/* DRAM bandwidth alone. */
double sl_limits_dram_gbps(sl_limits_probe *probe, double seconds);

/* Opens, takes one slice of seconds_per_figure for each figure, and closes. */
SL_WARN_UNUSED sl_status sl_limits_measure(sl_threads *pool, sl_level level, double seconds_per_figure, sl_limits *out,
                                           sl_err *err);

#endif
