#include "sample/sampler.h"

#include <stdlib.h>

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

static sl_status check_tokens(const char *name, const sl_token_list *list, uint32_t n_vocab, sl_err *err)
{
    if (list->n > 0 && !list->tokens)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%s has %zu entries but no array", name, list->n);
    for (size_t i = 0; i < list->n; i++)
        if (list->tokens[i] >= n_vocab)
            SL_FAIL(err, SL_ERR_ARGUMENT, "%s names token %u, but tokens are between 0 and %u", name, list->tokens[i],
                    n_vocab - 1);
    return SL_OK;
}

static sl_status check_bad_words(const sl_sample_params *params, uint32_t n_vocab, sl_err *err)
{
    if (params->n_bad_words > 0 && !params->bad_words)
        SL_FAIL(err, SL_ERR_ARGUMENT, "bad_words has %zu entries but no array", params->n_bad_words);
    if (params->n_bad_words > SL_MAX_BAD_WORDS)
        SL_FAIL(err, SL_ERR_ARGUMENT, "bad_words has %zu entries: at most %d are possible", params->n_bad_words,
                SL_MAX_BAD_WORDS);
    for (size_t i = 0; i < params->n_bad_words; i++) {
        if (params->bad_words[i].n == 0 || params->bad_words[i].n > SL_MAX_BAD_WORD)
            SL_FAIL(err, SL_ERR_ARGUMENT, "bad_words: entry %zu has %zu tokens, 1 to %d are possible", i,
                    params->bad_words[i].n, SL_MAX_BAD_WORD);
        SL_TRY(check_tokens("bad_words", &params->bad_words[i], n_vocab, err));
    }
    return SL_OK;
}

static bool test_bit(const uint8_t *bits, uint32_t i)
{
    return bits[i / 8] >> i % 8 & 1;
}

/* Marks the tokens that are ruled out from the beginning; returns how many there are. */
static uint32_t mark_ruled_out(const sl_sample_params *params, uint32_t n_vocab, uint8_t *out)
{
    uint32_t n = 0;
    size_t n_stops = params->min_tokens > 0 ? params->stop_tokens.n : 0;
    for (size_t i = 0; i < n_stops + params->n_bad_words; i++) {
        const sl_token_list *word = i < n_stops ? NULL : &params->bad_words[i - n_stops];
        if (word && word->n != 1)
            continue;
        uint32_t token = word ? word->tokens[0] : params->stop_tokens.tokens[i];
        if (token >= n_vocab || test_bit(out, token))
            continue;
        out[token / 8] |= (uint8_t)(1 << token % 8);
        n++;
    }
    return n;
}

sl_status sl_sample_params_check_left(const sl_sample_params *params, uint32_t n_vocab, sl_err *err)
{
    const sl_token_list *allowed = &params->allowed_tokens;
    if ((params->min_tokens == 0 || params->stop_tokens.n == 0) && params->n_bad_words == 0)
        return SL_OK;
    uint8_t *ruled_out = calloc(n_vocab / 8 + 1, 1);
    if (!ruled_out)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a mask of %u tokens", n_vocab);
    bool left = mark_ruled_out(params, n_vocab, ruled_out) < n_vocab && allowed->n == 0;
    for (size_t i = 0; i < allowed->n && !left; i++)
        left = allowed->tokens[i] >= n_vocab || !test_bit(ruled_out, allowed->tokens[i]);
    free(ruled_out);
    if (!left)
        SL_FAIL(err, SL_ERR_ARGUMENT,
                "no token is left to choose: min_tokens rules out those that end the answer, bad_words some, and "
                "allowed_tokens names no others");
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
        SL_TRY(check_tokens("logit_bias", &(sl_token_list){&params->bias[i].token, 1}, n_vocab, err));
        SL_TRY(check_range("logit_bias", params->bias[i].bias, -100, 100, err));
    }
    SL_TRY(check_tokens("stop_tokens", &params->stop_tokens, n_vocab, err));
    SL_TRY(check_tokens("allowed_tokens", &params->allowed_tokens, n_vocab, err));
    SL_TRY(check_bad_words(params, n_vocab, err));
    return sl_sample_params_check_left(params, n_vocab, err);
}
