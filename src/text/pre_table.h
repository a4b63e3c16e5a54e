/* The pre-tokenizers known by name. Patterns are those of each model's own tokenizer.json (Split, Digits, Punctuation
 * and ByteLevel steps), written for PCRE2; the names are those that GGUF files carry in tokenizer.ggml.pre. */
#ifndef SL_TEXT_PRE_TABLE_H
#define SL_TEXT_PRE_TABLE_H

#include <stdbool.h>

#define SL_PRE_MAX_PATTERNS 6
#define SL_PRE_MAX_NAMES    20

typedef struct sl_pre_rule {
    const char *names[SL_PRE_MAX_NAMES];
    const char *patterns[SL_PRE_MAX_PATTERNS]; /* applied one after the other, each to the pieces of the last */
    bool ignore_merges;
    bool add_bos; /* where the file does not say */
} sl_pre_rule;

/* Rule of that name; NULL when there is none. */
const sl_pre_rule *sl_pre_rule_find(const char *name, unsigned long n_bytes);

#endif
