/* What scheduler, sampler and the rest of the engine cost: requests that come all at once go through the whole engine, and
 * then the batches that it gave its backend (the same rows, positions, sequences and KV blocks, in the same order) go
 * through the backend alone. By turns, each replay right behind the run that it repeats.
 *
 * usage: plan_bench MODEL.gguf [-t THREADS] [-r ROUNDS] [-n REQUESTS] [-p PROMPT] [-g ANSWER] [--json]
 *
 * Ratios are medians over the rounds, of wall time and of the calling thread's CPU time (for one thread on a busy machine).
 * "inside" is the share of the engine's own run that its backend had, which no drift between two runs can touch. Copying
 * the batches counts as the engine's time. */
#include "app/bundle.h"
#include "engine/step.h"
#include "recording.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WALL, CPU, N_CLOCKS, MOST_ROUNDS = 1000, WARM_ROUNDS = 2 };

typedef struct moment {
    double us[N_CLOCKS];
} moment;

typedef struct settings {
    const char *path;
    int n_threads;
    uint32_t n_rounds, n_requests, n_prompt, n_answer;
    bool json;
} settings;

static recording given; /* to the backend */
static moment spent;    /* there */

/* Of each round: the engine's run, the backend's part of it, and the replay. */
typedef struct round_times {
    moment engine, inside, plan;
    size_t n_steps;
} round_times;

static moment now(void)
{
    static const clockid_t clocks[N_CLOCKS] = {[WALL] = CLOCK_MONOTONIC, [CPU] = CLOCK_THREAD_CPUTIME_ID};
    moment m;
    for (int i = 0; i < N_CLOCKS; i++) {
        struct timespec ts;
        clock_gettime(clocks[i], &ts);
        m.us[i] = (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
    }
    return m;
}

static moment since(moment begin)
{
    moment m = now();
    for (int i = 0; i < N_CLOCKS; i++)
        m.us[i] -= begin.us[i];
    return m;
}

static void fail(const char *message)
{
    fprintf(stderr, "plan_bench: %s\n", message);
    exit(1);
}

static void require(sl_status status, const sl_err *err)
{
    if (status != SL_OK)
        fail(err->message);
}

/* ---- recording ---- */

static sl_status run_and_record(sl_context *context, const sl_batch *batch, sl_err *err)
{
    recording_keep(&given, batch);
    moment begin = now();
    sl_status status = sl_backend_cpu()->run(context, batch, err);
    moment took = since(begin);
    for (int i = 0; i < N_CLOCKS; i++)
        spent.us[i] += took.us[i];
    return status;
}

/* ---- a round ---- */

static void run_engine(sl_engine *engine, const settings *s, uint32_t n_vocab, round_times *times)
{
    sl_err err;
    uint32_t *prompt = calloc(s->n_prompt, sizeof *prompt), random = 1;
    bool busy = true;
    if (!prompt)
        fail("no memory");
    recording_forget(&given);
    spent = (moment){0};
    moment begin = now();
    for (uint32_t i = 0; i < s->n_requests; i++) {
        for (uint32_t t = 0; t < s->n_prompt; t++) {
            random = random * 1664525 + 1013904223;
            prompt[t] = (random >> 8) % n_vocab;
        }
        sl_request request = {.prompt = prompt,
                              .n_prompt = s->n_prompt,
                              .max_tokens = s->n_answer,
                              .sampling = sl_sample_params_default()};
        require(sl_engine_submit(engine, &request, NULL, &err), &err);
    }
    while (busy)
        require(sl_engine_step(engine, sl_clock_us(), &busy, &err), &err);
    times->engine = since(begin);
    times->inside = spent;
    times->n_steps = given.n;
    free(prompt);
}

static void run_plan(sl_engine *engine, round_times *times)
{
    sl_err err;
    moment begin = now();
    for (size_t i = 0; i < given.n; i++)
        require(sl_backend_cpu()->run(engine->context, &given.batches[i], &err), &err);
    times->plan = since(begin);
}

/* ---- the report ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median over the rounds of one time over another; below NULL: of the time in us. */
static double median(const round_times *rounds, uint32_t n, size_t above, const size_t *below, int which)
{
    double values[MOST_ROUNDS];
    for (uint32_t i = 0; i < n; i++) {
        const char *r = (const char *)&rounds[i];
        values[i] = ((const moment *)(r + above))->us[which];
        if (below)
            values[i] /= ((const moment *)(r + *below))->us[which];
    }
    qsort(values, n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void report(const settings *s, const round_times *rounds)
{
    static const char *const names[N_CLOCKS] = {[WALL] = "wall", [CPU] = "thread CPU"};
    static const size_t engine = offsetof(round_times, engine), plan = offsetof(round_times, plan),
                        inside = offsetof(round_times, inside);
    double n_tokens = (double)s->n_requests * s->n_answer;
    if (s->json)
        printf("{\"requests\": %u, \"prompt_tokens\": %u, \"output_tokens\": %u, \"rounds\": %u, \"steps\": %zu",
               s->n_requests, s->n_prompt, s->n_answer, s->n_rounds, rounds[0].n_steps);
    else
        printf("%u requests of %u + %u tokens, %zu steps, medians of %u rounds: generated tokens/s\n", s->n_requests,
               s->n_prompt, s->n_answer, rounds[0].n_steps, s->n_rounds);
    for (int c = 0; c < N_CLOCKS; c++) {
        double engine_rate = n_tokens / median(rounds, s->n_rounds, engine, NULL, c) * 1e6;
        double plan_rate = n_tokens / median(rounds, s->n_rounds, plan, NULL, c) * 1e6;
        double ratio = median(rounds, s->n_rounds, plan, &engine, c);
        double share = median(rounds, s->n_rounds, inside, &engine, c);
        if (s->json)
            printf(", \"%s\": {\"engine\": %.1f, \"plan\": %.1f, \"ratio\": %.4f, \"inside\": %.4f}",
                   c == WALL ? "wall" : "thread_cpu", engine_rate, plan_rate, ratio, share);
        else
            printf("%-11s engine %8.1f   the plan alone %8.1f   ratio %5.1f %%   inside %5.1f %%\n", names[c],
                   engine_rate, plan_rate, 100 * ratio, 100 * share);
    }
    if (s->json)
        printf("}\n");
}

static void measure(const settings *s, const sl_bundle *bundle)
{
    static round_times rounds[MOST_ROUNDS];
    sl_err err;
    sl_engine *engine;
    const sl_model *model = sl_bundle_model(bundle);
    sl_backend backend = *sl_backend_cpu();
    backend.run = run_and_record;
    sl_engine_model engine_model = sl_engine_model_of(model);
    engine_model.backend = &backend;
    sl_engine_options options = {
        .n_sequences = s->n_requests, .context = s->n_prompt + s->n_answer, .no_prefix_cache = true};
    given.n_groups = sl_model_plan(model)->n_groups;
    require(sl_engine_open(&engine_model, &options, sl_bundle_threads(bundle), &engine, &err), &err);
    for (uint32_t i = 0; i < WARM_ROUNDS + s->n_rounds; i++) {
        round_times *times = &rounds[i < WARM_ROUNDS ? 0 : i - WARM_ROUNDS];
        run_engine(engine, s, sl_model_get_info(model)->n_vocab, times);
        run_plan(engine, times);
    }
    report(s, rounds);
    recording_forget(&given);
    spent = (moment){0};
    free(given.batches);
    sl_engine_close(engine);
}

/* False for arguments that can't be. */
static bool read_arguments(int argc, char **argv, settings *s)
{
    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;
        if (!strcmp(argv[i], "--json"))
            s->json = true;
        else if (!strcmp(argv[i], "-t") && has_value)
            s->n_threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "-r") && has_value)
            s->n_rounds = (uint32_t)atoi(argv[++i]);
        else if (!strcmp(argv[i], "-n") && has_value)
            s->n_requests = (uint32_t)atoi(argv[++i]);
        else if (!strcmp(argv[i], "-p") && has_value)
            s->n_prompt = (uint32_t)atoi(argv[++i]);
        else if (!strcmp(argv[i], "-g") && has_value)
            s->n_answer = (uint32_t)atoi(argv[++i]);
        else if (argv[i][0] != '-' && !s->path)
            s->path = argv[i];
        else
            return false;
    }
    return s->path && s->n_rounds >= 1 && s->n_rounds <= MOST_ROUNDS && s->n_requests >= 1 && s->n_prompt >= 1 &&
           s->n_answer >= 1;
}

int main(int argc, char **argv)
{
    settings s = {.n_rounds = 7, .n_requests = 16, .n_prompt = 128, .n_answer = 64};
    if (!read_arguments(argc, argv, &s)) {
        fprintf(stderr, "usage: plan_bench MODEL.gguf [-t THREADS] [-r ROUNDS] [-n REQUESTS] [-p PROMPT] [-g ANSWER] "
                        "[--json]\n");
        return 2;
    }
    sl_err err;
    sl_bundle *bundle;
    sl_bundle_options options = sl_bundle_options_default();
    options.n_threads = s.n_threads;
    require(sl_bundle_open(s.path, &options, &bundle, &err), &err);
    measure(&s, bundle);
    sl_bundle_close(bundle);
    return 0;
}
