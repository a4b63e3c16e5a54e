#include "workload.h"

#include "fake_backend.h"
#include "invariants.h"
#include "sample/philox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_BASES = 3, MAX_CONTEXT = 160, MAX_CHOICES = 4, NO_STOP = UINT32_MAX };

typedef struct choice {
    sl_sampler *sampler; /* the oracle's own */
    uint64_t chain;      /* of the prompt and what was generated */
    uint32_t n_generated;
    bool finished;
} choice;

typedef struct client {
    workload *world;
    uint64_t id;
    uint32_t index, n_prompt, max_tokens, n_choices, stop_token, next_scored;
    uint32_t prompt[MAX_CONTEXT];
    uint64_t tenant;
    choice choices[MAX_CHOICES];
    uint32_t n_finished;
    bool submitted, refused, cancelled;
    int64_t cancel_us; /* 0 = never */
} client;

struct workload {
    uint64_t random, trace;
    uint64_t parts; /* a second generator, for what the parts of the plan have */
    sl_plan plan;
    sl_step steps[24]; /* of the plan: as many parts */
    int layer_group[24];
    sl_engine *engine;
    client *clients;
    uint32_t n_clients, n_submitted, n_over, n_refused;
    uint32_t bases[N_BASES][MAX_CONTEXT];
    uint32_t context, most_answer, burst;
    uint32_t kinds; /* of promises */
    uint64_t n_steps, n_tokens;
    uint32_t n_idle;                /* steps without rows, in a row */
    uint32_t pinned_base, n_pinned; /* tokens of a base that are pinned for tenant 0 */
};

static uint32_t draw_from(uint64_t *random, uint32_t below)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX generator */
    return below ? (uint32_t)((*random >> 33) % below) : 0;
}

static uint32_t draw(workload *w, uint32_t below)
{
    return draw_from(&w->random, below);
}

static void trace(workload *w, uint64_t value)
{
    w->trace = (w->trace ^ value) * UINT64_C(0x100000001b3); /* FNV-1a, by words */
}

static void require(sl_status status, const sl_err *err)
{
    if (status != SL_OK)
        violation("%s: %s", sl_status_name(status), err->message);
}

/* ---- the world ---- */

static void make_plan(workload *w)
{
    /* 0: all layers full. 1: full and windowed ones. 2: windowed only. 3: two windows, the first one small. */
    uint32_t kind = draw(w, 4), window = 2 + draw(w, 60), n = 0;
    if (kind <= 1)
        w->plan.groups[n++] = (sl_kv_group){.n_layers = 1, .block_bytes = 1024};
    if (kind >= 1)
        w->plan.groups[n++] = (sl_kv_group){.window = window, .n_layers = 1, .block_bytes = 1024};
    if (kind == 3)
        w->plan.groups[n++] = (sl_kv_group){.window = window + 1 + draw(w, 40), .n_layers = 2, .block_bytes = 2048};
    w->plan.n_groups = (int)n;
    w->plan.steps = w->steps;
    w->plan.n_steps = 1 + (int)draw(w, SL_COUNTOF(w->steps));
    for (int i = 0; i < w->plan.n_steps; i++) {
        w->steps[i].kind = SL_STEP_ATTENTION;
        w->layer_group[i] = (int)draw_from(&w->parts, n);
    }
    w->plan.layer_group = w->layer_group;
}

static void open_engine(workload *w)
{
    sl_engine_options options = {.context = w->context,
                                 .n_sequences = 1 + draw(w, 10),
                                 .chunk = 1 + draw(w, draw(w, 2) ? 24 : 120),
                                 .shuffle_seed = draw(w, 1000),
                                 .no_prefix_cache = draw(w, 8) == 0,
                                 .clock = fake_clock,
                                 .batching = draw(w, 4) ? SL_BATCHING_CONTINUOUS : draw(w, 3),
                                 .max_wait_us = draw(w, 5000),
                                 .ageing_us = draw(w, 2) ? 0 : 1 + draw(w, 100000)};
    options.logit_rows = options.n_sequences + draw(w, 4);
    /* From what hardly holds one sequence to plenty. */
    uint64_t one = 0, n_sequences = draw(w, 3) ? draw(w, 4) : options.n_sequences;
    for (int g = 0; g < w->plan.n_groups; g++)
        one += w->plan.groups[g].block_bytes * (w->context / SL_KV_BLOCK + 1);
    options.kv_bytes = one / 2 + one * n_sequences * (50 + draw(w, 60)) / 100;
    sl_engine_model model = {
        .plan = &w->plan, .backend = fake_backend(), .n_vocab = FAKE_VOCAB, .context_length = MAX_CONTEXT};
    sl_err err;
    require(sl_engine_open(&model, &options, NULL, &w->engine, &err), &err);
    /* The plan has no matmuls to tell from: up to half of a layer's stand before its attention, and the last may have none. */
    sl_cost *cost = &w->engine->tasks.cost;
    if (cost->n_parts > 1 && draw_from(&w->parts, 2)) {
        const double before = draw_from(&w->parts, 50) / 100.0, all = cost->n_parts - 1 + before;
        cost->first_part = (1 + before) / all;
        cost->last_part = 0;
    }
}

workload *workload_open(uint64_t seed, uint32_t n_requests)
{
    workload *w = calloc(1, sizeof *w);
    fake_now_us = 1000;
    w->random = seed * UINT64_C(0x9e3779b97f4a7c15);
    w->parts = ~w->random;
    w->trace = UINT64_C(0xcbf29ce484222325);
    w->n_clients = n_requests;
    w->clients = calloc(n_requests, sizeof *w->clients);
    w->context = 48 + draw(w, MAX_CONTEXT - 48 + 1);
    w->most_answer = draw(w, 3) ? 24 : 110;
    w->burst = 1 + draw(w, 16);
    w->kinds = draw(w, 2) ? draw(w, 16) : 0;
    for (int b = 0; b < N_BASES; b++)
        for (uint32_t i = 0; i < MAX_CONTEXT; i++)
            w->bases[b][i] = draw(w, FAKE_VOCAB);
    make_plan(w);
    open_engine(w);
    return w;
}

sl_engine *workload_engine(workload *w)
{
    return w->engine;
}

uint32_t workload_refused(const workload *w)
{
    return w->n_refused;
}

/* ---- the oracle ---- */

static void on_logits(void *user, uint32_t position, const float *logits)
{
    client *c = user;
    float expected[FAKE_VOCAB];
    uint64_t chain = 0;
    if (position != c->next_scored++)
        violation("request %u: position %u scored, not %u", c->index, position, c->next_scored - 1);
    for (uint32_t i = 0; i <= position; i++)
        chain = fake_chain(chain, i, c->prompt[i]);
    fake_logits(chain, FAKE_VOCAB, expected);
    if (memcmp(expected, logits, sizeof expected) != 0)
        violation("request %u: other logits at position %u", c->index, position);
}

/* The token that comes next, by the oracle's own sampler. */
static uint32_t expect_token(const client *c, const choice *x)
{
    float logits[FAKE_VOCAB];
    sl_sampled sampled;
    sl_sample_scratch *scratch;
    sl_err err;
    fake_logits(x->chain, FAKE_VOCAB, logits);
    require(sl_sample_scratch_open(FAKE_VOCAB, &scratch, &err), &err);
    require(sl_sampler_sample(x->sampler, scratch, logits, c->n_prompt + x->n_generated, &sampled, &err), &err);
    sl_sample_scratch_close(scratch);
    return sampled.token;
}

static void on_token(client *c, choice *x, const sl_event *event)
{
    uint32_t token = expect_token(c, x);
    if (event->sampled.token != token || event->n_generated != x->n_generated + 1)
        violation("request %u, choice %u: token %u is %u, alone it is %u", c->index, event->choice, x->n_generated,
                  event->sampled.token, token);
    if (token == c->stop_token)
        violation("request %u: a stop token came out", c->index);
    x->chain = fake_chain(x->chain, c->n_prompt + x->n_generated++, token);
    c->world->n_tokens++;
}

static void on_finished(client *c, choice *x, const sl_event *event)
{
    x->finished = true;
    c->n_finished++;
    if (event->n_generated != x->n_generated || event->n_cached >= c->n_prompt)
        violation("request %u: %u tokens instead of %u, %u cached of %u", c->index, event->n_generated, x->n_generated,
                  event->n_cached, c->n_prompt);
    if (event->finish == SL_FINISH_ERROR)
        violation("request %u: %s", c->index, event->error.message);
    if (event->finish == SL_FINISH_CANCELLED && !c->cancelled)
        violation("request %u: cancelled by nobody", c->index);
    if (event->finish == SL_FINISH_LENGTH && x->n_generated != c->max_tokens)
        violation("request %u: %u tokens instead of %u", c->index, x->n_generated, c->max_tokens);
    if (event->finish == SL_FINISH_STOP && expect_token(c, x) != c->stop_token)
        violation("request %u: stopped at another token", c->index);
    if (event->finish == SL_FINISH_LENGTH && c->next_scored != UINT32_MAX && c->next_scored < c->n_prompt)
        violation("request %u: positions from %u on were not scored", c->index, c->next_scored);
    c->world->n_over += c->n_finished == c->n_choices;
}

static void submit(workload *w);

static void cancel(client *c)
{
    c->cancel_us = 0;
    c->cancelled = true;
    sl_engine_cancel(c->world->engine, c->id);
}

/* What a callback may do: submit and cancel. */
static void call_back(client *c)
{
    workload *w = c->world;
    uint32_t what = draw(w, 100);
    client *other = &w->clients[draw(w, w->n_submitted)];
    if (what == 0 && w->n_submitted < w->n_clients)
        submit(w);
    else if (what == 1 && !other->refused)
        cancel(other);
}

static void on_event(void *user, const sl_event *event)
{
    client *c = user;
    if (event->request != c->id || event->choice >= c->n_choices || c->choices[event->choice].finished)
        violation("request %u: an event of request %llu, choice %u", c->index, (unsigned long long)event->request,
                  event->choice);
    trace(c->world, event->request << 32 | event->choice << 16 | event->kind << 8 | event->sampled.token);
    trace(c->world, (uint64_t)fake_now_us);
    if (event->kind == SL_EVENT_TOKEN)
        on_token(c, &c->choices[event->choice], event);
    else
        on_finished(c, &c->choices[event->choice], event);
    call_back(c);
}

/* ---- requests ---- */

/* A prompt that begins like others: part of a base, then a tail of its own. */
static void make_prompt(workload *w, client *c)
{
    const uint32_t *base = w->bases[draw(w, N_BASES)];
    c->n_prompt = 1 + draw(w, w->context - 1);
    uint32_t n_shared = draw(w, 4) ? draw(w, w->context) : 0;
    for (uint32_t i = 0; i < c->n_prompt; i++)
        c->prompt[i] = i < n_shared ? base[i] : draw(w, FAKE_VOCAB);
}

static void open_oracle(client *c, const sl_sample_params *sampling)
{
    sl_err err;
    uint64_t chain = 0;
    for (uint32_t i = 0; i < c->n_prompt; i++)
        chain = fake_chain(chain, i, c->prompt[i]);
    for (uint32_t k = 0; k < c->n_choices; k++) {
        sl_sample_params own = *sampling;
        own.seed = k == 0 ? own.seed : sl_philox_u64(own.seed, (UINT64_C(1) << 63) + k);
        c->choices[k].chain = chain;
        require(sl_sampler_open(&own, FAKE_VOCAB, &c->choices[k].sampler, &err), &err);
    }
}

/* What is refused must really not fit. */
static void check_refusal(workload *w, client *c)
{
    uint32_t n_positions = c->n_prompt + c->max_tokens - (c->max_tokens > 0);
    bool fits = c->n_choices <= w->engine->options.n_sequences;
    for (int g = 0; g < w->plan.n_groups; g++) {
        uint32_t pinned = w->engine->kv.tree.n_pinned[g];
        fits &= sl_kv_blocks_for(n_positions, w->plan.groups[g].window) <= w->engine->kv.pools[g].n_blocks - pinned;
    }
    if (fits)
        violation("request %u of %u and %u tokens was refused", c->index, c->n_prompt, c->max_tokens);
    c->refused = true;
    w->n_refused++;
    w->n_over++;
}

/* Some worlds know priorities, targets and weights. */
static void make_promises(workload *w, sl_request *r)
{
    if (w->kinds & 1)
        r->priority = (int32_t)draw(w, 3) - 1;
    if (w->kinds & 2 && draw(w, 2))
        r->ttft_target_us = 1 + draw(w, 200000);
    if (w->kinds & 4 && draw(w, 2))
        r->itl_target_us = 1 + draw(w, 5000);
    if (w->kinds & 8)
        r->tenant_weight = 0.5 + draw(w, 4);
}

static void submit(workload *w)
{
    client *c = &w->clients[w->n_submitted];
    c->world = w;
    c->index = w->n_submitted++;
    make_prompt(w, c);
    uint32_t room = w->context - c->n_prompt, kind = draw(w, 12);
    c->tenant = draw(w, 4) == 0;
    uint32_t wanted = 1 + draw(w, w->most_answer);
    c->max_tokens = kind < 2 ? 0 : SL_MIN(wanted, room);
    c->n_choices = c->max_tokens > 0 && draw(w, 5) == 0 ? 2 + draw(w, MAX_CHOICES - 1) : 1;
    c->stop_token = draw(w, 3) == 0 ? draw(w, FAKE_VOCAB) : NO_STOP;
    c->next_scored = UINT32_MAX;
    sl_request r = {.prompt = c->prompt,
                    .n_prompt = c->n_prompt,
                    .max_tokens = c->max_tokens,
                    .n_choices = c->n_choices,
                    .tenant = c->tenant,
                    .warm = kind == 0,
                    .stop_tokens = &c->stop_token,
                    .n_stop_tokens = c->stop_token != NO_STOP,
                    .sampling = sl_sample_params_default(),
                    .on_event = on_event,
                    .user = c};
    if (kind == 1 || kind == 2) {
        c->next_scored = r.score_from = draw(w, c->n_prompt);
        r.on_logits = on_logits;
    }
    make_promises(w, &r);
    r.sampling.temperature = draw(w, 3) ? 0.0f : 1.0f;
    r.sampling.seed = draw(w, 100);
    open_oracle(c, &r.sampling);
    c->cancel_us = draw(w, 8) == 0 ? fake_now_us + draw(w, 60000) + 1 : 0;
    sl_err err;
    sl_status status = sl_engine_submit(w->engine, &r, &c->id, &err);
    c->submitted = true;
    if (status == SL_ERR_LIMIT)
        check_refusal(w, c);
    else
        require(status, &err);
}

static void cancel_some(workload *w)
{
    for (uint32_t i = 0; i < w->n_submitted; i++) {
        client *c = &w->clients[i];
        if (c->cancel_us == 0 || c->cancel_us > fake_now_us || c->refused || c->n_finished == c->n_choices)
            continue;
        cancel(c);
    }
}

/* Pins part of a base, or takes the pin away. */
static void change_pin(workload *w)
{
    sl_err err;
    if (w->n_pinned > 0) {
        require(sl_engine_unpin_prefix(w->engine, 0, w->bases[w->pinned_base], w->n_pinned, &err), &err);
        w->n_pinned = 0;
        return;
    }
    w->pinned_base = draw(w, N_BASES);
    sl_status status =
        sl_engine_pin_prefix(w->engine, 0, w->bases[w->pinned_base], draw(w, w->context), &w->n_pinned, &err);
    if (status != SL_OK)
        w->n_pinned = 0;
    if (status != SL_OK && status != SL_ERR_NOT_FOUND && status != SL_ERR_LIMIT)
        require(status, &err);
}

/* A step that does nothing: only while a batch is being collected, at most for max_wait_us, or right after everybody in
 * it has lost its turn; never twice in a row otherwise. */
static void check_progress(workload *w, bool busy)
{
    const sl_engine_options *o = &w->engine->options;
    bool collects = o->batching == SL_BATCHING_DYNAMIC && !w->engine->running;
    if (!busy || w->engine->n_rows > 0) {
        w->n_idle = 0;
        return;
    }
    fake_now_us += 100;
    if (++w->n_idle > (collects ? o->max_wait_us / 100 + 2 : 1))
        violation("nothing was done in %u steps", w->n_idle);
}

bool workload_step(workload *w)
{
    if (w->n_over == w->n_clients)
        return false;
    while (w->n_submitted < w->n_clients && (draw(w, 4) == 0 || w->n_submitted == w->n_over))
        for (uint32_t i = draw(w, w->burst) + 1; i > 0 && w->n_submitted < w->n_clients; i--)
            submit(w);
    cancel_some(w);
    if (draw(w, 16) == 0)
        change_pin(w);
    bool busy;
    sl_err err;
    require(sl_engine_step(w->engine, fake_now_us, &busy, &err), &err);
    const fake_counts *counts = fake_backend_counts(w->engine->context);
    if (counts->n_wrong > 0)
        violation("%u wrong reads, the first: %s", counts->n_wrong, counts->first_wrong);
    check_progress(w, busy);
    if (busy != (w->n_over < w->n_submitted))
        violation("the engine is %s, %u of %u requests are over", busy ? "busy" : "idle", w->n_over, w->n_submitted);
    if (++w->n_steps > (uint64_t)w->n_clients * 4 * MAX_CONTEXT)
        violation("%u of %u requests are over after %llu steps", w->n_over, w->n_clients,
                  (unsigned long long)w->n_steps);
    return w->n_over < w->n_clients;
}

uint64_t workload_close(workload *w)
{
    sl_err err;
    if (w->n_pinned > 0)
        require(sl_engine_unpin_prefix(w->engine, 0, w->bases[w->pinned_base], w->n_pinned, &err), &err);
    check_idle(w->engine);
    sl_engine_statistics s;
    sl_engine_stats(w->engine, &s);
    if (s.generated_tokens != w->n_tokens || s.n_running || s.n_waiting || s.n_blocks_used)
        violation("statistics: %llu tokens generated of %llu, %u running, %u waiting, %u blocks used",
                  (unsigned long long)s.generated_tokens, (unsigned long long)w->n_tokens, s.n_running, s.n_waiting,
                  s.n_blocks_used);
    trace(w, s.n_preemptions);
    trace(w, s.cached_tokens);
    for (uint32_t i = 0; i < w->n_clients; i++)
        for (uint32_t k = 0; k < w->clients[i].n_choices; k++)
            sl_sampler_close(w->clients[i].choices[k].sampler);
    sl_engine_close(w->engine);
    uint64_t result = w->trace;
    free(w->clients);
    free(w);
    return result;
}
