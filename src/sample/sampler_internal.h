/* Inside of sampling; for the files of this folder and their tests. */
#ifndef SL_SAMPLE_SAMPLER_INTERNAL_H
#define SL_SAMPLE_SAMPLER_INTERNAL_H

#include "sample/candidates.h"
#include "sample/sampler.h"

/* Each array as long as the vocabulary (block_max: as its blocks); pages that nothing touches cost nothing. */
struct sl_sample_scratch {
    uint32_t n_vocab;
    int32_t *block_max; /* maxima of blocks of logits */
    float *allowed;     /* logits of the allowed tokens, side by side */
    sl_candidates candidates;
};

/* Memory of a scratch. */
uint64_t sl_sample_scratch_bytes(uint32_t n_vocab);

/* The filtered distribution for n_vocab logits: candidates with unnormalised weights, the scratch's until its next use.
 * Greedy leaves one. Errors as sl_sampler_sample. */
SL_WARN_UNUSED sl_status sl_sampler_filter(sl_sampler *sampler, sl_sample_scratch *scratch, float *logits,
                                           const sl_candidates **out, sl_err *err);

#endif
