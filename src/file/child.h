/* A child process whose output is watched for the one line that says what went wrong. */
#ifndef SL_FILE_CHILD_H
#define SL_FILE_CHILD_H

#include "base/status.h"

/* Called several times a second while the child runs; false ends it. */
typedef bool sl_child_tick_fn(void *user);

typedef struct sl_child_result {
    int exit_code;       /* 128 + n when signal n ended it */
    char last_line[160]; /* last line of output that begins with "ERROR", else the last that isn't blank; printable */
} sl_child_result;

/* Runs argv[0] (looked up on PATH, no shell) with environment and the working folder given, empty input, default signal
 * handling, and output and errors read by us; waits for its end. It stays in our process group, so that a terminal's
 * Ctrl-C reaches it too. SL_ERR_NOT_FOUND when there is no such program, SL_ERR_CANCELLED when tick returned false (the
 * child has ended by then), SL_ERR_IO. */
SL_WARN_UNUSED sl_status sl_child_run(const char *const *argv, char *const *environment, const char *folder,
                                      sl_child_tick_fn *tick, void *user, sl_child_result *out, sl_err *err);

#endif
