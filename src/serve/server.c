#define _GNU_SOURCE
#include "base/clock.h"
#include "serve/origin.h"
#include "serve/server_impl.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    DEFAULT_CONNECTIONS = 4096,
    DEFAULT_BODY = 16 << 20,
    MAX_ALL_BODIES = 256 << 20,
    MAX_TEXT_JOBS = 1024,
    OTHER_DESCRIPTORS = 64, /* that are not connections */
    IDLE_S = 75,
    HEAD_S = 10,
    CLIENT_S = 60,
    KEEP_ALIVE_S = 10,
    DRAIN_S = 30,
    SAVE_S = 300, /* what the engine has learned */
    POLL_MS = 20, /* while draining */
};

void sl_server_count(sl_server *server, int status)
{
    sl_metrics_count(&server->metrics, status);
}

void sl_server_refuse(sl_server *server, sl_conn *conn, int status, const char *code, const char *param, int retry_s,
                      const char *message)
{
    sl_server_count(server, status);
    sl_conn_reply_error(conn, status, code, param, retry_s, message);
}

bool sl_server_has_model(const sl_server *server, const char *name)
{
    bool found = strcmp(name, server->options.model) == 0;
    for (size_t i = 0; i < server->options.n_aliases; i++)
        found |= strcmp(name, server->options.aliases[i]) == 0;
    return found;
}

/* ---- routes ---- */

typedef void handler_fn(sl_server *server, sl_conn *conn, const sl_http_head *head, size_t n_body);

static void reply_json(sl_server *server, sl_conn *conn, int status, const sl_textbuf *text)
{
    sl_server_count(server, status);
    sl_conn_reply(conn, status, NULL, "application/json", text->failed ? "" : text->bytes,
                  text->failed ? 0 : text->n_bytes);
}

static void add_model(const sl_server *server, const char *name, sl_textbuf *out)
{
    sl_textbuf_text(out, "{\"id\":");
    sl_textbuf_json(out, name, strlen(name));
    sl_textbuf_format(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"sluice\",\"max_model_len\":%u}",
                      (long long)server->started_s, sl_service_context(server->service));
}

static void handle_models(sl_server *server, sl_conn *conn, const sl_http_head *head, size_t n_body)
{
    sl_textbuf text = {0};
    sl_textbuf_text(&text, "{\"object\":\"list\",\"data\":[");
    add_model(server, server->options.model, &text);
    for (size_t i = 0; i < server->options.n_aliases; i++) {
        sl_textbuf_text(&text, ",");
        add_model(server, server->options.aliases[i], &text);
    }
    sl_textbuf_text(&text, "]}\n");
    reply_json(server, conn, 200, &text);
    sl_textbuf_free(&text);
}

static void handle_model(sl_server *server, sl_conn *conn, const sl_http_head *head, size_t n_body)
{
    const char *name = head->path + strlen("/v1/models/");
    if (!sl_server_has_model(server, name)) {
        sl_server_refuse(server, conn, 404, "model_not_found", "model", 0, "there is no such model here");
        return;
    }
    sl_textbuf text = {0};
    add_model(server, name, &text);
    reply_json(server, conn, 200, &text);
    sl_textbuf_free(&text);
}

static void handle_health(sl_server *server, sl_conn *conn, const sl_http_head *head, size_t n_body)
{
    sl_err err = {0};
    sl_textbuf text = {0};
    bool well = sl_service_health(server->service, sl_clock_us(), &err) == SL_OK;
    const char *why = server->n_signals > 0 ? "shutting down" : err.message;
    well &= server->n_signals == 0;
    sl_textbuf_format(&text, "{\"status\":\"%s\"", well ? "ok" : server->n_signals > 0 ? "draining" : "unhealthy");
    if (!well) {
        sl_textbuf_text(&text, ",\"reason\":");
        sl_textbuf_json(&text, why, strlen(why));
    }
    sl_textbuf_text(&text, "}\n");
    reply_json(server, conn, well ? 200 : 503, &text);
    sl_textbuf_free(&text);
}

static void handle_metrics(sl_server *server, sl_conn *conn, const sl_http_head *head, size_t n_body)
{
    sl_service_stats stats;
    sl_textbuf text = {0};
    sl_service_get_stats(server->service, &stats);
    sl_metrics_write(&server->metrics, &stats, sl_http_n_connections(server->http), server->options.model, &text);
    sl_server_count(server, 200);
    sl_conn_reply(conn, 200, NULL, "text/plain; version=0.0.4; charset=utf-8", text.failed ? "" : text.bytes,
                  text.failed ? 0 : text.n_bytes);
    sl_textbuf_free(&text);
}

static void begin_call(sl_server *server, sl_conn *conn, sl_api_kind kind, const sl_http_head *head, size_t n_body)
{
    /* Those who have a key of their own share nothing: what one has asked cannot be told from how fast another is. */
    uint64_t tenant = server->options.keys ? sl_keys_find(server->options.keys, head->authorization) : 0;
    if (server->n_signals > 0)
        sl_server_refuse(server, conn, 503, NULL, NULL, 5, "shutting down: no new requests are taken");
    else
        sl_call_begin(server, conn, kind, tenant, n_body);
}

static void handle_chat(sl_server *server, sl_conn *conn, const sl_http_head *head, size_t n_body)
{
    begin_call(server, conn, SL_API_CHAT, head, n_body);
}

static void handle_completion(sl_server *server, sl_conn *conn, const sl_http_head *head, size_t n_body)
{
    begin_call(server, conn, SL_API_COMPLETION, head, n_body);
}

static void handle_embeddings(sl_server *server, sl_conn *conn, const sl_http_head *head, size_t n_body)
{
    begin_call(server, conn, SL_API_EMBEDDING, head, n_body);
}

static const struct {
    const char *path;
    bool post, prefix; /* prefix: anything may follow */
    handler_fn *handle;
} routes[] = {
    {"/v1/chat/completions", true, false, handle_chat}, {"/v1/completions", true, false, handle_completion},
    {"/v1/embeddings", true, false, handle_embeddings}, {"/v1/models", false, false, handle_models},
    {"/v1/models/", false, true, handle_model},         {"/health", false, false, handle_health},
    {"/metrics", false, false, handle_metrics},
};

static bool is_route(size_t i, const char *path)
{
    return routes[i].prefix ? strncmp(path, routes[i].path, strlen(routes[i].path)) == 0
                            : strcmp(path, routes[i].path) == 0;
}

/* Pages of other sites are turned away. */
static bool is_stranger(const sl_server *server, const sl_http_head *head)
{
    const char *own = server->options.host;
    bool nameless = head->http10 && head->host[0] == '\0'; /* no browser's */
    return server->guarded && ((!nameless && !sl_host_is_local(head->host, own)) ||
                               (head->origin[0] != '\0' && !sl_origin_is_local(head->origin, own)));
}

/* Keys are asked for before a body is taken in. */
static int on_head(void *user, const sl_http_head *head, const char **message)
{
    sl_server *server = user;
    if (is_stranger(server, head)) {
        *message =
            "Host or Origin names another site: without keys only this machine may ask, and no page of elsewhere in "
            "its browser (--api-key-file or --no-auth change that)";
        return 403;
    }
    if (!server->options.keys || strncmp(head->path, "/v1/", 4) != 0 ||
        sl_keys_find(server->options.keys, head->authorization) > 0)
        return 0;
    *message =
        head->authorization[0] ? "this API key is not known here" : "an API key is needed: Authorization: Bearer KEY";
    return 401;
}

static void on_refused(void *user, int status)
{
    sl_server_count(user, status);
}

static void refuse_method(sl_server *server, sl_conn *conn, bool post)
{
    sl_server_count(server, 405);
    sl_conn_reply_method(conn, post ? "POST" : "GET, HEAD", post ? "use POST here" : "use GET here");
}

static void on_request(void *user, sl_conn *conn, const sl_http_head *head, const char *body, size_t n_body)
{
    sl_server *server = user;
    bool post = strcmp(head->method, "POST") == 0;
    bool get = strcmp(head->method, "GET") == 0 || strcmp(head->method, "HEAD") == 0;
    for (size_t i = 0; i < SL_COUNTOF(routes); i++) {
        if (!is_route(i, head->path))
            continue;
        if (routes[i].post ? post : get)
            routes[i].handle(server, conn, head, n_body);
        else
            refuse_method(server, conn, routes[i].post);
        return;
    }
    sl_server_refuse(server, conn, 404, NULL, NULL, 0, "there is nothing at this path");
}

/* ---- what wakes the loop ---- */

static void leave_sign(void *user)
{
    sl_server *server = user;
    (void)!eventfd_write(server->wake_fd, 1);
}

void sl_server_call_done(sl_server *server, sl_call *call)
{
    pthread_mutex_lock(&server->done_lock);
    call->next_done = server->done;
    server->done = call;
    pthread_mutex_unlock(&server->done_lock);
    leave_sign(server);
}

/* Calls whose text is ready go to the engine, in the order in which they became so. */
static void take_done(sl_server *server)
{
    pthread_mutex_lock(&server->done_lock);
    sl_call *call = server->done, *ordered = NULL;
    server->done = NULL;
    pthread_mutex_unlock(&server->done_lock);
    while (call) {
        sl_call *next = call->next_done;
        call->next_done = ordered;
        ordered = call;
        call = next;
    }
    while (ordered) {
        call = ordered;
        ordered = call->next_done;
        sl_call_prepared(call);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *user)
{
    sl_server *server = user;
    eventfd_t n;
    (void)!eventfd_read(server->wake_fd, &n);
    take_done(server);
    for (sl_ticket *ticket; (ticket = sl_inbox_take(server->inbox)) != NULL;)
        (void)sl_call_read(sl_ticket_user(ticket));
}

static void on_gone(void *user, void *call)
{
    sl_call_abandon(call);
}

static void on_drained(void *user, void *call)
{
    sl_call_drained(call);
}

/* The first signal lets what runs end, the second ends it. */
static void on_signal(evutil_socket_t fd, short what, void *user)
{
    sl_server *server = user;
    struct timeval interval = {.tv_usec = POLL_MS * 1000};
    if (++server->n_signals > 1) {
        event_base_loopbreak(server->base);
        return;
    }
    server->drain_end_us = sl_clock_us() + (int64_t)server->options.drain_s * 1000000;
    sl_http_drain(server->http);
    event_add(server->poll, &interval);
}

static void on_poll(evutil_socket_t fd, short what, void *user)
{
    sl_server *server = user;
    server->n_cut_off = server->n_calls;
    server->n_not_taken = sl_http_n_unsent(server->http);
    bool ended = server->n_cut_off == 0 && server->n_not_taken == 0;
    server->overdue = !ended && sl_clock_us() >= server->drain_end_us;
    if (ended || server->overdue)
        event_base_loopbreak(server->base);
}

static void save_cost(void *user)
{
    sl_service_save_cost(((sl_server *)user)->service);
}

/* A crash should not lose all that was learned. It may wait for the disk: not here. */
static void on_save(evutil_socket_t fd, short what, void *user)
{
    sl_server *server = user;
    (void)!sl_jobs_submit(server->jobs, save_cost, server, NULL);
}

/* ---- opening ---- */

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    return address->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

/* As many connections as are wanted and descriptors can be had for. */
static uint32_t most_connections(uint32_t wanted)
{
    struct rlimit limit;
    wanted = wanted ? wanted : DEFAULT_CONNECTIONS;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return wanted;
    if (limit.rlim_cur < wanted + OTHER_DESCRIPTORS) {
        limit.rlim_cur = SL_MIN((rlim_t)wanted + OTHER_DESCRIPTORS, limit.rlim_max);
        (void)!setrlimit(RLIMIT_NOFILE, &limit);
        (void)!getrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur > 2 * OTHER_DESCRIPTORS ? (uint32_t)SL_MIN((rlim_t)wanted, limit.rlim_cur - OTHER_DESCRIPTORS)
                                                  : SL_MIN(wanted, (uint32_t)OTHER_DESCRIPTORS);
}

static sl_status listen_at(sl_server *server, const struct sockaddr *address, socklen_t n_address, sl_err *err)
{
    const sl_server_options *options = &server->options;
    if (!is_loopback(address) && !options->keys && !options->no_auth)
        SL_FAIL(err, SL_ERR_ARGUMENT,
                "%s can be reached from other machines: give --api-key-file FILE, or --no-auth if anybody may use it",
                options->host);
    int client_s = (int)(options->client_s ? options->client_s : CLIENT_S);
    server->guarded = is_loopback(address) && !options->keys && !options->no_auth;
    sl_http_options http = {.max_connections = most_connections(options->max_connections),
                            .max_body = options->max_body ? options->max_body : DEFAULT_BODY,
                            .max_all_bodies = MAX_ALL_BODIES,
                            .idle_s = IDLE_S,
                            .head_s = HEAD_S,
                            .body_s = client_s,
                            .write_s = client_s,
                            .on_head = on_head,
                            .on_refused = on_refused,
                            .on_request = on_request,
                            .on_gone = on_gone,
                            .on_drained = on_drained,
                            .user = server};
    sl_err why;
    if (sl_http_open(server->base, address, n_address, &http, &server->http, &why) != SL_OK)
        SL_FAIL(err, why.code, "%s port %u: %.160s", options->host, options->port, why.message);
    bool v6 = address->sa_family == AF_INET6;
    char host[INET6_ADDRSTRLEN] = "";
    getnameinfo(address, n_address, host, sizeof host, NULL, 0, NI_NUMERICHOST);
    snprintf(server->address, sizeof server->address, v6 ? "[%s]:%u" : "%s:%u", host, sl_http_port(server->http));
    return SL_OK;
}

static sl_status open_socket(sl_server *server, sl_err *err)
{
    char port[8];
    snprintf(port, sizeof port, "%u", server->options.port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    int rc = getaddrinfo(server->options.host, port, &hints, &found);
    if (rc != 0)
        SL_FAIL(err, SL_ERR_ARGUMENT, "there is no address '%.100s' to listen at: %s", server->options.host,
                gai_strerror(rc));
    sl_status status = listen_at(server, found->ai_addr, found->ai_addrlen, err);
    freeaddrinfo(found);
    return status;
}

static sl_status open_events(sl_server *server, sl_err *err)
{
    server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    server->base = event_base_new();
    if (server->wake_fd < 0 || !server->base)
        SL_FAIL(err, SL_ERR_IO, "cannot make an event loop: %s", strerror(errno));
    server->wake = event_new(server->base, server->wake_fd, EV_READ | EV_PERSIST, on_wake, server);
    server->signals[0] = evsignal_new(server->base, SIGTERM, on_signal, server);
    server->signals[1] = evsignal_new(server->base, SIGINT, on_signal, server);
    server->poll = event_new(server->base, -1, EV_PERSIST, on_poll, server);
    server->save = event_new(server->base, -1, EV_PERSIST, on_save, server);
    if (!server->wake || !server->signals[0] || !server->signals[1] || !server->poll || !server->save)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for an event loop");
    event_add(server->wake, NULL);
    event_add(server->signals[0], NULL);
    event_add(server->signals[1], NULL);
    event_add(server->save, &(struct timeval){.tv_sec = SAVE_S});
    return SL_OK;
}

static sl_status open_parts(sl_server *server, sl_err *err)
{
    const sl_server_options *options = &server->options;
    SL_TRY(open_events(server, err));
    SL_TRY(open_socket(server, err));
    SL_TRY(sl_service_open(server->bundle, &options->service, &server->service, err));
    SL_TRY(sl_inbox_open(server->service, leave_sign, server, &server->inbox, err));
    return sl_jobs_open(SL_MAX(options->n_text_threads, 1), MAX_TEXT_JOBS, &server->jobs, err);
}

sl_status sl_server_open(const sl_bundle *bundle, const sl_server_options *options, sl_server **out, sl_err *err)
{
    *out = NULL;
    sl_server *server = calloc(1, sizeof *server);
    if (!server)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a server");
    server->options = *options;
    if (options->keep_alive_s == 0)
        server->options.keep_alive_s = KEEP_ALIVE_S;
    if (options->drain_s == 0)
        server->options.drain_s = DRAIN_S;
    if (options->pooling == SL_POOLING_NONE)
        server->options.pooling = sl_bundle_pooling(bundle);
    server->bundle = bundle;
    server->retry_s = 1;
    server->wake_fd = -1;
    server->started_s = (int64_t)time(NULL);
    uint8_t *cache_key = server->options.service.engine.cache_key;
    if (getrandom(&server->nonce, sizeof server->nonce, 0) < 0 ||
        getrandom(cache_key, sizeof server->options.service.engine.cache_key, 0) < 0) {
        int why = errno;
        free(server);
        SL_FAIL(err, SL_ERR_IO, "the system gives no random numbers: %s", strerror(why));
    }
    const sl_plan *plan = sl_model_plan(sl_bundle_model(bundle));
    snprintf(server->fingerprint, sizeof server->fingerprint, "sluice-%s-%s", sl_version(), sl_level_name(plan->level));
    pthread_mutex_init(&server->done_lock, NULL);
    sl_status status = open_parts(server, err);
    if (status != SL_OK) {
        sl_server_close(server);
        return status;
    }
    *out = server;
    return SL_OK;
}

void sl_server_close(sl_server *server)
{
    if (!server)
        return;
    struct event *events[] = {server->wake, server->signals[0], server->signals[1], server->poll, server->save};
    sl_http_drop(server->http); /* ends the calls, but for those whose text is being read … */
    sl_jobs_close(server->jobs);
    take_done(server); /* … which end here */
    sl_http_close(server->http);
    sl_inbox_close(server->inbox);
    sl_service_close(server->service);
    for (size_t i = 0; i < SL_COUNTOF(events); i++)
        if (events[i])
            event_free(events[i]);
    if (server->base)
        event_base_free(server->base);
    if (server->wake_fd >= 0)
        close(server->wake_fd);
    pthread_mutex_destroy(&server->done_lock);
    free(server);
}

const char *sl_server_address(const sl_server *server)
{
    return server->address;
}

sl_status sl_server_run(sl_server *server, sl_err *err)
{
    if (event_base_dispatch(server->base) < 0)
        SL_FAIL(err, SL_ERR_INTERNAL, "the event loop has failed");
    if (server->n_signals > 1)
        SL_FAIL(err, SL_ERR_CANCELLED, "interrupted");
    if (server->overdue)
        SL_FAIL(err, SL_ERR_LIMIT,
                "shutting down took longer than %u s (--drain-timeout): %u requests that ran were cut off, and %u "
                "connections that had not taken their answer",
                server->options.drain_s, server->n_cut_off, server->n_not_taken);
    return SL_OK;
}
