/* The byte alphabet of byte-level BPE: GPT-2 writes each byte as one printable character. */
#ifndef SL_TEXT_BYTELEVEL_H
#define SL_TEXT_BYTELEVEL_H

#include "base/status.h"

/* Bytes that the n_bytes of a stored token stand for, written to out (n_bytes of room); their number. A text that holds
 * any character outside the alphabet stands for itself. */
size_t sl_bytelevel_decode(const char *stored, size_t n_bytes, char *out);

#endif
