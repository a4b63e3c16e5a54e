/* Values of templates: elements, attributes, slices. */
#define _GNU_SOURCE
#include <string.h>

#include "base/utf8.h"
#include "text/template_value.h"

size_t sl_tchar_bytes(const char *bytes, size_t n_bytes)
{
    int length = sl_utf8_decode(bytes, n_bytes, NULL);
    return length > 0 ? (size_t)length : 1;
}

static size_t count_chars(const sl_tstring *s)
{
    size_t n = 0;
    for (size_t at = 0; at < s->n_bytes; at += sl_tchar_bytes(s->bytes + at, s->n_bytes - at))
        n++;
    return n;
}

sl_status sl_tvalue_length(sl_trun *run, sl_tvalue value, int64_t *out)
{
    switch (value.kind) {
    case SL_TV_UNDEFINED:
        *out = 0;
        return SL_OK;
    case SL_TV_STRING:
        SL_TRY(sl_trun_charge(run, value.string->n_bytes / 64));
        *out = (int64_t)count_chars(value.string);
        return SL_OK;
    case SL_TV_LIST:
    case SL_TV_TUPLE:
        *out = (int64_t)value.list->n;
        return SL_OK;
    case SL_TV_DICT:
        *out = (int64_t)value.dict->n;
        return SL_OK;
    default:
        SL_TFAIL(run, SL_ERR_FORMAT, "object of type '%s' has no length", sl_tvalue_type_name(value));
    }
}

sl_status sl_tvalue_contains(sl_trun *run, sl_tvalue container, sl_tvalue item, bool *out)
{
    *out = false;
    if (container.kind == SL_TV_STRING) {
        if (item.kind != SL_TV_STRING)
            SL_TFAIL(run, SL_ERR_FORMAT, "'in <string>' requires string as left operand, not %s",
                     sl_tvalue_type_name(item));
        const sl_tstring *in = container.string, *what = item.string;
        SL_TRY(sl_trun_charge(run, in->n_bytes / 64));
        *out = memmem(in->bytes, in->n_bytes, what->bytes, what->n_bytes) != NULL;
        return SL_OK;
    }
    const sl_tlist *items;
    SL_TRY(sl_tvalue_iterate(run, container, &items));
    for (size_t i = 0; !*out && i < items->n; i++)
        SL_TRY(sl_tvalue_equal(run, items->items[i], item, out));
    return SL_OK;
}

sl_status sl_tvalue_iterate(sl_trun *run, sl_tvalue value, const sl_tlist **out)
{
    sl_tvalue list;
    if (sl_tvalue_is_list(value)) {
        *out = value.list;
        return SL_OK;
    }
    if (value.kind != SL_TV_UNDEFINED && value.kind != SL_TV_DICT && value.kind != SL_TV_STRING)
        SL_TFAIL(run, SL_ERR_FORMAT, "'%s' object is not iterable", sl_tvalue_type_name(value));
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, value.kind == SL_TV_DICT ? value.dict->n : 0, &list));
    *out = list.list;
    if (value.kind == SL_TV_DICT) {
        for (size_t i = 0; i < value.dict->n; i++)
            SL_TRY(sl_tlist_push(run, list.list, value.dict->keys[i]));
    } else if (value.kind == SL_TV_STRING) {
        const sl_tstring *s = value.string;
        for (size_t at = 0, n; at < s->n_bytes; at += n) {
            n = sl_tchar_bytes(s->bytes + at, s->n_bytes - at);
            sl_tvalue item;
            SL_TRY(sl_tvalue_slice(run, s, at, at + n, &item));
            SL_TRY(sl_tlist_push(run, list.list, item));
        }
    }
    return SL_OK;
}

static sl_tvalue loop_attr(const sl_tloop *loop, const sl_bytes *name)
{
    int64_t n = (int64_t)loop->items->n, i = (int64_t)loop->index;
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {{"index", i + 1}, {"index0", i}, {"revindex", n - i}, {"revindex0", n - i - 1},
                  {"length", n},    {"depth", 1},  {"depth0", 0} /* loops do not recurse */};
    for (size_t k = 0; k < SL_COUNTOF(counts); k++)
        if (sl_bytes_are(*name, counts[k].name))
            return sl_tvalue_int(counts[k].value);
    if (sl_bytes_are(*name, "first"))
        return sl_tvalue_bool(i == 0);
    if (sl_bytes_are(*name, "last"))
        return sl_tvalue_bool(i == n - 1);
    if (sl_bytes_are(*name, "previtem") && i > 0)
        return loop->items->items[i - 1];
    if (sl_bytes_are(*name, "nextitem") && i + 1 < n)
        return loop->items->items[i + 1];
    return sl_tvalue_undefined(name);
}

sl_status sl_tvalue_attr(sl_trun *run, sl_tvalue value, const sl_bytes *name, sl_tvalue *out)
{
    *out = sl_tvalue_undefined(name);
    SL_TRY(sl_tvalue_need_defined(run, value));
    if (value.kind == SL_TV_DICT || value.kind == SL_TV_NAMESPACE) {
        SL_TRY(sl_trun_charge(run, 1 + value.dict->n / 8));
        const sl_tvalue *found = sl_tdict_find(value.dict, *name);
        if (found)
            *out = *found;
    } else if (value.kind == SL_TV_LOOP) {
        *out = loop_attr(value.loop, name);
    }
    return SL_OK;
}

/* Byte offset of character number index of s, counted from the end where it is negative; false when outside. */
static bool find_char(const sl_tstring *s, int64_t index, size_t *at)
{
    int64_t n = index < 0 ? (int64_t)count_chars(s) : 0;
    if (index < -n)
        return false;
    index += index < 0 ? n : 0;
    for (*at = 0; *at < s->n_bytes && index > 0; index--)
        *at += sl_tchar_bytes(s->bytes + *at, s->n_bytes - *at);
    return *at < s->n_bytes;
}

sl_status sl_tvalue_index(sl_trun *run, sl_tvalue value, sl_tvalue key, sl_tvalue *out)
{
    static const sl_bytes no_element = {"element", 7};
    *out = sl_tvalue_undefined(&no_element);
    if (value.kind == SL_TV_UNDEFINED || (key.kind == SL_TV_STRING && value.kind != SL_TV_DICT)) {
        sl_bytes *name;
        SL_TALLOC(run, name, 1);
        *name = key.kind == SL_TV_STRING ? (sl_bytes){key.string->bytes, key.string->n_bytes} : no_element;
        return sl_tvalue_attr(run, value, name, out);
    }
    if (value.kind == SL_TV_DICT) {
        const sl_tvalue *found;
        SL_TRY(sl_tdict_get(run, value.dict, key, &found));
        if (found)
            *out = *found;
        return SL_OK;
    }
    if (key.kind == SL_TV_BOOL)
        key = sl_tvalue_int(key.b);
    if (key.kind != SL_TV_INT)
        return SL_OK;
    if (value.kind == SL_TV_STRING) {
        size_t at;
        SL_TRY(sl_trun_charge(run, value.string->n_bytes / 64));
        if (find_char(value.string, key.i, &at)) {
            size_t n = sl_tchar_bytes(value.string->bytes + at, value.string->n_bytes - at);
            return sl_tvalue_slice(run, value.string, at, at + n, out);
        }
    } else if (sl_tvalue_is_list(value)) {
        int64_t n = (int64_t)value.list->n, i = key.i < 0 ? key.i + n : key.i;
        if (i >= 0 && i < n)
            *out = value.list->items[i];
    }
    return SL_OK;
}

static sl_status bound_of(sl_trun *run, sl_tvalue bound, int64_t otherwise, int64_t *out)
{
    *out = otherwise;
    if (bound.kind == SL_TV_INT)
        *out = bound.i;
    else if (bound.kind == SL_TV_BOOL)
        *out = bound.b;
    else if (bound.kind != SL_TV_NONE)
        SL_TFAIL(run, SL_ERR_FORMAT, "slice indices must be integers");
    return SL_OK;
}

/* Python's rules for a slice of n elements: first, one past the last in the direction of step. */
static sl_status slice_range(sl_trun *run, const sl_tvalue bounds[3], int64_t n, int64_t *first, int64_t *end,
                             int64_t *step)
{
    SL_TRY(bound_of(run, bounds[2], 1, step));
    if (*step == 0 || *step == INT64_MIN)
        SL_TFAIL(run, SL_ERR_FORMAT, "slice step cannot be zero");
    int64_t low = *step > 0 ? 0 : -1, high = *step > 0 ? n : n - 1;
    SL_TRY(bound_of(run, bounds[0], *step > 0 ? low : high, first));
    SL_TRY(bound_of(run, bounds[1], 0, end));
    if (bounds[0].kind != SL_TV_NONE)
        *first = *first < 0 ? SL_MAX(*first + n, low) : SL_MIN(*first, high);
    if (bounds[1].kind != SL_TV_NONE)
        *end = *end < 0 ? SL_MAX(*end + n, low) : SL_MIN(*end, high);
    else
        *end = *step > 0 ? high : low;
    return SL_OK;
}

sl_status sl_tvalue_subscript(sl_trun *run, sl_tvalue value, const sl_tvalue bounds[3], sl_tvalue *out)
{
    int64_t n, first = 0, end = 0, step = 1;
    SL_TRY(sl_tvalue_need_defined(run, value));
    if (value.kind != SL_TV_STRING && !sl_tvalue_is_list(value))
        SL_TFAIL(run, SL_ERR_FORMAT, "'%s' object cannot be sliced", sl_tvalue_type_name(value));
    SL_TRY(sl_tvalue_length(run, value, &n));
    SL_TRY(slice_range(run, bounds, n, &first, &end, &step));
    if (value.kind == SL_TV_STRING && step == 1) {
        size_t from = value.string->n_bytes, to = from;
        if (first < n)
            find_char(value.string, first, &from);
        if (end < n)
            find_char(value.string, end, &to);
        return sl_tvalue_slice(run, value.string, from, SL_MAX(from, to), out);
    }
    const sl_tlist *items;
    SL_TRY(sl_tvalue_iterate(run, value, &items));
    SL_TRY(sl_tvalue_list(run, value.kind == SL_TV_TUPLE ? SL_TV_TUPLE : SL_TV_LIST, 0, out));
    for (int64_t i = first; step > 0 ? i < end : i > end; i += step) {
        SL_TRY(sl_tlist_push(run, out->list, items->items[i]));
        if (step > 0 ? step > n : step < -n) /* the next one is outside, and the sum might overflow */
            break;
    }
    if (value.kind != SL_TV_STRING)
        return SL_OK;
    sl_tbuffer buffer = {0};
    for (size_t i = 0; i < out->list->n; i++)
        SL_TRY(sl_tbuffer_add_value(run, &buffer, out->list->items[i]));
    return sl_tbuffer_value(run, &buffer, out);
}
