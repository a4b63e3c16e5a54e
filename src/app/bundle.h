/* The model bundle: weights, vocabulary and chat template of one file, opened together. */
#ifndef SL_APP_BUNDLE_H
#define SL_APP_BUNDLE_H

#include "engine/engine.h"
#include "text/detok.h"
#include "text/template.h"
#include "text/vocab.h"

typedef struct sl_bundle sl_bundle;

enum {
    SL_BUNDLE_TEXT_ONLY = 1,  /* vocabulary and template, no model (`sluice tokenize`) */
    SL_BUNDLE_NO_WEIGHTS = 2, /* the model's plan without packed weights (`sluice info`) */
};

typedef struct sl_bundle_options {
    uint32_t flags;
    int n_threads; /* 0 = sl_cpu_count() */
    bool pin;      /* each worker, the calling thread too, to a CPU of its own (sl_threads_pin) */
    sl_model_options model;
} sl_bundle_options;

sl_bundle_options sl_bundle_options_default(void);

/* Opens the GGUF file at path. The caller closes it. */
SL_WARN_UNUSED sl_status sl_bundle_open(const char *path, const sl_bundle_options *options, sl_bundle **out,
                                        sl_err *err);
void sl_bundle_close(sl_bundle *bundle);

const sl_gguf *sl_bundle_gguf(const sl_bundle *bundle);
const sl_vocab *sl_bundle_vocab(const sl_bundle *bundle);
const sl_model *sl_bundle_model(const sl_bundle *bundle); /* NULL with TEXT_ONLY */
sl_threads *sl_bundle_threads(const sl_bundle *bundle);   /* NULL with TEXT_ONLY */

/* Opens an engine on the bundle's model and threads, which begins with what engines before it have learned of the time that
 * steps take here (app/cost_cache.h, in the cache of the bundle's options). Errors of sl_engine_open. */
SL_WARN_UNUSED sl_status sl_bundle_open_engine(const sl_bundle *bundle, const sl_engine_options *options,
                                               sl_engine **out, sl_err *err);
/* Closes it (NULL is allowed) and saves what it has learned since. */
void sl_bundle_close_engine(const sl_bundle *bundle, sl_engine *engine);
/* Saves what an engine of the bundle has learned; any thread. Failing does no harm. */
void sl_bundle_save_cost(const sl_bundle *bundle, const sl_cost *cost);

/* Appends the tokens of a conversation to *out, as the file's chat template (or a built-in one, for vocabularies with
 * ChatML's or Gemma's turn tokens) writes it, with the header of the assistant's turn at the end. Message contents are
 * untrusted: they never form control tokens. SL_ERR_UNSUPPORTED when the file has no template that can be used. */
SL_WARN_UNUSED sl_status sl_bundle_chat_tokens(const sl_bundle *bundle, const sl_message *messages, size_t n_messages,
                                               sl_tokens *out, sl_err *err);

/* Appends the tokens of plain text (untrusted), with BOS if the model wants it. */
SL_WARN_UNUSED sl_status sl_bundle_text_tokens(const sl_bundle *bundle, const char *text, size_t n_bytes,
                                               sl_tokens *out, sl_err *err);

/* What each token writes, for sl_engine_options.token_bytes: as the detokenizer writes it inside a text, control tokens
 * nothing. The bundle's. */
const sl_token_bytes *sl_bundle_token_bytes(const sl_bundle *bundle);

/* How the file's model makes embeddings (ARCH.pooling_type), SL_POOLING_MEAN where it does not say. */
sl_pooling sl_bundle_pooling(const sl_bundle *bundle);

/* Ids of all tokens that end an answer; *ids is owned by the bundle. */
size_t sl_bundle_stop_tokens(const sl_bundle *bundle, const uint32_t **ids);

#endif
