/* UTF-8: validation and incremental boundaries. */
#ifndef SL_BASE_UTF8_H
#define SL_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length (1-4) of the well-formed sequence that starts at bytes (n_bytes available), per Unicode table 3-7;
 * 0 when it is ill-formed; -1 when it is a well-formed beginning that n_bytes cut off.
 * *code_point (may be NULL) gets the scalar value when the result is positive. */
int sl_utf8_decode(const char *bytes, size_t n_bytes, uint32_t *code_point);

/* Bytes (1-3) at an ill-formed or cut-off place that one U+FFFD stands for: the longest beginning of a character, at least one
 * (Unicode 15, section 3.9, U+FFFD substitution of maximal subparts). n_bytes is at least 1. */
size_t sl_utf8_ill_formed(const char *bytes, size_t n_bytes);

/* Writes code_point (a scalar value) as 1-4 bytes and returns how many. */
size_t sl_utf8_encode(uint32_t code_point, char out[4]);

/* True when all n_bytes are well-formed. */
bool sl_utf8_valid(const char *bytes, size_t n_bytes);

/* Number of bytes at the end (0-3) that begin a character which is not complete yet. */
size_t sl_utf8_incomplete_tail(const char *bytes, size_t n_bytes);

#endif
