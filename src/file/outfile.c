#include "file/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 18 };

struct sl_outfile {
    int fd;
    char *temp_path;
    uint64_t n_bytes;
    size_t n_buffered;
    char buffer[BUFFER_BYTES];
};

sl_status sl_outfile_open(const char *temp_path, sl_outfile **out, sl_err *err)
{
    *out = NULL;
    sl_outfile *file = malloc(sizeof *file);
    char *copy = strdup(temp_path);
    if (!file || !copy) {
        free(file);
        free(copy);
        SL_FAIL(err, SL_ERR_NOMEM, "not enough memory to write a file");
    }
    file->fd = open(temp_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file->fd < 0) {
        int error = errno;
        free(file);
        free(copy);
        SL_FAIL(err, SL_ERR_IO, "can't create %.150s: %s", temp_path, strerror(error));
    }
    file->temp_path = copy;
    file->n_bytes = 0;
    file->n_buffered = 0;
    *out = file;
    return SL_OK;
}

static sl_status write_all(sl_outfile *file, const char *bytes, size_t n_bytes, sl_err *err)
{
    while (n_bytes) {
        ssize_t n = write(file->fd, bytes, n_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            SL_FAIL(err, SL_ERR_IO, "can't write %.150s: %s", file->temp_path, strerror(errno));
        bytes += n;
        n_bytes -= (size_t)n;
    }
    return SL_OK;
}

sl_status sl_outfile_write(sl_outfile *file, const void *bytes, size_t n_bytes, sl_err *err)
{
    if (n_bytes > BUFFER_BYTES - file->n_buffered) {
        SL_TRY(write_all(file, file->buffer, file->n_buffered, err));
        file->n_buffered = 0;
    }
    if (n_bytes > BUFFER_BYTES) {
        SL_TRY(write_all(file, bytes, n_bytes, err));
    } else if (n_bytes) {
        memcpy(file->buffer + file->n_buffered, bytes, n_bytes);
        file->n_buffered += n_bytes;
    }
    file->n_bytes += n_bytes;
    return SL_OK;
}

uint64_t sl_outfile_n_bytes(const sl_outfile *file)
{
    return file->n_bytes;
}

static void free_file(sl_outfile *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file->temp_path);
    free(file);
}

/* Makes the rename last; the file is whole either way, so a file system that can't do it is no failure. */
static void sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(folder);
}

sl_status sl_outfile_commit(sl_outfile *file, const char *path, sl_err *err)
{
    sl_status status = write_all(file, file->buffer, file->n_buffered, err);
    if (status == SL_OK && fsync(file->fd))
        status = sl_err_set(err, SL_ERR_IO, "can't write %.150s: %s", file->temp_path, strerror(errno));
    int fd = file->fd;
    file->fd = -1;
    if (close(fd) && status == SL_OK)
        status = sl_err_set(err, SL_ERR_IO, "can't write %.150s: %s", file->temp_path, strerror(errno));
    if (status == SL_OK && rename(file->temp_path, path))
        status = sl_err_set(err, SL_ERR_IO, "can't put %.150s in place: %s", path, strerror(errno));
    if (status != SL_OK) {
        sl_outfile_discard(file);
        return status;
    }
    sync_folder_of(path);
    free_file(file);
    return SL_OK;
}

void sl_outfile_discard(sl_outfile *file)
{
    if (!file)
        return;
    unlink(file->temp_path);
    free_file(file);
}
