/* Replays a trace against an engine in this process, by the real clock and as an open loop: a request arrives when the trace
 * says so, however long the engine is at work, and its times count from then. It goes to the engine at once, with its
 * tenant, weight, priority and targets: how requests are put together is the engine's business (sl_engine_options). */
#ifndef SL_TUNE_REPLAY_H
#define SL_TUNE_REPLAY_H

#include "engine/engine.h"
#include "tune/trace.h"

typedef struct sl_replay_options {
    const sl_trace *trace;
    sl_engine *engine;                     /* idle */
    uint32_t n_vocab;                      /* of the model: the trace's tokens are below it */
    uint32_t n_kv_groups;                  /* of its plan; 0 = 1 */
    int64_t ttft_target_us, itl_target_us; /* of requests to which the trace gives none; 0 = none */
    bool hide_targets;                     /* the report counts by the targets, the engine is not told of them */
    bool (*stop)(void *user);              /* asked between steps; true ends the replay; may be NULL */
    void *user;
} sl_replay_options;

/* What became of a request. Times are in us since the replay's begin. */
typedef struct sl_replay_record {
    int64_t arrival_us, first_us, last_us; /* first and last token; 0 where there was none */
    uint32_t n_prompt, n_cached, n_generated;
    uint32_t tenant;
    int64_t ttft_target_us, itl_target_us; /* that it is counted by; 0 = none */
    size_t first;                          /* its tokens and their times stand in the replay's arrays from here on */
    bool failed;                           /* refused or ended by an error, or a turn behind such a one */
    sl_err error;
} sl_replay_record;

/* A step of the engine; those in which a batch was only waited for are left out. */
typedef struct sl_replay_sample {
    int64_t start_us, end_us;
    uint32_t n_tokens;                 /* generated in it */
    uint32_t n_in_flight;              /* requests that had arrived and not ended when it began */
    int64_t predicted_us, measured_us; /* its forward pass, by the engine's cost model (0 = none) and by the clock */
    /* Right behind it, if every running sequence was generating (else 0 of each): these, the tokens whose keys and values
     * they have, the slots of the blocks that they hold, a block that two share counted once, and those of each sequence's
     * blocks that have no token. */
    uint32_t n_running;
    uint64_t n_positions, n_slots, n_unused;
} sl_replay_sample;

typedef struct sl_replay {
    sl_replay_record *records; /* one for each request of the trace */
    size_t n_records;
    uint32_t *tokens; /* all generated tokens, and when each came */
    int64_t *times_us;
    size_t n_tokens; /* room, the sum of all outputs */
    sl_replay_sample *samples;
    size_t n_samples, sample_capacity;
    int64_t end_us;                                      /* when the last request ended */
    uint64_t n_preemptions, prefix_queries, prefix_hits; /* of the engine, meanwhile; the latter in tokens */
    uint32_t n_blocks, most_blocks_used;
} sl_replay;

/* Runs the trace to its end. *out is valid whatever the status; free it with sl_replay_free. A request that the engine
 * refuses is recorded as failed. SL_ERR_CANCELLED when options->stop said so. */
SL_WARN_UNUSED sl_status sl_replay_run(const sl_replay_options *options, sl_replay *out, sl_err *err);
void sl_replay_free(sl_replay *replay);

/* ---- the report ---- */

typedef struct sl_percentiles {
    size_t n;
    double mean, p50, p90, p99, max; /* nearest rank: the smallest value that this share of all do not exceed */
} sl_percentiles;

/* Sorts values in place; zeros when there are none. */
sl_percentiles sl_percentiles_of(double *values, size_t n);

enum { SL_REPLAY_SLICES = 20 };

/* Figures of one tenant, or of all requests together. */
typedef struct sl_replay_latency {
    size_t n_requests, n_failed;
    sl_percentiles ttft_ms; /* arrival to first token */
    sl_percentiles itl_ms;  /* every gap between two tokens of a request */
    sl_percentiles tpot_ms; /* of each request: first to last token over their gaps */
    sl_percentiles e2e_ms;  /* arrival to last token */
    size_t n_good;          /* requests within their targets */
} sl_replay_latency;

typedef struct sl_replay_report {
    sl_replay_latency all;
    double seconds; /* first arrival to last token */
    uint64_t n_prompt_tokens, n_cached_tokens, n_generated_tokens;
    size_t n_steps;
    double batch_mean; /* generated tokens a step, over the steps that generated any */
    uint32_t batch_max;
    /* KV memory, over the samples that tell of it: slots held for each token kept (below 1 where blocks are shared or a window
     * has passed), and slots without a token, for each sequence; of one layer group on average. */
    size_t n_kv_samples;
    double slots_per_token, unused_slots;
    /* The cost model's relative error over the steps that have a prediction: |predicted - measured| / measured. */
    sl_percentiles prediction_error;
    /* Over time, in equal slices of it: generated tokens a step and requests in flight, weighted by the steps' times. */
    double batch_over_time[SL_REPLAY_SLICES], in_flight_over_time[SL_REPLAY_SLICES];
} sl_replay_report;

/* A request is good when its first token came within its TTFT target and the 99th percentile of its gaps (with fewer than
 * 100 the longest) is within its ITL target; one that it does not have is always met. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_replay_summarise(const sl_replay *replay, sl_replay_report *out, sl_err *err);

/* The latencies of one tenant's requests. */
SL_WARN_UNUSED sl_status sl_replay_latency_of(const sl_replay *replay, uint32_t tenant, sl_replay_latency *out,
                                              sl_err *err);

#endif
