/* The printing part of `sluice bench`. */
#include "cli/bench.h"
#include "cli/output.h"

#include <stdlib.h>

typedef struct spread {
    double min, median, max;
} spread;

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the n doubles that lie stride bytes apart from first on; n <= SL_BENCH_MAX_REPETITIONS + 1. */
static spread find_spread(const double *first, size_t stride, size_t n)
{
    double sorted[SL_BENCH_MAX_REPETITIONS + 1];
    for (size_t i = 0; i < n; i++)
        sorted[i] = *(const double *)(const void *)((const char *)first + i * stride);
    qsort(sorted, n, sizeof(*sorted), compare_doubles);
    return (spread){sorted[0], (sorted[(n - 1) / 2] + sorted[n / 2]) / 2, sorted[n - 1]};
}

static spread tps_spread(const sl_bench *bench, const sl_bench_task *task)
{
    return find_spread(task->tps, sizeof(*task->tps), bench->n_repetitions);
}

static double share(const sl_bench *bench, const sl_bench_task *task)
{
    return find_spread(task->of_limit, sizeof(*task->of_limit), bench->n_repetitions).median;
}

/* Medians of the slices. */
static sl_limits machine(const sl_bench *bench)
{
    size_t n = bench->n_repetitions + 1, stride = sizeof(*bench->limits);
    return (sl_limits){.dram_gbps = find_spread(&bench->limits->dram_gbps, stride, n).median,
                       .int8_gops = find_spread(&bench->limits->int8_gops, stride, n).median,
                       .fp32_gflops = find_spread(&bench->limits->fp32_gflops, stride, n).median};
}

/* Of the profile's time, what passed outside the plan's runs: sampling, scheduling, waking the workers. */
static double outside_us(const sl_bench_profile *profile)
{
    double inside = 0;
    for (size_t i = 0; i < profile->n_labels; i++)
        inside += profile->labels[i].work_us + profile->labels[i].wait_us;
    return SL_MAX(profile->wall_us - inside, 0);
}

/* ---- JSON ---- */

static json_t *pack_spread(spread s)
{
    return json_pack("{s:f, s:f, s:f}", "min", s.min, "median", s.median, "max", s.max);
}

static json_t *pack_limits(const sl_limits *limits)
{
    return json_pack("{s:f, s:f, s:f}", "dram_gbps", limits->dram_gbps, "int8_gops", limits->int8_gops, "fp32_gflops",
                     limits->fp32_gflops);
}

static json_t *pack_lines(const sl_profile_line *lines, size_t n, const sl_limits *limits)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        const sl_profile_line *line = &lines[i];
        json_t *one = json_pack("{s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:s, s:f}", "label", line->label, "steps",
                                (int)line->n_steps, "work_us", line->work_us, "slowest_us", line->slowest_us, "wait_us",
                                line->wait_us, "ops", line->ops, "bytes", line->bytes, "arithmetic",
                                line->int8 ? "int8" : "fp32", "limit_us", sl_profile_limit_us(line, limits));
        json_array_append_new(array, one);
    }
    return array;
}

static json_t *pack_profile(const sl_bench_task *task)
{
    const sl_bench_profile *profile = &task->profile;
    return json_pack("{s:i, s:f, s:f, s:o, s:o, s:o}", "runs", (int)profile->n_runs, "wall_us", profile->wall_us,
                     "outside_us", outside_us(profile), "machine", pack_limits(&profile->limits), "ops",
                     pack_lines(profile->labels, profile->n_labels, &profile->limits), "steps",
                     pack_lines(profile->steps, profile->n_steps, &profile->limits));
}

/* Figures of prefill and decode stand under names of their own, those of batches in a list. */
static sl_status print_json(const sl_bench *bench, sl_err *err)
{
    sl_limits limits = machine(bench);
    json_t *root = json_object(), *of_limit = json_object(), *batch = json_array(), *profile = json_object();
    for (size_t t = 0; t < bench->n_tasks; t++) {
        const sl_bench_task *task = &bench->tasks[t];
        json_t *tps = pack_spread(tps_spread(bench, task));
        if (task->kind == SL_BENCH_BATCH) {
            json_array_append_new(batch, json_pack("{s:i, s:o, s:f}", "sequences", (int)task->n_seqs, "tps", tps,
                                                   "of_limit", share(bench, task)));
        } else {
            json_object_set_new(root, task->kind == SL_BENCH_PREFILL ? "prefill_tps" : "decode_tps", tps);
            json_object_set_new(of_limit, task->name, json_real(share(bench, task)));
        }
        if (bench->profiler != NULL)
            json_object_set_new(profile, task->name, pack_profile(task));
    }
    json_object_set_new(root, "of_limit", of_limit);
    json_object_set_new(root, "batch", batch);
    json_object_set_new(root, "machine", pack_limits(&limits));
    json_object_set_new(root, "level", json_string(sl_level_name(bench->level)));
    json_object_set_new(root, "threads", json_integer(sl_threads_count(sl_bundle_threads(bench->bundle))));
    if (bench->profiler != NULL)
        json_object_set_new(root, "profile", profile);
    else
        json_decref(profile);
    return sl_out_json(root, err);
}

/* ---- text ---- */

static void print_line(const sl_profile_line *line, const sl_bench_profile *profile)
{
    double us = line->work_us + line->wait_us, runs = profile->n_runs;
    sl_out_printf("%-44s %5u %9.1f %5.1f%% %9.1f %9.1f", line->label, line->n_steps, us / runs,
                  100 * us / profile->wall_us, line->slowest_us / runs, line->wait_us / runs);
    sl_out_printf(" %9.2f", line->bytes / runs / 1e6);
    if (line->ops > 0)
        sl_out_printf(" %9.2f %8.1f%%\n", line->ops / runs / 1e9,
                      100 * sl_profile_limit_us(line, &profile->limits) / us);
    else
        sl_out_printf(" %9s %9s\n", "-", "-");
}

static void print_profile(const sl_bench_task *task)
{
    const sl_bench_profile *profile = &task->profile;
    char heading[64];
    snprintf(heading, sizeof(heading), "\n%s: %u runs of the plan, in us a run\n", task->name, profile->n_runs);
    sl_out_heading(heading);
    sl_out_printf("%-44s %5s %9s %6s %9s %9s %9s %9s %9s\n", "", "steps", "time", "", "slowest", "waiting", "MB", "Gop",
                  "of limit");
    sl_profile_line sum = {.label = "all steps"};
    double limit_us = 0;
    for (size_t i = 0; i < profile->n_labels; i++) {
        const sl_profile_line *line = &profile->labels[i];
        print_line(line, profile);
        sum.n_steps += line->n_steps;
        sum.work_us += line->work_us;
        sum.wait_us += line->wait_us;
        limit_us += line->ops > 0 ? sl_profile_limit_us(line, &profile->limits) : 0;
    }
    double us = sum.work_us + sum.wait_us, runs = profile->n_runs;
    sl_out_printf("%-44s %5u %9.1f %5.1f%% %9s %9.1f %9s %9s %8.1f%%\n", sum.label, sum.n_steps, us / runs,
                  100 * us / profile->wall_us, "", sum.wait_us / runs, "", "", 100 * limit_us / us);
    sl_out_printf("%-44s %5s %9.1f %5.1f%%\n", "outside the plan: sampling, scheduling", "", outside_us(profile) / runs,
                  100 * outside_us(profile) / profile->wall_us);
}

sl_status sl_bench_print(const sl_bench *bench, bool json, sl_err *err)
{
    if (json)
        return print_json(bench, err);
    sl_limits limits = machine(bench);
    sl_out_printf("%-10s %10s %10s %10s   of the machine's limit\n", "tokens/s", "min", "median", "max");
    for (size_t t = 0; t < bench->n_tasks; t++) {
        const sl_bench_task *task = &bench->tasks[t];
        spread s = tps_spread(bench, task);
        sl_out_printf("%-10s %10.1f %10.1f %10.1f   %5.1f%%\n", task->name, s.min, s.median, s.max,
                      100 * share(bench, task));
    }
    sl_out_printf("machine: memory %.1f GB/s, int8 %.0f Gop/s, fp32 %.0f Gflop/s\n", limits.dram_gbps, limits.int8_gops,
                  limits.fp32_gflops);
    for (size_t t = 0; t < bench->n_tasks && bench->profiler != NULL; t++)
        print_profile(&bench->tasks[t]);
    return SL_OK;
}
