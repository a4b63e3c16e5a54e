#include "serve/textbuf.h"

#include "base/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sl_textbuf_free(sl_textbuf *text)
{
    free(text->bytes);
    *text = (sl_textbuf){0};
}

void sl_textbuf_clear(sl_textbuf *text)
{
    text->n_bytes = 0;
}

void sl_textbuf_cut(sl_textbuf *text, size_t n_bytes)
{
    if (n_bytes >= text->n_bytes)
        return;
    text->n_bytes = n_bytes;
    text->bytes[n_bytes] = '\0';
}

static bool reserve(sl_textbuf *text, size_t n_bytes)
{
    if (text->failed)
        return false;
    if (text->capacity - text->n_bytes > n_bytes)
        return true;
    size_t capacity = 2 * text->capacity + n_bytes + 64;
    char *grown = realloc(text->bytes, capacity);
    if (!grown) {
        text->failed = true;
        return false;
    }
    text->bytes = grown;
    text->capacity = capacity;
    return true;
}

void sl_textbuf_add(sl_textbuf *text, const char *bytes, size_t n_bytes)
{
    if (!reserve(text, n_bytes))
        return;
    if (n_bytes)
        memcpy(text->bytes + text->n_bytes, bytes, n_bytes);
    text->n_bytes += n_bytes;
    text->bytes[text->n_bytes] = '\0';
}

void sl_textbuf_text(sl_textbuf *text, const char *string)
{
    sl_textbuf_add(text, string, strlen(string));
}

void sl_textbuf_format(sl_textbuf *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !reserve(text, (size_t)n))
        return;
    va_start(args, format);
    vsnprintf(text->bytes + text->n_bytes, (size_t)n + 1, format, args);
    va_end(args);
    text->n_bytes += (size_t)n;
}

static void add_escape(sl_textbuf *text, unsigned char c)
{
    static const char names[] = "btn_fr"; /* of 8 to 13; 11 has none */
    char escape[8];
    if (c == '"' || c == '\\')
        snprintf(escape, sizeof escape, "\\%c", c);
    else if (c >= 8 && c <= 13 && c != 11)
        snprintf(escape, sizeof escape, "\\%c", names[c - 8]);
    else
        snprintf(escape, sizeof escape, "\\u%04x", c);
    sl_textbuf_text(text, escape);
}

void sl_textbuf_json_part(sl_textbuf *text, const char *bytes, size_t n_bytes)
{
    size_t begin = 0, i = 0;
    while (i < n_bytes) {
        unsigned char c = (unsigned char)bytes[i];
        int n = c < 0x80 ? 1 : sl_utf8_decode(bytes + i, n_bytes - i, NULL);
        if (n > 0 && c >= ' ' && c != '"' && c != '\\' && c != 127) {
            i += (size_t)n;
            continue;
        }
        sl_textbuf_add(text, bytes + begin, i - begin);
        if (c < 0x80) {
            add_escape(text, c);
            i++;
        } else {
            sl_textbuf_text(text, "\xef\xbf\xbd");
            i += sl_utf8_ill_formed(bytes + i, n_bytes - i);
        }
        begin = i;
    }
    sl_textbuf_add(text, bytes + begin, n_bytes - begin);
}

void sl_textbuf_json(sl_textbuf *text, const char *bytes, size_t n_bytes)
{
    sl_textbuf_text(text, "\"");
    sl_textbuf_json_part(text, bytes, n_bytes);
    sl_textbuf_text(text, "\"");
}

void sl_textbuf_logprob(sl_textbuf *text, float logprob)
{
    sl_textbuf_format(text, "%.9g", isfinite(logprob) ? (double)logprob : -9999.0);
}
