/* HTTP/1.1 requests, read strictly (RFC 9112): what two readers could understand differently is refused. Pure
 * functions on bytes, without sockets or memory of their own. */
#ifndef SL_SERVE_HTTP_PARSE_H
#define SL_SERVE_HTTP_PARSE_H

#include "base/status.h"

enum {
    SL_HTTP_MAX_HEAD = 16 << 10, /* bytes of request line and headers */
    SL_HTTP_MAX_HEADERS = 64,
    SL_HTTP_MAX_CHUNK_LINE = 256,
    SL_HTTP_MAX_TRAILERS = 4 << 10,
};

/* What the server wants to know of a request's head. */
typedef struct sl_http_head {
    char method[16], path[256];  /* path without the query; no decoding, our paths need none */
    char authorization[512];     /* value of that header; "" = none */
    char host[256], origin[256]; /* the same */
    bool http10, keep_alive, chunked, expects_continue;
    uint64_t content_length; /* 0 when chunked or absent */
} sl_http_head;

/* Length of the head at bytes, its empty line included; 0 when n_bytes does not hold its end. *scanned (0 at first)
 * keeps how far previous calls have looked, so that bytes which arrive one by one cost no more than together. */
size_t sl_http_head_length(const char *bytes, size_t n_bytes, size_t *scanned);

/* Reads a whole head of n_bytes. 0, or the HTTP status that refuses it: 400 (not HTTP, or ambiguous), 414, 415 (encoded
 * body), 417, 431, 501 (transfer coding), 505. */
int sl_http_parse_head(const char *bytes, size_t n_bytes, sl_http_head *head);

/* State of a chunked body; zero-initialise. */
typedef struct sl_http_chunks {
    int state;
    uint64_t left;
    size_t n_line, n_digits, n_trailers;
} sl_http_chunks;

enum { SL_HTTP_CHUNKS_MORE, SL_HTTP_CHUNKS_DATA, SL_HTTP_CHUNKS_DONE, SL_HTTP_CHUNKS_BAD };

/* Reads on in a chunked body, of which n_bytes are at bytes; *used gets how many of them are done with. DATA: *n_data
 * body bytes begin at bytes + *used - *n_data; call again with the rest. MORE: all bytes are used. DONE: the body has
 * ended, the rest is another request's. BAD: answer 400. */
int sl_http_read_chunks(sl_http_chunks *chunks, const char *bytes, size_t n_bytes, size_t *used, size_t *n_data);

#endif
