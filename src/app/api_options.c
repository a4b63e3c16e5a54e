/* The public structs that begin with their size: defaults, and versions of them that are not ours. A member that is added
 * goes to the end, not into padding, with a default that does what was done before; the sizes that a struct had until then
 * become legal in check_size. */
#include "app/api.h"

#include <string.h>

enum { LARGEST = 4096 }; /* no struct will ever be larger: a size beyond is no size */

/* Reads the size that a struct says; ones smaller than ours are of no version so far. */
static sl_status check_size(const void *given, size_t n_own, const char *what, size_t *size, sl_err *err)
{
    memcpy(size, given, sizeof *size);
    if (*size < n_own || *size > LARGEST)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%s: its size says %zu bytes, not %zu: begin with %s_default() or sizeof", what,
                *size, n_own, what);
    return SL_OK;
}

sl_status sl_sized_read(const void *given, void *own, size_t n_own, const char *what, sl_err *err)
{
    size_t size;
    if (!given)
        return SL_OK;
    SL_TRY(check_size(given, n_own, what, &size, err));
    for (size_t i = n_own; i < size; i++)
        if (((const char *)given)[i] != 0)
            SL_FAIL(err, SL_ERR_UNSUPPORTED, "%s: it asks for something that version %s does not know", what,
                    SL_VERSION_STRING);
    memcpy(own, given, n_own);
    memcpy(own, &n_own, sizeof n_own);
    return SL_OK;
}

/* Fills size bytes: ours, and zeros behind them. */
static void fill(void *out, size_t size, const void *own, size_t n_own)
{
    memset(out, 0, size);
    memcpy(out, own, SL_MIN(size, n_own));
    if (size >= sizeof size)
        memcpy(out, &size, sizeof size);
}

sl_status sl_sized_write(void *out, const void *own, size_t n_own, const char *what, sl_err *err)
{
    size_t size;
    SL_TRY(check_size(out, n_own, what, &size, err));
    fill(out, size, own, n_own);
    return SL_OK;
}

void sl_llm_options_init(sl_llm_options *out, size_t size)
{
    static const sl_llm_options defaults = {.cache = true};
    if (out)
        fill(out, size, &defaults, sizeof defaults);
}

void sl_runner_options_init(sl_runner_options *out, size_t size)
{
    static const sl_runner_options defaults = {0};
    if (out)
        fill(out, size, &defaults, sizeof defaults);
}

void sl_query_init(sl_query *out, size_t size)
{
    static const sl_query defaults = {.max_tokens = SL_UNLIMITED,
                                      .n_choices = 1,
                                      .repetition_penalty = 1,
                                      .top_p = 1,
                                      .normalise = true,
                                      .tenant_weight = 1};
    if (out)
        fill(out, size, &defaults, sizeof defaults);
}
