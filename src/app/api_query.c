/* A query of the public API: what can never work is refused with the member's name, the rest becomes a request. */
#include "app/api.h"

#include <string.h>

enum { MAX_MESSAGES = 1 << 16 };

/* ---- checks ---- */

/* An array of a query: one that is there, and no longer than makes sense (a negative number is a huge one here). */
static sl_status check_array(const char *name, const void *items, size_t n, size_t most, sl_err *err)
{
    if (n > 0 && !items)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%s: %zu of them, but no array", name, n);
    if (n > most)
        SL_FAIL(err, SL_ERR_LIMIT, "%s: %zu of them, at most %zu are possible", name, n, most);
    return SL_OK;
}

static sl_status check_arrays(const sl_query *q, uint32_t n_vocab, sl_err *err)
{
    SL_TRY(check_array("stop_tokens", q->stop_tokens, q->n_stop_tokens, n_vocab, err));
    SL_TRY(check_array("stop_strings", q->stop_strings, q->n_stop_strings, SL_MAX_STOP_STRINGS, err));
    SL_TRY(check_array("bias", q->bias, q->n_bias, n_vocab, err));
    SL_TRY(check_array("bad_words", q->bad_words, q->n_bad_words, SL_MAX_BAD_WORDS, err));
    SL_TRY(check_array("allowed_tokens", q->allowed_tokens.tokens, q->allowed_tokens.n, n_vocab, err));
    for (size_t i = 0; i < q->n_stop_tokens; i++)
        if (q->stop_tokens[i] >= n_vocab)
            SL_FAIL(err, SL_ERR_ARGUMENT, "stop_tokens: there is no token %u, the vocabulary ends at %u",
                    q->stop_tokens[i], n_vocab - 1);
    for (size_t i = 0; i < q->n_stop_strings; i++) {
        size_t n = q->stop_strings[i].n_bytes;
        if (!q->stop_strings[i].bytes || n == 0 || n > SL_MAX_STOP_BYTES)
            SL_FAIL(err, SL_ERR_ARGUMENT, "stop_strings: number %zu has %zu bytes, 1 to %d are possible", i, n,
                    SL_MAX_STOP_BYTES);
    }
    return SL_OK;
}

static sl_status check_embedding(const sl_query *q, sl_err *err)
{
    if ((unsigned)q->pooling >= SL_POOLING_COUNT)
        SL_FAIL(err, SL_ERR_ARGUMENT, "pooling: there is no pooling number %d", (int)q->pooling);
    bool tokens = (q->max_tokens > 0 && q->max_tokens != SL_UNLIMITED) || q->min_tokens > 0 || q->n_choices > 1 ||
                  q->n_stop_strings > 0 || q->n_stop_tokens > 0;
    if (q->pooling && (tokens || q->logprobs || q->n_top_logprobs || q->prompt_logprobs || q->n_prompt_top_logprobs))
        SL_FAIL(err, SL_ERR_ARGUMENT, "pooling: a query for an embedding wants neither tokens nor log-probabilities");
    return SL_OK;
}

static sl_status check_amounts(const sl_runner *runner, const sl_query *q, sl_err *err)
{
    if (q->n_choices > runner->n_sequences)
        SL_FAIL(err, SL_ERR_LIMIT, "n_choices: %u, but at most %u sequences run at once", q->n_choices,
                runner->n_sequences);
    if (q->min_tokens > q->max_tokens)
        SL_FAIL(err, SL_ERR_ARGUMENT, "min_tokens: %u, but max_tokens is %u", q->min_tokens, q->max_tokens);
    if (q->max_tokens == 0 && (q->n_choices > 1 || q->logprobs || q->n_top_logprobs))
        SL_FAIL(err, SL_ERR_ARGUMENT, "max_tokens: of no tokens there are neither choices nor log-probabilities");
    if (q->n_prompt_top_logprobs > SL_MAX_LOGPROBS)
        SL_FAIL(err, SL_ERR_ARGUMENT, "n_prompt_top_logprobs: %u, at most %d are possible", q->n_prompt_top_logprobs,
                SL_MAX_LOGPROBS);
    if (q->ttft_target_us < 0 || q->itl_target_us < 0)
        SL_FAIL(err, SL_ERR_ARGUMENT, "ttft_target_us, itl_target_us: less than no time");
    if (!(q->tenant_weight > 0 && q->tenant_weight <= 1e6))
        SL_FAIL(err, SL_ERR_ARGUMENT, "tenant_weight: %g, but it is more than 0 and at most 1000000", q->tenant_weight);
    return SL_OK;
}

/* ---- the prompt ---- */

sl_status sl_messages_tokens(const sl_bundle *bundle, const sl_message *messages, size_t n_messages, sl_tokens *out,
                             sl_err *err)
{
    SL_TRY(check_array("messages", messages, n_messages, MAX_MESSAGES, err));
    if (n_messages == 0)
        SL_FAIL(err, SL_ERR_ARGUMENT, "messages: there is none");
    for (size_t i = 0; i < n_messages; i++)
        if (!messages[i].role || (!messages[i].content.bytes && messages[i].content.n_bytes > 0))
            SL_FAIL(err, SL_ERR_ARGUMENT, "messages: number %zu has no role or no content", i);
    return sl_bundle_chat_tokens(bundle, messages, n_messages, out, err);
}

static sl_status read_tokens(const sl_query *q, uint32_t n_vocab, uint32_t context, sl_tokens *out, sl_err *err)
{
    if (!q->tokens)
        SL_FAIL(err, SL_ERR_ARGUMENT, "tokens: %zu of them, but no array", q->n_tokens);
    if (q->n_tokens > context)
        SL_FAIL(err, SL_ERR_LIMIT, "tokens: the prompt has %zu, but the context holds %u, answer included", q->n_tokens,
                context);
    for (size_t i = 0; i < q->n_tokens; i++) {
        if (q->tokens[i] >= n_vocab)
            SL_FAIL(err, SL_ERR_ARGUMENT, "tokens: number %zu is %u, but the vocabulary ends at %u", i, q->tokens[i],
                    n_vocab - 1);
        SL_TRY(sl_tokens_push(out, q->tokens[i], err));
    }
    return SL_OK;
}

static sl_status read_prompt(const sl_bundle *bundle, const sl_query *q, uint32_t n_vocab, uint32_t context,
                             sl_tokens *out, sl_err *err)
{
    bool text = q->prompt.bytes != NULL, messages = q->n_messages > 0, tokens = q->n_tokens > 0;
    if (text + messages + tokens != 1)
        SL_FAIL(err, SL_ERR_ARGUMENT, "a query has one of prompt, messages and tokens, this one %d of them",
                text + messages + tokens);
    if (text)
        SL_TRY(sl_bundle_text_tokens(bundle, q->prompt.bytes, q->prompt.n_bytes, out, err));
    else if (messages)
        SL_TRY(sl_messages_tokens(bundle, q->messages, q->n_messages, out, err));
    else
        SL_TRY(read_tokens(q, n_vocab, context, out, err));
    if (out->n == 0)
        SL_FAIL(err, SL_ERR_ARGUMENT, "prompt: it is empty");
    if (out->n > context || (out->n == context && q->max_tokens > 0 && !q->pooling))
        SL_FAIL(err, SL_ERR_LIMIT, "the prompt has %zu tokens, but the context holds %u, answer included", out->n,
                context);
    return SL_OK;
}

/* ---- the request ---- */

static sl_sample_params sampling_of(const sl_query *q)
{
    return (sl_sample_params){.temperature = q->temperature,
                              .top_k = q->top_k,
                              .top_p = q->top_p,
                              .min_p = q->min_p,
                              .repetition_penalty = q->repetition_penalty,
                              .presence_penalty = q->presence_penalty,
                              .frequency_penalty = q->frequency_penalty,
                              .seed = q->seed,
                              .bias = q->bias,
                              .n_bias = q->n_bias,
                              .min_tokens = q->min_tokens,
                              .bad_words = q->bad_words,
                              .n_bad_words = q->n_bad_words,
                              .allowed_tokens = q->allowed_tokens,
                              .n_logprobs = q->n_top_logprobs,
                              .want_logprob = q->logprobs};
}

static sl_status collect_stops(const sl_bundle *bundle, const sl_query *q, sl_tokens *out, sl_err *err)
{
    const uint32_t *ends;
    size_t n_ends = q->ignore_end ? 0 : sl_bundle_stop_tokens(bundle, &ends);
    for (size_t i = 0; i < n_ends; i++)
        SL_TRY(sl_tokens_push(out, ends[i], err));
    for (size_t i = 0; i < q->n_stop_tokens; i++)
        SL_TRY(sl_tokens_push(out, q->stop_tokens[i], err));
    return SL_OK;
}

sl_status sl_asked_open(const sl_runner *runner, const sl_query *q, sl_asked *out, sl_err *err)
{
    const sl_bundle *bundle = runner->llm->bundle;
    uint32_t n_vocab = sl_model_get_info(sl_bundle_model(bundle))->n_vocab;
    bool scores = q->prompt_logprobs || q->n_prompt_top_logprobs > 0;
    *out = (sl_asked){0};
    SL_TRY(check_arrays(q, n_vocab, err));
    SL_TRY(check_embedding(q, err));
    SL_TRY(check_amounts(runner, q, err));
    sl_sample_params sampling = sampling_of(q), checked = sampling;
    SL_TRY(collect_stops(bundle, q, &out->stops, err));
    checked.stop_tokens = (sl_token_list){out->stops.ids, out->stops.n}; /* for min_tokens */
    SL_TRY(sl_sample_params_check(&checked, n_vocab, err));
    SL_TRY(read_prompt(bundle, q, n_vocab, sl_service_context(runner->service), &out->prompt, err));
    uint32_t max_tokens = q->pooling ? 0 : q->max_tokens;
    out->request = (sl_request){.prompt = out->prompt.ids,
                                .n_prompt = out->prompt.n,
                                .max_tokens = max_tokens,
                                .n_choices = SL_MAX(q->n_choices, 1),
                                .tenant = q->tenant,
                                .tenant_weight = q->tenant_weight,
                                .priority = q->priority,
                                .ttft_target_us = q->ttft_target_us,
                                .itl_target_us = q->itl_target_us,
                                .warm = max_tokens == 0 && !scores && !q->pooling,
                                .stop_tokens = out->stops.ids,
                                .n_stop_tokens = out->stops.n,
                                .stop_strings = {q->stop_strings, q->n_stop_strings},
                                .sampling = sampling,
                                .prompt_logprobs = scores,
                                .n_prompt_logprobs = q->n_prompt_top_logprobs,
                                .pooling = q->pooling,
                                .normalise = q->normalise};
    return SL_OK;
}

void sl_asked_close(sl_asked *asked)
{
    sl_tokens_free(&asked->prompt);
    sl_tokens_free(&asked->stops);
}
