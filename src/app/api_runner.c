/* Runners of the public API: a service on a model, a thread for callbacks, and a list of the queries there are. */
#include "app/api.h"
#include "base/clock.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { DEFAULT_CONTEXT = 4096, DEFAULT_SEQUENCES = 16, DRAIN_POLL_US = 2000 };

/* ---- the callback thread ---- */

/* Waits until a query may have something to tell; false when the runner closes and no query with a callback is left. */
static bool wait_for_outputs(sl_runner *r)
{
    pthread_mutex_lock(&r->lock);
    bool go_on = !r->closing || r->n_callbacks > 0;
    pthread_mutex_unlock(&r->lock);
    if (go_on)
        sl_sign_wait(&r->sign, -1);
    return go_on;
}

/* Queries that have something to tell do so in turns, one output each, so that a callback slower than its query's tokens
 * leaves room for the others'. */
static void *callback_main(void *user)
{
    sl_runner *r = user;
    sl_stream *first = NULL, **last = &first;
    do {
        for (sl_ticket *t; (t = sl_inbox_take(r->inbox)) || first;) {
            if (t) {
                *last = sl_ticket_user(t);
                last = &(*last)->next_turn;
                continue;
            }
            sl_stream *s = first;
            first = s->next_turn;
            if (!first)
                last = &first;
            s->next_turn = NULL;
            if (sl_stream_tell(s)) {
                *last = s;
                last = &s->next_turn;
            }
        }
    } while (wait_for_outputs(r));
    return NULL;
}

static sl_status start_thread(sl_runner *r, sl_err *err)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&r->thread, NULL, callback_main, r);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        SL_FAIL(err, SL_ERR_NOMEM, "cannot start the thread for callbacks: %s", strerror(rc));
    r->started = true;
    return SL_OK;
}

static bool on_callback_thread(const sl_runner *r)
{
    return r->started && pthread_equal(pthread_self(), r->thread);
}

/* ---- open and close ---- */

static sl_status service_options(const sl_llm *llm, const sl_runner_options *o, sl_service_options *out, sl_err *err)
{
    uint32_t longest = sl_model_get_info(sl_bundle_model(llm->bundle))->context_length;
    *out = (sl_service_options){
        .max_tickets = o->max_queries, .event_bytes = o->event_bytes, .hang_us = o->hang_us, .pin = o->pin};
    out->engine = (sl_engine_options){.context = o->context ? o->context : SL_MIN(DEFAULT_CONTEXT, longest),
                                      .chunk = o->chunk,
                                      .n_sequences = o->n_sequences ? o->n_sequences : DEFAULT_SEQUENCES,
                                      .kv_bytes = o->kv_bytes,
                                      .no_prefix_cache = o->no_prefix_cache};
    if (out->engine.context > longest)
        SL_FAIL(err, SL_ERR_LIMIT, "context: %u is more than the %u tokens that this model was made for",
                out->engine.context, longest);
    if (getrandom(out->engine.cache_key, sizeof out->engine.cache_key, 0) < 0)
        SL_FAIL(err, SL_ERR_IO, "the system has no random numbers");
    return SL_OK;
}

static sl_status open_parts(sl_runner *r, const sl_service_options *options, sl_err *err)
{
    SL_TRY(sl_service_open(r->llm->bundle, options, &r->service, err));
    SL_TRY(sl_inbox_open(r->service, sl_sign_raise, &r->sign, &r->inbox, err));
    return start_thread(r, err);
}

sl_status sl_runner_open(sl_llm *llm, const sl_runner_options *options, sl_runner **out, sl_err *err)
{
    sl_runner_options o = sl_runner_options_default();
    sl_service_options with;
    if (out)
        *out = NULL;
    if (!llm || !out)
        SL_FAIL(err, SL_ERR_ARGUMENT, "sl_runner_open: no model or no place for the runner");
    SL_TRY(sl_sized_read(options, &o, sizeof o, "sl_runner_options", err));
    SL_TRY(service_options(llm, &o, &with, err));
    sl_runner *r = calloc(1, sizeof *r);
    if (!r)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a runner");
    if (atomic_exchange(&llm->has_runner, true)) {
        free(r);
        SL_FAIL(err, SL_ERR_STATE, "the model has a runner already: open the model once more for another");
    }
    r->llm = sl_llm_retain(llm);
    r->n_sequences = with.engine.n_sequences;
    atomic_init(&r->n_refs, 1);
    pthread_mutex_init(&r->lock, NULL);
    sl_sign_init(&r->sign);
    sl_sign_init(&r->ended);
    sl_status status = open_parts(r, &with, err);
    if (status != SL_OK) {
        sl_runner_release(r);
        return status;
    }
    *out = r;
    return SL_OK;
}

void sl_runner_release(sl_runner *r)
{
    if (atomic_fetch_sub(&r->n_refs, 1) > 1)
        return;
    sl_inbox_close(r->inbox);
    sl_service_close(r->service);
    atomic_store(&r->llm->has_runner, false);
    sl_llm_close(r->llm);
    sl_sign_destroy(&r->ended);
    sl_sign_destroy(&r->sign);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

sl_status sl_runner_close(sl_runner *r)
{
    if (!r)
        return SL_OK;
    if (on_callback_thread(r))
        return SL_ERR_STATE;
    pthread_mutex_lock(&r->lock);
    r->closing = true;
    for (sl_stream *s = r->streams; s; s = s->next)
        sl_ticket_cancel(s->ticket);
    pthread_mutex_unlock(&r->lock);
    sl_sign_raise(&r->sign);
    pthread_join(r->thread, NULL);
    sl_runner_release(r);
    return SL_OK;
}

/* ---- queries by their number ---- */

sl_status sl_runner_cancel(sl_runner *r, uint64_t id, sl_err *err)
{
    if (!r)
        SL_FAIL(err, SL_ERR_ARGUMENT, "sl_runner_cancel: no runner");
    pthread_mutex_lock(&r->lock);
    sl_stream *s = r->streams;
    while (s && s->id != id)
        s = s->next;
    if (s)
        sl_ticket_cancel(s->ticket);
    pthread_mutex_unlock(&r->lock);
    if (!s)
        SL_FAIL(err, SL_ERR_NOT_FOUND, "no query with number %llu runs", (unsigned long long)id);
    return SL_OK;
}

/* Queries that have not ended, or whose last callback has not returned. */
static uint32_t count_left(sl_runner *r)
{
    sl_service_stats stats;
    sl_service_get_stats(r->service, &stats);
    pthread_mutex_lock(&r->lock);
    uint32_t n = SL_MAX(stats.n_waiting + stats.n_running, r->n_callbacks);
    pthread_mutex_unlock(&r->lock);
    return n;
}

sl_status sl_runner_drain(sl_runner *r, int64_t timeout_us, sl_err *err)
{
    if (!r)
        SL_FAIL(err, SL_ERR_ARGUMENT, "sl_runner_drain: no runner");
    if (timeout_us != 0 && on_callback_thread(r))
        SL_FAIL(err, SL_ERR_STATE, "sl_runner_drain would wait in a callback for this callback's end");
    sl_service_drain(r->service);
    int64_t until_us = sl_sign_deadline(timeout_us);
    for (uint32_t n_left; (n_left = count_left(r)) > 0;) {
        int64_t now_us = sl_clock_us();
        if (until_us >= 0 && now_us >= until_us)
            SL_FAIL(err, SL_ERR_STATE, "%u queries have not ended yet", n_left);
        /* The engine tells nobody when it has ended a stream whose reader waits for nothing, so: look again soon. */
        sl_sign_wait(&r->ended, until_us < 0 ? now_us + DRAIN_POLL_US : SL_MIN(until_us, now_us + DRAIN_POLL_US));
    }
    return SL_OK;
}

/* ---- what is known of a runner ---- */

uint32_t sl_runner_context(const sl_runner *r)
{
    return r ? sl_service_context(r->service) : 0;
}

sl_status sl_runner_get_statistics(sl_runner *r, sl_runner_statistics *out, sl_err *err)
{
    if (!r || !out)
        SL_FAIL(err, SL_ERR_ARGUMENT, "sl_runner_get_statistics: no runner or no place for its statistics");
    sl_service_stats stats;
    sl_service_get_stats(r->service, &stats);
    const sl_engine_statistics *e = &stats.engine;
    sl_runner_statistics own = {.n_queries = stats.n_tickets,
                                .n_waiting = stats.n_waiting,
                                .n_running = stats.n_running,
                                .n_refused = stats.n_refused,
                                .n_overflow = stats.n_overflow,
                                .prompt_tokens = e->prompt_tokens,
                                .generated_tokens = e->generated_tokens,
                                .cached_tokens = e->cached_tokens,
                                .n_steps = e->n_steps,
                                .n_preemptions = e->n_preemptions,
                                .n_blocks = e->n_blocks,
                                .n_blocks_used = e->n_blocks_used,
                                .n_blocks_cached = e->n_blocks_cached};
    _Static_assert(sizeof e->n_finished <= sizeof own.n_finished, "room for every reason to end");
    memcpy(own.n_finished, e->n_finished, sizeof e->n_finished);
    return sl_sized_write(out, &own, sizeof own, "sl_runner_statistics", err);
}

sl_status sl_runner_health(sl_runner *r, sl_err *err)
{
    if (!r)
        SL_FAIL(err, SL_ERR_ARGUMENT, "sl_runner_health: no runner");
    return sl_service_health(r->service, sl_clock_us(), err);
}
