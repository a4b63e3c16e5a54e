#include "engine/engine.h"

#include "base/checked.h"
#include "engine/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CHUNK = 512, DEFAULT_LOGIT_ROWS = 32, MAX_SEQUENCES = 4096, MAX_CHUNK = 1 << 16 };

const char *sl_finish_name(sl_finish finish)
{
    static const char *const names[SL_FINISH_COUNT] = {"stop", "length", "cancelled", "error"};
    return (unsigned)finish < SL_FINISH_COUNT ? names[finish] : "unknown";
}

sl_engine_model sl_engine_model_of(const sl_model *model)
{
    const sl_model_info *info = sl_model_get_info(model);
    return (sl_engine_model){.plan = sl_model_plan(model),
                             .backend = sl_backend_cpu(),
                             .n_vocab = info->n_vocab,
                             .context_length = info->context_length};
}

static int64_t real_clock(void *user)
{
    (void)user;
    return sl_clock_us();
}

/* Options with defaults filled in, and the sizes that follow from them. */
static sl_status settle(const sl_engine_model *model, const sl_engine_options *options, sl_engine_options *o,
                        sl_context_sizes *sizes, sl_err *err)
{
    *o = *options;
    if (o->context == 0)
        o->context = model->context_length;
    if (o->chunk == 0)
        o->chunk = DEFAULT_CHUNK;
    if (o->n_sequences == 0)
        o->n_sequences = 1;
    if (o->logit_rows == 0)
        o->logit_rows = DEFAULT_LOGIT_ROWS;
    if (!o->clock)
        o->clock = real_clock;
    if (o->context < 2 || o->context > UINT32_C(1) << 24 || o->chunk > MAX_CHUNK || o->n_sequences > MAX_SEQUENCES)
        SL_FAIL(err, SL_ERR_ARGUMENT,
                "a context of %u (2 to 16777216), a chunk of %u (1 to %d) or %u sequences (1 to %d) is out of range",
                o->context, o->chunk, MAX_CHUNK, o->n_sequences, MAX_SEQUENCES);
    /* Every running sequence needs a row in a step. */
    o->chunk = SL_MAX(SL_MIN(o->chunk, o->context), o->n_sequences);
    o->logit_rows = SL_MAX(o->logit_rows, o->n_sequences);
    *sizes = (sl_context_sizes){.max_rows = o->chunk, .max_wanted = o->logit_rows};
    SL_TRY(sl_keep_settle(&o->keep, err));
    SL_TRY(
        sl_kv_divide(model->plan, &o->keep, o->kv_bytes, o->n_sequences, o->context, o->chunk, sizes->n_blocks, err));
    if (options->context == 0)
        o->context = SL_MAX(sl_kv_longest(model->plan, &o->keep, sizes->n_blocks, o->context), 2);
    return SL_OK;
}

sl_status sl_engine_measure(const sl_engine_model *model, const sl_engine_options *options, int n_threads,
                            sl_engine_memory *out, sl_err *err)
{
    sl_engine_options o;
    sl_context_sizes sizes;
    SL_TRY(settle(model, options, &o, &sizes, err));
    *out = (sl_engine_memory){.context = o.context};
    model->backend->context_bytes(model->plan, &sizes, n_threads, &out->step_bytes, &out->scratch_bytes,
                                  &out->kv_bytes);
    for (int g = 0; g < SL_MAX_KV_GROUPS; g++)
        out->n_blocks += sizes.n_blocks[g];
    out->logits_bytes = (uint64_t)o.logit_rows * model->n_vocab * sizeof(float);
    out->scratch_bytes += sl_sample_team_bytes(n_threads, model->n_vocab);
    out->total_bytes = out->step_bytes + out->scratch_bytes + out->kv_bytes;
    return SL_OK;
}

sl_status sl_engine_choose_kv(const sl_engine_model *model, sl_engine_options *options, int n_threads,
                              uint64_t free_bytes, sl_kv_choice *out, sl_err *err)
{
    sl_engine_options whole = *options;
    sl_engine_memory memory;
    whole.kv_bytes = 0;
    SL_TRY(sl_engine_measure(model, &whole, n_threads, &memory, err));
    uint64_t others = memory.total_bytes - memory.kv_bytes, left = free_bytes - SL_MIN(free_bytes, others);
    *out = (sl_kv_choice){.given = options->kv_bytes > 0,
                          .kv_bytes = options->kv_bytes,
                          .needed_bytes = memory.kv_bytes,
                          .free_bytes = free_bytes,
                          .n_sequences = SL_MAX(options->n_sequences, 1),
                          .context = memory.context};
    if (!out->given)
        out->kv_bytes = SL_MIN(memory.kv_bytes, left / 4 * 3);
    if (out->kv_bytes == 0)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory is left for keys and values: %.1f MB are free, %.1f MB wanted besides",
                (double)free_bytes / 1e6, (double)others / 1e6);
    options->kv_bytes = out->kv_bytes;
    return SL_OK;
}

static sl_status open_batch(sl_engine *e, sl_err *err)
{
    e->rows = calloc(e->options.chunk, sizeof *e->rows);
    e->seqs = calloc(e->options.n_sequences, sizeof *e->seqs);
    e->members = calloc(e->options.n_sequences, sizeof *e->members);
    size_t n_draws = (size_t)e->options.logit_rows + e->options.n_sequences;
    e->draws = calloc(n_draws, sizeof *e->draws);
    e->drawers = calloc(n_draws, sizeof *e->drawers);
    if (!e->rows || !e->seqs || !e->members || !e->draws || !e->drawers)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for an engine's batch");
    return SL_OK;
}

sl_status sl_engine_open(const sl_engine_model *model, const sl_engine_options *options, sl_threads *pool,
                         sl_engine **out, sl_err *err)
{
    *out = NULL;
    sl_engine *e = calloc(1, sizeof *e);
    if (!e)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for an engine");
    e->model = *model;
    sl_context_sizes sizes;
    sl_status status = settle(model, options, &e->options, &sizes, err);
    if (status == SL_OK)
        status = model->backend->context_open(model->plan, &sizes, pool, &e->context, err);
    if (status == SL_OK)
        status = sl_kv_open(&e->kv, model->plan, model->backend, e->context, sizes.n_blocks, &e->options, err);
    if (status == SL_OK)
        status = open_batch(e, err);
    if (status == SL_OK)
        status = sl_tasks_open(&e->tasks, model->plan, &e->options, pool ? sl_threads_count(pool) : 1, err);
    if (status == SL_OK)
        status = sl_sample_team_open(pool, model->n_vocab, &e->team, err);
    if (status != SL_OK) {
        sl_engine_close(e);
        return status;
    }
    *out = e;
    return SL_OK;
}

static void close_queue(sl_sequence *head)
{
    while (head) {
        sl_sequence *next = head->next;
        sl_sequence_close(head);
        head = next;
    }
}

void sl_engine_close(sl_engine *e)
{
    if (!e)
        return;
    close_queue(e->waiting);
    close_queue(e->running);
    if (e->context)
        e->model.backend->context_close(e->context);
    sl_kv_close(&e->kv);
    sl_tasks_close(&e->tasks);
    free(e->rows);
    free(e->seqs);
    free(e->members);
    free(e->draws);
    free(e->drawers);
    sl_sample_team_close(e->team);
    free(e);
}

void sl_engine_set_profile(sl_engine *engine, const sl_profile *profile)
{
    engine->model.backend->set_profile(engine->context, profile);
}

uint32_t sl_engine_context(const sl_engine *engine)
{
    return engine->options.context;
}

/* ---- requests ---- */

static sl_status check_targets(const sl_request *r, sl_err *err)
{
    if (r->ttft_target_us < 0 || r->itl_target_us < 0)
        SL_FAIL(err, SL_ERR_ARGUMENT, "a target of less than no time");
    if (!(r->tenant_weight >= 0 && r->tenant_weight <= 1e6))
        SL_FAIL(err, SL_ERR_ARGUMENT, "a tenant's weight of %g: more than 0, at most 1000000", r->tenant_weight);
    return SL_OK;
}

static sl_status check_request(const sl_engine *e, const sl_request *r, sl_err *err)
{
    uint32_t n_vocab = e->model.n_vocab;
    SL_TRY(check_targets(r, err));
    if (r->n_prompt == 0)
        SL_FAIL(err, SL_ERR_ARGUMENT, "the prompt is empty");
    if (r->n_prompt > e->options.context || (r->max_tokens > 0 && r->n_prompt == e->options.context))
        SL_FAIL(err, SL_ERR_LIMIT, "the prompt has %zu tokens, but the context holds %u, answer included", r->n_prompt,
                e->options.context);
    for (size_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] >= n_vocab)
            SL_FAIL(err, SL_ERR_ARGUMENT, "token %u of the prompt is %u, but the vocabulary ends at %u", (unsigned)i,
                    r->prompt[i], n_vocab - 1);
    if (r->max_tokens == 0 && !r->on_logits && !r->prompt_logprobs && !r->warm && !r->pooling)
        SL_FAIL(err, SL_ERR_ARGUMENT, "a request for no tokens and no logits");
    if (r->pooling >= SL_POOLING_COUNT)
        SL_FAIL(err, SL_ERR_ARGUMENT, "there is no pooling number %d", (int)r->pooling);
    if (r->pooling && (r->max_tokens > 0 || r->on_logits || r->prompt_logprobs))
        SL_FAIL(err, SL_ERR_ARGUMENT, "an embedding and tokens or logits in one request");
    if (r->pooling && !e->model.backend->hidden)
        SL_FAIL(err, SL_ERR_UNSUPPORTED, "the backend %s makes no embeddings", e->model.backend->name);
    if (r->n_prompt_logprobs > SL_MAX_LOGPROBS)
        SL_FAIL(err, SL_ERR_ARGUMENT, "log-probabilities of %u tokens wanted at each of the prompt: at most %d",
                r->n_prompt_logprobs, SL_MAX_LOGPROBS);
    if (r->max_tokens == 0 && r->n_choices > 1)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%u choices of no tokens", r->n_choices);
    if (r->n_choices > e->options.n_sequences)
        SL_FAIL(err, SL_ERR_LIMIT, "%u choices, but at most %u sequences run at once", r->n_choices,
                e->options.n_sequences);
    return SL_OK;
}

/* The request's sequence with its siblings behind it. */
static sl_status open_choices(sl_engine *e, const sl_request *request, sl_sequence **out, sl_err *err)
{
    sl_sequence **link = out;
    sl_status status = SL_OK;
    *out = NULL;
    for (uint32_t i = 0; i < SL_MAX(request->n_choices, 1) && status == SL_OK; i++) {
        status = sl_sequence_open(request, i, e->options.token_bytes, e->model.n_vocab, e->options.context,
                                  e->model.plan->n_groups, link, err);
        if (status == SL_OK)
            status = sl_kv_prepare(&e->kv, *link, err);
        if (status == SL_OK)
            link = i == 0 ? &(*link)->siblings : &(*link)->next;
    }
    if (status == SL_OK && request->pooling) {
        const sl_graph *graph = &e->model.plan->graph;
        status = sl_pooled_open(request->pooling, request->normalise, (uint32_t)request->n_prompt,
                                graph->values[graph->hidden].width, &(*out)->pooled, err);
        (*out)->n_scored = sl_pooled_next((*out)->pooled);
    }
    if (status == SL_OK)
        status = sl_kv_check(&e->kv, sl_sequence_max_positions(*out), err);
    if (status != SL_OK) {
        sl_sequence_close(*out);
        return status;
    }
    return SL_OK;
}

/* All sequences that run or wait, the siblings of either among them. */
static uint32_t count_sequences(const sl_engine *e)
{
    const sl_sequence *queues[] = {e->running, e->waiting};
    uint32_t n = 0;
    for (size_t q = 0; q < SL_COUNTOF(queues); q++)
        for (const sl_sequence *s = queues[q]; s; s = s->next) {
            n++;
            for (const sl_sequence *sibling = s->siblings; sibling; sibling = sibling->next)
                n++;
        }
    return n;
}

/* Gives the sequence and its siblings their numbers and tells the scheduler of them. */
static sl_status enter(sl_engine *e, sl_sequence *first, uint64_t id, sl_err *err)
{
    int64_t now_us = sl_engine_now(e);
    uint32_t n = count_sequences(e) + SL_MAX(first->request.n_choices, 1);
    for (sl_sequence *s = first; s; s = s == first ? s->siblings : s->next) {
        s->id = id;
        s->submitted_us = now_us;
        sl_status status = sl_tasks_enter(&e->tasks, s, n, err);
        for (sl_sequence *t = first; status != SL_OK && t != s; t = t == first ? t->siblings : t->next)
            sl_tasks_leave(&e->tasks, t);
        SL_TRY(status);
        sl_kv_enter(&e->kv, s);
    }
    return SL_OK;
}

/* The request's sequences, known to the scheduler but in no queue. */
static sl_status prepare(sl_engine *e, const sl_request *request, sl_sequence **out, sl_err *err)
{
    SL_TRY(check_request(e, request, err));
    SL_TRY(open_choices(e, request, out, err));
    sl_status status = enter(e, *out, e->last_id + 1, err);
    if (status != SL_OK)
        sl_sequence_close(*out);
    return status;
}

sl_status sl_engine_submit(sl_engine *e, const sl_request *request, uint64_t *id, sl_err *err)
{
    sl_sequence *first;
    SL_TRY(prepare(e, request, &first, err));
    e->last_id++;
    e->n_waiting++;
    sl_queue_insert(e, &e->waiting, first);
    if (id)
        *id = first->id;
    return SL_OK;
}

sl_status sl_engine_predict(sl_engine *e, const sl_request *request, int64_t *wait_us, sl_err *err)
{
    sl_sequence *first;
    sl_tasks *t = &e->tasks;
    SL_TRY(prepare(e, request, &first, err));
    int64_t now_us = sl_engine_now(e);
    sl_tasks_gather(t, e->running, e->waiting, first, now_us);
    sl_tasks_expect(t);
    *wait_us = llround(sl_forecast_us(&t->schedule, &t->cost, t->tasks, t->n, t->order, t->n - 1, now_us, t->slots));
    for (sl_sequence *s = first; s; s = s == first ? s->siblings : s->next)
        sl_tasks_leave(t, s);
    sl_sequence_close(first);
    return SL_OK;
}

const sl_cost *sl_engine_cost(const sl_engine *e)
{
    return &e->tasks.cost;
}

void sl_engine_cancel(sl_engine *e, uint64_t id)
{
    sl_sequence *queues[] = {e->running, e->waiting};
    for (size_t q = 0; q < SL_COUNTOF(queues); q++)
        for (sl_sequence *s = queues[q]; s; s = s->next)
            if (s->id == id)
                s->cancelled = true;
}

int64_t sl_engine_idle_until(const sl_engine *e)
{
    int64_t first_us = INT64_MAX;
    if (e->options.batching != SL_BATCHING_DYNAMIC || e->running || !e->waiting)
        return 0;
    for (const sl_sequence *s = e->waiting; s; s = s->next)
        first_us = SL_MIN(first_us, s->submitted_us);
    return first_us + e->options.max_wait_us;
}

/* ---- pins and statistics ---- */

/* Whether all requests that were accepted still fit. */
static sl_status check_live(const sl_engine *e, sl_err *err)
{
    const sl_sequence *queues[] = {e->running, e->waiting};
    for (size_t q = 0; q < SL_COUNTOF(queues); q++)
        for (const sl_sequence *s = queues[q]; s; s = s->next)
            SL_TRY(sl_kv_check(&e->kv, sl_sequence_max_positions(s), err));
    return SL_OK;
}

sl_status sl_engine_pin_prefix(sl_engine *e, uint64_t tenant, const uint32_t *tokens, uint32_t n_tokens,
                               uint32_t *n_pinned, sl_err *err)
{
    SL_TRY(sl_kv_pin(&e->kv, tenant, tokens, n_tokens, n_pinned, err));
    sl_status status = check_live(e, err);
    if (status != SL_OK)
        return sl_kv_unpin(&e->kv, tenant, tokens, *n_pinned, NULL) == SL_OK ? status : SL_ERR_INTERNAL;
    return SL_OK;
}

sl_status sl_engine_unpin_prefix(sl_engine *e, uint64_t tenant, const uint32_t *tokens, uint32_t n_tokens, sl_err *err)
{
    return sl_kv_unpin(&e->kv, tenant, tokens, n_tokens, err);
}

void sl_engine_stats(const sl_engine *e, sl_engine_statistics *out)
{
    *out = e->statistics;
    out->n_running = e->n_running;
    out->n_waiting = e->n_waiting;
    for (int g = 0; g < e->model.plan->n_groups; g++) {
        const sl_blocks *pool = &e->kv.pools[g];
        uint32_t only_cached = e->kv.tree.n_idle[g]; /* and those pinned that no sequence holds */
        for (uint32_t i = 0; i < pool->n_blocks && e->kv.tree.n_pinned[g] > 0; i++) {
            uint32_t node = e->kv.tree.node_of[g][i];
            only_cached += node != SL_NO_NODE && e->kv.tree.nodes[node].n_pins[g] > 0 && pool->refs[i] == 1;
        }
        out->n_blocks += pool->n_blocks;
        out->n_blocks_used += pool->n_blocks - pool->n_free - only_cached;
        out->n_blocks_cached += e->kv.tree.n_cached[g];
        for (const sl_sequence *s = e->running; s; s = s->next)
            out->n_slots_unused += (uint64_t)(s->n_dropped[g] + s->n_taken[g]) * SL_KV_BLOCK - s->n_done;
    }
}
