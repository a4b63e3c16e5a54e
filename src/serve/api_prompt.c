/* Prompts of a request: messages through the chat template, strings and token ids, to tokens. */
#include "app/json_fields.h"
#include "serve/api_request.h"

#include <stdlib.h>
#include <string.h>

/* No token stands for more bytes than the longest one, so much that cannot fit is told without reading it: a text of
 * megabytes would keep a text thread busy for seconds. */
static sl_status check_bytes(const sl_bundle *bundle, uint32_t context, size_t n_bytes, const char *param,
                             sl_api_error *error)
{
    if (n_bytes / SL_MAX(sl_bundle_token_bytes(bundle)->longest, 1) <= context)
        return SL_OK;
    sl_status status =
        sl_api_fail(error, SL_ERR_LIMIT, 400, param,
                    "the prompt has %zu bytes, more than %u tokens can hold, answer included", n_bytes, context);
    error->code = "context_length_exceeded";
    return status;
}

/* ---- chat ---- */

static sl_status chat_tokens(const sl_bundle *bundle, uint32_t context, sl_api_request *request, sl_api_error *error)
{
    sl_json_messages messages = {0};
    size_t n_bytes = 0;
    sl_err err;
    sl_status status = sl_json_read_messages(request->messages, &messages, &err);
    if (status != SL_OK)
        sl_api_fail(error, status, status == SL_ERR_NOMEM ? 503 : 400, "messages", "%s", err.message);
    for (size_t i = 0; i < messages.n && status == SL_OK; i++)
        n_bytes += messages.items[i].content.n_bytes;
    if (status == SL_OK)
        status = check_bytes(bundle, context, n_bytes, "messages", error);
    if (status == SL_OK &&
        sl_bundle_chat_tokens(bundle, messages.items, messages.n, &request->prompts[0], &err) != SL_OK)
        status = sl_api_fail(error, err.code, 400, "messages", "%s", err.message);
    sl_json_messages_free(&messages);
    return status;
}

/* ---- completions and embeddings ---- */

static sl_status id_tokens(const json_t *ids, const char *param, sl_tokens *out, sl_api_error *error)
{
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *item = json_array_get(ids, i);
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id > UINT32_MAX)
            return sl_api_fail(error, SL_ERR_ARGUMENT, 400, param, "'%s' mixes token ids with something else", param);
        if (sl_tokens_push(out, (uint32_t)id, NULL) != SL_OK)
            return sl_api_fail(error, SL_ERR_NOMEM, 503, NULL, "out of memory");
    }
    return SL_OK;
}

static sl_status prompt_tokens(const sl_bundle *bundle, uint32_t context, const json_t *prompt, const char *param,
                               sl_tokens *out, sl_api_error *error)
{
    if (json_is_array(prompt))
        return id_tokens(prompt, param, out, error);
    sl_err err;
    if (!json_is_string(prompt))
        return sl_api_fail(error, SL_ERR_ARGUMENT, 400, param, "'%s' mixes strings with something else", param);
    SL_TRY(check_bytes(bundle, context, json_string_length(prompt), param, error));
    if (sl_bundle_text_tokens(bundle, json_string_value(prompt), json_string_length(prompt), out, &err) != SL_OK)
        return sl_api_fail(error, err.code, 400, param, "%s", err.message);
    return SL_OK;
}

/* True for an array of prompts rather than one prompt. */
static bool is_batch(const json_t *prompt)
{
    return json_is_array(prompt) && !json_is_integer(json_array_get(prompt, 0));
}

static sl_status check_prompts(uint32_t context, const sl_api_request *request, sl_api_error *error)
{
    const char *param = sl_api_prompt_field(request->kind);
    uint32_t most = context - (request->max_tokens > 0);
    for (size_t i = 0; i < request->n_prompts; i++) {
        size_t n = request->prompts[i].n;
        if (n == 0)
            return sl_api_fail(error, SL_ERR_ARGUMENT, 400, param, "the prompt is empty");
        if (n > most) {
            sl_status status =
                sl_api_fail(error, SL_ERR_LIMIT, 400, param, "the prompt has %zu tokens, but the context holds %u%s", n,
                            context, request->max_tokens > 0 ? ", answer included" : "");
            error->code = "context_length_exceeded";
            return status;
        }
    }
    return SL_OK;
}

static sl_status make_echoes(const sl_bundle *bundle, sl_api_request *request, sl_api_error *error)
{
    request->echoes = calloc(request->n_prompts, sizeof *request->echoes);
    if (!request->echoes)
        return sl_api_fail(error, SL_ERR_NOMEM, 503, NULL, "out of memory");
    for (size_t i = 0; i < request->n_prompts; i++) {
        const sl_tokens *prompt = &request->prompts[i];
        char *text;
        if (sl_detokenize(sl_bundle_vocab(bundle), prompt->ids, prompt->n, 0, &text, &request->echoes[i].n_bytes,
                          NULL) != SL_OK)
            return sl_api_fail(error, SL_ERR_NOMEM, 503, NULL, "out of memory");
        request->echoes[i].bytes = text;
    }
    return SL_OK;
}

/* ---- bad words ---- */

/* Adds the tokens of a bad word with space before it; those that end in the tokens without it are ruled out by them. */
static sl_status add_bad_word(const sl_bundle *bundle, const char *space, const json_t *text, sl_api_request *request,
                              sl_api_error *error)
{
    sl_tokens *out = &request->bad_words[request->n_bad_words];
    sl_span spans[] = {{space, strlen(space), false}, {json_string_value(text), json_string_length(text), false}};
    sl_err err;
    if (sl_tokenize(sl_bundle_vocab(bundle), spans, 2, 0, out, &err) != SL_OK) {
        sl_tokens_free(out);
        return sl_api_fail(error, err.code, 400, "bad_words", "%s", err.message);
    }
    const sl_tokens *last = out - 1;
    bool known = space[0] && last->n <= out->n &&
                 memcmp(out->ids + out->n - last->n, last->ids, last->n * sizeof *last->ids) == 0;
    if (out->n == 0 || known) {
        sl_tokens_free(out);
        return SL_OK;
    }
    request->n_bad_words++;
    if (out->n > SL_MAX_BAD_WORD)
        return sl_api_fail(error, SL_ERR_LIMIT, 400, "bad_words", "a bad word has %zu tokens: at most %d", out->n,
                           SL_MAX_BAD_WORD);
    return SL_OK;
}

/* A word has other tokens within a line than at its beginning, so each is ruled out with a space before it as well, as
 * in vLLM. */
static sl_status bad_word_tokens(const sl_bundle *bundle, sl_api_request *request, sl_api_error *error)
{
    size_t n = json_array_size(request->bad_texts);
    request->bad_words = calloc(2 * n + 1, sizeof *request->bad_words);
    request->bad_lists = calloc(2 * n + 1, sizeof *request->bad_lists);
    if (!request->bad_words || !request->bad_lists)
        return sl_api_fail(error, SL_ERR_NOMEM, 503, NULL, "out of memory");
    for (size_t i = 0; i < n; i++) {
        const json_t *text = json_array_get(request->bad_texts, i);
        size_t before = request->n_bad_words;
        SL_TRY(add_bad_word(bundle, "", text, request, error));
        if (request->n_bad_words > before)
            SL_TRY(add_bad_word(bundle, " ", text, request, error));
    }
    for (size_t i = 0; i < request->n_bad_words; i++)
        request->bad_lists[i] = (sl_token_list){request->bad_words[i].ids, request->bad_words[i].n};
    request->sampling.bad_words = request->bad_lists;
    request->sampling.n_bad_words = request->n_bad_words;
    return SL_OK;
}

/* ---- all of it ---- */

/* An answer that is not streamed is held until it is complete. Its log-probabilities are what may take much, so how many
 * there can be is known, and limited, before it begins. */
static sl_status check_logprobs(uint32_t context, const sl_api_request *request, sl_api_error *error)
{
    uint64_t n_tokens = 0;
    uint32_t each = 1 + request->sampling.n_logprobs;
    for (size_t i = 0; i < request->n_prompts; i++) {
        uint32_t n_prompt = (uint32_t)request->prompts[i].n;
        n_tokens += SL_MIN(request->max_tokens, context - n_prompt) + (request->echo ? n_prompt : 0);
    }
    n_tokens *= request->n;
    if (!request->logprobs || request->stream || n_tokens * each <= SL_API_MAX_LOGPROBS)
        return SL_OK;
    const char *param = request->kind == SL_API_CHAT ? "top_logprobs" : "logprobs";
    return sl_api_fail(error, SL_ERR_LIMIT, 400, param,
                       "up to %llu tokens with %u log-probabilities each are too many for an answer that is not "
                       "streamed (%d): lower 'max_tokens', 'n' or '%s', or set 'stream': true",
                       (unsigned long long)n_tokens, each, SL_API_MAX_LOGPROBS, param);
}

/* Adds the tokens that end the model's turns, and makes sure that what is ruled out leaves something to choose. */
static sl_status settle_stop_tokens(const sl_bundle *bundle, sl_api_request *request, sl_api_error *error)
{
    const uint32_t *ends;
    size_t n_ends = request->ignore_eos ? 0 : sl_bundle_stop_tokens(bundle, &ends);
    for (size_t i = 0; i < n_ends; i++)
        if (sl_tokens_push(&request->stop_tokens, ends[i], NULL) != SL_OK)
            return sl_api_fail(error, SL_ERR_NOMEM, 503, NULL, "out of memory");
    sl_sample_params params = request->sampling;
    params.stop_tokens = (sl_token_list){request->stop_tokens.ids, request->stop_tokens.n};
    sl_status status = sl_sample_params_check_left(&params, sl_vocab_n_tokens(sl_bundle_vocab(bundle)), NULL);
    if (status == SL_ERR_NOMEM)
        return sl_api_fail(error, status, 503, NULL, "out of memory");
    if (status == SL_OK)
        return SL_OK;
    bool early = params.min_tokens > 0, words = params.n_bad_words > 0, allowed = params.allowed_tokens.n > 0;
    return sl_api_fail(error, status, 400, early ? "min_tokens" : "bad_words", "no token is left to choose: %s%s%s%s",
                       early ? "'min_tokens' rules out those that end the answer" : "", early && words ? ", " : "",
                       words ? "'bad_words' some" : "", allowed ? ", and 'allowed_token_ids' names no others" : "");
}

static sl_status check_counts(const sl_bundle *bundle, size_t n, const sl_api_request *request, sl_api_error *error)
{
    bool embedding = request->kind == SL_API_EMBEDDING;
    const char *param = sl_api_prompt_field(request->kind);
    uint32_t n_embd = embedding ? sl_model_get_info(sl_bundle_model(bundle))->n_embd : 0;
    if (embedding && (n == 0 || n > SL_API_MAX_INPUTS))
        return sl_api_fail(error, SL_ERR_LIMIT, 400, param, "%zu inputs: a request may have 1 to %d", n,
                           SL_API_MAX_INPUTS);
    if (embedding && request->dimensions != 0 && request->dimensions != n_embd)
        return sl_api_fail(error, SL_ERR_UNSUPPORTED, 400, "dimensions",
                           "'dimensions' can only be %u, which is what this model has", n_embd);
    if (!embedding && (n == 0 || n * request->n > SL_API_MAX_CHOICES))
        return sl_api_fail(error, SL_ERR_LIMIT, 400, n == 0 || request->n == 1 ? param : "n",
                           "%zu prompts with %u choices each: a request may have 1 to %d answers", n, request->n,
                           SL_API_MAX_CHOICES);
    return SL_OK;
}

sl_status sl_api_tokenize(const sl_bundle *bundle, uint32_t context, sl_api_request *request, sl_api_error *error)
{
    bool chat = request->kind == SL_API_CHAT, batch = !chat && is_batch(request->prompt);
    size_t n = batch ? json_array_size(request->prompt) : 1;
    SL_TRY(check_counts(bundle, n, request, error));
    request->prompts = calloc(n, sizeof *request->prompts);
    if (!request->prompts)
        return sl_api_fail(error, SL_ERR_NOMEM, 503, NULL, "out of memory");
    request->n_prompts = n;
    if (chat)
        SL_TRY(chat_tokens(bundle, context, request, error));
    for (size_t i = 0; !chat && i < n; i++) {
        const json_t *prompt = batch ? json_array_get(request->prompt, i) : request->prompt;
        SL_TRY(prompt_tokens(bundle, context, prompt, sl_api_prompt_field(request->kind), &request->prompts[i], error));
    }
    SL_TRY(check_prompts(context, request, error));
    if (request->bad_texts)
        SL_TRY(bad_word_tokens(bundle, request, error));
    if (request->kind != SL_API_EMBEDDING) {
        SL_TRY(check_logprobs(context, request, error));
        SL_TRY(settle_stop_tokens(bundle, request, error));
    }
    return request->echo ? make_echoes(bundle, request, error) : SL_OK;
}
