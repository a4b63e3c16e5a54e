/* The service: an engine on a thread of its own, and tickets by which any thread talks to it.
 *
 * A submitted request is a ticket. Two queues lie between its holder and the engine thread, both bounded:
 *   in   new and cancelled tickets. At most max_tickets exist at once, finished ones that nobody released included; then
 *        submit is refused with SL_ERR_LIMIT. A ticket of n choices counts as n. A cancel needs no room: a ticket stands
 *        in the queue once.
 *   out  each ticket has a ring of its own for its events, of at most event_bytes for each choice (and what the
 *        log-probabilities of its prompt take), so that a slow reader fills nobody else's and the engine never waits.
 *        When a token finds no room, the ticket's request is ended with SL_FINISH_ERROR and SL_ERR_LIMIT; what had found
 *        room can still be read.
 * Tickets with something to read stand in the inbox they were submitted for, each once.
 *
 * All functions may be called from any thread, with two exceptions: a ticket is read and released by one thread at a
 * time, and close comes last. None of them waits for the engine's work. */
#ifndef SL_APP_SERVICE_H
#define SL_APP_SERVICE_H

#include "app/bundle.h"

typedef struct sl_service sl_service;
typedef struct sl_inbox sl_inbox;
typedef struct sl_ticket sl_ticket;

typedef struct sl_service_options {
    sl_engine_options engine;
    uint32_t max_tickets; /* 0 = 512 */
    uint32_t event_bytes; /* most bytes of unread events of a choice; 0 = 64 KiB */
    int64_t hang_us;      /* a step that takes longer is a hung engine; 0 = a minute */
    bool pin;             /* keep each worker, the engine thread among them, on a CPU of its own */
} sl_service_options;

/* Shortens the context to what options' kv_bytes can hold of one request, with a warning in the log, so that a request which
 * could never run is refused as too long for the context. Nothing happens without kv_bytes or context. Errors of
 * sl_engine_measure. */
SL_WARN_UNUSED sl_status sl_service_fit_context(const sl_bundle *bundle, sl_engine_options *options, sl_err *err);

/* Opens an engine on the bundle's model and starts its thread, which also is worker 0 of the bundle's pool: nobody else
 * may use that pool meanwhile. Its context is shortened as sl_service_fit_context does. The bundle must outlive the
 * service; what the engine learns of the time its steps take is kept with it (sl_bundle_open_engine). Errors of
 * sl_engine_open and sl_threads_pin. */
SL_WARN_UNUSED sl_status sl_service_open(const sl_bundle *bundle, const sl_service_options *options, sl_service **out,
                                         sl_err *err);

/* Ends all requests after the step that runs, and the thread. Tickets must have been released and inboxes closed. */
void sl_service_close(sl_service *service);

/* Called when an inbox that was empty has a ticket, from the engine thread with the service's lock held: it may only
 * leave a sign (write to an eventfd, signal a condition variable) and must not call the service. */
typedef void sl_wake_fn(void *user);

/* An inbox; wake may be NULL. Closed by the caller once all tickets submitted for it are released. */
SL_WARN_UNUSED sl_status sl_inbox_open(sl_service *service, sl_wake_fn *wake, void *user, sl_inbox **out, sl_err *err);
void sl_inbox_close(sl_inbox *inbox);

/* Next ticket that has something to read; NULL when there is none. It comes again only after sl_ticket_next has found
 * nothing more. A ticket may also be read without having been taken; it may then be offered with nothing to read. */
sl_ticket *sl_inbox_take(sl_inbox *inbox);

/* Submits a request; everything it points to is copied. Its on_event and user are not used (user of the ticket is);
 * on_logits is called on the engine thread with the ticket's user. Refused at once: SL_ERR_LIMIT (too many tickets),
 * SL_ERR_STATE (draining, or the engine has failed), SL_ERR_NOMEM. What the engine itself refuses comes as the ticket's
 * first events, FINISHED of each choice without ACCEPTED. The caller releases *out. */
SL_WARN_UNUSED sl_status sl_service_submit(sl_service *service, sl_inbox *inbox, const sl_request *request, void *user,
                                           sl_ticket **out, sl_err *err);

/* Asks how long the request would wait for its first token (sl_engine_predict), without queueing it; also when there are
 * too many tickets. The only event is PREDICTED, or FINISHED with the engine's reason to refuse such a request. A few
 * predictions at a time: SL_ERR_LIMIT beyond that; the other errors of sl_service_submit. */
SL_WARN_UNUSED sl_status sl_service_predict(sl_service *service, sl_inbox *inbox, const sl_request *request, void *user,
                                            sl_ticket **out, sl_err *err);

typedef enum sl_ticket_kind {
    SL_TICKET_ACCEPTED,  /* the engine has checked and queued the request; first of all, once */
    SL_TICKET_PREDICTED, /* of sl_service_predict: wait_us */
    SL_TICKET_PROMPT,    /* of choice 0, before any token, as request.prompt_logprobs asks */
    SL_TICKET_TOKEN,
    SL_TICKET_EMBEDDING, /* of choice 0, before its end, as request.pooling asks */
    SL_TICKET_FINISHED,  /* the last one of event.choice; each choice has one */
} sl_ticket_kind;

typedef struct sl_ticket_event {
    sl_ticket_kind kind;
    int64_t time_us; /* when the engine thread noted it */
    int64_t wait_us; /* PREDICTED */
    sl_event event;  /* PROMPT, TOKEN, EMBEDDING, FINISHED: the engine's. Its bytes are valid until the next event is
                        read, its embedding until the ticket is released */
} sl_ticket_event;

void *sl_ticket_user(const sl_ticket *ticket);

/* Oldest unread event of all choices; false when there is none now. */
SL_WARN_UNUSED bool sl_ticket_next(sl_ticket *ticket, sl_ticket_event *out);

/* Ends the request before the engine's next step; its FINISHED event comes as ever. */
void sl_ticket_cancel(sl_ticket *ticket);

/* Gives the ticket back, read to its end or not; a request that still runs is cancelled. */
void sl_ticket_release(sl_ticket *ticket);

/* From now on submit is refused with SL_ERR_STATE; what was submitted goes on. */
void sl_service_drain(sl_service *service);

typedef struct sl_service_stats {
    uint32_t n_tickets; /* not yet released; one of n choices counts as n, here and in the next two */
    uint32_t n_waiting; /* submitted, not yet worked on */
    uint32_t n_running;
    uint64_t n_refused;          /* submits refused for want of a ticket */
    uint64_t n_overflow;         /* requests ended because their events were not read */
    sl_engine_statistics engine; /* after its last step, with the ends that it has told since */
} sl_service_stats;
void sl_service_get_stats(sl_service *service, sl_service_stats *out);

/* SL_OK while the engine thread does its work. SL_ERR_STATE with the reason when the engine has failed, or when it has
 * had work for more than hang_us at now_us (CLOCK_MONOTONIC) and no step has ended. */
SL_WARN_UNUSED sl_status sl_service_health(sl_service *service, int64_t now_us, sl_err *err);

/* Most tokens of a request, prompt and answer; less than the options say where kv_bytes hold less. */
uint32_t sl_service_context(const sl_service *service);

/* Floats of an embedding. */
uint32_t sl_service_embedding_length(const sl_service *service);

/* Saves what the engine has learned (app/cost_cache.h), as close does. It may wait for the disk: not for a loop. */
void sl_service_save_cost(sl_service *service);

#endif
