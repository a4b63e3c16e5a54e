/* Opens a model and runs requests on it, for tests. */
#ifndef SL_TESTS_MODEL_RUN_H
#define SL_TESTS_MODEL_RUN_H

#include "app/bundle.h"
#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How to run; zero means the default. */
typedef struct {
    const char *path;
    sl_level level;
    sl_kv_type kv_type;
    int n_threads;
    uint32_t chunk, n_sequences, context;
    uint64_t shuffle_seed;
    uint32_t disabled_passes;
    const char *const *taps;
    size_t n_taps;
    bool with_bytes; /* events bring bytes */
    uint64_t kv_bytes;
    bool no_prefix_cache;
    sl_keep keep;
} run_setup;

typedef struct {
    sl_bundle *bundle;
    sl_engine *engine;
    uint32_t n_vocab;
} run_model;

static inline void run_require(sl_status status, const sl_err *err)
{
    if (status != SL_OK) {
        fprintf(stderr, "unexpected error: %s: %s\n", sl_status_name(status), err->message);
        abort();
    }
}

/* The engine's clock, which every look at it moves on by 0.2 ms: so that what the scheduler does, and with it the number of
 * pre-emptions, is the same wherever a test runs. */
static inline int64_t run_clock(void *user)
{
    static int64_t now_us;
    (void)user;
    return now_us += 200;
}

static inline run_model run_open(const run_setup *setup)
{
    run_model run;
    sl_err err;
    sl_bundle_options options = sl_bundle_options_default();
    options.n_threads = setup->n_threads ? setup->n_threads : 1;
    options.model.level = setup->level;
    options.model.kv_type = setup->kv_type;
    options.model.disabled_passes = setup->disabled_passes;
    options.model.taps = setup->taps;
    options.model.n_taps = setup->n_taps;
    run_require(sl_bundle_open(setup->path, &options, &run.bundle, &err), &err);
    run.n_vocab = sl_model_get_info(sl_bundle_model(run.bundle))->n_vocab;
    sl_engine_options engine = {.context = setup->context,
                                .chunk = setup->chunk,
                                .n_sequences = setup->n_sequences,
                                .shuffle_seed = setup->shuffle_seed,
                                .kv_bytes = setup->kv_bytes,
                                .no_prefix_cache = setup->no_prefix_cache,
                                .keep = setup->keep,
                                .clock = run_clock,
                                .token_bytes = setup->with_bytes ? sl_bundle_token_bytes(run.bundle) : NULL};
    sl_engine_model model = sl_engine_model_of(sl_bundle_model(run.bundle));
    run_require(sl_engine_open(&model, &engine, sl_bundle_threads(run.bundle), &run.engine, &err), &err);
    return run;
}

static inline void run_close(run_model *run)
{
    sl_engine_close(run->engine);
    sl_bundle_close(run->bundle);
}

static inline void run_until_idle(run_model *run)
{
    sl_err err;
    bool busy = true;
    while (busy)
        run_require(sl_engine_step(run->engine, run_clock(NULL), &busy, &err), &err);
}

typedef struct {
    float *rows;
    uint32_t n_vocab, next;
} run_logits_sink;

static inline void run_keep_logits(void *user, uint32_t position, const float *logits)
{
    run_logits_sink *sink = user;
    if (position != sink->next++)
        abort();
    memcpy(sink->rows + (size_t)position * sink->n_vocab, logits, sink->n_vocab * sizeof(float));
}

/* Logits of every position of the tokens, [n][n_vocab]; the caller frees them. */
static inline float *run_score(run_model *run, const uint32_t *tokens, size_t n)
{
    run_logits_sink sink = {.rows = malloc(n * run->n_vocab * sizeof(float)), .n_vocab = run->n_vocab};
    sl_request request = {.prompt = tokens,
                          .n_prompt = n,
                          .sampling = sl_sample_params_default(),
                          .on_logits = run_keep_logits,
                          .user = &sink};
    sl_err err;
    run_require(sl_engine_submit(run->engine, &request, NULL, &err), &err);
    run_until_idle(run);
    if (sink.next != n)
        abort();
    return sink.rows;
}

/* Of logits: what to take off each for log-probabilities. */
static inline double run_log_sum(const float *row, uint32_t n)
{
    double m = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        m = fmax(m, (double)row[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)row[i] - m);
    return m + log(sum);
}

/* Largest difference of two rows' log-probabilities. */
static inline double run_difference(const float *a, const float *b, uint32_t n)
{
    double za = run_log_sum(a, n), zb = run_log_sum(b, n), worst = 0;
    for (uint32_t i = 0; i < n; i++)
        worst = fmax(worst, fabs(((double)a[i] - za) - ((double)b[i] - zb)));
    return worst;
}

#endif
