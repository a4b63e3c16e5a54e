/* base: arenas, checked arithmetic, UTF-8, thread pool. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/checked.h"
#include "base/cpu.h"
#include "base/memory.h"
#include "base/threads.h"
#include "base/utf8.h"

static void test_arena(void **state)
{
    (void)state;
    sl_arena arena;
    sl_arena_init(&arena, 128);
    char *a = sl_arena_strndup(&arena, "hello", 3);
    assert_string_equal(a, "hel");
    char *big = sl_arena_alloc(&arena, 1000);
    assert_non_null(big);
    assert_int_equal((uintptr_t)big % 16, 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(big[i], 0);
    assert_null(sl_arena_array(&arena, SIZE_MAX / 2, 3));
    assert_null(sl_arena_alloc(&arena, SIZE_MAX - 3));
    assert_string_equal(sl_arena_printf(&arena, "blk.%d", 12), "blk.12");
    sl_arena_reset(&arena);
    assert_int_equal(arena.used_bytes, 0);
}

static void test_checked(void **state)
{
    (void)state;
    uint64_t r;
    assert_false(sl_add_u64(UINT64_MAX, 1, &r));
    assert_false(sl_mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &r));
    assert_true(sl_align_up_u64(33, 32, &r));
    assert_int_equal(r, 64);
    assert_false(sl_align_up_u64(UINT64_MAX - 3, 32, &r));
}

static void test_utf8(void **state)
{
    (void)state;
    uint32_t cp;
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xd800 && c < 0xe000)
            continue;
        char s[4];
        size_t n = sl_utf8_encode(c, s);
        assert_int_equal(sl_utf8_decode(s, n, &cp), n);
        assert_int_equal(cp, c);
        for (size_t cut = 1; cut < n; cut++) {
            assert_int_equal(sl_utf8_decode(s, cut, NULL), -1);
            assert_int_equal(sl_utf8_incomplete_tail(s, cut), cut);
        }
        assert_int_equal(sl_utf8_incomplete_tail(s, n), 0);
    }
    /* overlong, surrogate, above the last plane, stray continuation: table 3-7 of the Unicode standard */
    const char *bad[] = {"\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80",    "\xf4\x90\x80\x80",
                         "\x80",     "\xff",         "\xf0\x80\x80\x80"};
    for (size_t i = 0; i < SL_COUNTOF(bad); i++)
        assert_false(sl_utf8_valid(bad[i], strlen(bad[i])));
}

typedef struct {
    int order[8]; /* what each worker saw of its left neighbour after the barrier */
    int stage[8];
    sl_threads *pool;
} barrier_case;

static void barrier_work(void *user, int index, int n_threads)
{
    barrier_case *c = user;
    for (int round = 1; round <= 200; round++) {
        c->stage[index] = round;
        sl_threads_barrier(c->pool);
        if (c->stage[(index + 1) % n_threads] != round)
            c->order[index]++;
        sl_threads_barrier(c->pool);
    }
}

static void test_threads(void **state)
{
    (void)state;
    for (int n = 1; n <= 8; n++) {
        barrier_case c = {0};
        assert_int_equal(sl_threads_open(n, &c.pool, NULL), SL_OK);
        for (int run = 0; run < 5; run++)
            sl_threads_run(c.pool, barrier_work, &c);
        for (int i = 0; i < n; i++)
            assert_int_equal(c.order[i], 0);
        sl_threads_close(c.pool);
    }
    sl_err err;
    sl_threads *pool;
    assert_int_equal(sl_threads_open(-1, &pool, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_threads_open(100000, &pool, &err), SL_ERR_ARGUMENT);
}

/* One worker at a time in the middle of a barrier, the others not before it is done. */
typedef struct {
    sl_threads *pool;
    int in_middle, n_middles;
    int missed[8];
} middle_case;

static void middle_work(void *user, int index, int n_threads)
{
    middle_case *c = user;
    (void)n_threads;
    for (int round = 1; round <= 200; round++) {
        if (sl_threads_arrive(c->pool, NULL, NULL)) {
            c->missed[index] += c->in_middle++ != 0;
            c->n_middles++;
            c->in_middle--;
            sl_threads_release(c->pool);
        }
        c->missed[index] += c->n_middles < round;
        sl_threads_barrier(c->pool);
    }
}

static void test_barrier_middle(void **state)
{
    (void)state;
    for (int n = 1; n <= 8; n++) {
        middle_case c = {0};
        assert_int_equal(sl_threads_open(n, &c.pool, NULL), SL_OK);
        sl_threads_run(c.pool, middle_work, &c);
        assert_int_equal(c.n_middles, 200);
        for (int i = 0; i < n; i++)
            assert_int_equal(c.missed[i], 0);
        sl_threads_close(c.pool);
    }
}

/* What a waiting worker does: `most` pieces, then no more. */
typedef struct {
    sl_threads *pool;
    atomic_int n_done;
    int most, n_after; /* calls after the one that returned false */
    bool over;
} idle_case;

static bool idle_piece(void *user)
{
    idle_case *c = user;
    c->n_after += c->over;
    c->over = atomic_fetch_add(&c->n_done, 1) + 1 >= c->most;
    return !c->over;
}

/* Worker 0 comes first and waits, and only it may do idle work; the last to come does so some time after
 * that is done. */
static void idle_work(void *user, int index, int n_threads)
{
    idle_case *c = user;
    bool last = index == n_threads - 1;
    for (int more = 0; last && more < 100; more += atomic_load(&c->n_done) >= c->most)
        sched_yield();
    if (sl_threads_arrive(c->pool, index == 0 ? idle_piece : NULL, c))
        sl_threads_release(c->pool);
}

static void test_idle_work(void **state)
{
    (void)state;
    int n_cpus = sl_cpu_count();
    for (int n = 2; n <= n_cpus && n <= 8; n++) {
        idle_case c = {.most = 5};
        assert_int_equal(sl_threads_open(n, &c.pool, NULL), SL_OK);
        sl_threads_run(c.pool, idle_work, &c);
        assert_int_equal(atomic_load(&c.n_done), 5);
        assert_int_equal(c.n_after, 0);
        sl_threads_close(c.pool);
    }
    /* More workers than CPUs: the CPU is another worker's. */
    idle_case c = {.most = 0};
    assert_int_equal(sl_threads_open(n_cpus + 1, &c.pool, NULL), SL_OK);
    for (int run = 0; run < 20; run++)
        sl_threads_run(c.pool, idle_work, &c);
    assert_int_equal(atomic_load(&c.n_done), 0);
    sl_threads_close(c.pool);
}

static void note_cpus(void *user, int index, int n_threads)
{
    (void)n_threads;
    cpu_set_t *sets = user;
    pthread_getaffinity_np(pthread_self(), sizeof *sets, &sets[index]);
}

/* On a thread of its own, which keeps its binding. */
static void *pin_workers(void *failures)
{
    cpu_set_t allowed, sets[64];
    pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed);
    int n = SL_MIN(CPU_COUNT(&allowed), 64), *bad = failures;
    sl_threads *pool;
    sl_err err;
    if (sl_threads_open(CPU_COUNT(&allowed) + 1, &pool, &err) != SL_OK)
        return NULL;
    *bad += sl_threads_pin(pool, &err) != SL_ERR_ARGUMENT || !strstr(err.message, "fewer threads");
    sl_threads_close(pool);
    *bad += sl_threads_open(n, &pool, &err) != SL_OK || sl_threads_pin(pool, &err) != SL_OK;
    sl_threads_run(pool, note_cpus, sets);
    for (int i = 0; i < n; i++) {
        *bad += CPU_COUNT(&sets[i]) != 1;
        for (int j = 0; j < i; j++)
            *bad += CPU_EQUAL(&sets[i], &sets[j]) != 0;
    }
    sl_threads_close(pool);
    return failures;
}

static void test_pin(void **state)
{
    (void)state;
    int bad = 0;
    pthread_t thread;
    void *result;
    assert_int_equal(pthread_create(&thread, NULL, pin_workers, &bad), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, &bad);
    assert_int_equal(bad, 0);
}

static void test_share(void **state)
{
    (void)state;
    for (size_t n = 0; n < 40; n++) {
        for (int t = 1; t < 9; t++) {
            size_t next = 0;
            for (int i = 0; i < t; i++) {
                size_t begin, end;
                sl_threads_share(n, i, t, &begin, &end);
                assert_int_equal(begin, next);
                assert_true(end - begin <= n / (size_t)t + 1);
                next = end;
            }
            assert_int_equal(next, n);
        }
    }
}

static void test_levels(void **state)
{
    (void)state;
    for (int i = 0; i < SL_LEVEL_COUNT; i++) {
        sl_level level;
        assert_true(sl_level_parse(sl_level_name((sl_level)i), &level));
        assert_int_equal(level, i);
    }
    sl_level level;
    sl_err err;
    assert_int_equal(sl_level_choose("sse9", &level, &err), SL_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "sse9"));
    assert_int_equal(sl_level_choose("avx512vnni", &level, &err), SL_OK);
    assert_true(level <= sl_level_best());
    assert_true(sl_cpu_count() >= 1);
}

/* ---- free memory, by files of a machine that is not there ---- */

static char machine[] = "/tmp/sluice-memory-XXXXXX";

/* Writes a file below the made-up root, with the folders on its way; text NULL removes it. */
static void tell(const char *name, const char *text)
{
    char path[512];
    int n_root = snprintf(path, sizeof path, "%s/", machine);
    snprintf(path, sizeof path, "%s/%s", machine, name);
    for (char *slash = path + n_root; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
        *slash = '\0';
        (void)mkdir(path, 0700);
    }
    if (!text) {
        assert_int_equal(unlink(path), 0);
        return;
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_free_memory(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(machine));
    assert_true(sl_memory_free_at(machine) == UINT64_MAX); /* nothing is told */
    tell("proc/meminfo", "MemTotal:  9000 kB\nMemFree:  100 kB\nMemAvailable:   5000 kB\nBuffers: 1 kB\n");
    assert_true(sl_memory_free_at(machine) == 5000 * 1024);
    /* v2: the process's own cgroup has no limit, the one above has, less what is used and not reclaimable. */
    tell("proc/self/cgroup", "0::/outer/inner\n");
    tell("sys/fs/cgroup/outer/inner/memory.max", "max\n");
    tell("sys/fs/cgroup/outer/inner/memory.current", "77\n");
    assert_true(sl_memory_free_at(machine) == 5000 * 1024);
    tell("sys/fs/cgroup/outer/memory.max", "1000000\n");
    tell("sys/fs/cgroup/outer/memory.current", "400000\n");
    assert_true(sl_memory_free_at(machine) == 600000);
    tell("sys/fs/cgroup/outer/memory.stat", "anon 1\ninactive_file 150000\nactive_file 9\n");
    assert_true(sl_memory_free_at(machine) == 750000);
    tell("sys/fs/cgroup/outer/inner/memory.high", "500077\n");
    assert_true(sl_memory_free_at(machine) == 500000);
    tell("sys/fs/cgroup/outer/memory.current", "1200000\n"); /* above its limit */
    assert_true(sl_memory_free_at(machine) == 0);
    tell("sys/fs/cgroup/outer/memory.max", NULL);
    tell("sys/fs/cgroup/outer/inner/memory.high", NULL);
    /* v1, beside other controllers; its outer path is not seen from inside a container. */
    tell("proc/self/cgroup", "3:cpu,cpuacct:/a\n2:memory_not,xmemory:/a\n4:hugetlb,memory:/a/b\n0::/\n");
    tell("sys/fs/cgroup/memory/memory.limit_in_bytes", "300000\n");
    assert_true(sl_memory_free_at(machine) == 300000);
    tell("sys/fs/cgroup/memory/memory.usage_in_bytes", "200000\n");
    tell("sys/fs/cgroup/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 50000\n");
    assert_true(sl_memory_free_at(machine) == 150000);
    tell("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
    tell("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "120000\n");
    assert_true(sl_memory_free_at(machine) == 120000);
    /* Nonsense is no limit. */
    tell("proc/self/cgroup", "nonsense\n::\n4:memory\n");
    tell("proc/meminfo", "MemAvailable: lots\n");
    assert_true(sl_memory_free_at(machine) == UINT64_MAX);
    assert_true(sl_memory_free() > 0);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", machine);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena),       cmocka_unit_test(test_checked),        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_threads),     cmocka_unit_test(test_barrier_middle), cmocka_unit_test(test_idle_work),
        cmocka_unit_test(test_pin),         cmocka_unit_test(test_share),          cmocka_unit_test(test_levels),
        cmocka_unit_test(test_free_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
