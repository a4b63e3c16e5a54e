#include "cli/request_line.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static sl_status read_whole(const json_t *object, const char *field, json_int_t low, json_int_t high, json_int_t *out,
                            sl_err *err)
{
    const json_t *value = json_object_get(object, field);
    if (value == NULL)
        return SL_OK;
    if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high)
        SL_FAIL(err, SL_ERR_FORMAT, "\"%s\" must be a whole number from %lld to %lld", field, (long long)low,
                (long long)high);
    *out = json_integer_value(value);
    return SL_OK;
}

static sl_status read_real(const json_t *object, const char *field, float *out, sl_err *err)
{
    const json_t *value = json_object_get(object, field);
    if (value == NULL)
        return SL_OK;
    if (!json_is_number(value) || !isfinite((float)json_number_value(value)))
        SL_FAIL(err, SL_ERR_FORMAT, "\"%s\" must be a number", field);
    *out = (float)json_number_value(value);
    return SL_OK;
}

static sl_bytes text_of(const json_t *string)
{
    return (sl_bytes){json_string_value(string), json_string_length(string)};
}

static sl_status read_messages(const json_t *list, sl_request_line *out, sl_err *err)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n < 1 || n > SL_REQUEST_MESSAGES)
        SL_FAIL(err, SL_ERR_FORMAT, "\"messages\" must be a list of 1 to %d messages", SL_REQUEST_MESSAGES);
    out->messages = calloc(n, sizeof(*out->messages));
    if (out->messages == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(list, i), *role = json_object_get(message, "role"),
                     *content = json_object_get(message, "content");
        if (!json_is_string(role) || strlen(json_string_value(role)) != json_string_length(role))
            SL_FAIL(err, SL_ERR_FORMAT, "\"messages\": message %zu has no \"role\"", i);
        if (!json_is_string(content))
            SL_FAIL(err, SL_ERR_FORMAT, "\"messages\": message %zu has no text as \"content\"", i);
        if (json_object_size(message) != 2)
            SL_FAIL(err, SL_ERR_UNSUPPORTED, "\"messages\": message %zu has more than \"role\" and \"content\"", i);
        out->messages[i] = (sl_message){json_string_value(role), text_of(content)};
    }
    out->n_messages = n;
    return SL_OK;
}

static sl_status read_prompt(sl_request_line *out, sl_err *err)
{
    const json_t *prompt = json_object_get(out->object, "prompt"), *messages = json_object_get(out->object, "messages");
    if ((prompt != NULL) == (messages != NULL))
        SL_FAIL(err, SL_ERR_FORMAT, "one of \"prompt\" and \"messages\" must be there");
    if (messages != NULL)
        return read_messages(messages, out, err);
    if (!json_is_string(prompt))
        SL_FAIL(err, SL_ERR_FORMAT, "\"prompt\" must be a text");
    out->prompt = text_of(prompt);
    return SL_OK;
}

static sl_status read_bias(sl_request_line *out, sl_err *err)
{
    const char *key;
    json_t *value, *biases = json_object_get(out->object, "logit_bias");
    size_t n = 0;
    if (biases == NULL)
        return SL_OK;
    if (!json_is_object(biases) || json_object_size(biases) > SL_REQUEST_BIASES)
        SL_FAIL(err, SL_ERR_FORMAT, "\"logit_bias\" must be an object with at most %d numbers", SL_REQUEST_BIASES);
    out->bias = calloc(json_object_size(biases) + 1, sizeof(*out->bias));
    if (out->bias == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    json_object_foreach(biases, key, value)
    {
        char *end;
        errno = 0;
        unsigned long token = strtoul(key, &end, 10);
        bool digits = key[0] >= '0' && key[0] <= '9' && *end == '\0' && errno == 0 && token <= UINT32_MAX;
        if (!digits || !json_is_number(value) || !isfinite((float)json_number_value(value)))
            SL_FAIL(err, SL_ERR_FORMAT, "\"logit_bias\": '%.20s' must be a token id with a number", key);
        out->bias[n++] = (sl_logit_bias){(uint32_t)token, (float)json_number_value(value)};
    }
    out->sampling.bias = out->bias;
    out->sampling.n_bias = n;
    return SL_OK;
}

/* A text or a list of texts, as in OpenAI's API. */
static sl_status read_stop(sl_request_line *out, sl_err *err)
{
    const json_t *stop = json_object_get(out->object, "stop");
    size_t n = json_is_array(stop) ? json_array_size(stop) : 1;
    if (stop == NULL)
        return SL_OK;
    if (n > SL_REQUEST_STOPS)
        SL_FAIL(err, SL_ERR_FORMAT, "\"stop\" has more than %d texts", SL_REQUEST_STOPS);
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(stop) ? json_array_get(stop, i) : stop;
        if (!json_is_string(one) || json_string_length(one) == 0)
            SL_FAIL(err, SL_ERR_FORMAT, "\"stop\" must be a text or a list of texts, none of them empty");
        out->stop[i] = text_of(one);
    }
    out->n_stop = n;
    return SL_OK;
}

static sl_status read_sampling(sl_request_line *out, sl_err *err)
{
    sl_sample_params *s = &out->sampling;
    const json_t *object = out->object;
    json_int_t max_tokens = out->max_tokens, top_k = s->top_k, seed = (json_int_t)s->seed;
    SL_TRY(read_whole(object, "max_tokens", 1, 1 << 24, &max_tokens, err));
    SL_TRY(read_whole(object, "top_k", 0, 1 << 24, &top_k, err));
    SL_TRY(read_whole(object, "seed", 0, INT64_MAX, &seed, err));
    SL_TRY(read_real(object, "temperature", &s->temperature, err));
    SL_TRY(read_real(object, "top_p", &s->top_p, err));
    SL_TRY(read_real(object, "min_p", &s->min_p, err));
    SL_TRY(read_real(object, "repetition_penalty", &s->repetition_penalty, err));
    SL_TRY(read_real(object, "presence_penalty", &s->presence_penalty, err));
    SL_TRY(read_real(object, "frequency_penalty", &s->frequency_penalty, err));
    out->max_tokens = (uint32_t)max_tokens;
    s->top_k = (uint32_t)top_k;
    s->seed = (uint64_t)seed;
    SL_TRY(read_stop(out, err));
    return read_bias(out, err);
}

static sl_status check_fields(json_t *object, sl_err *err)
{
    static const char *const fields[] = {
        "id",    "prompt",    "messages",           "max_tokens",       "temperature",       "top_k",
        "top_p", "min_p",     "repetition_penalty", "presence_penalty", "frequency_penalty", "seed",
        "stop",  "logit_bias"};
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < SL_COUNTOF(fields); i++)
            known |= strcmp(key, fields[i]) == 0;
        if (!known)
            SL_FAIL(err, SL_ERR_UNSUPPORTED, "\"%.40s\" is no field that can be used here", key);
    }
    return SL_OK;
}

sl_status sl_request_line_read(const char *bytes, size_t n_bytes, const sl_request_line *defaults, sl_request_line *out,
                               sl_err *err)
{
    json_error_t error;
    *out = (sl_request_line){.sampling = defaults->sampling, .max_tokens = defaults->max_tokens};
    if (n_bytes > SL_REQUEST_LINE_BYTES)
        SL_FAIL(err, SL_ERR_LIMIT, "the line is longer than %d MiB", SL_REQUEST_LINE_BYTES >> 20);
    out->object = json_loadb(bytes, n_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (out->object == NULL)
        SL_FAIL(err, SL_ERR_FORMAT, "no JSON: %.120s at byte %d", error.text, error.position);
    if (!json_is_object(out->object))
        SL_FAIL(err, SL_ERR_FORMAT, "a request is a JSON object");
    const json_t *id = json_object_get(out->object, "id");
    if (id != NULL && !json_is_string(id) && !json_is_integer(id))
        SL_FAIL(err, SL_ERR_FORMAT, "\"id\" must be a text or a whole number");
    out->id = id;
    SL_TRY(check_fields(out->object, err));
    SL_TRY(read_prompt(out, err));
    return read_sampling(out, err);
}

void sl_request_line_free(sl_request_line *request)
{
    json_decref(request->object);
    free(request->messages);
    free(request->bias);
    *request = (sl_request_line){0};
}
