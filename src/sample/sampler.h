/* Sampling: logit processors and the choice of a token. */
#ifndef SL_SAMPLE_SAMPLER_H
#define SL_SAMPLE_SAMPLER_H

#include "base/status.h"

/* What a request asks of the sampler. Defaults from sl_sample_params_default(): greedy with nothing else on. */
typedef struct sl_sample_params {
    float temperature;        /* 0 = greedy */
    uint32_t top_k;           /* 0 = off */
    float top_p;              /* 1 = off */
    float min_p;              /* 0 = off; relative to the most likely token */
    float repetition_penalty; /* 1 = off; Keskar et al. 2019: divides positive and multiplies negative logits */
    float presence_penalty;   /* 0 = off; subtracted once from tokens generated before */
    float frequency_penalty;  /* 0 = off; subtracted once per occurrence */
    uint64_t seed;
    const sl_logit_bias *bias; /* n_bias entries */
    size_t n_bias;
    uint32_t min_tokens;       /* stop_tokens are ruled out until so many tokens were generated */
    sl_token_list stop_tokens; /* for min_tokens only: who stops at them is the caller */
    const sl_token_list
        *bad_words; /* n_bad_words sequences that are never completed, be their beginning in the prompt */
    size_t n_bad_words;
    sl_token_list allowed_tokens; /* all others are ruled out; none = all are allowed */
    uint32_t n_logprobs;          /* most likely alternatives to report, 0-20 */
    bool want_logprob;            /* report the chosen token's log-probability (implied by n_logprobs > 0) */
} sl_sample_params;

sl_sample_params sl_sample_params_default(void);

enum { SL_MAX_BAD_WORDS = 1024, SL_MAX_BAD_WORD = 256 /* tokens of one */ };

/* SL_ERR_ARGUMENT naming the field and its range for anything outside it or not finite. Ranges: temperature 0-100,
 * top_p and min_p 0-1, repetition_penalty 0.01-100, presence and frequency penalty -2 to 2, bias -100 to 100 (the last
 * three as OpenAI's API), tokens in any list below n_vocab, bad words not empty. And sl_sample_params_check_left. */
SL_WARN_UNUSED sl_status sl_sample_params_check(const sl_sample_params *params, uint32_t n_vocab, sl_err *err);

/* SL_ERR_ARGUMENT when stop tokens before min_tokens and bad words of one token leave no token, of those allowed, to begin
 * with; also part of sl_sample_params_check. Longer bad words may still do so later: sl_sampler_sample fails then.
 * SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_sample_params_check_left(const sl_sample_params *params, uint32_t n_vocab, sl_err *err);

typedef struct sl_sampled {
    uint32_t token;
    float logprob; /* NAN when not asked for */
    uint32_t n_top;
    sl_logprob top[SL_MAX_LOGPROBS]; /* most likely first; ties by lower id */
} sl_sampled;

typedef struct sl_sampler sl_sampler;

/* What a sampler needs while it chooses a token; any sampler of n_vocab tokens may use it, one at a time. */
typedef struct sl_sample_scratch sl_sample_scratch;
SL_WARN_UNUSED sl_status sl_sample_scratch_open(uint32_t n_vocab, sl_sample_scratch **out, sl_err *err);
void sl_sample_scratch_close(sl_sample_scratch *scratch);

/* Sampler of one sequence over n_vocab tokens; params are checked and copied with their arrays. The caller closes it. */
SL_WARN_UNUSED sl_status sl_sampler_open(const sl_sample_params *params, uint32_t n_vocab, sl_sampler **out,
                                         sl_err *err);
void sl_sampler_close(sl_sampler *sampler);

/* Tells the sampler of a token of the context. Prompt tokens (generated = false) count for the repetition penalty and the
 * beginnings of bad words only, generated ones for all penalties, as in OpenAI's and vLLM's definitions, and for
 * min_tokens. Tokens outside the vocabulary are ignored. */
void sl_sampler_accept(sl_sampler *sampler, uint32_t token, bool generated);

/* Chooses the token for position from n_vocab logits; some of these are changed meanwhile and the same as before, bit by
 * bit, on return. In the order of Hugging Face transformers (GenerationMixin._get_logits_processor and the warpers after
 * it): bias is added; the repetition penalty, then frequency and presence penalties applied (these two as in vLLM's
 * apply_penalties); last tokens of bad words and, before min_tokens, stop tokens ruled out, and all that is not allowed;
 * the rest divided by temperature; top-k, top-p and min-p each narrow what the one before has left, equal logits by lower
 * id; what is left is drawn from. A temperature below 1e-5 is greedy: the highest adjusted logit, lowest id first. The
 * random number is a function of seed and position alone (counter-based), so that a restart continues identically. Does
 * not call accept. Beyond one look at each logit (each allowed one where allowed_tokens are given) bias, penalties and
 * masks cost time by the number of tokens they name.
 * SL_ERR_NUMERIC when a logit (an allowed one) is NaN or +inf, or no finite logit is left; -inf rules a token out. */
SL_WARN_UNUSED sl_status sl_sampler_sample(sl_sampler *sampler, sl_sample_scratch *scratch, float *logits,
                                           uint64_t position, sl_sampled *out, sl_err *err);

/* The log-probability of token under n_vocab logits, and the n_top (at most SL_MAX_LOGPROBS) likeliest tokens. token below
 * n_vocab. SL_ERR_NUMERIC when a logit is NaN or +inf, or none is finite. */
SL_WARN_UNUSED sl_status sl_score_token(sl_sample_scratch *scratch, const float *logits, uint32_t token, uint32_t n_top,
                                        sl_sampled *out, sl_err *err);

/* log-softmax normaliser: log(sum(exp(logits))) of n logits that are no NaN. Single-precision exponentials (relative
 * error below 1e-6 of any that matters) are added up in double precision, in an order that n alone decides. */
double sl_log_sum_exp(const float *logits, size_t n);

#endif
