#include "app/json_fields.h"

#include <stdlib.h>
#include <string.h>

/* ---- messages ---- */

static const char *const roles[][2] = {
    {"system", "system"}, {"developer", "system"}, {"user", "user"}, {"assistant", "assistant"}};

static sl_bytes text_of(const json_t *string)
{
    return (sl_bytes){json_string_value(string), json_string_length(string)};
}

/* Joins the texts of an array of content parts; *joined is allocated. */
static sl_status join_parts(const json_t *parts, size_t index, sl_bytes *out, char **joined, sl_err *err)
{
    size_t n_bytes = 0, used = 0;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i), *type = json_object_get(part, "type");
        const json_t *text = json_object_get(part, "text");
        if (!json_is_string(type) || strcmp(json_string_value(type), "text") != 0 || !json_is_string(text))
            SL_FAIL(err, SL_ERR_ARGUMENT, "messages[%zu]: 'content' may have parts of type \"text\" only", index);
        n_bytes += json_string_length(text);
    }
    *joined = malloc(n_bytes + 1);
    if (!*joined)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < json_array_size(parts); i++) {
        sl_bytes text = text_of(json_object_get(json_array_get(parts, i), "text"));
        memcpy(*joined + used, text.bytes, text.n_bytes);
        used += text.n_bytes;
    }
    *out = (sl_bytes){*joined, n_bytes};
    return SL_OK;
}

static sl_status check_members(const json_t *message, size_t index, sl_err *err)
{
    static const char *const unsupported[] = {"tool_calls", "function_call", "tool_call_id", "audio", "refusal"};
    for (size_t i = 0; i < SL_COUNTOF(unsupported); i++) {
        const json_t *value = json_object_get(message, unsupported[i]);
        if (value && !json_is_null(value) && !(json_is_array(value) && json_array_size(value) == 0))
            SL_FAIL(err, SL_ERR_UNSUPPORTED, "messages[%zu]: '%s' is not supported here", index, unsupported[i]);
    }
    return SL_OK;
}

static sl_status read_message(const json_t *message, size_t index, sl_message *out, char **joined, sl_err *err)
{
    const json_t *role = json_object_get(message, "role"), *content = json_object_get(message, "content");
    if (!json_is_object(message) || !json_is_string(role))
        SL_FAIL(err, SL_ERR_ARGUMENT, "messages[%zu]: a message is an object with 'role' and 'content'", index);
    SL_TRY(check_members(message, index, err));
    out->role = NULL;
    for (size_t i = 0; i < SL_COUNTOF(roles); i++)
        if (strlen(roles[i][0]) == json_string_length(role) && strcmp(json_string_value(role), roles[i][0]) == 0)
            out->role = roles[i][1];
    if (!out->role)
        SL_FAIL(err, SL_ERR_ARGUMENT, "messages[%zu]: 'role' must be system, developer, user or assistant", index);
    if (json_is_array(content))
        return join_parts(content, index, &out->content, joined, err);
    if (!json_is_string(content))
        SL_FAIL(err, SL_ERR_ARGUMENT, "messages[%zu]: 'content' must be a string or an array of text parts", index);
    out->content = text_of(content);
    return SL_OK;
}

sl_status sl_json_read_messages(const json_t *value, sl_json_messages *out, sl_err *err)
{
    size_t n = json_array_size(value);
    if (!json_is_array(value) || n == 0 || n > SL_JSON_MAX_MESSAGES)
        SL_FAIL(err, SL_ERR_ARGUMENT, "'messages' must be an array of 1 to %d messages", SL_JSON_MAX_MESSAGES);
    out->items = calloc(n, sizeof *out->items);
    out->joined = calloc(n, sizeof *out->joined);
    if (!out->items || !out->joined)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    out->n = n;
    for (size_t i = 0; i < n; i++)
        SL_TRY(read_message(json_array_get(value, i), i, &out->items[i], &out->joined[i], err));
    return SL_OK;
}

void sl_json_messages_free(sl_json_messages *messages)
{
    for (size_t i = 0; i < messages->n; i++)
        free(messages->joined[i]);
    free(messages->joined);
    free(messages->items);
    *messages = (sl_json_messages){0};
}

/* ---- stop strings and biases ---- */

sl_status sl_json_read_stop(const json_t *value, sl_bytes out[SL_MAX_STOP_STRINGS], size_t *n, sl_err *err)
{
    bool list = json_is_array(value);
    *n = 0;
    if ((!list && !json_is_string(value)) || json_array_size(value) > SL_MAX_STOP_STRINGS)
        SL_FAIL(err, SL_ERR_ARGUMENT, "'stop' must be a string or an array of at most %d strings", SL_MAX_STOP_STRINGS);
    for (size_t i = 0; i < (list ? json_array_size(value) : 1); i++) {
        const json_t *item = list ? json_array_get(value, i) : value;
        size_t n_bytes = json_string_length(item);
        if (!json_is_string(item) || n_bytes == 0 || n_bytes > SL_MAX_STOP_BYTES)
            SL_FAIL(err, SL_ERR_ARGUMENT, "'stop' must hold strings of 1 to %d bytes", SL_MAX_STOP_BYTES);
        out[i] = text_of(item);
        *n = i + 1;
    }
    return SL_OK;
}

sl_status sl_json_read_bias(const json_t *value, sl_logit_bias **out, size_t *n, sl_err *err)
{
    const char *key;
    json_t *amount;
    *n = 0;
    *out = NULL;
    if (!json_is_object(value) || json_object_size(value) > SL_JSON_MAX_BIAS)
        SL_FAIL(err, SL_ERR_ARGUMENT, "'logit_bias' must be an object of at most %d token ids and numbers",
                SL_JSON_MAX_BIAS);
    *out = calloc(json_object_size(value) + 1, sizeof **out);
    if (!*out)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    json_object_foreach((json_t *)(uintptr_t)value, key, amount)
    {
        size_t n_digits = strspn(key, "0123456789");
        double bias = json_number_value(amount);
        if (n_digits == 0 || n_digits > 9 || key[n_digits] != '\0')
            SL_FAIL(err, SL_ERR_ARGUMENT, "'logit_bias' names '%.40s', which is no token id", key);
        if (!json_is_number(amount) || !(bias >= -100 && bias <= 100))
            SL_FAIL(err, SL_ERR_ARGUMENT, "'logit_bias' of token %s must be a number from -100 to 100", key);
        (*out)[(*n)++] = (sl_logit_bias){(uint32_t)strtoul(key, NULL, 10), (float)bias};
    }
    return SL_OK;
}
