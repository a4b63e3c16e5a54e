/* Monotonic time. Code that schedules takes the time as an argument, so that it can be simulated. */
#ifndef SL_BASE_CLOCK_H
#define SL_BASE_CLOCK_H

#include <stdint.h>

/* Microseconds and nanoseconds of CLOCK_MONOTONIC. */
int64_t sl_clock_us(void);
int64_t sl_clock_ns(void);

/* A clock that is passed in: microseconds, never backwards. */
typedef int64_t sl_clock_fn(void *user);

#endif
