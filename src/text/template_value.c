/* Values of templates: making, showing and comparing them. */
#include "text/template_value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/utf8.h"

#define MAX_RUN_BYTES ((size_t)512 << 20)
#define MAX_DEPTH     1000

sl_status sl_trun_charge(sl_trun *run, uint64_t n)
{
    if (n > (uint64_t)run->fuel)
        SL_TFAIL(run, SL_ERR_LIMIT, "the template takes too many steps");
    run->fuel -= (int64_t)n;
    return SL_OK;
}

sl_status sl_trun_enter(sl_trun *run)
{
    if (++run->depth > MAX_DEPTH)
        SL_TFAIL(run, SL_ERR_LIMIT, "the template goes too deep");
    return SL_OK;
}

/* Steps and room for n_bytes of memory, or the reason why not. */
static sl_status charge_memory(sl_trun *run, uint64_t count, uint64_t elem_bytes)
{
    uint64_t n_bytes;
    if (!sl_mul_u64(count, elem_bytes, &n_bytes) ||
        n_bytes > MAX_RUN_BYTES - SL_MIN(run->arena.used_bytes, MAX_RUN_BYTES))
        SL_TFAIL(run, SL_ERR_LIMIT, "the template takes too much memory");
    return sl_trun_charge(run, 1 + n_bytes / 256);
}

void *sl_trun_alloc(sl_trun *run, size_t count, size_t elem_bytes)
{
    run->failure = charge_memory(run, count, elem_bytes);
    if (run->failure != SL_OK)
        return NULL;
    void *memory = sl_arena_alloc(&run->arena, SL_MAX(count * elem_bytes, (size_t)1));
    if (!memory)
        run->failure = sl_err_set(run->err, SL_ERR_NOMEM, "template: out of memory");
    return memory;
}

sl_status sl_tvalue_string(sl_trun *run, const char *bytes, size_t n_bytes, bool trusted, sl_tvalue *out)
{
    sl_tstring *string;
    SL_TALLOC(run, string, 1);
    *string = (sl_tstring){.bytes = bytes, .n_bytes = n_bytes, .trusted = trusted};
    *out = (sl_tvalue){.kind = SL_TV_STRING, .string = string};
    return SL_OK;
}

sl_status sl_tvalue_slice(sl_trun *run, const sl_tstring *string, size_t begin, size_t end, sl_tvalue *out)
{
    sl_tstring *slice;
    SL_TALLOC(run, slice, 1);
    *slice = *string;
    slice->bytes += begin;
    slice->trust = string->trust ? string->trust + begin : NULL;
    slice->n_bytes = end - begin;
    *out = (sl_tvalue){.kind = SL_TV_STRING, .string = slice};
    return SL_OK;
}

sl_status sl_tvalue_list(sl_trun *run, sl_tkind kind, size_t n, sl_tvalue *out)
{
    sl_tlist *list;
    SL_TALLOC(run, list, 1);
    SL_TALLOC(run, list->items, n);
    list->capacity = n;
    *out = (sl_tvalue){.kind = kind, .list = list};
    return SL_OK;
}

sl_status sl_tlist_push(sl_trun *run, sl_tlist *list, sl_tvalue value)
{
    if (list->n == list->capacity) {
        sl_tvalue *items;
        size_t capacity = list->capacity * 2 + 4;
        SL_TALLOC(run, items, capacity);
        if (list->n)
            memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = value;
    return SL_OK;
}

sl_status sl_tvalue_dict(sl_trun *run, sl_tkind kind, sl_tvalue *out)
{
    *out = (sl_tvalue){.kind = kind};
    SL_TALLOC(run, out->dict, 1);
    return SL_OK;
}

sl_status sl_tdict_get(sl_trun *run, const sl_tdict *dict, sl_tvalue key, const sl_tvalue **out)
{
    *out = NULL;
    for (size_t i = 0; i < dict->n && !*out; i++) {
        bool equal;
        SL_TRY(sl_tvalue_equal(run, dict->keys[i], key, &equal));
        *out = equal ? &dict->values[i] : NULL;
    }
    return SL_OK;
}

sl_status sl_tdict_set(sl_trun *run, sl_tdict *dict, sl_tvalue key, sl_tvalue value)
{
    const sl_tvalue *found;
    if (sl_tvalue_is_list(key) ? key.kind == SL_TV_LIST : key.kind == SL_TV_DICT)
        SL_TFAIL(run, SL_ERR_FORMAT, "unhashable type: '%s'", sl_tvalue_type_name(key));
    SL_TRY(sl_tdict_get(run, dict, key, &found));
    if (found) {
        dict->values[found - dict->values] = value;
        return SL_OK;
    }
    if (dict->n == dict->capacity) {
        sl_tvalue *entries;
        size_t capacity = dict->capacity * 2 + 4;
        SL_TALLOC(run, entries, 2 * capacity);
        if (dict->n) {
            memcpy(entries, dict->keys, dict->n * sizeof *entries);
            memcpy(entries + capacity, dict->values, dict->n * sizeof *entries);
        }
        dict->keys = entries;
        dict->values = entries + capacity;
        dict->capacity = capacity;
    }
    dict->keys[dict->n] = key;
    dict->values[dict->n++] = value;
    return SL_OK;
}

const sl_tvalue *sl_tdict_find(const sl_tdict *dict, sl_bytes name)
{
    for (size_t i = 0; i < dict->n; i++) {
        const sl_tvalue *key = &dict->keys[i];
        if (key->kind == SL_TV_STRING && key->string->n_bytes == name.n_bytes &&
            memcmp(key->string->bytes, name.bytes, name.n_bytes) == 0)
            return &dict->values[i];
    }
    return NULL;
}

static sl_status buffer_reserve(sl_trun *run, sl_tbuffer *buffer, size_t n_more)
{
    char *bytes;
    size_t need = buffer->n + n_more; /* both below MAX_RUN_BYTES */
    SL_TRY(sl_trun_charge(run, 1 + n_more / 64));
    if (need <= buffer->capacity)
        return SL_OK;
    size_t capacity = SL_MAX(need, 2 * buffer->capacity + 64);
    bytes = sl_trun_alloc(run, 2, capacity);
    if (!bytes)
        return run->failure;
    if (buffer->n) {
        memcpy(bytes, buffer->bytes, buffer->n);
        memcpy(bytes + capacity, buffer->trust, buffer->n);
    }
    buffer->bytes = bytes;
    buffer->trust = (uint8_t *)bytes + capacity;
    buffer->capacity = capacity;
    return SL_OK;
}

sl_status sl_tbuffer_add(sl_trun *run, sl_tbuffer *buffer, const char *bytes, size_t n_bytes, bool trusted)
{
    SL_TRY(buffer_reserve(run, buffer, n_bytes));
    if (n_bytes) {
        memcpy(buffer->bytes + buffer->n, bytes, n_bytes);
        memset(buffer->trust + buffer->n, trusted, n_bytes);
    }
    buffer->n += n_bytes;
    return SL_OK;
}

sl_status sl_tbuffer_add_string(sl_trun *run, sl_tbuffer *buffer, const sl_tstring *string, size_t begin, size_t end)
{
    size_t at = buffer->n;
    SL_TRY(sl_tbuffer_add(run, buffer, string->bytes + begin, end - begin, string->trusted));
    if (string->trust && end > begin)
        memcpy(buffer->trust + at, string->trust + begin, end - begin);
    return SL_OK;
}

sl_status sl_tbuffer_value(sl_trun *run, sl_tbuffer *buffer, sl_tvalue *out)
{
    sl_tstring *string;
    SL_TALLOC(run, string, 1);
    *string = (sl_tstring){.bytes = buffer->n ? buffer->bytes : "", .trust = buffer->trust, .n_bytes = buffer->n};
    *out = (sl_tvalue){.kind = SL_TV_STRING, .string = string};
    *buffer = (sl_tbuffer){0};
    return SL_OK;
}

size_t sl_tfloat_text(double f, char out[32])
{
    if (isnan(f) || isinf(f))
        return (size_t)snprintf(out, 32, "%s", isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
    int digits = 1;
    do /* the fewest digits that read back as the same number */
        snprintf(out, 32, "%.*e", digits - 1, f);
    while (strtod(out, NULL) != f && ++digits <= 17);
    int exponent = atoi(strchr(out, 'e') + 1);
    if (exponent >= -4 && exponent < 16)
        return (size_t)snprintf(out, 32, "%.*f", SL_MAX(digits - 1 - exponent, 1), f);
    return strlen(out);
}

static sl_status add_repr(sl_trun *run, sl_tbuffer *buffer, sl_tvalue value);

/* A string as Python's repr() shows it, without its rules for unprintable characters above ASCII. */
static sl_status add_quoted(sl_trun *run, sl_tbuffer *buffer, const sl_tstring *s)
{
    bool single = memchr(s->bytes, '\'', s->n_bytes) != NULL, dbl = memchr(s->bytes, '"', s->n_bytes) != NULL;
    const char *quote = single && !dbl ? "\"" : "'";
    SL_TRY(sl_tbuffer_add(run, buffer, quote, 1, false));
    for (size_t i = 0; i < s->n_bytes; i++) {
        unsigned char c = (unsigned char)s->bytes[i];
        char escape[8] = {'\\', (char)c, 0};
        if (c == '\n' || c == '\r' || c == '\t')
            escape[1] = c == '\n' ? 'n' : c == '\r' ? 'r' : 't';
        else if (c < 0x20 || c == 0x7f)
            snprintf(escape, sizeof escape, "\\x%02x", c);
        else if (c != '\\' && c != *quote) {
            SL_TRY(sl_tbuffer_add_string(run, buffer, s, i, i + 1));
            continue;
        }
        SL_TRY(sl_tbuffer_add(run, buffer, escape, strlen(escape), false));
    }
    return sl_tbuffer_add(run, buffer, quote, 1, false);
}

static sl_status add_list(sl_trun *run, sl_tbuffer *buffer, sl_tvalue value)
{
    bool is_list = value.kind == SL_TV_LIST;
    SL_TRY(sl_tbuffer_add(run, buffer, is_list ? "[" : "(", 1, false));
    for (size_t i = 0; i < value.list->n; i++) {
        SL_TRY(sl_tbuffer_add(run, buffer, ", ", i ? 2 : 0, false));
        SL_TRY(add_repr(run, buffer, value.list->items[i]));
    }
    if (!is_list && value.list->n == 1)
        SL_TRY(sl_tbuffer_add(run, buffer, ",", 1, false));
    return sl_tbuffer_add(run, buffer, is_list ? "]" : ")", 1, false);
}

static sl_status add_dict(sl_trun *run, sl_tbuffer *buffer, const sl_tdict *dict)
{
    SL_TRY(sl_tbuffer_add(run, buffer, "{", 1, false));
    for (size_t i = 0; i < dict->n; i++) {
        SL_TRY(sl_tbuffer_add(run, buffer, ", ", i ? 2 : 0, false));
        SL_TRY(add_repr(run, buffer, dict->keys[i]));
        SL_TRY(sl_tbuffer_add(run, buffer, ": ", 2, false));
        SL_TRY(add_repr(run, buffer, dict->values[i]));
    }
    return sl_tbuffer_add(run, buffer, "}", 1, false);
}

static sl_status add_repr(sl_trun *run, sl_tbuffer *buffer, sl_tvalue value)
{
    SL_TRY(sl_trun_enter(run));
    if (value.kind == SL_TV_STRING)
        SL_TRY(add_quoted(run, buffer, value.string));
    else if (value.kind == SL_TV_UNDEFINED)
        SL_TRY(sl_tbuffer_add(run, buffer, "Undefined", 9, true));
    else
        SL_TRY(sl_tbuffer_add_value(run, buffer, value));
    run->depth--;
    return SL_OK;
}

sl_status sl_tbuffer_add_value(sl_trun *run, sl_tbuffer *buffer, sl_tvalue value)
{
    char text[32];
    switch (value.kind) {
    case SL_TV_UNDEFINED:
        return SL_OK;
    case SL_TV_NONE:
        return sl_tbuffer_add(run, buffer, "None", 4, true);
    case SL_TV_BOOL:
        return sl_tbuffer_add(run, buffer, value.b ? "True" : "False", value.b ? 4 : 5, true);
    case SL_TV_INT:
        return sl_tbuffer_add(run, buffer, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)value.i), true);
    case SL_TV_FLOAT:
        return sl_tbuffer_add(run, buffer, text, sl_tfloat_text(value.f, text), true);
    case SL_TV_STRING:
        return sl_tbuffer_add_string(run, buffer, value.string, 0, value.string->n_bytes);
    case SL_TV_LIST:
    case SL_TV_TUPLE:
        return add_list(run, buffer, value);
    case SL_TV_DICT:
        return add_dict(run, buffer, value.dict);
    default:
        SL_TFAIL(run, SL_ERR_UNSUPPORTED, "a %s has no text", sl_tvalue_type_name(value));
    }
}

sl_status sl_tvalue_to_string(sl_trun *run, sl_tvalue value, const sl_tstring **out)
{
    sl_tbuffer buffer = {0};
    if (value.kind != SL_TV_STRING) {
        SL_TRY(sl_tbuffer_add_value(run, &buffer, value));
        SL_TRY(sl_tbuffer_value(run, &buffer, &value));
    }
    *out = value.string;
    return SL_OK;
}

bool sl_tvalue_truthy(sl_tvalue value)
{
    switch (value.kind) {
    case SL_TV_UNDEFINED:
    case SL_TV_NONE:
        return false;
    case SL_TV_BOOL:
        return value.b;
    case SL_TV_INT:
        return value.i != 0;
    case SL_TV_FLOAT:
        return value.f != 0;
    case SL_TV_STRING:
        return value.string->n_bytes != 0;
    case SL_TV_LIST:
    case SL_TV_TUPLE:
        return value.list->n != 0;
    case SL_TV_DICT:
        return value.dict->n != 0;
    default:
        return true;
    }
}

static bool is_number(sl_tvalue v)
{
    return v.kind == SL_TV_BOOL || v.kind == SL_TV_INT || v.kind == SL_TV_FLOAT;
}

static double as_double(sl_tvalue v)
{
    return v.kind == SL_TV_FLOAT ? v.f : v.kind == SL_TV_INT ? (double)v.i : v.b;
}

static int order_numbers(sl_tvalue a, sl_tvalue b)
{
    if (a.kind == SL_TV_INT && b.kind == SL_TV_INT)
        return a.i < b.i ? -1 : a.i > b.i;
    double x = as_double(a), y = as_double(b);
    return x < y ? -1 : x > y;
}

static int order_strings(const sl_tstring *a, const sl_tstring *b)
{
    size_t n = SL_MIN(a->n_bytes, b->n_bytes);
    int order = n ? memcmp(a->bytes, b->bytes, n) : 0; /* byte order is code point order in UTF-8 */
    return order ? order : a->n_bytes < b->n_bytes ? -1 : a->n_bytes > b->n_bytes;
}

static sl_status equal_parts(sl_trun *run, sl_tvalue a, sl_tvalue b, bool *out)
{
    if (a.kind == SL_TV_DICT) {
        *out = a.dict->n == b.dict->n;
        for (size_t i = 0; *out && i < a.dict->n; i++) {
            const sl_tvalue *other;
            SL_TRY(sl_tdict_get(run, b.dict, a.dict->keys[i], &other));
            *out = other != NULL;
            if (other)
                SL_TRY(sl_tvalue_equal(run, a.dict->values[i], *other, out));
        }
        return SL_OK;
    }
    *out = a.list->n == b.list->n;
    for (size_t i = 0; *out && i < a.list->n; i++)
        SL_TRY(sl_tvalue_equal(run, a.list->items[i], b.list->items[i], out));
    return SL_OK;
}

sl_status sl_tvalue_equal(sl_trun *run, sl_tvalue a, sl_tvalue b, bool *out)
{
    SL_TRY(sl_trun_charge(run, 1));
    if (is_number(a) && is_number(b)) {
        *out = a.kind == SL_TV_INT && b.kind == SL_TV_INT ? a.i == b.i : as_double(a) == as_double(b);
    } else if (a.kind != b.kind) {
        *out = false;
    } else if (a.kind == SL_TV_STRING) {
        SL_TRY(sl_trun_charge(run, a.string->n_bytes / 64));
        *out = a.string->n_bytes == b.string->n_bytes && order_strings(a.string, b.string) == 0;
    } else if (sl_tvalue_is_list(a) || a.kind == SL_TV_DICT) {
        SL_TRY(sl_trun_enter(run));
        SL_TRY(equal_parts(run, a, b, out));
        run->depth--;
    } else {
        *out = a.kind == SL_TV_UNDEFINED || a.kind == SL_TV_NONE || (const void *)a.dict == (const void *)b.dict;
    }
    return SL_OK;
}

sl_status sl_tvalue_order(sl_trun *run, sl_tvalue a, sl_tvalue b, int *out)
{
    SL_TRY(sl_trun_charge(run, 1));
    *out = 0;
    if (is_number(a) && is_number(b)) {
        *out = order_numbers(a, b);
        return SL_OK;
    }
    if (a.kind == SL_TV_STRING && b.kind == SL_TV_STRING) {
        SL_TRY(sl_trun_charge(run, a.string->n_bytes / 64));
        *out = order_strings(a.string, b.string);
        return SL_OK;
    }
    if (!sl_tvalue_is_list(a) || a.kind != b.kind)
        SL_TFAIL(run, SL_ERR_FORMAT, "'%s' and '%s' cannot be ordered", sl_tvalue_type_name(a), sl_tvalue_type_name(b));
    SL_TRY(sl_trun_enter(run));
    bool equal = true;
    for (size_t i = 0; equal && i < a.list->n && i < b.list->n; i++) {
        SL_TRY(sl_tvalue_equal(run, a.list->items[i], b.list->items[i], &equal));
        if (!equal)
            SL_TRY(sl_tvalue_order(run, a.list->items[i], b.list->items[i], out));
    }
    run->depth--;
    if (equal)
        *out = a.list->n < b.list->n ? -1 : a.list->n > b.list->n;
    return SL_OK;
}

sl_status sl_tvalue_need_defined(sl_trun *run, sl_tvalue value)
{
    if (value.kind != SL_TV_UNDEFINED)
        return SL_OK;
    SL_TFAIL(run, SL_ERR_FORMAT, "'%.*s' is undefined", value.name ? (int)SL_MIN(value.name->n_bytes, 64) : 0,
             value.name ? value.name->bytes : "");
}

const char *sl_tvalue_type_name(sl_tvalue value)
{
    static const char *const names[] = {"Undefined", "NoneType", "bool", "int",       "float",       "str",
                                        "list",      "tuple",    "dict", "Namespace", "LoopContext", "Macro"};
    return names[value.kind];
}
