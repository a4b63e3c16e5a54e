#include "app/api.h"
#include "base/clock.h"

#include <time.h>

void sl_sign_init(sl_sign *sign)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&sign->lock, NULL);
    pthread_cond_init(&sign->cond, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sign->raised = false;
}

void sl_sign_destroy(sl_sign *sign)
{
    pthread_cond_destroy(&sign->cond);
    pthread_mutex_destroy(&sign->lock);
}

void sl_sign_raise(void *user)
{
    sl_sign *sign = user;
    pthread_mutex_lock(&sign->lock);
    sign->raised = true;
    pthread_cond_signal(&sign->cond);
    pthread_mutex_unlock(&sign->lock);
}

bool sl_sign_wait(sl_sign *sign, int64_t until_us)
{
    struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    int rc = 0;
    pthread_mutex_lock(&sign->lock);
    while (!sign->raised && rc == 0)
        rc = until_us < 0 ? pthread_cond_wait(&sign->cond, &sign->lock)
                          : pthread_cond_timedwait(&sign->cond, &sign->lock, &until);
    bool raised = sign->raised;
    sign->raised = false;
    pthread_mutex_unlock(&sign->lock);
    return raised;
}

int64_t sl_sign_deadline(int64_t timeout_us)
{
    int64_t now_us = sl_clock_us();
    return timeout_us < 0 || timeout_us > INT64_MAX - now_us ? -1 : now_us + timeout_us;
}
