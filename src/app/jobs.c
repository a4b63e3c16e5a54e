#include "app/jobs.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 64, MAX_CAPACITY = 65536 };

typedef struct {
    sl_job_fn *fn;
    void *user;
} job;

struct sl_jobs {
    pthread_mutex_t lock;
    pthread_cond_t work;
    job *ring;
    uint32_t capacity, first, n_waiting;
    bool closing;
    uint32_t n_threads;
    pthread_t threads[MAX_THREADS];
};

static void *worker_main(void *user)
{
    sl_jobs *jobs = user;
    pthread_mutex_lock(&jobs->lock);
    for (;;) {
        while (jobs->n_waiting == 0 && !jobs->closing)
            pthread_cond_wait(&jobs->work, &jobs->lock);
        if (jobs->n_waiting == 0)
            break;
        job next = jobs->ring[jobs->first];
        jobs->first = (jobs->first + 1) % jobs->capacity;
        jobs->n_waiting--;
        pthread_mutex_unlock(&jobs->lock);
        next.fn(next.user);
        pthread_mutex_lock(&jobs->lock);
    }
    pthread_mutex_unlock(&jobs->lock);
    return NULL;
}

static sl_status start_threads(sl_jobs *jobs, uint32_t n_threads, sl_err *err)
{
    /* Signals belong to the program's own threads. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0;
    while (jobs->n_threads < n_threads && rc == 0) {
        rc = pthread_create(&jobs->threads[jobs->n_threads], NULL, worker_main, jobs);
        jobs->n_threads += rc == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        SL_FAIL(err, SL_ERR_NOMEM, "cannot start %u text threads: %s", n_threads, strerror(rc));
    return SL_OK;
}

sl_status sl_jobs_open(uint32_t n_threads, uint32_t capacity, sl_jobs **out, sl_err *err)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > MAX_THREADS || capacity < 1 || capacity > MAX_CAPACITY)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%u text threads (1 to %d) for %u jobs (1 to %d) are out of range", n_threads,
                MAX_THREADS, capacity, MAX_CAPACITY);
    sl_jobs *jobs = calloc(1, sizeof *jobs);
    if (!jobs || !(jobs->ring = calloc(capacity, sizeof *jobs->ring))) {
        free(jobs);
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a queue of %u jobs", capacity);
    }
    jobs->capacity = capacity;
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->work, NULL);
    sl_status status = start_threads(jobs, n_threads, err);
    if (status != SL_OK) {
        sl_jobs_close(jobs);
        return status;
    }
    *out = jobs;
    return SL_OK;
}

void sl_jobs_close(sl_jobs *jobs)
{
    if (!jobs)
        return;
    pthread_mutex_lock(&jobs->lock);
    jobs->closing = true;
    pthread_cond_broadcast(&jobs->work);
    pthread_mutex_unlock(&jobs->lock);
    for (uint32_t i = 0; i < jobs->n_threads; i++)
        pthread_join(jobs->threads[i], NULL);
    pthread_cond_destroy(&jobs->work);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs->ring);
    free(jobs);
}

sl_status sl_jobs_submit(sl_jobs *jobs, sl_job_fn *fn, void *user, sl_err *err)
{
    pthread_mutex_lock(&jobs->lock);
    bool room = jobs->n_waiting < jobs->capacity;
    if (room) {
        jobs->ring[(jobs->first + jobs->n_waiting) % jobs->capacity] = (job){fn, user};
        jobs->n_waiting++;
        pthread_cond_signal(&jobs->work);
    }
    pthread_mutex_unlock(&jobs->lock);
    if (!room)
        SL_FAIL(err, SL_ERR_LIMIT, "too many requests at once: %u wait for their text to be read", jobs->capacity);
    return SL_OK;
}
