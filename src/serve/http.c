#define _GNU_SOURCE
#include "serve/http.h"

#include "serve/textbuf.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    READ_AHEAD = 64 << 10,  /* bytes of input that may wait while a request is worked on */
    FULL = 64 << 10,        /* bytes of output above which a connection is full … */
    NEARLY_EMPTY = 8 << 10, /* … until no more than this is left */
    LINGER_S = 2,           /* an answer that closes may be read this long while the client still sends */
    PAUSE_MS = 100,         /* no accepts for so long when descriptors run out */
};

typedef enum { HEAD, BODY, WORKING, FLUSHING, LINGERING } conn_state;

struct sl_conn {
    sl_http *http;
    sl_conn *next, *prev;
    struct bufferevent *bev;
    struct event *timer;
    conn_state state;
    bool advancing, dead, reading_head, streaming;
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
    uint32_t n_conns;
    size_t held; /* bytes of bodies */
    bool draining;
};

static void advance(sl_conn *conn);

static const char *reason_phrase(int status)
{
    static const struct {
        int status;
        const char *phrase;
    } phrases[] = {
        {200, "OK"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < SL_COUNTOF(phrases); i++)
        if (phrases[i].status == status)
            return phrases[i].phrase;
    return "Unknown";
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

static void free_conn(sl_conn *conn)
{
    sl_http *http = conn->http;
    void *call = conn->call;
    *(conn->prev ? &conn->prev->next : &http->conns) = conn->next;
    if (conn->next)
        conn->next->prev = conn->prev;
    http->n_conns--;
    free_body(conn);
    if (conn->bev)
        bufferevent_free(conn->bev);
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

static struct evbuffer *output_of(const sl_conn *conn)
{
    return bufferevent_get_output(conn->bev);
}

/* All is sent: tells the client so, and reads on for a while what it may still send, since closing a socket with unread
 * input can destroy the answer on its way. */
static void linger(sl_conn *conn)
{
    shutdown(bufferevent_getfd(conn->bev), SHUT_WR);
    conn->state = LINGERING;
    set_timer(conn, LINGER_S);
}

/* The answer is written: the next request, or the end. */
static void finish_answer(sl_conn *conn)
{
    conn->call = NULL;
    conn->streaming = false;
    free_body(conn);
    if (!conn->head.keep_alive || conn->http->draining) {
        conn->state = FLUSHING;
        if (evbuffer_get_length(output_of(conn)) == 0)
            linger(conn);
        return;
    }
    conn->state = HEAD;
    conn->reading_head = false;
    conn->scanned = 0;
    set_timer(conn, conn->http->options.idle_s);
    advance(conn);
}

/* ---- answers ---- */

void sl_conn_set_call(sl_conn *conn, void *call)
{
    conn->call = call;
}

char *sl_conn_take_body(sl_conn *conn)
{
    char *body = conn->body;
    conn->http->held -= conn->capacity - conn->n_body;
    conn->body = NULL;
    conn->n_body = conn->capacity = 0;
    return body;
}

void sl_http_body_freed(sl_http *http, size_t n_bytes)
{
    http->held -= n_bytes;
}

static void write_head(sl_conn *conn, int status, const char *headers, const char *type)
{
    bool keep = conn->head.keep_alive && !conn->http->draining;
    conn->head.keep_alive = keep;
    evbuffer_add_printf(output_of(conn), "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nConnection: %s\r\n%s", status,
                        reason_phrase(status), type, keep ? "keep-alive" : "close", headers ? headers : "");
}

void sl_conn_reply(sl_conn *conn, int status, const char *headers, const char *type, const char *body, size_t n_bytes)
{
    write_head(conn, status, headers, type);
    evbuffer_add_printf(output_of(conn), "Content-Length: %zu\r\n\r\n", n_bytes);
    if (strcmp(conn->head.method, "HEAD") != 0)
        evbuffer_add(output_of(conn), body, n_bytes);
    finish_answer(conn);
}

void sl_conn_stream_begin(sl_conn *conn, const char *headers)
{
    if (conn->head.http10)
        conn->head.keep_alive = false; /* the end of the connection is the end of the answer */
    write_head(conn, 200, headers, "text/event-stream; charset=utf-8");
    evbuffer_add_printf(output_of(conn), "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n%s\r\n",
                        conn->head.http10 ? "" : "Transfer-Encoding: chunked\r\n");
    conn->streaming = true;
}

void sl_conn_stream(sl_conn *conn, const char *bytes, size_t n_bytes)
{
    if (n_bytes == 0)
        return;
    if (conn->head.http10) {
        evbuffer_add(output_of(conn), bytes, n_bytes);
        return;
    }
    evbuffer_add_printf(output_of(conn), "%zx\r\n", n_bytes);
    evbuffer_add(output_of(conn), bytes, n_bytes);
    evbuffer_add(output_of(conn), "\r\n", 2);
}

void sl_conn_stream_end(sl_conn *conn)
{
    if (!conn->head.http10)
        evbuffer_add(output_of(conn), "0\r\n\r\n", 5);
    finish_answer(conn);
}

bool sl_conn_is_full(const sl_conn *conn)
{
    return evbuffer_get_length(output_of(conn)) > FULL;
}

void sl_conn_reply_error(sl_conn *conn, int status, const char *code, const char *param, int retry_s,
                         const char *message)
{
    const char *type = status == 401   ? "authentication_error"
                       : status == 429 ? "rate_limit_error"
                       : status >= 500 ? "server_error"
                                       : "invalid_request_error";
    sl_textbuf text = {0};
    sl_textbuf_text(&text, "{\"error\":{\"message\":");
    sl_textbuf_json(&text, message, strlen(message));
    sl_textbuf_format(&text, ",\"type\":\"%s\",\"param\":", type);
    if (param && param[0])
        sl_textbuf_json(&text, param, strlen(param));
    else
        sl_textbuf_text(&text, "null");
    sl_textbuf_text(&text, ",\"code\":");
    if (code)
        sl_textbuf_json(&text, code, strlen(code));
    else
        sl_textbuf_text(&text, "null");
    sl_textbuf_text(&text, "}}\n");
    char headers[96] = "";
    if (retry_s > 0)
        snprintf(headers, sizeof headers, "Retry-After: %d\r\n", retry_s);
    else if (status == 401)
        snprintf(headers, sizeof headers, "WWW-Authenticate: Bearer\r\n");
    else if (status == 405)
        snprintf(headers, sizeof headers, "Allow: %s\r\n",
                 strcmp(conn->head.method, "POST") == 0 ? "GET, HEAD" : "POST");
    sl_conn_reply(conn, status, headers, "application/json", text.failed ? "" : text.bytes,
                  text.failed ? 0 : text.n_bytes);
    sl_textbuf_free(&text);
}

/* An error after which nobody knows where the next request begins. */
static bool refuse(sl_conn *conn, int status, const char *message)
{
    conn->state = WORKING;
    conn->head.keep_alive = false;
    set_timer(conn, 0);
    sl_conn_reply_error(conn, status, NULL, NULL, status == 503 ? 1 : 0, message);
    return false;
}

/* ---- reading ---- */

/* Reads a head; true when there is more to do with what has arrived. */
static bool read_head(sl_conn *conn)
{
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    size_t n = SL_MIN(evbuffer_get_length(input), (size_t)SL_HTTP_MAX_HEAD + 1);
    if (n == 0 || sl_conn_is_full(conn))
        return false;
    const char *bytes = (const char *)evbuffer_pullup(input, (ev_ssize_t)n);
    if (conn->scanned == 0 && (bytes[0] == '\r' || bytes[0] == '\n')) { /* RFC 9112 2.2: an empty line in front */
        evbuffer_drain(input, 1);
        return true;
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
        return refuse(conn, status, status == 400 ? "this is no HTTP request that can be read" : reason_phrase(status));
    evbuffer_drain(input, length);
    const char *message;
    status = conn->http->options.on_head(conn->http->options.user, &conn->head, &message);
    if (status != 0)
        return refuse(conn, status, message);
    if (conn->head.content_length > conn->http->options.max_body)
        return refuse(conn, 413, "the body is too large");
    if (conn->head.expects_continue && (conn->head.chunked || conn->head.content_length > 0))
        evbuffer_add_printf(output_of(conn), "HTTP/1.1 100 Continue\r\n\r\n");
    conn->state = BODY;
    conn->chunks = (sl_http_chunks){0};
    conn->n_wire = 0;
    set_timer(conn, conn->http->options.body_s);
    return true;
}

static bool grow_body(sl_conn *conn, size_t n_bytes)
{
    sl_http *http = conn->http;
    if (conn->capacity - conn->n_body > n_bytes)
        return true;
    size_t capacity = SL_MAX(conn->n_body + n_bytes + 1, 2 * conn->capacity);
    if (http->held + capacity - conn->capacity > http->options.max_all_bodies)
        return false;
    char *grown = realloc(conn->body, capacity);
    if (!grown)
        return false;
    http->held += capacity - conn->capacity;
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

static bool dispatch(sl_conn *conn)
{
    sl_http *http = conn->http;
    conn->state = WORKING;
    set_timer(conn, 0);
    if (!grow_body(conn, 0))
        return refuse(conn, 503, "too much is being sent at once");
    conn->body[conn->n_body] = '\0';
    http->options.on_request(http->options.user, conn, &conn->head, conn->body, conn->n_body);
    return conn->state == HEAD;
}

/* One run of bytes of a chunked body; as read_head. */
static bool read_chunked(sl_conn *conn, const char *bytes, size_t n)
{
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    size_t used = 0;
    int what = SL_HTTP_CHUNKS_DATA;
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
    if (conn->n_wire > conn->http->options.max_body)
        return refuse(conn, 413, "the body is too large");
    return what == SL_HTTP_CHUNKS_DONE ? dispatch(conn) : true;
}

static bool read_body(sl_conn *conn)
{
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    size_t wanted = (size_t)conn->head.content_length - conn->n_body;
    if (!conn->head.chunked && wanted == 0)
        return dispatch(conn);
    size_t n = evbuffer_get_contiguous_space(input);
    if (n == 0)
        return false;
    const char *bytes = (const char *)evbuffer_pullup(input, (ev_ssize_t)n);
    if (conn->head.chunked)
        return read_chunked(conn, bytes, n);
    n = SL_MIN(n, wanted);
    if (!add_body(conn, bytes, n))
        return refuse(conn, 503, "too much is being sent at once");
    evbuffer_drain(input, n);
    return true;
}

/* Does what can be done with the bytes that are here. */
static void advance(sl_conn *conn)
{
    if (conn->advancing)
        return; /* an answer at once: the loop below goes on */
    conn->advancing = true;
    for (bool more = true; more && !conn->dead;)
        more = conn->state == HEAD ? read_head(conn) : conn->state == BODY ? read_body(conn) : false;
    conn->advancing = false;
    if (conn->dead)
        free_conn(conn);
}

/* ---- libevent's callbacks ---- */

static void on_read(struct bufferevent *bev, void *user)
{
    sl_conn *conn = user;
    if (conn->state == FLUSHING || conn->state == LINGERING)
        evbuffer_drain(bufferevent_get_input(bev), SIZE_MAX);
    else
        advance(conn);
}

static void on_write(struct bufferevent *bev, void *user)
{
    sl_conn *conn = user;
    size_t left = evbuffer_get_length(bufferevent_get_output(bev));
    if (conn->state == FLUSHING && left == 0)
        linger(conn);
    else if (conn->state == HEAD)
        advance(conn);
    else if (conn->state == WORKING && conn->call)
        conn->http->options.on_drained(conn->http->options.user, conn->call);
}

static void on_end(struct bufferevent *bev, short what, void *user)
{
    sl_conn *conn = user;
    bool unsent = evbuffer_get_length(bufferevent_get_output(bev)) > 0;
    if ((what & BEV_EVENT_EOF) && (conn->state == FLUSHING || conn->state == HEAD) && unsent)
        conn->state = FLUSHING; /* it sends no more, but may read what is on its way */
    else
        close_conn(conn);
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
    sl_conn *conn = user;
    if (conn->state == HEAD && conn->reading_head)
        refuse(conn, 408, "the headers took too long");
    else if (conn->state == BODY)
        refuse(conn, 408, "the body took too long");
    else
        close_conn(conn);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int n_address,
                      void *user)
{
    sl_http *http = user;
    static const char busy[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
                               "Connection: close\r\n\r\n";
    sl_conn *conn = http->n_conns < http->options.max_connections ? calloc(1, sizeof *conn) : NULL;
    if (!conn) {
        (void)!send(fd, busy, sizeof busy - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        close(fd);
        return;
    }
    conn->http = http;
    conn->next = http->conns;
    if (conn->next)
        conn->next->prev = conn;
    http->conns = conn;
    http->n_conns++;
    conn->timer = evtimer_new(http->base, on_timer, conn);
    conn->bev = bufferevent_socket_new(http->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!conn->bev)
        close(fd);
    if (!conn->timer || !conn->bev) {
        free_conn(conn);
        return;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct timeval stall = {.tv_sec = http->options.write_s};
    bufferevent_setcb(conn->bev, on_read, on_write, on_end, conn);
    bufferevent_setwatermark(conn->bev, EV_READ, 0, READ_AHEAD);
    bufferevent_setwatermark(conn->bev, EV_WRITE, NEARLY_EMPTY, 0);
    bufferevent_set_timeouts(conn->bev, NULL, &stall);
    bufferevent_enable(conn->bev, EV_READ | EV_WRITE);
    set_timer(conn, http->options.idle_s);
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

bool sl_http_flushed(const sl_http *http)
{
    for (const sl_conn *conn = http->conns; conn; conn = conn->next)
        if (evbuffer_get_length(output_of(conn)) > 0)
            return false;
    return true;
}
