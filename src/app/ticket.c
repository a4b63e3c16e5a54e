/* Tickets and inboxes: what lies between those who ask and the engine thread. */
#include "app/service_impl.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PREDICTIONS = 4 /* at a time; each may take as long as ordering all that waits */ };

/* ---- inboxes ---- */

sl_status sl_inbox_open(sl_service *service, sl_wake_fn *wake, void *user, sl_inbox **out, sl_err *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for an inbox");
    **out = (sl_inbox){.service = service, .wake = wake, .user = user, .last = &(*out)->first};
    return SL_OK;
}

void sl_inbox_close(sl_inbox *inbox)
{
    free(inbox);
}

/* The lock is held. */
static void make_ready(sl_ticket *t)
{
    if (t->in_inbox || t->taken || t->released)
        return;
    sl_inbox *inbox = t->inbox;
    bool was_empty = inbox->first == NULL;
    t->in_inbox = true;
    t->next_ready = NULL;
    *inbox->last = t;
    inbox->last = &t->next_ready;
    if (was_empty && inbox->wake)
        inbox->wake(inbox->user);
}

sl_ticket *sl_inbox_take(sl_inbox *inbox)
{
    pthread_mutex_lock(&inbox->service->lock);
    sl_ticket *t = inbox->first;
    if (t) {
        inbox->first = t->next_ready;
        if (!inbox->first)
            inbox->last = &inbox->first;
        t->in_inbox = false;
        t->taken = true;
    }
    pthread_mutex_unlock(&inbox->service->lock);
    return t;
}

/* Takes a ticket that is being released out of its inbox. The lock is held. */
static void unready(sl_ticket *t)
{
    sl_inbox *inbox = t->inbox;
    for (sl_ticket **link = &inbox->first; t->in_inbox && *link; link = &(*link)->next_ready) {
        if (*link != t)
            continue;
        *link = t->next_ready;
        if (!*link)
            inbox->last = link;
        t->in_inbox = false;
        return;
    }
}

/* ---- tickets ---- */

/* Frees a ticket that is in no list. */
static void drop_ticket(sl_ticket *t)
{
    sl_event_ring_close(&t->ring);
    sl_arena_reset(&t->copies);
    free(t->ends);
    free(t->embedding);
    free(t);
}

void sl_ticket_free(sl_ticket *t)
{
    sl_service *s = t->service;
    *(t->prev_all ? &t->prev_all->next_all : &s->tickets) = t->next_all;
    if (t->next_all)
        t->next_all->prev_all = t->prev_all;
    *(t->predicts ? &s->n_predictions : &s->n_tickets) -= t->n_choices;
    drop_ticket(t);
}

/* A copy of count elements in the arena; NULL when memory is short. */
static void *copy_array(sl_arena *arena, const void *array, size_t count, size_t elem_bytes)
{
    void *copy = sl_arena_array(arena, SL_MAX(count, 1), elem_bytes);
    if (copy && count > 0)
        memcpy(copy, array, count * elem_bytes);
    return copy;
}

/* Copies everything that a request points to. */
static sl_status copy_request(sl_ticket *t, const sl_request *request, sl_err *err)
{
    sl_request *own = &t->request;
    *own = *request;
    sl_arena_init(&t->copies, 0);
    own->prompt = copy_array(&t->copies, request->prompt, request->n_prompt, sizeof *request->prompt);
    own->stop_tokens =
        copy_array(&t->copies, request->stop_tokens, request->n_stop_tokens, sizeof *request->stop_tokens);
    own->sampling.bias =
        copy_array(&t->copies, request->sampling.bias, request->sampling.n_bias, sizeof *request->sampling.bias);
    own->sampling.allowed_tokens.tokens = copy_array(&t->copies, request->sampling.allowed_tokens.tokens,
                                                     request->sampling.allowed_tokens.n, sizeof(uint32_t));
    sl_token_list *words =
        copy_array(&t->copies, request->sampling.bad_words, request->sampling.n_bad_words, sizeof *words);
    sl_bytes *strings = copy_array(&t->copies, request->stop_strings.items, request->stop_strings.n, sizeof *strings);
    bool all = own->prompt && own->stop_tokens && own->sampling.bias && own->sampling.allowed_tokens.tokens && words &&
               strings;
    for (size_t i = 0; all && i < request->stop_strings.n; i++) {
        strings[i].bytes = sl_arena_strndup(&t->copies, strings[i].bytes, strings[i].n_bytes);
        all = strings[i].bytes != NULL;
    }
    for (size_t i = 0; all && i < request->sampling.n_bad_words; i++) {
        words[i].tokens = copy_array(&t->copies, words[i].tokens, words[i].n, sizeof(uint32_t));
        all = words[i].tokens != NULL;
    }
    own->stop_strings.items = strings;
    own->sampling.bad_words = words;
    if (!all)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a request of %zu tokens", request->n_prompt);
    return SL_OK;
}

/* Room for all events the request may make, but of tokens no more than the options allow; those of a prompt come faster
 * than anybody reads, so there is room for all of them. The ends have room of their own. */
static sl_status open_ring(sl_ticket *t, sl_err *err)
{
    const sl_service *s = t->service;
    const sl_request *r = &t->request;
    size_t longest = s->token_bytes->longest + (r->stop_strings.n ? SL_MAX_STOP_BYTES : 0);
    size_t token = sl_event_ring_event_bytes(SL_MIN(r->sampling.n_logprobs, SL_MAX_LOGPROBS), longest);
    size_t tokens = SL_MIN(token * SL_MIN(r->max_tokens, s->context), SL_MAX(s->options.event_bytes, token));
    size_t scored = sl_event_ring_event_bytes(SL_MIN(r->n_prompt_logprobs, SL_MAX_LOGPROBS), 0);
    t->end_bytes = t->n_choices * sl_event_ring_event_bytes(0, 0);
    size_t all = t->end_bytes + t->n_choices * tokens + sl_event_ring_event_bytes(0, 0);
    if (r->prompt_logprobs)
        all += scored * SL_MIN(r->n_prompt, s->context);
    return sl_event_ring_open(&t->ring, all, longest, err);
}

/* What the ticket's events need. */
static sl_status open_events(sl_ticket *t, sl_err *err)
{
    t->ends = calloc(t->n_choices, sizeof *t->ends);
    if (t->request.pooling != SL_POOLING_NONE)
        t->embedding = calloc(t->service->n_embedding, sizeof *t->embedding);
    if (!t->ends || (t->request.pooling != SL_POOLING_NONE && !t->embedding))
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for the events of %u choices", t->n_choices);
    return open_ring(t, err);
}

/* Puts a ticket where the engine thread will look. The lock is held. */
static void add_command(sl_ticket *t)
{
    sl_service *s = t->service;
    if (t->in_commands)
        return;
    t->in_commands = true;
    t->next_command = NULL;
    *s->last_command = t;
    s->last_command = &t->next_command;
    if (!s->working) {
        s->working = true;
        s->beat_us = sl_clock_us();
        pthread_cond_signal(&s->work);
    }
}

/* Whether there is room for one more ticket; counts it in. The lock is held. */
static sl_status count_in(sl_service *s, const sl_ticket *t, sl_err *err)
{
    if (t->predicts) {
        if (s->n_predictions >= MAX_PREDICTIONS)
            SL_FAIL(err, SL_ERR_LIMIT, "%d predictions are being made already", MAX_PREDICTIONS);
        s->n_predictions += t->n_choices;
        return SL_OK;
    }
    if (t->n_choices > s->options.max_tickets - s->n_tickets) {
        s->n_refused++;
        SL_FAIL(err, SL_ERR_LIMIT, "too many requests at once: %u are being worked on or wait", s->n_tickets);
    }
    s->n_tickets += t->n_choices;
    s->n_queued += t->n_choices;
    return SL_OK;
}

static sl_status enlist(sl_service *s, sl_ticket *t, sl_err *err)
{
    if (s->failure.code != SL_OK)
        SL_FAIL(err, SL_ERR_STATE, "the engine has failed: %.200s", s->failure.message);
    if (s->draining || s->closing)
        SL_FAIL(err, SL_ERR_STATE, "shutting down: no new requests are taken");
    SL_TRY(count_in(s, t, err));
    t->next_all = s->tickets;
    if (s->tickets)
        s->tickets->prev_all = t;
    s->tickets = t;
    add_command(t);
    return SL_OK;
}

static sl_status submit(sl_service *s, sl_inbox *inbox, const sl_request *request, bool predicts, void *user,
                        sl_ticket **out, sl_err *err)
{
    *out = NULL;
    uint32_t n_choices = predicts ? 1 : SL_MAX(request->n_choices, 1);
    if (n_choices > s->options.max_tickets)
        SL_FAIL(err, SL_ERR_LIMIT, "%u choices, but at most %u requests are taken at once", n_choices,
                s->options.max_tickets);
    sl_ticket *t = calloc(1, sizeof *t);
    if (!t)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a ticket");
    t->service = s;
    t->inbox = inbox;
    t->user = user;
    t->predicts = predicts;
    t->n_choices = n_choices;
    sl_status status = copy_request(t, request, err);
    if (status == SL_OK)
        status = open_events(t, err);
    if (status == SL_OK) {
        pthread_mutex_lock(&s->lock);
        status = enlist(s, t, err);
        pthread_mutex_unlock(&s->lock);
    }
    if (status != SL_OK) {
        drop_ticket(t);
        return status;
    }
    *out = t;
    return SL_OK;
}

sl_status sl_service_submit(sl_service *s, sl_inbox *inbox, const sl_request *request, void *user, sl_ticket **out,
                            sl_err *err)
{
    return submit(s, inbox, request, false, user, out, err);
}

sl_status sl_service_predict(sl_service *s, sl_inbox *inbox, const sl_request *request, void *user, sl_ticket **out,
                             sl_err *err)
{
    return submit(s, inbox, request, true, user, out, err);
}

void *sl_ticket_user(const sl_ticket *ticket)
{
    return ticket->user;
}

/* The next event; false when there is none. The lock is held. */
static bool next_event(sl_ticket *t, sl_ticket_event *out)
{
    static const sl_ticket_kind kinds[] = {[SL_EVENT_TOKEN] = SL_TICKET_TOKEN,
                                           [SL_EVENT_FINISHED] = SL_TICKET_FINISHED,
                                           [SL_EVENT_PROMPT] = SL_TICKET_PROMPT,
                                           [SL_EVENT_EMBEDDING] = SL_TICKET_EMBEDDING};
    if (t->accept_unread) {
        t->accept_unread = false;
        *out = (sl_ticket_event){.kind = t->predicts ? SL_TICKET_PREDICTED : SL_TICKET_ACCEPTED,
                                 .time_us = t->accepted_us,
                                 .wait_us = t->wait_us};
        return true;
    }
    if (!sl_event_ring_pop(&t->ring, &out->event, &out->time_us))
        return false;
    out->kind = kinds[out->event.kind];
    out->wait_us = 0;
    if (out->kind == SL_TICKET_FINISHED)
        out->event = t->ends[out->event.choice].event;
    if (out->kind == SL_TICKET_EMBEDDING) {
        out->event.embedding = t->embedding;
        out->event.n_embedding = t->service->n_embedding;
    }
    return true;
}

bool sl_ticket_next(sl_ticket *t, sl_ticket_event *out)
{
    pthread_mutex_lock(&t->service->lock);
    bool found = next_event(t, out);
    if (!found)
        t->taken = false; /* one that is read without being taken stays where it is */
    pthread_mutex_unlock(&t->service->lock);
    return found;
}

void sl_ticket_cancel(sl_ticket *t)
{
    pthread_mutex_lock(&t->service->lock);
    if (t->state != SL_TICKET_DONE) {
        t->cancelled = true;
        add_command(t);
    }
    pthread_mutex_unlock(&t->service->lock);
}

void sl_ticket_release(sl_ticket *t)
{
    if (!t)
        return;
    sl_service *s = t->service;
    pthread_mutex_lock(&s->lock);
    t->released = true;
    unready(t);
    if (t->state == SL_TICKET_DONE && !t->in_commands) {
        sl_ticket_free(t);
    } else {
        t->cancelled = true;
        add_command(t);
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- from the engine thread ---- */

sl_ticket *sl_ticket_next_command(sl_service *s)
{
    sl_ticket *t = s->commands;
    if (!t)
        return NULL;
    s->commands = t->next_command;
    if (!s->commands)
        s->last_command = &s->commands;
    t->in_commands = false;
    return t;
}

/* The ticket is done with: a released one is freed. The lock is held. */
static void let_go(sl_ticket *t)
{
    t->state = SL_TICKET_DONE;
    if (t->released && !t->in_commands)
        sl_ticket_free(t);
    else
        make_ready(t);
}

void sl_ticket_accept(sl_ticket *t)
{
    sl_service *s = t->service;
    t->accept_unread = true;
    t->accepted_us = sl_clock_us();
    if (t->predicts) {
        let_go(t);
        return;
    }
    s->n_queued -= t->n_choices;
    s->n_active += t->n_choices;
    t->state = SL_TICKET_ACTIVE;
    make_ready(t);
}

bool sl_ticket_add(sl_ticket *t, const sl_event *event, int64_t now_us)
{
    if (t->released || t->overflowed)
        return true;
    if (event->kind == SL_EVENT_EMBEDDING)
        memcpy(t->embedding, event->embedding, event->n_embedding * sizeof *t->embedding);
    t->overflowed = !sl_event_ring_push(&t->ring, event, now_us, t->end_bytes);
    t->service->n_overflow += t->overflowed;
    make_ready(t);
    return !t->overflowed;
}

void sl_ticket_end_choice(sl_ticket *t, const sl_event *event)
{
    sl_service *s = t->service;
    sl_choice_end *end = &t->ends[event->choice];
    end->ended = true;
    end->event = *event;
    end->event.bytes = end->tail;
    end->event.n_bytes = SL_MIN(event->n_bytes, (uint32_t)sizeof end->tail);
    if (end->event.n_bytes > 0)
        memcpy(end->tail, event->bytes, end->event.n_bytes);
    if (t->overflowed) {
        end->event.n_bytes = 0;
        end->event.finish = SL_FINISH_ERROR;
        sl_err_set(&end->event.error, SL_ERR_LIMIT, "the answer was read too slowly: more than %u bytes of it waited",
                   s->options.event_bytes);
    }
    sl_event note = {.request = event->request, .kind = SL_EVENT_FINISHED, .choice = event->choice};
    bool noted = sl_event_ring_push(&t->ring, &note, sl_clock_us(), 0);
    SL_ASSERT(noted); /* no other event takes that room */
    t->end_bytes -= sl_event_ring_event_bytes(0, 0);
    if (!t->predicts)
        *(t->state == SL_TICKET_QUEUED ? &s->n_queued : &s->n_active) -= 1;
    if (++t->n_ended == t->n_choices)
        let_go(t);
    else
        make_ready(t);
}

/* Ends all choices that have not ended. The lock is held. */
void sl_ticket_end(sl_ticket *t, sl_event event)
{
    event.kind = SL_EVENT_FINISHED;
    event.stop_string = -1;
    for (uint32_t i = 0, n_left = t->n_choices - t->n_ended; n_left > 0; i++) { /* the last one may free the ticket */
        if (t->ends[i].ended)
            continue;
        n_left--;
        event.choice = i;
        sl_ticket_end_choice(t, &event);
    }
}
