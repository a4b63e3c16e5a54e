#include "app/service.h"

#include "app/event_ring.h"
#include "base/arena.h"
#include "base/clock.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    DEFAULT_TICKETS = 512,
    DEFAULT_EVENT_BYTES = 1 << 16,
    MAX_TICKETS = 1 << 20,
    MAX_PREDICTIONS = 4, /* at a time; each may take as long as ordering all that waits */
    COST_STEPS = 256,    /* the copy of the cost model is at most so many steps old */
};
static const int64_t default_hang_us = 60 * 1000000LL;

typedef enum { QUEUED, ACTIVE, DONE } ticket_state; /* not yet with the engine, with it, given back by it */

/* The end of one choice. */
typedef struct {
    bool ended;
    sl_event event;
    char tail[SL_MAX_STOP_BYTES]; /* its bytes: what was held back for a stop string that did not come */
} choice_end;

struct sl_ticket {
    sl_service *service;
    sl_inbox *inbox;
    void *user;
    sl_ticket *next_all, *prev_all;
    sl_ticket *next_command, *next_ready;
    ticket_state state;
    bool in_commands, in_inbox, taken, cancelled, released, overflowed; /* taken: from the inbox, not read to its end */
    bool predicts;      /* of sl_service_predict: counts nowhere but in n_predictions */
    bool accept_unread; /* ACCEPTED or PREDICTED */
    int64_t accepted_us, wait_us;
    sl_request request; /* until the engine has it; points into copies */
    sl_arena copies;
    uint64_t id; /* the engine's */
    uint32_t n_choices, n_ended;
    choice_end *ends; /* n_choices */
    float *embedding; /* NULL unless one is wanted */
    sl_event_ring ring;
    size_t end_bytes; /* of the ring, that the ends of all choices take */
};

struct sl_inbox {
    sl_service *service;
    sl_wake_fn *wake;
    void *user;
    sl_ticket *first, **last;
};

/* One lock for everything: it is held for a few memory accesses at a time, the longest being a token's record. */
struct sl_service {
    sl_service_options options;
    const sl_bundle *bundle;
    sl_engine *engine;
    sl_threads *pool;
    const sl_token_bytes *token_bytes;
    uint32_t context, n_embedding;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;
    bool started, draining, closing, working;
    int64_t beat_us;    /* start of the step that runs, or when work arrived */
    sl_ticket *tickets; /* all that are not freed */
    sl_ticket *commands, **last_command;
    sl_err failure;                         /* code SL_OK: none */
    uint32_t n_tickets, n_queued, n_active; /* choices, not the predictions */
    uint32_t n_predictions;
    uint64_t n_refused, n_overflow;
    sl_engine_statistics engine_stats; /* after the last step */
    sl_cost cost;                      /* as it was after cost_steps steps */
    uint64_t cost_steps;
};

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
    for (sl_ticket **link = &inbox->first; *link; link = &(*link)->next_ready) {
        if (*link != t)
            continue;
        *link = t->next_ready;
        if (!*link)
            inbox->last = link;
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

/* Unlinks and frees a ticket that both its holder and the engine have let go. The lock is held. */
static void free_ticket(sl_ticket *t)
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
    if (t->state != DONE) {
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
    if (t->state == DONE && !t->in_commands) {
        free_ticket(t);
    } else {
        t->cancelled = true;
        add_command(t);
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- the engine thread ---- */

/* The ticket is done with: a released one is freed. The lock is held. */
static void let_go(sl_ticket *t)
{
    t->state = DONE;
    if (t->released && !t->in_commands)
        free_ticket(t);
    else
        make_ready(t);
}

/* Ends a choice with an event; when it is the last one, a released ticket is freed. The lock is held. */
static void end_choice(sl_ticket *t, const sl_event *event)
{
    sl_service *s = t->service;
    choice_end *end = &t->ends[event->choice];
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
        *(t->state == QUEUED ? &s->n_queued : &s->n_active) -= 1;
    if (++t->n_ended == t->n_choices)
        let_go(t);
    else
        make_ready(t);
}

/* Ends all choices that have not ended. The lock is held. */
static void end_ticket(sl_ticket *t, sl_event event)
{
    event.kind = SL_EVENT_FINISHED;
    event.stop_string = -1;
    for (uint32_t i = 0, n_left = t->n_choices - t->n_ended; n_left > 0; i++) { /* the last one may free the ticket */
        if (t->ends[i].ended)
            continue;
        n_left--;
        event.choice = i;
        end_choice(t, &event);
    }
}

/* The engine's events of a ticket, during a step. */
static void on_event(void *user, const sl_event *event)
{
    sl_ticket *t = user;
    sl_service *s = t->service;
    int64_t now_us = sl_clock_us();
    bool overflow = false;
    pthread_mutex_lock(&s->lock);
    if (event->kind == SL_EVENT_FINISHED) {
        end_choice(t, event);
    } else if (!t->released && !t->overflowed) {
        if (event->kind == SL_EVENT_EMBEDDING)
            memcpy(t->embedding, event->embedding, event->n_embedding * sizeof *t->embedding);
        t->overflowed = overflow = !sl_event_ring_push(&t->ring, event, now_us, t->end_bytes);
        s->n_overflow += overflow;
        make_ready(t);
    }
    pthread_mutex_unlock(&s->lock);
    if (overflow)
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

/* The engine has looked at a request and found it good, or refused it. The lock is held. */
static void note_verdict(sl_ticket *t, const sl_err *refusal)
{
    sl_service *s = t->service;
    if (refusal) {
        sl_event event = {.finish = refusal->code == SL_ERR_CANCELLED ? SL_FINISH_CANCELLED : SL_FINISH_ERROR,
                          .error = *refusal,
                          .n_prompt = (uint32_t)t->request.n_prompt};
        end_ticket(t, event);
        return;
    }
    t->accept_unread = true;
    t->accepted_us = sl_clock_us();
    if (t->predicts) {
        let_go(t);
        return;
    }
    s->n_queued -= t->n_choices;
    s->n_active += t->n_choices;
    t->state = ACTIVE;
    make_ready(t);
}

static void begin_ticket(sl_service *s, sl_ticket *t, bool cancelled)
{
    sl_err err = {0};
    if (cancelled)
        sl_err_set(&err, SL_ERR_CANCELLED, "cancelled");
    else if (s->failure.code != SL_OK)
        err = s->failure;
    bool good = err.code == SL_OK && hand_over(t, &err) == SL_OK;
    pthread_mutex_lock(&s->lock);
    note_verdict(t, good ? NULL : &err);
    pthread_mutex_unlock(&s->lock);
}

/* Does what the queue in says: new tickets go to the engine, cancelled ones are ended. */
static void do_commands(sl_service *s)
{
    for (;;) {
        pthread_mutex_lock(&s->lock);
        sl_ticket *t = s->commands;
        if (!t) {
            pthread_mutex_unlock(&s->lock);
            return;
        }
        s->commands = t->next_command;
        if (!s->commands)
            s->last_command = &s->commands;
        t->in_commands = false;
        bool cancelled = t->cancelled;
        ticket_state state = t->state;
        uint64_t id = t->id;
        if (state == DONE && t->released)
            free_ticket(t);
        pthread_mutex_unlock(&s->lock);
        if (state == QUEUED)
            begin_ticket(s, t, cancelled);
        else if (state == ACTIVE && cancelled)
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
        if (t->state == ACTIVE)
            end_ticket(t, (sl_event){.finish = SL_FINISH_ERROR, .error = *failure});
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

sl_status sl_service_open(const sl_bundle *bundle, const sl_service_options *options, sl_service **out, sl_err *err)
{
    *out = NULL;
    if (options->max_tickets > MAX_TICKETS || options->hang_us < 0)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%u tickets (0 to %d) or a negative time to hang", options->max_tickets,
                MAX_TICKETS);
    sl_service *s = calloc(1, sizeof *s);
    if (!s)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a service");
    s->options = *options;
    s->options.max_tickets = options->max_tickets ? options->max_tickets : DEFAULT_TICKETS;
    s->options.event_bytes = options->event_bytes ? options->event_bytes : DEFAULT_EVENT_BYTES;
    s->options.hang_us = options->hang_us ? options->hang_us : default_hang_us;
    s->options.engine.token_bytes = s->token_bytes = sl_bundle_token_bytes(bundle);
    s->bundle = bundle;
    s->n_embedding = sl_model_get_info(sl_bundle_model(bundle))->n_embd;
    s->pool = sl_bundle_threads(bundle);
    s->last_command = &s->commands;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sl_status status = sl_bundle_open_engine(bundle, &s->options.engine, &s->engine, err);
    if (status == SL_OK) {
        s->context = sl_engine_context(s->engine);
        s->cost = *sl_engine_cost(s->engine);
        sl_engine_stats(s->engine, &s->engine_stats);
        status = start_thread(s, err);
    }
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
        free_ticket(t);
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
