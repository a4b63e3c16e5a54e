/* Streaming detokenizer: never emits part of a character. */
#ifndef SL_TEXT_DETOK_H
#define SL_TEXT_DETOK_H

#include "text/vocab.h"

enum {
    SL_DETOK_SPECIAL = 1, /* control tokens appear as their stored text */
};

/* Caller-owned state of one stream. */
typedef struct sl_detok {
    const sl_vocab *vocab;
    uint32_t flags;
    char *buffer; /* text of the last call; grows */
    size_t capacity;
    char held[4]; /* beginning of a character, at most 3 bytes */
    size_t n_held;
    bool at_start; /* SPM: the space prefix of the first token is dropped */
} sl_detok;

void sl_detok_init(sl_detok *detok, const sl_vocab *vocab, uint32_t flags);
void sl_detok_free(sl_detok *detok);

/* Adds a token; *out is the text that became complete (well-formed UTF-8, may be empty), valid until the next call.
 * Bytes that can never become a character turn into U+FFFD. */
SL_WARN_UNUSED sl_status sl_detok_push(sl_detok *detok, uint32_t token, sl_bytes *out, sl_err *err);

/* The same for the bytes of one or more ordinary tokens, as an engine's events bring them; no flags apply. */
SL_WARN_UNUSED sl_status sl_detok_push_bytes(sl_detok *detok, sl_bytes text, sl_bytes *out, sl_err *err);

/* Ends the stream: what is still held back comes out as U+FFFD. */
SL_WARN_UNUSED sl_status sl_detok_finish(sl_detok *detok, sl_bytes *out, sl_err *err);

/* Whole-sequence variant that keeps the exact bytes, well-formed or not; *out is malloc'd, NUL-terminated, the caller's. */
SL_WARN_UNUSED sl_status sl_detokenize(const sl_vocab *vocab, const uint32_t *ids, size_t n_ids, uint32_t flags,
                                       char **out, size_t *n_bytes, sl_err *err);

#endif
