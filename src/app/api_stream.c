/* Streams of the public API: a ticket whose events become outputs, with characters for bytes. A query with a callback is
 * one as well, which the callback thread pulls and frees. */
#include "app/api.h"

#include <stdlib.h>
#include <string.h>

/* ---- events to outputs ---- */

/* Two pieces of text as one, which is the stream's. */
static sl_bytes join(sl_stream *s, sl_bytes a, sl_bytes b)
{
    if (a.n_bytes == 0 || b.n_bytes == 0)
        return a.n_bytes ? a : b;
    char *both = realloc(s->end_text, a.n_bytes + b.n_bytes);
    if (!both) {
        s->short_of_memory = true;
        return a;
    }
    memcpy(both, a.bytes, a.n_bytes);
    memcpy(both + a.n_bytes, b.bytes, b.n_bytes);
    s->end_text = both;
    return (sl_bytes){both, a.n_bytes + b.n_bytes};
}

/* The characters that an event completes. */
static sl_bytes text_of(sl_stream *s, const sl_event *event)
{
    sl_detok *detok = &s->detoks[event->choice];
    sl_bytes text = {"", 0}, rest = {"", 0};
    if (event->n_bytes > 0 &&
        sl_detok_push_bytes(detok, (sl_bytes){event->bytes, event->n_bytes}, &text, NULL) != SL_OK)
        s->short_of_memory = true;
    if (event->kind == SL_EVENT_FINISHED && sl_detok_finish(detok, &rest, NULL) == SL_OK)
        text = join(s, text, rest);
    return text;
}

static void note_end(sl_stream *s, const sl_event *event)
{
    sl_output *out = &s->output;
    s->n_ended++;
    out->last = s->n_ended == s->n_choices;
    out->finish = event->finish;
    s->error = event->error;
    if (s->short_of_memory) {
        out->finish = SL_FINISH_ERROR;
        sl_err_set(&s->error, SL_ERR_NOMEM, "no memory for the text of an answer");
    }
    out->error = out->finish == SL_FINISH_ERROR ? &s->error : NULL;
}

/* The output of the stream's event; NULL when it is none of the caller's concern. */
static const sl_output *make_output(sl_stream *s)
{
    const sl_event *event = &s->event.event;
    if (s->event.kind == SL_TICKET_ACCEPTED)
        return NULL;
    static const sl_output_kind kinds[] = {[SL_EVENT_TOKEN] = SL_OUTPUT_TOKEN,
                                           [SL_EVENT_FINISHED] = SL_OUTPUT_END,
                                           [SL_EVENT_PROMPT] = SL_OUTPUT_PROMPT,
                                           [SL_EVENT_EMBEDDING] = SL_OUTPUT_EMBEDDING};
    bool token = event->kind == SL_EVENT_TOKEN || event->kind == SL_EVENT_PROMPT;
    s->output = (sl_output){.size = sizeof s->output,
                            .id = s->id,
                            .user = s->user,
                            .kind = kinds[event->kind],
                            .choice = event->choice,
                            .time_us = s->event.time_us,
                            .text = {"", 0},
                            .token = event->sampled.token,
                            .position = event->position,
                            .logprob = event->sampled.logprob,
                            .n_top = token ? event->sampled.n_top : 0,
                            .top = event->sampled.top,
                            .n_embedding = event->kind == SL_EVENT_EMBEDDING ? event->n_embedding : 0,
                            .embedding = event->kind == SL_EVENT_EMBEDDING ? event->embedding : NULL,
                            .stop_string = event->kind == SL_EVENT_FINISHED ? event->stop_string : -1,
                            .n_prompt = event->n_prompt,
                            .n_generated = event->n_generated,
                            .n_cached = event->n_cached,
                            .prefill_us = event->prefill_us,
                            .decode_us = event->decode_us};
    if (event->kind == SL_EVENT_TOKEN || event->kind == SL_EVENT_FINISHED)
        s->output.text = text_of(s, event);
    if (event->kind == SL_EVENT_FINISHED)
        note_end(s, event);
    else if (s->short_of_memory)
        sl_ticket_cancel(s->ticket);
    return &s->output;
}

/* ---- beginning and end ---- */

/* Frees a stream that is in no list and has no ticket. */
static void free_stream(sl_stream *s)
{
    for (uint32_t i = 0; s->detoks && i < s->n_choices; i++)
        sl_detok_free(&s->detoks[i]);
    free(s->detoks);
    free(s->end_text);
    if (!s->on_output) {
        sl_inbox_close(s->inbox);
        sl_sign_destroy(&s->sign);
    }
    free(s);
}

static sl_status make_stream(sl_runner *r, const sl_query *q, sl_stream **out, sl_err *err)
{
    sl_stream *s = *out = calloc(1, sizeof *s);
    if (!s)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a query");
    s->runner = r;
    s->on_output = q->on_output;
    s->user = q->user;
    s->n_choices = SL_MAX(q->n_choices, 1);
    s->inbox = r->inbox;
    if (!q->on_output) {
        s->inbox = NULL;
        sl_sign_init(&s->sign);
        SL_TRY(sl_inbox_open(r->service, sl_sign_raise, &s->sign, &s->inbox, err));
    }
    s->detoks = calloc(s->n_choices, sizeof *s->detoks);
    if (!s->detoks)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for %u choices", s->n_choices);
    for (uint32_t i = 0; i < s->n_choices; i++) {
        sl_detok_init(&s->detoks[i], sl_bundle_vocab(r->llm->bundle), 0);
        s->detoks[i].at_start &= q->n_messages > 0; /* else the answer goes on with a text */
    }
    return SL_OK;
}

/* Hands the stream to the service and puts it on the list. The lock is held all the time, so that the callback thread
 * cannot free it meanwhile. */
static sl_status enlist(sl_stream *s, const sl_request *request, uint64_t *id, sl_err *err)
{
    sl_runner *r = s->runner;
    sl_status status;
    pthread_mutex_lock(&r->lock);
    s->id = r->last_id + 1;
    if (r->closing)
        status = sl_err_set(err, SL_ERR_STATE, "the runner is closed");
    else
        status = sl_service_submit(r->service, s->inbox, request, s, &s->ticket, err);
    if (status == SL_OK) {
        *id = r->last_id = s->id;
        s->next = r->streams;
        if (s->next)
            s->next->prev = s;
        r->streams = s;
        r->n_callbacks += s->on_output != NULL;
    }
    pthread_mutex_unlock(&r->lock);
    return status;
}

/* Takes a stream off the list and its ticket from the service. */
static void retire(sl_stream *s)
{
    sl_runner *r = s->runner;
    pthread_mutex_lock(&r->lock);
    *(s->prev ? &s->prev->next : &r->streams) = s->next;
    if (s->next)
        s->next->prev = s->prev;
    r->n_callbacks -= s->on_output != NULL;
    sl_ticket_release(s->ticket);
    pthread_mutex_unlock(&r->lock);
}

static sl_status open_stream(sl_runner *r, const sl_query *query, bool pulled, sl_stream **out, uint64_t *id,
                             sl_err *err)
{
    sl_query q = sl_query_default();
    sl_asked asked;
    if (!r || !query)
        SL_FAIL(err, SL_ERR_ARGUMENT, "no runner or no query");
    SL_TRY(sl_sized_read(query, &q, sizeof q, "sl_query", err));
    if (pulled == (q.on_output != NULL))
        SL_FAIL(err, SL_ERR_ARGUMENT, "on_output: %s",
                pulled ? "a stream is pulled and has none" : "a query that is submitted needs one");
    sl_status status = sl_asked_open(r, &q, &asked, err);
    sl_stream *s = NULL;
    if (status == SL_OK)
        status = make_stream(r, &q, &s, err);
    if (status == SL_OK)
        status = enlist(s, &asked.request, id, err);
    sl_asked_close(&asked);
    if (status != SL_OK && s)
        free_stream(s);
    *out = status == SL_OK ? s : NULL;
    return status;
}

/* ---- with a callback ---- */

sl_status sl_runner_submit(sl_runner *runner, const sl_query *query, uint64_t *id, sl_err *err)
{
    sl_stream *stream; /* may be freed already when this returns */
    uint64_t own_id = 0;
    return open_stream(runner, query, false, &stream, id ? id : &own_id, err);
}

bool sl_stream_tell(sl_stream *s)
{
    sl_runner *r = s->runner;
    pthread_mutex_lock(&r->lock); /* who submits it may still be in enlist, and s->ticket not written */
    pthread_mutex_unlock(&r->lock);
    if (!sl_ticket_next(s->ticket, &s->event))
        return false;
    const sl_output *output = make_output(s);
    if (output)
        s->on_output(s->user, output);
    if (!output || !output->last)
        return true;
    retire(s);
    free_stream(s);
    sl_sign_raise(&r->ended);
    return false;
}

/* ---- pulled ---- */

sl_status sl_stream_open(sl_runner *runner, const sl_query *query, sl_stream **out, sl_err *err)
{
    uint64_t id;
    if (!out)
        SL_FAIL(err, SL_ERR_ARGUMENT, "sl_stream_open: no place for the stream");
    *out = NULL;
    SL_TRY(open_stream(runner, query, true, out, &id, err));
    atomic_fetch_add(&runner->n_refs, 1);
    return SL_OK;
}

const sl_output *sl_stream_next(sl_stream *s, int64_t timeout_us)
{
    if (!s || s->n_ended == s->n_choices)
        return NULL;
    int64_t until_us = sl_sign_deadline(timeout_us);
    for (;;) {
        sl_inbox_take(s->inbox); /* before each look, so that an inbox which is empty raises the sign again */
        bool found = sl_ticket_next(s->ticket, &s->event);
        const sl_output *output = found ? make_output(s) : NULL;
        if (output || (!found && !sl_sign_wait(&s->sign, until_us)))
            return output;
    }
}

void sl_stream_cancel(sl_stream *s)
{
    if (s)
        sl_ticket_cancel(s->ticket);
}

void sl_stream_close(sl_stream *s)
{
    if (!s)
        return;
    sl_runner *r = s->runner;
    retire(s);
    free_stream(s);
    sl_runner_release(r);
}
