/* Pre-tokenizers of byte-level BPE: regular expressions that cut a text into pieces no token may cross. */
#ifndef SL_TEXT_PRETOKENIZE_H
#define SL_TEXT_PRETOKENIZE_H

#include "text/vocab.h"

typedef struct sl_pretokenizer sl_pretokenizer;

/* Compiles the rules that tokenizer.ggml.pre calls name. SL_ERR_UNSUPPORTED for an unknown name. Immutable afterwards;
 * the caller closes it. */
SL_WARN_UNUSED sl_status sl_pretokenizer_open(sl_bytes name, sl_pretokenizer **out, sl_err *err);
void sl_pretokenizer_close(sl_pretokenizer *pre);

/* True when a piece that is a token as it stands becomes that token, whatever the merges say. */
bool sl_pretokenizer_ignores_merges(const sl_pretokenizer *pre);

/* Lengths of consecutive pieces. */
typedef struct sl_pieces {
    uint32_t *lengths;
    size_t n, capacity;
} sl_pieces;

/* Memory one thread needs to run a pre-tokenizer; open once per text, reuse for all its parts. */
typedef struct sl_pretokenizer_run sl_pretokenizer_run;
SL_WARN_UNUSED sl_status sl_pretokenizer_run_open(const sl_pretokenizer *pre, sl_pretokenizer_run **out, sl_err *err);
void sl_pretokenizer_run_close(sl_pretokenizer_run *run);

/* Cuts n_bytes (below 1 GiB) into pieces, which cover them all; *out is valid until the next call. Each pass works on
 * the pieces of the one before; matches and the gaps between them are pieces. A run of ill-formed UTF-8 is a piece of
 * its own. Where a pattern hits a limit of the regex engine the rest of its piece stays whole, so this never fails on
 * account of the text. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_pretokenizer_split(sl_pretokenizer_run *run, const char *bytes, size_t n_bytes,
                                               const sl_pieces **out, sl_err *err);

#endif
