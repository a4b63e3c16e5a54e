/* HTTP connections on libevent: reads requests, writes answers, keeps the limits and deadlines that guard them. Knows
 * nothing of what is asked. Everything here belongs to the loop's thread. */
#ifndef SL_SERVE_HTTP_H
#define SL_SERVE_HTTP_H

#include "serve/http_parse.h"

#include <event2/event.h>
#include <sys/socket.h>

typedef struct sl_http sl_http;
typedef struct sl_conn sl_conn;

typedef struct sl_http_options {
    uint32_t max_connections; /* idle ones, the longest first, make room for new ones */
    size_t max_body;          /* bytes of one request's body, chunk framing included */
    size_t max_all_bodies;    /* bytes of all bodies that are held */
    int idle_s;               /* an open connection without a request */
    int head_s, body_s;       /* from the first byte of a head or body to its last */
    int write_s;              /* without one byte of an answer being taken */

    /* A head has come, its body not yet: 0, or the status and *message that refuse it, which closes the connection. */
    int (*on_head)(void *user, const sl_http_head *head, const char **message);
    /* The connection itself has answered with an error: on_head's, or one that is none of a request's. */
    void (*on_refused)(void *user, int status);
    /* A whole request; body (n_bytes, NUL behind them) is valid until the call is over unless taken by
     * sl_conn_take_body. The answer may come at once or later. */
    void (*on_request)(void *user, sl_conn *conn, const sl_http_head *head, const char *body, size_t n_bytes);
    /* The client has gone before its answer was complete; call is what sl_conn_set_call gave. conn is no more. */
    void (*on_gone)(void *user, void *call);
    /* A client has taken what was streamed to it, nearly all. */
    void (*on_drained)(void *user, void *call);
    void *user;
} sl_http_options;

/* Listens on an address; the caller closes it, which drops all connections (on_gone is called). SL_ERR_IO says why
 * the address cannot be had. */
SL_WARN_UNUSED sl_status sl_http_open(struct event_base *base, const struct sockaddr *address, socklen_t n_address,
                                      const sl_http_options *options, sl_http **out, sl_err *err);
void sl_http_close(sl_http *http);
/* Drops all connections. */
void sl_http_drop(sl_http *http);

uint16_t sl_http_port(const sl_http *http);
uint32_t sl_http_n_connections(const sl_http *http);

/* From now on every answer closes its connection. */
void sl_http_drain(sl_http *http);
/* Connections to which something waits to be sent. */
uint32_t sl_http_n_unsent(const sl_http *http);

/* What on_gone and on_drained get; NULL for nothing. */
void sl_conn_set_call(sl_conn *conn, void *call);

/* The body becomes the caller's to free; its bytes count as held until sl_http_body_freed. */
char *sl_conn_take_body(sl_conn *conn);
void sl_http_body_freed(sl_http *http, size_t n_bytes);

/* Answers. headers: further header lines, each with its line end; NULL = none. The connection's call is forgotten. */
void sl_conn_reply(sl_conn *conn, int status, const char *headers, const char *type, const char *body, size_t n_bytes);

/* Answers piece by piece as server-sent events. bytes go out as they are. */
void sl_conn_stream_begin(sl_conn *conn, const char *headers);
void sl_conn_stream(sl_conn *conn, const char *bytes, size_t n_bytes);
void sl_conn_stream_end(sl_conn *conn);

/* True when more is waiting to be sent than should: come back at on_drained. */
bool sl_conn_is_full(const sl_conn *conn);

/* Answers with an OpenAI-style error object; the connection's own errors look alike. retry_s > 0: Retry-After. */
void sl_conn_reply_error(sl_conn *conn, int status, const char *code, const char *param, int retry_s,
                         const char *message);
/* The same for 405: allow names the methods that the path has. */
void sl_conn_reply_method(sl_conn *conn, const char *allow, const char *message);

#endif
