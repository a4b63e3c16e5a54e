#include "engine/tasks.h"

#include <math.h>
#include <stdlib.h>

static bool reserve(sl_tasks *t, uint32_t n)
{
    if (n <= t->capacity)
        return true;
    uint32_t capacity = SL_MAX(n, 2 * t->capacity);
    sl_task *tasks = realloc(t->tasks, capacity * sizeof *tasks);
    t->tasks = tasks ? tasks : t->tasks;
    sl_sequence **sequences = realloc(t->sequences, capacity * sizeof *sequences);
    t->sequences = sequences ? sequences : t->sequences;
    uint32_t *order = realloc(t->order, 2 * (size_t)capacity * sizeof *order);
    t->order = order ? order : t->order;
    if (!tasks || !sequences || !order)
        return false;
    t->capacity = capacity;
    return true;
}

sl_status sl_tasks_open(sl_tasks *t, const sl_plan *plan, const sl_engine_options *options, int n_threads, sl_err *err)
{
    *t = (sl_tasks){.schedule = {.options = sl_schedule_options_default()}, .n_draws = 64}; /* few answers say little */
    sl_schedule_options *o = &t->schedule.options;
    if (options->batching > SL_BATCHING_DYNAMIC || options->max_wait_us < 0 || options->ageing_us < 0)
        SL_FAIL(err, SL_ERR_ARGUMENT, "an unknown way of batching, or a time below zero");
    o->batching = options->batching;
    o->max_wait_us = options->max_wait_us;
    o->n_slots = options->n_sequences;
    o->max_rows = options->chunk;
    o->ageing_us = options->ageing_us ? options->ageing_us : o->ageing_us;
    o->itl_factor = options->full_chunks ? INFINITY : o->itl_factor;
    sl_cost_init(&t->cost, plan, n_threads);
    if (options->cost && options->cost->key == t->cost.key)
        t->cost = *options->cost;
    t->slots = calloc(2 * (size_t)o->n_slots, sizeof *t->slots);
    if (!t->slots || !reserve(t, 2 * o->n_slots))
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for the scheduler");
    return SL_OK;
}

void sl_tasks_close(sl_tasks *t)
{
    sl_tenants_close(&t->tenants);
    free(t->tasks);
    free(t->sequences);
    free(t->order);
    free(t->slots);
    *t = (sl_tasks){0};
}

sl_status sl_tasks_enter(sl_tasks *t, sl_sequence *s, uint32_t n_sequences, sl_err *err)
{
    if (!reserve(t, n_sequences))
        SL_FAIL(err, SL_ERR_NOMEM, "no memory to schedule %u sequences", n_sequences);
    const sl_request *r = &s->request;
    return sl_tenants_enter(&t->tenants, r->tenant, r->tenant_weight == 0 ? 1 : r->tenant_weight, &s->tenant, err);
}

void sl_tasks_leave(sl_tasks *t, const sl_sequence *s)
{
    const double fading = 0.99; /* some hundred answers count */
    sl_tenants_leave(&t->tenants, s->tenant);
    if (!s->finished || s->finish == SL_FINISH_ERROR || s->request.n_stop_tokens == 0)
        return;
    bool stopped = s->finish == SL_FINISH_STOP;
    if (s->n_generated + stopped == 0)
        return;
    t->n_stops = fading * t->n_stops + stopped;
    t->n_draws = fading * t->n_draws + s->n_generated + stopped;
}

static uint32_t count_choices(const sl_sequence *s)
{
    uint32_t n = 1;
    for (const sl_sequence *t = s->siblings; t; t = t->next)
        n++;
    return n;
}

/* Rows whose logits are computed: the last ones, if the prompt is scored; else the last alone. */
static uint32_t count_wanted(const sl_sequence *s)
{
    uint32_t from = SL_MAX(s->n_scored, s->n_done);
    return s->pooled || from >= s->request.n_prompt ? 1 : s->n_tokens - from;
}

void sl_tasks_update(sl_tasks *t, uint32_t i)
{
    const sl_sequence *s = t->sequences[i];
    t->tasks[i].n_done = s->n_done;
    t->tasks[i].n_left = s->n_tokens - s->n_done;
    t->tasks[i].n_wanted = count_wanted(s);
    t->tasks[i].n_layered = s->n_layered;
    t->tasks[i].n_parts_done = s->n_parts_done;
}

static void add_task(sl_tasks *t, sl_sequence *s, bool running)
{
    const sl_request *r = &s->request;
    SL_ASSERT(t->n < t->capacity);
    t->tasks[t->n] = (sl_task){.id = s->id,
                               .tenant = s->tenant,
                               .priority = r->priority,
                               .arrived_us = s->submitted_us,
                               .last_us = s->last_us,
                               .ttft_target_us = r->ttft_target_us,
                               .itl_target_us = r->itl_target_us,
                               .n_generated = s->n_generated,
                               .n_choices = count_choices(s),
                               .n_to_come = r->max_tokens - s->n_generated,
                               .n_preemptions = s->n_preemptions,
                               .whole = s->pooled != NULL,
                               .running = running};
    t->sequences[t->n] = s;
    sl_tasks_update(t, t->n++);
}

void sl_tasks_gather(sl_tasks *t, sl_sequence *running, sl_sequence *waiting, sl_sequence *extra, int64_t now_us)
{
    t->n = 0;
    for (sl_sequence *s = running; s; s = s->next)
        add_task(t, s, true);
    for (sl_sequence *s = waiting; s; s = s->next)
        add_task(t, s, false);
    if (extra)
        add_task(t, extra, false);
    sl_schedule_order(&t->schedule, &t->cost, &t->tenants, t->tasks, t->n, now_us, t->order, t->order + t->n);
}

/* Of at most `most` tokens, when each draw ends the answer with probability p > 0: the mean of min(geometric, most). */
static double mean_tokens(double p, uint32_t most)
{
    return p < 1 ? -expm1(most * log1p(-p)) / p : 1;
}

void sl_tasks_expect(sl_tasks *t)
{
    double p = t->n_stops / t->n_draws;
    for (uint32_t i = 0; i < t->n; i++) {
        sl_task *task = &t->tasks[i];
        const sl_request *r = &t->sequences[i]->request;
        if (p == 0 || task->n_to_come == 0 || r->n_stop_tokens == 0)
            continue;
        uint32_t most = task->n_to_come, least = r->sampling.min_tokens;
        least = SL_MIN(most, least - SL_MIN(least, task->n_generated)); /* before it, nothing ends the answer */
        task->n_to_come = least + (most > least ? (uint32_t)lround(mean_tokens(p, most - least)) : 0);
    }
}

sl_task *sl_tasks_of(const sl_tasks *t, const sl_sequence *s)
{
    uint32_t i = 0;
    while (i < t->n && t->sequences[i] != s)
        i++;
    SL_ASSERT(i < t->n);
    return &t->tasks[i];
}

bool sl_tasks_outranks(const sl_tasks *t, const sl_sequence *a, const sl_sequence *b)
{
    sl_task x = {.id = a->id, .priority = a->request.priority, .n_preemptions = a->n_preemptions};
    sl_task y = {.id = b->id, .priority = b->request.priority, .n_preemptions = b->n_preemptions};
    if (sl_schedule_outranks(&t->schedule, &x, &y))
        return true;
    return !sl_schedule_outranks(&t->schedule, &y, &x) && a->choice < b->choice;
}
