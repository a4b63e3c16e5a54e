/* The order of the steps is that of Hugging Face transformers (GenerationMixin._get_logits_processor): logit bias,
 * repetition penalty, then presence and frequency penalties, which it lacks and which come where vLLM's sampler has
 * them; bad words, stop tokens before min_tokens, all that is not allowed; temperature; top-k; top-p; min-p. Each filter
 * sees the distribution that the one before has left. */
#include "sample/sampler.h"

#include "sample/philox.h"
#include "sample/sampler_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Below this a temperature is greedy, as in vLLM: dividing by it would only overflow. */
static const float temperature_min = 1e-5f;

/* A logit that was changed, and what it was. */
typedef struct {
    float *place;
    float old;
} change;

struct sl_sampler {
    sl_sample_params params; /* its arrays are in lists */
    void *lists;
    uint32_t n_vocab, n_generated;
    /* History: 0 for a token not seen yet, 1 + times generated otherwise; and the tokens seen, in order of appearance.
     * Both as long as the vocabulary so that accept cannot fail; untouched pages cost nothing. NULL without penalties. */
    uint32_t *count;
    uint32_t *seen;
    uint32_t n_seen;
    uint32_t *recent; /* the context's last tokens, as bad words need them: n_recent of at most 2 * max_recent */
    uint32_t n_recent, max_recent;
    change *changes; /* of the logits in work, in their order */
    size_t n_changes;
};

/* Logits by token, or where ids is given those of the tokens ids[0 .. n) in rising order. */
typedef struct {
    float *logits;
    const uint32_t *ids;
    uint32_t n;
} view;

static bool has_penalties(const sl_sample_params *p)
{
    return p->repetition_penalty != 1.0f || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

static bool is_greedy(const sl_sample_params *p)
{
    return p->temperature < temperature_min;
}

/* ---- opening ---- */

sl_status sl_sample_scratch_open(uint32_t n_vocab, sl_sample_scratch **out, sl_err *err)
{
    *out = NULL;
    size_t n = (size_t)n_vocab + 1;
    sl_sample_scratch *s = calloc(1, sizeof *s);
    if (s) {
        s->n_vocab = n_vocab;
        s->block_max = calloc(n / SL_KEY_BLOCK + 1, sizeof *s->block_max);
        s->allowed = calloc(n, sizeof *s->allowed);
        s->candidates.id = calloc(n, sizeof *s->candidates.id);
        s->candidates.logit = calloc(n, sizeof *s->candidates.logit);
        s->candidates.weight = calloc(n, sizeof *s->candidates.weight);
    }
    if (!s || !s->block_max || !s->allowed || !s->candidates.id || !s->candidates.logit || !s->candidates.weight) {
        sl_sample_scratch_close(s);
        SL_FAIL(err, SL_ERR_NOMEM, "no memory to sample from %u tokens", n_vocab);
    }
    *out = s;
    return SL_OK;
}

uint64_t sl_sample_scratch_bytes(uint32_t n_vocab)
{
    uint64_t n = (uint64_t)n_vocab + 1; /* as opened above */
    return sizeof(sl_sample_scratch) + (n / SL_KEY_BLOCK + 1) * sizeof(int32_t) +
           n * (3 * sizeof(float) + sizeof(uint32_t));
}

void sl_sample_scratch_close(sl_sample_scratch *s)
{
    if (!s)
        return;
    free(s->block_max);
    free(s->allowed);
    free(s->candidates.id);
    free(s->candidates.logit);
    free(s->candidates.weight);
    free(s);
}

static int by_id(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Copies a list to *next and moves that behind it. */
static sl_token_list copy_list(sl_token_list list, uint32_t **next)
{
    uint32_t *copy = *next;
    if (list.n)
        memcpy(copy, list.tokens, list.n * sizeof *copy);
    *next += list.n;
    return (sl_token_list){copy, list.n};
}

/* Sorted, and each token once. */
static void sort_list(sl_token_list *list)
{
    uint32_t *tokens = (uint32_t *)(uintptr_t)list->tokens;
    size_t n = 0;
    qsort(tokens, list->n, sizeof *tokens, by_id);
    for (size_t i = 0; i < list->n; i++)
        if (n == 0 || tokens[i] != tokens[n - 1])
            tokens[n++] = tokens[i];
    list->n = n;
}

/* Copies the arrays of the parameters into one block: bad words' lists, bias, then all tokens. */
static bool copy_lists(sl_sampler *s, const sl_sample_params *from)
{
    size_t n_tokens = from->stop_tokens.n + from->allowed_tokens.n;
    for (size_t i = 0; i < from->n_bad_words; i++) {
        n_tokens += from->bad_words[i].n;
        s->max_recent = (uint32_t)SL_MAX(s->max_recent, from->bad_words[i].n - 1);
    }
    sl_token_list *words = s->lists =
        malloc(from->n_bad_words * sizeof *words + from->n_bias * sizeof *from->bias + n_tokens * sizeof(uint32_t) + 1);
    if (!words)
        return false;
    sl_logit_bias *bias = (sl_logit_bias *)(words + from->n_bad_words);
    if (from->n_bias)
        memcpy(bias, from->bias, from->n_bias * sizeof *bias);
    uint32_t *next = (uint32_t *)(bias + from->n_bias);
    for (size_t i = 0; i < from->n_bad_words; i++)
        words[i] = copy_list(from->bad_words[i], &next);
    s->params.bias = bias;
    s->params.bad_words = words;
    s->params.stop_tokens = copy_list(from->stop_tokens, &next);
    s->params.allowed_tokens = copy_list(from->allowed_tokens, &next);
    sort_list(&s->params.allowed_tokens);
    return true;
}

static bool alloc_buffers(sl_sampler *s)
{
    const sl_sample_params *p = &s->params;
    size_t n = s->n_vocab;
    bool penalties = has_penalties(p);
    if (penalties) {
        s->count = calloc(n, sizeof *s->count);
        s->seen = calloc(n, sizeof *s->seen);
    }
    s->recent = calloc(2 * (size_t)s->max_recent + 1, sizeof *s->recent);
    size_t most = p->n_bias + p->n_bad_words + p->stop_tokens.n + (penalties ? n : 0);
    s->changes = calloc(most + 1, sizeof *s->changes);
    return s->recent && s->changes && (!penalties || (s->count && s->seen));
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
    if (!s || !copy_lists(s, params) || !alloc_buffers(s)) {
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
    free(sampler->lists);
    free(sampler->count);
    free(sampler->seen);
    free(sampler->recent);
    free(sampler->changes);
    free(sampler);
}

/* ---- history ---- */

static void remember(sl_sampler *s, uint32_t token)
{
    if (s->max_recent == 0)
        return;
    if (s->n_recent == 2 * s->max_recent) {
        memmove(s->recent, s->recent + s->max_recent, s->max_recent * sizeof *s->recent);
        s->n_recent = s->max_recent;
    }
    s->recent[s->n_recent++] = token;
}

void sl_sampler_accept(sl_sampler *sampler, uint32_t token, bool generated)
{
    if (token >= sampler->n_vocab)
        return;
    sampler->n_generated += generated;
    remember(sampler, token);
    if (!sampler->count)
        return;
    uint32_t *count = &sampler->count[token];
    if (*count == 0) {
        sampler->seen[sampler->n_seen++] = token;
        *count = 1;
    }
    if (generated && *count < UINT32_MAX)
        ++*count;
}

/* ---- changes of the logits, and back ---- */

/* The token's logit, noted so that undo can set it back; NULL when the view lacks the token. */
static float *touch(sl_sampler *s, const view *v, uint32_t token)
{
    float *place = &v->logits[token];
    if (v->ids) {
        const uint32_t *found = bsearch(&token, v->ids, v->n, sizeof token, by_id);
        if (!found)
            return NULL;
        place = &v->logits[found - v->ids];
    }
    s->changes[s->n_changes++] = (change){place, *place};
    return place;
}

static void rule_out(sl_sampler *s, const view *v, uint32_t token)
{
    float *logit = touch(s, v, token);
    if (logit)
        *logit = -INFINITY;
}

static bool is_begun(const sl_sampler *s, const sl_token_list *word)
{
    size_t n = word->n - 1;
    return n <= s->n_recent &&
           (n == 0 || memcmp(s->recent + s->n_recent - n, word->tokens, n * sizeof *s->recent) == 0);
}

static void penalise(sl_sampler *s, const view *v)
{
    const sl_sample_params *p = &s->params;
    for (uint32_t i = 0; i < s->n_seen; i++) {
        float *logit = touch(s, v, s->seen[i]);
        if (!logit)
            continue;
        uint32_t n_generated = s->count[s->seen[i]] - 1;
        *logit = *logit > 0 ? *logit / p->repetition_penalty : *logit * p->repetition_penalty;
        if (n_generated > 0)
            *logit -= p->frequency_penalty * (float)n_generated + p->presence_penalty;
    }
}

static void adjust(sl_sampler *s, const view *v)
{
    const sl_sample_params *p = &s->params;
    for (size_t i = 0; i < p->n_bias; i++) {
        float *logit = touch(s, v, p->bias[i].token);
        if (logit)
            *logit += p->bias[i].bias;
    }
    penalise(s, v);
    for (size_t i = 0; i < p->n_bad_words; i++)
        if (is_begun(s, &p->bad_words[i]))
            rule_out(s, v, p->bad_words[i].tokens[p->bad_words[i].n - 1]);
    for (size_t i = 0; i < p->stop_tokens.n && s->n_generated < p->min_tokens; i++)
        rule_out(s, v, p->stop_tokens.tokens[i]);
}

/* A logit may have been changed more than once: the last change goes first. */
static void undo(sl_sampler *s)
{
    while (s->n_changes > 0) {
        s->n_changes--;
        *s->changes[s->n_changes].place = s->changes[s->n_changes].old;
    }
}

/* ---- choosing ---- */

static view make_view(const sl_sampler *s, sl_sample_scratch *scratch, float *logits)
{
    const sl_token_list *allowed = &s->params.allowed_tokens;
    if (allowed->n == 0)
        return (view){.logits = logits, .n = s->n_vocab};
    for (size_t i = 0; i < allowed->n; i++)
        scratch->allowed[i] = logits[allowed->tokens[i]];
    return (view){.logits = scratch->allowed, .ids = allowed->tokens, .n = (uint32_t)allowed->n};
}

/* No logit below this one survives top-p or min-p; -INFINITY when that cannot be said beforehand. *total = sum of all
 * weights where top-p is on. Tokens with weights below (1 - top_p) total / n together have less than 1 - top_p of it, so
 * the others have enough; min-p is a weight as it stands. A hundredth of the temperature and a millionth of the logit stand
 * for what rounding may do. */
static float find_bound(const sl_sample_params *p, const view *v, float max_logit, double *total)
{
    double weight = p->min_p;
    if (p->top_k != 0)
        return -INFINITY;
    if (p->top_p < 1.0f) {
        *total = sl_logits_total(v->logits, v->n, max_logit, p->temperature);
        weight = SL_MAX(weight, (1 - (double)p->top_p) * *total / v->n);
    }
    double bound = (double)max_logit + (double)p->temperature * (log(weight) - 0.01);
    return (float)(bound - 1e-6 * fabs(bound));
}

/* The candidates among the view's logits, by place in the view. False as sl_logits_scan. */
static bool narrow(const sl_sample_params *p, sl_sample_scratch *scratch, const view *v)
{
    sl_candidates *c = &scratch->candidates;
    int32_t max_key;
    if (!sl_logits_scan(v->logits, v->n, scratch->block_max, &max_key))
        return false;
    uint32_t best = sl_logits_argmax(v->logits, v->n, scratch->block_max, max_key);
    if (is_greedy(p)) {
        c->id[0] = best;
        c->logit[0] = v->logits[best];
        c->weight[0] = 1.0f;
        c->n = 1;
        return true;
    }
    double total = 0;
    float bound = find_bound(p, v, v->logits[best], &total);
    sl_candidates_gather(c, v->logits, v->n, scratch->block_max, bound, p->top_k);
    sl_candidates_weigh(c, v->logits[best], p->temperature);
    if (p->top_p < 1.0f)
        sl_candidates_top_p(c, p->top_p, p->top_k ? sl_candidates_sum(c) : total);
    if (p->min_p > 0)
        sl_candidates_min_p(c, p->min_p);
    return true;
}

sl_status sl_sampler_filter(sl_sampler *sampler, sl_sample_scratch *scratch, float *logits, const sl_candidates **out,
                            sl_err *err)
{
    SL_ASSERT(scratch->n_vocab == sampler->n_vocab);
    view v = make_view(sampler, scratch, logits);
    adjust(sampler, &v);
    bool usable = narrow(&sampler->params, scratch, &v);
    undo(sampler);
    if (!usable)
        SL_FAIL(err, SL_ERR_NUMERIC, "logits hold a NaN or infinity, or no finite value where a token is allowed");
    sl_candidates *c = &scratch->candidates;
    for (uint32_t i = 0; i < c->n && v.ids; i++)
        c->id[i] = v.ids[c->id[i]];
    *out = c;
    return SL_OK;
}

sl_status sl_sampler_sample(sl_sampler *sampler, sl_sample_scratch *scratch, float *logits, uint64_t position,
                            sl_sampled *out, sl_err *err)
{
    const sl_sample_params *p = &sampler->params;
    const sl_candidates *c;
    SL_TRY(sl_sampler_filter(sampler, scratch, logits, &c, err));
    out->token = sl_candidates_draw(c, sl_philox_uniform(p->seed, position));
    out->logprob = NAN;
    out->n_top = 0;
    if (p->n_logprobs == 0 && !p->want_logprob)
        return SL_OK;
    return sl_score_token(scratch, logits, out->token, p->n_logprobs, out, err);
}
