#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static sl_log_fn *hook;
static void *hook_user;
static sl_log_level hook_level;

void sl_log_set(sl_log_fn *fn, void *user, sl_log_level max_level)
{
    hook = fn;
    hook_user = user;
    hook_level = max_level;
}

void sl_log(sl_log_level level, const char *format, ...)
{
    if (!hook || level > hook_level)
        return;
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    hook(hook_user, level, line);
}
