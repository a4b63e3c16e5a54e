/* Ctrl-C: a counter that long work looks at. */
#ifndef SL_CLI_INTERRUPT_H
#define SL_CLI_INTERRUPT_H

#include <stdbool.h>

/* Installs the handler of SIGINT. Blocking system calls return EINTR. The third Ctrl-C since the last reset ends the
 * process with code 130 at once, for the case that nobody looks. */
void sl_interrupt_install(void);

/* How often Ctrl-C was pressed since the last reset. */
int sl_interrupts(void);
void sl_interrupt_reset(void);

/* Waits until fd can be read or Ctrl-C was pressed (then false), without missing one in between. */
bool sl_interrupt_wait_readable(int fd);

#endif
