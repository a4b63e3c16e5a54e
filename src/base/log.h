/* Log hook. The library never prints by itself: messages go to the hook, and without one nowhere. */
#ifndef SL_BASE_LOG_H
#define SL_BASE_LOG_H

#include <sluice/sluice.h>

/* Gives a message to the hook that sl_log_set has set. */
void sl_log(sl_log_level level, const char *format, ...) SL_PRINTF(2, 3);

#endif
