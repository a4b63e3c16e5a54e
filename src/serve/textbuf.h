/* A growing text, and JSON written into it piece by piece: an answer is written as its tokens come, never built as a
 * tree. */
#ifndef SL_SERVE_TEXTBUF_H
#define SL_SERVE_TEXTBUF_H

#include "base/status.h"

/* Zero-initialise, free with sl_textbuf_free. When memory is short, failed is set and the text stays as it was. */
typedef struct sl_textbuf {
    char *bytes; /* NUL-terminated where not NULL */
    size_t n_bytes, capacity;
    bool failed;
} sl_textbuf;

void sl_textbuf_free(sl_textbuf *text);
void sl_textbuf_clear(sl_textbuf *text);               /* keeps the memory */
void sl_textbuf_cut(sl_textbuf *text, size_t n_bytes); /* keeps the first n_bytes, of those there are */

void sl_textbuf_add(sl_textbuf *text, const char *bytes, size_t n_bytes);
void sl_textbuf_text(sl_textbuf *text, const char *string);
void sl_textbuf_format(sl_textbuf *text, const char *format, ...) SL_PRINTF(2, 3);

/* What stands between the quotes of a JSON string (RFC 8259): bytes that are no UTF-8 become U+FFFD (sl_utf8_ill_formed). */
void sl_textbuf_json_part(sl_textbuf *text, const char *bytes, size_t n_bytes);
/* The same, quotes included. */
void sl_textbuf_json(sl_textbuf *text, const char *bytes, size_t n_bytes);

/* A number that JSON can hold: an infinite log-probability becomes -9999, as in vLLM. */
void sl_textbuf_logprob(sl_textbuf *text, float logprob);

#endif
