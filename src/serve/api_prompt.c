/* Prompts of a request: messages through the chat template, strings and token ids, to tokens. */
#include "serve/api_request.h"

#include <stdlib.h>
#include <string.h>

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

static sl_status chat_tokens(const sl_bundle *bundle, sl_api_request *request, sl_api_error *error)
{
    size_t n = json_array_size(request->messages);
    sl_message *messages = calloc(n, sizeof *messages);
    char **storage = calloc(n, sizeof *storage);
    sl_status status = SL_OK;
    if (!messages || !storage)
        status = sl_api_fail(error, SL_ERR_NOMEM, 503, NULL, "out of memory");
    for (size_t i = 0; i < n && status == SL_OK; i++)
        status = read_message(json_array_get(request->messages, i), i, &messages[i], &storage[i], error);
    sl_err err;
    if (status == SL_OK && sl_bundle_chat_tokens(bundle, messages, n, &request->prompts[0], &err) != SL_OK)
        status = sl_api_fail(error, err.code, 400, "messages", "%s", err.message);
    for (size_t i = 0; storage && i < n; i++)
        free(storage[i]);
    free(storage);
    free(messages);
    return status;
}

/* ---- completions ---- */

static sl_status id_tokens(const json_t *ids, sl_tokens *out, sl_api_error *error)
{
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *item = json_array_get(ids, i);
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id > UINT32_MAX)
            return sl_api_fail(error, SL_ERR_ARGUMENT, 400, "prompt", "'prompt' mixes token ids with something else");
        if (sl_tokens_push(out, (uint32_t)id, NULL) != SL_OK)
            return sl_api_fail(error, SL_ERR_NOMEM, 503, NULL, "out of memory");
    }
    return SL_OK;
}

static sl_status prompt_tokens(const sl_bundle *bundle, const json_t *prompt, sl_tokens *out, sl_api_error *error)
{
    if (json_is_array(prompt))
        return id_tokens(prompt, out, error);
    sl_err err;
    if (!json_is_string(prompt))
        return sl_api_fail(error, SL_ERR_ARGUMENT, 400, "prompt", "'prompt' mixes strings with something else");
    if (sl_bundle_text_tokens(bundle, json_string_value(prompt), json_string_length(prompt), out, &err) != SL_OK)
        return sl_api_fail(error, err.code, 400, "prompt", "%s", err.message);
    return SL_OK;
}

/* True for an array of prompts rather than one prompt. */
static bool is_batch(const json_t *prompt)
{
    return json_is_array(prompt) && !json_is_integer(json_array_get(prompt, 0));
}

static sl_status check_prompts(uint32_t context, const sl_api_request *request, sl_api_error *error)
{
    const char *param = request->kind == SL_API_CHAT ? "messages" : "prompt";
    for (size_t i = 0; i < request->n_prompts; i++) {
        size_t n = request->prompts[i].n;
        if (n == 0)
            return sl_api_fail(error, SL_ERR_ARGUMENT, 400, param, "the prompt is empty");
        if (n >= context) {
            sl_status status =
                sl_api_fail(error, SL_ERR_LIMIT, 400, param,
                            "the prompt has %zu tokens, but the context holds %u, answer included", n, context);
            error->code = "context_length_exceeded";
            return status;
        }
    }
    return SL_OK;
}

sl_status sl_api_tokenize(const sl_bundle *bundle, uint32_t context, sl_api_request *request, sl_api_error *error)
{
    bool batch = request->kind == SL_API_COMPLETION && is_batch(request->prompt);
    size_t n = batch ? json_array_size(request->prompt) : 1;
    if (n == 0 || n * request->n > SL_API_MAX_CHOICES)
        return sl_api_fail(error, SL_ERR_LIMIT, 400, n == 0 || request->n == 1 ? "prompt" : "n",
                           "%zu prompts with %u choices each: a request may have 1 to %d answers", n, request->n,
                           SL_API_MAX_CHOICES);
    request->prompts = calloc(n, sizeof *request->prompts);
    if (!request->prompts)
        return sl_api_fail(error, SL_ERR_NOMEM, 503, NULL, "out of memory");
    request->n_prompts = n;
    if (request->kind == SL_API_CHAT)
        SL_TRY(chat_tokens(bundle, request, error));
    for (size_t i = 0; request->kind == SL_API_COMPLETION && i < n; i++) {
        const json_t *prompt = batch ? json_array_get(request->prompt, i) : request->prompt;
        SL_TRY(prompt_tokens(bundle, prompt, &request->prompts[i], error));
    }
    return check_prompts(context, request, error);
}
