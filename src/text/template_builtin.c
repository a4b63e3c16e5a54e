/* Filters on single values, tests, functions, and the look-up of all builtins. */
#include "text/template_builtin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text/template_string.h"

const sl_tvalue *sl_targs_get(const sl_targs *args, size_t index, const char *name)
{
    if (index < args->n)
        return &args->items[index];
    for (size_t i = 0; i < args->n_keys; i++)
        if (sl_bytes_are(args->keys[i], name))
            return &args->values[i];
    return NULL;
}

static const sl_tvalue *need(const sl_targs *args, size_t index, const char *name)
{
    static const sl_tvalue undefined = {.kind = SL_TV_UNDEFINED};
    const sl_tvalue *arg = sl_targs_get(args, index, name);
    return arg ? arg : &undefined;
}

/* Filters */

static sl_status filter_trim(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue *chars = sl_targs_get(args, 0, "chars");
    const sl_tstring *s;
    SL_TRY(sl_tvalue_to_string(run, self, &s));
    return sl_tstring_strip(run, s, chars ? *chars : sl_tvalue_none(), SL_TSTRIP_LEFT | SL_TSTRIP_RIGHT, out);
}

static sl_status filter_length(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    int64_t n;
    SL_TRY(sl_tvalue_length(run, self, &n));
    *out = sl_tvalue_int(n);
    return SL_OK;
}

static sl_status filter_default(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue *otherwise = sl_targs_get(args, 0, "default_value"), *boolean = sl_targs_get(args, 1, "boolean");
    bool missing = self.kind == SL_TV_UNDEFINED || (boolean && sl_tvalue_truthy(*boolean) && !sl_tvalue_truthy(self));
    *out = self;
    if (missing && otherwise)
        *out = *otherwise;
    else if (missing)
        return sl_tvalue_string(run, "", 0, true, out);
    return SL_OK;
}

static sl_status change_case(sl_trun *run, sl_tvalue self, sl_tcase to, sl_tvalue *out)
{
    const sl_tstring *s;
    SL_TRY(sl_tvalue_to_string(run, self, &s));
    return sl_tstring_case(run, s, to, out);
}

static sl_status filter_upper(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return change_case(run, self, SL_TCASE_UPPER, out);
}

static sl_status filter_lower(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return change_case(run, self, SL_TCASE_LOWER, out);
}

static sl_status filter_capitalize(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return change_case(run, self, SL_TCASE_CAPITAL, out);
}

static sl_status filter_title(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return change_case(run, self, SL_TCASE_TITLE, out);
}

static sl_status filter_replace(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tstring *s, *from, *to;
    const sl_tvalue *count = sl_targs_get(args, 2, "count");
    SL_TRY(sl_tvalue_to_string(run, self, &s));
    SL_TRY(sl_tvalue_to_string(run, *need(args, 0, "old"), &from));
    SL_TRY(sl_tvalue_to_string(run, *need(args, 1, "new"), &to));
    return sl_tstring_replace(run, s, from, to, count && count->kind == SL_TV_INT ? count->i : -1, out);
}

static sl_status filter_string(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    out->kind = SL_TV_STRING;
    return sl_tvalue_to_string(run, self, &out->string);
}

static sl_status filter_safe(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return filter_string(run, self, args, out);
}

/* A number out of a value; false when it is none. */
static bool parse_number(sl_tvalue value, double *f, int64_t *i, bool *is_int)
{
    char text[64], *end;
    *is_int = value.kind == SL_TV_INT || value.kind == SL_TV_BOOL;
    *i = value.kind == SL_TV_INT ? value.i : value.kind == SL_TV_BOOL ? value.b : 0;
    *f = value.kind == SL_TV_FLOAT ? value.f : (double)*i;
    if (value.kind != SL_TV_STRING)
        return *is_int || value.kind == SL_TV_FLOAT;
    if (value.string->n_bytes == 0 || value.string->n_bytes >= sizeof text)
        return false;
    memcpy(text, value.string->bytes, value.string->n_bytes);
    text[value.string->n_bytes] = '\0';
    if (strpbrk(text, "xXpP")) /* C reads hexadecimal here, Python does not */
        return false;
    *f = strtod(text, &end);
    end += strspn(end, " \t\n\r");
    if (*end)
        return false;
    *i = strtoll(text, &end, 10);
    end += strspn(end, " \t\n\r");
    *is_int = *end == '\0';
    return true;
}

static sl_status filter_int(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue *otherwise = sl_targs_get(args, 0, "default");
    double f;
    int64_t i;
    bool is_int;
    SL_TRY(sl_tvalue_need_defined(run, self));
    if (!parse_number(self, &f, &i, &is_int) || (!is_int && !(f > -9e18 && f < 9e18)))
        *out = otherwise ? *otherwise : sl_tvalue_int(0);
    else
        *out = sl_tvalue_int(is_int ? i : (int64_t)f);
    return SL_OK;
}

static sl_status filter_float(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue *otherwise = sl_targs_get(args, 0, "default");
    int64_t i;
    bool is_int;
    SL_TRY(sl_tvalue_need_defined(run, self));
    *out = (sl_tvalue){.kind = SL_TV_FLOAT};
    if (!parse_number(self, &out->f, &i, &is_int)) {
        out->f = 0;
        *out = otherwise ? *otherwise : *out;
    }
    return SL_OK;
}

static sl_status filter_abs(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    *out = self.kind == SL_TV_BOOL ? sl_tvalue_int(self.b) : self;
    if (self.kind == SL_TV_FLOAT)
        out->f = self.f < 0 ? -self.f : self.f;
    else if (out->kind == SL_TV_INT && out->i != INT64_MIN)
        out->i = out->i < 0 ? -out->i : out->i;
    else
        SL_TFAIL(run, SL_ERR_FORMAT, "abs takes a number");
    return SL_OK;
}

/* Lines after the first (or all, with first=true) behind `width` blanks or a given text; empty lines only with blank=true. */
static sl_status filter_indent(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue *width = sl_targs_get(args, 0, "width");
    bool first = sl_tvalue_truthy(*need(args, 1, "first")), blank = sl_tvalue_truthy(*need(args, 2, "blank"));
    const sl_tstring *s = self.string, *prefix;
    sl_tbuffer spaces = {0}, buffer = {0};
    sl_tvalue lines;
    if (self.kind != SL_TV_STRING)
        SL_TFAIL(run, SL_ERR_FORMAT, "indent takes a string, not %s", sl_tvalue_type_name(self));
    int64_t n_spaces = width && width->kind == SL_TV_INT ? width->i : 4;
    for (int64_t i = 0; i < n_spaces; i++)
        SL_TRY(sl_tbuffer_add(run, &spaces, " ", 1, true));
    SL_TRY(sl_tbuffer_value(run, &spaces, &lines));
    prefix = width && width->kind == SL_TV_STRING ? width->string : lines.string;
    SL_TRY(sl_tbuffer_add_string(run, &buffer, s, 0, s->n_bytes));
    SL_TRY(sl_tbuffer_add(run, &buffer, "\n", 1, true)); /* so that a last empty line counts as one */
    SL_TRY(sl_tbuffer_value(run, &buffer, &lines));
    SL_TRY(sl_tstring_lines(run, lines.string, &lines));
    for (size_t i = 0; i < lines.list->n; i++) {
        const sl_tstring *line = lines.list->items[i].string;
        SL_TRY(sl_tbuffer_add(run, &buffer, "\n", i > 0, true));
        if (i == 0 ? first : blank || line->n_bytes)
            SL_TRY(sl_tbuffer_add_string(run, &buffer, prefix, 0, prefix->n_bytes));
        SL_TRY(sl_tbuffer_add_string(run, &buffer, line, 0, line->n_bytes));
    }
    return sl_tbuffer_value(run, &buffer, out);
}

static const sl_tbuiltin filters[] = {
    {"trim", filter_trim},         {"length", filter_length},
    {"count", filter_length},      {"default", filter_default},
    {"d", filter_default},         {"upper", filter_upper},
    {"lower", filter_lower},       {"capitalize", filter_capitalize},
    {"title", filter_title},       {"replace", filter_replace},
    {"string", filter_string},     {"safe", filter_safe},
    {"int", filter_int},           {"float", filter_float},
    {"abs", filter_abs},           {"indent", filter_indent},
    {"tojson", sl_tfilter_tojson}, {NULL, NULL},
};

/* Tests */

#define KIND_TEST(function, condition)                                                                                 \
    static sl_status function(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)                      \
    {                                                                                                                  \
        *out = sl_tvalue_bool(condition);                                                                              \
        return SL_OK;                                                                                                  \
    }
KIND_TEST(test_defined, self.kind != SL_TV_UNDEFINED)
KIND_TEST(test_undefined, self.kind == SL_TV_UNDEFINED)
KIND_TEST(test_none, self.kind == SL_TV_NONE)
KIND_TEST(test_boolean, self.kind == SL_TV_BOOL)
KIND_TEST(test_true, self.kind == SL_TV_BOOL && self.b)
KIND_TEST(test_false, self.kind == SL_TV_BOOL && !self.b)
KIND_TEST(test_integer, self.kind == SL_TV_INT)
KIND_TEST(test_float, self.kind == SL_TV_FLOAT)
KIND_TEST(test_number, self.kind == SL_TV_INT || self.kind == SL_TV_FLOAT || self.kind == SL_TV_BOOL)
KIND_TEST(test_string, self.kind == SL_TV_STRING)
KIND_TEST(test_mapping, self.kind == SL_TV_DICT)
/* An undefined value counts as an empty sequence, as in Jinja. */
KIND_TEST(test_iterable, sl_tvalue_is_list(self) || self.kind == SL_TV_DICT || self.kind == SL_TV_STRING ||
                             self.kind == SL_TV_UNDEFINED)
KIND_TEST(test_callable, self.kind == SL_TV_MACRO)

/* self % by == remainder, with Python's sign. */
static sl_status test_remainder(sl_trun *run, sl_tvalue self, int64_t by, int64_t remainder, sl_tvalue *out)
{
    double f = fmod(self.kind == SL_TV_FLOAT ? self.f : 0, (double)by);
    int64_t i = self.kind == SL_TV_INT ? self.i : self.kind == SL_TV_BOOL ? self.b : 0;
    if ((self.kind != SL_TV_INT && self.kind != SL_TV_BOOL && self.kind != SL_TV_FLOAT) || by == 0)
        SL_TFAIL(run, SL_ERR_FORMAT, "the test takes numbers, and none divides by zero");
    i = by == -1 ? 0 : i % by;
    *out = sl_tvalue_bool(self.kind == SL_TV_FLOAT ? f == (double)remainder || f + (double)by == (double)remainder
                                                   : i == remainder || i + by == remainder);
    return SL_OK;
}

static sl_status test_even(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return test_remainder(run, self, 2, 0, out);
}

static sl_status test_odd(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    return test_remainder(run, self, 2, 1, out);
}

static sl_status test_divisibleby(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tvalue *by = need(args, 0, "num");
    if (by->kind != SL_TV_INT)
        SL_TFAIL(run, SL_ERR_FORMAT, "divisibleby takes a whole number");
    return test_remainder(run, self, by->i, 0, out);
}

static sl_status test_eq(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    out->kind = SL_TV_BOOL;
    return sl_tvalue_equal(run, self, *need(args, 0, "other"), &out->b);
}

static sl_status test_ne(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    SL_TRY(test_eq(run, self, args, out));
    out->b = !out->b;
    return SL_OK;
}

static sl_status test_in(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    out->kind = SL_TV_BOOL;
    return sl_tvalue_contains(run, *need(args, 0, "seq"), self, &out->b);
}

#define ORDER_TEST(function, condition)                                                                                \
    static sl_status function(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)                      \
    {                                                                                                                  \
        int order;                                                                                                     \
        SL_TRY(sl_tvalue_order(run, self, *need(args, 0, "other"), &order));                                           \
        *out = sl_tvalue_bool(condition);                                                                              \
        return SL_OK;                                                                                                  \
    }
ORDER_TEST(test_lt, order < 0)
ORDER_TEST(test_le, order <= 0)
ORDER_TEST(test_gt, order > 0)
ORDER_TEST(test_ge, order >= 0)

static const sl_tbuiltin tests[] = {
    {"defined", test_defined},
    {"undefined", test_undefined},
    {"none", test_none},
    {"boolean", test_boolean},
    {"true", test_true},
    {"false", test_false},
    {"integer", test_integer},
    {"float", test_float},
    {"number", test_number},
    {"string", test_string},
    {"mapping", test_mapping},
    {"iterable", test_iterable},
    {"sequence", test_iterable},
    {"callable", test_callable},
    {"even", test_even},
    {"odd", test_odd},
    {"divisibleby", test_divisibleby},
    {"eq", test_eq},
    {"equalto", test_eq},
    {"==", test_eq},
    {"ne", test_ne},
    {"!=", test_ne},
    {"in", test_in},
    {"lt", test_lt},
    {"lessthan", test_lt},
    {"<", test_lt},
    {"le", test_le},
    {"<=", test_le},
    {"gt", test_gt},
    {"greaterthan", test_gt},
    {">", test_gt},
    {"ge", test_ge},
    {">=", test_ge},
    {NULL, NULL},
};

/* Functions */

static sl_status function_raise(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tstring *message;
    SL_TRY(sl_tvalue_to_string(run, *need(args, 0, "message"), &message));
    SL_FAIL(run->err, SL_ERR_ARGUMENT, "%.*s", (int)SL_MIN(message->n_bytes, 255), message->bytes);
}

static sl_status function_range(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    int64_t bounds[3] = {0, 0, 1};
    if (args->n == 0 || args->n > 3 || args->n_keys)
        SL_TFAIL(run, SL_ERR_FORMAT, "range takes one to three numbers");
    for (size_t i = 0; i < args->n; i++) {
        if (args->items[i].kind != SL_TV_INT)
            SL_TFAIL(run, SL_ERR_FORMAT, "range takes whole numbers");
        bounds[args->n == 1 ? 1 : i] = args->items[i].i;
    }
    if (bounds[2] == 0)
        SL_TFAIL(run, SL_ERR_FORMAT, "range's step cannot be zero");
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, 0, out));
    for (int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1];) {
        SL_TRY(sl_trun_charge(run, 1));
        SL_TRY(sl_tlist_push(run, out->list, sl_tvalue_int(i)));
        if (__builtin_add_overflow(i, bounds[2], &i))
            break;
    }
    return SL_OK;
}

static sl_status add_keywords(sl_trun *run, const sl_targs *args, sl_tdict *dict)
{
    for (size_t i = 0; i < args->n_keys; i++) {
        sl_tvalue key;
        SL_TRY(sl_tvalue_string(run, args->keys[i].bytes, args->keys[i].n_bytes, true, &key));
        SL_TRY(sl_tdict_set(run, dict, key, args->values[i]));
    }
    return SL_OK;
}

static sl_status function_namespace(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    if (args->n > 1 || (args->n == 1 && args->items[0].kind != SL_TV_DICT))
        SL_TFAIL(run, SL_ERR_FORMAT, "namespace takes keyword arguments or one dictionary");
    SL_TRY(sl_tvalue_dict(run, SL_TV_NAMESPACE, out));
    for (size_t i = 0; args->n && i < args->items[0].dict->n; i++)
        SL_TRY(sl_tdict_set(run, out->dict, args->items[0].dict->keys[i], args->items[0].dict->values[i]));
    return add_keywords(run, args, out->dict);
}

static sl_status function_dict(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    SL_TRY(function_namespace(run, self, args, out));
    out->kind = SL_TV_DICT;
    return SL_OK;
}

static sl_status function_strftime_now(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    const sl_tstring *format;
    char pattern[128], text[256], *copy;
    time_t now = time(NULL);
    struct tm local;
    SL_TRY(sl_tvalue_to_string(run, *need(args, 0, "format"), &format));
    if (format->n_bytes >= sizeof pattern || memchr(format->bytes, 0, format->n_bytes) || !localtime_r(&now, &local))
        SL_TFAIL(run, SL_ERR_FORMAT, "strftime_now cannot use this format");
    memcpy(pattern, format->bytes, format->n_bytes);
    pattern[format->n_bytes] = '\0';
    size_t n = strftime(text, sizeof text, pattern, &local);
    SL_TALLOC(run, copy, n + 1);
    memcpy(copy, text, n);
    return sl_tvalue_string(run, copy, n, true, out);
}

static const sl_tbuiltin functions[] = {
    {"raise_exception", function_raise},     {"range", function_range},
    {"namespace", function_namespace},       {"dict", function_dict},
    {"strftime_now", function_strftime_now}, {NULL, NULL},
};

/* Look-up */

static const sl_tbuiltin *find(const sl_tbuiltin *table, sl_bytes name)
{
    for (; table->name; table++)
        if (sl_bytes_are(name, table->name))
            return table;
    return NULL;
}

const sl_tbuiltin *sl_tfilter_find(sl_bytes name)
{
    const sl_tbuiltin *found = find(filters, name);
    return found ? found : find(sl_tlist_filters, name);
}

const sl_tbuiltin *sl_ttest_find(sl_bytes name)
{
    return find(tests, name);
}

const sl_tbuiltin *sl_tmethod_find(sl_bytes name)
{
    return find(sl_tmethods, name);
}

const sl_tbuiltin *sl_tfunction_find(sl_bytes name)
{
    return find(functions, name);
}
