/* Jobs beside the loop: a thread, a bounded queue. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "app/jobs.h"

#include <stdatomic.h>
#include <time.h>

static atomic_bool hang;
static atomic_int n_done;

static void count_job(void *user)
{
    while (user && atomic_load(&hang))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    atomic_fetch_add(&n_done, 1);
}

static void test_jobs(void **state)
{
    sl_jobs *jobs;
    sl_err err;
    int n_taken = 0;
    assert_int_equal(sl_jobs_open(0, 1, &jobs, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_jobs_open(2, 5, &jobs, &err), SL_OK);
    atomic_store(&hang, true);
    for (int i = 0; i < 20; i++)
        n_taken += sl_jobs_submit(jobs, count_job, &err, &err) == SL_OK;
    assert_in_range(n_taken, 5, 7); /* five wait, and each thread may have taken one */
    assert_int_equal(err.code, SL_ERR_LIMIT);
    atomic_store(&hang, false);
    sl_jobs_close(jobs);
    assert_int_equal(n_done, n_taken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
