/* How well the engine's cost model predicts: steps the real engine over a mixed trace, predicts each step before it is
 * learned from, and sets the errors beside the spread of identical steps repeated at the same time.
 *
 * usage: cost_bench MODEL.gguf [-t THREADS] [-n STEPS] [-c] [-d]
 *
 * -c takes the calling thread's CPU time instead of the wall clock (for one thread on a busy machine); -d prints each
 * step. Prompts of 1 to 1,200 tokens (log-uniform) and answers of 1 to 160, Poisson arrivals in steps, at most 24 at
 * once, prefill in chunks that change from step to step. Some steps in a row, and again after some others, are run twice
 * more in their order, and then each right behind itself: the difference of two runs is what no model can know. In order a
 * step follows the one it has followed, with what that left in the caches; right behind itself the machine has had less
 * time to change. */
#include "app/bundle.h"
#include "base/clock.h"
#include "engine/cost.h"
#include "engine/step.h"
#include "recording.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    N_SEQS = 24,
    LEAST_CHUNK = 32,
    MOST_CHUNK = 512,
    MOST_PROMPT = 1200,
    MOST_ANSWER = 160,
    WARM_STEPS = 64,
    REPEATED = 16,
    EVERY = 64
};

static bool by_cpu;

static double now_us(void)
{
    struct timespec ts;
    clock_gettime(by_cpu ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static uint64_t random_state = 1;
static double uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
    return ((double)(random_state >> 11) + 0.5) / 9007199254740992.0;
}

static uint32_t log_uniform(double most)
{
    return (uint32_t)exp(uniform() * log(most));
}

static void fail(const sl_err *err)
{
    fprintf(stderr, "cost_bench: %s\n", err->message);
    exit(1);
}

static void submit(sl_engine *engine, uint32_t n_vocab)
{
    uint32_t prompt[MOST_PROMPT];
    sl_err err;
    uint32_t n = log_uniform(MOST_PROMPT);
    for (uint32_t i = 0; i < n; i++)
        prompt[i] = (uint32_t)(uniform() * n_vocab);
    sl_request request = {.prompt = prompt,
                          .n_prompt = n,
                          .max_tokens = log_uniform(MOST_ANSWER),
                          .sampling = sl_sample_params_default()};
    if (sl_engine_submit(engine, &request, NULL, &err) != SL_OK)
        fail(&err);
}

static recording given; /* to the backend: the last batch, and those before it that are to run again */

/* Layered rows go on from where they were left, which is lost once others went: what runs again may not begin amid them. */
static bool are_under_way;
static int n_parts;

static sl_status run_and_record(sl_context *context, const sl_batch *batch, sl_err *err)
{
    recording_keep(&given, batch);
    if (batch->n_layered > 0)
        are_under_way = batch->part_end < n_parts;
    return sl_backend_cpu()->run(context, batch, err);
}

static sl_step_work work_of(const sl_batch *batch, const sl_cost *cost)
{
    sl_step_work work = {0};
    const uint32_t n_whole = batch->n_rows - batch->n_layered;
    for (uint32_t r = 0, n; r < n_whole; r += n) {
        uint32_t n_wanted = 0;
        for (n = 0; r + n < n_whole && batch->rows[r + n].seq == batch->rows[r].seq; n++)
            n_wanted += batch->rows[r + n].wanted;
        sl_cost_add(cost, &work, batch->rows[r].position, n, n_wanted);
    }
    if (batch->n_layered > 0)
        sl_cost_add_layered(cost, &work, batch->rows[n_whole].position, batch->n_layered, (uint32_t)batch->part_begin,
                            (uint32_t)batch->part_end);
    return work;
}

static double run_again(sl_engine *e, size_t i)
{
    sl_err err;
    double begin = now_us();
    if (sl_backend_cpu()->run(e->context, &given.batches[i], &err) != SL_OK)
        fail(&err);
    return now_us() - begin;
}

/* Runs the recorded batches twice more in their order, errors[i] = how much the times of each differ. Returns how many. */
static size_t repeat_in_order(sl_engine *e, double *errors)
{
    double one[REPEATED], other[REPEATED];
    for (size_t i = 0; i < given.n; i++)
        one[i] = run_again(e, i);
    for (size_t i = 0; i < given.n; i++)
        other[i] = run_again(e, i);
    for (size_t i = 0; i < given.n; i++)
        errors[i] = fabs(one[i] / other[i] - 1);
    return given.n;
}

/* The same of each right behind itself, but those with layered rows, which do not go on from where they begin. */
static size_t repeat_behind(sl_engine *e, double *errors)
{
    size_t n = 0;
    for (size_t i = 0; i < given.n; i++) {
        if (given.batches[i].n_layered > 0)
            continue;
        run_again(e, i);
        double one = run_again(e, i), other = run_again(e, i);
        errors[n++] = fabs(one / other - 1);
    }
    return n;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *what, double *errors, size_t n)
{
    qsort(errors, n, sizeof *errors, by_value);
    printf("%-34s n %5zu  median %5.1f %%  p90 %5.1f %%  p95 %5.1f %%  p99 %5.1f %%\n", what, n, 100 * errors[n / 2],
           100 * errors[n * 9 / 10], 100 * errors[n * 95 / 100], 100 * errors[n * 99 / 100]);
}

static void run(sl_engine *engine, sl_cost *cost, uint32_t n_vocab, int n_steps, bool details)
{
    double *errors = calloc((size_t)n_steps, sizeof *errors), *spread = calloc((size_t)n_steps, sizeof *spread);
    double *behind = calloc((size_t)n_steps, sizeof *behind);
    double *first = calloc(WARM_STEPS, sizeof *first);
    size_t n_errors = 0, n_spread = 0, n_behind = 0, n_first = 0;
    int next = 0; /* step from which on steps are recorded again */
    bool records = false;
    for (int i = 0; i < n_steps; i++) {
        bool busy;
        sl_err err;
        for (double more = i == 0 ? 0 : uniform(); more < 0.12; more = uniform())
            submit(engine, n_vocab);
        engine->tasks.schedule.options.max_rows = N_SEQS + LEAST_CHUNK + log_uniform(MOST_CHUNK - N_SEQS - LEAST_CHUNK);
        records = records || (i >= next && !are_under_way);
        double begin = now_us();
        if (sl_engine_step(engine, sl_clock_us(), &busy, &err) != SL_OK)
            fail(&err);
        double took = now_us() - begin;
        if (engine->n_rows == 0)
            continue;
        sl_step_work work = work_of(&given.batches[given.n - 1], cost);
        double predicted = sl_cost_predict_us(cost, &work), error = fabs(predicted / took - 1);
        if (details)
            printf("step %u %u %.1f %.1f %u %.3f %.1f %.1f\n", work.n_rows, work.n_wanted, work.row_positions,
                   work.tile_positions, work.n_layered, work.layered_share, took, predicted);
        *(i < WARM_STEPS ? &first[n_first++] : &errors[n_errors++]) = error;
        sl_cost_observe(cost, &work, took);
        if (given.n == REPEATED) {
            n_spread += repeat_in_order(engine, spread + n_spread);
            n_behind += repeat_behind(engine, behind + n_behind);
            next = i + EVERY - REPEATED;
            records = false;
        }
        if (!records)
            recording_forget(&given);
    }
    report("first steps, from the prior", first, n_first);
    report("predicted against measured", errors, n_errors);
    report("identical steps, in their order", spread, n_spread);
    report("the same, right behind themselves", behind, n_behind);
    free(errors);
    free(spread);
    free(behind);
    free(first);
}

int main(int argc, char **argv)
{
    int n_threads = 0, n_steps = 2000;
    bool details = false;
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "-t") && i + 1 < argc)
            n_threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "-n") && i + 1 < argc)
            n_steps = atoi(argv[++i]);
        else if (!strcmp(argv[i], "-c"))
            by_cpu = true;
        else if (!strcmp(argv[i], "-d"))
            details = true;
    }
    if (argc < 2 || n_steps <= WARM_STEPS) {
        fprintf(stderr, "usage: cost_bench MODEL.gguf [-t THREADS] [-n STEPS] [-c] [-d]\n");
        return 2;
    }
    sl_err err;
    sl_bundle *bundle;
    sl_engine *engine;
    sl_cost cost;
    sl_bundle_options options = sl_bundle_options_default();
    options.n_threads = n_threads;
    if (sl_bundle_open(argv[1], &options, &bundle, &err) != SL_OK)
        fail(&err);
    const sl_model *model = sl_bundle_model(bundle);
    sl_engine_options engine_options = {
        .n_sequences = N_SEQS, .context = MOST_PROMPT + MOST_ANSWER + 1, .chunk = MOST_CHUNK, .no_prefix_cache = true};
    sl_engine_model engine_model = sl_engine_model_of(model);
    sl_backend recording_backend = *engine_model.backend;
    recording_backend.run = run_and_record;
    engine_model.backend = &recording_backend;
    given.n_groups = sl_model_plan(model)->n_groups;
    n_parts = sl_plan_parts(sl_model_plan(model));
    if (sl_engine_open(&engine_model, &engine_options, sl_bundle_threads(bundle), &engine, &err) != SL_OK)
        fail(&err);
    sl_cost_init(&cost, sl_model_plan(model), sl_threads_count(sl_bundle_threads(bundle)));
    run(engine, &cost, sl_model_get_info(model)->n_vocab, n_steps, details);
    sl_engine_close(engine);
    sl_bundle_close(bundle);
    return 0;
}
