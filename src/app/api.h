/* Inside of the public API (include/sluice/sluice.h): what the files api_*.c share. Handles are thin: a model is a bundle
 * with a count of references, a runner a service with one thread for callbacks, a stream a ticket with a detokenizer. */
#ifndef SL_APP_API_H
#define SL_APP_API_H

#include "app/service.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- options that begin with their size (api_options.c) ---- */

/* Copies given over the defaults in own (n_own bytes), whatever version of the struct the caller was compiled with; NULL
 * changes nothing. what is the struct's name. SL_ERR_ARGUMENT, SL_ERR_UNSUPPORTED: see sluice.h. */
SL_WARN_UNUSED sl_status sl_sized_read(const void *given, void *own, size_t n_own, const char *what, sl_err *err);

/* Fills the caller's struct, which says its size, from ours. The same errors. */
SL_WARN_UNUSED sl_status sl_sized_write(void *out, const void *own, size_t n_own, const char *what, sl_err *err);

/* ---- a sign that one thread waits for (api_sign.c) ---- */

typedef struct sl_sign {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool raised;
} sl_sign;

void sl_sign_init(sl_sign *sign);
void sl_sign_destroy(sl_sign *sign);
void sl_sign_raise(void *sign); /* an sl_wake_fn */
/* Waits until it is raised and takes it down; false when that has not happened by until_us (sl_clock_us; negative: waits
 * without end). */
bool sl_sign_wait(sl_sign *sign, int64_t until_us);
/* timeout_us from now, as sl_sign_wait takes it. */
int64_t sl_sign_deadline(int64_t timeout_us);

/* ---- models (api_llm.c) ---- */

struct sl_llm {
    atomic_uint n_refs;
    atomic_bool has_runner; /* its pool of threads takes one engine */
    sl_bundle *bundle;
};

/* ---- queries in the engine's words (api_query.c) ---- */

typedef struct sl_asked {
    sl_request request; /* without on_event and user; points into the query and the tokens below */
    sl_tokens prompt, stops;
} sl_asked;

/* Appends the tokens of a conversation, after a look at the caller's array. Errors of sl_bundle_chat_tokens. */
SL_WARN_UNUSED sl_status sl_messages_tokens(const sl_bundle *bundle, const sl_message *messages, size_t n_messages,
                                            sl_tokens *out, sl_err *err);

/* Checks a query against the model and the runner, and tokenizes its prompt. Errors of sl_runner_submit. The caller closes
 * *out, whatever the status. */
SL_WARN_UNUSED sl_status sl_asked_open(const sl_runner *runner, const sl_query *query, sl_asked *out, sl_err *err);
void sl_asked_close(sl_asked *asked);

/* ---- runners (api_runner.c) ---- */

struct sl_runner {
    atomic_uint n_refs; /* the caller's and one of each stream */
    sl_llm *llm;
    sl_service *service;
    sl_inbox *inbox; /* of queries with callbacks */
    sl_sign sign;    /* wakes their thread */
    pthread_t thread;
    bool started;
    uint32_t n_sequences;
    sl_sign ended;        /* a query with a callback has told its last output */
    pthread_mutex_t lock; /* of all below; taken before any lock of the service */
    sl_stream *streams;   /* all that there are */
    uint32_t n_callbacks; /* of these, with callbacks */
    uint64_t last_id;
    bool closing;
};

/* Gives a reference back; the last one ends the engine. */
void sl_runner_release(sl_runner *runner);

/* ---- streams (api_stream.c): also what a query with a callback is inside ---- */

struct sl_stream {
    sl_runner *runner;
    sl_stream *next, *prev;
    sl_stream *next_turn; /* of those that wait for the callback thread */
    uint64_t id;
    sl_output_fn *on_output; /* NULL: it is pulled, and has an inbox of its own and a reference to the runner */
    void *user;
    sl_ticket *ticket;
    sl_inbox *inbox;
    sl_sign sign;
    uint32_t n_choices, n_ended;
    sl_detok *detoks;      /* n_choices */
    bool short_of_memory;  /* to make text: the query ends with an error */
    char *end_text;        /* of the choice that ended last */
    sl_ticket_event event; /* what output is made of */
    sl_err error;
    sl_output output;
};

/* Tells the next output of a query with a callback; false when there is none, or it was the last and the query has been
 * freed. On the callback thread. */
SL_WARN_UNUSED bool sl_stream_tell(sl_stream *stream);

#endif
