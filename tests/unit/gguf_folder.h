/* A folder of its own for each program that tests GGUF files, and reading and writing in it. */
#ifndef SL_TESTS_UNIT_GGUF_FOLDER_H
#define SL_TESTS_UNIT_GGUF_FOLDER_H

#include <fcntl.h>
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "file/gguf_writer.h"

static char folder[] = "/tmp/sluice-gguf-XXXXXX";
static char path_buffer[4096];

static inline int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static inline const char *in_folder(const char *name)
{
    snprintf(path_buffer, sizeof path_buffer, "%s/%s", folder, name);
    return path_buffer;
}

static inline size_t n_files(void)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2;
}

static inline uint8_t *slurp(const char *path, size_t *n_bytes)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint8_t *bytes = malloc(1 << 20);
    assert_non_null(bytes);
    *n_bytes = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    return bytes;
}

static inline void ok(sl_status status, const sl_err *err)
{
    if (status != SL_OK)
        fail_msg("%s: %s", sl_status_name(status), err->message);
}

#endif
