/* `sluice bench`: speed of prefill and decode, beside what the machine could do at the same time. */
#include "cli/bench.h"
#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 1 << 20, MAX_SEQUENCES = 1024 };

static void add_task(sl_bench *bench, sl_bench_kind kind, uint32_t n_seqs, uint32_t n_prompt, uint32_t n_decode)
{
    static const char *const names[] = {"prefill", "decode", "batch"};
    sl_bench_task *task = &bench->tasks[bench->n_tasks++];
    *task = (sl_bench_task){.kind = kind, .n_seqs = n_seqs, .n_prompt = n_prompt, .n_decode = n_decode};
    snprintf(task->name, sizeof(task->name), kind == SL_BENCH_BATCH ? "%s %u" : "%s", names[kind], n_seqs);
}

/* --batch: whole numbers with commas between them. */
static sl_status add_batches(sl_bench *bench, const char *list, uint32_t n_prompt, uint32_t n_decode, sl_err *err)
{
    for (const char *at = list; at != NULL;) {
        char number[16] = "";
        size_t n = strcspn(at, ",");
        uint64_t n_seqs;
        if (n < sizeof(number))
            memcpy(number, at, n);
        if (!sl_parse_uint(number, 1, MAX_SEQUENCES, &n_seqs) || bench->n_tasks == SL_COUNTOF(bench->tasks))
            SL_FAIL(err, SL_ERR_ARGUMENT,
                    "--batch takes at most %d whole numbers from 1 to %d, as in 1,8,32, not '%.40s'",
                    SL_BENCH_MAX_BATCHES, MAX_SEQUENCES, list);
        add_task(bench, SL_BENCH_BATCH, (uint32_t)n_seqs, n_prompt, n_decode);
        at = at[n] == ',' ? at + n + 1 : NULL;
    }
    return SL_OK;
}

static sl_status read_tasks(const sl_args *args, sl_bench *bench, sl_err *err)
{
    uint32_t n_prompt = (uint32_t)sl_args_uint(args, "n-prompt"), n_decode = (uint32_t)sl_args_uint(args, "n-decode");
    if (n_prompt > 0)
        add_task(bench, SL_BENCH_PREFILL, 1, n_prompt, 0);
    if (n_decode > 0)
        add_task(bench, SL_BENCH_DECODE, 1, 1, n_decode);
    if (sl_args_given(args, "batch"))
        SL_TRY(add_batches(bench, sl_args_text(args, "batch"), (uint32_t)sl_args_uint(args, "batch-prompt"),
                           (uint32_t)sl_args_uint(args, "batch-decode"), err));
    if (bench->n_tasks == 0)
        SL_FAIL(err, SL_ERR_ARGUMENT, "nothing to measure: -p and -n are 0, and there is no --batch");
    return SL_OK;
}

static sl_status allocate(sl_bench *bench, sl_err *err)
{
    bool good = (bench->limits = calloc(bench->n_repetitions + 1, sizeof(*bench->limits))) != NULL;
    for (size_t t = 0; t < bench->n_tasks; t++) {
        sl_bench_task *task = &bench->tasks[t];
        good &= (task->tps = calloc(bench->n_repetitions, sizeof(*task->tps))) != NULL;
        good &= (task->of_limit = calloc(bench->n_repetitions, sizeof(*task->of_limit))) != NULL;
    }
    if (!good)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    return SL_OK;
}

static sl_status open_and_measure(const sl_args *args, sl_bench *bench, sl_bundle **bundle, sl_err *err)
{
    SL_TRY(read_tasks(args, bench, err));
    SL_TRY(allocate(bench, err));
    SL_TRY(sl_model_args_open(args, NULL, bundle, err));
    bench->bundle = *bundle;
    const sl_plan *plan = sl_model_plan(sl_bundle_model(*bundle));
    sl_threads *threads = sl_bundle_threads(*bundle);
    bench->level = plan->level;
    SL_TRY(sl_limits_open(threads, bench->level, &bench->probe, err));
    if (sl_args_flag(args, "profile"))
        SL_TRY(sl_profiler_open(plan, sl_threads_count(threads), &bench->profiler, err));
    SL_TRY(sl_bench_measure(bench, err));
    return sl_bench_print(bench, sl_args_flag(args, "json"), err);
}

static sl_status run(const sl_args *args, sl_err *err)
{
    sl_bundle *bundle = NULL;
    sl_bench bench = {
        .n_repetitions = sl_args_uint(args, "repetitions"),
        .chunk = (uint32_t)sl_args_uint(args, "chunk"),
    };
    sl_status status = open_and_measure(args, &bench, &bundle, err);
    for (size_t t = 0; t < bench.n_tasks; t++) {
        sl_bench_task *task = &bench.tasks[t];
        sl_bundle_close_engine(bundle, task->engine);
        free(task->tps);
        free(task->of_limit);
        free(task->profile.labels);
        free(task->profile.steps);
    }
    free(bench.limits);
    sl_profiler_close(bench.profiler);
    sl_limits_close(bench.probe);
    sl_bundle_close(bundle);
    return status;
}

static const sl_option options[] = {
    SL_OPT_MODEL,
    {.name = "n-prompt",
     .letter = 'p',
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 0,
     .max = MAX_TOKENS,
     .fallback = "512",
     .help = "tokens of the prompt that prefill is measured with; 0 = not measured"},
    {.name = "n-decode",
     .letter = 'n',
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 0,
     .max = MAX_TOKENS,
     .fallback = "128",
     .help = "tokens that decode is measured with; 0 = not measured"},
    {.name = "batch",
     .letter = 'b',
     .kind = SL_OPTION_TEXT,
     .argument = "LIST",
     .help = "also measure decode of so many sequences at once, as in 1,8,32"},
    {.name = "batch-prompt",
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 1,
     .max = MAX_TOKENS,
     .fallback = "128",
     .help = "tokens of the prompt of each of these sequences"},
    {.name = "batch-decode",
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 1,
     .max = MAX_TOKENS,
     .fallback = "128",
     .help = "tokens that each of them generates"},
    {.name = "repetitions",
     .letter = 'r',
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 1,
     .max = SL_BENCH_MAX_REPETITIONS,
     .fallback = "3",
     .help = "repetitions, after a short run to warm up"},
    {.name = "profile",
     .kind = SL_OPTION_FLAG,
     .help =
         "after them, show where the time goes: each kind of step with its bytes, operations and share of the limit"},
    SL_OPTS_THREADS,
    SL_OPT_LEVEL,
    SL_OPTS_CACHE,
    SL_OPT_KV_TYPE,
    SL_OPT_CHUNK,
    SL_OPT_JSON,
};

const sl_command sl_cmd_bench = {
    .name = "bench",
    .summary = "measure how fast a model runs here",
    .operands = "",
    .description =
        "Prefill reads a prompt of random tokens; decode generates from one token and does not stop at the end of an "
        "answer; --batch generates for several sequences at once, each with a prompt of its own, and counts the tokens "
        "of all. The machine's own limits are measured in between: the share of the limit is the least time the work "
        "could take, by its arithmetic or by the bytes it reads from memory, against the time it took.\n\n"
        "With --profile, time is what passed between two barriers, on the average worker; slowest is the work of the "
        "worker that took longest, waiting is the time spent at the barrier. With --json the profile also has every "
        "single step of the plan.",
    .examples = "sluice bench -m smollm2\nsluice bench -m smollm2 -p 512 -n 128 --batch 1,8,32 -r 3 -t 2 --json\n"
                "sluice bench -m smollm2 -r 1 --profile",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .run = run,
};
