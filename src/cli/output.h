/* What the program writes: results on standard output, one-line errors and notes on standard error. */
#ifndef SL_CLI_OUTPUT_H
#define SL_CLI_OUTPUT_H

#include "base/status.h"

#include <jansson.h>

/* Text on standard output. A failed write is remembered (see sl_out_failed) and later ones do nothing. */
void sl_out_bytes(const char *bytes, size_t n_bytes);
void sl_out_text(const char *text);
void sl_out_printf(const char *format, ...) SL_PRINTF(1, 2);

/* Bytes from a file or a model: control characters other than line ends and tabs are left out on a terminal, where they
 * could do anything. Elsewhere all bytes go through. bytes must not begin or end inside a character. */
void sl_out_foreign(const char *bytes, size_t n_bytes);

/* Heading in bold where colours are on. */
void sl_out_heading(const char *text);

void sl_out_flush(void);
bool sl_out_failed(void);

/* Flushes and closes standard output. SL_ERR_IO with the reason when anything could not be written, except that a
 * closed pipe is SL_OK: the reader has had enough. */
SL_WARN_UNUSED sl_status sl_out_finish(sl_err *err);

/* "sluice: message" on standard error, on one line whatever message holds. */
void sl_print_error(const char *message);

/* A remark that is no error, on standard error: dimmed where colours are on. */
void sl_print_note(const char *format, ...) SL_PRINTF(1, 2);

/* True when the stream (1 or 2) is a terminal, and when it may get colours besides (NO_COLOR, TERM=dumb). */
bool sl_is_terminal(int fd);
bool sl_has_colours(int fd);

/* "1.2 GiB", "512 B". out has room for 32 bytes. Returns out. */
const char *sl_format_bytes(uint64_t n_bytes, char out[32]);

/* JSON string of any bytes: those that are no UTF-8 become U+FFFD. NULL when memory is short. */
json_t *sl_json_text(const char *bytes, size_t n_bytes);

/* Number that JSON can hold: infinities and NaN become -9999, which no logarithm of a float probability reaches. */
json_t *sl_json_logprob(double logprob);

/* Prints root with a line end and releases it. SL_ERR_NOMEM when root is NULL. */
SL_WARN_UNUSED sl_status sl_out_json(json_t *root, sl_err *err);

#endif
