/* A small bounded pool of threads for text work that may take long (templates, tokenizing, parsing), so that neither an
 * event loop nor the engine thread ever waits for it. */
#ifndef SL_APP_JOBS_H
#define SL_APP_JOBS_H

#include "base/status.h"

typedef struct sl_jobs sl_jobs;

/* Runs on a thread of the pool; how it tells of its end is its own business. */
typedef void sl_job_fn(void *user);

/* Starts n_threads (1 to 64) that take jobs in order of arrival; at most capacity (1 to 65536) of them wait. */
SL_WARN_UNUSED sl_status sl_jobs_open(uint32_t n_threads, uint32_t capacity, sl_jobs **out, sl_err *err);

/* Runs what still waits, then ends the threads. */
void sl_jobs_close(sl_jobs *jobs);

/* Queues fn(user). From any thread; never blocks. SL_ERR_LIMIT when capacity jobs wait already. */
SL_WARN_UNUSED sl_status sl_jobs_submit(sl_jobs *jobs, sl_job_fn *fn, void *user, sl_err *err);

#endif
