/* What the kernels' benchmarks share. */
#ifndef SL_BENCH_SUPPORT_H
#define SL_BENCH_SUPPORT_H

#include "base/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* CPU time of the calling thread: what others do on the machine does not count. */
static inline double bench_cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* Zeroed pages, never given back; ends the program when there are none. */
static inline void *bench_allocate(size_t n_bytes)
{
    void *p = sl_pages_alloc(n_bytes);
    if (!p) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    memset(p, 0, n_bytes);
    return p;
}

#endif
