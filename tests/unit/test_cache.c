/* The cache of packed weights: same bits as packing, nothing believed that is damaged or another's, nothing left behind. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "model_run.h"
#include "random_model.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_TOKENS = 20, MAX_FILES = 8 };

static char root[] = "/tmp/sluice-cache-XXXXXX";
static char model_path[64], cache_folder[64];
static char last_warning[1024];
static int n_warnings;

static void keep_warning(void *user, sl_log_level level, const char *line)
{
    (void)user;
    (void)level;
    snprintf(last_warning, sizeof last_warning, "%s", line);
    n_warnings++;
}

/* ---- the folder ---- */

typedef struct {
    char names[MAX_FILES][256];
    int n;
} listing;

/* Files of the cache, and of other processes' halves. */
static listing list_cache(void)
{
    listing all = {.n = 0};
    DIR *dir = opendir(cache_folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (entry->d_name[0] != '.' && all.n < MAX_FILES)
            snprintf(all.names[all.n++], sizeof all.names[0], "%s", entry->d_name);
    if (dir)
        closedir(dir);
    return all;
}

static const char *in_cache(const char *name)
{
    static char paths[4][384];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", cache_folder, name);
    return path;
}

/* Path of the only file. */
static const char *only_file(void)
{
    listing all = list_cache();
    assert_int_equal(all.n, 1);
    return in_cache(all.names[0]);
}

static ino_t inode_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

static void empty_cache(void)
{
    listing all = list_cache();
    for (int i = 0; i < all.n; i++)
        unlink(in_cache(all.names[i]));
    rmdir(cache_folder);
    n_warnings = 0;
    last_warning[0] = 0;
}

static int fresh(void **state)
{
    (void)state;
    empty_cache();
    return 0;
}

/* ---- models ---- */

typedef struct {
    bool off, verify, exact;
    uint64_t max_bytes;
    sl_level level; /* 0: best */
    int n_threads;
    sl_weights_progress_fn *progress;
} how;

static sl_status try_open(how h, run_model *run, sl_err *err)
{
    sl_bundle_options options = sl_bundle_options_default();
    options.n_threads = h.n_threads ? h.n_threads : 2;
    options.model.level = h.exact ? SL_LEVEL_EXACT : h.level ? h.level : sl_level_best();
    options.model.cache = (sl_pack_cache_options){
        .enabled = !h.off, .verify = h.verify, .folder = cache_folder, .max_bytes = h.max_bytes};
    options.model.progress = h.progress;
    sl_status status = sl_bundle_open(model_path, &options, &run->bundle, err);
    if (status != SL_OK)
        return status;
    run->n_vocab = sl_model_get_info(sl_bundle_model(run->bundle))->n_vocab;
    sl_engine_options engine = {.context = 64};
    sl_engine_model model = sl_engine_model_of(sl_bundle_model(run->bundle));
    return sl_engine_open(&model, &engine, sl_bundle_threads(run->bundle), &run->engine, err);
}

static run_model open_model(how h)
{
    run_model run;
    sl_err err;
    run_require(try_open(h, &run, &err), &err);
    return run;
}

static void open_and_close(how h)
{
    run_model run = open_model(h);
    run_close(&run);
}

static float *score(how h)
{
    uint32_t tokens[N_TOKENS];
    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = 3 + i * 7;
    run_model run = open_model(h);
    float *rows = run_score(&run, tokens, N_TOKENS);
    run_close(&run);
    return rows;
}

static float *expected; /* without a cache */

static void assert_right_logits(how h)
{
    float *rows = score(h);
    assert_memory_equal(rows, expected, N_TOKENS * RANDOM_VOCAB * sizeof *rows);
    free(rows);
}

/* ---- the file's header, as a reader without a model sees it ---- */

static void load_header(const char *path, sl_packfile *file)
{
    static sl_packfile_section sections[64];
    uint8_t bytes[SL_PACKFILE_PAGE];
    sl_err err;
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, bytes, sizeof bytes, 0), sizeof bytes);
    off_t n_bytes = lseek(fd, 0, SEEK_END);
    close(fd);
    *file = (sl_packfile){.sections = sections};
    memcpy(&file->n_sections, bytes + 12, 4);
    memcpy(file->key, bytes + 24, sizeof file->key);
    assert_in_range(file->n_sections, 1, SL_COUNTOF(sections));
    for (uint32_t i = 0; i < file->n_sections; i++)
        memcpy(&sections[i].n_bytes, bytes + 80 + 24 * i + 8, 8);
    run_require(sl_packfile_place(file, &err), &err);
    assert_int_equal(file->header_bytes, SL_PACKFILE_PAGE);
    run_require(sl_packfile_check_header(file, bytes, sizeof bytes, (uint64_t)n_bytes, &err), &err);
}

static void poke(const char *path, uint64_t offset, const void *bytes, size_t n_bytes)
{
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, bytes, n_bytes, (off_t)offset), (ssize_t)n_bytes);
    close(fd);
}

static void flip_byte(const char *path, uint64_t offset)
{
    uint8_t byte;
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
    byte ^= 0x10;
    poke(path, offset, &byte, 1);
}

/* A byte that the look at one panel of each layout does not see. */
static uint64_t hidden_byte(const char *path)
{
    sl_packfile file;
    load_header(path, &file);
    const sl_packfile_section *last = &file.sections[file.n_sections - 1];
    return last->offset + last->n_bytes - 1;
}

/* As if the machine had been started anew since the file was written. */
static void age_boot(const char *path)
{
    sl_packfile file;
    uint8_t bytes[SL_PACKFILE_PAGE];
    load_header(path, &file);
    file.boot[0] ^= 1;
    sl_packfile_write_header(&file, bytes);
    poke(path, 0, bytes, sizeof bytes);
}

/* ---- tests ---- */

static void test_hit_equals_miss(void **state)
{
    (void)state;
    assert_right_logits((how){0}); /* packs through the file */
    const char *path = only_file();
    ino_t first = inode_of(path);
    assert_right_logits((how){0});
    assert_right_logits((how){.n_threads = 3});
    assert_right_logits((how){.verify = true});
    assert_int_equal(inode_of(only_file()), first);
    assert_int_equal(n_warnings, 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(cache_folder, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
}

/* The file can go while it is mapped. */
static void test_removed_while_mapped(void **state)
{
    (void)state;
    uint32_t tokens[2] = {3, 10};
    open_and_close((how){0});
    run_model run = open_model((how){0});
    unlink(only_file());
    float *rows = run_score(&run, tokens, 2);
    assert_memory_equal(rows, expected, 2 * RANDOM_VOCAB * sizeof *rows);
    free(rows);
    run_close(&run);
}

static void test_off_writes_nothing(void **state)
{
    (void)state;
    assert_right_logits((how){.off = true});
    assert_int_equal(access(cache_folder, F_OK), -1);
    open_and_close((how){.exact = true}); /* packs nothing */
    assert_int_equal(access(cache_folder, F_OK), -1);
}

static void test_every_header_byte(void **state)
{
    (void)state;
    open_and_close((how){0});
    sl_packfile file;
    uint8_t bytes[SL_PACKFILE_PAGE], *heap = malloc(sizeof bytes);
    load_header(only_file(), &file);
    sl_packfile_write_header(&file, bytes);
    for (size_t i = 0; i < sizeof bytes; i++) {
        for (int bit = 0; bit < 8; bit++) {
            memcpy(heap, bytes, sizeof bytes);
            heap[i] ^= (uint8_t)(1 << bit);
            assert_int_equal(sl_packfile_check_header(&file, heap, sizeof bytes, file.n_bytes, NULL), SL_ERR_FORMAT);
        }
    }
    for (size_t n = 0; n < sizeof bytes; n++) { /* read into exactly so much memory, for the address sanitizer */
        uint8_t *part = malloc(n + 1);
        memcpy(part, bytes, n);
        assert_int_equal(sl_packfile_check_header(&file, part, n, n, NULL), SL_ERR_FORMAT);
        assert_int_equal(sl_packfile_check_header(&file, part, n, file.n_bytes, NULL), SL_ERR_FORMAT);
        free(part);
    }
    assert_int_equal(sl_packfile_check_header(&file, bytes, sizeof bytes, file.n_bytes, NULL), SL_OK);
    free(heap);
}

/* Packed anew, with a word about it; the file is a good one then. */
static void assert_rebuilt(ino_t before)
{
    n_warnings = 0;
    assert_right_logits((how){0});
    assert_int_equal(n_warnings, 1);
    assert_int_not_equal(inode_of(only_file()), before);
    assert_right_logits((how){.verify = true});
    assert_int_equal(n_warnings, 1);
}

static void test_damaged_header(void **state)
{
    (void)state;
    static const uint64_t fields[] = {0, 8, 12, 16, 23, 24, 55, 56, 71, 72, 79, 80, 88, 96, 103, 104, 4095};
    for (size_t i = 0; i < SL_COUNTOF(fields); i++) {
        open_and_close((how){0});
        const char *path = only_file();
        ino_t before = inode_of(path);
        flip_byte(path, fields[i]);
        assert_rebuilt(before);
    }
}

static void test_wrong_length(void **state)
{
    (void)state;
    open_and_close((how){0});
    struct stat st;
    assert_int_equal(stat(only_file(), &st), 0);
    const off_t lengths[] = {0,
                             1,
                             8,
                             79,
                             80,
                             500,
                             4095,
                             4096,
                             4097,
                             st.st_size / 2,
                             st.st_size - 4096,
                             st.st_size - 1,
                             st.st_size + 1,
                             2 * st.st_size};
    for (size_t i = 0; i < SL_COUNTOF(lengths); i++) {
        const char *path = only_file();
        ino_t before = inode_of(path);
        assert_int_equal(truncate(path, lengths[i]), 0);
        assert_rebuilt(before);
    }
}

static void test_verify_finds_flipped_byte(void **state)
{
    (void)state;
    open_and_close((how){0});
    const char *path = only_file();
    ino_t before = inode_of(path);
    flip_byte(path, hidden_byte(path));
    assert_right_logits((how){.verify = true});
    assert_non_null(strstr(last_warning, "damaged"));
    assert_int_not_equal(inode_of(only_file()), before);
}

/* What the first panel of a layout holds is compared at each start. */
static void test_other_packing(void **state)
{
    (void)state;
    open_and_close((how){0});
    const char *path = only_file();
    ino_t before = inode_of(path);
    flip_byte(path, SL_PACKFILE_PAGE);
    assert_rebuilt(before);
}

static void test_after_a_restart(void **state)
{
    (void)state;
    sl_packfile file;
    static const uint8_t zeros[SL_PACKFILE_BOOT_BYTES];
    open_and_close((how){0});
    const char *path = only_file();
    ino_t before = inode_of(path);
    age_boot(path);
    assert_right_logits((how){0});
    assert_int_equal(inode_of(path), before);
    load_header(path, &file);
    assert_memory_equal(file.boot, zeros, sizeof zeros); /* proved: not summed up again */
    assert_int_equal(n_warnings, 0);

    unlink(path);
    open_and_close((how){0});
    path = only_file();
    before = inode_of(path);
    age_boot(path);
    flip_byte(path, hidden_byte(path)); /* did not reach the disk */
    assert_rebuilt(before);
}

static void test_owner_and_permissions(void **state)
{
    (void)state;
    open_and_close((how){0});
    const char *path = only_file();
    ino_t before = inode_of(path);
    assert_int_equal(chmod(path, 0622), 0);
    assert_rebuilt(before);

    /* A folder that others may enter is closed; a link in a file's place is not followed. */
    assert_int_equal(chmod(cache_folder, 0755), 0);
    assert_right_logits((how){0});
    struct stat st;
    assert_int_equal(stat(cache_folder, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    char elsewhere[96];
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", root);
    path = only_file();
    assert_int_equal(rename(path, elsewhere), 0);
    assert_int_equal(symlink(elsewhere, path), 0);
    assert_rebuilt(0);
    assert_int_equal(unlink(elsewhere), 0);
    if (geteuid() != 0)
        return; /* giving files away takes root */
    path = only_file();
    before = inode_of(path);
    assert_int_equal(chown(path, 1, 1), 0);
    assert_rebuilt(before);
    assert_int_equal(chown(cache_folder, 1, 1), 0);
    n_warnings = 0;
    assert_right_logits((how){0});
    assert_true(n_warnings > 0 && strstr(last_warning, "another user"));
    assert_int_equal(chown(cache_folder, 0, 0), 0);
}

static void set_model_time(long seconds)
{
    struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds, .tv_nsec = 1}};
    assert_int_equal(utimensat(AT_FDCWD, model_path, times, 0), 0);
}

static void test_keys(void **state)
{
    (void)state;
    set_model_time(1000);
    open_and_close((how){0});
    open_and_close((how){.level = SL_LEVEL_REF});
    assert_int_equal(list_cache().n, 1 + (sl_level_best() != SL_LEVEL_REF));
    empty_cache();
    open_and_close((how){0});
    set_model_time(1001);
    open_and_close((how){0});
    assert_int_equal(list_cache().n, 2);
    assert_int_equal(n_warnings, 0);

    /* The prefix finds all that was made from one model file. */
    sl_gguf *gguf;
    sl_err err;
    char prefix[64];
    run_require(sl_gguf_open(model_path, 0, &gguf, &err), &err);
    run_require(sl_weights_cache_prefix(gguf, prefix, &err), &err);
    sl_gguf_close(gguf);
    sl_pack_cache_options cache = {.enabled = true, .folder = cache_folder};
    sl_pack_cache_remove(&cache, prefix);
    assert_int_equal(list_cache().n, 1);
    assert_int_not_equal(strncmp(list_cache().names[0], prefix, strlen(prefix)), 0);
}

static void set_use_time(const char *name, long seconds)
{
    struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
    assert_int_equal(utimensat(AT_FDCWD, in_cache(name), times, 0), 0);
}

static bool is_listed(const char *name)
{
    listing all = list_cache();
    for (int i = 0; i < all.n; i++)
        if (strcmp(all.names[i], name) == 0)
            return true;
    return false;
}

static void test_size_cap(void **state)
{
    (void)state;
    char first[256] = "", second[256] = "";
    struct stat st;
    set_model_time(1000);
    open_and_close((how){0});
    snprintf(first, sizeof first, "%s", list_cache().names[0]);
    assert_int_equal(stat(only_file(), &st), 0);
    uint64_t max_bytes = (uint64_t)st.st_size * 5 / 2;
    set_model_time(1001);
    open_and_close((how){.max_bytes = max_bytes});
    listing all = list_cache();
    assert_int_equal(all.n, 2);
    snprintf(second, sizeof second, "%s", all.names[strcmp(all.names[0], first) == 0]);
    set_use_time(first, 100);
    set_use_time(second, 200);
    set_model_time(1000);
    open_and_close((how){.max_bytes = max_bytes}); /* uses the first one again */
    set_model_time(1002);
    open_and_close((how){.max_bytes = max_bytes});
    assert_int_equal(list_cache().n, 2);
    assert_true(is_listed(first) && !is_listed(second));
    assert_int_equal(n_warnings, 0);

    /* Larger than the cache: packed all the same, and nothing goes for it. */
    set_model_time(1003);
    open_and_close((how){.max_bytes = 5000});
    assert_int_equal(n_warnings, 1);
    assert_int_equal(list_cache().n, 2);
}

static bool die_after_first(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    (void)user;
    if (done_bytes > total_bytes / 2)
        kill(getpid(), SIGKILL);
    return true;
}

static bool cancel_after_first(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    (void)user;
    return done_bytes < total_bytes / 2;
}

static void test_killed_and_cancelled(void **state)
{
    (void)state;
    run_model run;
    sl_err err;
    assert_int_equal(try_open((how){.progress = cancel_after_first}, &run, &err), SL_ERR_CANCELLED);
    assert_int_equal(list_cache().n, 0);
    pid_t child = fork();
    if (child == 0) {
        open_and_close((how){.progress = die_after_first});
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(list_cache().n, 1); /* its half */
    assert_right_logits((how){0});
    assert_non_null(strstr(only_file(), ".pack"));
    assert_null(strstr(only_file(), ".tmp"));
    assert_int_equal(n_warnings, 0);
    assert_right_logits((how){.verify = true});
}

static void test_processes_at_once(void **state)
{
    (void)state;
    enum { N = 3 };
    for (int round = 0; round < 4; round++) {
        pid_t children[N];
        empty_cache();
        for (int i = 0; i < N; i++) {
            children[i] = fork();
            if (children[i] == 0) {
                float *rows = score((how){.n_threads = 1});
                _exit(memcmp(rows, expected, N_TOKENS * RANDOM_VOCAB * sizeof *rows) != 0 || n_warnings != 0);
            }
        }
        for (int i = 0; i < N; i++) {
            int status;
            assert_int_equal(waitpid(children[i], &status, 0), children[i]);
            assert_int_equal(status, 0);
        }
        assert_null(strstr(only_file(), ".tmp"));
        assert_right_logits((how){.verify = true});
    }
    assert_int_equal(n_warnings, 0);
}

static bool forbid_large_files(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    struct rlimit small = {5000, RLIM_INFINITY};
    (void)user;
    (void)done_bytes;
    (void)total_bytes;
    return setrlimit(RLIMIT_FSIZE, &small) == 0;
}

/* No room from the start, and none left half way. */
static void test_no_space(void **state)
{
    (void)state;
    struct rlimit old;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    assert_right_logits((how){.progress = forbid_large_files});
    assert_int_equal(n_warnings, 1);
    assert_int_equal(list_cache().n, 0);
    assert_right_logits((how){0});
    assert_int_equal(n_warnings, 2);
    assert_int_equal(list_cache().n, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
}

static void test_unusable_folders(void **state)
{
    (void)state;
    static const char *const folders[] = {"/proc/sluice", "/dev/null/sluice", ""};
    char kept[64];
    snprintf(kept, sizeof kept, "%s", cache_folder);
    for (size_t i = 0; i < SL_COUNTOF(folders); i++) {
        snprintf(cache_folder, sizeof cache_folder, "%s", folders[i]);
        n_warnings = 0;
        assert_right_logits((how){0});
        assert_true(n_warnings > 0);
    }
    snprintf(cache_folder, sizeof cache_folder, "%s", kept);
    if (geteuid() == 0)
        return; /* root writes anywhere */
    assert_int_equal(mkdir(cache_folder, 0500), 0);
    n_warnings = 0;
    assert_right_logits((how){0});
    assert_int_equal(n_warnings, 1);
}

/* Memory and disk: no layout takes more than 1.03 times its source. */
static void test_packed_sizes(void **state)
{
    (void)state;
    int n_packed = 0;
    for (uint32_t type = 0; type < 64; type++) {
        const sl_type_info *info = sl_type_get(type);
        sl_weight weight;
        if (!info || sl_weight_describe(sl_level_best(), (sl_type)type, 4096, 2048, &weight, NULL) != SL_OK)
            continue;
        uint64_t source = UINT64_C(4096) * 2048 / info->block_elems * info->block_bytes;
        uint64_t packed = sl_weight_packed_bytes(&weight);
        if (packed * 100 > source * 103)
            fail_msg("%s: %llu bytes become %llu", info->name, (unsigned long long)source, (unsigned long long)packed);
        n_packed += packed > 0;
    }
    assert_true(n_packed >= 9);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup(test, fresh)
    const struct CMUnitTest tests[] = {
        CASE(test_hit_equals_miss),
        CASE(test_removed_while_mapped),
        CASE(test_off_writes_nothing),
        CASE(test_every_header_byte),
        CASE(test_damaged_header),
        CASE(test_wrong_length),
        CASE(test_other_packing),
        CASE(test_verify_finds_flipped_byte),
        CASE(test_after_a_restart),
        CASE(test_owner_and_permissions),
        CASE(test_keys),
        CASE(test_size_cap),
        CASE(test_killed_and_cancelled),
        CASE(test_processes_at_once),
        CASE(test_no_space),
        CASE(test_unusable_folders),
        CASE(test_packed_sizes),
    };
    if (!mkdtemp(root))
        return 1;
    snprintf(model_path, sizeof model_path, "%s/model.gguf", root);
    snprintf(cache_folder, sizeof cache_folder, "%s/cache", root);
    random_model_write(model_path, SL_TEST_GOLDEN_DIR "/tiny_llama.gguf");
    sl_log_set(keep_warning, NULL, SL_LOG_WARN);
    expected = score((how){.off = true});
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(expected);
    empty_cache();
    unlink(model_path);
    rmdir(root);
    return n_failed;
}
