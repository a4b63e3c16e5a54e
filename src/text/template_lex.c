/* Lexer of chat templates. Source: Jinja 3.1, "Template Designer Documentation" (whitespace control) and the rules of its
 * lexer: trim_blocks drops the newline after a block or comment, lstrip_blocks the blanks before one on its line, "-"
 * strips all whitespace on its side, "+" turns the two options off. */
#include <string.h>

#include "base/utf8.h"
#include "text/template_ast.h"

typedef struct lexer {
    sl_arena *arena;
    const char *at, *end;
    uint32_t line;
    bool line_starting; /* what was consumed last ended a line */
    sl_ttokens *out;
    sl_err *err;
} lexer;

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_name_byte(char c, bool first)
{
    unsigned char u = (unsigned char)c;
    return (unsigned)((u | 32) - 'a') < 26u || u == '_' || u >= 0x80 || (!first && u >= '0' && u <= '9');
}

static bool looking_at(const lexer *l, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(l->end - l->at) >= n && memcmp(l->at, text, n) == 0;
}

static void skip(lexer *l, size_t n)
{
    for (size_t i = 0; i < n; i++)
        l->line += l->at[i] == '\n';
    if (n)
        l->line_starting = l->at[n - 1] == '\n';
    l->at += n;
}

static void skip_spaces(lexer *l)
{
    while (l->at < l->end && is_space(*l->at))
        skip(l, 1);
}

static sl_status push(lexer *l, sl_ttoken_kind kind, uint32_t line, const char *bytes, size_t n_bytes)
{
    sl_ttokens *out = l->out;
    if (out->n == out->capacity) {
        size_t capacity = out->capacity ? out->capacity * 2 : 256;
        sl_ttoken *items = sl_arena_array(l->arena, capacity, sizeof *items);
        if (!items)
            SL_FAIL(l->err, SL_ERR_NOMEM, "template: out of memory");
        if (out->n)
            memcpy(items, out->items, out->n * sizeof *items);
        out->items = items;
        out->capacity = capacity;
    }
    out->items[out->n++] = (sl_ttoken){kind, line, {bytes, n_bytes}};
    return SL_OK;
}

/* Text before a tag whose opening brace is at end; sign is the character after the two of the tag. */
static sl_status push_data(lexer *l, const char *begin, const char *end, bool starts_line, bool lstrip, char sign,
                           uint32_t line)
{
    if (sign == '-') {
        while (end > begin && is_space(end[-1]))
            end--;
    } else if (lstrip && sign != '+') {
        const char *at = end;
        while (at > begin && at[-1] != '\n' && is_space(at[-1]))
            at--;
        if (at > begin ? at[-1] == '\n' : starts_line)
            end = at;
    }
    return end > begin ? push(l, SL_TT_DATA, line, begin, (size_t)(end - begin)) : SL_OK;
}

/* Consumes the end of a tag, close being "%}", "}}" or "#}" at or one sign before l->at; false when it is not there. */
static bool take_end(lexer *l, const char *close, bool trims)
{
    char signed_close[4] = {0, close[0], close[1], 0};
    signed_close[0] = '-';
    if (looking_at(l, signed_close)) {
        skip(l, 3);
        skip_spaces(l);
        return true;
    }
    signed_close[0] = '+';
    if (trims && looking_at(l, signed_close)) {
        skip(l, 3);
        return true;
    }
    if (!looking_at(l, close))
        return false;
    skip(l, 2);
    if (trims && l->at < l->end && *l->at == '\n')
        skip(l, 1);
    return true;
}

/* Value of n_digits hexadecimal digits; false when there are not as many. */
static bool hex_value(const char *at, const char *end, int n_digits, uint32_t *out)
{
    uint32_t value = 0;
    if (end - at < n_digits)
        return false;
    for (int i = 0; i < n_digits; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return false;
        value = value << 4 | (uint32_t)digit;
    }
    *out = value;
    return true;
}

/* Writes what the escape after the backslash at `at` means; returns how many characters it took, -1 when it is wrong. */
static int resolve_escape(const char *at, const char *end, char *out, size_t *n_out)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    uint32_t value;
    if (at >= end)
        return -1;
    const char *simple = *at ? strchr(from, *at) : NULL;
    if (*at == '\n')
        return 1;
    if (simple) {
        out[(*n_out)++] = to[simple - from];
        return 1;
    }
    int n_digits = *at == 'x' ? 2 : *at == 'u' ? 4 : *at == 'U' ? 8 : 0;
    if (n_digits == 0) { /* an unknown escape stays as it is, as in Python */
        out[(*n_out)++] = '\\';
        out[(*n_out)++] = *at;
        return *at >= '0' && *at <= '7' ? -1 : 1;
    }
    if (!hex_value(at + 1, end, n_digits, &value) || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
        return -1;
    *n_out += sl_utf8_encode(value, out + *n_out);
    return n_digits + 1;
}

static sl_status lex_string(lexer *l)
{
    char quote = *l->at;
    const char *begin = l->at + 1, *close = begin;
    size_t n_out = 0;
    while (close < l->end && *close != quote)
        close += *close == '\\' && close + 1 < l->end ? 2 : 1;
    if (close >= l->end)
        SL_FAIL(l->err, SL_ERR_FORMAT, "template line %u: the string does not end", l->line);
    char *out = sl_arena_alloc(l->arena, (size_t)(close - begin) + 1);
    if (!out)
        SL_FAIL(l->err, SL_ERR_NOMEM, "template: out of memory");
    for (const char *at = begin; at < close;) {
        if (*at != '\\') {
            out[n_out++] = *at++;
            continue;
        }
        int taken = resolve_escape(at + 1, close, out, &n_out);
        if (taken < 0)
            SL_FAIL(l->err, SL_ERR_FORMAT, "template line %u: bad escape in a string", l->line);
        at += 1 + taken;
    }
    SL_TRY(push(l, SL_TT_STRING, l->line, out, n_out));
    skip(l, (size_t)(close - l->at) + 1);
    return SL_OK;
}

/* Digits with single underscores between them, as Python writes numbers. */
static const char *skip_digits(const char *at, const char *end)
{
    while (at < end && ((*at >= '0' && *at <= '9') || (*at == '_' && at + 1 < end && at[1] >= '0' && at[1] <= '9')))
        at++;
    return at;
}

static sl_status lex_number(lexer *l)
{
    const char *begin = l->at, *at = skip_digits(begin, l->end);
    sl_ttoken_kind kind = SL_TT_INT;
    if (at + 1 < l->end && *at == '.' && at[1] >= '0' && at[1] <= '9') {
        kind = SL_TT_FLOAT;
        at = skip_digits(at + 1, l->end);
    }
    const char *exponent = at < l->end && (*at | 32) == 'e' ? at + 1 : NULL;
    if (exponent && exponent < l->end && (*exponent == '+' || *exponent == '-'))
        exponent++;
    if (exponent && exponent < l->end && *exponent >= '0' && *exponent <= '9') {
        kind = SL_TT_FLOAT;
        at = skip_digits(exponent, l->end);
    }
    char *digits = sl_arena_alloc(l->arena, (size_t)(at - begin) + 1);
    size_t n = 0;
    if (!digits)
        SL_FAIL(l->err, SL_ERR_NOMEM, "template: out of memory");
    for (const char *c = begin; c < at; c++)
        if (*c != '_')
            digits[n++] = *c;
    l->at = at;
    return push(l, kind, l->line, digits, n);
}

static sl_status lex_operator(lexer *l, int *depth)
{
    static const char *const two[] = {"//", "**", "==", "!=", "<=", ">="};
    size_t n = 1;
    for (size_t i = 0; i < SL_COUNTOF(two); i++)
        if (looking_at(l, two[i]))
            n = 2;
    if (!strchr("+-*/%~<>=.:|,()[]{}!", *l->at) || *l->at == '\0' || (*l->at == '!' && n == 1))
        SL_FAIL(l->err, SL_ERR_FORMAT, "template line %u: unexpected character '%c'", l->line,
                (unsigned char)*l->at >= 0x20 && (unsigned char)*l->at < 0x7f ? *l->at : '?');
    *depth += strchr("([{", *l->at) != NULL;
    *depth -= *depth > 0 && strchr(")]}", *l->at) != NULL;
    SL_TRY(push(l, SL_TT_OP, l->line, l->at, n));
    skip(l, n);
    return SL_OK;
}

/* Tokens inside {{ }} or {% %}, up to and with the end of the tag. */
static sl_status lex_tag(lexer *l, bool is_block)
{
    uint32_t first_line = l->line;
    int depth = 0; /* inside brackets "}}" is two closing braces */
    for (;;) {
        skip_spaces(l);
        uint32_t line = l->line;
        if (l->at >= l->end)
            SL_FAIL(l->err, SL_ERR_FORMAT, "template line %u: the tag does not end", first_line);
        if (depth == 0 && take_end(l, is_block ? "%}" : "}}", is_block))
            return push(l, is_block ? SL_TT_BLOCK_END : SL_TT_VAR_END, line, NULL, 0);
        if (is_name_byte(*l->at, true)) {
            const char *begin = l->at;
            while (l->at < l->end && is_name_byte(*l->at, false))
                l->at++;
            SL_TRY(push(l, SL_TT_NAME, line, begin, (size_t)(l->at - begin)));
        } else if (*l->at >= '0' && *l->at <= '9') {
            SL_TRY(lex_number(l));
        } else if (*l->at == '"' || *l->at == '\'') {
            SL_TRY(lex_string(l));
        } else {
            SL_TRY(lex_operator(l, &depth));
        }
    }
}

static sl_status lex_comment(lexer *l)
{
    uint32_t line = l->line;
    const char *begin = l->at;
    while (l->at < l->end && !looking_at(l, "#}"))
        skip(l, 1);
    if (l->at >= l->end)
        SL_FAIL(l->err, SL_ERR_FORMAT, "template line %u: the comment does not end", line);
    if (l->at > begin && (l->at[-1] == '-' || l->at[-1] == '+'))
        l->at--;
    (void)take_end(l, "#}", true);
    return SL_OK;
}

/* End of the tag {% word %} that begins at `at`, before its closing sign; NULL when another tag stands there. */
static const char *match_word_tag(const char *at, const char *end, const char *word)
{
    size_t n = strlen(word);
    if (end - at < 2 || at[0] != '{' || at[1] != '%')
        return NULL;
    at += 2;
    if (at < end && (*at == '-' || *at == '+'))
        at++;
    while (at < end && is_space(*at))
        at++;
    if ((size_t)(end - at) < n || memcmp(at, word, n) != 0)
        return NULL;
    at += n;
    while (at < end && is_space(*at))
        at++;
    bool closes = (end - at >= 2 && memcmp(at, "%}", 2) == 0) ||
                  (end - at >= 3 && (*at == '-' || *at == '+') && memcmp(at + 1, "%}", 2) == 0);
    return closes ? at : NULL;
}

/* The text of {% raw %}…{% endraw %}; `close` is where the first tag's end begins. */
static sl_status lex_raw(lexer *l, const char *close)
{
    uint32_t line = l->line;
    skip(l, (size_t)(close - l->at));
    bool strips = *l->at == '-';
    skip(l, *l->at == '%' ? 2 : 3); /* trim_blocks does not apply to this one */
    if (strips)
        skip_spaces(l);
    bool starts_line = l->line_starting;
    for (const char *at = l->at; at < l->end; at++) {
        const char *end_close = match_word_tag(at, l->end, "endraw");
        if (!end_close)
            continue;
        SL_TRY(push_data(l, l->at, at, starts_line, true, at[2], l->line));
        skip(l, (size_t)(end_close - l->at));
        (void)take_end(l, "%}", true);
        return SL_OK;
    }
    SL_FAIL(l->err, SL_ERR_FORMAT, "template line %u: raw without endraw", line);
}

/* Text up to the next tag, and the tag. */
static sl_status lex_step(lexer *l)
{
    const char *begin = l->at, *at = begin;
    bool starts_line = l->line_starting;
    uint32_t line = l->line;
    while (at + 1 < l->end && !(at[0] == '{' && (at[1] == '{' || at[1] == '%' || at[1] == '#')))
        at++;
    if (at + 1 >= l->end) {
        skip(l, (size_t)(l->end - begin));
        return push(l, SL_TT_DATA, line, begin, (size_t)(l->end - begin));
    }
    char kind = at[1], sign = at + 2 < l->end ? at[2] : 0;
    SL_TRY(push_data(l, begin, at, starts_line, kind != '{', sign, line));
    skip(l, (size_t)(at - begin));
    const char *raw_close = match_word_tag(at, l->end, "raw");
    if (raw_close)
        return lex_raw(l, raw_close);
    skip(l, sign == '-' || sign == '+' ? 3 : 2);
    if (kind == '#')
        return lex_comment(l);
    SL_TRY(push(l, kind == '%' ? SL_TT_BLOCK_BEGIN : SL_TT_VAR_BEGIN, l->line, NULL, 0));
    return lex_tag(l, kind == '%');
}

sl_status sl_template_lex(sl_arena *arena, sl_bytes source, sl_ttokens *out, sl_err *err)
{
    /* Jinja reads every line end as \n and drops the last one. */
    char *text = sl_arena_alloc(arena, source.n_bytes + 1);
    size_t n = 0;
    if (!text)
        SL_FAIL(err, SL_ERR_NOMEM, "template: out of memory");
    for (size_t i = 0; i < source.n_bytes; i++) {
        char c = source.bytes[i];
        if (c == '\r' && i + 1 < source.n_bytes && source.bytes[i + 1] == '\n')
            continue;
        text[n++] = c == '\r' ? '\n' : c;
    }
    n -= n > 0 && text[n - 1] == '\n';
    lexer l = {.arena = arena, .at = text, .end = text + n, .line = 1, .line_starting = true, .out = out, .err = err};
    while (l.at < l.end)
        SL_TRY(lex_step(&l));
    return push(&l, SL_TT_END, l.line, NULL, 0);
}
