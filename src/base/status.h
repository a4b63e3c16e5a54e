/* Status and error helpers on top of the public sl_status and sl_err. */
#ifndef SL_BASE_STATUS_H
#define SL_BASE_STATUS_H

#include <sluice/sluice.h>

/* Fills *err (may be NULL) with code and the formatted message (cut at 255 bytes) and returns code. */
sl_status sl_err_set(sl_err *err, sl_status code, const char *format, ...) SL_PRINTF(3, 4);

/* Returns from the calling function with the status of expr unless it is SL_OK. */
#define SL_TRY(expr)                                                                                                   \
    do {                                                                                                               \
        sl_status sl_try_status_ = (expr);                                                                             \
        if (sl_try_status_ != SL_OK)                                                                                   \
            return sl_try_status_;                                                                                     \
    } while (0)

/* Returns from the calling function with code after writing the printf-style message to err. */
#define SL_FAIL(err, code, ...) return sl_err_set((err), (code), __VA_ARGS__)

/* Our own mistakes only, never bytes from outside; stays on in release builds. */
#define SL_ASSERT(cond) ((cond) ? (void)0 : sl_assert_failed(#cond, __FILE__, __LINE__))
void sl_assert_failed(const char *cond, const char *file, int line) __attribute__((noreturn, cold));

#define SL_COUNTOF(a) (sizeof(a) / sizeof((a)[0]))
#define SL_MIN(a, b)  ((a) < (b) ? (a) : (b))
#define SL_MAX(a, b)  ((a) > (b) ? (a) : (b))

#endif
