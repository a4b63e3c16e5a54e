/* What is measured: one run of a scene. */
#include "cli/interrupt.h"
#include "cli/techniques.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

enum {
    STREAM_PROMPT = 16,
    STREAM_AHEAD = 8, /* tokens that each stream has before the long prompt comes */
};

/* A request whose tokens are counted and timed. */
typedef struct take {
    uint32_t *tokens; /* NULL: not kept */
    uint32_t n;
    int64_t first_us, last_us, longest_gap_us;
    bool ended;
    sl_err error;
} take;

static void on_event(void *user, const sl_event *event)
{
    take *k = user;
    int64_t now_us = sl_clock_us();
    if (event->kind == SL_EVENT_FINISHED) {
        k->ended = true;
        if (event->finish == SL_FINISH_ERROR)
            k->error = event->error;
        return;
    }
    if (k->n == 0)
        k->first_us = now_us;
    else
        k->longest_gap_us = SL_MAX(k->longest_gap_us, now_us - k->last_us);
    k->last_us = now_us;
    if (k->tokens != NULL)
        k->tokens[k->n] = event->sampled.token;
    k->n++;
}

static sl_status step(sl_engine *engine, sl_err *err)
{
    bool busy;
    if (sl_interrupts() > 0)
        SL_FAIL(err, SL_ERR_CANCELLED, "interrupted");
    return sl_engine_step(engine, sl_clock_us(), &busy, err);
}

static sl_status submit(sl_engine *engine, const uint32_t *prompt, uint32_t n_prompt, uint32_t n_output, take *k,
                        uint64_t *id, sl_err *err)
{
    sl_request request = {.prompt = prompt,
                          .n_prompt = n_prompt,
                          .max_tokens = n_output,
                          .sampling = sl_sample_params_default(),
                          .on_event = on_event,
                          .user = k};
    return sl_engine_submit(engine, &request, id, err);
}

static sl_status run_to_end(sl_engine *engine, const take *k, sl_err *err)
{
    while (!k->ended)
        SL_TRY(step(engine, err));
    if (k->error.code != SL_OK)
        SL_FAIL(err, k->error.code, "%s", k->error.message);
    return SL_OK;
}

/* Random tokens: those of a trace with one request. */
static void write_prompt(const sl_techniques *t, uint32_t *out, uint32_t n, uint32_t stream)
{
    sl_trace_request request = {.n_prompt = n, .n_output = 1, .n_prefix = n, .prefix_group = stream};
    sl_trace trace = {.seed = t->seed, .requests = &request, .n_requests = 1};
    for (uint32_t i = 0; i < n; i++)
        out[i] = sl_trace_token(&trace, 0, i, t->n_vocab);
}

static sl_status keep_tokens(sl_setup *setup, size_t n, sl_err *err)
{
    free(setup->tokens);
    setup->n_tokens = n;
    setup->tokens = calloc(n + 1, sizeof(*setup->tokens));
    if (setup->tokens == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    return SL_OK;
}

/* Prompt and output as one request; *decode_us is the time from the first token on. */
static sl_status run_request(const sl_technique *row, sl_setup *setup, const uint32_t *prompt, int64_t *all_us,
                             int64_t *prefill_us, sl_err *err)
{
    take k = {.tokens = setup->tokens};
    int64_t start_us = sl_clock_us();
    SL_TRY(submit(setup->engine, prompt, row->n_prompt, row->n_output, &k, NULL, err));
    SL_TRY(run_to_end(setup->engine, &k, err));
    *all_us = k.last_us - start_us;
    *prefill_us = k.first_us - start_us;
    return SL_OK;
}

/* The same tokens without a KV cache: for each the whole sequence is a new request. */
static sl_status run_recomputed(const sl_technique *row, sl_setup *setup, uint32_t *sequence, int64_t *all_us,
                                sl_err *err)
{
    int64_t start_us = sl_clock_us();
    for (uint32_t i = 0; i < row->n_output; i++) {
        take k = {.tokens = setup->tokens + i};
        SL_TRY(submit(setup->engine, sequence, row->n_prompt + i, 1, &k, NULL, err));
        SL_TRY(run_to_end(setup->engine, &k, err));
        sequence[row->n_prompt + i] = setup->tokens[i];
    }
    *all_us = sl_clock_us() - start_us;
    return SL_OK;
}

static double per_second(double n, int64_t us)
{
    return n * 1e6 / (double)SL_MAX(us, 1);
}

static sl_status run_one(const sl_techniques *t, const sl_technique *row, sl_setup *setup, double *value, sl_err *err)
{
    int64_t all_us = 0, prefill_us = 0;
    uint32_t *sequence = calloc((size_t)row->n_prompt + row->n_output, sizeof(*sequence));
    if (sequence == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    write_prompt(t, sequence, row->n_prompt, 1);
    sl_status status = keep_tokens(setup, row->n_output, err);
    if (status == SL_OK && setup->side->recompute)
        status = run_recomputed(row, setup, sequence, &all_us, err);
    else if (status == SL_OK)
        status = run_request(row, setup, sequence, &all_us, &prefill_us, err);
    free(sequence);
    if (row->scene == SL_SCENE_PREFILL)
        *value = per_second(row->n_prompt, prefill_us);
    else if (row->scene == SL_SCENE_DECODE)
        *value = per_second(row->n_output - 1, all_us - prefill_us);
    else
        *value = per_second(row->n_output, all_us);
    return status;
}

/* ---- a long prompt among streams ---- */

typedef struct crowd {
    take *streams; /* n of them, then the long prompt's */
    uint64_t *ids;
    uint32_t n;
    uint32_t *prompt;
} crowd;

static bool all_ahead(const crowd *c)
{
    for (uint32_t i = 0; i < c->n; i++)
        if (c->streams[i].n < STREAM_AHEAD)
            return false;
    return true;
}

/* *gap_us: the streams' longest from the prompt's arrival on, until all have a token behind the prompt's first. */
static sl_status run_crowd(const sl_techniques *t, const sl_technique *row, sl_setup *setup, crowd *c, int64_t *gap_us,
                           int64_t *ttft_us, sl_err *err)
{
    take *prompt = &c->streams[c->n];
    uint32_t room = row->n_prompt + row->n_output - STREAM_PROMPT;
    for (uint32_t i = 0; i < c->n; i++) {
        write_prompt(t, c->prompt, STREAM_PROMPT, i + 2);
        SL_TRY(submit(setup->engine, c->prompt, STREAM_PROMPT, room, &c->streams[i], &c->ids[i], err));
    }
    while (!all_ahead(c))
        SL_TRY(step(setup->engine, err));
    for (uint32_t i = 0; i < c->n; i++)
        c->streams[i].longest_gap_us = 0;
    write_prompt(t, c->prompt, row->n_prompt, 1);
    int64_t start_us = sl_clock_us();
    prompt->tokens = setup->tokens;
    SL_TRY(submit(setup->engine, c->prompt, row->n_prompt, row->n_output, prompt, &c->ids[c->n], err));
    while (prompt->n < 2)
        SL_TRY(step(setup->engine, err));
    *ttft_us = prompt->first_us - start_us;
    for (uint32_t i = 0; i < c->n; i++)
        *gap_us = SL_MAX(*gap_us, c->streams[i].longest_gap_us);
    return run_to_end(setup->engine, prompt, err);
}

/* Ends all requests, whatever happened, before what their events point to goes. */
static void end_crowd(sl_setup *setup, crowd *c)
{
    sl_err ignored;
    bool busy = true;
    for (uint32_t i = 0; c->ids != NULL && i <= c->n; i++)
        if (c->ids[i] != 0)
            sl_engine_cancel(setup->engine, c->ids[i]);
    while (busy && sl_engine_step(setup->engine, sl_clock_us(), &busy, &ignored) == SL_OK)
        ;
    free(c->streams);
    free(c->ids);
    free(c->prompt);
}

static sl_status run_among_streams(const sl_techniques *t, const sl_technique *row, sl_setup *setup, double *value,
                                   sl_err *err)
{
    int64_t gap_us = 0, ttft_us = 0;
    crowd c = {.n = setup->side->n_sequences - 1};
    c.streams = calloc(c.n + 1, sizeof(*c.streams));
    c.ids = calloc(c.n + 1, sizeof(*c.ids));
    c.prompt = calloc((size_t)row->n_prompt + STREAM_PROMPT, sizeof(*c.prompt));
    sl_status status = keep_tokens(setup, row->n_output, err);
    if (status == SL_OK && (c.streams == NULL || c.ids == NULL || c.prompt == NULL))
        status = sl_err_set(err, SL_ERR_NOMEM, "out of memory");
    if (status == SL_OK)
        status = run_crowd(t, row, setup, &c, &gap_us, &ttft_us, err);
    end_crowd(setup, &c);
    *value = (double)(row->scene == SL_SCENE_STALL ? gap_us : ttft_us) / 1e3;
    return status;
}

/* ---- traces ---- */

static bool interrupted(void *user)
{
    (void)user;
    return sl_interrupts() > 0;
}

static sl_status replay(sl_techniques *t, const sl_technique *row, sl_setup *setup, const sl_trace *trace,
                        double *value, sl_err *err)
{
    sl_replay played;
    sl_replay_report report;
    sl_replay_options options = {.trace = trace, .engine = setup->engine, .n_vocab = t->n_vocab, .stop = interrupted};
    sl_status status = sl_replay_run(&options, &played, err);
    if (status == SL_OK)
        status = sl_replay_summarise(&played, &report, err);
    if (status == SL_OK && report.all.n_failed > 0)
        status = sl_err_set(err, SL_ERR_INTERNAL, "%zu of the trace's requests failed", report.all.n_failed);
    if (status == SL_OK)
        status = keep_tokens(setup, played.n_tokens, err);
    if (status == SL_OK) {
        memcpy(setup->tokens, played.tokens, played.n_tokens * sizeof(*played.tokens));
        bool by_ttft = row->scene == SL_SCENE_TTFT;
        *value = by_ttft ? report.all.ttft_ms.p50 : (double)report.n_generated_tokens / report.seconds;
        if (!by_ttft && setup->side->batching == SL_BATCHING_STATIC)
            t->static_rate = (double)report.all.n_requests / report.seconds;
    }
    sl_replay_free(&played);
    return status;
}

static sl_status run_trace(sl_techniques *t, const sl_technique *row, sl_setup *setup, double *value, sl_err *err)
{
    sl_trace *trace;
    sl_trace_options options = {.seed = t->seed, .n_requests = row->n_requests};
    options.max_tokens = row->trace_context;
    if (row->scene == SL_SCENE_TTFT) /* the row that measures it may have been left out */
        options.rate = t->static_rate > 0 ? t->static_rate / 2 : 1;
    SL_TRY(sl_trace_make(row->trace, &options, &trace, err));
    sl_status status = replay(t, row, setup, trace, value, err);
    sl_trace_close(trace);
    return status;
}

sl_status sl_scene_run(sl_techniques *t, const sl_technique *row, sl_setup *setup, double *value, sl_err *err)
{
    switch (row->scene) {
    case SL_SCENE_TRACE:
    case SL_SCENE_TTFT:
        return run_trace(t, row, setup, value, err);
    case SL_SCENE_STALL:
    case SL_SCENE_LONG_TTFT:
        return run_among_streams(t, row, setup, value, err);
    default:
        return run_one(t, row, setup, value, err);
    }
}
