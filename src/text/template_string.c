#define _GNU_SOURCE
#include "text/template_string.h"

#include <string.h>

#include "base/utf8.h"

/* What Python's str.isspace() holds for. */
static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* Whether the character (n bytes at bytes) is to be stripped. */
static bool strips(const sl_tstring *chars, const char *bytes, size_t n)
{
    uint32_t code_point;
    if (!chars)
        return sl_utf8_decode(bytes, n, &code_point) > 0 && is_space(code_point);
    for (size_t at = 0, m; at < chars->n_bytes; at += m) {
        m = sl_tchar_bytes(chars->bytes + at, chars->n_bytes - at);
        if (m == n && memcmp(chars->bytes + at, bytes, n) == 0)
            return true;
    }
    return false;
}

/* Length of the last character of n_bytes > 0. */
static size_t last_char_bytes(const char *bytes, size_t n_bytes)
{
    for (size_t n = 2; n <= 4 && n <= n_bytes; n++)
        if (sl_utf8_decode(bytes + n_bytes - n, n, NULL) == (int)n)
            return n;
    return 1;
}

sl_status sl_tstring_strip(sl_trun *run, const sl_tstring *s, sl_tvalue chars, unsigned sides, sl_tvalue *out)
{
    if (chars.kind != SL_TV_NONE && chars.kind != SL_TV_STRING)
        SL_TFAIL(run, SL_ERR_FORMAT, "strip takes a string");
    const sl_tstring *set = chars.kind == SL_TV_STRING ? chars.string : NULL;
    size_t begin = 0, end = s->n_bytes;
    SL_TRY(sl_trun_charge(run, 1 + (set ? set->n_bytes : 1) * s->n_bytes / 64));
    while ((sides & SL_TSTRIP_LEFT) && begin < end) {
        size_t n = sl_tchar_bytes(s->bytes + begin, end - begin);
        if (!strips(set, s->bytes + begin, n))
            break;
        begin += n;
    }
    while ((sides & SL_TSTRIP_RIGHT) && end > begin) {
        size_t n = last_char_bytes(s->bytes + begin, end - begin);
        if (!strips(set, s->bytes + end - n, n))
            break;
        end -= n;
    }
    return sl_tvalue_slice(run, s, begin, end, out);
}

sl_status sl_tstring_case(sl_trun *run, const sl_tstring *s, sl_tcase to, sl_tvalue *out)
{
    sl_tbuffer buffer = {0};
    bool in_word = false;
    SL_TRY(sl_tbuffer_add_string(run, &buffer, s, 0, s->n_bytes));
    for (size_t i = 0; i < s->n_bytes; i++) {
        char c = s->bytes[i];
        bool is_letter = (unsigned)((c | 32) - 'a') < 26u;
        if ((unsigned char)c >= 0x80)
            SL_TFAIL(run, SL_ERR_UNSUPPORTED, "upper and lower case of characters beyond ASCII are not supported");
        bool upper = to == SL_TCASE_UPPER || (to == SL_TCASE_CAPITAL && i == 0) || (to == SL_TCASE_TITLE && !in_word);
        if (is_letter)
            buffer.bytes[i] = (char)(upper ? c & ~32 : c | 32);
        /* Jinja's title starts a word after blanks, hyphens and opening brackets only. */
        in_word = !(strchr("-({[<", c) || is_space((unsigned char)c));
    }
    return sl_tbuffer_value(run, &buffer, out);
}

sl_status sl_tstring_replace(sl_trun *run, const sl_tstring *s, const sl_tstring *from, const sl_tstring *to,
                             int64_t count, sl_tvalue *out)
{
    sl_tbuffer buffer = {0};
    size_t at = 0;
    SL_TRY(sl_trun_charge(run, s->n_bytes / 64));
    while (count != 0) {
        const char *found = memmem(s->bytes + at, s->n_bytes - at, from->bytes, from->n_bytes);
        if (!found)
            break;
        size_t begin = (size_t)(found - s->bytes), end = begin + from->n_bytes;
        SL_TRY(sl_tbuffer_add_string(run, &buffer, s, at, begin));
        SL_TRY(sl_tbuffer_add_string(run, &buffer, to, 0, to->n_bytes));
        if (from->n_bytes == 0) { /* between all characters, and at both ends */
            if (begin == s->n_bytes)
                return sl_tbuffer_value(run, &buffer, out);
            end += sl_tchar_bytes(s->bytes + begin, s->n_bytes - begin);
            SL_TRY(sl_tbuffer_add_string(run, &buffer, s, begin, end));
        }
        at = end;
        count -= count > 0;
    }
    SL_TRY(sl_tbuffer_add_string(run, &buffer, s, at, s->n_bytes));
    return sl_tbuffer_value(run, &buffer, out);
}

static sl_status push_slice(sl_trun *run, const sl_tstring *s, size_t begin, size_t end, sl_tlist *list)
{
    sl_tvalue part;
    SL_TRY(sl_tvalue_slice(run, s, begin, end, &part));
    return sl_tlist_push(run, list, part);
}

static sl_status split_spaces(sl_trun *run, const sl_tstring *s, int64_t max, sl_tlist *list)
{
    size_t at = 0;
    for (;; max--) {
        while (at < s->n_bytes && strips(NULL, s->bytes + at, sl_tchar_bytes(s->bytes + at, s->n_bytes - at)))
            at += sl_tchar_bytes(s->bytes + at, s->n_bytes - at);
        if (at >= s->n_bytes)
            return SL_OK;
        size_t begin = at;
        if (max == 0) /* the rest as one */
            return push_slice(run, s, begin, s->n_bytes, list);
        while (at < s->n_bytes && !strips(NULL, s->bytes + at, sl_tchar_bytes(s->bytes + at, s->n_bytes - at)))
            at += sl_tchar_bytes(s->bytes + at, s->n_bytes - at);
        SL_TRY(push_slice(run, s, begin, at, list));
    }
}

sl_status sl_tstring_split(sl_trun *run, const sl_tstring *s, const sl_tstring *sep, int64_t max, sl_tvalue *out)
{
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, 0, out));
    SL_TRY(sl_trun_charge(run, s->n_bytes / 64));
    if (!sep)
        return split_spaces(run, s, max, out->list);
    if (sep->n_bytes == 0)
        SL_TFAIL(run, SL_ERR_FORMAT, "empty separator");
    size_t at = 0;
    for (; max != 0; max -= max > 0) {
        const char *found = memmem(s->bytes + at, s->n_bytes - at, sep->bytes, sep->n_bytes);
        if (!found)
            break;
        SL_TRY(push_slice(run, s, at, (size_t)(found - s->bytes), out->list));
        at = (size_t)(found - s->bytes) + sep->n_bytes;
    }
    return push_slice(run, s, at, s->n_bytes, out->list);
}

sl_status sl_tstring_lines(sl_trun *run, const sl_tstring *s, sl_tvalue *out)
{
    size_t begin = 0;
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, 0, out));
    SL_TRY(sl_trun_charge(run, s->n_bytes / 16));
    for (size_t at = 0, n; at < s->n_bytes; at += n) {
        uint32_t c;
        n = sl_tchar_bytes(s->bytes + at, s->n_bytes - at);
        if (sl_utf8_decode(s->bytes + at, n, &c) <= 0)
            continue;
        if (!((c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029))
            continue;
        SL_TRY(push_slice(run, s, begin, at, out->list));
        n += c == '\r' && at + 1 < s->n_bytes && s->bytes[at + 1] == '\n';
        begin = at + n;
    }
    return begin < s->n_bytes ? push_slice(run, s, begin, s->n_bytes, out->list) : SL_OK;
}
