/* tojson: Python's json.dumps, with ensure_ascii off as transformers sets it. */
#include <string.h>

#include "base/utf8.h"
#include "text/template_builtin.h"

typedef struct writer {
    sl_trun *run;
    sl_tbuffer buffer;
    int64_t indent; /* -1: all on one line */
    int64_t level;
    bool ensure_ascii;
} writer;

static sl_status put(writer *w, const char *text)
{
    return sl_tbuffer_add(w->run, &w->buffer, text, strlen(text), false);
}

static sl_status put_escape(writer *w, uint32_t unit, bool trusted)
{
    static const char hex[] = "0123456789abcdef";
    char text[6] = {'\\', 'u', hex[unit >> 12 & 15], hex[unit >> 8 & 15], hex[unit >> 4 & 15], hex[unit & 15]};
    return sl_tbuffer_add(w->run, &w->buffer, text, sizeof text, trusted);
}

static sl_status write_string(writer *w, const sl_tstring *s)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    SL_TRY(put(w, "\""));
    for (size_t at = 0, n; at < s->n_bytes; at += n) {
        uint32_t c = 0;
        bool trusted = s->trust ? s->trust[at] : s->trusted;
        n = sl_tchar_bytes(s->bytes + at, s->n_bytes - at);
        bool well_formed = sl_utf8_decode(s->bytes + at, n, &c) > 0;
        const char *simple = well_formed && c && c < 0x80 ? strchr(from, (int)c) : NULL;
        if (simple) {
            const char escape[2] = {'\\', to[simple - from]};
            SL_TRY(sl_tbuffer_add(w->run, &w->buffer, escape, 2, trusted));
        } else if (well_formed && (c < 0x20 || (w->ensure_ascii && c > 0x7e && c < 0x10000))) {
            SL_TRY(put_escape(w, c, trusted));
        } else if (well_formed && w->ensure_ascii && c >= 0x10000) {
            SL_TRY(put_escape(w, 0xd800 + ((c - 0x10000) >> 10), trusted));
            SL_TRY(put_escape(w, 0xdc00 + ((c - 0x10000) & 0x3ff), trusted));
        } else {
            SL_TRY(sl_tbuffer_add_string(w->run, &w->buffer, s, at, at + n));
        }
    }
    return put(w, "\"");
}

static sl_status new_line(writer *w)
{
    if (w->indent < 0)
        return SL_OK;
    SL_TRY(put(w, "\n"));
    for (int64_t i = 0; i < w->indent * w->level; i++)
        SL_TRY(put(w, " "));
    return SL_OK;
}

static sl_status write_value(writer *w, sl_tvalue value);

static sl_status write_key(writer *w, sl_tvalue key)
{
    if (key.kind == SL_TV_STRING)
        return write_string(w, key.string);
    if (key.kind != SL_TV_INT && key.kind != SL_TV_FLOAT && key.kind != SL_TV_BOOL && key.kind != SL_TV_NONE)
        SL_TFAIL(w->run, SL_ERR_FORMAT, "JSON keys must be strings, not %s", sl_tvalue_type_name(key));
    SL_TRY(put(w, "\""));
    SL_TRY(write_value(w, key));
    return put(w, "\"");
}

/* A list, a tuple or a dictionary. */
static sl_status write_parts(writer *w, sl_tvalue value)
{
    bool is_dict = value.kind == SL_TV_DICT;
    size_t n = is_dict ? value.dict->n : value.list->n;
    SL_TRY(put(w, is_dict ? "{" : "["));
    SL_TRY(sl_trun_enter(w->run));
    w->level++;
    for (size_t i = 0; i < n; i++) {
        if (i)
            SL_TRY(put(w, w->indent < 0 ? ", " : ","));
        SL_TRY(new_line(w));
        if (is_dict) {
            SL_TRY(write_key(w, value.dict->keys[i]));
            SL_TRY(put(w, ": "));
        }
        SL_TRY(write_value(w, is_dict ? value.dict->values[i] : value.list->items[i]));
    }
    w->level--;
    w->run->depth--;
    if (n)
        SL_TRY(new_line(w));
    return put(w, is_dict ? "}" : "]");
}

static sl_status write_value(writer *w, sl_tvalue value)
{
    char text[32];
    switch (value.kind) {
    case SL_TV_NONE:
        return put(w, "null");
    case SL_TV_BOOL:
        return put(w, value.b ? "true" : "false");
    case SL_TV_INT:
        return sl_tbuffer_add_value(w->run, &w->buffer, value);
    case SL_TV_FLOAT:
        if (value.f != value.f || value.f - value.f != 0)
            return put(w, value.f != value.f ? "NaN" : value.f > 0 ? "Infinity" : "-Infinity");
        return sl_tbuffer_add(w->run, &w->buffer, text, sl_tfloat_text(value.f, text), true);
    case SL_TV_STRING:
        return write_string(w, value.string);
    case SL_TV_LIST:
    case SL_TV_TUPLE:
    case SL_TV_DICT:
        return write_parts(w, value);
    default:
        SL_TFAIL(w->run, SL_ERR_FORMAT, "object of type %s is not JSON serializable", sl_tvalue_type_name(value));
    }
}

sl_status sl_tfilter_tojson(sl_trun *run, sl_tvalue self, const sl_targs *args, sl_tvalue *out)
{
    writer w = {.run = run, .indent = -1};
    const sl_tvalue *ensure_ascii = sl_targs_get(args, 0, "ensure_ascii"), *indent = sl_targs_get(args, 1, "indent");
    for (size_t i = 0; i < args->n_keys; i++)
        if (!sl_bytes_are(args->keys[i], "ensure_ascii") && !sl_bytes_are(args->keys[i], "indent"))
            SL_TFAIL(run, SL_ERR_UNSUPPORTED, "tojson's argument %.*s is not supported",
                     (int)SL_MIN(args->keys[i].n_bytes, 40), args->keys[i].bytes);
    w.ensure_ascii = ensure_ascii && sl_tvalue_truthy(*ensure_ascii);
    if (indent && indent->kind == SL_TV_INT)
        w.indent = SL_MAX(SL_MIN(indent->i, INT64_C(100)), INT64_C(0));
    SL_TRY(write_value(&w, self));
    return sl_tbuffer_value(run, &w.buffer, out);
}
