/* The merge loop of BPE and SentencePiece: best pair first, O(n log n). */
#ifndef SL_TEXT_MERGE_H
#define SL_TEXT_MERGE_H

#include "text/vocab_impl.h"

/* Piece of the text at byte offset i, kept in symbols[i]; the next one begins at i + n_bytes. */
typedef struct sl_symbol {
    uint32_t n_bytes;
    uint32_t prev;   /* offset of the one before; UINT32_MAX for the first */
    uint32_t id;     /* token, or SL_TOKEN_NONE while not known */
    uint32_t rank;   /* of merging with the next one */
    uint32_t merged; /* token of that merge; SL_TOKEN_NONE: they do not merge, or this symbol is part of another now */
} sl_symbol;

/* Work memory of one thread; zero-initialise but for vocab, free with sl_merger_free. */
typedef struct sl_merger {
    const sl_vocab *vocab;
    sl_symbol *symbols;
    size_t symbol_capacity;
    uint64_t *heap; /* rank << 32 | offset: lowest rank first, leftmost among equals */
    size_t n_heap, heap_capacity;
} sl_merger;
void sl_merger_free(sl_merger *merger);

/* Appends the tokens of n_bytes (below 1 GiB) that no special token and no piece border cuts. BPE: merges by rank
 * (Sennrich et al. 2016, section 3.2); SPM: merges by the score of the result (SentencePiece's bpe_model). A byte that
 * the vocabulary cannot express becomes U+FFFD (BPE) or the unknown token (SPM). SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_merger_run(sl_merger *merger, const char *bytes, size_t n_bytes, sl_tokens *out,
                                       sl_err *err);

#endif
