#define _GNU_SOURCE
#include "serve/http_parse.h"

#include "base/checked.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

typedef struct {
    const char *bytes;
    size_t n;
} slice;

/* ---- the head ---- */

size_t sl_http_head_length(const char *bytes, size_t n_bytes, size_t *scanned)
{
    static const char end[] = "\r\n\r\n";
    size_t from = *scanned > 3 ? *scanned - 3 : 0;
    *scanned = n_bytes;
    const char *at = n_bytes > from ? memmem(bytes + from, n_bytes - from, end, 4) : NULL;
    return at ? (size_t)(at - bytes) + 4 : 0;
}

/* RFC 9110 5.6.2: characters of methods and header names. */
static bool is_token(slice s)
{
    static const char others[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < s.n; i++) {
        char c = s.bytes[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (c == '\0' || !strchr(others, c)))
            return false;
    }
    return s.n > 0;
}

static bool is_name(slice s, const char *name)
{
    return s.n == strlen(name) && strncasecmp(s.bytes, name, s.n) == 0;
}

static bool copy(slice s, char *out, size_t n_out)
{
    if (s.n >= n_out)
        return false;
    memcpy(out, s.bytes, s.n);
    out[s.n] = '\0';
    return true;
}

static slice trim(slice s)
{
    while (s.n && (s.bytes[0] == ' ' || s.bytes[0] == '\t'))
        s = (slice){s.bytes + 1, s.n - 1};
    while (s.n && (s.bytes[s.n - 1] == ' ' || s.bytes[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* Takes what comes before the first separator; *rest gets what comes behind it. False when there is none. */
static bool cut(slice *rest, char separator, slice *out)
{
    const char *at = memchr(rest->bytes, separator, rest->n);
    if (!at)
        return false;
    *out = (slice){rest->bytes, (size_t)(at - rest->bytes)};
    *rest = (slice){at + 1, rest->n - out->n - 1};
    return true;
}

static int parse_request_line(slice line, sl_http_head *head)
{
    slice method, target, version = line, path;
    if (!cut(&version, ' ', &method) || !cut(&version, ' ', &target) || !is_token(method))
        return 400;
    for (size_t i = 0; i < target.n; i++)
        if (target.bytes[i] <= ' ' || target.bytes[i] > '~')
            return 400;
    if (version.n != 8 || memcmp(version.bytes, "HTTP/", 5) != 0)
        return 400;
    if (memcmp(version.bytes, "HTTP/1.1", 8) != 0 && memcmp(version.bytes, "HTTP/1.0", 8) != 0)
        return 505;
    head->http10 = version.bytes[7] == '0';
    head->keep_alive = !head->http10;
    if (!copy(method, head->method, sizeof head->method))
        return 501;
    if (target.n == 0 || target.bytes[0] != '/')
        return 400;
    path = target;
    if (memchr(target.bytes, '?', target.n))
        cut(&target, '?', &path);
    return copy(path, head->path, sizeof head->path) ? 0 : 414;
}

/* What the headers said that must be said once, or not together. */
typedef struct {
    bool host, length, transfer, authorization, origin, close;
} seen_headers;

static int parse_length(slice value, sl_http_head *head, seen_headers *seen)
{
    if (seen->length || value.n == 0 || value.n > 18)
        return 400;
    seen->length = true;
    for (size_t i = 0; i < value.n; i++) {
        if (value.bytes[i] < '0' || value.bytes[i] > '9')
            return 400;
        head->content_length = head->content_length * 10 + (uint64_t)(value.bytes[i] - '0');
    }
    return 0;
}

/* RFC 9112 9.3: close counts, whatever else is said. */
static void parse_connection(slice value, sl_http_head *head, seen_headers *seen)
{
    for (bool more = true; more;) {
        slice option;
        more = cut(&value, ',', &option);
        option = trim(more ? option : value);
        if (is_name(option, "close"))
            seen->close = true;
        else if (is_name(option, "keep-alive"))
            head->keep_alive = true;
    }
}

static int parse_header(slice name, slice value, sl_http_head *head, seen_headers *seen)
{
    if (is_name(name, "host")) {
        if (seen->host)
            return 400;
        seen->host = true;
        return copy(value, head->host, sizeof head->host) ? 0 : 400;
    } else if (is_name(name, "origin")) {
        if (seen->origin)
            return 400;
        seen->origin = true;
        return copy(value, head->origin, sizeof head->origin) ? 0 : 431;
    } else if (is_name(name, "content-length")) {
        return parse_length(value, head, seen);
    } else if (is_name(name, "transfer-encoding")) {
        if (seen->transfer)
            return 400;
        seen->transfer = head->chunked = true;
        return is_name(value, "chunked") ? 0 : 501;
    } else if (is_name(name, "connection")) {
        parse_connection(value, head, seen);
    } else if (is_name(name, "expect") && !head->http10) { /* RFC 9110 10.1.1: HTTP/1.0 has none */
        head->expects_continue = true;
        return is_name(value, "100-continue") ? 0 : 417;
    } else if (is_name(name, "content-encoding")) {
        return is_name(value, "identity") ? 0 : 415;
    } else if (is_name(name, "authorization")) {
        if (seen->authorization)
            return 400;
        seen->authorization = true;
        return copy(value, head->authorization, sizeof head->authorization) ? 0 : 431;
    }
    return 0;
}

static int parse_header_line(slice line, sl_http_head *head, seen_headers *seen)
{
    slice name, value = line;
    if (!cut(&value, ':', &name) || !is_token(name)) /* a space before the colon or a folded line is no token */
        return 400;
    value = trim(value);
    for (size_t i = 0; i < value.n; i++)
        if (((unsigned char)value.bytes[i] < ' ' && value.bytes[i] != '\t') || value.bytes[i] == 127)
            return 400;
    return parse_header(name, value, head, seen);
}

int sl_http_parse_head(const char *bytes, size_t n_bytes, sl_http_head *head)
{
    *head = (sl_http_head){0};
    seen_headers seen = {0};
    slice rest = {bytes, n_bytes}, line;
    if (n_bytes > SL_HTTP_MAX_HEAD)
        return 431;
    for (int n = 0; cut(&rest, '\n', &line); n++) {
        if (line.n == 0 || line.bytes[line.n - 1] != '\r')
            return 400;
        line.n--;
        if (line.n == 0)
            break;
        if (n > SL_HTTP_MAX_HEADERS)
            return 431;
        int status = n == 0 ? parse_request_line(line, head) : parse_header_line(line, head, &seen);
        if (status != 0)
            return status;
    }
    if (head->method[0] == '\0' || rest.n != 0)
        return 400;
    head->keep_alive &= !seen.close;
    /* A length beside chunks, or chunks in a version that has none, is how requests are smuggled (RFC 9112 6.1). */
    if ((seen.length && seen.transfer) || (head->http10 && seen.transfer) || (!head->http10 && !seen.host))
        return 400;
    return 0;
}

/* ---- chunked bodies ---- */

enum {
    SIZE,
    SIZE_SPACE,
    EXTENSION,
    SIZE_END,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER,
    TRAILER_LINE,
    TRAILER_END,
    LAST_LF,
    ENDED,
    BROKEN
};

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The line of a chunk's size. A size has 8 digits at most, so no sum of it can wrap. */
static int read_size(sl_http_chunks *c, char byte)
{
    int digit = hex_digit(byte);
    if (++c->n_line > SL_HTTP_MAX_CHUNK_LINE)
        return BROKEN;
    if (c->state == SIZE && digit >= 0) {
        c->left = c->left * 16 + (uint64_t)digit;
        return ++c->n_digits > 8 ? BROKEN : SIZE;
    }
    if (c->n_digits == 0)
        return BROKEN;
    if (byte == '\r')
        return SIZE_END;
    bool space = byte == ' ' || byte == '\t';
    if (c->state != EXTENSION && byte != ';')
        return space ? SIZE_SPACE : BROKEN;
    return space || ((unsigned char)byte > ' ' && byte != 127) ? EXTENSION : BROKEN;
}

static int read_trailer(sl_http_chunks *c, char byte)
{
    if (++c->n_trailers > SL_HTTP_MAX_TRAILERS)
        return BROKEN;
    if (c->state == TRAILER && byte == '\r')
        return LAST_LF;
    if (c->state == TRAILER_END)
        return byte == '\n' ? TRAILER : BROKEN;
    if (byte == '\r')
        return TRAILER_END;
    return byte == '\n' || byte == '\0' ? BROKEN : TRAILER_LINE;
}

/* One byte of what frames the data. */
static int read_framing(sl_http_chunks *c, char byte)
{
    switch (c->state) {
    case SIZE:
    case SIZE_SPACE:
    case EXTENSION:
        return read_size(c, byte);
    case SIZE_END:
        if (byte != '\n')
            return BROKEN;
        c->n_line = c->n_digits = 0;
        return c->left > 0 ? DATA : TRAILER;
    case DATA_CR:
        return byte == '\r' ? DATA_LF : BROKEN;
    case DATA_LF:
        return byte == '\n' ? SIZE : BROKEN;
    case LAST_LF:
        return byte == '\n' ? ENDED : BROKEN;
    default:
        return read_trailer(c, byte);
    }
}

int sl_http_read_chunks(sl_http_chunks *c, const char *bytes, size_t n_bytes, size_t *used, size_t *n_data)
{
    *used = *n_data = 0;
    while (*used < n_bytes && c->state != ENDED && c->state != BROKEN) {
        if (c->state == DATA) {
            *n_data = (size_t)SL_MIN(c->left, (uint64_t)(n_bytes - *used));
            *used += *n_data;
            c->left -= *n_data;
            if (c->left == 0)
                c->state = DATA_CR;
            return SL_HTTP_CHUNKS_DATA;
        }
        c->state = read_framing(c, bytes[(*used)++]);
    }
    if (c->state == BROKEN)
        return SL_HTTP_CHUNKS_BAD;
    return c->state == ENDED ? SL_HTTP_CHUNKS_DONE : SL_HTTP_CHUNKS_MORE;
}
