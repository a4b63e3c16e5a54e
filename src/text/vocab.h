/* Vocabulary and tokenizer: text to token ids and back. Built from plain arrays, so that any file format can feed it. */
#ifndef SL_TEXT_VOCAB_H
#define SL_TEXT_VOCAB_H

#include "base/bytes.h"
#include "base/status.h"

typedef enum sl_vocab_kind {
    SL_VOCAB_BPE, /* byte-level BPE with ranked merges (GGUF "gpt2") */
    SL_VOCAB_SPM, /* SentencePiece-style highest-score bigram merges (GGUF "llama") */
} sl_vocab_kind;

/* Token attributes; the numbers are GGUF's tokenizer.ggml.token_type. */
typedef enum sl_token_type {
    SL_TOKEN_UNDEFINED = 0,
    SL_TOKEN_NORMAL = 1,
    SL_TOKEN_UNKNOWN = 2,
    SL_TOKEN_CONTROL = 3,
    SL_TOKEN_USER_DEFINED = 4,
    SL_TOKEN_UNUSED = 5,
    SL_TOKEN_BYTE = 6,
} sl_token_type;

/* Everything a vocabulary is built from; the arrays stay the caller's and are copied. */
typedef struct sl_vocab_desc {
    sl_vocab_kind kind;
    sl_bytes pre; /* name of the pre-tokenizer (tokenizer.ggml.pre): "smollm", "llama-bpe", "qwen2", …; BPE only */
    uint32_t n_tokens;
    const sl_bytes *tokens;
    const float *scores;  /* n_tokens, SPM only; NULL = 0 */
    const int32_t *types; /* n_tokens of sl_token_type; NULL = normal */
    uint32_t n_merges;
    const sl_bytes *merges;          /* "left right", split at the first space at index >= 1; BPE only */
    int64_t bos, eos, eot, unk, pad; /* -1 = none */
    bool add_bos, add_eos, add_space_prefix;
} sl_vocab_desc;

typedef struct sl_vocab sl_vocab;

/* Builds a vocabulary. SL_ERR_UNSUPPORTED for an unknown pre-tokenizer (named in the message), SL_ERR_FORMAT for arrays
 * that contradict each other, SL_ERR_LIMIT above 4 Mi tokens. The caller closes it. Immutable afterwards: any number of
 * threads may use it at once. */
SL_WARN_UNUSED sl_status sl_vocab_open(const sl_vocab_desc *desc, sl_vocab **out, sl_err *err);
void sl_vocab_close(sl_vocab *vocab);

uint32_t sl_vocab_n_tokens(const sl_vocab *vocab);
/* Special ids; -1 = none. */
int64_t sl_vocab_bos(const sl_vocab *vocab);
int64_t sl_vocab_eos(const sl_vocab *vocab);
bool sl_vocab_adds_bos(const sl_vocab *vocab);
/* True when a space is put before the text that begins a prompt or follows a special token (SPM only). */
bool sl_vocab_adds_space_prefix(const sl_vocab *vocab);
/* Whether a vocabulary whose file does not say adds a BOS: SPM does, BPE depends on its pre-tokenizer. */
bool sl_vocab_default_add_bos(sl_vocab_kind kind, sl_bytes pre);
/* True for a token that ends a generation: eos, eot, and the control tokens known as ends of turn
 * (<|im_end|>, <end_of_turn>, <|eot_id|>, <|end|>, <|endoftext|>, …). */
bool sl_vocab_is_end(const sl_vocab *vocab, uint32_t token);
sl_token_type sl_vocab_type(const sl_vocab *vocab, uint32_t token);
/* Text of a token as stored in the file ("Ġthe", "▁the", "<0x0A>"); for display. Empty for an id out of range. */
sl_bytes sl_vocab_stored_text(const sl_vocab *vocab, uint32_t token);
/* Bytes the token stands for in a text (" the", "\n"). Control tokens have none here. Empty for an id out of range. */
sl_bytes sl_vocab_bytes(const sl_vocab *vocab, uint32_t token);
/* The same of all tokens: token i stands for (*bytes)[(*offsets)[i] .. (*offsets)[i + 1]); both arrays are the
 * vocabulary's. */
void sl_vocab_all_bytes(const sl_vocab *vocab, const char **bytes, const uint32_t **offsets);
/* Id of the token whose stored text equals text; -1 when there is none. */
int64_t sl_vocab_find(const sl_vocab *vocab, sl_bytes text);

/* Growing array of token ids; zero-initialise, free with sl_tokens_free. */
typedef struct sl_tokens {
    uint32_t *ids;
    size_t n, capacity;
} sl_tokens;
SL_WARN_UNUSED sl_status sl_tokens_push(sl_tokens *tokens, uint32_t id, sl_err *err);
void sl_tokens_free(sl_tokens *tokens);

/* A piece of prompt. Only trusted bytes (from a template, from us) may form control tokens such as <|im_start|>; in
 * untrusted bytes the same characters are ordinary text, and no match ever crosses from one span into the next. */
typedef struct sl_span {
    const char *bytes;
    size_t n_bytes;
    bool trusted;
} sl_span;

enum {
    SL_TOKENIZE_ADD_SPECIAL =
        1, /* BOS/EOS as the model wants; a BOS that the text already begins with is not doubled */
};

/* Appends the ids of n_spans spans to *out. Any bytes are accepted, ill-formed UTF-8 included. Adjacent spans of ordinary
 * text are tokenized as one text. O(n log n). SL_ERR_LIMIT above 256 MiB. */
SL_WARN_UNUSED sl_status sl_tokenize(const sl_vocab *vocab, const sl_span *spans, size_t n_spans, uint32_t flags,
                                     sl_tokens *out, sl_err *err);

#endif
