/* Connections of the server by themselves: clients are sockets of the same thread, and the loop turns only when a test
 * lets it, so that what comes before what is the test's to say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "serve/http.h"
#include "serve/metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEADLINE_S = 60, READ_AHEAD = 64 << 10, BIG = 16 << 20, MAX_WAITING = 4 };

typedef struct {
    struct event_base *base;
    struct event *guard;
    sl_http *http;
    sl_conn *waiting[MAX_WAITING]; /* those who asked for /wait */
    size_t n_waiting, n_gone, n_refused;
    int refused; /* last status */
    char *taken; /* body that was sent to /take */
    char *big;
} server;

/* ---- the server's side ---- */

static int on_head(void *user, const sl_http_head *head, const char **message)
{
    *message = "not this one";
    return strcmp(head->path, "/forbidden") == 0 ? 403 : 0;
}

static void on_refused(void *user, int status)
{
    server *s = user;
    s->refused = status;
    s->n_refused++;
}

static void on_request(void *user, sl_conn *conn, const sl_http_head *head, const char *body, size_t n_body)
{
    server *s = user;
    if (strcmp(head->path, "/wait") == 0) {
        assert_true(s->n_waiting < MAX_WAITING);
        s->waiting[s->n_waiting++] = conn;
        sl_conn_set_call(conn, s);
    } else if (strcmp(head->path, "/big") == 0) {
        sl_conn_reply(conn, 200, NULL, "text/plain", s->big, BIG);
    } else {
        if (strcmp(head->path, "/take") == 0)
            s->taken = sl_conn_take_body(conn);
        sl_conn_reply(conn, 200, NULL, "text/plain", "ok", 2);
    }
}

static void on_gone(void *user, void *call)
{
    ((server *)user)->n_gone++;
}

static void on_drained(void *user, void *call)
{
}

static void on_guard(evutil_socket_t fd, short what, void *user)
{
    event_base_loopbreak(((server *)user)->base);
}

/* Listens; what options leave out is generous. */
static void open_server(server *s, sl_http_options options)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    sl_err err;
    *s = (server){.base = event_base_new(), .big = calloc(1, BIG)};
    s->guard = evtimer_new(s->base, on_guard, s);
    assert_true(s->big && s->guard);
    sl_http_options all = {.max_connections = options.max_connections ? options.max_connections : 100,
                           .max_body = options.max_body ? options.max_body : 1000000,
                           .max_all_bodies = options.max_all_bodies ? options.max_all_bodies : 10000000,
                           .idle_s = options.idle_s ? options.idle_s : DEADLINE_S,
                           .head_s = options.head_s ? options.head_s : DEADLINE_S,
                           .body_s = options.body_s ? options.body_s : DEADLINE_S,
                           .write_s = DEADLINE_S,
                           .on_head = on_head,
                           .on_refused = on_refused,
                           .on_request = on_request,
                           .on_gone = on_gone,
                           .on_drained = on_drained,
                           .user = s};
    assert_int_equal(sl_http_open(s->base, (struct sockaddr *)&address, sizeof address, &all, &s->http, &err), SL_OK);
}

static void close_server(server *s)
{
    sl_http_close(s->http);
    event_free(s->guard);
    event_base_free(s->base);
    free(s->big);
}

/* Does what there is to do. */
static void turn(server *s)
{
    event_add(s->guard, &(struct timeval){.tv_sec = 5});
    assert_true(event_base_loop(s->base, EVLOOP_NONBLOCK) >= 0);
    assert_false(event_base_got_break(s->base)); /* it spins */
    event_del(s->guard);
}

static void turn_and_rest(server *s)
{
    turn(s);
    usleep(200);
}

/* Long enough for all that needs no timer: a turn reads 4 KiB of a connection. */
static void turn_a_while(server *s)
{
    for (int i = 0; i < 1000; i++)
        i % 50 == 0 ? turn_and_rest(s) : turn(s);
}

static void turn_for(server *s, int64_t ms)
{
    for (int64_t end = sl_clock_us() + ms * 1000; sl_clock_us() < end;)
        turn_and_rest(s);
}

/* ---- the clients' ---- */

static int dial(const server *s, int receive_buffer)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(sl_http_port(s->http))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (receive_buffer)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* Sends all of it, or what the server takes before it closes. */
static void say_bytes(server *s, int fd, const char *bytes, size_t n_bytes)
{
    int64_t end = sl_clock_us() + DEADLINE_S * 1000000ll;
    for (size_t at = 0; at < n_bytes;) {
        ssize_t n = send(fd, bytes + at, n_bytes - at, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return;
        if (sl_clock_us() > end)
            fail_msg("%zu of %zu bytes were taken", at, n_bytes);
        at += n > 0 ? (size_t)n : 0;
        if (n < 0)
            turn(s);
    }
}

static void say(server *s, int fd, const char *text)
{
    say_bytes(s, fd, text, strlen(text));
}

/* A request with n bytes of a body, of which all but the last n_missing are sent. */
static void post(server *s, int fd, const char *path, size_t n, size_t n_missing)
{
    char head[128];
    char *body = malloc(n);
    assert_non_null(body);
    memset(body, 'x', n);
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", path, n);
    say(s, fd, head);
    say_bytes(s, fd, body, n - n_missing);
    free(body);
}

/* Up to n bytes, as they come; 0 when the server has closed. */
static size_t hear(server *s, int fd, char *bytes, size_t n)
{
    for (int64_t end = sl_clock_us() + DEADLINE_S * 1000000ll; sl_clock_us() < end; turn_and_rest(s)) {
        ssize_t got = recv(fd, bytes, n, 0);
        if (got >= 0 || errno != EAGAIN)
            return got > 0 ? (size_t)got : 0;
    }
    fail_msg("no answer");
    return 0;
}

/* Reads one answer to its end; its status, or 0 when the connection was closed before. */
static int answer(server *s, int fd)
{
    char head[1024], rest[8192];
    size_t n = 0, left = 0;
    int status;
    while (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4) != 0) {
        assert_true(n < sizeof head - 1);
        if (hear(s, fd, head + n, 1) == 0)
            return 0;
        n++;
    }
    head[n] = '\0';
    assert_int_equal(sscanf(head, "HTTP/1.1 %d ", &status), 1);
    const char *length = strstr(head, "Content-Length: ");
    if (length)
        left = strtoul(length + strlen("Content-Length: "), NULL, 10);
    while (left > 0) {
        size_t got = hear(s, fd, rest, SL_MIN(left, sizeof rest));
        if (got == 0)
            return 0;
        left -= got;
    }
    return status;
}

static int ask(server *s, int fd, const char *text)
{
    say(s, fd, text);
    return answer(s, fd);
}

static const char get[] = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n", hold[] = "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";

static void assert_closed(server *s, int fd)
{
    char byte;
    assert_int_equal(hear(s, fd, &byte, 1), 0);
    close(fd);
}

static void assert_open(server *s, int fd)
{
    char byte;
    turn_a_while(s);
    assert_true(recv(fd, &byte, 1, 0) < 0 && errno == EAGAIN);
}

/* The server waits until it has taken n_waiting requests for /wait. */
static void wait_for_waiting(server *s, size_t n_waiting)
{
    for (int64_t end = sl_clock_us() + DEADLINE_S * 1000000ll; s->n_waiting < n_waiting && sl_clock_us() < end;)
        turn_and_rest(s);
    assert_int_equal(s->n_waiting, n_waiting);
}

/* ---- bodies ---- */

enum { BODY = 1000003 };

/* A body takes the memory that its length says, and only when it comes. */
static void test_memory_of_bodies(void **state)
{
    server s;
    open_server(&s, (sl_http_options){.max_body = BODY, .max_all_bodies = BODY + 1});
    int a = dial(&s, 0), b = dial(&s, 0);
    post(&s, a, "/x", BODY, 0);
    assert_int_equal(answer(&s, a), 200);
    post(&s, a, "/x", BODY, BODY - 2);
    turn_a_while(&s);
    post(&s, b, "/x", 900000, 0);
    assert_int_equal(answer(&s, b), 200);
    close(a);
    turn_a_while(&s);
    a = dial(&s, 0);
    post(&s, a, "/x", BODY, 1);
    turn_a_while(&s);
    assert_int_equal(ask(&s, b, get), 200); /* what has no body is not held up by others' */
    post(&s, b, "/x", 2, 0);
    assert_int_equal(answer(&s, b), 503);
    assert_closed(&s, b);
    say(&s, a, "x");
    assert_int_equal(answer(&s, a), 200);
    close(a);
    close_server(&s);
}

/* Sends a chunked body of one chunk and n_trailer bytes (0, or 5 to 30) of a trailer; returns the bytes of it all. */
static size_t post_chunk(server *s, int fd, const char *path, size_t n, size_t n_trailer)
{
    char head[128];
    char *bytes = malloc(n + 256);
    assert_non_null(bytes);
    size_t at = (size_t)snprintf(bytes, 64, "%zx\r\n", n);
    memset(bytes + at, 'x', n);
    at += n;
    at += (size_t)snprintf(bytes + at, 64, "\r\n0\r\n");
    if (n_trailer > 0)
        at += (size_t)snprintf(bytes + at, 64, "%.*s: \r\n", (int)n_trailer - 4, "abcdefghijklmnopqrstuvwxyz");
    at += (size_t)snprintf(bytes + at, 64, "\r\n");
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", path);
    say(s, fd, head);
    say_bytes(s, fd, bytes, at);
    free(bytes);
    return at;
}

static void test_memory_of_chunks(void **state)
{
    server s;
    open_server(&s, (sl_http_options){.max_body = BODY, .max_all_bodies = BODY + 1});
    int fd = dial(&s, 0);
    assert_int_equal(post_chunk(&s, fd, "/x", BODY - 14, 0), BODY);
    assert_int_equal(answer(&s, fd), 200);
    assert_int_equal(post_chunk(&s, fd, "/take", 600000, 8), 600000 + 14 + 8);
    assert_int_equal(answer(&s, fd), 200);
    assert_true(malloc_usable_size(s.taken) < 600000 + 16384); /* as much as is counted */
    free(s.taken);
    sl_http_body_freed(s.http, 600000);
    assert_int_equal(post_chunk(&s, fd, "/x", BODY - 14 - 5, 6), BODY + 1);
    assert_int_equal(answer(&s, fd), 413);
    assert_closed(&s, fd);
    close_server(&s);
}

/* ---- too many connections ---- */

static void test_idle_make_room(void **state)
{
    server s;
    open_server(&s, (sl_http_options){.max_connections = 3});
    int fds[3], more;
    for (int i = 0; i < 3; i++) {
        fds[i] = dial(&s, 0);
        assert_int_equal(ask(&s, fds[i], get), 200);
    }
    assert_int_equal(ask(&s, fds[0], get), 200); /* so that the second is the longest idle */
    turn_a_while(&s);
    more = dial(&s, 0);
    assert_int_equal(ask(&s, more, get), 200);
    assert_closed(&s, fds[1]);
    assert_open(&s, fds[0]);
    assert_open(&s, fds[2]);
    assert_int_equal(sl_http_n_connections(s.http), 3);
    assert_int_equal(s.n_refused, 0);
    close(fds[0]);
    close(fds[2]);
    close(more);
    close_server(&s);
}

/* A connection is not idle whose request has come, though nobody has read it yet. */
static void test_unread_request_keeps_its_place(void **state)
{
    server s;
    open_server(&s, (sl_http_options){.max_connections = 2});
    int a = dial(&s, 0), b = dial(&s, 0);
    assert_int_equal(ask(&s, a, get), 200);
    assert_int_equal(ask(&s, b, get), 200);
    turn_a_while(&s);
    int c = dial(&s, 0);
    say(&s, a, get);
    assert_int_equal(answer(&s, a), 200);
    assert_int_equal(ask(&s, c, get), 200);
    assert_closed(&s, b);
    close(a);
    close(c);
    close_server(&s);
}

static void test_nobody_makes_room(void **state)
{
    server s;
    open_server(&s, (sl_http_options){.max_connections = 2});
    int a = dial(&s, 0), b = dial(&s, 0), crowd[40];
    say(&s, a, hold);
    wait_for_waiting(&s, 1);
    say(&s, b, hold);
    wait_for_waiting(&s, 2);
    int c = dial(&s, 0);
    assert_int_equal(ask(&s, c, get), 503);
    assert_true(s.refused == 503 && s.n_refused == 1);
    assert_closed(&s, c);
    size_t n_answered = 0;
    for (size_t i = 0; i < SL_COUNTOF(crowd); i++)
        crowd[i] = dial(&s, 0);
    for (size_t i = 0; i < SL_COUNTOF(crowd); i++) {
        int status = answer(&s, crowd[i]);
        assert_true(status == 503 || status == 0);
        n_answered += status == 503;
        close(crowd[i]);
    }
    assert_true(n_answered >= 30 && s.n_refused == 1 + n_answered && s.n_gone == 0);
    turn_a_while(&s);
    assert_int_equal(sl_http_n_connections(s.http), 2);
    sl_conn_reply(s.waiting[0], 200, NULL, "text/plain", "ok", 2);
    assert_int_equal(answer(&s, a), 200);
    c = dial(&s, 0);
    assert_int_equal(ask(&s, c, get), 200);
    assert_closed(&s, a);
    close(b);
    close(c);
    close_server(&s);
}

/* Who does not send on makes room as well, but not at once. */
static void test_slow_senders_make_room(void **state)
{
    server s;
    open_server(&s, (sl_http_options){.max_connections = 2});
    int a = dial(&s, 0), b = dial(&s, 0);
    say(&s, a, "GET /x HT");
    turn_a_while(&s);
    post(&s, b, "/x", 5, 4);
    turn_a_while(&s);
    int c = dial(&s, 0);
    assert_int_equal(answer(&s, c), 503);
    close(c);
    turn_for(&s, 1100);
    c = dial(&s, 0);
    say(&s, c, hold);
    wait_for_waiting(&s, 1);
    assert_closed(&s, a);
    int d = dial(&s, 0);
    assert_int_equal(ask(&s, d, get), 200);
    assert_closed(&s, b);
    assert_int_equal(s.n_gone, 0);
    close(c);
    close(d);
    close_server(&s);
}

/* ---- pipelined input ---- */

/* n times the same request. */
static void say_often(server *s, int fd, const char *text, size_t n)
{
    size_t n_text = strlen(text);
    char *all = malloc(n * n_text);
    assert_non_null(all);
    for (size_t i = 0; i < n; i++)
        memcpy(all + i * n_text, text, n_text);
    say_bytes(s, fd, all, n * n_text);
    free(all);
}

/* However much lies behind its request, a client that leaves is seen to. */
static void test_leaver_behind_much_input(void **state)
{
    static const size_t n_requests[] = {0, 1, 2400, 3600, 100000};
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    for (size_t i = 0; i < 3 * SL_COUNTOF(n_requests); i++) {
        server s;
        open_server(&s, (sl_http_options){0});
        int fd = dial(&s, 0);
        say(&s, fd, hold);
        wait_for_waiting(&s, 1);
        say_often(&s, fd, get, n_requests[i / 3]);
        turn_a_while(&s);
        assert_int_equal(s.n_gone, 0);
        if (i % 3 == 0)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        if (i % 3 == 1)
            shutdown(fd, SHUT_WR); /* counts as leaving */
        else
            close(fd);
        for (int64_t end = sl_clock_us() + 5000000; s.n_gone == 0 && sl_clock_us() < end;)
            turn_and_rest(&s);
        if (s.n_gone != 1)
            fail_msg("not seen behind %zu requests", n_requests[i / 3]);
        if (i % 3 == 1)
            close(fd);
        close_server(&s);
    }
}

static void test_pipelined(void **state)
{
    size_t most = READ_AHEAD / strlen(get);
    for (size_t sent = most / 2; sent <= 2 * most; sent += most + most / 2) {
        server s;
        size_t n = 0;
        open_server(&s, (sl_http_options){0});
        int fd = dial(&s, 0);
        say(&s, fd, hold);
        wait_for_waiting(&s, 1);
        say_often(&s, fd, get, sent);
        turn_a_while(&s);
        sl_conn_reply(s.waiting[0], 200, NULL, "text/plain", "ok", 2);
        assert_int_equal(answer(&s, fd), 200);
        if (sent < most) { /* all are answered */
            for (; n < sent; n++)
                assert_int_equal(answer(&s, fd), 200);
            assert_open(&s, fd);
            assert_int_equal(ask(&s, fd, get), 200);
            close(fd);
        } else { /* those that came whole before it was too much, and that is the end */
            for (int status; (status = answer(&s, fd)) != 0; n++)
                assert_int_equal(status, 200);
            assert_int_equal(n, most);
            close(fd);
        }
        assert_int_equal(s.n_refused, 0);
        close_server(&s);
    }
}

/* Who sends requests without taking answers is not read on, at no cost, until it takes them. */
static void test_pipelined_without_reading(void **state)
{
    enum { N = 1000, MOST = 20 << 20 };
    server s;
    char piece[16384];
    size_t n_get = strlen(get), sent = 0, n_heard = 0;
    open_server(&s, (sl_http_options){0});
    char *gets = malloc(N * n_get);
    assert_non_null(gets);
    for (size_t i = 0; i < N; i++)
        memcpy(gets + i * n_get, get, n_get);
    int fd = dial(&s, 64 << 10);
    say(&s, fd, get);
    size_t n_answer = hear(&s, fd, piece, sizeof piece);
    for (int64_t last = sl_clock_us(); sl_clock_us() - last < 300000 && sent < MOST; turn_and_rest(&s)) {
        size_t at = sent % (N * n_get);
        ssize_t n = send(fd, gets + at, N * n_get - at, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        last = n > 0 ? sl_clock_us() : last;
    }
    assert_true(sent < MOST);
    turn_for(&s, 100);
    while (sent % n_get != 0 || n_heard < sent / n_get * n_answer) {
        ssize_t n = sent % n_get ? send(fd, get + sent % n_get, n_get - sent % n_get, MSG_NOSIGNAL) : 0;
        sent += n > 0 ? (size_t)n : 0;
        size_t got = hear(&s, fd, piece, sizeof piece);
        assert_true(got > 0);
        n_heard += got;
    }
    assert_int_equal(ask(&s, fd, get), 200);
    close(fd);
    free(gets);
    close_server(&s);
}

/* ---- clients that take their time ---- */

/* Who still takes its answer is not idle. */
static void test_late_taker(void **state)
{
    server s;
    open_server(&s, (sl_http_options){.idle_s = 1});
    int fd = dial(&s, 64 << 10);
    say(&s, fd, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_for(&s, 2500);
    assert_int_equal(answer(&s, fd), 200);
    assert_int_equal(ask(&s, fd, get), 200);
    int64_t before = sl_clock_us();
    assert_closed(&s, fd);
    assert_true(sl_clock_us() - before > 500000);
    close_server(&s);
}

/* Who sends no more gets what was answered, and then the end at once. */
static void test_half_closed(void **state)
{
    server s;
    open_server(&s, (sl_http_options){0});
    int fd = dial(&s, 64 << 10);
    say(&s, fd, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    shutdown(fd, SHUT_WR);
    assert_int_equal(answer(&s, fd), 200);
    assert_closed(&s, fd);
    turn_a_while(&s);
    assert_int_equal(sl_http_n_connections(s.http), 0);
    close_server(&s);
}

/* The kernel asks silent peers whether they are there. */
static void test_dead_peers_are_probed(void **state)
{
    server s;
    struct sockaddr_in own, peer;
    socklen_t n = sizeof own;
    int found = 0, on;
    open_server(&s, (sl_http_options){0});
    int client = dial(&s, 0);
    assert_int_equal(ask(&s, client, get), 200);
    assert_int_equal(getsockname(client, (struct sockaddr *)&own, &n), 0);
    for (int fd = 3; fd < 64; fd++) {
        socklen_t n_on = sizeof on;
        n = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &n) != 0 || peer.sin_port != own.sin_port)
            continue;
        assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &n_on), 0);
        assert_int_equal(on, 1);
        assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &on, &n_on), 0);
        assert_int_equal(on, 60);
        found++;
    }
    assert_int_equal(found, 1);
    close(client);
    close_server(&s);
}

/* ---- what is refused ---- */

static void test_refusals_are_told(void **state)
{
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {"x\r\n\r\n", 400},
        {"\rGET /x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET /x HTTP/3.0\r\nHost: a\r\n\r\n", 505},
        {"GET /forbidden HTTP/1.1\r\nHost: a\r\n\r\n", 403},
        {"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
        {"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400},
        {"POST /x HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n\r\n", 415},
        {"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000001\r\n\r\n", 413},
        {"POST /x HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", 417},
        {"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx", 408},
        {"GET /x HTTP/1.1\r\nHost: a\r\n", 408},
    };
    server s;
    open_server(&s, (sl_http_options){.head_s = 1, .body_s = 1});
    for (size_t i = 0; i < SL_COUNTOF(cases); i++) {
        int fd = dial(&s, 0), status = ask(&s, fd, cases[i].text);
        if (status != cases[i].status || s.refused != status || s.n_refused != i + 1)
            fail_msg("%d, told %d: %s", status, s.refused, cases[i].text);
        assert_closed(&s, fd);
    }
    int fd = dial(&s, 0);
    say(&s, fd, "GET /x HTTP/1.1\r\n");
    say_often(&s, fd, "X: y\r\n", 4000);
    assert_int_equal(answer(&s, fd), 431);
    assert_int_equal(s.refused, 431);
    close(fd);
    fd = dial(&s, 0);
    assert_int_equal(ask(&s, fd, "\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    assert_int_equal(s.n_refused, SL_COUNTOF(cases) + 1);
    close(fd);
    close_server(&s);
}

static void test_counted_answers(void **state)
{
    static const int answers[] = {200, 404, 408, 408, 503, 599, 101};
    static const char *const lines[] = {"{code=\"200\"} 1\n", "{code=\"404\"} 1\n", "{code=\"408\"} 2\n",
                                        "{code=\"413\"} 0\n", "{code=\"503\"} 1\n", "{code=\"other\"} 2\n"};
    sl_metrics metrics = {0};
    sl_service_stats stats = {0};
    sl_textbuf text = {0};
    for (size_t i = 0; i < SL_COUNTOF(answers); i++)
        sl_metrics_count(&metrics, answers[i]);
    sl_metrics_write(&metrics, &stats, 0, "m", &text);
    for (size_t i = 0; i < SL_COUNTOF(lines); i++)
        assert_non_null(strstr(text.bytes, lines[i]));
    sl_textbuf_free(&text);
}

static void test_expectation(void **state)
{
    server s;
    open_server(&s, (sl_http_options){0});
    int fd = dial(&s, 0);
    assert_int_equal(ask(&s, fd, "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
                     100);
    assert_int_equal(ask(&s, fd, "xx"), 200);
    close(fd);
    fd = dial(&s, 0);
    say(&s, fd, "POST /x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_open(&s, fd); /* HTTP/1.0 does not know it */
    assert_int_equal(ask(&s, fd, "xx"), 200);
    assert_closed(&s, fd);
    close_server(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_of_bodies),
        cmocka_unit_test(test_memory_of_chunks),
        cmocka_unit_test(test_idle_make_room),
        cmocka_unit_test(test_unread_request_keeps_its_place),
        cmocka_unit_test(test_nobody_makes_room),
        cmocka_unit_test(test_slow_senders_make_room),
        cmocka_unit_test(test_leaver_behind_much_input),
        cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_pipelined_without_reading),
        cmocka_unit_test(test_late_taker),
        cmocka_unit_test(test_half_closed),
        cmocka_unit_test(test_dead_peers_are_probed),
        cmocka_unit_test(test_refusals_are_told),
        cmocka_unit_test(test_counted_answers),
        cmocka_unit_test(test_expectation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
