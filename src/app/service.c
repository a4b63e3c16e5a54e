/* The service: the engine thread, and what opens, closes and watches it. */
#include "app/service.h"

#include "app/service_impl.h"
#include "base/clock.h"
#include "base/log.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    DEFAULT_TICKETS = 512,
    DEFAULT_EVENT_BYTES = 1 << 16,
    MAX_TICKETS = 1 << 20,
    COST_STEPS = 256, /* the copy of the cost model is at most so many steps old */
};
static const int64_t default_hang_us = 60 * 1000000LL;

/* ---- the engine thread ---- */

/* The engine's events of a ticket, during a step. Who reads an end finds it in the statistics; who runs is told after the
 * step, which may begin with ends and go on with others' beginnings. */
static void on_event(void *user, const sl_event *event)
{
    sl_ticket *t = user;
    sl_service *s = t->service; /* a released ticket may be gone with its last event */
    int64_t now_us = sl_clock_us();
    bool fits = true, ends = event->kind == SL_EVENT_FINISHED;
    sl_engine_statistics stats;
    if (ends)
        sl_engine_stats(s->engine, &stats);
    pthread_mutex_lock(&s->lock);
    if (ends) {
        stats.n_running = s->engine_stats.n_running;
        stats.n_waiting = s->engine_stats.n_waiting;
        s->engine_stats = stats;
        sl_ticket_end_choice(t, event);
    } else {
        fits = sl_ticket_add(t, event, now_us);
    }
    pthread_mutex_unlock(&s->lock);
    if (!fits)
        sl_engine_cancel(s->engine, event->request);
}

static void on_logits(void *user, uint32_t position, const float *logits)
{
    sl_ticket *t = user;
    t->request.on_logits(t->user, position, logits);
}

/* Hands a ticket to the engine. The lock is not held: nobody else touches the request. */
static sl_status hand_over(sl_ticket *t, sl_err *err)
{
    sl_request request = t->request;
    request.on_event = on_event;
    request.on_logits = request.on_logits ? on_logits : NULL;
    request.user = t;
    sl_engine *engine = t->service->engine;
    sl_status status = t->predicts ? sl_engine_predict(engine, &request, &t->wait_us, err)
                                   : sl_engine_submit(engine, &request, &t->id, err);
    sl_arena_reset(&t->copies);
    return status;
}

/* Tells a ticket that its request is good, or why it is refused. */
static void note_verdict(sl_ticket *t, const sl_err *refusal)
{
    sl_service *s = t->service;
    pthread_mutex_lock(&s->lock);
    if (refusal)
        sl_ticket_end(t, (sl_event){.finish = refusal->code == SL_ERR_CANCELLED ? SL_FINISH_CANCELLED : SL_FINISH_ERROR,
                                    .error = *refusal,
                                    .n_prompt = (uint32_t)t->request.n_prompt});
    else
        sl_ticket_accept(t);
    pthread_mutex_unlock(&s->lock);
}

static void begin_ticket(sl_service *s, sl_ticket *t, bool cancelled)
{
    sl_err err = {0};
    if (cancelled)
        sl_err_set(&err, SL_ERR_CANCELLED, "cancelled");
    else if (s->failure.code != SL_OK)
        err = s->failure;
    bool good = err.code == SL_OK && hand_over(t, &err) == SL_OK;
    note_verdict(t, good ? NULL : &err);
}

/* Does what the queue in says: new tickets go to the engine, cancelled ones are ended. */
static void do_commands(sl_service *s)
{
    for (;;) {
        pthread_mutex_lock(&s->lock);
        sl_ticket *t = sl_ticket_next_command(s);
        bool cancelled = t && t->cancelled;
        sl_ticket_state state = t ? t->state : SL_TICKET_DONE;
        uint64_t id = t ? t->id : 0;
        if (t && state == SL_TICKET_DONE && t->released)
            sl_ticket_free(t);
        pthread_mutex_unlock(&s->lock);
        if (!t)
            return;
        if (state == SL_TICKET_QUEUED)
            begin_ticket(s, t, cancelled);
        else if (state == SL_TICKET_ACTIVE && cancelled)
            sl_engine_cancel(s->engine, id);
    }
}

/* The engine cannot go on: all its requests end with its reason. */
static void fail_all(sl_service *s, const sl_err *failure)
{
    pthread_mutex_lock(&s->lock);
    s->failure = *failure;
    for (sl_ticket *t = s->tickets, *next; t; t = next) {
        next = t->next_all;
        if (t->state == SL_TICKET_ACTIVE)
            sl_ticket_end(t, (sl_event){.finish = SL_FINISH_ERROR, .error = *failure});
    }
    pthread_mutex_unlock(&s->lock);
}

/* Sleeps until there is a command, the service closes, or it is until_us (0: never). The lock is held. */
static void sleep_until(sl_service *s, int64_t until_us)
{
    struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    s->working = false;
    if (until_us > 0)
        pthread_cond_timedwait(&s->work, &s->lock, &until);
    else
        pthread_cond_wait(&s->work, &s->lock);
}

/* Waits for work; false when the service closes. A batch that is still being collected is no work. */
static bool wait_for_work(sl_service *s, bool busy)
{
    int64_t until_us = busy ? sl_engine_idle_until(s->engine) : 0;
    pthread_mutex_lock(&s->lock);
    while (!s->commands && !s->closing && (!busy || sl_clock_us() < until_us))
        sleep_until(s, until_us);
    s->working = true;
    s->beat_us = sl_clock_us();
    bool go_on = !s->closing;
    pthread_mutex_unlock(&s->lock);
    return go_on;
}

/* Lets other threads see what the step has changed. */
static void publish(sl_service *s)
{
    sl_engine_statistics stats;
    sl_engine_stats(s->engine, &stats);
    pthread_mutex_lock(&s->lock);
    s->engine_stats = stats;
    if (stats.n_steps - s->cost_steps >= COST_STEPS) {
        s->cost = *sl_engine_cost(s->engine);
        s->cost_steps = stats.n_steps;
    }
    pthread_mutex_unlock(&s->lock);
}

static void *engine_main(void *user)
{
    sl_service *s = user;
    sl_err err = {0};
    if (s->options.pin && sl_threads_pin(s->pool, &err) != SL_OK)
        fail_all(s, &err);
    for (bool busy = false; wait_for_work(s, busy);) {
        do_commands(s);
        if (s->failure.code != SL_OK) {
            busy = false;
            continue;
        }
        if (sl_engine_step(s->engine, sl_clock_us(), &busy, &err) != SL_OK)
            fail_all(s, &err);
        publish(s);
    }
    return NULL;
}

/* ---- the service ---- */

static sl_status start_thread(sl_service *s, sl_err *err)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&s->thread, NULL, engine_main, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    s->started = rc == 0;
    if (rc != 0)
        SL_FAIL(err, SL_ERR_NOMEM, "cannot start the engine's thread: %s", strerror(rc));
    return SL_OK;
}

sl_status sl_service_fit_context(const sl_bundle *bundle, sl_engine_options *engine, sl_err *err)
{
    sl_engine_options longest = *engine;
    sl_engine_memory memory;
    sl_engine_model model = sl_engine_model_of(sl_bundle_model(bundle));
    if (engine->kv_bytes == 0 || engine->context < 2) /* the engine refuses a context of 1 */
        return SL_OK;
    longest.context = 0;
    SL_TRY(sl_engine_measure(&model, &longest, sl_threads_count(sl_bundle_threads(bundle)), &memory, err));
    if (memory.context < engine->context) {
        sl_log(SL_LOG_WARN, "the memory for keys and values holds %u tokens of a request: the context is %u, not %u",
               memory.context, memory.context, engine->context);
        engine->context = memory.context;
    }
    return SL_OK;
}

static void set_options(sl_service *s, const sl_bundle *bundle, const sl_service_options *options)
{
    s->bundle = bundle;
    s->options = *options;
    s->options.max_tickets = options->max_tickets ? options->max_tickets : DEFAULT_TICKETS;
    s->options.event_bytes = options->event_bytes ? options->event_bytes : DEFAULT_EVENT_BYTES;
    s->options.hang_us = options->hang_us ? options->hang_us : default_hang_us;
    s->options.engine.token_bytes = s->token_bytes = sl_bundle_token_bytes(bundle);
    s->n_embedding = sl_model_get_info(sl_bundle_model(bundle))->n_embd;
    s->pool = sl_bundle_threads(bundle);
    s->last_command = &s->commands;
}

static void open_locks(sl_service *s)
{
    pthread_condattr_t monotonic;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static sl_status open_engine(sl_service *s, sl_err *err)
{
    SL_TRY(sl_service_fit_context(s->bundle, &s->options.engine, err));
    SL_TRY(sl_bundle_open_engine(s->bundle, &s->options.engine, &s->engine, err));
    s->context = sl_engine_context(s->engine);
    s->cost = *sl_engine_cost(s->engine);
    sl_engine_stats(s->engine, &s->engine_stats);
    return start_thread(s, err);
}

sl_status sl_service_open(const sl_bundle *bundle, const sl_service_options *options, sl_service **out, sl_err *err)
{
    *out = NULL;
    if (options->max_tickets > MAX_TICKETS || options->hang_us < 0)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%u tickets (0 to %d) or a negative time to hang", options->max_tickets,
                MAX_TICKETS);
    sl_service *s = calloc(1, sizeof *s);
    if (!s)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a service");
    set_options(s, bundle, options);
    open_locks(s);
    sl_status status = open_engine(s, err);
    if (status != SL_OK) {
        sl_service_close(s);
        return status;
    }
    *out = s;
    return SL_OK;
}

void sl_service_close(sl_service *s)
{
    if (!s)
        return;
    if (s->started) {
        pthread_mutex_lock(&s->lock);
        s->closing = true;
        pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    sl_bundle_close_engine(s->bundle, s->engine);
    for (sl_ticket *t = s->tickets, *next; t; t = next) {
        next = t->next_all;
        SL_ASSERT(t->released);
        sl_ticket_free(t);
    }
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void sl_service_drain(sl_service *s)
{
    pthread_mutex_lock(&s->lock);
    s->draining = true;
    pthread_mutex_unlock(&s->lock);
}

void sl_service_get_stats(sl_service *s, sl_service_stats *out)
{
    pthread_mutex_lock(&s->lock);
    uint32_t running = SL_MIN(s->n_active, s->engine_stats.n_running);
    *out = (sl_service_stats){.n_tickets = s->n_tickets,
                              .n_waiting = s->n_queued + s->n_active - running,
                              .n_running = running,
                              .n_refused = s->n_refused,
                              .n_overflow = s->n_overflow,
                              .engine = s->engine_stats};
    pthread_mutex_unlock(&s->lock);
}

sl_status sl_service_health(sl_service *s, int64_t now_us, sl_err *err)
{
    pthread_mutex_lock(&s->lock);
    sl_err failure = s->failure;
    bool working = s->working;
    int64_t since_us = now_us - s->beat_us;
    pthread_mutex_unlock(&s->lock);
    if (failure.code != SL_OK)
        SL_FAIL(err, SL_ERR_STATE, "the engine has failed: %.200s", failure.message);
    if (working && since_us > s->options.hang_us)
        SL_FAIL(err, SL_ERR_STATE, "the engine has not ended a step for %lld s", (long long)(since_us / 1000000));
    return SL_OK;
}

uint32_t sl_service_context(const sl_service *service)
{
    return service->context;
}

uint32_t sl_service_embedding_length(const sl_service *service)
{
    return service->n_embedding;
}

void sl_service_save_cost(sl_service *s)
{
    pthread_mutex_lock(&s->lock);
    sl_cost cost = s->cost;
    pthread_mutex_unlock(&s->lock);
    sl_bundle_save_cost(s->bundle, &cost);
}
