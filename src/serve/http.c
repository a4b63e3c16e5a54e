#define _GNU_SOURCE
#include "serve/http_impl.h"

#include "base/clock.h"

#include <errno.h>
#include <event2/listener.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    READ_AHEAD = 64 << 10,  /* bytes of input that may lie behind a request that is worked on */
    NEARLY_EMPTY = 8 << 10, /* bytes of output left when a connection is full no more */
    LINGER_S = 2,           /* an answer that closes may be read this long while the client still sends */
    PAUSE_MS = 100,         /* no accepts for so long when descriptors run out */
    OWING_MS = 1000,        /* for so long a client that owes something keeps its place when there is no other */
    MOST_LOOKS = 32,        /* connections looked at to find one that can make room */
    MOST_TURNED_AWAY = 32,  /* connections beyond the most, each with its 503; further ones are just closed */
    PROBE_IDLE_S = 60,      /* TCP asks a silent client whether it is there … */
    PROBE_INTERVAL_S = 10,
    N_PROBES = 3, /* … so often */
};

static void advance(sl_conn *conn);

/* ---- who makes room for others ---- */

static void leave_queue(sl_conn *conn)
{
    sl_conn_queue *queue = conn->queue;
    if (!queue)
        return;
    *(conn->before ? &conn->before->after : &queue->first) = conn->after;
    *(conn->after ? &conn->after->before : &queue->last) = conn->before;
    conn->queue = NULL;
    conn->before = conn->after = NULL;
}

/* Puts a connection into the queue that its state belongs to; a body's sender goes to the end with each piece. */
static void requeue(sl_conn *conn)
{
    sl_conn_queue *queue = NULL;
    bool counts = !conn->turned_away && evbuffer_get_length(sl_conn_output(conn)) == 0;
    if (counts && conn->state == SL_CONN_HEAD && !conn->reading_head)
        queue = &conn->http->idle;
    else if (counts && conn->state != SL_CONN_WORKING)
        queue = &conn->http->owing;
    if (queue && queue == conn->queue && conn->state != SL_CONN_BODY)
        return;
    leave_queue(conn);
    if (!queue)
        return;
    conn->since_us = sl_clock_us();
    conn->queue = queue;
    conn->before = queue->last;
    *(queue->last ? &queue->last->after : &queue->first) = conn;
    queue->last = conn;
}

/* True when bytes have come that were not read yet. */
static bool has_sent(const sl_conn *conn)
{
    char byte;
    return recv(bufferevent_getfd(conn->bev), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* The connection that may be closed for a new one: the longest idle, else the one that has owed something for longest. */
static sl_conn *dispensable(const sl_http *http)
{
    sl_conn *conn = http->idle.first;
    for (int n = 0; conn && has_sent(conn); n++)
        conn = n < MOST_LOOKS ? conn->after : NULL;
    if (conn)
        return conn;
    conn = http->owing.first;
    return conn && sl_clock_us() - conn->since_us >= OWING_MS * 1000 ? conn : NULL;
}

/* ---- life of a connection ---- */

static void set_timer(sl_conn *conn, int seconds)
{
    struct timeval delay = {.tv_sec = seconds};
    if (seconds > 0)
        event_add(conn->timer, &delay);
    else
        event_del(conn->timer);
}

static void free_body(sl_conn *conn)
{
    conn->http->held -= conn->capacity;
    free(conn->body);
    conn->body = NULL;
    conn->n_body = conn->capacity = 0;
}

/* libevent itself would close the descriptor only when its loop comes round: too late for one that makes room. */
static void close_socket(struct bufferevent *bev)
{
    evutil_socket_t fd = bufferevent_getfd(bev);
    bufferevent_setfd(bev, -1);
    bufferevent_free(bev);
    if (fd >= 0)
        close(fd);
}

static void free_conn(sl_conn *conn)
{
    sl_http *http = conn->http;
    void *call = conn->call;
    *(conn->prev ? &conn->prev->next : &http->conns) = conn->next;
    if (conn->next)
        conn->next->prev = conn->prev;
    http->n_conns--;
    http->n_turned_away -= conn->turned_away;
    leave_queue(conn);
    free_body(conn);
    if (conn->ahead)
        evbuffer_free(conn->ahead);
    if (conn->bev)
        close_socket(conn->bev);
    if (conn->timer)
        event_free(conn->timer);
    free(conn);
    if (call)
        http->options.on_gone(http->options.user, call);
}

/* Frees the connection now, or when the functions that work on it have returned. */
static void close_conn(sl_conn *conn)
{
    conn->dead = true;
    if (!conn->advancing)
        free_conn(conn);
}

/* All is sent: tells the client so, and reads on for a while what it may still send, since closing a socket with unread
 * input can destroy the answer on its way. */
static void linger(sl_conn *conn)
{
    shutdown(bufferevent_getfd(conn->bev), SHUT_WR);
    conn->state = SL_CONN_LINGERING;
    set_timer(conn, LINGER_S);
}

/* A client that does not take its answers is not read on for the next requests. libevent's watermark alone would call
 * on_read over and over as long as the input stays at it. */
static void listen_or_not(sl_conn *conn)
{
    bool enough = evbuffer_get_length(bufferevent_get_input(conn->bev)) >= READ_AHEAD;
    if (enough == conn->deaf || conn->half_closed)
        return;
    conn->deaf = enough;
    (enough ? bufferevent_disable : bufferevent_enable)(conn->bev, EV_READ);
}

/* No further request is read: the connection ends when all is sent. */
static void flush(sl_conn *conn)
{
    conn->state = SL_CONN_FLUSHING;
    set_timer(conn, 0);
    free_body(conn);
    evbuffer_drain(bufferevent_get_input(conn->bev), SIZE_MAX);
    listen_or_not(conn);
    if (evbuffer_get_length(sl_conn_output(conn)) == 0)
        linger(conn);
    requeue(conn);
}

void sl_conn_answered(sl_conn *conn)
{
    conn->call = NULL;
    if (!conn->head.keep_alive || conn->http->draining) {
        flush(conn);
        return;
    }
    free_body(conn);
    conn->state = SL_CONN_HEAD;
    conn->reading_head = false;
    conn->scanned = 0;
    set_timer(conn, conn->http->options.idle_s);
    advance(conn);
}

void sl_conn_set_call(sl_conn *conn, void *call)
{
    conn->call = call;
}

/* An error after which nobody knows where the next request begins. */
static bool refuse(sl_conn *conn, int status, const char *message)
{
    sl_http *http = conn->http;
    conn->state = SL_CONN_WORKING;
    conn->head.keep_alive = false;
    http->options.on_refused(http->options.user, status);
    sl_conn_reply_error(conn, status, NULL, NULL, status == 503 ? 1 : 0, message);
    return false;
}

/* ---- reading ---- */

static struct evbuffer *input_of(const sl_conn *conn)
{
    return conn->ahead ? conn->ahead : bufferevent_get_input(conn->bev);
}

/* Reads a head; true when there is more to do with what has arrived. */
static bool read_head(sl_conn *conn)
{
    struct evbuffer *input = input_of(conn);
    size_t n = SL_MIN(evbuffer_get_length(input), (size_t)SL_HTTP_MAX_HEAD + 1);
    if (n == 0 || sl_conn_is_full(conn))
        return false;
    const char *bytes = (const char *)evbuffer_pullup(input, (ev_ssize_t)n);
    if (!conn->reading_head && bytes[0] == '\r' && (n == 1 || bytes[1] == '\n')) {
        if (n > 1) /* RFC 9112 2.2: an empty line in front */
            evbuffer_drain(input, 2);
        return n > 1;
    }
    if (!conn->reading_head) {
        conn->reading_head = true;
        conn->head = (sl_http_head){0};
        set_timer(conn, conn->http->options.head_s);
    }
    size_t length = sl_http_head_length(bytes, n, &conn->scanned);
    if (length == 0)
        return n > SL_HTTP_MAX_HEAD ? refuse(conn, 431, "the headers are too large") : false;
    int status = sl_http_parse_head(bytes, length, &conn->head);
    if (status != 0)
        return refuse(conn, status,
                      status == 400 ? "this is no HTTP request that can be read" : sl_http_reason(status));
    evbuffer_drain(input, length);
    const char *message;
    status = conn->http->options.on_head(conn->http->options.user, &conn->head, &message);
    if (status != 0)
        return refuse(conn, status, message);
    if (conn->head.content_length > conn->http->options.max_body)
        return refuse(conn, 413, "the body is too large");
    if (conn->head.expects_continue && (conn->head.chunked || conn->head.content_length > 0))
        evbuffer_add_printf(sl_conn_output(conn), "HTTP/1.1 100 Continue\r\n\r\n");
    conn->state = SL_CONN_BODY;
    conn->chunks = (sl_http_chunks){0};
    conn->n_wire = 0;
    set_timer(conn, conn->http->options.body_s);
    return true;
}

/* Makes room for n_bytes more and the NUL behind them: by doubling, as the body comes, to what it can become at most. */
static bool grow_body(sl_conn *conn, size_t n_bytes)
{
    sl_http *http = conn->http;
    size_t needed = conn->n_body + n_bytes + 1;
    size_t most = (conn->head.chunked ? http->options.max_body : (size_t)conn->head.content_length) + 1;
    if (needed <= conn->capacity)
        return true;
    size_t capacity = SL_MIN(SL_MAX(needed, 2 * conn->capacity), most);
    size_t more = capacity - conn->capacity;
    if (more > 1 && http->held + more > http->options.max_all_bodies) /* 1: no body, which costs nothing */
        return false;
    char *grown = realloc(conn->body, capacity);
    if (!grown)
        return false;
    http->held += more;
    conn->body = grown;
    conn->capacity = capacity;
    return true;
}

static bool add_body(sl_conn *conn, const char *bytes, size_t n_bytes)
{
    if (!grow_body(conn, n_bytes))
        return false;
    memcpy(conn->body + conn->n_body, bytes, n_bytes);
    conn->n_body += n_bytes;
    return true;
}

char *sl_conn_take_body(sl_conn *conn)
{
    char *body = conn->body;
    if (conn->capacity > conn->n_body + 1) { /* the room that is left is counted no more */
        char *fitting = realloc(body, conn->n_body + 1);
        body = fitting ? fitting : body;
    }
    conn->http->held -= conn->capacity - conn->n_body;
    conn->body = NULL;
    conn->n_body = conn->capacity = 0;
    return body;
}

void sl_http_body_freed(sl_http *http, size_t n_bytes)
{
    http->held -= n_bytes;
}

static bool dispatch(sl_conn *conn)
{
    sl_http *http = conn->http;
    conn->state = SL_CONN_WORKING;
    leave_queue(conn);
    set_timer(conn, 0);
    if (!grow_body(conn, 0))
        return refuse(conn, 503, "too much is being sent at once");
    conn->body[conn->n_body] = '\0';
    http->options.on_request(http->options.user, conn, &conn->head, conn->body, conn->n_body);
    return conn->state == SL_CONN_HEAD;
}

/* One run of bytes of a chunked body; as read_head. */
static bool read_chunked(sl_conn *conn, struct evbuffer *input, const char *bytes, size_t n)
{
    size_t used = 0, most = conn->http->options.max_body;
    int what = SL_HTTP_CHUNKS_DATA;
    n = SL_MIN(n, most - conn->n_wire + 1); /* no more than shows that it is too large */
    while (what == SL_HTTP_CHUNKS_DATA) {
        size_t step, n_data;
        what = sl_http_read_chunks(&conn->chunks, bytes + used, n - used, &step, &n_data);
        used += step;
        if (n_data > 0 && !add_body(conn, bytes + used - n_data, n_data))
            return refuse(conn, 503, "too much is being sent at once");
    }
    evbuffer_drain(input, used);
    conn->n_wire += used;
    if (what == SL_HTTP_CHUNKS_BAD)
        return refuse(conn, 400, "the chunks of the body cannot be read");
    if (conn->n_wire > most)
        return refuse(conn, 413, "the body is too large");
    return what == SL_HTTP_CHUNKS_DONE ? dispatch(conn) : true;
}

static bool read_body(sl_conn *conn)
{
    struct evbuffer *input = input_of(conn);
    size_t wanted = (size_t)conn->head.content_length - conn->n_body;
    if (!conn->head.chunked && wanted == 0)
        return dispatch(conn);
    size_t n = evbuffer_get_contiguous_space(input);
    if (n == 0)
        return false;
    const char *bytes = (const char *)evbuffer_pullup(input, (ev_ssize_t)n);
    if (conn->head.chunked)
        return read_chunked(conn, input, bytes, n);
    n = SL_MIN(n, wanted);
    if (!add_body(conn, bytes, n))
        return refuse(conn, 503, "too much is being sent at once");
    evbuffer_drain(input, n);
    return true;
}

/* What the state that advance has reached asks for. While a request is worked on its client must be heard, or nobody
 * would see it leave: what it sends beyond READ_AHEAD is thrown away, and the connection ends behind what lies before. */
static void settle(sl_conn *conn)
{
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    bool stuck = conn->state == SL_CONN_BODY || (conn->state == SL_CONN_HEAD && !sl_conn_is_full(conn));
    if (conn->ahead && stuck) {
        flush(conn);
        return;
    }
    if (!conn->ahead && conn->state == SL_CONN_WORKING && evbuffer_get_length(input) >= READ_AHEAD) {
        conn->ahead = evbuffer_new();
        if (!conn->ahead || evbuffer_add_buffer(conn->ahead, input) != 0) {
            close_conn(conn);
            return;
        }
    }
    listen_or_not(conn);
    requeue(conn);
}

/* Does what can be done with the bytes that are here. conn may be no more. */
static void advance(sl_conn *conn)
{
    if (conn->advancing)
        return; /* an answer at once: the loop below goes on */
    conn->advancing = true;
    for (bool more = true; more && !conn->dead;)
        more = conn->state == SL_CONN_HEAD ? read_head(conn) : conn->state == SL_CONN_BODY ? read_body(conn) : false;
    conn->advancing = false;
    if (conn->dead)
        free_conn(conn);
    else
        settle(conn);
}

/* ---- libevent's callbacks ---- */

static void on_read(struct bufferevent *bev, void *user)
{
    sl_conn *conn = user;
    if (conn->ahead || conn->state == SL_CONN_FLUSHING || conn->state == SL_CONN_LINGERING)
        evbuffer_drain(bufferevent_get_input(bev), SIZE_MAX);
    else
        advance(conn);
}

static void on_write(struct bufferevent *bev, void *user)
{
    sl_conn *conn = user;
    size_t left = evbuffer_get_length(bufferevent_get_output(bev));
    if (conn->state == SL_CONN_FLUSHING && left == 0 && conn->half_closed)
        close_conn(conn);
    else if (conn->state == SL_CONN_FLUSHING && left == 0)
        flush(conn);
    else if (conn->state == SL_CONN_HEAD)
        advance(conn);
    else if (conn->state == SL_CONN_BODY)
        requeue(conn);
    else if (conn->state == SL_CONN_WORKING && conn->call)
        conn->http->options.on_drained(conn->http->options.user, conn->call);
}

static void on_end(struct bufferevent *bev, short what, void *user)
{
    sl_conn *conn = user;
    bool unsent = evbuffer_get_length(bufferevent_get_output(bev)) > 0;
    if ((what & BEV_EVENT_EOF) && (conn->state == SL_CONN_FLUSHING || conn->state == SL_CONN_HEAD) && unsent) {
        conn->half_closed = true; /* it sends no more, but may read what is on its way */
        flush(conn);
    } else {
        close_conn(conn);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
    sl_conn *conn = user;
    if (conn->state == SL_CONN_HEAD && conn->reading_head)
        refuse(conn, 408, "the headers took too long");
    else if (conn->state == SL_CONN_BODY)
        refuse(conn, 408, "the body took too long");
    else if (conn->state == SL_CONN_HEAD && evbuffer_get_length(sl_conn_output(conn)) > 0)
        set_timer(conn, conn->http->options.idle_s); /* it still takes its answer; write_s ends one that does not */
    else
        close_conn(conn);
}

/* A dead peer says nothing: keep-alive probes find it while it waits for an answer that is not streamed. */
static void set_socket_options(evutil_socket_t fd)
{
    int on = 1, idle = PROBE_IDLE_S, interval = PROBE_INTERVAL_S, n = N_PROBES;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &n, sizeof n);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

/* Takes over fd. NULL, and it is closed, when memory is short. */
static sl_conn *add_conn(sl_http *http, evutil_socket_t fd)
{
    sl_conn *conn = calloc(1, sizeof *conn);
    if (!conn) {
        close(fd);
        return NULL;
    }
    conn->http = http;
    conn->next = http->conns;
    if (conn->next)
        conn->next->prev = conn;
    http->conns = conn;
    http->n_conns++;
    conn->timer = evtimer_new(http->base, on_timer, conn);
    conn->bev = bufferevent_socket_new(http->base, fd, 0);
    if (!conn->bev)
        close(fd);
    if (!conn->timer || !conn->bev) {
        free_conn(conn);
        return NULL;
    }
    set_socket_options(fd);
    struct timeval stall = {.tv_sec = http->options.write_s};
    bufferevent_setcb(conn->bev, on_read, on_write, on_end, conn);
    bufferevent_setwatermark(conn->bev, EV_READ, 0, READ_AHEAD);
    bufferevent_setwatermark(conn->bev, EV_WRITE, NEARLY_EMPTY, 0);
    bufferevent_set_timeouts(conn->bev, NULL, &stall);
    bufferevent_enable(conn->bev, EV_READ | EV_WRITE);
    set_timer(conn, http->options.idle_s);
    requeue(conn);
    return conn;
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int n_address,
                      void *user)
{
    sl_http *http = user;
    bool full = http->n_conns - http->n_turned_away >= http->options.max_connections;
    sl_conn *gives_way = full ? dispensable(http) : NULL;
    bool turn_away = full && !gives_way;
    if (gives_way)
        close_conn(gives_way);
    if (turn_away && http->n_turned_away >= MOST_TURNED_AWAY) {
        close(fd);
        return;
    }
    sl_conn *conn = add_conn(http, fd);
    if (!conn || !turn_away)
        return;
    conn->turned_away = true;
    http->n_turned_away++;
    refuse(conn, 503, "too many connections are open");
}

/* Out of descriptors, most likely: the backlog stays for a moment, where retrying at once would only spin. */
static void on_accept_error(struct evconnlistener *listener, void *user)
{
    sl_http *http = user;
    struct timeval pause = {.tv_usec = PAUSE_MS * 1000};
    evconnlistener_disable(listener);
    event_add(http->resume, &pause);
}

static void on_resume(evutil_socket_t fd, short what, void *user)
{
    evconnlistener_enable(((sl_http *)user)->listener);
}

/* ---- the listener ---- */

sl_status sl_http_open(struct event_base *base, const struct sockaddr *address, socklen_t n_address,
                       const sl_http_options *options, sl_http **out, sl_err *err)
{
    *out = NULL;
    sl_http *http = calloc(1, sizeof *http);
    if (!http)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a server");
    http->options = *options;
    http->base = base;
    http->resume = evtimer_new(base, on_resume, http);
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
    http->listener = evconnlistener_new_bind(base, on_accept, http, flags, 1024, address, (int)n_address);
    if (!http->listener || !http->resume) {
        int why = errno;
        sl_http_close(http);
        SL_FAIL(err, SL_ERR_IO, "cannot listen there: %s", strerror(why));
    }
    evconnlistener_set_error_cb(http->listener, on_accept_error);
    *out = http;
    return SL_OK;
}

void sl_http_drop(sl_http *http)
{
    while (http && http->conns)
        free_conn(http->conns);
}

void sl_http_close(sl_http *http)
{
    if (!http)
        return;
    sl_http_drop(http);
    if (http->listener)
        evconnlistener_free(http->listener);
    if (http->resume)
        event_free(http->resume);
    free(http);
}

uint16_t sl_http_port(const sl_http *http)
{
    struct sockaddr_storage address;
    socklen_t n = sizeof address;
    if (getsockname(evconnlistener_get_fd(http->listener), (struct sockaddr *)&address, &n) != 0)
        return 0;
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

uint32_t sl_http_n_connections(const sl_http *http)
{
    return http->n_conns;
}

void sl_http_drain(sl_http *http)
{
    http->draining = true;
}

uint32_t sl_http_n_unsent(const sl_http *http)
{
    uint32_t n = 0;
    for (const sl_conn *conn = http->conns; conn; conn = conn->next)
        n += evbuffer_get_length(sl_conn_output(conn)) > 0;
    return n;
}
