/* The measuring part of `sluice bench`. */
#include "cli/bench.h"
#include "cli/interrupt.h"
#include "cli/output.h"

#include "base/checked.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { WARM_UP_STEPS = 8 };

static const double slice_seconds = 0.1; /* for each of the machine's figures, between repetitions */

/* What the requests of a task have told so far. */
typedef struct progress {
    uint32_t n_started; /* requests that have their first token */
    uint32_t n_finished;
    uint64_t n_tokens;
    sl_err error; /* of the last request that failed */
    bool failed;
} progress;

static void on_event(void *user, const sl_event *event)
{
    progress *p = user;
    if (event->kind == SL_EVENT_TOKEN) {
        p->n_tokens++;
        p->n_started += event->n_generated == 1;
        return;
    }
    p->n_finished++;
    if (event->finish == SL_FINISH_ERROR) {
        p->failed = true;
        p->error = event->error;
    }
}

/* Rows of a step: the engine takes no more than a sequence may have tokens, so contexts are as long at least. */
static uint32_t step_rows(const sl_bench *bench)
{
    return SL_MIN(bench->chunk, sl_model_get_info(sl_bundle_model(bench->bundle))->context_length);
}

/* Steps in which sequences decode while others still read their prompts, in full chunks. */
static uint32_t mixed_steps(const sl_bench *bench, const sl_bench_task *task)
{
    uint64_t rows = (uint64_t)task->n_seqs * task->n_prompt, room = SL_MAX(step_rows(bench), task->n_seqs + 1);
    return task->n_seqs == 1 ? 0 : (uint32_t)sl_ceil_div(rows, room - task->n_seqs) + 1;
}

/* No stop tokens: the work is always the same. */
static sl_status submit(sl_bench *bench, const sl_bench_task *task, progress *p, uint64_t *id, sl_err *err)
{
    uint32_t n_vocab = sl_model_get_info(sl_bundle_model(bench->bundle))->n_vocab;
    uint32_t *prompt = calloc(task->n_prompt, sizeof(*prompt));
    if (prompt == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; i < task->n_prompt; i++) {
        bench->random = bench->random * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
        prompt[i] = (uint32_t)((bench->random >> 33) % n_vocab);
    }
    sl_request request = {
        .prompt = prompt,
        .n_prompt = task->n_prompt,
        .max_tokens = task->n_decode + mixed_steps(bench, task) + 2,
        .sampling = sl_sample_params_default(),
        .on_event = on_event,
        .user = p,
    };
    sl_status status = sl_engine_submit(task->engine, &request, id, err);
    free(prompt);
    return status;
}

static sl_status step(const sl_bench_task *task, const progress *p, sl_err *err)
{
    bool busy;
    if (sl_interrupts() > 0)
        SL_FAIL(err, SL_ERR_CANCELLED, "interrupted");
    SL_TRY(sl_engine_step(task->engine, sl_clock_us(), &busy, err));
    if (p->failed)
        SL_FAIL(err, p->error.code, "%s", p->error.message);
    return SL_OK;
}

/* Runs the task's requests until the measured part is over; *seconds it took. */
static sl_status run_measured(const sl_bench_task *task, uint32_t n_steps, progress *p, const sl_profile *hook,
                              double *seconds, sl_err *err)
{
    if (task->n_decode == 0)
        sl_engine_set_profile(task->engine, hook);
    int64_t start_ns = sl_clock_ns();
    while (p->n_started < task->n_seqs)
        SL_TRY(step(task, p, err));
    if (task->n_decode > 0) {
        sl_engine_set_profile(task->engine, hook);
        start_ns = sl_clock_ns();
        for (uint32_t i = 0; i < n_steps; i++)
            SL_TRY(step(task, p, err));
        if (p->n_finished > 0)
            SL_FAIL(err, SL_ERR_INTERNAL, "%u of %u sequences ended before they were measured", p->n_finished,
                    task->n_seqs);
    }
    *seconds = (double)SL_MAX(sl_clock_ns() - start_ns, 1) / 1e9;
    return SL_OK;
}

/* Runs the task once with n_steps steps of decode, and ends its requests whatever happens. */
static sl_status run_task(sl_bench *bench, const sl_bench_task *task, uint32_t n_steps, const sl_profile *hook,
                          double *seconds, sl_err *err)
{
    progress p = {0};
    sl_err ignored;
    bool busy = true;
    sl_status status = SL_OK;
    uint64_t first = 0, last = 0;
    for (uint32_t i = 0; i < task->n_seqs && status == SL_OK; i++) {
        status = submit(bench, task, &p, &last, err);
        first = i == 0 ? last : first;
    }
    if (status == SL_OK)
        status = run_measured(task, n_steps, &p, hook, seconds, err);
    sl_engine_set_profile(task->engine, NULL);
    for (uint64_t id = first; id <= last; id++)
        sl_engine_cancel(task->engine, id);
    while (busy && sl_engine_step(task->engine, sl_clock_us(), &busy, &ignored) == SL_OK)
        ;
    return status;
}

static double task_tokens(const sl_bench_task *task)
{
    return (double)task->n_seqs * (task->n_decode > 0 ? task->n_decode : task->n_prompt);
}

/* Share of the limits' mean: least time of the task's work against the time it took. */
static double relate(const sl_bench_task *task, bool fp32, const sl_limits *before, const sl_limits *after,
                     double seconds)
{
    double giga = fp32 ? (before->fp32_gflops + after->fp32_gflops) / 2 : (before->int8_gops + after->int8_gops) / 2;
    double compute = task->ops / (giga * 1e9),
           memory = task->bytes / ((before->dram_gbps + after->dram_gbps) / 2 * 1e9);
    return SL_MAX(compute, memory) / seconds;
}

/* Each task has an engine of its own size. */
static sl_status open_engine(sl_bench *bench, sl_bench_task *task, sl_err *err)
{
    const sl_model *model = sl_bundle_model(bench->bundle);
    sl_engine_options options = {
        .n_sequences = task->n_seqs,
        .chunk = bench->chunk,
        .no_prefix_cache = true, /* each repetition computes its prompts */
        .full_chunks = true,     /* in the steps that mixed_steps counts */
        .context = SL_MAX(task->n_prompt + task->n_decode + mixed_steps(bench, task) + 2, step_rows(bench)),
    };
    uint32_t longest = sl_model_get_info(model)->context_length;
    if (options.context > longest)
        SL_FAIL(err, SL_ERR_LIMIT, "%s of %u and %u tokens does not fit into the %u that this model was made for",
                task->name, task->n_prompt, task->n_decode, longest);
    return sl_bundle_open_engine(bench->bundle, &options, &task->engine, err);
}

/* The work of the task's measured part. Every weight of a matmul takes a multiplication and an addition for each token;
 * the vocabulary's matrix only for those whose logits are wanted. Weights are read once a step, but for the rows of the
 * embedding that are not looked up; besides each sequence's keys and values so far. */
static void reckon_work(const sl_bench *bench, sl_bench_task *task)
{
    const sl_model_info *info = sl_model_get_info(sl_bundle_model(bench->bundle));
    const sl_gguf_tensor *embedding = sl_gguf_find_tensor(sl_bundle_gguf(bench->bundle), "token_embd.weight");
    double n_embedding = embedding != NULL ? (double)embedding->n_elems : 0;
    double n_matmul = (double)info->n_params - n_embedding * (info->tied_embeddings ? 1 : 2);
    double weight_bytes = (double)info->weight_bytes, n_seqs = task->n_seqs;
    if (!info->tied_embeddings && embedding != NULL)
        weight_bytes -= (double)embedding->n_bytes;
    if (task->n_decode == 0) {
        task->ops = 2 * n_seqs * (n_matmul * task->n_prompt + n_embedding);
        task->bytes = weight_bytes;
        return;
    }
    double position = task->n_prompt + task->n_decode / 2.0; /* on average */
    task->ops = 2 * n_seqs * task->n_decode * (n_matmul + n_embedding);
    task->bytes = task->n_decode * (weight_bytes + n_seqs * position * (double)info->kv_bytes_per_token);
}

static sl_status copy_lines(const sl_profiler *profiler, size_t most, bool by_label, sl_profile_line **out,
                            size_t *n_out, sl_err *err)
{
    *out = calloc(most, sizeof(**out));
    if (*out == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    *n_out = sl_profiler_lines(profiler, by_label, *out);
    return SL_OK;
}

/* One more run of the task with the profiler; its time counts for the profile only. */
static sl_status profile_task(sl_bench *bench, sl_bench_task *task, sl_err *err)
{
    sl_bench_profile *profile = &task->profile;
    sl_limits before, after;
    double seconds;
    size_t most = (size_t)sl_model_plan(sl_bundle_model(bench->bundle))->n_steps;
    sl_limits_slice(bench->probe, slice_seconds, &before);
    sl_profiler_reset(bench->profiler);
    SL_TRY(run_task(bench, task, task->n_decode, sl_profiler_hook(bench->profiler), &seconds, err));
    sl_limits_slice(bench->probe, slice_seconds, &after);
    profile->limits = (sl_limits){.dram_gbps = (before.dram_gbps + after.dram_gbps) / 2,
                                  .int8_gops = (before.int8_gops + after.int8_gops) / 2,
                                  .fp32_gflops = (before.fp32_gflops + after.fp32_gflops) / 2};
    profile->wall_us = seconds * 1e6;
    profile->n_runs = sl_profiler_n_runs(bench->profiler);
    SL_TRY(copy_lines(bench->profiler, most, true, &profile->labels, &profile->n_labels, err));
    return copy_lines(bench->profiler, most, false, &profile->steps, &profile->n_steps, err);
}

static void report_progress(const sl_bench *bench, size_t repetition)
{
    char text[512];
    size_t used = 0;
    for (size_t t = 0; t < bench->n_tasks && used < sizeof(text); t++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s %s %.1f", t > 0 ? "," : "", bench->tasks[t].name,
                                 bench->tasks[t].tps[repetition]);
    sl_print_note("%zu of %zu:%s tokens/s", repetition + 1, bench->n_repetitions, text);
}

sl_status sl_bench_measure(sl_bench *bench, sl_err *err)
{
    bool fp32 = sl_model_plan(sl_bundle_model(bench->bundle))->level == SL_LEVEL_EXACT;
    double seconds[SL_COUNTOF(bench->tasks)];
    for (size_t t = 0; t < bench->n_tasks; t++) {
        sl_bench_task *task = &bench->tasks[t];
        reckon_work(bench, task);
        SL_TRY(open_engine(bench, task, err));
        SL_TRY(run_task(bench, task, SL_MIN(task->n_decode, WARM_UP_STEPS), NULL, &seconds[t], err));
    }
    sl_limits_slice(bench->probe, slice_seconds, &bench->limits[0]);
    for (size_t i = 0; i < bench->n_repetitions; i++) {
        for (size_t t = 0; t < bench->n_tasks; t++) {
            sl_bench_task *task = &bench->tasks[t];
            SL_TRY(run_task(bench, task, task->n_decode, NULL, &seconds[t], err));
            task->tps[i] = task_tokens(task) / seconds[t];
        }
        sl_limits_slice(bench->probe, slice_seconds, &bench->limits[i + 1]);
        for (size_t t = 0; t < bench->n_tasks; t++)
            bench->tasks[t].of_limit[i] =
                relate(&bench->tasks[t], fp32, &bench->limits[i], &bench->limits[i + 1], seconds[t]);
        if (sl_is_terminal(STDERR_FILENO))
            report_progress(bench, i);
    }
    for (size_t t = 0; t < bench->n_tasks && bench->profiler != NULL; t++)
        SL_TRY(profile_task(bench, &bench->tasks[t], err));
    return SL_OK;
}
