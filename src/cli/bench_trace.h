/* What `sluice bench throughput` replays and how it is told; cmd_bench_throughput.c reads the options and replays,
 * bench_trace_report.c prints. */
#ifndef SL_CLI_BENCH_TRACE_H
#define SL_CLI_BENCH_TRACE_H

#include "cli/kv_args.h"
#include "cli/machine.h"
#include "tune/replay.h"

typedef struct sl_bench_trace {
    const sl_bundle *bundle;
    const char *model; /* as the user named it */
    sl_machine machine;
    const sl_trace *trace;
    sl_replay_options options;
    sl_engine_options engine;
    const char *batching; /* name of engine.batching */
    const sl_replay *replay;
    sl_engine_memory memory;
    uint64_t free_bytes; /* memory, before the model was opened */
    sl_kv_choice kv;
} sl_bench_trace;

/* Prints the report as text or as one JSON object. */
SL_WARN_UNUSED sl_status sl_bench_trace_print(const sl_bench_trace *bench, bool json, sl_err *err);

#endif
