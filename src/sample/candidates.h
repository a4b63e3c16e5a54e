/* Tokens still in the race for one draw, and the filters that narrow them. Used by the sampler and its tests. */
#ifndef SL_SAMPLE_CANDIDATES_H
#define SL_SAMPLE_CANDIDATES_H

#include "kernel/ops.h"

/* Candidates in ascending order of token id. Arrays are the owner's, of at least the vocabulary's size. */
typedef struct sl_candidates {
    uint32_t *id;
    float *logit;  /* after bias and penalties */
    float *weight; /* exp((logit - maximum) / temperature): the probability but for a common factor */
    uint32_t n;
} sl_candidates;

/* block_max[b] = largest key of logits[64 b .. 64 b + 63], ceil(n / 64) of them, with the keys of kernel/ops.h. *max = largest of all.
 * False when a logit is NaN or +inf, or none is finite. */
bool sl_logits_scan(const float *logits, uint32_t n, int32_t *block_max, int32_t *max);

/* Lowest id whose key is max. */
uint32_t sl_logits_argmax(const float *logits, uint32_t n, const int32_t *block_max, int32_t max);

/* Sum of the weights (see sl_candidates_weigh) of all n logits, whose largest is max_logit. */
double sl_logits_total(const float *logits, uint32_t n, float max_logit, float temperature);

/* c = all tokens with a finite logit of at least bound, of n_logits, or where top_k is not 0 the top_k highest of them:
 * exactly that many, equal logits by lower id. block_max as from sl_logits_scan. */
void sl_candidates_gather(sl_candidates *c, const float *logits, uint32_t n_logits, const int32_t *block_max,
                          float bound, uint32_t top_k);

/* weight = exp((logit - max_logit) / temperature) in single precision (relative error below 1e-5 where the exponent
 * is above -30); candidates whose weight would be below 2^-125 are dropped. temperature > 0. */
void sl_candidates_weigh(sl_candidates *c, float max_logit, float temperature);

/* Sum of the candidates' weights. */
double sl_candidates_sum(const sl_candidates *c);

/* Keeps the shortest run of the most likely candidates whose weights sum to at least top_p of total, at least one; all
 * where their sum is less; equal logits by lower id. Source: Holtzman et al. 2020, "The Curious Case of Neural Text
 * Degeneration". */
void sl_candidates_top_p(sl_candidates *c, float top_p, double total);

/* Keeps candidates at least min_p times as likely as the most likely one. Source: Nguyen et al. 2024, "Min P Sampling". */
void sl_candidates_min_p(sl_candidates *c, float min_p);

/* Candidate whose share of the summed weights contains uniform in [0, 1), the shares laid out by id. n > 0. */
uint32_t sl_candidates_draw(const sl_candidates *c, double uniform);

#endif
