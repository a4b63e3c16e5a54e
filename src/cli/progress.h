/* A progress bar on standard error: on a terminal only, and only for work that takes longer than a second. */
#ifndef SL_CLI_PROGRESS_H
#define SL_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct sl_progress {
    const char *label;
    int64_t start_us, drawn_us;
    bool on_terminal, visible;
} sl_progress;

void sl_progress_start(sl_progress *progress, const char *label);

/* user is a sl_progress. Draws at most ten times a second; total 0 = unknown. False once Ctrl-C was pressed: the form of
 * the library's progress callbacks, for which false cancels. */
bool sl_progress_update(void *user, uint64_t done_bytes, uint64_t total_bytes);

/* Wipes the bar. */
void sl_progress_finish(sl_progress *progress);

#endif
