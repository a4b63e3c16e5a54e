/* What the sampler draws from, for its tests. */
#ifndef SL_SAMPLE_SAMPLER_INTERNAL_H
#define SL_SAMPLE_SAMPLER_INTERNAL_H

#include "sample/candidates.h"
#include "sample/sampler.h"

/* The filtered distribution for n_vocab logits: candidates with unnormalised weights, valid until the next call.
 * Greedy leaves one. Errors as sl_sampler_sample. */
SL_WARN_UNUSED sl_status sl_sampler_filter(sl_sampler *sampler, const float *logits, const sl_candidates **out,
                                           sl_err *err);

#endif
