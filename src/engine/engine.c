#include "engine/engine.h"

#include "base/checked.h"
#include "engine/step.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CHUNK = 512, DEFAULT_LOGIT_ROWS = 32, MAX_SEQUENCES = 4096, MAX_CHUNK = 1 << 16 };

const char *sl_finish_name(sl_finish finish)
{
    static const char *const names[] = {"stop", "length", "cancelled", "error"};
    return names[finish];
}

/* Options with defaults filled in, and the sizes that follow from them. */
static sl_status settle(const sl_model *model, const sl_engine_options *options, sl_engine_options *o,
                        sl_context_sizes *sizes, sl_err *err)
{
    const sl_plan *plan = sl_model_plan(model);
    *o = *options;
    if (o->context == 0)
        o->context = sl_model_get_info(model)->context_length;
    if (o->chunk == 0)
        o->chunk = DEFAULT_CHUNK;
    if (o->n_sequences == 0)
        o->n_sequences = 1;
    if (o->logit_rows == 0)
        o->logit_rows = DEFAULT_LOGIT_ROWS;
    if (o->context < 2 || o->context > UINT32_C(1) << 24 || o->chunk > MAX_CHUNK || o->n_sequences > MAX_SEQUENCES)
        SL_FAIL(err, SL_ERR_ARGUMENT,
                "a context of %u (2 to 16777216), a chunk of %u (1 to %d) or %u sequences (1 to %d) is out of range",
                o->context, o->chunk, MAX_CHUNK, o->n_sequences, MAX_SEQUENCES);
    /* Every running sequence needs a row in a step. */
    o->chunk = SL_MAX(SL_MIN(o->chunk, o->context), o->n_sequences);
    o->logit_rows = SL_MAX(o->logit_rows, o->n_sequences);
    *sizes = (sl_context_sizes){.max_rows = o->chunk, .max_wanted = o->logit_rows};
    for (int g = 0; g < plan->n_groups; g++) {
        uint64_t n = (uint64_t)o->n_sequences * sl_sequence_max_blocks(o->context, plan->groups[g].window, o->chunk);
        if (n >= SL_NO_BLOCK)
            SL_FAIL(err, SL_ERR_LIMIT, "%u sequences of %u tokens: more KV blocks than can be counted", o->n_sequences,
                    o->context);
        sizes->n_blocks[g] = (uint32_t)n;
    }
    return SL_OK;
}

sl_status sl_engine_measure(const sl_model *model, const sl_engine_options *options, int n_threads,
                            sl_engine_memory *out, sl_err *err)
{
    sl_engine_options o;
    sl_context_sizes sizes;
    SL_TRY(settle(model, options, &o, &sizes, err));
    *out = (sl_engine_memory){.context = o.context};
    sl_backend_cpu()->context_bytes(sl_model_plan(model), &sizes, n_threads, &out->step_bytes, &out->scratch_bytes,
                                    &out->kv_bytes);
    for (int g = 0; g < SL_MAX_KV_GROUPS; g++)
        out->n_blocks += sizes.n_blocks[g];
    out->logits_bytes = (uint64_t)o.logit_rows * sl_model_get_info(model)->n_vocab * sizeof(float);
    out->total_bytes = out->step_bytes + out->scratch_bytes + out->kv_bytes;
    return SL_OK;
}

sl_status sl_engine_open(const sl_model *model, const sl_engine_options *options, sl_threads *pool, sl_engine **out,
                         sl_err *err)
{
    *out = NULL;
    sl_engine *e = calloc(1, sizeof *e);
    if (!e)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for an engine");
    e->model = model;
    e->plan = sl_model_plan(model);
    e->backend = sl_backend_cpu();
    sl_context_sizes sizes;
    sl_status status = settle(model, options, &e->options, &sizes, err);
    if (status == SL_OK)
        status = e->backend->context_open(e->plan, &sizes, pool, &e->context, err);
    for (int g = 0; g < e->plan->n_groups && status == SL_OK; g++) {
        status = sl_blocks_open(&e->pools[g], sizes.n_blocks[g], e->options.shuffle_seed, err);
        e->unreserved[g] = sizes.n_blocks[g];
    }
    if (status == SL_OK) {
        e->rows = calloc(e->options.chunk, sizeof *e->rows);
        e->seqs = calloc(e->options.n_sequences, sizeof *e->seqs);
        e->members = calloc(e->options.n_sequences, sizeof *e->members);
        if (!e->rows || !e->seqs || !e->members)
            status = sl_err_set(err, SL_ERR_NOMEM, "no memory for an engine's batch");
    }
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
        e->backend->context_close(e->context);
    for (int g = 0; g < SL_MAX_KV_GROUPS; g++)
        sl_blocks_close(&e->pools[g]);
    free(e->rows);
    free(e->seqs);
    free(e->members);
    free(e);
}

void sl_engine_set_profile(sl_engine *engine, const sl_profile *profile)
{
    engine->backend->set_profile(engine->context, profile);
}

uint32_t sl_engine_context(const sl_engine *engine)
{
    return engine->options.context;
}

static sl_status check_request(const sl_engine *e, const sl_request *r, sl_err *err)
{
    uint32_t n_vocab = sl_model_get_info(e->model)->n_vocab;
    if (r->n_prompt == 0)
        SL_FAIL(err, SL_ERR_ARGUMENT, "the prompt is empty");
    if (r->n_prompt > e->options.context || (r->max_tokens > 0 && r->n_prompt == e->options.context))
        SL_FAIL(err, SL_ERR_LIMIT, "the prompt has %zu tokens, but the context holds %u, answer included", r->n_prompt,
                e->options.context);
    for (size_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] >= n_vocab)
            SL_FAIL(err, SL_ERR_ARGUMENT, "token %u of the prompt is %u, but the vocabulary ends at %u", (unsigned)i,
                    r->prompt[i], n_vocab - 1);
    if (r->max_tokens == 0 && !r->on_logits)
        SL_FAIL(err, SL_ERR_ARGUMENT, "a request for no tokens and no logits");
    return SL_OK;
}

sl_status sl_engine_submit(sl_engine *e, const sl_request *request, uint64_t *id, sl_err *err)
{
    SL_TRY(check_request(e, request, err));
    sl_sequence *s;
    SL_TRY(sl_sequence_open(request, e->options.token_bytes, sl_model_get_info(e->model)->n_vocab, e->options.context,
                            e->plan->n_groups, &s, err));
    s->id = ++e->last_id;
    s->submitted_us = -1;
    sl_sequence **tail = &e->waiting;
    while (*tail)
        tail = &(*tail)->next;
    *tail = s;
    if (id)
        *id = s->id;
    return SL_OK;
}

void sl_engine_cancel(sl_engine *e, uint64_t id)
{
    sl_sequence *queues[] = {e->running, e->waiting};
    for (size_t q = 0; q < SL_COUNTOF(queues); q++)
        for (sl_sequence *s = queues[q]; s; s = s->next)
            if (s->id == id)
                s->cancelled = true;
}
