#include "cli/request_line.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A member's value; NULL where there is none, or null, which means the same. */
static const json_t *member(const json_t *object, const char *field)
{
    const json_t *value = json_object_get(object, field);
    return json_is_null(value) ? NULL : value;
}

static sl_status read_whole(const json_t *object, const char *field, json_int_t low, json_int_t high, json_int_t *out,
                            sl_err *err)
{
    const json_t *value = member(object, field);
    if (value == NULL)
        return SL_OK;
    if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high)
        SL_FAIL(err, SL_ERR_FORMAT, "'%s' must be a whole number from %lld to %lld", field, (long long)low,
                (long long)high);
    *out = json_integer_value(value);
    return SL_OK;
}

static sl_status read_real(const json_t *object, const char *field, float *out, sl_err *err)
{
    const json_t *value = member(object, field);
    if (value == NULL)
        return SL_OK;
    if (!json_is_number(value) || !isfinite((float)json_number_value(value)))
        SL_FAIL(err, SL_ERR_FORMAT, "'%s' must be a number", field);
    *out = (float)json_number_value(value);
    return SL_OK;
}

static sl_status read_prompt(sl_request_line *out, sl_err *err)
{
    const json_t *prompt = member(out->object, "prompt"), *messages = member(out->object, "messages");
    if ((prompt != NULL) == (messages != NULL))
        SL_FAIL(err, SL_ERR_FORMAT, "one of 'prompt' and 'messages' must be there");
    if (messages != NULL)
        return sl_json_read_messages(messages, &out->messages, err);
    if (!json_is_string(prompt))
        SL_FAIL(err, SL_ERR_FORMAT, "'prompt' must be a text");
    out->prompt = (sl_bytes){json_string_value(prompt), json_string_length(prompt)};
    return SL_OK;
}

static sl_status read_bias(sl_request_line *out, sl_err *err)
{
    const json_t *biases = member(out->object, "logit_bias");
    size_t n;
    if (biases == NULL)
        return SL_OK;
    SL_TRY(sl_json_read_bias(biases, &out->bias, &n, err));
    out->sampling.bias = out->bias;
    out->sampling.n_bias = n;
    return SL_OK;
}

/* The same ranges as in the server (docs/SERVER.md); those of real numbers are the sampler's to check. */
static sl_status read_sampling(sl_request_line *out, sl_err *err)
{
    sl_sample_params *s = &out->sampling;
    const json_t *object = out->object, *stop = member(object, "stop");
    json_int_t max_tokens = out->max_tokens, top_k = s->top_k, seed = (json_int_t)s->seed;
    SL_TRY(read_whole(object, "max_tokens", 1, UINT32_MAX, &max_tokens, err));
    SL_TRY(read_whole(object, "top_k", -1, INT32_MAX, &top_k, err)); /* -1 = off, as 0 */
    SL_TRY(read_whole(object, "seed", INT64_MIN, INT64_MAX, &seed, err));
    SL_TRY(read_real(object, "temperature", &s->temperature, err));
    SL_TRY(read_real(object, "top_p", &s->top_p, err));
    SL_TRY(read_real(object, "min_p", &s->min_p, err));
    SL_TRY(read_real(object, "repetition_penalty", &s->repetition_penalty, err));
    SL_TRY(read_real(object, "presence_penalty", &s->presence_penalty, err));
    SL_TRY(read_real(object, "frequency_penalty", &s->frequency_penalty, err));
    out->max_tokens = (uint32_t)max_tokens;
    s->top_k = (uint32_t)SL_MAX(top_k, 0);
    s->seed = (uint64_t)seed;
    if (stop != NULL)
        SL_TRY(sl_json_read_stop(stop, out->stop, &out->n_stop, err));
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
        bool known = json_is_null(value);
        for (size_t i = 0; i < SL_COUNTOF(fields); i++)
            known |= strcmp(key, fields[i]) == 0;
        if (!known)
            SL_FAIL(err, SL_ERR_UNSUPPORTED, "'%.40s' is no field that can be used here", key);
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
    const json_t *id = member(out->object, "id");
    if (id != NULL && !json_is_string(id) && !json_is_integer(id))
        SL_FAIL(err, SL_ERR_FORMAT, "'id' must be a text or a whole number");
    out->id = id;
    SL_TRY(check_fields(out->object, err));
    SL_TRY(read_prompt(out, err));
    return read_sampling(out, err);
}

void sl_request_line_free(sl_request_line *request)
{
    json_decref(request->object);
    sl_json_messages_free(&request->messages);
    free(request->bias);
    *request = (sl_request_line){0};
}
