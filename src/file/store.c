#define _GNU_SOURCE
#include "file/store.h"

#include "file/pull.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char suffix[] = ".gguf";
enum { SUFFIX_BYTES = sizeof suffix - 1, MAX_NAME_BYTES = 64 };

static sl_status no_memory(sl_err *err)
{
    SL_FAIL(err, SL_ERR_NOMEM, "not enough memory for the list of models");
}

sl_status sl_store_folder(const char *folder, char **out, sl_err *err)
{
    *out = NULL;
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int n;
    if (folder)
        n = asprintf(out, "%s", folder);
    else if (data && data[0] == '/') /* the XDG specification: relative paths are ignored */
        n = asprintf(out, "%s/sluice/models", data);
    else if (home && home[0] == '/')
        n = asprintf(out, "%s/.local/share/sluice/models", home);
    else
        SL_FAIL(err, SL_ERR_NOT_FOUND, "no place for models: set XDG_DATA_HOME or HOME to an absolute path");
    if (n < 0) {
        *out = NULL;
        return no_memory(err);
    }
    return SL_OK;
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool sl_store_name_ok(const char *name)
{
    size_t n = strnlen(name, MAX_NAME_BYTES + 1);
    if (!is_alnum(name[0]) || n > MAX_NAME_BYTES || strstr(name, ".."))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!is_alnum(name[i]) && name[i] != '.' && name[i] != '_' && name[i] != '-')
            return false;
    return true;
}

/* Length of the model's name in a file name; 0 when the file is no model of the store. */
static size_t name_bytes(const char *file_name)
{
    size_t n = strlen(file_name);
    char name[MAX_NAME_BYTES + 1];
    if (n <= SUFFIX_BYTES || n - SUFFIX_BYTES > MAX_NAME_BYTES || strcmp(file_name + n - SUFFIX_BYTES, suffix))
        return 0;
    n -= SUFFIX_BYTES;
    memcpy(name, file_name, n);
    name[n] = 0;
    return sl_store_name_ok(name) ? n : 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const sl_store_model *)a)->name, ((const sl_store_model *)b)->name);
}

void sl_store_list_free(sl_store_model *models, size_t n_models)
{
    for (size_t i = 0; i < n_models; i++) {
        free(models[i].name);
        free(models[i].path);
    }
    free(models);
}

/* Appends the model behind one entry of dir, when it is one. */
static sl_status add_model(DIR *dir, const char *folder, const char *file_name, sl_store_model **models, size_t *n,
                           sl_err *err)
{
    struct stat st;
    size_t n_name = name_bytes(file_name);
    if (!n_name || fstatat(dirfd(dir), file_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
        return SL_OK;
    sl_store_model *wider = reallocarray(*models, *n + 1, sizeof *wider);
    if (!wider)
        return no_memory(err);
    *models = wider;
    sl_store_model *model = &wider[*n];
    model->n_bytes = (uint64_t)st.st_size;
    model->name = strndup(file_name, n_name);
    if (!model->name || asprintf(&model->path, "%s/%s", folder, file_name) < 0) {
        free(model->name);
        return no_memory(err);
    }
    ++*n;
    return SL_OK;
}

static sl_status list_folder(const char *folder, sl_store_model **models, size_t *n, sl_err *err)
{
    DIR *dir = opendir(folder);
    if (!dir && errno == ENOENT)
        return SL_OK;
    if (!dir)
        SL_FAIL(err, SL_ERR_IO, "can't read %.150s: %s", folder, strerror(errno));
    sl_status status = SL_OK;
    const struct dirent *entry;
    while (status == SL_OK && (entry = readdir(dir)))
        status = add_model(dir, folder, entry->d_name, models, n, err);
    closedir(dir);
    return status;
}

sl_status sl_store_list(const char *folder, sl_store_model **out, size_t *n_models, sl_err *err)
{
    *out = NULL;
    *n_models = 0;
    char *place;
    SL_TRY(sl_store_folder(folder, &place, err));
    sl_store_model *models = NULL;
    size_t n = 0;
    sl_status status = list_folder(place, &models, &n, err);
    free(place);
    if (status != SL_OK) {
        sl_store_list_free(models, n);
        return status;
    }
    if (n)
        qsort(models, n, sizeof *models, by_name);
    *out = models;
    *n_models = n;
    return SL_OK;
}

sl_status sl_store_find(const char *folder, const char *name, char **out, sl_err *err)
{
    *out = NULL;
    if (!sl_store_name_ok(name))
        return SL_OK;
    char *place, *path;
    SL_TRY(sl_store_folder(folder, &place, err));
    int n = asprintf(&path, "%s/%s%s", place, name, suffix);
    free(place);
    if (n < 0)
        return no_memory(err);
    struct stat st;
    if (lstat(path, &st) || !S_ISREG(st.st_mode))
        free(path);
    else
        *out = path;
    return SL_OK;
}

sl_status sl_store_remove(const char *folder, const char *name, sl_err *err)
{
    char *path = NULL;
    SL_TRY(sl_store_find(folder, name, &path, err));
    if (!path)
        SL_FAIL(err, SL_ERR_NOT_FOUND, "no pulled model named '%.100s': `sluice list` shows them", name);
    sl_status status = SL_OK;
    if (unlink(path))
        status = sl_err_set(err, SL_ERR_IO, "can't remove %.150s: %s", path, strerror(errno));
    free(path);
    return status;
}

sl_status sl_store_resolve(const char *folder, const char *argument, char **out, sl_err *err)
{
    struct stat st;
    *out = NULL;
    if (strchr(argument, '/') || (!stat(argument, &st) && !S_ISDIR(st.st_mode))) {
        *out = strdup(argument);
        return *out ? SL_OK : no_memory(err);
    }
    SL_TRY(sl_store_find(folder, argument, out, err));
    if (*out)
        return SL_OK;
    const sl_pull_spec *known;
    if (sl_pull_find(argument, &known, NULL) != SL_OK)
        known = &sl_pull_specs(NULL)[0];
    SL_FAIL(err, SL_ERR_NOT_FOUND, "no model file or pulled model named '%.100s': try `sluice pull %s`", argument,
            known->name);
}
