/* Prompts of a request: messages through the chat template, strings and token ids, to tokens. */
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

static const char *const roles[][2] = {
    {"system", "system"}, {"developer", "system"}, {"user", "user"}, {"assistant", "assistant"}};

static sl_status fail_message(sl_api_error *error, size_t index, const char *why)
{
    return sl_api_fail(error, SL_ERR_ARGUMENT, 400, "messages", "messages[%zu]: %s", index, why);
}

/* Joins the texts of an array of content parts; *out is allocated. */
static sl_status join_parts(const json_t *parts, size_t index, sl_bytes *out, char **storage, sl_api_error *error)
{
    size_t n_bytes = 0;
    for (int pass = 0; pass < 2; pass++) {
        size_t used = 0;
        for (size_t i = 0; i < json_array_size(parts); i++) {
            const json_t *part = json_array_get(parts, i), *type = json_object_get(part, "type");
            const json_t *text = json_object_get(part, "text");
            if (!json_is_string(type) || strcmp(json_string_value(type), "text") != 0 || !json_is_string(text))
                return fail_message(error, index, "'content' may have parts of type \"text\" only");
            if (pass == 1)
                memcpy(*storage + used, json_string_value(text), json_string_length(text));
            used += json_string_length(text);
        }
        n_bytes = used;
        if (pass == 0 && !(*storage = malloc(n_bytes + 1)))
            return sl_api_fail(error, SL_ERR_NOMEM, 503, NULL, "out of memory");
    }
    *out = (sl_bytes){*storage, n_bytes};
    return SL_OK;
}

static sl_status read_message(const json_t *message, size_t index, sl_message *out, char **storage, sl_api_error *error)
{
    static const char *const unsupported[] = {"tool_calls", "function_call", "tool_call_id", "audio", "refusal"};
    const json_t *role = json_object_get(message, "role"), *content = json_object_get(message, "content");
    if (!json_is_object(message) || !json_is_string(role))
        return fail_message(error, index, "a message is an object with 'role' and 'content'");
    for (size_t i = 0; i < SL_COUNTOF(unsupported); i++) {
        const json_t *value = json_object_get(message, unsupported[i]);
        if (value && !json_is_null(value) && !(json_is_array(value) && json_array_size(value) == 0))
            return sl_api_fail(error, SL_ERR_UNSUPPORTED, 400, "messages",
                               "messages[%zu]: '%s' is not supported by this server", index, unsupported[i]);
    }
    out->role = NULL;
    for (size_t i = 0; i < SL_COUNTOF(roles); i++)
        if (strcmp(json_string_value(role), roles[i][0]) == 0)
            out->role = roles[i][1];
    if (!out->role)
        return fail_message(error, index, "'role' must be system, developer, user or assistant");
    if (json_is_array(content))
        return join_parts(content, index, &out->content, storage, error);
    if (!json_is_string(content))
        return fail_message(error, index, "'content' must be a string or an array of text parts");
    out->content = (sl_bytes){json_string_value(content), json_string_length(content)};
    return SL_OK;
}

static sl_status chat_tokens(const sl_bundle *bundle, uint32_t context, sl_api_request *request, sl_api_error *error)
{
    size_t n = json_array_size(request->messages), n_bytes = 0;
    sl_message *messages = calloc(n, sizeof *messages);
    char **storage = calloc(n, sizeof *storage);
    sl_status status = SL_OK;
    if (!messages || !storage)
        status = sl_api_fail(error, SL_ERR_NOMEM, 503, NULL, "out of memory");
    for (size_t i = 0; i < n && status == SL_OK; i++)
        status = read_message(json_array_get(request->messages, i), i, &messages[i], &storage[i], error);
    for (size_t i = 0; i < n && status == SL_OK; i++)
        n_bytes += messages[i].content.n_bytes;
    if (status == SL_OK)
        status = check_bytes(bundle, context, n_bytes, "messages", error);
    sl_err err;
    if (status == SL_OK && sl_bundle_chat_tokens(bundle, messages, n, &request->prompts[0], &err) != SL_OK)
        status = sl_api_fail(error, err.code, 400, "messages", "%s", err.message);
    for (size_t i = 0; storage && i < n; i++)
        free(storage[i]);
    free(storage);
    free(messages);
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
    return request->echo ? make_echoes(bundle, request, error) : SL_OK;
}
