/* libFuzzer target: any bytes as HTTP requests, and their bodies as requests to generate. A chunked body must come out
 * the same however it is cut into pieces, and what the JSON writer makes of any bytes must be JSON. */
#include "serve/api_request.h"
#include "serve/http_parse.h"
#include "serve/textbuf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

typedef struct {
    char *bytes;
    size_t n_bytes;
    int end;
} body;

static body read_chunked(const char *bytes, size_t n_bytes, size_t step)
{
    body b = {malloc(n_bytes + 1), 0, SL_HTTP_CHUNKS_MORE};
    sl_http_chunks chunks = {0};
    for (size_t at = 0; b.bytes && at < n_bytes && b.end < SL_HTTP_CHUNKS_DONE;) {
        size_t used, n_data, piece = SL_MIN(step, n_bytes - at);
        b.end = sl_http_read_chunks(&chunks, bytes + at, piece, &used, &n_data);
        if (used > piece || n_data > used || (used == 0 && b.end < SL_HTTP_CHUNKS_DONE))
            abort();
        memcpy(b.bytes + b.n_bytes, bytes + at + used - n_data, n_data);
        b.n_bytes += n_data;
        at += used;
    }
    return b;
}

static void check_body(const char *bytes, size_t n_bytes)
{
    for (int kind = 0; kind < SL_API_COUNT; kind++) {
        sl_api_request request;
        sl_api_error error = {0};
        if (sl_api_parse((sl_api_kind)kind, bytes, n_bytes, &request, &error) != SL_OK) {
            if (error.status < 400 || error.message[0] == '\0')
                abort();
        } else if (request.n < 1 || request.n > SL_API_MAX_CHOICES ||
                   (request.max_tokens < 1 && !request.echo && kind != SL_API_EMBEDDING) ||
                   !(request.sampling.temperature >= 0 && request.sampling.temperature <= 100)) {
            abort();
        }
        sl_api_request_free(&request);
    }
}

static void check_text(const char *bytes, size_t n_bytes)
{
    sl_textbuf text = {0};
    sl_textbuf_json(&text, bytes, n_bytes);
    json_t *read = text.failed ? NULL : json_loadb(text.bytes, text.n_bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!text.failed && !json_is_string(read))
        abort();
    json_decref(read);
    sl_textbuf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const char *bytes = (const char *)data;
    size_t scanned = 0, length = 0, at_once = 0;
    for (size_t n = 1; n <= n_bytes && n <= 512 && length == 0; n++)
        length = sl_http_head_length(bytes, n, &scanned);
    if (length != (at_once = 0, sl_http_head_length(bytes, SL_MIN(n_bytes, 512), &at_once)))
        abort();
    sl_http_head head = {.chunked = true};
    if (length > 0 && sl_http_parse_head(bytes, length, &head) != 0)
        return 0;
    const char *rest = bytes + length;
    size_t n_rest = n_bytes - length;
    body whole = read_chunked(rest, n_rest, SIZE_MAX), cut = read_chunked(rest, n_rest, 1 + n_bytes % 7);
    if (whole.end != cut.end || whole.n_bytes != cut.n_bytes || memcmp(whole.bytes, cut.bytes, whole.n_bytes) != 0)
        abort();
    if (head.chunked && whole.end == SL_HTTP_CHUNKS_DONE)
        check_body(whole.bytes, whole.n_bytes);
    else
        check_body(rest, n_rest);
    check_text(rest, n_rest);
    free(whole.bytes);
    free(cut.bytes);
    return 0;
}
