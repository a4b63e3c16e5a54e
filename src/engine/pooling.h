/* Embeddings: what becomes of a prompt's hidden states. */
#ifndef SL_ENGINE_POOLING_H
#define SL_ENGINE_POOLING_H

#include "base/status.h"

/* The embedding of one prompt in the making. */
typedef struct sl_pooled sl_pooled;

/* For a prompt of n_prompt > 0 tokens and hidden states of n_embd floats; *out = NULL for SL_POOLING_NONE. normalise: the
 * result gets the Euclidean length 1 (a zero vector stays one). SL_ERR_NOMEM. Nothing is allocated later. */
SL_WARN_UNUSED sl_status sl_pooled_open(sl_pooling pooling, bool normalise, uint32_t n_prompt, uint32_t n_embd,
                                        sl_pooled **out, sl_err *err);
void sl_pooled_close(sl_pooled *pooled);

/* First position whose hidden state is still to come; n_prompt when none is. NULL: UINT32_MAX. */
uint32_t sl_pooled_next(const sl_pooled *pooled);

/* Whether the position's hidden state is (still) to come. NULL: false. */
bool sl_pooled_wants(const sl_pooled *pooled, uint32_t position);

/* Adds the hidden state of sl_pooled_next's position. The mean is summed in double precision in the order of positions,
 * so that chunks, batches and pre-emptions change no bit of it. */
void sl_pooled_add(sl_pooled *pooled, const float *hidden);

/* The embedding, once none is to come: *n floats, the pooled's. SL_ERR_NUMERIC when it is not finite. Called once. */
SL_WARN_UNUSED sl_status sl_pooled_finish(sl_pooled *pooled, const float **embedding, uint32_t *n, sl_err *err);

#endif
