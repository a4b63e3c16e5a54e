/* Sampling: logit processors and the choice of a token. */
#ifndef SL_SAMPLE_SAMPLER_H
#define SL_SAMPLE_SAMPLER_H

#include "base/status.h"

typedef struct sl_logit_bias {
    uint32_t token;
    float bias; /* added to the logit */
} sl_logit_bias;

/* What a request asks of the sampler. Defaults from sl_sample_params_default(): greedy with nothing else on. */
typedef struct sl_sample_params {
    float temperature; /* 0 = greedy */
    uint32_t top_k;    /* 0 = off */
    float top_p;       /* 1 = off */
    float min_p;       /* 0 = off; relative to the most likely token */
    float repetition_penalty; /* 1 = off; Keskar et al. 2019: divides positive and multiplies negative logits */
    float presence_penalty;   /* 0 = off; subtracted once from tokens generated before */
    float frequency_penalty;  /* 0 = off; subtracted once per occurrence */
    uint64_t seed;
    const sl_logit_bias *bias; /* n_bias entries, the caller's, alive as long as the sampler */
    size_t n_bias;
    uint32_t n_logprobs; /* most likely alternatives to report, 0-20 */
    bool want_logprob;   /* report the chosen token's log-probability (implied by n_logprobs > 0) */
} sl_sample_params;

sl_sample_params sl_sample_params_default(void);

/* SL_ERR_ARGUMENT naming the field and its range for anything outside it or not finite. */
SL_WARN_UNUSED sl_status sl_sample_params_check(const sl_sample_params *params, uint32_t n_vocab, sl_err *err);

enum { SL_MAX_LOGPROBS = 20 };

typedef struct sl_logprob {
    uint32_t token;
    float logprob; /* natural logarithm, of the model's own distribution (before penalties, bias and temperature) */
} sl_logprob;

typedef struct sl_sampled {
    uint32_t token;
    float logprob; /* NAN when not asked for */
    uint32_t n_top;
    sl_logprob top[SL_MAX_LOGPROBS]; /* most likely first; ties by lower id */
} sl_sampled;

typedef struct sl_sampler sl_sampler;

/* Sampler of one sequence over n_vocab tokens; params are checked and copied. The caller closes it. */
SL_WARN_UNUSED sl_status sl_sampler_open(const sl_sample_params *params, uint32_t n_vocab, sl_sampler **out, sl_err *err);
void sl_sampler_close(sl_sampler *sampler);

/* Tells the sampler of a token of the context. Prompt tokens (generated = false) count for the repetition penalty only,
 * generated ones for all three, as in OpenAI's and vLLM's definitions. */
void sl_sampler_accept(sl_sampler *sampler, uint32_t token, bool generated);

/* Chooses the token for position from n_vocab logits, which are left unchanged. The random number is a function of seed
 * and position alone (counter-based), so that a restart continues identically. Does not call accept.
 * SL_ERR_NUMERIC when a logit is NaN or no finite logit is left. */
SL_WARN_UNUSED sl_status sl_sampler_sample(sl_sampler *sampler, const float *logits, uint64_t position, sl_sampled *out,
                                           sl_err *err);

/* log-softmax normaliser: log(sum(exp(logits))), computed in double precision in index order. */
double sl_log_sum_exp(const float *logits, size_t n);

#endif
