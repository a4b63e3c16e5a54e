#include "cli/input.h"

#include "cli/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_BYTES = 256 << 20, FIRST_BYTES = 64 << 10 };

static sl_status read_all(int fd, const char *name, sl_input *out, sl_err *err)
{
    size_t capacity = 0;
    for (;;) {
        if (out->n_bytes + 1 >= capacity) {
            capacity = capacity == 0 ? FIRST_BYTES : 2 * capacity;
            char *grown = realloc(out->bytes, capacity);
            if (grown == NULL)
                SL_FAIL(err, SL_ERR_NOMEM, "out of memory for %.120s", name);
            out->bytes = grown;
        }
        if (!sl_interrupt_wait_readable(fd))
            SL_FAIL(err, SL_ERR_CANCELLED, "interrupted");
        ssize_t n = read(fd, out->bytes + out->n_bytes, capacity - out->n_bytes - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            SL_FAIL(err, SL_ERR_IO, "cannot read %.120s: %s", name, strerror(errno));
        if (n == 0)
            break;
        out->n_bytes += (size_t)n;
        if (out->n_bytes > MAX_BYTES)
            SL_FAIL(err, SL_ERR_LIMIT, "%.120s is longer than %d MiB", name, MAX_BYTES >> 20);
    }
    out->bytes[out->n_bytes] = '\0';
    return SL_OK;
}

sl_status sl_input_read(const char *path, sl_input *out, sl_err *err)
{
    *out = (sl_input){0};
    bool standard = strcmp(path, "-") == 0;
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        SL_FAIL(err, SL_ERR_IO, "cannot open %.120s: %s", path, strerror(errno));
    sl_status status = read_all(fd, standard ? "standard input" : path, out, err);
    if (!standard)
        close(fd);
    if (status != SL_OK)
        sl_input_free(out);
    return status;
}

void sl_input_free(sl_input *input)
{
    free(input->bytes);
    *input = (sl_input){0};
}
