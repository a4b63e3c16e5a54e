/* Pool of kernel workers: all run the same function, separated by barriers. */
#ifndef SL_BASE_THREADS_H
#define SL_BASE_THREADS_H

#include "base/status.h"

typedef struct sl_threads sl_threads;

/* Work of one worker: index in [0, n_threads). Barriers inside it go through sl_threads_barrier. */
typedef void sl_threads_fn(void *user, int index, int n_threads);

/* Opens a pool of n_threads workers, the calling thread of sl_threads_run being worker 0. n_threads 0 means
 * sl_cpu_count(). At most 1024. The caller closes it. */
SL_WARN_UNUSED sl_status sl_threads_open(int n_threads, sl_threads **out, sl_err *err);
void sl_threads_close(sl_threads *pool);

int sl_threads_count(const sl_threads *pool);

/* Binds each worker, and the calling thread as worker 0, to one CPU of those the process may use, in their order. They
 * stay there until the threads end. SL_ERR_ARGUMENT when there are more workers than CPUs; SL_ERR_IO when the system
 * refuses. */
SL_WARN_UNUSED sl_status sl_threads_pin(sl_threads *pool, sl_err *err);

/* Runs fn on every worker and returns when all are done. One run at a time per pool. Workers that wait spin
 * briefly, then yield, then sleep, so an idle pool uses no CPU. */
void sl_threads_run(sl_threads *pool, sl_threads_fn *fn, void *user);

/* Waits inside a run until every worker has arrived: as above, without spinning when there are more workers than CPUs. */
void sl_threads_barrier(sl_threads *pool);

/* What a worker does while it waits: much less than a microsecond of it in each call. False when nothing is left. */
typedef bool sl_idle_fn(void *user);

/* A barrier with work for one in its middle: true at once for the worker that arrives last, which does the work while
 * the others wait and then calls sl_threads_release; false for the others, after that. Those who wait call idle (or NULL)
 * until it returns false, unless there are more workers than CPUs. */
SL_WARN_UNUSED bool sl_threads_arrive(sl_threads *pool, sl_idle_fn *idle, void *user);
void sl_threads_release(sl_threads *pool);

/* Share of n items that worker index of n_threads does: [*begin, *end), contiguous, sizes differing by one at most. */
static inline void sl_threads_share(size_t n, int index, int n_threads, size_t *begin, size_t *end)
{
    size_t q = n / (size_t)n_threads, r = n % (size_t)n_threads, i = (size_t)index;
    *begin = q * i + (i < r ? i : r);
    *end = *begin + q + (i < r);
}

#endif
