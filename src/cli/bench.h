/* What `sluice bench` measures and how it is told; cmd_bench.c reads the options, bench_run.c measures, bench_report.c
 * prints. */
#ifndef SL_CLI_BENCH_H
#define SL_CLI_BENCH_H

#include "app/bundle.h"
#include "tune/profile.h"

enum { SL_BENCH_MAX_REPETITIONS = 1000, SL_BENCH_MAX_BATCHES = 16 };

typedef enum sl_bench_kind { SL_BENCH_PREFILL, SL_BENCH_DECODE, SL_BENCH_BATCH } sl_bench_kind;

/* Time of one kind of work by steps: of a run of the task that stands beside its repetitions. */
typedef struct sl_bench_profile {
    sl_profile_line *labels, *steps; /* n_labels, n_steps of them */
    size_t n_labels, n_steps;
    uint32_t n_runs;
    double wall_us;   /* the task's measured part, with sampling and all that stands between the runs */
    sl_limits limits; /* measured right before and after */
} sl_bench_profile;

/* One kind of work: n_seqs sequences with prompts of n_prompt random tokens each; measured is either the prompts
 * (n_decode 0) or, behind them, n_decode steps with a token of each sequence. */
typedef struct sl_bench_task {
    sl_bench_kind kind;
    char name[24]; /* "prefill", "decode", "batch 8" */
    uint32_t n_seqs, n_prompt, n_decode;
    sl_engine *engine;      /* opened by sl_bench_measure; the owner of the bench closes it */
    double ops, bytes;      /* least work of the measured part */
    double *tps, *of_limit; /* tokens per second of all sequences together, share of the limit: one a repetition */
    sl_bench_profile profile;
} sl_bench_task;

typedef struct sl_bench {
    const sl_bundle *bundle;
    sl_level level;
    sl_limits_probe *probe;
    sl_profiler *profiler; /* NULL: no profile is wanted */
    uint32_t chunk;
    sl_bench_task tasks[2 + SL_BENCH_MAX_BATCHES];
    size_t n_tasks, n_repetitions;
    sl_limits *limits; /* n_repetitions + 1 slices, around the repetitions */
    uint64_t random;   /* state of the generator of prompts */
} sl_bench;

/* Measures every task n_repetitions times in turn, slices of the machine's limits in between, and then, with a
 * profiler, each task once more for its profile. SL_ERR_CANCELLED after Ctrl-C. */
SL_WARN_UNUSED sl_status sl_bench_measure(sl_bench *bench, sl_err *err);

/* Prints the result as text or as one JSON object. */
SL_WARN_UNUSED sl_status sl_bench_print(const sl_bench *bench, bool json, sl_err *err);

#endif
