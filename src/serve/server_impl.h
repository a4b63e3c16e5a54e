/* What the files of the server share: the server and its calls. Loop thread, where nothing else is said. */
#ifndef SL_SERVE_SERVER_IMPL_H
#define SL_SERVE_SERVER_IMPL_H

#include "app/jobs.h"
#include "serve/api_request.h"
#include "serve/http.h"
#include "serve/metrics.h"
#include "serve/server.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct sl_call sl_call;

struct sl_server {
    sl_server_options options;
    const sl_bundle *bundle;
    sl_service *service;
    sl_inbox *inbox;
    sl_jobs *jobs;
    struct event_base *base;
    sl_http *http;
    struct event *wake, *signals[2], *poll, *save;
    int wake_fd;
    bool guarded; /* only programs of this machine may ask, no pages of other sites: see origin.h */
    char address[80], fingerprint[64];
    int64_t started_s; /* wall clock */
    sl_metrics metrics;
    uint32_t n_calls, n_signals;
    int64_t drain_end_us;            /* when those that still run are cut off */
    uint32_t n_cut_off, n_not_taken; /* then: calls that ran, and connections that had not taken their answer */
    bool overdue;                    /* there were such */
    int retry_s;                     /* when the client that was refused last should come back */
    uint64_t last_call, nonce;
    pthread_mutex_t done_lock;
    sl_call *done;      /* calls whose text job has ended; under done_lock */
    size_t n_collected; /* bytes of answers that are not streamed and not complete; loop thread */
};

/* One answer of a call, or the embedding of one of its inputs. */
typedef struct sl_choice {
    sl_call *call;
    uint32_t index;
    sl_detok detok;
    bool finished;
    /* What has not been sent yet; without streaming, all of it. */
    sl_textbuf text;                                  /* as the inside of a JSON string; an embedding's object */
    sl_textbuf logprobs;                              /* comma-separated: content of a chat, tokens of a completion */
    sl_textbuf token_logprobs, top_logprobs, offsets; /* a completion's further lists */
    uint64_t n_chars;                                 /* of the tokens so far */
    bool at_start;                                    /* a space that begins the text is not shown */
    int64_t last_us;                                  /* when the last token came; 0 = none yet */
    sl_event end;
} sl_choice;

/* What the engine gets of a call as one request: choices of a prompt, or one input to embed. */
typedef struct sl_part {
    sl_call *call;
    sl_ticket *ticket; /* NULL: not submitted yet, or read to its end */
    uint32_t first, n; /* its choices */
    uint32_t n_finished;
    bool accepted;
    size_t n_collected; /* bytes of its answers so far, where they are not streamed */
} sl_part;

/* A request to generate or embed, from its arrival to the last byte of its answer. */
struct sl_call {
    sl_server *server;
    sl_conn *conn;         /* NULL: the client has gone */
    atomic_bool abandoned; /* the same, for the text thread */
    sl_call *next_done;
    sl_api_kind kind;
    uint64_t tenant;
    char *body;
    size_t n_body;
    sl_api_request request; /* filled by the text job, as are: */
    sl_status status;
    sl_api_error error;
    bool in_job, begun, paused; /* begun: status and headers are out; paused: the client does not keep up */
    bool quiet;                 /* nothing was sent since the timer ran */
    struct event *timer;        /* of a stream: tells the client that it is still worked on */
    int64_t arrived_us;
    int64_t created;
    char id[48];
    sl_textbuf head, chunk; /* first part of each chunk; the one that is being written */
    sl_choice *choices;
    sl_part *parts;
    uint32_t n_choices, n_finished;
    uint32_t n_parts, n_submitted, n_accepted; /* parts go to the engine in order */
};

/* ---- call.c ---- */

/* Begins a call with the connection's request. */
void sl_call_begin(sl_server *server, sl_conn *conn, sl_api_kind kind, uint64_t tenant, size_t n_body);
/* The text job of a call has ended. */
void sl_call_prepared(sl_call *call);
/* The client has gone. */
void sl_call_abandon(sl_call *call);
/* Reads what a part's ticket has, as far as the client keeps up. False when that ended the call. */
bool sl_call_read(sl_part *part);
/* The client has taken what waited for it. */
void sl_call_drained(sl_call *call);

/* ---- reply.c: the JSON of answers ---- */

/* Writes what all chunks, or the whole answer, of a call begin with. */
void sl_reply_head(sl_call *call);
/* First chunk of a chat's choice: the role. */
void sl_reply_role(sl_choice *choice);
/* Adds a token's log-probabilities to what is not sent yet. */
void sl_reply_token(sl_choice *choice, const sl_sampled *sampled, bool of_prompt);
/* Adds an echoed prompt's text, and its first token, which has no log-probability. */
void sl_reply_echo(sl_choice *choice, const sl_tokens *prompt, sl_bytes text);
/* Writes a chunk of the choice's text and log-probabilities that are not sent yet, if there are any. */
void sl_reply_chunk(sl_choice *choice);
/* Last chunk of a choice. */
void sl_reply_finish(sl_choice *choice);
/* Sends the chunks that are written. */
void sl_reply_send(sl_call *call);
/* Ends a stream: usage, if wanted, and [DONE]; or sends the whole answer. */
void sl_reply_end(sl_call *call);
/* Sends the answer that stands in chunk; failed: memory was short for it. */
void sl_reply_whole(sl_call *call, bool failed);
/* Ends a stream with an error. */
void sl_reply_stream_error(sl_call *call, const char *message);

/* ---- reply_embedding.c ---- */

/* Writes an input's embedding into its choice. */
void sl_reply_embedding(sl_choice *choice, const float *embedding, uint32_t n);
/* Sends the whole answer. */
void sl_reply_embeddings(sl_call *call);

/* ---- server.c ---- */

/* Counts an answer's status and sends the error. retry_s as sl_conn_reply_error. */
void sl_server_refuse(sl_server *server, sl_conn *conn, int status, const char *code, const char *param, int retry_s,
                      const char *message);
/* Counts an answer of that status. */
void sl_server_count(sl_server *server, int status);
/* Hands a call whose text job has ended to the loop. Any thread. */
void sl_server_call_done(sl_server *server, sl_call *call);
/* True when the model may be asked for by that name. */
bool sl_server_has_model(const sl_server *server, const char *name);

#endif
