/* The order of the steps is that of Hugging Face transformers (GenerationMixin._get_logits_processor): logit bias,
 * repetition penalty, then presence and frequency penalties, which it lacks and which come where vLLM's sampler has
 * them; temperature; top-k; top-p; min-p. Each filter sees the distribution that the one before has left. */
#include "sample/sampler.h"

#include "sample/philox.h"
#include "sample/sampler_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Below this a temperature is greedy, as in vLLM: dividing by it would only overflow. */
static const float temperature_min = 1e-5f;

struct sl_sampler {
    sl_sample_params params;
    uint32_t n_vocab;
    /* History: 0 for a token not seen yet, 1 + times generated otherwise; and the tokens seen, in order of appearance.
     * Both as long as the vocabulary so that accept cannot fail; untouched pages cost nothing. NULL without penalties. */
    uint32_t *count;
    uint32_t *seen;
    uint32_t n_seen;
    float *adjusted;    /* logits after bias and penalties; NULL where there are none */
    int32_t *block_max; /* maxima of blocks of logits */
    sl_candidates candidates;
};

sl_sample_params sl_sample_params_default(void)
{
    return (sl_sample_params){.top_p = 1.0f, .repetition_penalty = 1.0f};
}

static sl_status check_range(const char *name, float value, float low, float high, sl_err *err)
{
    if (!(value >= low && value <= high)) /* NaN too */
        SL_FAIL(err, SL_ERR_ARGUMENT, "%s must be between %g and %g, not %g", name, (double)low, (double)high,
                (double)value);
    return SL_OK;
}

sl_status sl_sample_params_check(const sl_sample_params *params, uint32_t n_vocab, sl_err *err)
{
    SL_TRY(check_range("temperature", params->temperature, 0, 100, err));
    SL_TRY(check_range("top_p", params->top_p, 0, 1, err));
    SL_TRY(check_range("min_p", params->min_p, 0, 1, err));
    SL_TRY(check_range("repetition_penalty", params->repetition_penalty, 0.01f, 100, err));
    SL_TRY(check_range("presence_penalty", params->presence_penalty, -2, 2, err));
    SL_TRY(check_range("frequency_penalty", params->frequency_penalty, -2, 2, err));
    if (params->n_logprobs > SL_MAX_LOGPROBS)
        SL_FAIL(err, SL_ERR_ARGUMENT, "logprobs must be between 0 and %d, not %u", SL_MAX_LOGPROBS, params->n_logprobs);
    if (params->n_bias > 0 && !params->bias)
        SL_FAIL(err, SL_ERR_ARGUMENT, "logit_bias has %zu entries but no array", params->n_bias);
    for (size_t i = 0; i < params->n_bias; i++) {
        if (params->bias[i].token >= n_vocab)
            SL_FAIL(err, SL_ERR_ARGUMENT, "logit_bias names token %u, but tokens are between 0 and %u",
                    params->bias[i].token, n_vocab - 1);
        SL_TRY(check_range("logit_bias", params->bias[i].bias, -100, 100, err));
    }
    return SL_OK;
}

static bool has_penalties(const sl_sample_params *p)
{
    return p->repetition_penalty != 1.0f || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

static bool is_greedy(const sl_sample_params *p)
{
    return p->temperature < temperature_min;
}

static bool alloc_buffers(sl_sampler *s)
{
    size_t n = s->n_vocab, n_blocks = (n + SL_KEY_BLOCK - 1) / SL_KEY_BLOCK;
    bool penalties = has_penalties(&s->params);
    s->block_max = calloc(n_blocks, sizeof(*s->block_max));
    s->candidates.id = calloc(n, sizeof(*s->candidates.id));
    s->candidates.logit = calloc(n, sizeof(*s->candidates.logit));
    s->candidates.weight = calloc(n, sizeof(*s->candidates.weight));
    if (penalties) {
        s->count = calloc(n, sizeof(*s->count));
        s->seen = calloc(n, sizeof(*s->seen));
    }
    if (penalties || s->params.n_bias > 0)
        s->adjusted = calloc(n, sizeof(*s->adjusted));
    return s->block_max && s->candidates.id && s->candidates.logit && s->candidates.weight &&
           (!penalties || (s->count && s->seen)) && (s->adjusted || !(penalties || s->params.n_bias > 0));
}

sl_status sl_sampler_open(const sl_sample_params *params, uint32_t n_vocab, sl_sampler **out, sl_err *err)
{
    *out = NULL;
    if (n_vocab == 0 || n_vocab > INT32_MAX)
        SL_FAIL(err, SL_ERR_ARGUMENT, "a vocabulary has between 1 and %d tokens, not %u", INT32_MAX, n_vocab);
    SL_TRY(sl_sample_params_check(params, n_vocab, err));
    sl_sampler *s = calloc(1, sizeof(*s));
    if (s) {
        s->params = *params;
        s->n_vocab = n_vocab;
    }
    if (!s || !alloc_buffers(s)) {
        sl_sampler_close(s);
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a sampler over %u tokens", n_vocab);
    }
    *out = s;
    return SL_OK;
}

void sl_sampler_close(sl_sampler *sampler)
{
    if (!sampler)
        return;
    free(sampler->count);
    free(sampler->seen);
    free(sampler->adjusted);
    free(sampler->block_max);
    free(sampler->candidates.id);
    free(sampler->candidates.logit);
    free(sampler->candidates.weight);
    free(sampler);
}

void sl_sampler_accept(sl_sampler *sampler, uint32_t token, bool generated)
{
    if (!sampler->count || token >= sampler->n_vocab)
        return;
    uint32_t *count = &sampler->count[token];
    if (*count == 0) {
        sampler->seen[sampler->n_seen++] = token;
        *count = 1;
    }
    if (generated && *count < UINT32_MAX)
        ++*count;
}

/* Returns logits after bias and penalties: the caller's own where neither applies. */
static const float *adjust(sl_sampler *s, const float *logits)
{
    const sl_sample_params *p = &s->params;
    if (p->n_bias == 0 && s->n_seen == 0)
        return logits;
    memcpy(s->adjusted, logits, s->n_vocab * sizeof(*logits));
    for (size_t i = 0; i < p->n_bias; i++)
        s->adjusted[p->bias[i].token] += p->bias[i].bias;
    for (uint32_t i = 0; i < s->n_seen; i++) {
        float *logit = &s->adjusted[s->seen[i]];
        uint32_t n_generated = s->count[s->seen[i]] - 1;
        *logit = *logit > 0 ? *logit / p->repetition_penalty : *logit * p->repetition_penalty;
        if (n_generated > 0)
            *logit -= p->frequency_penalty * (float)n_generated + p->presence_penalty;
    }
    return s->adjusted;
}

sl_status sl_sampler_filter(sl_sampler *sampler, const float *logits, const sl_candidates **out, sl_err *err)
{
    const sl_sample_params *p = &sampler->params;
    sl_candidates *c = &sampler->candidates;
    const float *adjusted = adjust(sampler, logits);
    int32_t max_key;
    if (!sl_logits_scan(adjusted, sampler->n_vocab, sampler->block_max, &max_key))
        SL_FAIL(err, SL_ERR_NUMERIC, "logits hold a NaN or infinity, or no finite value");
    uint32_t best = sl_logits_argmax(adjusted, sampler->n_vocab, sampler->block_max, max_key);
    *out = c;
    if (is_greedy(p)) {
        c->id[0] = best;
        c->logit[0] = adjusted[best];
        c->weight[0] = 1.0f;
        c->n = 1;
        return SL_OK;
    }
    sl_candidates_gather(c, adjusted, sampler->n_vocab, sampler->block_max, p->top_k);
    sl_candidates_weigh(c, adjusted[best], p->temperature);
    if (p->top_p < 1.0f)
        sl_candidates_top_p(c, p->top_p);
    if (p->min_p > 0)
        sl_candidates_min_p(c, p->min_p);
    return SL_OK;
}

/* The n_top highest logits, by falling logit, ties by rising id; logprob holds the logit. Returns how many there are. */
static uint32_t find_top(const float *logits, uint32_t n_vocab, uint32_t n_top, sl_logprob *top)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (n == n_top && !(logits[i] > top[n - 1].logprob))
            continue;
        uint32_t place = n < n_top ? n++ : n - 1;
        for (; place > 0 && logits[i] > top[place - 1].logprob; place--)
            top[place] = top[place - 1];
        top[place] = (sl_logprob){.token = i, .logprob = logits[i]};
    }
    return n;
}

sl_status sl_sampler_sample(sl_sampler *sampler, const float *logits, uint64_t position, sl_sampled *out, sl_err *err)
{
    const sl_sample_params *p = &sampler->params;
    const sl_candidates *c;
    SL_TRY(sl_sampler_filter(sampler, logits, &c, err));
    out->token = sl_candidates_draw(c, sl_philox_uniform(p->seed, position));
    out->logprob = NAN;
    out->n_top = 0;
    if (p->n_logprobs == 0 && !p->want_logprob)
        return SL_OK;
    double normaliser = sl_log_sum_exp(logits, sampler->n_vocab);
    out->logprob = (float)((double)logits[out->token] - normaliser);
    if (p->n_logprobs > 0)
        out->n_top = find_top(logits, sampler->n_vocab, p->n_logprobs, out->top);
    for (uint32_t i = 0; i < out->n_top; i++)
        out->top[i].logprob = (float)((double)out->top[i].logprob - normaliser);
    return SL_OK;
}

double sl_log_sum_exp(const float *logits, size_t n)
{
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    if (max == -INFINITY)
        return -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - (double)max);
    return (double)max + log(sum);
}
