/* Log hook. The library never prints by itself: messages go to the hook, and without one nowhere. */
#ifndef SL_BASE_LOG_H
#define SL_BASE_LOG_H

#include <sluice/sluice.h>

typedef enum sl_log_level { SL_LOG_ERROR, SL_LOG_WARN, SL_LOG_INFO, SL_LOG_DEBUG } sl_log_level;

/* Called from any thread with one line, no newline at its end. */
typedef void sl_log_fn(void *user, sl_log_level level, const char *line);

/* Sets the process-wide hook (NULL: silence). Call before other threads use the library. */
void sl_log_set(sl_log_fn *fn, void *user, sl_log_level max_level);

void sl_log(sl_log_level level, const char *format, ...) SL_PRINTF(2, 3);

#endif
