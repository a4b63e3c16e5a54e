/* Filters, tests, methods and functions of chat templates: one table, looked up by name when a template is compiled. */
#ifndef SL_TEXT_TEMPLATE_BUILTIN_H
#define SL_TEXT_TEMPLATE_BUILTIN_H

#include "text/template_value.h"

/* Evaluated arguments of a call. */
typedef struct sl_targs {
    sl_tvalue *items; /* positional */
    size_t n;
    sl_bytes *keys; /* keyword arguments */
    sl_tvalue *values;
    size_t n_keys;
} sl_targs;

/* self: what a filter, test or method applies to; none for a function. */
typedef sl_status sl_tbuiltin_fn(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out);

typedef struct sl_tbuiltin {
    const char *name;
    sl_tbuiltin_fn *fn;
} sl_tbuiltin;

/* Entry of that name; NULL when this subset lacks it. */
const sl_tbuiltin *sl_tfilter_find(sl_bytes name);
const sl_tbuiltin *sl_ttest_find(sl_bytes name);
const sl_tbuiltin *sl_tmethod_find(sl_bytes name);
const sl_tbuiltin *sl_tfunction_find(sl_bytes name);

/* Argument number index, or the keyword argument of that name; NULL when it is not given. */
const sl_tvalue *sl_targs_get(const sl_targs *args, size_t index, const char *name);

/* x|tojson as transformers configures it (template_json.c). */
sl_status sl_tfilter_tojson(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out);

/* The methods of strings and dictionaries (template_method.c), the list filters (template_list.c). */
extern const sl_tbuiltin sl_tmethods[], sl_tlist_filters[];

#endif
