#include "sample/exp.h"
#include "sample/sampler_internal.h"

#include <math.h>

/* The n_top highest logits, by falling logit, ties by rising id; logprob holds the logit. Returns how many there are.
 * A block whose maximum does not exceed the lowest of them is passed over. */
static uint32_t find_top(const float *logits, uint32_t n_vocab, const int32_t *block_max, uint32_t n_top,
                         sl_logprob *top)
{
    uint32_t n = 0;
    for (uint32_t block = 0; block * SL_KEY_BLOCK < n_vocab; block++) {
        if (n == n_top && block_max[block] <= sl_float_key(top[n - 1].logprob))
            continue;
        for (uint32_t i = block * SL_KEY_BLOCK; i < SL_MIN(n_vocab, (block + 1) * SL_KEY_BLOCK); i++) {
            if (n == n_top && !(logits[i] > top[n - 1].logprob))
                continue;
            uint32_t place = n < n_top ? n++ : n - 1;
            for (; place > 0 && logits[i] > top[place - 1].logprob; place--)
                top[place] = top[place - 1];
            top[place] = (sl_logprob){.token = i, .logprob = logits[i]};
        }
    }
    return n;
}

sl_status sl_score_token(sl_sample_scratch *scratch, const float *logits, uint32_t token, uint32_t n_top,
                         sl_sampled *out, sl_err *err)
{
    uint32_t n_vocab = scratch->n_vocab;
    int32_t max_key;
    SL_ASSERT(token < n_vocab && n_top <= SL_MAX_LOGPROBS);
    if (!sl_logits_scan(logits, n_vocab, scratch->block_max, &max_key))
        SL_FAIL(err, SL_ERR_NUMERIC, "logits hold a NaN or infinity, or no finite value");
    double normaliser = sl_log_sum_exp(logits, n_vocab);
    out->token = token;
    out->logprob = (float)((double)logits[token] - normaliser);
    out->n_top = n_top ? find_top(logits, n_vocab, scratch->block_max, n_top, out->top) : 0;
    for (uint32_t i = 0; i < out->n_top; i++)
        out->top[i].logprob = (float)((double)out->top[i].logprob - normaliser);
    return SL_OK;
}

/* Largest of n logits, by their keys: integers, whose maximum vectorises. */
static float find_max(const float *logits, size_t n)
{
    union {
        int32_t i;
        float f;
    } max = {.i = sl_float_key(-INFINITY)};
    for (size_t i = 0; i < n; i++) {
        int32_t key = sl_float_key(logits[i]);
        max.i = SL_MAX(max.i, key);
    }
    max.i ^= (max.i >> 31) & INT32_MAX; /* the key's inverse is the key's own map */
    return max.f;
}

double sl_log_sum_exp(const float *logits, size_t n)
{
    float max = find_max(logits, n), weight[SL_KEY_BLOCK];
    if (max == -INFINITY)
        return -INFINITY;
    double sum = 0;
    for (size_t begin = 0; begin < n; begin += SL_KEY_BLOCK) {
        uint32_t n_block = (uint32_t)SL_MIN(n - begin, (size_t)SL_KEY_BLOCK);
        for (uint32_t i = 0; i < n_block; i++)
            weight[i] = sl_exp_negative(max - logits[begin + i]);
        sum += sl_sum_weights(weight, n_block);
    }
    return (double)max + log(sum);
}
