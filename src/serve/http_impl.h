/* What the files of the HTTP layer share: the listener and its connections. Loop thread. */
#ifndef SL_SERVE_HTTP_IMPL_H
#define SL_SERVE_HTTP_IMPL_H

#include "serve/http.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>

typedef enum sl_conn_state {
    SL_CONN_HEAD, /* a request may come, or is coming */
    SL_CONN_BODY,
    SL_CONN_WORKING,  /* its answer is being made */
    SL_CONN_FLUSHING, /* the last answer is on its way; what comes in is thrown away */
    SL_CONN_LINGERING /* it is sent; see linger() */
} sl_conn_state;

/* Connections in the order in which they came here. */
typedef struct sl_conn_queue {
    sl_conn *first, *last;
} sl_conn_queue;

struct sl_conn {
    sl_http *http;
    sl_conn *next, *prev;
    sl_conn_queue *queue; /* the one it stands in; NULL = none */
    sl_conn *after, *before;
    int64_t since_us; /* when it came there */
    struct bufferevent *bev;
    struct evbuffer *ahead; /* all input that is still answered, where more came than may be read ahead; else NULL */
    struct event *timer;
    sl_conn_state state;
    bool advancing, dead, reading_head;
    bool deaf;        /* nothing is read: see listen_or_not() */
    bool half_closed; /* the client sends no more */
    bool turned_away; /* beyond the most connections: here for a 503 alone */
    size_t scanned, n_wire;
    sl_http_head head;
    sl_http_chunks chunks;
    char *body;
    size_t n_body, capacity;
    void *call;
};

struct sl_http {
    sl_http_options options;
    struct event_base *base;
    struct evconnlistener *listener;
    struct event *resume;
    sl_conn *conns;
    uint32_t n_conns, n_turned_away;
    /* Who makes room for others. idle: without a request, and with nothing to send. owing: the client has still to send
     * of a head or body, or to close; a head stands there since its first byte, a body since its last one that came. */
    sl_conn_queue idle, owing;
    size_t held; /* bytes of bodies */
    bool draining;
};

/* http_reply.c: the words of a status. */
const char *sl_http_reason(int status);

/* http.c: the answer is written; on to the next request, or the end. conn may be no more. */
void sl_conn_answered(sl_conn *conn);

static inline struct evbuffer *sl_conn_output(const sl_conn *conn)
{
    return bufferevent_get_output(conn->bev);
}

#endif
