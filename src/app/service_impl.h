/* Inside of the service: what ticket.c (the queues: requests in, events out) and service.c (the engine thread, opening
 * and closing) share. */
#ifndef SL_APP_SERVICE_IMPL_H
#define SL_APP_SERVICE_IMPL_H

#include "app/event_ring.h"
#include "app/service.h"
#include "base/arena.h"

#include <pthread.h>

/* Not yet with the engine, with it, given back by it. */
typedef enum sl_ticket_state { SL_TICKET_QUEUED, SL_TICKET_ACTIVE, SL_TICKET_DONE } sl_ticket_state;

/* The end of one choice. */
typedef struct sl_choice_end {
    bool ended;
    sl_event event;
    char tail[SL_MAX_STOP_BYTES]; /* its bytes: what was held back for a stop string that did not come */
} sl_choice_end;

struct sl_ticket {
    sl_service *service;
    sl_inbox *inbox;
    void *user;
    sl_ticket *next_all, *prev_all;
    sl_ticket *next_command, *next_ready;
    sl_ticket_state state;
    bool in_commands, in_inbox, taken, cancelled, released, overflowed; /* taken: from the inbox, not read to its end */
    bool predicts;      /* of sl_service_predict: counts nowhere but in n_predictions */
    bool accept_unread; /* ACCEPTED or PREDICTED */
    int64_t accepted_us, wait_us;
    sl_request request; /* until the engine has it; points into copies */
    sl_arena copies;
    uint64_t id; /* the engine's */
    uint32_t n_choices, n_ended;
    sl_choice_end *ends; /* n_choices */
    float *embedding;    /* NULL unless one is wanted */
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
    sl_engine_statistics engine_stats; /* after the last step, with the ends told since */
    sl_cost cost;                      /* as it was after cost_steps steps */
    uint64_t cost_steps;
};

/* ---- ticket.c: what the engine thread does with tickets, the lock held ---- */

/* Takes the oldest ticket out of the queue in; NULL when it is empty. */
sl_ticket *sl_ticket_next_command(sl_service *service);
/* The engine has accepted the request, or predicted its wait (then the ticket is done). */
void sl_ticket_accept(sl_ticket *ticket);
/* Notes an event other than FINISHED. False when the reader has left no room for it: the request is to be cancelled. */
SL_WARN_UNUSED bool sl_ticket_add(sl_ticket *ticket, const sl_event *event, int64_t now_us);
/* Ends a choice with an event; when it is the last one, a released ticket is freed. */
void sl_ticket_end_choice(sl_ticket *ticket, const sl_event *event);
/* Ends all choices that have not ended. */
void sl_ticket_end(sl_ticket *ticket, sl_event event);
/* Unlinks and frees a ticket that both its holder and the engine have let go. */
void sl_ticket_free(sl_ticket *ticket);

#endif
