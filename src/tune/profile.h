/* Where the time of a plan's runs goes, step by step, beside the work each step is. */
#ifndef SL_TUNE_PROFILE_H
#define SL_TUNE_PROFILE_H

#include "graph/backend.h"
#include "tune/limits.h"

/* One step of the plan, or all steps that do the same in different layers, summed over runs. Of each worker's time in a
 * run, work and wait are the average over the workers, so that all lines' work + wait is the time of the runs. */
typedef struct sl_profile_line {
    char label[80]; /* "matmul ffn_gate+ffn_up Q4_1", "rows add+rmsnorm+quantize", "attention" */
    uint32_t n_steps;
    double work_us;
    double slowest_us; /* work of the worker that took longest in each step */
    double wait_us; /* at the barrier behind the step: other workers' work beyond one's own, and the barrier itself */
    double ops;     /* a multiplication and an addition are two; 0 for row-wise steps */
    double bytes;   /* weights, KV and activations, each read or written once however often a cache serves it */
    bool int8;      /* ops are of int8, else of floats */
} sl_profile_line;

typedef struct sl_profiler sl_profiler;

/* For runs of plan on a pool of n_threads workers. The caller closes it, after the engine has let go of the hook. */
SL_WARN_UNUSED sl_status sl_profiler_open(const sl_plan *plan, int n_threads, sl_profiler **out, sl_err *err);
void sl_profiler_close(sl_profiler *profiler);

/* What sl_engine_set_profile takes; every run from then on is counted. */
const sl_profile *sl_profiler_hook(const sl_profiler *profiler);

/* Forgets the runs so far. */
void sl_profiler_reset(sl_profiler *profiler);

uint32_t sl_profiler_n_runs(const sl_profiler *profiler);

/* Lines of the runs since the last reset: one for each step in the plan's order, or, by_label, one for each label,
 * longest first. out has room for plan->n_steps lines; returns how many were written. */
size_t sl_profiler_lines(const sl_profiler *profiler, bool by_label, sl_profile_line *out);

/* Least time the machine could take for a line, in µs: its operations at the peak or its bytes at DRAM's bandwidth,
 * whichever is longer. A line whose bytes come from a cache can take less. */
double sl_profile_limit_us(const sl_profile_line *line, const sl_limits *limits);

#endif
