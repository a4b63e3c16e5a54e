/* Filters on lists and dictionaries. */
#include <string.h>

#include "text/template_builtin.h"
#include "text/template_string.h"

static sl_status filter_first(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tlist *items;
    SL_TRY(sl_tvalue_iterate(run, self, &items));
    *out = items->n ? items->items[0] : sl_tvalue_undefined(NULL);
    return SL_OK;
}

static sl_status filter_last(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tlist *items;
    SL_TRY(sl_tvalue_iterate(run, self, &items));
    *out = items->n ? items->items[items->n - 1] : sl_tvalue_undefined(NULL);
    return SL_OK;
}

static sl_status filter_list(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tlist *items;
    SL_TRY(sl_tvalue_iterate(run, self, &items));
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, items->n, out));
    for (size_t i = 0; i < items->n; i++)
        SL_TRY(sl_tlist_push(run, out->list, items->items[i]));
    return SL_OK;
}

static sl_status filter_reverse(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue bounds[3] = {sl_tvalue_none(), sl_tvalue_none(), sl_tvalue_int(-1)};
    if (self.kind != SL_TV_STRING)
        SL_TRY(filter_list(run, self, args, &self));
    return sl_tvalue_subscript(run, self, bounds, out);
}

static sl_status filter_items(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    static const sl_targs no_args = {0};
    if (self.kind == SL_TV_UNDEFINED)
        return sl_tvalue_list(run, SL_TV_LIST, 0, out);
    return sl_tmethod_find((sl_bytes){"items", 5})->fn(run, self, &no_args, out);
}

/* value.a.b for the path "a.b"; parts that are numbers index lists. */
static sl_status get_path(sl_trun *run, sl_tvalue value, sl_tvalue path, sl_tvalue *out)
{
    sl_tvalue parts;
    *out = value;
    if (path.kind == SL_TV_INT)
        return sl_tvalue_index(run, value, path, out);
    if (path.kind != SL_TV_STRING)
        SL_TFAIL(run, SL_ERR_FORMAT, "an attribute must be str, not %s", sl_tvalue_type_name(path));
    SL_TRY(sl_tstring_split(run, path.string, &(const sl_tstring){.bytes = ".", .n_bytes = 1}, -1, &parts));
    for (size_t i = 0; i < parts.list->n; i++) {
        const sl_tstring *part = parts.list->items[i].string;
        int64_t number = 0;
        size_t n_digits = 0;
        while (n_digits < part->n_bytes && n_digits < 18 && part->bytes[n_digits] >= '0' &&
               part->bytes[n_digits] <= '9')
            number = number * 10 + part->bytes[n_digits++] - '0';
        bool is_number = n_digits && n_digits == part->n_bytes;
        SL_TRY(sl_tvalue_index(run, *out, is_number ? sl_tvalue_int(number) : parts.list->items[i], out));
    }
    return SL_OK;
}

static sl_status filter_join(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue *sep = sl_targs_get(args, 0, "d"), *attribute = sl_targs_get(args, 1, "attribute");
    const sl_tlist *items;
    sl_tbuffer buffer = {0};
    SL_TRY(sl_tvalue_iterate(run, self, &items));
    for (size_t i = 0; i < items->n; i++) {
        sl_tvalue item = items->items[i];
        if (attribute)
            SL_TRY(get_path(run, item, *attribute, &item));
        if (i && sep)
            SL_TRY(sl_tbuffer_add_value(run, &buffer, *sep));
        SL_TRY(sl_tbuffer_add_value(run, &buffer, item));
    }
    return sl_tbuffer_value(run, &buffer, out);
}

/* Arguments from number `from` on, and all keywords. */
static sl_targs rest_of(const sl_targs *args, size_t from)
{
    sl_targs rest = *args;
    rest.n = args->n > from ? args->n - from : 0;
    rest.items = rest.n ? args->items + from : NULL;
    return rest;
}

/* map, select and reject take anything that is not true (none, 0) for an empty list, as in Jinja. */
static sl_status iterate_if_true(sl_trun *run, sl_tvalue value, const sl_tlist **out)
{
    static const sl_tlist empty = {0};
    *out = &empty;
    return sl_tvalue_truthy(value) ? sl_tvalue_iterate(run, value, out) : SL_OK;
}

static sl_status filter_map(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue *attribute = args->n ? NULL : sl_targs_get(args, 0, "attribute");
    const sl_tvalue *otherwise = sl_targs_get(args, 1, "default");
    const sl_tbuiltin *filter = NULL;
    const sl_tlist *items;
    if (args->n && args->items[0].kind == SL_TV_STRING)
        filter = sl_tfilter_find((sl_bytes){args->items[0].string->bytes, args->items[0].string->n_bytes});
    if (!filter && !attribute)
        SL_TFAIL(run, SL_ERR_UNSUPPORTED, "map needs the name of a known filter, or attribute=");
    sl_targs rest = rest_of(args, 1);
    SL_TRY(iterate_if_true(run, self, &items));
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, items->n, out));
    for (size_t i = 0; i < items->n; i++) {
        sl_tvalue item;
        if (filter)
            SL_TRY(filter->fn(run, items->items[i], &rest, &item));
        else
            SL_TRY(get_path(run, items->items[i], *attribute, &item));
        if (attribute && otherwise && item.kind == SL_TV_UNDEFINED)
            item = *otherwise;
        SL_TRY(sl_tlist_push(run, out->list, item));
    }
    return SL_OK;
}

/* Elements for which the test (or, without one, the truth) of the element or of its attribute is `wanted`. */
static sl_status select_items(sl_trun *run, sl_tvalue self, const sl_targs *args, bool by_attr, bool wanted,
                              sl_tvalue *out)
{
    const sl_tbuiltin *test = NULL;
    const sl_tlist *items;
    size_t at = by_attr;
    if (by_attr && args->n == 0)
        SL_TFAIL(run, SL_ERR_FORMAT, "selectattr and rejectattr take an attribute");
    if (args->n > at) {
        const sl_tvalue *name = &args->items[at];
        if (name->kind == SL_TV_STRING)
            test = sl_ttest_find((sl_bytes){name->string->bytes, name->string->n_bytes});
        if (!test)
            SL_TFAIL(run, SL_ERR_UNSUPPORTED, "select and reject need the name of a known test");
    }
    sl_targs rest = rest_of(args, at + 1);
    SL_TRY(iterate_if_true(run, self, &items));
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, 0, out));
    for (size_t i = 0; i < items->n; i++) {
        sl_tvalue value = items->items[i], result;
        if (by_attr)
            SL_TRY(get_path(run, value, args->items[0], &value));
        result = value;
        if (test)
            SL_TRY(test->fn(run, value, &rest, &result));
        if (sl_tvalue_truthy(result) == wanted)
            SL_TRY(sl_tlist_push(run, out->list, items->items[i]));
    }
    return SL_OK;
}

static sl_status filter_select(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return select_items(run, self, args, false, true, out);
}

static sl_status filter_reject(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return select_items(run, self, args, false, false, out);
}

static sl_status filter_selectattr(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return select_items(run, self, args, true, true, out);
}

static sl_status filter_rejectattr(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return select_items(run, self, args, true, false, out);
}

/* A string in lower case, other values as they are: what Jinja sorts and compares by unless told otherwise. Letters beyond
 * ASCII keep their case. */
static sl_status fold_case(sl_trun *run, sl_tvalue *value)
{
    if (value->kind != SL_TV_STRING)
        return SL_OK;
    sl_tbuffer buffer = {0};
    SL_TRY(sl_tbuffer_add_string(run, &buffer, value->string, 0, value->string->n_bytes));
    for (size_t i = 0; i < buffer.n; i++)
        if (buffer.bytes[i] >= 'A' && buffer.bytes[i] <= 'Z')
            buffer.bytes[i] |= 32;
    return sl_tbuffer_value(run, &buffer, value);
}

typedef struct sort_entry {
    sl_tvalue key, value;
} sort_entry;

/* Stable merge sort from entries with scratch space; reverse keeps equal ones in order, as Python does. */
static sl_status sort_entries(sl_trun *run, sort_entry *entries, sort_entry *scratch, size_t n, bool reverse)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t begin = 0; begin < n; begin += 2 * width) {
            size_t middle = SL_MIN(begin + width, n), end = SL_MIN(begin + 2 * width, n), l = begin, r = middle;
            for (size_t k = begin; k < end; k++) {
                int order = l < middle ? -1 : 1;
                if (l < middle && r < end)
                    SL_TRY(sl_tvalue_order(run, entries[l].key, entries[r].key, &order));
                bool take_left = l < middle && (r >= end || (reverse ? order >= 0 : order <= 0));
                scratch[k] = entries[take_left ? l++ : r++];
            }
        }
        memcpy(entries, scratch, n * sizeof *entries);
    }
    return SL_OK;
}

/* Values of a list in the order of their keys. */
static sl_status sort_values(sl_trun *run, const sl_tlist *values, const sl_tlist *keys, bool fold, bool reverse,
                             sl_tvalue *out)
{
    sort_entry *entries;
    SL_TALLOC(run, entries, 2 * values->n);
    for (size_t i = 0; i < values->n; i++) {
        entries[i] = (sort_entry){.key = keys->items[i], .value = values->items[i]};
        if (fold)
            SL_TRY(fold_case(run, &entries[i].key));
    }
    SL_TRY(sort_entries(run, entries, entries + values->n, values->n, reverse));
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, values->n, out));
    for (size_t i = 0; i < values->n; i++)
        SL_TRY(sl_tlist_push(run, out->list, entries[i].value));
    return SL_OK;
}

static bool flag_arg(const sl_targs *args, size_t index, const char *name)
{
    const sl_tvalue *arg = sl_targs_get(args, index, name);
    return arg && sl_tvalue_truthy(*arg);
}

static sl_status filter_sort(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue *attribute = sl_targs_get(args, 2, "attribute");
    const sl_tlist *items;
    sl_tvalue keys;
    SL_TRY(sl_tvalue_iterate(run, self, &items));
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, items->n, &keys));
    for (size_t i = 0; i < items->n; i++) {
        sl_tvalue key = items->items[i];
        if (attribute && attribute->kind != SL_TV_NONE)
            SL_TRY(get_path(run, key, *attribute, &key));
        SL_TRY(sl_tlist_push(run, keys.list, key));
    }
    return sort_values(run, items, keys.list, !flag_arg(args, 1, "case_sensitive"), flag_arg(args, 0, "reverse"), out);
}

static sl_status filter_dictsort(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue *by = sl_targs_get(args, 1, "by");
    sl_tvalue pairs;
    SL_TRY(filter_items(run, self, args, &pairs));
    if (self.kind != SL_TV_DICT)
        SL_TFAIL(run, SL_ERR_FORMAT, "dictsort takes a dictionary, not %s", sl_tvalue_type_name(self));
    bool by_value = by && by->kind == SL_TV_STRING && by->string->n_bytes == 5;
    sl_tlist keys = {.items = by_value ? self.dict->values : self.dict->keys, .n = self.dict->n};
    return sort_values(run, pairs.list, &keys, !flag_arg(args, 0, "case_sensitive"), flag_arg(args, 2, "reverse"), out);
}

static sl_status filter_unique(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tlist *items;
    sl_tvalue seen;
    SL_TRY(sl_tvalue_iterate(run, self, &items));
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, 0, out));
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, 0, &seen));
    for (size_t i = 0; i < items->n; i++) {
        sl_tvalue key = items->items[i];
        bool known;
        if (!flag_arg(args, 0, "case_sensitive"))
            SL_TRY(fold_case(run, &key));
        SL_TRY(sl_tvalue_contains(run, seen, key, &known));
        if (known)
            continue;
        SL_TRY(sl_tlist_push(run, seen.list, key));
        SL_TRY(sl_tlist_push(run, out->list, items->items[i]));
    }
    return SL_OK;
}

const sl_tbuiltin sl_tlist_filters[] = {
    {"first", filter_first},
    {"last", filter_last},
    {"list", filter_list},
    {"items", filter_items},
    {"join", filter_join},
    {"map", filter_map},
    {"reverse", filter_reverse},
    {"select", filter_select},
    {"reject", filter_reject},
    {"selectattr", filter_selectattr},
    {"rejectattr", filter_rejectattr},
    {"sort", filter_sort},
    {"dictsort", filter_dictsort},
    {"unique", filter_unique},
    {NULL, NULL},
};
