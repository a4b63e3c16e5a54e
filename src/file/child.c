#define _GNU_SOURCE
#include "file/child.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TICK_MS = 100, TERM_WAIT_US = 2000000 };

/* Lines of output as they come in. */
typedef struct line_reader {
    char line[sizeof((sl_child_result *)0)->last_line];
    size_t n_bytes;
    bool has_error; /* the result holds a line that begins with ERROR */
    sl_child_result *result;
} line_reader;

static void end_line(line_reader *reader)
{
    reader->line[reader->n_bytes] = 0;
    bool is_error = !strncmp(reader->line, "ERROR", 5);
    if (strspn(reader->line, " ") < reader->n_bytes && (is_error || !reader->has_error)) {
        memcpy(reader->result->last_line, reader->line, reader->n_bytes + 1);
        reader->has_error = is_error;
    }
    reader->n_bytes = 0;
}

/* Takes what the pipe holds now; false at its end. */
static bool read_lines(line_reader *reader, int fd)
{
    char bytes[4096];
    ssize_t n;
    while ((n = read(fd, bytes, sizeof bytes)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            unsigned char c = (unsigned char)bytes[i];
            if (c == '\n' || c == '\r')
                end_line(reader);
            else if (c >= 0x20 && c < 0x7f && reader->n_bytes < sizeof reader->line - 1)
                reader->line[reader->n_bytes++] = (char)c;
        }
    }
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

/* posix_spawnp with the pipe's writing end as output; the error number. */
static int spawn(const char *const *argv, char *const *environment, const char *folder, int out_fd, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (error) {
        posix_spawn_file_actions_destroy(&actions);
        return error;
    }
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    const int signals[] = {SIGINT, SIGTERM, SIGQUIT, SIGPIPE, SIGHUP};
    for (size_t i = 0; i < SL_COUNTOF(signals); i++)
        sigaddset(&defaults, signals[i]);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    error = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (!error)
        error = posix_spawn_file_actions_adddup2(&actions, out_fd, 1);
    if (!error)
        error = posix_spawn_file_actions_adddup2(&actions, out_fd, 2);
    if (!error)
        error = posix_spawn_file_actions_addchdir_np(&actions, folder);
    if (!error)
        error = posix_spawnp(pid, argv[0], &actions, &attributes, (char *const *)argv, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

/* True when the child has ended (its wait status in *wait_status). */
static bool has_ended(pid_t pid, int flags, int *wait_status)
{
    pid_t got;
    do
        got = waitpid(pid, wait_status, flags);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        *wait_status = 0; /* the application ignores SIGCHLD, so the system forgot it: judge by what it left */
    return got != 0;
}

static void stop(pid_t pid)
{
    int ignored;
    kill(pid, SIGTERM);
    for (int64_t until = sl_clock_us() + TERM_WAIT_US; sl_clock_us() < until;) {
        if (has_ended(pid, WNOHANG, &ignored))
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    kill(pid, SIGKILL);
    has_ended(pid, 0, &ignored);
}

/* Reads and ticks until the child ends; false when tick wanted it stopped, which then has happened. */
static bool watch(pid_t pid, int fd, sl_child_tick_fn *tick, void *user, sl_child_result *out)
{
    line_reader reader = {.result = out};
    bool open = true;
    int wait_status;
    for (;;) {
        bool ended = has_ended(pid, WNOHANG, &wait_status);
        if (open)
            open = read_lines(&reader, fd);
        if (ended)
            break;
        struct pollfd ready = {.fd = open ? fd : -1, .events = POLLIN};
        poll(&ready, 1, TICK_MS);
        if (!tick(user)) {
            stop(pid);
            return false;
        }
    }
    end_line(&reader);
    out->exit_code = WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
    return tick(user);
}

sl_status sl_child_run(const char *const *argv, char *const *environment, const char *folder, sl_child_tick_fn *tick,
                       void *user, sl_child_result *out, sl_err *err)
{
    *out = (sl_child_result){0};
    int fds[2];
    if (pipe2(fds, O_CLOEXEC))
        SL_FAIL(err, SL_ERR_IO, "can't run %s: %s", argv[0], strerror(errno));
    pid_t pid = 0;
    int error = fcntl(fds[0], F_SETFL, O_NONBLOCK) ? errno : spawn(argv, environment, folder, fds[1], &pid);
    close(fds[1]);
    if (error) {
        close(fds[0]);
        SL_FAIL(err, error == ENOENT ? SL_ERR_NOT_FOUND : SL_ERR_IO, "can't run %s: %s", argv[0], strerror(error));
    }
    bool finished = watch(pid, fds[0], tick, user, out);
    close(fds[0]);
    if (!finished)
        SL_FAIL(err, SL_ERR_CANCELLED, "%s was stopped", argv[0]);
    return SL_OK;
}
