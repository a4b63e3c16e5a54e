#include "tune/replay.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    NAP_US = 20000, /* longest sleep before options->stop is asked again */
};

/* A request that will arrive. */
typedef struct due {
    int64_t us;
    uint32_t request;
} due;

typedef struct flight flight;

typedef struct player {
    const sl_replay_options *options;
    sl_replay *replay;
    flight *flights; /* one a request: what the engine's events point to */
    due *heap;       /* earliest first */
    size_t n_heap;
    uint32_t *next_turn; /* 1 + index of the request that follows; 0 = none */
    size_t n_in_engine;
    int64_t start_us;
    uint64_t n_steps;      /* of the engine, so far */
    uint32_t *prompt;      /* scratch, room for the longest */
    uint32_t step_tokens;  /* generated in the present step */
    uint32_t n_generating; /* requests with a token that have not ended, and the tokens whose KV they have */
    uint64_t n_positions;
} player;

struct flight {
    player *player;
    uint64_t id; /* the engine's, while it has the request; else 0 */
    uint32_t request;
};

/* ---- the heap ---- */

static bool is_before(due a, due b)
{
    return a.us != b.us ? a.us < b.us : a.request < b.request;
}

static void heap_push(player *p, due item)
{
    size_t at = p->n_heap++;
    while (at > 0 && is_before(item, p->heap[(at - 1) / 2])) {
        p->heap[at] = p->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    p->heap[at] = item;
}

static due heap_pop(player *p)
{
    due top = p->heap[0], item = p->heap[--p->n_heap];
    size_t at = 0;
    for (size_t child = 1; child < p->n_heap; child = 2 * at + 1) {
        if (child + 1 < p->n_heap && is_before(p->heap[child + 1], p->heap[child]))
            child++;
        if (!is_before(p->heap[child], item))
            break;
        p->heap[at] = p->heap[child];
        at = child;
    }
    p->heap[at] = item;
    return top;
}

/* ---- events ---- */

static int64_t now(const player *p)
{
    return sl_clock_us() - p->start_us;
}

/* The request is over: its next turn is due after the time to think, or can never come. */
static void end_request(player *p, uint32_t request)
{
    sl_replay *replay = p->replay;
    int64_t end_us = now(p);
    replay->end_us = SL_MAX(replay->end_us, end_us);
    for (uint32_t next = p->next_turn[request]; next; next = p->next_turn[next - 1]) {
        sl_replay_record *record = &replay->records[next - 1];
        if (!replay->records[request].failed) {
            record->arrival_us = end_us + p->options->trace->requests[next - 1].arrival_us;
            heap_push(p, (due){record->arrival_us, next - 1});
            return;
        }
        record->failed = true;
        record->error = replay->records[request].error;
    }
}

static void on_event(void *user, const sl_event *event)
{
    flight *f = user;
    player *p = f->player;
    sl_replay_record *record = &p->replay->records[f->request];
    uint32_t wanted = p->options->trace->requests[f->request].n_output;
    if (event->kind == SL_EVENT_TOKEN) {
        if (record->n_generated == wanted) { /* padding */
            p->n_positions++;
            return;
        }
        size_t at = record->first + record->n_generated++;
        p->replay->tokens[at] = event->sampled.token;
        p->replay->times_us[at] = record->last_us = now(p);
        if (record->n_generated == 1)
            record->first_us = record->last_us;
        p->n_generating += record->n_generated == 1;
        p->n_positions += record->n_generated == 1 ? record->n_prompt : 1; /* the new token's KV comes with the next */
        p->step_tokens++;
        return;
    }
    p->n_in_engine--;
    f->id = 0;
    if (record->n_generated > 0) {
        p->n_generating--;
        p->n_positions -= record->n_prompt + event->n_generated - 1;
    }
    record->n_cached = event->n_cached;
    record->failed = event->finish != SL_FINISH_LENGTH || record->n_generated < wanted;
    if (event->finish == SL_FINISH_ERROR)
        record->error = event->error;
    else if (record->failed)
        sl_err_set(&record->error, SL_ERR_LIMIT, "ended (%s) after %u of %u tokens", sl_finish_name(event->finish),
                   record->n_generated, wanted);
    end_request(p, f->request);
}

/* ---- from the trace to the engine ---- */

static void write_prompt(player *p, uint32_t request)
{
    const sl_trace *trace = p->options->trace;
    const sl_trace_request *r = &trace->requests[request];
    for (;;) {
        for (uint32_t at = sl_trace_n_history(trace, request); at < r->n_prompt; at++)
            p->prompt[at] = sl_trace_token(trace, request, at, p->options->n_vocab);
        if (!r->follows)
            return;
        /* Back through the conversation: in front of a turn's own tokens stands the output of the one before. */
        request = r->follows - 1;
        r = &trace->requests[request];
        const uint32_t *output = p->replay->tokens + p->replay->records[request].first;
        memcpy(p->prompt + r->n_prompt, output, r->n_output * sizeof *p->prompt);
    }
}

static void submit(player *p, uint32_t request)
{
    const sl_trace_request *r = &p->options->trace->requests[request];
    sl_replay_record *record = &p->replay->records[request];
    write_prompt(p, request);
    sl_request wanted = {
        .prompt = p->prompt,
        .n_prompt = r->n_prompt,
        .max_tokens = r->n_output + r->n_padding,
        .tenant = r->tenant,
        .tenant_weight = r->tenant_weight,
        .priority = r->priority,
        .ttft_target_us = p->options->hide_targets ? 0 : record->ttft_target_us,
        .itl_target_us = p->options->hide_targets ? 0 : record->itl_target_us,
        .sampling = sl_sample_params_default(),
        .on_event = on_event,
        .user = &p->flights[request],
    };
    if (sl_engine_submit(p->options->engine, &wanted, &p->flights[request].id, &record->error) == SL_OK) {
        p->n_in_engine++;
        return;
    }
    p->flights[request].id = 0;
    record->failed = true;
    end_request(p, request);
}

/* Gives the engine what has arrived by now. */
static void take_arrivals(player *p)
{
    int64_t now_us = now(p);
    while (p->n_heap > 0 && p->heap[0].us <= now_us)
        submit(p, heap_pop(p).request);
}

/* Sleeps until the next arrival, at most for most_us. */
static void nap(const player *p, int64_t most_us)
{
    int64_t until = now(p) + most_us;
    if (p->n_heap > 0)
        until = SL_MIN(until, p->heap[0].us);
    int64_t us = until - now(p);
    if (us <= 0)
        return;
    struct timespec time = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

/* Notes how the engine stands; false when it computed nothing. */
static bool look_at_engine(player *p, sl_replay_sample *sample)
{
    sl_engine_statistics now_is;
    sl_engine_stats(p->options->engine, &now_is);
    bool stepped = now_is.n_steps != p->n_steps;
    p->n_steps = now_is.n_steps;
    sample->predicted_us = now_is.last_predicted_us;
    sample->measured_us = now_is.last_measured_us;
    p->replay->most_blocks_used = SL_MAX(p->replay->most_blocks_used, now_is.n_blocks_used);
    if (now_is.n_running != p->n_generating || now_is.n_running == 0)
        return stepped;
    sample->n_running = now_is.n_running;
    sample->n_positions = p->n_positions;
    const uint32_t n_groups = SL_MAX(p->options->n_kv_groups, 1);
    sample->n_slots = (uint64_t)now_is.n_blocks_used * SL_KV_BLOCK / n_groups;
    sample->n_unused = now_is.n_slots_unused / n_groups;
    return stepped;
}

static sl_status step(player *p, sl_err *err)
{
    sl_replay *replay = p->replay;
    bool busy;
    if (replay->n_samples == replay->sample_capacity) {
        size_t capacity = replay->sample_capacity ? 2 * replay->sample_capacity : 1024;
        sl_replay_sample *grown = realloc(replay->samples, capacity * sizeof *grown);
        if (!grown)
            SL_FAIL(err, SL_ERR_NOMEM, "no memory for a replay's steps");
        replay->samples = grown;
        replay->sample_capacity = capacity;
    }
    sl_replay_sample sample = {.start_us = now(p), .n_in_flight = (uint32_t)p->n_in_engine};
    p->step_tokens = 0;
    SL_TRY(sl_engine_step(p->options->engine, sl_clock_us(), &busy, err));
    sample.end_us = now(p);
    sample.n_tokens = p->step_tokens;
    if (look_at_engine(p, &sample))
        replay->samples[replay->n_samples++] = sample;
    int64_t idle_until_us = sl_engine_idle_until(p->options->engine);
    if (idle_until_us > 0) /* a batch is still being collected */
        nap(p, SL_MIN(idle_until_us - sl_clock_us(), (int64_t)NAP_US));
    return SL_OK;
}

static sl_status play(player *p, sl_err *err)
{
    const sl_replay_options *o = p->options;
    while (p->n_heap > 0 || p->n_in_engine > 0) {
        if (o->stop && o->stop(o->user))
            SL_FAIL(err, SL_ERR_CANCELLED, "interrupted");
        take_arrivals(p);
        if (p->n_in_engine > 0)
            SL_TRY(step(p, err));
        else
            nap(p, NAP_US);
    }
    return SL_OK;
}

/* ---- begin and end ---- */

static sl_status allocate(player *p, sl_err *err)
{
    const sl_trace *trace = p->options->trace;
    sl_replay *replay = p->replay;
    size_t n = trace->n_requests, longest = 1;
    for (size_t i = 0; i < n; i++) {
        replay->n_tokens += trace->requests[i].n_output;
        longest = SL_MAX(longest, (size_t)trace->requests[i].n_prompt);
    }
    replay->records = calloc(n, sizeof *replay->records);
    replay->tokens = calloc(replay->n_tokens, sizeof *replay->tokens);
    replay->times_us = calloc(replay->n_tokens, sizeof *replay->times_us);
    p->flights = calloc(n, sizeof *p->flights);
    p->heap = calloc(n, sizeof *p->heap);
    p->next_turn = calloc(n, sizeof *p->next_turn);
    p->prompt = calloc(longest, sizeof *p->prompt);
    if (!replay->records || !replay->tokens || !replay->times_us || !p->flights || !p->heap || !p->next_turn ||
        !p->prompt)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory to replay %zu requests with %zu tokens", n, replay->n_tokens);
    replay->n_records = n;
    return SL_OK;
}

static void prepare(player *p)
{
    const sl_trace *trace = p->options->trace;
    size_t n_tokens = 0;
    for (uint32_t i = 0; i < trace->n_requests; i++) {
        const sl_trace_request *r = &trace->requests[i];
        p->flights[i] = (flight){.player = p, .request = i};
        p->replay->records[i] = (sl_replay_record){
            .arrival_us = r->arrival_us,
            .n_prompt = r->n_prompt,
            .tenant = r->tenant,
            .ttft_target_us = r->ttft_target_us > 0 ? r->ttft_target_us : p->options->ttft_target_us,
            .itl_target_us = r->itl_target_us > 0 ? r->itl_target_us : p->options->itl_target_us,
            .first = n_tokens,
        };
        n_tokens += r->n_output;
        if (r->follows)
            p->next_turn[r->follows - 1] = i + 1;
        else
            heap_push(p, (due){r->arrival_us, i});
    }
}

/* Leaves the engine idle after a replay that ended early: its events point to what is freed now. */
static void drain(player *p)
{
    sl_err ignored;
    bool busy = true;
    for (size_t i = 0; p->n_in_engine > 0 && i < p->replay->n_records; i++)
        if (p->flights[i].id)
            sl_engine_cancel(p->options->engine, p->flights[i].id);
    while (busy && p->n_in_engine > 0 && sl_engine_step(p->options->engine, sl_clock_us(), &busy, &ignored) == SL_OK)
        ;
}

sl_status sl_replay_run(const sl_replay_options *options, sl_replay *out, sl_err *err)
{
    *out = (sl_replay){0};
    player p = {.options = options, .replay = out};
    sl_status status = allocate(&p, err);
    if (status == SL_OK) {
        sl_engine_statistics before, after;
        sl_engine_stats(options->engine, &before);
        prepare(&p);
        p.n_steps = before.n_steps;
        p.start_us = sl_clock_us();
        status = play(&p, err);
        drain(&p);
        sl_engine_stats(options->engine, &after);
        out->n_preemptions = after.n_preemptions - before.n_preemptions;
        out->prefix_queries = after.prefix_queries - before.prefix_queries;
        out->prefix_hits = after.prefix_hits - before.prefix_hits;
        out->n_blocks = after.n_blocks;
    }
    free(p.flights);
    free(p.heap);
    free(p.next_turn);
    free(p.prompt);
    return status;
}

void sl_replay_free(sl_replay *replay)
{
    free(replay->records);
    free(replay->tokens);
    free(replay->times_us);
    free(replay->samples);
    *replay = (sl_replay){0};
}
