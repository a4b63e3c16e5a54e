#define _GNU_SOURCE
#include "cli/interrupt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static atomic_int n_interrupts;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    if (atomic_fetch_add(&n_interrupts, 1) >= 2)
        _exit(130);
}

void sl_interrupt_install(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

int sl_interrupts(void)
{
    return atomic_load(&n_interrupts);
}

void sl_interrupt_reset(void)
{
    atomic_store(&n_interrupts, 0);
}

bool sl_interrupt_wait_readable(int fd)
{
    /* SIGINT is let in only inside ppoll, so that none gets lost between the look at the counter and the wait. */
    sigset_t interrupt, before;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    pthread_sigmask(SIG_BLOCK, &interrupt, &before);
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    while (sl_interrupts() == 0 && ppoll(&poll_fd, 1, NULL, &before) < 0 && errno == EINTR)
        ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return sl_interrupts() == 0;
}
