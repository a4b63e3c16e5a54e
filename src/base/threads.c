#define _GNU_SOURCE
#include "base/threads.h"

#include "base/clock.h"
#include "base/cpu.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SPINS = 1000,       /* some 50 µs of pause instructions (140 cycles each since Skylake) before yielding */
    YIELD_NS = 1000000, /* of yielding before sleeping; a yield to another program can itself take longer */
    MAX_THREADS = 1024,
};

struct sl_threads {
    int n_threads;
    bool crowded; /* more workers than CPUs: yield at once instead of spinning */
    bool stop;
    sl_threads_fn *fn;
    void *user;
    pthread_t *handles; /* n_threads - 1 */
    int n_started;

    _Alignas(64) atomic_uint generation; /* one run each; futex word, as is phase */
    _Alignas(64) atomic_int n_arrived;   /* at the barrier */
    _Alignas(64) atomic_uint phase;      /* of the barrier */
    _Alignas(64) atomic_int n_sleeping;  /* on either word */
};

typedef struct {
    sl_threads *pool;
    int index;
} worker_start;

static void pause_once(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Waits until *word is other than seen, which it returns: spins (or does idle work), yields, sleeps. */
static unsigned wait_change(sl_threads *pool, atomic_uint *word, unsigned seen, sl_idle_fn *idle, void *user)
{
    bool busy = idle != NULL && !pool->crowded;
    int spins = pool->crowded ? 0 : SPINS;
    int64_t sleep_at = 0;
    for (;;) {
        unsigned now = atomic_load_explicit(word, memory_order_acquire);
        if (now != seen)
            return now;
        if (busy) {
            busy = idle(user);
        } else if (spins-- > 0) {
            pause_once();
        } else if (sleep_at == 0 || sl_clock_ns() < sleep_at) {
            if (sleep_at == 0)
                sleep_at = sl_clock_ns() + YIELD_NS;
            sched_yield();
        } else {
            atomic_fetch_add(&pool->n_sleeping, 1);
            syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
            atomic_fetch_sub(&pool->n_sleeping, 1);
        }
    }
}

/* Sets a word that wait_change waits for. */
static void change(sl_threads *pool, atomic_uint *word, unsigned value)
{
    atomic_store(word, value);
    if (atomic_load(&pool->n_sleeping) > 0)
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, pool->n_threads, NULL, NULL, 0);
}

bool sl_threads_arrive(sl_threads *pool, sl_idle_fn *idle, void *user)
{
    if (pool->n_threads == 1)
        return true;
    unsigned phase = atomic_load_explicit(&pool->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&pool->n_arrived, 1, memory_order_acq_rel) == pool->n_threads - 1)
        return true;
    (void)wait_change(pool, &pool->phase, phase, idle, user);
    return false;
}

void sl_threads_release(sl_threads *pool)
{
    if (pool->n_threads == 1)
        return;
    atomic_store_explicit(&pool->n_arrived, 0, memory_order_relaxed);
    change(pool, &pool->phase, atomic_load_explicit(&pool->phase, memory_order_relaxed) + 1);
}

void sl_threads_barrier(sl_threads *pool)
{
    if (sl_threads_arrive(pool, NULL, NULL))
        sl_threads_release(pool);
}

static void *worker_main(void *arg)
{
    worker_start start = *(worker_start *)arg;
    free(arg);
    sl_threads *pool = start.pool;
    unsigned seen = 0;
    for (;;) {
        seen = wait_change(pool, &pool->generation, seen, NULL, NULL);
        if (pool->stop)
            return NULL;
        pool->fn(pool->user, start.index, pool->n_threads);
        sl_threads_barrier(pool);
    }
}

static void begin_generation(sl_threads *pool)
{
    change(pool, &pool->generation, atomic_load_explicit(&pool->generation, memory_order_relaxed) + 1);
}

static sl_status start_workers(sl_threads *pool, sl_err *err)
{
    /* Workers take no signals: those belong to the program's own threads. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0;
    for (int i = 1; i < pool->n_threads && rc == 0; i++) {
        worker_start *start = malloc(sizeof *start);
        if (!start) {
            rc = ENOMEM;
            break;
        }
        *start = (worker_start){pool, i};
        rc = pthread_create(&pool->handles[i - 1], NULL, worker_main, start);
        if (rc == 0)
            pool->n_started++;
        else
            free(start);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc)
        SL_FAIL(err, SL_ERR_NOMEM, "cannot start %d worker threads: %s", pool->n_threads, strerror(rc));
    return SL_OK;
}

sl_status sl_threads_open(int n_threads, sl_threads **out, sl_err *err)
{
    *out = NULL;
    if (n_threads == 0)
        n_threads = sl_cpu_count();
    if (n_threads < 1 || n_threads > MAX_THREADS)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%d threads asked for: give 1 to %d", n_threads, MAX_THREADS);
    sl_threads *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    pthread_t *handles = calloc((size_t)n_threads, sizeof *handles);
    if (!pool || !handles) {
        free(pool);
        free(handles);
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for %d threads", n_threads);
    }
    memset(pool, 0, sizeof *pool);
    pool->n_threads = n_threads;
    pool->handles = handles;
    pool->crowded = n_threads > sl_cpu_count();
    sl_status status = start_workers(pool, err);
    if (status != SL_OK) {
        sl_threads_close(pool);
        return status;
    }
    *out = pool;
    return SL_OK;
}

void sl_threads_close(sl_threads *pool)
{
    if (!pool)
        return;
    pool->stop = true;
    begin_generation(pool);
    for (int i = 0; i < pool->n_started; i++)
        pthread_join(pool->handles[i], NULL);
    free(pool->handles);
    free(pool);
}

sl_status sl_threads_pin(sl_threads *pool, sl_err *err)
{
    cpu_set_t allowed;
    int rc = pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed);
    if (rc)
        SL_FAIL(err, SL_ERR_IO, "cannot learn which CPUs may be used: %s", strerror(rc));
    if (pool->n_threads > CPU_COUNT(&allowed))
        SL_FAIL(err, SL_ERR_ARGUMENT, "%d workers cannot each have one of %d CPUs: take fewer threads, or do not pin",
                pool->n_threads, CPU_COUNT(&allowed));
    for (int i = 0, cpu = 0; i < pool->n_threads; i++, cpu++) {
        while (!CPU_ISSET(cpu, &allowed))
            cpu++;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        rc = pthread_setaffinity_np(i == 0 ? pthread_self() : pool->handles[i - 1], sizeof one, &one);
        if (rc)
            SL_FAIL(err, SL_ERR_IO, "cannot pin worker %d to CPU %d: %s", i, cpu, strerror(rc));
    }
    return SL_OK;
}

int sl_threads_count(const sl_threads *pool)
{
    return pool->n_threads;
}

void sl_threads_run(sl_threads *pool, sl_threads_fn *fn, void *user)
{
    if (pool->n_threads == 1) {
        fn(user, 0, 1);
        return;
    }
    pool->fn = fn;
    pool->user = user;
    begin_generation(pool);
    fn(user, 0, pool->n_threads);
    sl_threads_barrier(pool);
}
