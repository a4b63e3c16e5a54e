#include "cli/output.h"

#include "base/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int write_errno; /* of the first failed write; 0 = none */

static void note_failure(bool failed)
{
    if (failed && write_errno == 0)
        write_errno = errno != 0 ? errno : EIO;
}

void sl_out_bytes(const char *bytes, size_t n_bytes)
{
    errno = 0;
    if (write_errno == 0)
        note_failure(fwrite(bytes, 1, n_bytes, stdout) != n_bytes);
}

void sl_out_text(const char *text)
{
    sl_out_bytes(text, strlen(text));
}

void sl_out_printf(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    errno = 0;
    if (write_errno == 0)
        note_failure(vprintf(format, list) < 0);
    va_end(list);
}

static bool is_control(uint32_t code_point)
{
    return (code_point < 0x20 && code_point != '\n' && code_point != '\t') || (code_point >= 0x7f && code_point < 0xa0);
}

void sl_out_foreign(const char *bytes, size_t n_bytes)
{
    if (!sl_is_terminal(STDOUT_FILENO)) {
        sl_out_bytes(bytes, n_bytes);
        return;
    }
    for (size_t at = 0; at < n_bytes;) {
        uint32_t code_point = 0;
        int n = sl_utf8_decode(bytes + at, n_bytes - at, &code_point);
        if (n > 0 && !is_control(code_point))
            sl_out_bytes(bytes + at, (size_t)n);
        at += n > 0 ? (size_t)n : sl_utf8_ill_formed(bytes + at, n_bytes - at);
    }
}

void sl_out_heading(const char *text)
{
    bool bold = sl_has_colours(STDOUT_FILENO);
    sl_out_printf("%s%s%s\n", bold ? "\033[1m" : "", text, bold ? "\033[0m" : "");
}

void sl_out_flush(void)
{
    errno = 0;
    if (write_errno == 0)
        note_failure(fflush(stdout) != 0);
}

bool sl_out_failed(void)
{
    return write_errno != 0;
}

sl_status sl_out_finish(sl_err *err)
{
    sl_out_flush();
    errno = 0;
    bool failed = fclose(stdout) != 0;
    note_failure(failed && errno != EBADF);
    if (write_errno != 0 && write_errno != EPIPE)
        SL_FAIL(err, SL_ERR_IO, "cannot write to standard output: %s", strerror(write_errno));
    return SL_OK;
}

/* Text on standard error with control characters shown as '?': it may quote a file. */
static void print_safely(const char *text)
{
    for (const char *c = text; *c != '\0'; c++)
        fputc((unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c, stderr);
}

void sl_print_error(const char *message)
{
    bool red = sl_has_colours(STDERR_FILENO);
    fprintf(stderr, "%ssluice:%s ", red ? "\033[1;31m" : "", red ? "\033[0m" : "");
    print_safely(message);
    fputc('\n', stderr);
}

void sl_print_note(const char *format, ...)
{
    bool dim = sl_has_colours(STDERR_FILENO);
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    fputs(dim ? "\033[2m" : "", stderr);
    print_safely(text);
    fputs(dim ? "\033[0m\n" : "\n", stderr);
}

bool sl_is_terminal(int fd)
{
    static int known[3]; /* 0 = not asked yet, 1 = no, 2 = yes */
    if (known[fd] == 0)
        known[fd] = isatty(fd) ? 2 : 1;
    return known[fd] == 2;
}

bool sl_has_colours(int fd)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    return sl_is_terminal(fd) && (no_color == NULL || no_color[0] == '\0') && term != NULL && strcmp(term, "dumb") != 0;
}

const char *sl_format_bytes(uint64_t n_bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    double value = (double)n_bytes;
    while (value >= 1024 && unit + 1 < SL_COUNTOF(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(out, 32, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}

json_t *sl_json_text(const char *bytes, size_t n_bytes)
{
    if (sl_utf8_valid(bytes, n_bytes))
        return json_stringn(bytes, n_bytes);
    char *text = malloc(3 * n_bytes);
    if (text == NULL)
        return NULL;
    size_t used = 0;
    for (size_t at = 0; at < n_bytes;) {
        int n = sl_utf8_decode(bytes + at, n_bytes - at, NULL);
        memcpy(text + used, n > 0 ? bytes + at : "\xef\xbf\xbd", n > 0 ? (size_t)n : 3);
        used += n > 0 ? (size_t)n : 3;
        at += n > 0 ? (size_t)n : sl_utf8_ill_formed(bytes + at, n_bytes - at);
    }
    json_t *value = json_stringn(text, used);
    free(text);
    return value;
}

json_t *sl_json_logprob(double logprob)
{
    return json_real(isfinite(logprob) ? logprob : -9999.0);
}

static int write_json(const char *bytes, size_t n_bytes, void *user)
{
    (void)user;
    sl_out_bytes(bytes, n_bytes);
    return 0;
}

sl_status sl_out_json(json_t *root, sl_err *err)
{
    if (root == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    int failed = json_dump_callback(root, write_json, NULL, JSON_COMPACT | JSON_REAL_PRECISION(10));
    json_decref(root);
    if (failed)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    sl_out_text("\n");
    return SL_OK;
}
