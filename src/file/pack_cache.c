#define _GNU_SOURCE
#include "file/pack_cache.h"

#include "base/checked.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char suffix[] = ".pack", temp_suffix[] = ".pack.tmp";
static const uint64_t default_bytes = UINT64_C(20000000000);

struct sl_pack_writer {
    const sl_pack_cache_options *options;
    sl_packfile *file;
    int folder, fd;
    char name[SL_PACK_NAME_BYTES], temp_name[SL_PACK_NAME_BYTES + 48];
    uint64_t max_bytes;
    int error; /* errno of the first write that failed; workers set it */
};

/* ---- the folder ---- */

static sl_status folder_path(const sl_pack_cache_options *options, char **out, sl_err *err)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n;
    if (options->folder)
        n = asprintf(out, "%s", options->folder);
    else if (cache && cache[0] == '/') /* the XDG specification: relative paths are ignored */
        n = asprintf(out, "%s/sluice", cache);
    else if (home && home[0] == '/')
        n = asprintf(out, "%s/.cache/sluice", home);
    else
        SL_FAIL(err, SL_ERR_IO, "there is no place for a cache: set XDG_CACHE_HOME or HOME to an absolute path");
    if (n < 0)
        SL_FAIL(err, SL_ERR_NOMEM, "not enough memory for a path");
    return SL_OK;
}

/* Makes the folders of path that are missing, for the user alone. */
static void make_folders(char *path)
{
    for (char *slash = strchr(path + (path[0] == '/'), '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    (void)mkdir(path, 0700);
}

/* Why the folder behind fd must not be used; NULL when it may. */
static const char *folder_fault(int fd)
{
    struct stat st;
    if (fstat(fd, &st))
        return strerror(errno);
    if (st.st_uid != geteuid())
        return "it belongs to another user";
    if ((st.st_mode & 0077) && fchmod(fd, 0700))
        return "it is open to other users";
    return NULL;
}

static sl_status open_folder(const sl_pack_cache_options *options, bool make, int *out, sl_err *err)
{
    char *path = NULL;
    SL_TRY(folder_path(options, &path, err));
    if (make)
        make_folders(path);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    sl_status status = SL_OK;
    const char *fault = fd < 0 ? strerror(errno) : folder_fault(fd);
    if (fd < 0 && errno == ENOENT && !make)
        status = sl_err_set(err, SL_ERR_NOT_FOUND, "there is no cache yet");
    else if (fault)
        status = sl_err_set(err, SL_ERR_IO, "the cache folder %.120s can't be used: %s", path, fault);
    if (status != SL_OK && fd >= 0)
        close(fd);
    *out = fd;
    free(path);
    return status;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), n_end = strlen(end);
    return n > n_end && strcmp(name + n - n_end, end) == 0;
}

/* Calls fn for every regular file of the folder whose name ends so. */
typedef void entry_fn(void *user, int folder, const char *name, const struct stat *st);
static void for_each_entry(int folder, const char *end, entry_fn *fn, void *user)
{
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    if (!dir) {
        if (copy >= 0)
            close(copy);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat st;
        if (ends_with(entry->d_name, end) && !fstatat(folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
            S_ISREG(st.st_mode))
            fn(user, folder, entry->d_name, &st);
    }
    closedir(dir);
}

/* The number of this boot; zeros when the system tells none. */
static void read_boot(uint8_t boot[SL_PACKFILE_BOOT_BYTES])
{
    char text[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    memset(boot, 0, SL_PACKFILE_BOOT_BYTES);
    for (ssize_t i = 0, k = 0; i < n && k < 2 * SL_PACKFILE_BOOT_BYTES; i++) {
        const char *digits = "0123456789abcdef", *digit = text[i] ? strchr(digits, text[i]) : NULL;
        if (digit) {
            boot[k / 2] = (uint8_t)(boot[k / 2] << 4 | (digit - digits));
            k++;
        }
    }
}

static bool is_zero(const uint8_t boot[SL_PACKFILE_BOOT_BYTES])
{
    static const uint8_t zero[SL_PACKFILE_BOOT_BYTES];
    return memcmp(boot, zero, sizeof zero) == 0;
}

/* ---- reading ---- */

static sl_status read_header(int fd, sl_packfile *file, sl_err *err)
{
    struct stat st;
    if (fstat(fd, &st))
        SL_FAIL(err, SL_ERR_IO, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 0022))
        SL_FAIL(err, SL_ERR_IO, "it is no file that this user alone can write");
    uint8_t *bytes = malloc(file->header_bytes);
    if (!bytes)
        SL_FAIL(err, SL_ERR_NOMEM, "not enough memory to read its header");
    ssize_t n = pread(fd, bytes, file->header_bytes, 0);
    sl_status status = n < 0 ? sl_err_set(err, SL_ERR_IO, "%s", strerror(errno))
                             : sl_packfile_check_header(file, bytes, (size_t)n, (uint64_t)st.st_size, err);
    free(bytes);
    return status;
}

static sl_status map_file(int fd, const sl_packfile *file, sl_pack_map *out, sl_err *err)
{
    void *bytes = mmap(NULL, file->n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        SL_FAIL(err, SL_ERR_IO, "can't map it: %s", strerror(errno));
    /* Asks for folios of 2 MB where the file system has them. No MADV_WILLNEED: it would read into small ones. */
    (void)madvise(bytes, file->n_bytes, MADV_HUGEPAGE);
    *out = (sl_pack_map){.bytes = bytes, .n_bytes = file->n_bytes};
    return SL_OK;
}

sl_status sl_pack_cache_find(const sl_pack_cache_options *options, const char *name, sl_packfile *file,
                             sl_pack_map *out, sl_err *err)
{
    *out = (sl_pack_map){0};
    int folder = -1;
    SL_TRY(open_folder(options, false, &folder, err));
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int error = errno;
    close(folder);
    if (fd < 0 && error == ENOENT)
        SL_FAIL(err, SL_ERR_NOT_FOUND, "it is not in the cache");
    if (fd < 0)
        SL_FAIL(err, SL_ERR_IO, "%s", strerror(error));
    sl_status status = read_header(fd, file, err);
    if (status == SL_OK)
        status = map_file(fd, file, out, err);
    if (status == SL_OK) {
        uint8_t boot[SL_PACKFILE_BOOT_BYTES];
        read_boot(boot);
        out->unproved = !is_zero(file->boot) && memcmp(boot, file->boot, sizeof boot) != 0;
        (void)futimens(fd, NULL); /* the time of last use */
    }
    close(fd);
    return status;
}

void sl_pack_map_close(sl_pack_map *map)
{
    if (map->bytes)
        munmap((void *)(uintptr_t)map->bytes, map->n_bytes);
    *map = (sl_pack_map){0};
}

static bool write_all(int fd, uint64_t offset, const void *bytes, size_t n_bytes)
{
    const char *at = bytes;
    while (n_bytes) {
        ssize_t n = pwrite(fd, at, n_bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        offset += (uint64_t)n;
        n_bytes -= (size_t)n;
    }
    return true;
}

static bool write_header(int fd, const sl_packfile *file)
{
    uint8_t *bytes = malloc(file->header_bytes);
    if (!bytes) {
        errno = ENOMEM;
        return false;
    }
    sl_packfile_write_header(file, bytes);
    bool good = write_all(fd, 0, bytes, file->header_bytes);
    free(bytes);
    return good;
}

void sl_pack_cache_mark(const sl_pack_cache_options *options, const char *name, const sl_packfile *file)
{
    int folder = -1;
    if (open_folder(options, false, &folder, NULL) != SL_OK)
        return;
    int fd = openat(folder, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    close(folder);
    if (fd < 0)
        return;
    /* The name may stand for another process's new file by now: only a header that still is the one read is replaced. */
    sl_packfile_section *sections = calloc((size_t)file->n_sections + 1, sizeof *sections);
    sl_packfile now = *file, proved = *file;
    if (sections)
        memcpy(sections, file->sections, file->n_sections * sizeof *sections);
    now.sections = sections;
    memset(proved.boot, 0, sizeof proved.boot);
    if (sections && read_header(fd, &now, NULL) == SL_OK && memcmp(now.boot, file->boot, sizeof now.boot) == 0 &&
        memcmp(sections, file->sections, file->n_sections * sizeof *sections) == 0)
        (void)write_header(fd, &proved);
    free(sections);
    close(fd);
}

/* ---- writing ---- */

static void remove_stale(void *user, int folder, const char *name, const struct stat *st)
{
    (void)user;
    (void)st;
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    if (!flock(fd, LOCK_EX | LOCK_NB))
        unlinkat(folder, name, 0);
    close(fd);
}

/* Most bytes that the cache may take, and whether n_bytes more may be written. */
static sl_status find_room(sl_pack_writer *w, sl_err *err)
{
    struct statvfs fs;
    uint64_t need = w->file->n_bytes, disk = UINT64_MAX;
    w->max_bytes = w->options->max_bytes ? w->options->max_bytes : default_bytes;
    if (fstatvfs(w->folder, &fs) == 0 && sl_mul_u64(fs.f_blocks, fs.f_frsize, &disk)) {
        if (!w->options->max_bytes)
            w->max_bytes = SL_MIN(w->max_bytes, disk / 4);
        if ((uint64_t)fs.f_bavail * fs.f_frsize < need + disk / 50)
            SL_FAIL(err, SL_ERR_IO, "the disk of the cache is nearly full");
    }
    if (need > w->max_bytes)
        SL_FAIL(err, SL_ERR_LIMIT, "%.1f GB are more than the cache may take (%.1f GB): --cache-size allows more",
                (double)need / 1e9, (double)w->max_bytes / 1e9);
    return SL_OK;
}

/* Fills the page cache with folios of 2 MB of zeros before the file is written in smaller parts: those who map the file
 * later read its weights through large pages (a matmul of one row gains 4 %). Costs no reading: nothing is on disk yet. */
static void make_large_pages(int fd, uint64_t n_bytes)
{
#ifdef MADV_POPULATE_READ
    enum { SLICE_BYTES = 64 << 20 /* resident at a time */ };
    for (uint64_t at = 0; at < n_bytes; at += SLICE_BYTES) {
        const size_t n = (size_t)SL_MIN(n_bytes - at, (uint64_t)SLICE_BYTES);
        void *bytes = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, (off_t)at);
        if (bytes == MAP_FAILED)
            return;
        bool good = !madvise(bytes, n, MADV_HUGEPAGE) && !madvise(bytes, n, MADV_POPULATE_READ);
        munmap(bytes, n);
        if (!good)
            return;
    }
#endif
}

static sl_status create_file(sl_pack_writer *w, sl_err *err)
{
    static unsigned serial;
    snprintf(w->temp_name, sizeof w->temp_name, "%.*s.%ld.%u%s", (int)(strlen(w->name) - strlen(suffix)), w->name,
             (long)getpid(), __atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED), temp_suffix);
    w->fd = openat(w->folder, w->temp_name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (w->fd < 0)
        SL_FAIL(err, SL_ERR_IO, "can't make a file in the cache: %s", strerror(errno));
    (void)flock(w->fd, LOCK_EX | LOCK_NB); /* says that somebody is at work on it */
    if (fallocate(w->fd, 0, 0, (off_t)w->file->n_bytes) && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        SL_FAIL(err, SL_ERR_IO, "no space for %.1f MB in the cache: %s", (double)w->file->n_bytes / 1e6,
                strerror(errno));
    if (ftruncate(w->fd, (off_t)w->file->n_bytes))
        SL_FAIL(err, SL_ERR_IO, "can't make a file in the cache: %s", strerror(errno));
    make_large_pages(w->fd, w->file->n_bytes);
    return SL_OK;
}

sl_status sl_pack_writer_open(const sl_pack_cache_options *options, const char *name, sl_packfile *file,
                              sl_pack_writer **out, sl_err *err)
{
    *out = NULL;
    SL_ASSERT(strlen(name) < SL_PACK_NAME_BYTES && ends_with(name, suffix));
    sl_pack_writer *w = calloc(1, sizeof *w);
    if (!w)
        SL_FAIL(err, SL_ERR_NOMEM, "not enough memory to write the cache");
    *w = (sl_pack_writer){.options = options, .file = file, .folder = -1, .fd = -1};
    snprintf(w->name, sizeof w->name, "%s", name);
    sl_status status = open_folder(options, true, &w->folder, err);
    if (status == SL_OK) {
        for_each_entry(w->folder, temp_suffix, remove_stale, NULL);
        status = find_room(w, err);
    }
    if (status == SL_OK)
        status = create_file(w, err);
    if (status != SL_OK) {
        sl_pack_writer_abandon(w);
        return status;
    }
    *out = w;
    return SL_OK;
}

bool sl_pack_writer_write(sl_pack_writer *w, uint64_t offset, const void *bytes, size_t n_bytes)
{
    if (write_all(w->fd, offset, bytes, n_bytes))
        return true;
    __atomic_store_n(&w->error, errno ? errno : EIO, __ATOMIC_RELAXED);
    return false;
}

void sl_pack_writer_abandon(sl_pack_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0) {
        unlinkat(w->folder, w->temp_name, 0);
        close(w->fd);
    }
    if (w->folder >= 0)
        close(w->folder);
    free(w);
}

/* ---- the size of the cache ---- */

typedef struct {
    const char *kept; /* never chosen */
    uint64_t n_bytes; /* of all */
    char oldest[SL_PACK_NAME_BYTES];
    struct timespec used;
} survey;

static void look_at(void *user, int folder, const char *name, const struct stat *st)
{
    survey *s = user;
    (void)folder;
    s->n_bytes += (uint64_t)st->st_size;
    if (strcmp(name, s->kept) == 0 || strlen(name) >= sizeof s->oldest)
        return;
    struct timespec t = st->st_mtim;
    if (!s->oldest[0] || t.tv_sec < s->used.tv_sec || (t.tv_sec == s->used.tv_sec && t.tv_nsec < s->used.tv_nsec)) {
        snprintf(s->oldest, sizeof s->oldest, "%s", name);
        s->used = t;
    }
}

static void evict(const sl_pack_writer *w)
{
    for (;;) {
        survey s = {.kept = w->name};
        for_each_entry(w->folder, suffix, look_at, &s);
        if (s.n_bytes <= w->max_bytes || !s.oldest[0] || unlinkat(w->folder, s.oldest, 0))
            return;
    }
}

sl_status sl_pack_writer_finish(sl_pack_writer *w, bool keep, sl_pack_map *out, sl_err *err)
{
    *out = (sl_pack_map){0};
    read_boot(w->file->boot);
    int error = __atomic_load_n(&w->error, __ATOMIC_RELAXED);
    if (!error && !write_header(w->fd, w->file))
        error = errno ? errno : EIO;
    /* Without a number of the boot nobody could tell later whether the contents reached the disk. */
    if (!error && is_zero(w->file->boot) && fdatasync(w->fd))
        error = errno;
    sl_status status = error ? sl_err_set(err, SL_ERR_IO, "can't write to the cache: %s", strerror(error))
                             : map_file(w->fd, w->file, out, err);
    if (status == SL_OK && keep && renameat(w->folder, w->temp_name, w->folder, w->name) == 0) {
        evict(w);
        close(w->fd);
        w->fd = -1;
    }
    sl_pack_writer_abandon(w);
    return status;
}

/* ---- small texts ---- */

size_t sl_pack_cache_read_text(const sl_pack_cache_options *options, const char *name, char *text, size_t capacity)
{
    int folder = -1;
    struct stat st;
    if (!options->enabled || open_folder(options, false, &folder, NULL) != SL_OK)
        return 0;
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    close(folder);
    if (fd < 0)
        return 0;
    ssize_t n = -1;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 0022) &&
        (uint64_t)st.st_size <= capacity)
        n = pread(fd, text, capacity, 0);
    close(fd);
    return n > 0 ? (size_t)n : 0;
}

bool sl_pack_cache_write_text(const sl_pack_cache_options *options, const char *name, const char *text, size_t n_bytes)
{
    static unsigned serial;
    char temp_name[SL_PACK_NAME_BYTES + 48];
    int folder = -1;
    if (!options->enabled || open_folder(options, true, &folder, NULL) != SL_OK)
        return false;
    /* Named and locked like unfinished packs, so that the next writer removes what a killed process leaves. */
    snprintf(temp_name, sizeof temp_name, "%.*s.%ld.%u%s", SL_PACK_NAME_BYTES, name, (long)getpid(),
             __atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED), temp_suffix);
    int fd = openat(folder, temp_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    bool good = fd >= 0;
    if (good) {
        (void)flock(fd, LOCK_EX | LOCK_NB);
        good = write_all(fd, 0, text, n_bytes) && renameat(folder, temp_name, folder, name) == 0;
        if (!good)
            unlinkat(folder, temp_name, 0);
        close(fd);
    }
    close(folder);
    return good;
}

static void remove_matching(void *user, int folder, const char *name, const struct stat *st)
{
    const char *prefix = user;
    (void)st;
    if (strncmp(name, prefix, strlen(prefix)) == 0)
        unlinkat(folder, name, 0);
}

void sl_pack_cache_remove(const sl_pack_cache_options *options, const char *prefix)
{
    int folder = -1;
    if (open_folder(options, false, &folder, NULL) != SL_OK)
        return;
    for_each_entry(folder, suffix, remove_matching, (void *)(uintptr_t)prefix);
    close(folder);
}
