/* Traces from JSONL files. */
#include "tune/trace.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME_BYTES = 64, MAX_GROUPS = 1 << 20 };

static const double max_arrival_ms = 1e9; /* eleven days */
static const double least_target_ms = 1e-3, least_weight = 1e-6, most_weight = 1e6;

/* What reading needs besides the trace. The tables map names to json integers. */
typedef struct reader {
    sl_trace *trace;
    size_t capacity, line;
    json_t *tenants, *groups, *conversations;
    sl_err *err;
} reader;

#define FAIL_FIELD(r, field, ...)                                                                                      \
    do {                                                                                                               \
        char text_[160];                                                                                               \
        snprintf(text_, sizeof text_, __VA_ARGS__);                                                                    \
        SL_FAIL((r)->err, SL_ERR_FORMAT, "line %zu: \"%s\" %s", (r)->line, field, text_);                              \
    } while (0)

static sl_status fail_memory(reader *r)
{
    SL_FAIL(r->err, SL_ERR_NOMEM, "no memory for a trace of %zu requests", r->trace->n_requests + 1);
}

/* A whole number in [low, high]; absent leaves *out alone. */
static sl_status read_integer(reader *r, const json_t *object, const char *field, int64_t low, int64_t high,
                              int64_t *out)
{
    const json_t *value = json_object_get(object, field);
    if (!value)
        return SL_OK;
    if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high)
        FAIL_FIELD(r, field, "must be a whole number from %lld to %lld", (long long)low, (long long)high);
    *out = json_integer_value(value);
    return SL_OK;
}

/* Number of a name in a table, which grows by unknown names; absent leaves *out alone. */
static sl_status read_name(reader *r, const json_t *object, const char *field, json_t *table, size_t most,
                           uint32_t *out, bool *is_new)
{
    const json_t *value = json_object_get(object, field);
    *is_new = false;
    if (!value)
        return SL_OK;
    size_t n = json_is_string(value) ? json_string_length(value) : 0;
    if (n < 1 || n > MAX_NAME_BYTES)
        FAIL_FIELD(r, field, "must be a name of 1 to %d bytes", MAX_NAME_BYTES);
    const json_t *known = json_object_get(table, json_string_value(value));
    if (known) {
        *out = (uint32_t)json_integer_value(known);
        return SL_OK;
    }
    if (json_object_size(table) >= most)
        FAIL_FIELD(r, field, "is the %zuth different name: that is more than can be told apart", most + 1);
    *out = (uint32_t)json_object_size(table);
    *is_new = true;
    if (json_object_set_new(table, json_string_value(value), json_integer(*out)) != 0)
        return fail_memory(r);
    return SL_OK;
}

static sl_status read_ids(reader *r, const json_t *list, sl_trace_request *request)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n < 1 || n > SL_TRACE_MAX_TOKENS)
        FAIL_FIELD(r, "prompt", "must be a list of 1 to %d token ids", SL_TRACE_MAX_TOKENS);
    uint32_t *ids = sl_arena_array(&r->trace->arena, n, sizeof *ids);
    if (!ids)
        return fail_memory(r);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > UINT32_MAX)
            FAIL_FIELD(r, "prompt", "has no token id at place %zu", i);
        ids[i] = (uint32_t)json_integer_value(id);
    }
    request->prompt = ids;
    request->n_prompt = (uint32_t)n;
    return SL_OK;
}

static sl_status read_prompt(reader *r, const json_t *object, sl_trace_request *request)
{
    const json_t *ids = json_object_get(object, "prompt");
    int64_t n_prompt = 0, n_prefix = 0;
    if ((ids != NULL) == (json_object_get(object, "prompt_tokens") != NULL))
        SL_FAIL(r->err, SL_ERR_FORMAT, "line %zu: one of \"prompt\" and \"prompt_tokens\" must be there", r->line);
    SL_TRY(read_integer(r, object, "prompt_tokens", 1, SL_TRACE_MAX_TOKENS, &n_prompt));
    request->n_prompt = (uint32_t)n_prompt;
    if (ids)
        SL_TRY(read_ids(r, ids, request));
    bool is_new, group = json_object_get(object, "prefix_group"), prefix = json_object_get(object, "prefix_tokens");
    SL_TRY(read_name(r, object, "prefix_group", r->groups, MAX_GROUPS, &request->prefix_group, &is_new));
    if (!group && !prefix)
        return SL_OK;
    if (!group || ids)
        FAIL_FIELD(r, group ? "prefix_group" : "prefix_tokens", "goes with \"prompt_tokens\" and \"%s\" only",
                   group ? "prefix_tokens" : "prefix_group");
    request->prefix_group++; /* 0 is none */
    if (!prefix)
        FAIL_FIELD(r, "prefix_group", "needs \"prefix_tokens\"");
    SL_TRY(read_integer(r, object, "prefix_tokens", 1, request->n_prompt, &n_prefix));
    request->n_prefix = (uint32_t)n_prefix;
    return SL_OK;
}

/* Puts the request behind the turns that its conversation has had. */
static sl_status read_conversation(reader *r, const json_t *object, sl_trace_request *request)
{
    uint32_t number = 0;
    bool is_new;
    size_t index = r->trace->n_requests;
    const json_t *name = json_object_get(object, "conversation");
    SL_TRY(read_name(r, object, "conversation", r->conversations, SL_TRACE_MAX_REQUESTS, &number, &is_new));
    if (!name)
        return SL_OK;
    if (!is_new) { /* the table holds the index of the last turn */
        const sl_trace_request *before = &r->trace->requests[number];
        if (request->prefix_group > 0)
            FAIL_FIELD(r, "prefix_group", "belongs to a conversation's first turn only");
        if ((uint64_t)before->n_prompt + before->n_output + request->n_prompt > SL_TRACE_MAX_TOKENS)
            FAIL_FIELD(r, "conversation", "grows beyond %d tokens", SL_TRACE_MAX_TOKENS);
        request->follows = number + 1;
        request->n_prompt += before->n_prompt + before->n_output;
        if (!request->prompt) {
            request->prefix_group = before->prefix_group;
            request->n_prefix = before->n_prefix;
        }
    }
    if (json_object_set_new(r->conversations, json_string_value(name), json_integer((json_int_t)index)) != 0)
        return fail_memory(r);
    return SL_OK;
}

static sl_status read_tenant(reader *r, const json_t *object, sl_trace_request *request)
{
    bool is_new;
    sl_trace *trace = r->trace;
    SL_TRY(read_name(r, object, "tenant", r->tenants, SL_TRACE_MAX_NAMES, &request->tenant, &is_new));
    if (json_object_get(object, "tenant") == NULL) { /* those without a name are a tenant of their own */
        const json_t *known = json_object_get(r->tenants, "");
        is_new = known == NULL;
        request->tenant = known ? (uint32_t)json_integer_value(known) : (uint32_t)json_object_size(r->tenants);
        if (is_new && json_object_set_new(r->tenants, "", json_integer(request->tenant)) != 0)
            return fail_memory(r);
    }
    if (!is_new)
        return SL_OK;
    const char *name = json_string_value(json_object_get(object, "tenant"));
    char *copy = sl_arena_strndup(&trace->arena, name ? name : "", name ? strlen(name) : 0);
    if (!copy)
        return fail_memory(r);
    trace->tenants[trace->n_tenants++] = copy;
    return SL_OK;
}

static sl_status check_fields(reader *r, json_t *object)
{
    static const char *const fields[] = {"arrival_ms",    "prompt_tokens", "prompt",        "output_tokens",
                                         "tenant",        "tenant_weight", "priority",      "ttft_target_ms",
                                         "itl_target_ms", "prefix_group",  "prefix_tokens", "conversation"};
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        SL_FAIL(r->err, SL_ERR_FORMAT, "line %zu: a request is a JSON object", r->line);
    json_object_foreach(object, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < SL_COUNTOF(fields); i++)
            known |= strcmp(key, fields[i]) == 0;
        if (!known)
            SL_FAIL(r->err, SL_ERR_FORMAT, "line %zu: unknown field \"%.40s\"", r->line, key);
    }
    return SL_OK;
}

/* A number in [low, high]; absent leaves *out alone. */
static sl_status read_real(reader *r, const json_t *object, const char *field, double low, double high, double *out)
{
    const json_t *value = json_object_get(object, field);
    if (!value)
        return SL_OK;
    double x = json_number_value(value);
    if (!json_is_number(value) || !(x >= low && x <= high))
        FAIL_FIELD(r, field, "must be a number from %g to %g", low, high);
    *out = x;
    return SL_OK;
}

/* Times, and the tenant's weight. */
static sl_status read_reals(reader *r, const json_t *object, sl_trace_request *request)
{
    double arrival_ms = 0, ttft_ms = 0, itl_ms = 0;
    SL_TRY(read_real(r, object, "arrival_ms", 0, max_arrival_ms, &arrival_ms));
    SL_TRY(read_real(r, object, "ttft_target_ms", least_target_ms, max_arrival_ms, &ttft_ms));
    SL_TRY(read_real(r, object, "itl_target_ms", least_target_ms, max_arrival_ms, &itl_ms));
    SL_TRY(read_real(r, object, "tenant_weight", least_weight, most_weight, &request->tenant_weight));
    request->arrival_us = (int64_t)(arrival_ms * 1000 + 0.5);
    request->ttft_target_us = (int64_t)(ttft_ms * 1000 + 0.5);
    request->itl_target_us = (int64_t)(itl_ms * 1000 + 0.5);
    return SL_OK;
}

static sl_status read_request(reader *r, json_t *object)
{
    sl_trace *trace = r->trace;
    int64_t n_output = 0, priority = 0;
    sl_trace_request request = {0};
    SL_TRY(check_fields(r, object));
    if (json_object_get(object, "output_tokens") == NULL)
        SL_FAIL(r->err, SL_ERR_FORMAT, "line %zu: \"output_tokens\" is missing", r->line);
    SL_TRY(read_integer(r, object, "output_tokens", 1, SL_TRACE_MAX_TOKENS, &n_output));
    SL_TRY(read_integer(r, object, "priority", INT32_MIN, INT32_MAX, &priority));
    SL_TRY(read_reals(r, object, &request));
    SL_TRY(read_prompt(r, object, &request));
    request.n_output = (uint32_t)n_output;
    request.priority = (int32_t)priority;
    if (trace->n_requests == SL_TRACE_MAX_REQUESTS)
        SL_FAIL(r->err, SL_ERR_LIMIT, "line %zu: a trace has at most %d requests", r->line, SL_TRACE_MAX_REQUESTS);
    SL_TRY(read_conversation(r, object, &request));
    if ((uint64_t)request.n_prompt + request.n_output > SL_TRACE_MAX_TOKENS)
        FAIL_FIELD(r, "output_tokens", "makes more than %d tokens with the prompt", SL_TRACE_MAX_TOKENS);
    SL_TRY(read_tenant(r, object, &request));
    trace->requests[trace->n_requests++] = request;
    return SL_OK;
}

/* Room for one more request; the array is moved into the arena at the end. */
static sl_status grow(reader *r)
{
    if (r->trace->n_requests < r->capacity)
        return SL_OK;
    size_t capacity = r->capacity ? 2 * r->capacity : 256;
    sl_trace_request *grown = realloc(r->trace->requests, capacity * sizeof *grown);
    if (!grown)
        return fail_memory(r);
    r->trace->requests = grown;
    r->capacity = capacity;
    return SL_OK;
}

static sl_status read_line(reader *r, const char *bytes, size_t n_bytes)
{
    json_error_t error;
    if (n_bytes > SL_TRACE_MAX_LINE_BYTES)
        SL_FAIL(r->err, SL_ERR_LIMIT, "line %zu is longer than %d MiB", r->line, SL_TRACE_MAX_LINE_BYTES >> 20);
    json_t *object = json_loadb(bytes, n_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!object)
        SL_FAIL(r->err, SL_ERR_FORMAT, "line %zu: no JSON: %.120s at byte %d", r->line, error.text, error.position);
    sl_status status = grow(r);
    if (status == SL_OK)
        status = read_request(r, object);
    json_decref(object);
    return status;
}

static sl_status read_lines(reader *r, const char *bytes, size_t n_bytes)
{
    for (size_t at = 0; at < n_bytes;) {
        const char *end = memchr(bytes + at, '\n', n_bytes - at);
        size_t n = end ? (size_t)(end - bytes) - at : n_bytes - at;
        r->line++;
        size_t blank = 0;
        while (blank < n && strchr(" \t\r", bytes[at + blank]) && bytes[at + blank])
            blank++;
        if (blank < n)
            SL_TRY(read_line(r, bytes + at, n));
        at += n + 1;
    }
    if (r->trace->n_requests == 0)
        SL_FAIL(r->err, SL_ERR_FORMAT, "the trace has no requests");
    return SL_OK;
}

/* ---- order: by arrival, a conversation's turns behind its first ---- */

typedef struct place {
    int64_t arrival_us; /* of the conversation's first turn */
    uint32_t root, index;
} place;

static int compare_places(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->arrival_us != y->arrival_us)
        return x->arrival_us < y->arrival_us ? -1 : 1;
    if (x->root != y->root)
        return x->root < y->root ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Copies the requests in order into the arena and frees the array that reading grew. */
static sl_status put_in_order(reader *r)
{
    sl_trace *trace = r->trace;
    size_t n = trace->n_requests;
    sl_trace_request *read = trace->requests, *sorted = sl_arena_array(&trace->arena, n, sizeof *sorted);
    place *places = calloc(n, sizeof *places);
    uint32_t *now_at = calloc(n, sizeof *now_at);
    bool good = sorted && places && now_at;
    for (size_t i = 0; i < n && good; i++) {
        uint32_t follows = read[i].follows;
        places[i] = (place){read[i].arrival_us, (uint32_t)i, (uint32_t)i};
        if (follows) {
            places[i].arrival_us = places[follows - 1].arrival_us;
            places[i].root = places[follows - 1].root;
        }
    }
    if (good)
        qsort(places, n, sizeof *places, compare_places);
    for (size_t i = 0; i < n && good; i++) {
        sorted[i] = read[places[i].index];
        now_at[places[i].index] = (uint32_t)i;
        if (sorted[i].follows)
            sorted[i].follows = now_at[sorted[i].follows - 1] + 1;
    }
    free(now_at);
    free(places);
    free(read);
    trace->requests = sorted;
    return good ? SL_OK : fail_memory(r);
}

sl_status sl_trace_read(const char *bytes, size_t n_bytes, const char *name, uint64_t seed, sl_trace **out, sl_err *err)
{
    *out = NULL;
    sl_trace *trace = calloc(1, sizeof *trace);
    if (!trace)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a trace");
    sl_arena_init(&trace->arena, 0);
    trace->seed = seed;
    snprintf(trace->name, sizeof trace->name, "%s", name);
    trace->tenants = sl_arena_array(&trace->arena, SL_TRACE_MAX_NAMES + 1, sizeof *trace->tenants);
    reader r = {
        .trace = trace, .err = err, .tenants = json_object(), .groups = json_object(), .conversations = json_object()};
    sl_status status = trace->tenants && r.tenants && r.groups && r.conversations ? SL_OK : fail_memory(&r);
    if (status == SL_OK)
        status = read_lines(&r, bytes, n_bytes);
    if (status == SL_OK) {
        status = put_in_order(&r);
    } else {
        free(trace->requests);
        trace->requests = NULL;
    }
    json_decref(r.tenants);
    json_decref(r.groups);
    json_decref(r.conversations);
    if (status != SL_OK) {
        sl_trace_close(trace);
        return status;
    }
    *out = trace;
    return SL_OK;
}
