/* Answers of a connection. */
#include "serve/http_impl.h"
#include "serve/textbuf.h"

#include <stdio.h>
#include <string.h>

enum { FULL = 64 << 10 }; /* bytes of output above which a connection is full */

const char *sl_http_reason(int status)
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

static void write_head(sl_conn *conn, int status, const char *headers, const char *type)
{
    bool keep = conn->head.keep_alive && !conn->http->draining;
    conn->head.keep_alive = keep;
    evbuffer_add_printf(sl_conn_output(conn), "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nConnection: %s\r\n%s", status,
                        sl_http_reason(status), type, keep ? "keep-alive" : "close", headers ? headers : "");
}

void sl_conn_reply(sl_conn *conn, int status, const char *headers, const char *type, const char *body, size_t n_bytes)
{
    write_head(conn, status, headers, type);
    evbuffer_add_printf(sl_conn_output(conn), "Content-Length: %zu\r\n\r\n", n_bytes);
    if (strcmp(conn->head.method, "HEAD") != 0)
        evbuffer_add(sl_conn_output(conn), body, n_bytes);
    sl_conn_answered(conn);
}

void sl_conn_stream_begin(sl_conn *conn, const char *headers)
{
    if (conn->head.http10)
        conn->head.keep_alive = false; /* the end of the connection is the end of the answer */
    write_head(conn, 200, headers, "text/event-stream; charset=utf-8");
    evbuffer_add_printf(sl_conn_output(conn), "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n%s\r\n",
                        conn->head.http10 ? "" : "Transfer-Encoding: chunked\r\n");
}

void sl_conn_stream(sl_conn *conn, const char *bytes, size_t n_bytes)
{
    if (n_bytes == 0)
        return;
    if (conn->head.http10) {
        evbuffer_add(sl_conn_output(conn), bytes, n_bytes);
        return;
    }
    evbuffer_add_printf(sl_conn_output(conn), "%zx\r\n", n_bytes);
    evbuffer_add(sl_conn_output(conn), bytes, n_bytes);
    evbuffer_add(sl_conn_output(conn), "\r\n", 2);
}

void sl_conn_stream_end(sl_conn *conn)
{
    if (!conn->head.http10)
        evbuffer_add(sl_conn_output(conn), "0\r\n\r\n", 5);
    sl_conn_answered(conn);
}

bool sl_conn_is_full(const sl_conn *conn)
{
    return evbuffer_get_length(sl_conn_output(conn)) > FULL;
}

static void reply_error(sl_conn *conn, int status, const char *code, const char *param, const char *headers,
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
    sl_conn_reply(conn, status, headers, "application/json", text.failed ? "" : text.bytes,
                  text.failed ? 0 : text.n_bytes);
    sl_textbuf_free(&text);
}

void sl_conn_reply_error(sl_conn *conn, int status, const char *code, const char *param, int retry_s,
                         const char *message)
{
    char headers[96] = "";
    if (retry_s > 0)
        snprintf(headers, sizeof headers, "Retry-After: %d\r\n", retry_s);
    else if (status == 401)
        snprintf(headers, sizeof headers, "WWW-Authenticate: Bearer\r\n");
    reply_error(conn, status, code, param, headers, message);
}

void sl_conn_reply_method(sl_conn *conn, const char *allow, const char *message)
{
    char headers[96];
    snprintf(headers, sizeof headers, "Allow: %s\r\n", allow);
    reply_error(conn, 405, NULL, NULL, headers, message);
}
