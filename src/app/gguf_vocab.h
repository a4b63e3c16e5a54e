/* A vocabulary from a GGUF file's tokenizer.ggml.* metadata. */
#ifndef SL_APP_GGUF_VOCAB_H
#define SL_APP_GGUF_VOCAB_H

#include "file/gguf.h"
#include "text/vocab.h"

/* SL_ERR_UNSUPPORTED for a tokenizer model other than "gpt2" and "llama"; SL_ERR_FORMAT names the key that is missing or
 * has the wrong type. The caller closes the vocabulary, which does not need the file any more. */
SL_WARN_UNUSED sl_status sl_gguf_vocab_open(const sl_gguf *gguf, sl_vocab **out, sl_err *err);

#endif
