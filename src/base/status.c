#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *sl_version(void)
{
    return SL_VERSION_STRING;
}

uint32_t sl_abi_version(void)
{
    return SL_ABI_VERSION;
}

const char *sl_status_name(sl_status status)
{
    static const char *const names[] = {
        [SL_OK] = "ok",
        [SL_ERR_ARGUMENT] = "invalid argument",
        [SL_ERR_NOMEM] = "out of memory",
        [SL_ERR_IO] = "input/output error",
        [SL_ERR_FORMAT] = "format error",
        [SL_ERR_UNSUPPORTED] = "unsupported",
        [SL_ERR_LIMIT] = "limit exceeded",
        [SL_ERR_NOT_FOUND] = "not found",
        [SL_ERR_STATE] = "wrong state",
        [SL_ERR_CANCELLED] = "cancelled",
        [SL_ERR_NUMERIC] = "numeric error",
        [SL_ERR_INTERNAL] = "internal error",
    };
    return (size_t)status < SL_COUNTOF(names) ? names[status] : "unknown status";
}

sl_status sl_err_set(sl_err *err, sl_status code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->code = code;
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return code;
}

void sl_assert_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "sluice: internal error: %s (%s:%d)\n", cond, file, line);
    abort();
}
