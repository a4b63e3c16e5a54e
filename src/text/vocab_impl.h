/* Inside of a vocabulary; for the files of this folder only. */
#ifndef SL_TEXT_VOCAB_IMPL_H
#define SL_TEXT_VOCAB_IMPL_H

#include "text/index.h"
#include "text/pretokenize.h"
#include "text/special.h"
#include "text/vocab.h"

#define SL_TOKEN_NONE UINT32_MAX

/* One BPE merge, found by its pair; an empty slot has merged == SL_TOKEN_NONE. */
typedef struct sl_merge {
    uint32_t left, right; /* token ids */
    uint32_t rank;        /* position in the list: lower merges first */
    uint32_t merged;      /* token id of the concatenation */
} sl_merge;

struct sl_vocab {
    sl_vocab_kind kind;
    uint32_t n_tokens;
    int64_t bos, eos, unk;
    bool add_bos, add_eos, add_space_prefix;
    uint8_t *types;            /* n_tokens of sl_token_type */
    uint8_t *ends;             /* bit set of n_tokens: tokens that end a generation */
    sl_texts stored, bytes;    /* as in the file, and as they stand in a text */
    sl_text_index by_stored;   /* all tokens by stored text */
    sl_text_index by_bytes;    /* tokens that merging may make, by bytes */
    uint32_t byte_tokens[256]; /* token of one byte; SL_TOKEN_NONE where the vocabulary has none */
    sl_special special;        /* control and user-defined tokens */
    /* BPE */
    sl_merge *merges; /* open addressing, merge_mask + 1 slots */
    uint32_t merge_mask;
    sl_pretokenizer *pre;
    /* SPM */
    float *scores;
    bool space_joins[256]; /* bytes that some token has right before a space that is not its first byte */
};

/* True for a token that merging may make. User-defined tokens are none: they are found in the text before any merging. */
static inline bool sl_token_type_merges(sl_token_type type)
{
    return type == SL_TOKEN_NORMAL || type == SL_TOKEN_UNDEFINED;
}

/* Slot of the merge of (left, right), empty when there is none. */
const sl_merge *sl_vocab_find_merge(const sl_vocab *vocab, uint32_t left, uint32_t right);

#endif
