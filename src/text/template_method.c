/* Methods of strings and dictionaries, as Python has them. */
#define _GNU_SOURCE
#include <string.h>

#include "text/template_builtin.h"
#include "text/template_string.h"

static sl_status need_string(sl_trun *run, sl_tvalue self, const char *method)
{
    if (self.kind == SL_TV_STRING)
        return SL_OK;
    SL_TRY(sl_tvalue_need_defined(run, self));
    SL_TFAIL(run, SL_ERR_FORMAT, "'%s' object has no method '%s'", sl_tvalue_type_name(self), method);
}

static sl_status need_dict(sl_trun *run, sl_tvalue self, const char *method)
{
    if (self.kind == SL_TV_DICT)
        return SL_OK;
    SL_TRY(sl_tvalue_need_defined(run, self));
    SL_TFAIL(run, SL_ERR_FORMAT, "'%s' object has no method '%s'", sl_tvalue_type_name(self), method);
}

/* A string argument; *out stays NULL when it is left out or none. */
static sl_status string_arg(sl_trun *run, const sl_targs *args, size_t index, const char *name, const sl_tstring **out)
{
    const sl_tvalue *arg = sl_targs_get(args, index, name);
    *out = NULL;
    if (!arg || arg->kind == SL_TV_NONE)
        return SL_OK;
    if (arg->kind != SL_TV_STRING)
        SL_TFAIL(run, SL_ERR_FORMAT, "argument %s must be str, not %s", name, sl_tvalue_type_name(*arg));
    *out = arg->string;
    return SL_OK;
}

static sl_status strip_sides(sl_trun *run, sl_tvalue self, const sl_targs *args, unsigned sides, sl_tvalue *out)
{
    const sl_tvalue *chars = sl_targs_get(args, 0, "chars");
    SL_TRY(need_string(run, self, "strip"));
    return sl_tstring_strip(run, self.string, chars ? *chars : sl_tvalue_none(), sides, out);
}

static sl_status method_strip(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return strip_sides(run, self, args, SL_TSTRIP_LEFT | SL_TSTRIP_RIGHT, out);
}

static sl_status method_lstrip(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return strip_sides(run, self, args, SL_TSTRIP_LEFT, out);
}

static sl_status method_rstrip(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return strip_sides(run, self, args, SL_TSTRIP_RIGHT, out);
}

static sl_status method_split(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tstring *sep;
    const sl_tvalue *max = sl_targs_get(args, 1, "maxsplit");
    SL_TRY(need_string(run, self, "split"));
    SL_TRY(string_arg(run, args, 0, "sep", &sep));
    return sl_tstring_split(run, self.string, sep, max && max->kind == SL_TV_INT ? max->i : -1, out);
}

static sl_status method_splitlines(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    SL_TRY(need_string(run, self, "splitlines"));
    if (args->n || args->n_keys)
        SL_TFAIL(run, SL_ERR_UNSUPPORTED, "splitlines with arguments is not supported");
    return sl_tstring_lines(run, self.string, out);
}

static sl_status method_replace(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tstring *from, *to;
    const sl_tvalue *count = sl_targs_get(args, 2, "count");
    SL_TRY(need_string(run, self, "replace"));
    SL_TRY(string_arg(run, args, 0, "old", &from));
    SL_TRY(string_arg(run, args, 1, "new", &to));
    if (!from || !to)
        SL_TFAIL(run, SL_ERR_FORMAT, "replace takes two strings");
    return sl_tstring_replace(run, self.string, from, to, count && count->kind == SL_TV_INT ? count->i : -1, out);
}

static bool has_affix(const sl_tstring *s, const sl_tstring *affix, bool at_end)
{
    if (affix->n_bytes > s->n_bytes)
        return false;
    return memcmp(s->bytes + (at_end ? s->n_bytes - affix->n_bytes : 0), affix->bytes, affix->n_bytes) == 0;
}

static sl_status test_affix(sl_trun *run, sl_tvalue self, const sl_targs *args, bool at_end, sl_tvalue *out)
{
    const sl_tvalue *arg = sl_targs_get(args, 0, "prefix");
    SL_TRY(need_string(run, self, at_end ? "endswith" : "startswith"));
    if (!arg || args->n != 1 || (arg->kind != SL_TV_STRING && arg->kind != SL_TV_TUPLE))
        SL_TFAIL(run, SL_ERR_FORMAT, "startswith and endswith take a string or a tuple of strings");
    bool found = arg->kind == SL_TV_STRING && has_affix(self.string, arg->string, at_end);
    for (size_t i = 0; arg->kind == SL_TV_TUPLE && i < arg->list->n && !found; i++) {
        SL_TRY(need_string(run, arg->list->items[i], "startswith"));
        found = has_affix(self.string, arg->list->items[i].string, at_end);
    }
    *out = sl_tvalue_bool(found);
    return SL_OK;
}

static sl_status method_startswith(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return test_affix(run, self, args, false, out);
}

static sl_status method_endswith(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return test_affix(run, self, args, true, out);
}

static sl_status change_case(sl_trun *run, sl_tvalue self, sl_tcase to, sl_tvalue *out)
{
    SL_TRY(need_string(run, self, "upper"));
    return sl_tstring_case(run, self.string, to, out);
}

static sl_status method_upper(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return change_case(run, self, SL_TCASE_UPPER, out);
}

static sl_status method_lower(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return change_case(run, self, SL_TCASE_LOWER, out);
}

static sl_status method_capitalize(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return change_case(run, self, SL_TCASE_CAPITAL, out);
}

/* Character index of the first place, -1 when there is none. */
static sl_status method_find(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tstring *what;
    SL_TRY(need_string(run, self, "find"));
    SL_TRY(string_arg(run, args, 0, "sub", &what));
    if (!what || args->n != 1)
        SL_TFAIL(run, SL_ERR_UNSUPPORTED, "find takes one string");
    const sl_tstring *s = self.string;
    SL_TRY(sl_trun_charge(run, s->n_bytes / 64));
    const char *found = memmem(s->bytes, s->n_bytes, what->bytes, what->n_bytes);
    int64_t index = found ? 0 : -1;
    for (size_t at = 0; found && s->bytes + at < found; at += sl_tchar_bytes(s->bytes + at, s->n_bytes - at))
        index++;
    *out = sl_tvalue_int(index);
    return SL_OK;
}

static sl_status method_join(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue *arg = sl_targs_get(args, 0, "iterable");
    const sl_tlist *items;
    sl_tbuffer buffer = {0};
    SL_TRY(need_string(run, self, "join"));
    if (!arg)
        SL_TFAIL(run, SL_ERR_FORMAT, "join takes a list");
    SL_TRY(sl_tvalue_iterate(run, *arg, &items));
    for (size_t i = 0; i < items->n; i++) {
        SL_TRY(need_string(run, items->items[i], "join"));
        if (i)
            SL_TRY(sl_tbuffer_add_value(run, &buffer, self));
        SL_TRY(sl_tbuffer_add_value(run, &buffer, items->items[i]));
    }
    return sl_tbuffer_value(run, &buffer, out);
}

static sl_status method_get(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue *found, *otherwise = sl_targs_get(args, 1, "default");
    SL_TRY(need_dict(run, self, "get"));
    if (args->n == 0)
        SL_TFAIL(run, SL_ERR_FORMAT, "get takes a key");
    SL_TRY(sl_tdict_get(run, self.dict, args->items[0], &found));
    *out = found ? *found : otherwise ? *otherwise : sl_tvalue_none();
    return SL_OK;
}

static sl_status method_items(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    SL_TRY(need_dict(run, self, "items"));
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, self.dict->n, out));
    for (size_t i = 0; i < self.dict->n; i++) {
        sl_tvalue pair;
        SL_TRY(sl_tvalue_list(run, SL_TV_TUPLE, 2, &pair));
        SL_TRY(sl_tlist_push(run, pair.list, self.dict->keys[i]));
        SL_TRY(sl_tlist_push(run, pair.list, self.dict->values[i]));
        SL_TRY(sl_tlist_push(run, out->list, pair));
    }
    return SL_OK;
}

static sl_status copy_list(sl_trun *run, const sl_tvalue *items, size_t n, sl_tvalue *out)
{
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, n, out));
    for (size_t i = 0; i < n; i++)
        SL_TRY(sl_tlist_push(run, out->list, items[i]));
    return SL_OK;
}

static sl_status method_keys(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    SL_TRY(need_dict(run, self, "keys"));
    return copy_list(run, self.dict->keys, self.dict->n, out);
}

static sl_status method_values(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    SL_TRY(need_dict(run, self, "values"));
    return copy_list(run, self.dict->values, self.dict->n, out);
}

/* transformers runs templates in a sandbox where nothing may change a list or a dictionary. */
static sl_status method_forbidden(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    SL_TFAIL(run, SL_ERR_FORMAT, "a template may not change a %s", sl_tvalue_type_name(self));
}

const sl_tbuiltin sl_tmethods[] = {
    {"strip", method_strip},
    {"lstrip", method_lstrip},
    {"rstrip", method_rstrip},
    {"split", method_split},
    {"splitlines", method_splitlines},
    {"replace", method_replace},
    {"startswith", method_startswith},
    {"endswith", method_endswith},
    {"upper", method_upper},
    {"lower", method_lower},
    {"capitalize", method_capitalize},
    {"find", method_find},
    {"join", method_join},
    {"get", method_get},
    {"items", method_items},
    {"keys", method_keys},
    {"values", method_values},
    {"append", method_forbidden},
    {"extend", method_forbidden},
    {"insert", method_forbidden},
    {"pop", method_forbidden},
    {"update", method_forbidden},
    {"remove", method_forbidden},
    {NULL, NULL},
};
