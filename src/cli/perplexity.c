#include "cli/perplexity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const float *rows, *base_rows;
    size_t n_rows, n_vocab;
    const uint32_t *next;
    sl_position_score *scores;
} score_work;

/* Index of the largest of n logits, the first one of several. */
static size_t find_largest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* The largest logit minus the second largest. */
static double top_gap(const float *logits, size_t n, size_t best)
{
    float second = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (i != best && logits[i] > second)
            second = logits[i];
    return (double)logits[best] - (double)second;
}

static double log_sum_exp(const float *logits, size_t n, float largest)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)(logits[i] - largest));
    return largest + log(sum);
}

/* KLD = sum p_i ((b_i - lse_b) - (l_i - lse_l)) = (sum e_i (b_i - l_i)) / (sum e_i) - lse_b + lse_l with
 * e_i = exp(b_i - max b) and p_i = e_i / sum e_i. Rounding may leave a hair below zero: that is zero. */
static void compare(const float *logits, const float *base, size_t n, double lse, sl_position_score *score)
{
    size_t best = find_largest(base, n);
    double sum = 0, weighted = 0;
    for (size_t i = 0; i < n; i++) {
        double e = exp((double)(base[i] - base[best]));
        sum += e;
        weighted += e * ((double)base[i] - (double)logits[i]);
    }
    double base_lse = base[best] + log(sum);
    score->kld = fmax(weighted / sum - base_lse + lse, 0);
    score->gap = top_gap(base, n, best);
    score->same_argmax = best == find_largest(logits, n);
}

static void score_share(void *user, int index, int n_threads)
{
    const score_work *work = user;
    size_t begin, end, n = work->n_vocab;
    sl_threads_share(work->n_rows, index, n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const float *logits = work->rows + r * n;
        sl_position_score *score = &work->scores[r];
        double lse = log_sum_exp(logits, n, logits[find_largest(logits, n)]);
        *score = (sl_position_score){.nll = lse - (double)logits[work->next[r]]};
        if (work->base_rows == NULL)
            continue;
        const float *base = work->base_rows + r * n;
        compare(logits, base, n, lse, score);
        score->base_nll = log_sum_exp(base, n, base[find_largest(base, n)]) - (double)base[work->next[r]];
    }
}

sl_status sl_score_rows(sl_threads *pool, const float *rows, const float *base_rows, size_t n_rows, size_t n_vocab,
                        const uint32_t *next, sl_position_score *scores, sl_err *err)
{
    score_work work = {rows, base_rows, n_rows, n_vocab, next, scores};
    sl_threads_run(pool, score_share, &work);
    for (size_t r = 0; r < n_rows; r++)
        if (!isfinite(scores[r].nll) || !isfinite(scores[r].base_nll) || !isfinite(scores[r].kld))
            SL_FAIL(err, SL_ERR_NUMERIC, "the model's logits are not finite");
    return SL_OK;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static sl_status summarise_base(const sl_position_score *scores, size_t n, sl_score_summary *out, sl_err *err)
{
    double *klds = malloc(n * sizeof(*klds)), sum = 0, base_nll = 0, change = 0, squares = 0;
    size_t n_same = 0;
    if (klds == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        klds[i] = scores[i].kld;
        sum += scores[i].kld;
        base_nll += scores[i].base_nll;
        double difference = scores[i].nll - scores[i].base_nll;
        change += difference;
        squares += difference * difference;
        n_same += scores[i].same_argmax;
        if (!scores[i].same_argmax)
            out->largest_flip_gap = fmax(out->largest_flip_gap, scores[i].gap);
    }
    qsort(klds, n, sizeof(*klds), compare_doubles);
    change /= (double)n;
    double variance = squares / (double)n - change * change;
    out->ppl_base = exp(base_nll / (double)n);
    out->ppl_ratio = exp(change);
    out->ppl_ratio_stderr = n > 1 && variance > 0 ? sqrt(variance / (double)(n - 1)) * out->ppl_ratio : 0;
    out->kld_mean = sum / (double)n;
    out->kld_p99 = klds[(size_t)(0.99 * (double)(n - 1))];
    out->argmax_agreement = (double)n_same / (double)n;
    free(klds);
    return SL_OK;
}

sl_status sl_score_summarise(const sl_position_score *scores, size_t n, bool with_base, sl_score_summary *out,
                             sl_err *err)
{
    double sum = 0, squares = 0;
    *out = (sl_score_summary){.n_scored = n};
    for (size_t i = 0; i < n; i++) {
        sum += scores[i].nll;
        squares += scores[i].nll * scores[i].nll;
    }
    double mean = sum / (double)n, variance = squares / (double)n - mean * mean;
    out->ppl = exp(mean);
    out->stderr_ = n > 1 && variance > 0 ? sqrt(variance / (double)(n - 1)) * out->ppl : 0;
    return with_base ? summarise_base(scores, n, out, err) : SL_OK;
}
