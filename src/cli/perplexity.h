/* Scores of teacher-forced tokens: perplexity, and how far one set of logits is from another. */
#ifndef SL_CLI_PERPLEXITY_H
#define SL_CLI_PERPLEXITY_H

#include "base/threads.h"

/* Score of one position. */
typedef struct sl_position_score {
    double nll;      /* -log p(next token) by the tested logits */
    double base_nll; /* the same by the base; this and what follows only with a base */
    double kld;      /* sum over tokens of p log(p / q), p = base, q = tested */
    double gap;      /* base: log-probability of its likeliest token minus that of the second */
    bool same_argmax;
} sl_position_score;

/* Scores n_rows positions with the pool's workers. rows[i * n_vocab ...] are the tested logits and next[i] the token
 * that follows; base_rows likewise, or NULL. Sums are in double precision and in index order, whatever the number of
 * workers. SL_ERR_NUMERIC when a logit is not finite. */
SL_WARN_UNUSED sl_status sl_score_rows(sl_threads *pool, const float *rows, const float *base_rows, size_t n_rows,
                                       size_t n_vocab, const uint32_t *next, sl_position_score *scores, sl_err *err);

typedef struct sl_score_summary {
    size_t n_scored;
    double ppl, stderr_; /* exp(mean nll) and its standard error by the delta method, as llama-perplexity prints them */
    double ppl_base, kld_mean, kld_p99, argmax_agreement, largest_flip_gap; /* with a base */
    double ppl_ratio, ppl_ratio_stderr; /* ppl / ppl_base; its standard error from the paired differences of nll */
} sl_score_summary;

/* Summary of n scores, n > 0; sorts nothing in place. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_score_summarise(const sl_position_score *scores, size_t n, bool with_base,
                                            sl_score_summary *out, sl_err *err);

#endif
