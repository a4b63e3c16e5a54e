/* Values of a template that runs, and the run itself with its limits. */
#ifndef SL_TEXT_TEMPLATE_VALUE_H
#define SL_TEXT_TEMPLATE_VALUE_H

#include "text/template_ast.h"

/* Text whose every byte is trusted (from the template) or not (from a message). */
typedef struct sl_tstring {
    const char *bytes;
    const uint8_t *trust; /* n_bytes of 0 or 1; NULL: all are `trusted` */
    size_t n_bytes;
    bool trusted;
} sl_tstring;

typedef enum sl_tkind {
    SL_TV_UNDEFINED, /* name: what was looked up */
    SL_TV_NONE,
    SL_TV_BOOL,
    SL_TV_INT,
    SL_TV_FLOAT,
    SL_TV_STRING,
    SL_TV_LIST,
    SL_TV_TUPLE,
    SL_TV_DICT,
    SL_TV_NAMESPACE,
    SL_TV_LOOP,
    SL_TV_MACRO,
} sl_tkind;

typedef struct sl_tvalue {
    sl_tkind kind;
    union {
        bool b;
        int64_t i;
        double f;
        const sl_tstring *string;
        struct sl_tlist *list; /* LIST, TUPLE */
        struct sl_tdict *dict; /* DICT, NAMESPACE */
        const struct sl_tloop *loop;
        const sl_tnode *macro;
        const sl_bytes *name;
    };
} sl_tvalue;

typedef struct sl_tlist {
    sl_tvalue *items;
    size_t n, capacity;
} sl_tlist;

/* In order of insertion; few entries, so they are searched one by one. */
typedef struct sl_tdict {
    sl_tvalue *keys, *values;
    size_t n, capacity;
} sl_tdict;

typedef struct sl_tloop {
    const sl_tlist *items;
    size_t index; /* from 0 */
} sl_tloop;

/* Growing text in the run's arena. */
typedef struct sl_tbuffer {
    char *bytes;
    uint8_t *trust;
    size_t n, capacity;
} sl_tbuffer;

typedef struct sl_tbinding {
    uint32_t name;
    sl_tvalue value;
} sl_tbinding;

typedef struct sl_trun {
    const sl_template *tmpl;
    sl_arena arena;
    int64_t fuel;      /* operations left */
    unsigned depth;    /* of evaluation */
    uint32_t line;     /* being evaluated, for messages */
    sl_tbuffer *out;   /* where text goes: the prompt, or a block that is captured */
    sl_tbinding *vars; /* stack of variables, innermost last */
    size_t n_vars, var_capacity;
    size_t scope;     /* first variable of the innermost scope */
    size_t visible;   /* first variable that the macro at work sees beside the global ones */
    size_t n_globals; /* variables of the template's own scope */
    uint32_t loop_name;
    sl_status failure;  /* why the last allocation failed */
    sl_tvalue captured; /* what the filters of a set or filter block apply to */
    sl_err *err;
} sl_trun;

/* Error with the line at which the template failed. */
#define SL_TFAIL(run, code, format, ...)                                                                               \
    SL_FAIL((run)->err, (code), "template line %u: " format, (run)->line __VA_OPT__(, ) __VA_ARGS__)

/* Takes n operations from the fuel; SL_ERR_LIMIT when it, or the memory of the run, is used up. */
SL_WARN_UNUSED sl_status sl_trun_charge(sl_trun *run, uint64_t n);

/* Counts one level of recursion; SL_ERR_LIMIT when it is one too many. The caller does depth-- at its end. */
SL_WARN_UNUSED sl_status sl_trun_enter(sl_trun *run);

/* Zeroed memory of the run, paid for with fuel; NULL when there is none, with the reason in run->failure. */
SL_WARN_UNUSED void *sl_trun_alloc(sl_trun *run, size_t count, size_t elem_bytes);

/* Sets pointer to count zeroed elements, or returns from the calling function with the reason why not. */
#define SL_TALLOC(run, pointer, count)                                                                                 \
    do {                                                                                                               \
        (pointer) = sl_trun_alloc((run), (count), sizeof *(pointer));                                                  \
        if (!(pointer))                                                                                                \
            return (run)->failure;                                                                                     \
    } while (0)

static inline sl_tvalue sl_tvalue_none(void)
{
    return (sl_tvalue){.kind = SL_TV_NONE};
}
static inline sl_tvalue sl_tvalue_undefined(const sl_bytes *name)
{
    return (sl_tvalue){.kind = SL_TV_UNDEFINED, .name = name};
}
static inline sl_tvalue sl_tvalue_bool(bool b)
{
    return (sl_tvalue){.kind = SL_TV_BOOL, .b = b};
}
static inline sl_tvalue sl_tvalue_int(int64_t i)
{
    return (sl_tvalue){.kind = SL_TV_INT, .i = i};
}

/* String over bytes that live at least as long as the run. */
SL_WARN_UNUSED sl_status sl_tvalue_string(sl_trun *run, const char *bytes, size_t n_bytes, bool trusted,
                                          sl_tvalue *out);
/* Bytes begin .. end of a string, which share its storage. */
SL_WARN_UNUSED sl_status sl_tvalue_slice(sl_trun *run, const sl_tstring *string, size_t begin, size_t end,
                                         sl_tvalue *out);
/* New empty list or tuple with room for n elements; *out->list. */
SL_WARN_UNUSED sl_status sl_tvalue_list(sl_trun *run, sl_tkind kind, size_t n, sl_tvalue *out);
SL_WARN_UNUSED sl_status sl_tlist_push(sl_trun *run, sl_tlist *list, sl_tvalue value);
/* New empty dictionary or namespace. */
SL_WARN_UNUSED sl_status sl_tvalue_dict(sl_trun *run, sl_tkind kind, sl_tvalue *out);
/* Sets the entry whose key equals key. */
SL_WARN_UNUSED sl_status sl_tdict_set(sl_trun *run, sl_tdict *dict, sl_tvalue key, sl_tvalue value);
SL_WARN_UNUSED sl_status sl_tdict_get(sl_trun *run, const sl_tdict *dict, sl_tvalue key, const sl_tvalue **out);
/* Value under a name; NULL when there is none. */
const sl_tvalue *sl_tdict_find(const sl_tdict *dict, sl_bytes name);

SL_WARN_UNUSED sl_status sl_tbuffer_add(sl_trun *run, sl_tbuffer *buffer, const char *bytes, size_t n_bytes,
                                        bool trusted);
SL_WARN_UNUSED sl_status sl_tbuffer_add_string(sl_trun *run, sl_tbuffer *buffer, const sl_tstring *string, size_t begin,
                                               size_t end);
/* The text of the buffer as a value; the buffer gives it away. */
SL_WARN_UNUSED sl_status sl_tbuffer_value(sl_trun *run, sl_tbuffer *buffer, sl_tvalue *out);
/* Appends what Python's str() gives. */
SL_WARN_UNUSED sl_status sl_tbuffer_add_value(sl_trun *run, sl_tbuffer *buffer, sl_tvalue value);
/* Appends a float as Python's repr() does; buffer of 32 bytes; the length. */
size_t sl_tfloat_text(double f, char out[32]);

/* value as a string value: itself, or its str(). */
SL_WARN_UNUSED sl_status sl_tvalue_to_string(sl_trun *run, sl_tvalue value, const sl_tstring **out);
bool sl_tvalue_truthy(sl_tvalue value);
SL_WARN_UNUSED sl_status sl_tvalue_equal(sl_trun *run, sl_tvalue a, sl_tvalue b, bool *out);
/* *out < 0, 0, > 0; an error for what Python cannot order. */
SL_WARN_UNUSED sl_status sl_tvalue_order(sl_trun *run, sl_tvalue a, sl_tvalue b, int *out);
SL_WARN_UNUSED sl_status sl_tvalue_contains(sl_trun *run, sl_tvalue container, sl_tvalue item, bool *out);
/* Elements, keys or characters, as a list that may be the value's own. */
SL_WARN_UNUSED sl_status sl_tvalue_iterate(sl_trun *run, sl_tvalue value, const sl_tlist **out);
SL_WARN_UNUSED sl_status sl_tvalue_length(sl_trun *run, sl_tvalue value, int64_t *out);
/* value.name and value[key], as Jinja looks them up; undefined when there is nothing. */
SL_WARN_UNUSED sl_status sl_tvalue_attr(sl_trun *run, sl_tvalue value, const sl_bytes *name, sl_tvalue *out);
SL_WARN_UNUSED sl_status sl_tvalue_index(sl_trun *run, sl_tvalue value, sl_tvalue key, sl_tvalue *out);
/* value[begin:end:step], none for what is left out. */
SL_WARN_UNUSED sl_status sl_tvalue_subscript(sl_trun *run, sl_tvalue value, const sl_tvalue bounds[3], sl_tvalue *out);
/* The error "'x' is undefined" for a value that is. */
SL_WARN_UNUSED sl_status sl_tvalue_need_defined(sl_trun *run, sl_tvalue value);
/* "str", "dict", … for messages. */
const char *sl_tvalue_type_name(sl_tvalue value);

/* Length of the character at bytes, 1 where it is ill-formed. */
size_t sl_tchar_bytes(const char *bytes, size_t n_bytes);

static inline bool sl_tvalue_is_list(sl_tvalue value)
{
    return value.kind == SL_TV_LIST || value.kind == SL_TV_TUPLE;
}

#endif
