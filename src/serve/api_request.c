#include "serve/api_request.h"

#include "app/json_fields.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct field field;
typedef sl_status read_fn(const field *field, const json_t *value, sl_api_request *request, sl_api_error *error);

enum {
    CHAT = 1 << SL_API_CHAT,
    COMPLETION = 1 << SL_API_COMPLETION,
    EMBEDDING = 1 << SL_API_EMBEDDING,
    BOTH = CHAT | COMPLETION,
    ALL = BOTH | EMBEDDING
};

/* A known field: who reads it into which member of the request, and the numbers it may have. */
struct field {
    const char *name;
    read_fn *read;
    size_t offset;
    double low, high;
    uint32_t kinds;
};

sl_status sl_api_fail(sl_api_error *error, sl_status code, int status, const char *param, const char *format, ...)
{
    *error = (sl_api_error){.status = status};
    snprintf(error->param, sizeof error->param, "%s", param ? param : "");
    va_list args;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    return code;
}

#define FAIL_FIELD(name, ...) return sl_api_fail(error, SL_ERR_ARGUMENT, 400, name, __VA_ARGS__)
#define FAIL_UNSUPPORTED(name)                                                                                         \
    return sl_api_fail(error, SL_ERR_UNSUPPORTED, 400, name, "'%s' is not supported by this server", name)

/* ---- fields of one value ---- */

static sl_status read_bool(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    if (!json_is_boolean(value))
        FAIL_FIELD(f->name, "'%s' must be true or false", f->name);
    *(bool *)((char *)request + f->offset) = json_is_true(value);
    return SL_OK;
}

static sl_status read_real(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= f->low && number <= f->high))
        FAIL_FIELD(f->name, "'%s' must be a number from %g to %g", f->name, f->low, f->high);
    *(float *)((char *)request + f->offset) = (float)number;
    return SL_OK;
}

static sl_status read_uint(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    double number = json_number_value(value);
    if (!json_is_integer(value) || !(number >= f->low && number <= f->high))
        FAIL_FIELD(f->name, "'%s' must be a whole number from %.0f to %.0f", f->name, f->low, f->high);
    *(uint32_t *)((char *)request + f->offset) = (uint32_t)json_integer_value(value);
    return SL_OK;
}

static sl_status read_int(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    double number = json_number_value(value);
    if (!json_is_integer(value) || !(number >= f->low && number <= f->high))
        FAIL_FIELD(f->name, "'%s' must be a whole number from %.0f to %.0f", f->name, f->low, f->high);
    *(int32_t *)((char *)request + f->offset) = (int32_t)json_integer_value(value);
    return SL_OK;
}

/* Milliseconds, kept as microseconds. */
static sl_status read_millis(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= f->low && number <= f->high))
        FAIL_FIELD(f->name, "'%s' must be a number of milliseconds from %g to %.0f", f->name, f->low, f->high);
    *(int64_t *)((char *)request + f->offset) = (int64_t)(number * 1000);
    return SL_OK;
}

/* -1 is vLLM's word for "off". */
static sl_status read_top_k(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    if (json_is_integer(value) && json_integer_value(value) == -1)
        return SL_OK;
    return read_uint(f, value, request, error);
}

static sl_status read_seed(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    if (!json_is_integer(value))
        FAIL_FIELD(f->name, "'seed' must be a whole number of 64 bits");
    request->sampling.seed = (uint64_t)json_integer_value(value);
    request->seeded = true;
    return SL_OK;
}

static sl_status read_model(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    size_t n = json_string_length(value);
    if (!json_is_string(value) || n == 0 || n >= sizeof request->model || strlen(json_string_value(value)) != n)
        FAIL_FIELD(f->name, "'model' must be a string of 1 to %zu bytes", sizeof request->model - 1);
    memcpy(request->model, json_string_value(value), n + 1);
    return SL_OK;
}

/* ---- fields with a structure ---- */

static sl_status read_stream_options(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    if (!json_is_object(value))
        FAIL_FIELD(f->name, "'stream_options' must be an object");
    const char *key;
    json_t *option;
    json_object_foreach((json_t *)value, key, option)
    {
        bool usage = strcmp(key, "include_usage") == 0, padding = strcmp(key, "include_obfuscation") == 0;
        if (json_is_null(option) || (padding && json_is_boolean(option)))
            continue; /* obfuscation is padding that a client must be able to do without */
        if (usage && json_is_boolean(option))
            request->include_usage = json_is_true(option);
        else if (usage || padding)
            FAIL_FIELD(f->name, "'stream_options.%s' must be true or false", key);
        else if (json_is_true(option))
            FAIL_FIELD(f->name, "'stream_options.%.40s' is not supported by this server", key);
    }
    return SL_OK;
}

/* What is wrong with a field that sl_json_read_… has read. */
static sl_status fail_json(const char *name, const sl_err *err, sl_api_error *error)
{
    return sl_api_fail(error, err->code, err->code == SL_ERR_NOMEM ? 503 : 400, name, "%s", err->message);
}

static sl_status read_logit_bias(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    sl_err err;
    if (sl_json_read_bias(value, &request->bias, &request->sampling.n_bias, &err) != SL_OK)
        return fail_json(f->name, &err, error);
    request->sampling.bias = request->bias;
    return SL_OK;
}

static sl_status read_tokens(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    size_t n = json_array_size(value);
    if (!json_is_array(value) || n > SL_API_MAX_TOKENS)
        FAIL_FIELD(f->name, "'%s' must be an array of at most %d token ids", f->name, SL_API_MAX_TOKENS);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(value, i);
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id > UINT32_MAX)
            FAIL_FIELD(f->name, "'%s' must hold token ids", f->name);
        if (sl_tokens_push((sl_tokens *)((char *)request + f->offset), (uint32_t)id, NULL) != SL_OK)
            return sl_api_fail(error, SL_ERR_NOMEM, 503, f->name, "out of memory");
    }
    return SL_OK;
}

/* The strings are copied: the body goes before the engine has them. */
static sl_status read_stop(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    size_t n, total = 0;
    sl_bytes items[SL_MAX_STOP_STRINGS];
    sl_err err;
    if (sl_json_read_stop(value, items, &n, &err) != SL_OK)
        return fail_json(f->name, &err, error);
    for (size_t i = 0; i < n; i++)
        total += items[i].n_bytes;
    request->stop_strings = malloc(n * sizeof *request->stop_strings + total + 1);
    if (!request->stop_strings)
        return sl_api_fail(error, SL_ERR_NOMEM, 503, f->name, "out of memory");
    char *copy = (char *)(request->stop_strings + n);
    for (size_t i = 0; i < n; i++) {
        request->stop_strings[i] = (sl_bytes){memcpy(copy, items[i].bytes, items[i].n_bytes), items[i].n_bytes};
        copy += items[i].n_bytes;
    }
    request->n_stop_strings = n;
    return SL_OK;
}

/* Chat: a switch, top_logprobs beside it. Completions: how many alternatives. */
static sl_status read_logprobs(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    if (request->kind == SL_API_CHAT)
        return read_bool(f, value, request, error);
    if (json_is_false(value))
        return SL_OK;
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 0 || n > SL_MAX_LOGPROBS)
        FAIL_FIELD(f->name, "'logprobs' must be a whole number from 0 to %d", SL_MAX_LOGPROBS);
    request->logprobs = true;
    request->sampling.n_logprobs = (uint32_t)n;
    return SL_OK;
}

static sl_status read_messages(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    if (!json_is_array(value) || json_array_size(value) == 0 || json_array_size(value) > SL_JSON_MAX_MESSAGES)
        FAIL_FIELD(f->name, "'messages' must be an array of 1 to %d messages", SL_JSON_MAX_MESSAGES);
    request->messages = value;
    return SL_OK;
}

static sl_status read_prompt(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    if (!json_is_string(value) && !json_is_array(value))
        FAIL_FIELD(f->name, "'%s' must be a string, an array of strings, token ids or an array of token ids", f->name);
    request->prompt = value;
    return SL_OK;
}

static sl_status read_bad_words(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    if (!json_is_array(value) || json_array_size(value) > SL_API_MAX_BAD_WORDS)
        FAIL_FIELD(f->name, "'bad_words' must be an array of at most %d strings", SL_API_MAX_BAD_WORDS);
    for (size_t i = 0; i < json_array_size(value); i++) {
        size_t n = json_string_length(json_array_get(value, i));
        if (!json_is_string(json_array_get(value, i)) || n == 0 || n > SL_API_MAX_BAD_BYTES)
            FAIL_FIELD(f->name, "'bad_words' must hold strings of 1 to %d bytes", SL_API_MAX_BAD_BYTES);
    }
    request->bad_texts = value;
    return SL_OK;
}

static sl_status read_encoding(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    const char *word = json_is_string(value) ? json_string_value(value) : "";
    request->base64 = strcmp(word, "base64") == 0;
    if (!request->base64 && strcmp(word, "float") != 0)
        FAIL_FIELD(f->name, "'encoding_format' must be \"float\" or \"base64\"");
    return SL_OK;
}

/* Known, and without an effect here: who asks, where it is stored, hints for a cache. */
static sl_status read_nothing(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    return SL_OK;
}

/* Known, but not built: refused unless the value asks for nothing. */
static sl_status read_unsupported(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    bool empty = (json_is_array(value) && json_array_size(value) == 0) ||
                 (json_is_object(value) && json_object_size(value) == 0) ||
                 (json_is_string(value) && json_string_length(value) == 0);
    if (json_is_false(value) || empty || (json_is_number(value) && json_number_value(value) == 0))
        return SL_OK;
    FAIL_UNSUPPORTED(f->name);
}

/* The words a field may have because they say what happens anyway. */
static sl_status read_word(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    static const char *const words[] = {"none", "auto", "default", "text"};
    const json_t *word = json_is_object(value) ? json_object_get(value, "type") : value;
    if (json_is_array(value) && json_array_size(value) == 1)
        word = json_array_get(value, 0);
    for (size_t i = 0; json_is_string(word) && i < SL_COUNTOF(words); i++)
        if (strcmp(json_string_value(word), words[i]) == 0)
            return SL_OK;
    FAIL_UNSUPPORTED(f->name);
}

/* best_of: 1 asks for nothing. length_penalty: 1 changes nothing. */
static sl_status read_one(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    if (json_is_number(value) && json_number_value(value) == 1)
        return SL_OK;
    FAIL_UNSUPPORTED(f->name);
}

static sl_status read_true(const field *f, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    if (json_is_true(value))
        return SL_OK;
    FAIL_UNSUPPORTED(f->name);
}

#define MEMBER(member)   offsetof(sl_api_request, member)
#define SAMPLING(member) (offsetof(sl_api_request, sampling) + offsetof(sl_sample_params, member))

static const field fields[] = {
    {"model", read_model, 0, 0, 0, ALL},
    {"messages", read_messages, 0, 0, 0, CHAT},
    {"prompt", read_prompt, 0, 0, 0, COMPLETION},
    {"input", read_prompt, 0, 0, 0, EMBEDDING},
    {"encoding_format", read_encoding, 0, 0, 0, EMBEDDING},
    {"dimensions", read_uint, MEMBER(dimensions), 1, UINT32_MAX, EMBEDDING},
    {"priority", read_int, MEMBER(priority), -1000, 1000, ALL},
    {"ttft_target_ms", read_millis, MEMBER(ttft_target_us), 0, 86400000, ALL},
    {"itl_target_ms", read_millis, MEMBER(itl_target_us), 0, 86400000, BOTH},
    {"stream", read_bool, MEMBER(stream), 0, 0, BOTH},
    {"stream_options", read_stream_options, 0, 0, 0, BOTH},
    {"max_tokens", read_uint, MEMBER(max_tokens), 1, UINT32_MAX, CHAT},
    {"max_tokens", read_uint, MEMBER(max_tokens), 0, UINT32_MAX, COMPLETION},
    {"echo", read_bool, MEMBER(echo), 0, 0, COMPLETION},
    {"max_completion_tokens", read_uint, MEMBER(max_tokens), 1, UINT32_MAX, CHAT},
    {"n", read_uint, MEMBER(n), 1, SL_API_MAX_CHOICES, BOTH},
    {"temperature", read_real, SAMPLING(temperature), 0, 100, BOTH},
    {"top_p", read_real, SAMPLING(top_p), 0, 1, BOTH},
    {"top_k", read_top_k, SAMPLING(top_k), 0, INT32_MAX, BOTH},
    {"min_p", read_real, SAMPLING(min_p), 0, 1, BOTH},
    {"presence_penalty", read_real, SAMPLING(presence_penalty), -2, 2, BOTH},
    {"frequency_penalty", read_real, SAMPLING(frequency_penalty), -2, 2, BOTH},
    {"repetition_penalty", read_real, SAMPLING(repetition_penalty), 0.01, 100, BOTH},
    {"seed", read_seed, 0, 0, 0, BOTH},
    {"logit_bias", read_logit_bias, 0, 0, 0, BOTH},
    {"logprobs", read_logprobs, MEMBER(logprobs), 0, 0, BOTH},
    {"top_logprobs", read_uint, SAMPLING(n_logprobs), 0, SL_MAX_LOGPROBS, CHAT},
    {"ignore_eos", read_bool, MEMBER(ignore_eos), 0, 0, BOTH},
    {"stop", read_stop, 0, 0, 0, BOTH},
    {"stop_token_ids", read_tokens, MEMBER(stop_tokens), 0, 0, BOTH},
    {"bad_words", read_bad_words, 0, 0, 0, BOTH},
    {"allowed_token_ids", read_tokens, MEMBER(allowed_tokens), 0, 0, BOTH},
    {"min_tokens", read_uint, SAMPLING(min_tokens), 0, UINT32_MAX, BOTH},
    /* without effect */
    {"user", read_nothing, 0, 0, 0, ALL},
    {"metadata", read_nothing, 0, 0, 0, BOTH},
    {"safety_identifier", read_nothing, 0, 0, 0, BOTH},
    {"prompt_cache_key", read_nothing, 0, 0, 0, BOTH},
    {"prompt_cache_retention", read_nothing, 0, 0, 0, BOTH},
    {"parallel_tool_calls", read_nothing, 0, 0, 0, CHAT},
    /* only as what happens anyway */
    {"service_tier", read_word, 0, 0, 0, BOTH},
    {"response_format", read_word, 0, 0, 0, BOTH},
    {"tool_choice", read_word, 0, 0, 0, CHAT},
    {"function_call", read_word, 0, 0, 0, CHAT},
    {"modalities", read_word, 0, 0, 0, CHAT},
    {"best_of", read_one, 0, 0, 0, BOTH},
    {"length_penalty", read_one, 0, 0, 0, BOTH},
    {"skip_special_tokens", read_true, 0, 0, 0, BOTH},
    {"spaces_between_special_tokens", read_true, 0, 0, 0, BOTH},
    {"add_special_tokens", read_true, 0, 0, 0, COMPLETION},
    {"add_generation_prompt", read_true, 0, 0, 0, CHAT},
    {"detokenize", read_true, 0, 0, 0, BOTH},
};

/* Fields of OpenAI's API, and extensions of other servers that clients send, which are not built. */
static const char *const unsupported[] = {
    "tools",
    "functions",
    "audio",
    "prediction",
    "store",
    "reasoning_effort",
    "verbosity",
    "web_search_options",
    "echo",
    "suffix",
    "use_beam_search",
    "prompt_logprobs",
    "include_stop_str_in_output",
    "truncate_prompt_tokens",
    "logits_processors",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "grammar",
    "json_schema",
    "chat_template",
    "chat_template_kwargs",
    "continue_final_message",
    "documents",
    "mm_processor_kwargs",
    "typical_p",
    "mirostat",
    "xtc_probability",
    "dry_multiplier",
    "n_probs",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "kv_transfer_params",
    "early_stopping",
};

static void note_ignored(sl_api_request *request, const char *name)
{
    size_t used = strlen(request->ignored), n = strlen(name);
    bool plain =
        n > 0 && n <= 40 && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == n;
    if (plain && used + n + 3 < sizeof request->ignored)
        snprintf(request->ignored + used, sizeof request->ignored - used, "%s%s", used ? ", " : "", name);
}

/* Reads a member of the body. Null is as good as absent. */
static sl_status read_member(const char *name, const json_t *value, sl_api_request *request, sl_api_error *error)
{
    for (size_t i = 0; i < SL_COUNTOF(fields); i++)
        if (strcmp(fields[i].name, name) == 0 && fields[i].kinds & 1u << request->kind)
            return json_is_null(value) ? SL_OK : fields[i].read(&fields[i], value, request, error);
    for (size_t i = 0; i < SL_COUNTOF(unsupported); i++)
        if (strcmp(unsupported[i], name) == 0) {
            field f = {.name = unsupported[i]};
            return json_is_null(value) ? SL_OK : read_unsupported(&f, value, request, error);
        }
    note_ignored(request, name);
    return SL_OK;
}

const char *sl_api_prompt_field(sl_api_kind kind)
{
    static const char *const names[SL_API_COUNT] = {"messages", "prompt", "input"};
    return names[kind];
}

static sl_status check_together(sl_api_request *request, sl_api_error *error)
{
    bool chat = request->kind == SL_API_CHAT;
    const char *prompt = sl_api_prompt_field(request->kind);
    if (chat ? !request->messages : !request->prompt)
        FAIL_FIELD(prompt, "'%s' is missing", prompt);
    if (request->kind == SL_API_COMPLETION && request->max_tokens == 0 && !request->echo)
        FAIL_FIELD("max_tokens", "'max_tokens' of 0 asks for nothing without 'echo': true");
    if (request->kind == SL_API_COMPLETION && request->max_tokens == 0 && request->n > 1)
        FAIL_FIELD("n", "'n' asks for %u answers and 'max_tokens' for none", request->n);
    if (json_object_get(request->root, "stream_options") &&
        !json_is_null(json_object_get(request->root, "stream_options")) && !request->stream)
        FAIL_FIELD("stream_options", "'stream_options' needs 'stream': true");
    if (request->sampling.n_logprobs > 0 && !request->logprobs)
        FAIL_FIELD("top_logprobs", "'top_logprobs' needs 'logprobs': true");
    const json_t *newer = json_object_get(request->root, "max_completion_tokens");
    if (chat && json_is_integer(newer)) /* overrides max_tokens wherever it stands */
        request->max_tokens = (uint32_t)json_integer_value(newer);
    request->sampling.want_logprob = request->logprobs;
    request->sampling.allowed_tokens = (sl_token_list){request->allowed_tokens.ids, request->allowed_tokens.n};
    return SL_OK;
}

/* Whether parsing the body makes no more than a sensible number of values. Each takes up to 300 bytes, a hundred times
 * what it takes in the body. Of what is no JSON the numbers are wrong and do not matter. */
static bool is_small(const char *body, size_t n_bytes)
{
    size_t n_values = 1, n_containers = 0;
    bool in_string = false;
    for (size_t i = 0; i < n_bytes; i++) {
        char c = body[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string) {
            n_values += c == ',' || c == ':';
            n_containers += c == '[' || c == '{';
        }
    }
    return n_values <= SL_API_MAX_VALUES && n_containers <= SL_API_MAX_CONTAINERS;
}

sl_status sl_api_parse(sl_api_kind kind, const char *body, size_t n_bytes, sl_api_request *request, sl_api_error *error)
{
    *request = (sl_api_request){.kind = kind, .n = 1, .sampling = sl_sample_params_default()};
    request->sampling.temperature = 1;
    request->max_tokens = kind == SL_API_CHAT ? UINT32_MAX : kind == SL_API_COMPLETION ? 16 : 0;
    json_error_t why;
    if (!is_small(body, n_bytes))
        return sl_api_fail(error, SL_ERR_LIMIT, 400, NULL, "the body has more than %d values, or %d objects and arrays",
                           SL_API_MAX_VALUES, SL_API_MAX_CONTAINERS);
    request->root = json_loadb(body, n_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!request->root)
        return sl_api_fail(error, SL_ERR_FORMAT, 400, NULL, "the body is not JSON that can be read: line %d: %.200s",
                           why.line, why.text);
    if (!json_is_object(request->root))
        return sl_api_fail(error, SL_ERR_FORMAT, 400, NULL, "the body must be a JSON object");
    const char *name;
    json_t *value;
    json_object_foreach(request->root, name, value)
    {
        SL_TRY(read_member(name, value, request, error));
    }
    return check_together(request, error);
}

void sl_api_request_drop_body(sl_api_request *request)
{
    json_decref(request->root);
    request->root = NULL;
    request->messages = request->prompt = request->bad_texts = NULL;
}

void sl_api_request_drop_input(sl_api_request *request)
{
    sl_api_request_drop_body(request);
    for (size_t i = 0; request->prompts && i < request->n_prompts; i++)
        sl_tokens_free(&request->prompts[i]);
    for (size_t i = 0; request->echoes && i < request->n_prompts; i++)
        free((char *)(uintptr_t)request->echoes[i].bytes);
    for (size_t i = 0; i < request->n_bad_words; i++)
        sl_tokens_free(&request->bad_words[i]);
    free(request->prompts);
    free(request->echoes);
    free(request->bad_words);
    free(request->bad_lists);
    free(request->stop_strings);
    request->prompts = NULL;
    request->echoes = NULL;
    request->bad_words = NULL;
    request->bad_lists = NULL;
    request->stop_strings = NULL;
    request->sampling.bad_words = NULL;
    request->sampling.n_bad_words = 0;
    request->n_prompts = request->n_stop_strings = request->n_bad_words = 0;
}

void sl_api_request_free(sl_api_request *request)
{
    sl_api_request_drop_input(request);
    free(request->bias);
    sl_tokens_free(&request->stop_tokens);
    sl_tokens_free(&request->allowed_tokens);
    *request = (sl_api_request){0};
}
