#define _GNU_SOURCE
/* The cost model: learning a machine that it does not know, outliers, changes of speed, its text form. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/cost_cache.h"

static uint64_t random_state;
static double uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return ((double)(random_state >> 11) + 0.5) / 9007199254740992.0;
}

/* A plan without nodes: the prior is that of a model without weights, which every test then sets itself. */
static sl_cost open_cost(void)
{
    static sl_plan plan;
    plan = (sl_plan){.level = SL_LEVEL_AVX2, .n_groups = 2};
    plan.groups[0] = (sl_kv_group){.window = 0, .n_layers = 1, .block_bytes = 16 * 100};
    plan.groups[1] = (sl_kv_group){.window = 64, .n_layers = 3, .block_bytes = 16 * 300};
    sl_cost cost;
    sl_cost_init(&cost, &plan, 2);
    for (int i = 0; i < SL_COST_TERMS; i++)
        cost.prior_us[i] = i == 0 ? 4000 : i < SL_COST_ROW_TERMS ? 300 : i < SL_COST_TERMS - 2 ? 100 : 0.2;
    return cost;
}

/* A machine that the prior has wrong everywhere: bound by memory up to 8 rows, then by arithmetic. */
static double true_us(const sl_step_work *work)
{
    double rows = work->n_rows, few = fmin(rows, 8);
    return 1500 + 60 * few + 700 * (rows - few) + 250 * work->n_wanted + 0.5 * work->row_positions +
           0.05 * work->tile_positions;
}

static sl_step_work random_work(const sl_cost *cost)
{
    sl_step_work work = {0};
    uint32_t n = (uint32_t)(uniform() * 12);
    for (uint32_t i = 0; i < n; i++)
        sl_cost_add(cost, &work, (uint32_t)(uniform() * 1000), 1, 1);
    if (n == 0 || uniform() < 0.5)
        sl_cost_add(cost, &work, (uint32_t)(uniform() * 1000), 1 + (uint32_t)exp(uniform() * 6), uniform() < 0.3);
    return work;
}

static double normal(void)
{
    return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Runs n steps with noise on a machine speed times as slow and returns the q-quantile of the relative error against the
 * time without noise. */
static double learn(sl_cost *cost, int n, double slower, double noise, double outliers, double q)
{
    double *errors = calloc((size_t)n, sizeof *errors);
    for (int i = 0; i < n; i++) {
        sl_step_work work = random_work(cost);
        double truth = slower * true_us(&work), took = truth * exp(noise * normal());
        if (uniform() < outliers)
            took *= 2 + 8 * uniform();
        errors[i] = fabs(sl_cost_predict_us(cost, &work) / truth - 1);
        sl_cost_observe(cost, &work, took);
    }
    qsort(errors, (size_t)n, sizeof *errors, by_value);
    double result = errors[(size_t)(q * (n - 1))];
    free(errors);
    return result;
}

static void test_learns(void **state)
{
    (void)state;
    random_state = 1;
    sl_cost cost = open_cost();
    learn(&cost, 100, 1, 0.03, 0, 0.5);
    double median = learn(&cost, 1000, 1, 0.03, 0, 0.5), p95 = learn(&cost, 1000, 1, 0.03, 0, 0.95);
    print_message("median error %.2f %%, p95 %.2f %%\n", 100 * median, 100 * p95);
    assert_true(median < 0.03);
    assert_true(p95 < 0.08);
}

static void test_outliers(void **state)
{
    (void)state;
    random_state = 2;
    sl_cost cost = open_cost();
    learn(&cost, 200, 1, 0.03, 0.05, 0.5);
    double median = learn(&cost, 1000, 1, 0.03, 0.05, 0.5);
    print_message("median error with 5 %% outliers of 2 to 10 times: %.2f %%\n", 100 * median);
    assert_true(median < 0.05);
    /* One step ten times too long moves the next prediction by a few per cent only. */
    sl_step_work work = {0};
    sl_cost_add(&cost, &work, 100, 32, 1);
    double before = sl_cost_predict_us(&cost, &work);
    sl_cost_observe(&cost, &work, 10 * before);
    assert_true(sl_cost_predict_us(&cost, &work) < 1.1 * before);
}

static void test_follows_speed(void **state)
{
    (void)state;
    random_state = 3;
    sl_cost cost = open_cost();
    learn(&cost, 500, 1, 0.03, 0, 0.5);
    learn(&cost, 60, 2, 0.03, 0, 0.5); /* twice as slow: some steps to believe it */
    double median = learn(&cost, 200, 2, 0.03, 0, 0.5);
    print_message("median error after the machine became twice as slow: %.2f %%\n", 100 * median);
    assert_true(median < 0.05);
}

static void test_shape(void **state)
{
    (void)state;
    random_state = 4;
    sl_cost cost = open_cost();
    learn(&cost, 300, 1, 0.2, 0.1, 0.5);
    for (int i = 0; i < 1000; i++) {
        sl_step_work less = random_work(&cost), more = less;
        sl_cost_add(&cost, &more, (uint32_t)(uniform() * 100), 1 + (uint32_t)(uniform() * 9), 1);
        double a = sl_cost_predict_us(&cost, &less), b = sl_cost_predict_us(&cost, &more);
        assert_true(isfinite(b) && 0 < a && a <= b); /* more work never takes less */
    }
    sl_step_work none = {0};
    assert_true(sl_cost_predict_us(&cost, &none) == 0);
    sl_cost same = cost;
    sl_step_work work = random_work(&cost);
    sl_cost_observe(&same, &none, 100);
    sl_cost_observe(&same, &work, -1);
    sl_cost_observe(&same, &work, NAN);
    sl_cost_observe(&same, &work, INFINITY);
    assert_memory_equal(&same, &cost, sizeof cost);
}

/* Positions counted one by one. */
static void test_positions(void **state)
{
    (void)state;
    random_state = 5;
    sl_cost cost = open_cost();
    for (int i = 0; i < 300; i++) {
        uint32_t position = (uint32_t)(uniform() * 200), n = 1 + (uint32_t)(uniform() * 700);
        double rows = 0, tiles = 0;
        for (uint32_t r = 0; r < n; r++) {
            double seen = position + r + 1;
            rows += 0.25 * seen + 0.75 * fmin(seen, 64);
            if ((r + 1) % SL_ATTENTION_ROWS == 0 || r + 1 == n) {
                uint32_t in_tile = r % SL_ATTENTION_ROWS + 1;
                tiles += 0.25 * seen + 0.75 * fmin(seen, 64 + in_tile - 1);
            }
        }
        sl_step_work work = {0};
        sl_cost_add(&cost, &work, position, n, 1);
        assert_true(fabs(work.row_positions - rows) < 1e-6 * rows);
        assert_true(fabs(work.tile_positions - tiles) < 1e-6 * tiles);
    }
}

static void test_rows_within(void **state)
{
    (void)state;
    random_state = 6;
    sl_cost cost = open_cost();
    learn(&cost, 300, 1, 0.05, 0, 0.5);
    for (int i = 0; i < 300; i++) {
        sl_step_work work = random_work(&cost), with = work, over = work;
        uint32_t position = (uint32_t)(uniform() * 1000), left = 1 + (uint32_t)(uniform() * 400), most = 300;
        double limit = sl_cost_predict_us(&cost, &work) * (1 + uniform());
        uint32_t wanted = i % 2 ? (uint32_t)(uniform() * 500) : 0;
        uint32_t n = sl_cost_rows_within(&cost, &work, position, left, wanted, most, limit);
        assert_true(n <= left && n <= most);
        sl_cost_add(&cost, &with, position, n, sl_cost_wanted(n, left, wanted));
        sl_cost_add(&cost, &over, position, n + 1, sl_cost_wanted(n + 1, left, wanted));
        assert_true(n == 0 || sl_cost_predict_us(&cost, &with) <= limit);
        assert_true(n == left || n == most || sl_cost_predict_us(&cost, &over) > limit);
    }
    /* Chunks added up are the same as the chunks. */
    for (uint32_t wanted = 0; wanted <= 1000; wanted += 1000) {
        double sum = 0;
        for (uint32_t at = 0; at < 1000; at += 128) {
            sl_step_work work = {0};
            uint32_t n = SL_MIN(128, 1000 - at);
            sl_cost_add(&cost, &work, 30 + at, n, wanted ? n : at + n == 1000);
            sum += sl_cost_predict_us(&cost, &work);
        }
        assert_true(fabs(sl_cost_prefill_us(&cost, 30, 1000, wanted, 128) / sum - 1) < 1e-3);
    }
    assert_int_equal(sl_cost_wanted(7, 10, 0), 0);
    assert_int_equal(sl_cost_wanted(10, 10, 0), 1);
    assert_int_equal(sl_cost_wanted(7, 10, 5), 2);
    assert_int_equal(sl_cost_wanted(7, 10, 12), 7);
}

/* Three parts of the first group and six of the second, in turns of three. */
static void cut_cost(sl_cost *cost)
{
    cost->n_parts = 9;
    cost->first_part = 0.2;
    cost->last_part = 0.1;
    for (uint32_t i = 0; i < 9; i++)
        cost->part_group[i] = i % 3 > 0;
    cost->group_parts[0] = 3;
    cost->group_parts[1] = 6;
}

/* Rows that go through the parts in several steps cost in all what they do in one, and in each what its parts have of the
 * matmuls, and of what the rows attend, by hand. */
static void test_parts(void **state)
{
    (void)state;
    random_state = 9;
    sl_cost cost = open_cost();
    assert_true(cost.n_parts == 1 && sl_cost_parts_share(&cost, 0, 1) == 1);
    learn(&cost, 300, 1, 0.05, 0, 0.5);
    cut_cost(&cost);
    const double shares[] = {0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1};
    for (uint32_t begin = 0; begin <= 9; begin++) {
        double sum = 0;
        assert_true(sl_cost_parts_share(&cost, begin, begin) == 0);
        for (uint32_t end = begin + 1; end <= 9; end++) {
            sum += shares[end - 1];
            assert_true(fabs(sl_cost_parts_share(&cost, begin, end) - sum) < 1e-9);
        }
    }
    for (int i = 0; i < 100; i++) {
        sl_step_work streams = {0};
        for (uint32_t n = 1 + (uint32_t)(uniform() * 20); n > 0; n--)
            sl_cost_add(&cost, &streams, (uint32_t)(uniform() * 1000), 1, 1);
        const uint32_t position = (uint32_t)(uniform() * 1000), n = 1 + (uint32_t)(uniform() * 64);
        const double alone = sl_cost_predict_us(&cost, &streams);
        sl_step_work whole = streams, mean = streams;
        sl_cost_add(&cost, &whole, position, n, 0);
        double sum = 0, rows_us = sl_cost_predict_us(&cost, &whole) - alone;
        for (uint32_t begin = 0, end; begin < 9; begin = end) {
            sl_step_work work = streams, more = streams;
            double limit_us = alone + uniform() * rows_us, attended = streams.row_positions;
            uint32_t n_within = sl_cost_parts_within(&cost, &streams, position, n, begin, limit_us);
            end = begin + SL_MAX(n_within, 1);
            sl_cost_add_layered(&cost, &work, position, n, begin, end);
            for (uint32_t p = begin; p < end; p++)
                for (uint32_t r = 0; r < n; r++) /* a quarter of the KV bytes is the first group's */
                    attended += p % 3 ? 0.75 / 6 * fmin(position + r + 1, 64) : 0.25 / 3 * (position + r + 1);
            assert_true(fabs(work.row_positions - attended) < 1e-6 * attended);
            double us = sl_cost_predict_us(&cost, &work);
            assert_true(n_within == 0 ? us > limit_us : us <= limit_us);
            sum += us - alone;
            if (n_within == 0 || end == 9)
                continue;
            sl_cost_add_layered(&cost, &more, position, n, begin, end + 1);
            assert_true(sl_cost_predict_us(&cost, &more) > limit_us);
        }
        assert_true(fabs(sum - rows_us) < 1e-6 * (rows_us + alone));
        sl_cost_add_mean_layered(&cost, &mean, position, n, 4);
        assert_true(fabs(4 * (sl_cost_predict_us(&cost, &mean) - alone) - rows_us) < 1e-6 * (rows_us + alone));
    }
}

static void test_text(void **state)
{
    (void)state;
    random_state = 7;
    sl_cost cost = open_cost(), fresh = open_cost(), other;
    learn(&cost, 500, 1, 0.03, 0, 0.5);
    char text[SL_COST_TEXT_BYTES], damaged[SL_COST_TEXT_BYTES];
    size_t n = sl_cost_write(&cost, text);
    assert_true(n > 0 && n < sizeof text && text[n - 1] == '\n');
    other = fresh;
    assert_true(sl_cost_read(&other, text, n));
    sl_step_work work = random_work(&cost);
    assert_true(fabs(sl_cost_predict_us(&other, &work) / sl_cost_predict_us(&cost, &work) - 1) < 1e-4);
    assert_true(learn(&other, 100, 1, 0.03, 0, 0.5) < 0.03); /* good from the first step on */
    /* Another machine or model, each cut and each changed byte: refused, and nothing is taken over. */
    other = fresh;
    other.key++;
    assert_false(sl_cost_read(&other, text, n));
    other = fresh;
    for (size_t i = 0; i < n; i++) {
        assert_false(sl_cost_read(&other, text, i));
        for (int bit = 0; bit < 8; bit++) {
            memcpy(damaged, text, n);
            damaged[i] = (char)(damaged[i] ^ 1 << bit);
            assert_false(sl_cost_read(&other, damaged, n));
        }
    }
    for (int i = 0; i < 2000; i++) {
        for (size_t k = 0; k < sizeof damaged; k++)
            damaged[k] = (char)(int)(uniform() * 256 - 128);
        memcpy(damaged, text, (size_t)(uniform() * (double)n));
        assert_false(sl_cost_read(&other, damaged, (size_t)(uniform() * sizeof damaged)));
    }
    assert_memory_equal(&other, &fresh, sizeof other);
}

static void test_cache(void **state)
{
    (void)state;
    random_state = 8;
    char folder[] = "/tmp/sluice-test-cost-XXXXXX", path[128], command[160];
    assert_non_null(mkdtemp(folder));
    sl_pack_cache_options options = {.enabled = true, .folder = folder}, off = {.folder = folder};
    sl_cost cost = open_cost(), fresh = open_cost(), other = fresh;
    sl_cost_cache_save(&options, &cost); /* it has not learned anything yet */
    assert_false(sl_cost_cache_load(&options, &other));
    learn(&cost, 300, 1, 0.03, 0, 0.5);
    sl_cost_cache_save(&off, &cost);
    assert_false(sl_cost_cache_load(&options, &other));
    sl_cost_cache_save(&options, &cost);
    assert_false(sl_cost_cache_load(&off, &other));
    assert_memory_equal(&other, &fresh, sizeof other);
    assert_true(sl_cost_cache_load(&options, &other));
    assert_int_equal(other.n_observed, 300);
    learn(&cost, 10, 1, 0.03, 0, 0.5);
    sl_cost_cache_save(&options, &cost); /* replaces the first */
    assert_true(sl_cost_cache_load(&options, &other));
    assert_int_equal(other.n_observed, 310);
    /* A file that others can write, one that is too long, and a link are left alone. */
    other = fresh;
    snprintf(path, sizeof path, "%s/cost-%016llx.txt", folder, (unsigned long long)cost.key);
    assert_int_equal(chmod(path, 0666), 0);
    assert_false(sl_cost_cache_load(&options, &other));
    assert_int_equal(chmod(path, 0600), 0);
    assert_true(sl_cost_cache_load(&options, &other));
    assert_int_equal(truncate(path, 1 << 20), 0);
    assert_false(sl_cost_cache_load(&options, &other));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_false(sl_cost_cache_load(&options, &other));
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns), cmocka_unit_test(test_outliers),  cmocka_unit_test(test_follows_speed),
        cmocka_unit_test(test_shape),  cmocka_unit_test(test_positions), cmocka_unit_test(test_rows_within),
        cmocka_unit_test(test_parts),  cmocka_unit_test(test_text),      cmocka_unit_test(test_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
