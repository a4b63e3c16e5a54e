/* Lines typed at a terminal, with editing and a history that is kept between sessions (libedit). */
#ifndef SL_CLI_LINE_H
#define SL_CLI_LINE_H

#include "base/status.h"

typedef struct sl_line sl_line;

/* Opens the editor on the terminal, with the history of $XDG_STATE_HOME/sluice/history (or ~/.local/state/…). A history
 * that can't be read or written is done without. program names the section of ~/.editrc. */
SL_WARN_UNUSED sl_status sl_line_open(const char *program, const char *prompt, sl_line **out, sl_err *err);

/* Saves the history (mode 0600) and restores the terminal. */
void sl_line_close(sl_line *line);

/* Next line without its end, valid until the next call; NULL at the end of input or on Ctrl-C (see sl_interrupts). */
const char *sl_line_read(sl_line *line);

#endif
