/* Sampling of a step's rows: CPU time of one worker, and time with a pool.
 *     build/bench/sample_bench [n_threads] [n_vocab] [n_rows] */
#include "support.h"

#include "base/clock.h"
#include "sample/philox.h"
#include "sample/rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { HISTORY = 500, ROUNDS = 60 };

typedef struct {
    const char *name;
    sl_sample_params params;
} variant;

static void require(sl_status status, const sl_err *err)
{
    if (status == SL_OK)
        return;
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Times of a step's rows in us: this thread's CPU time (median), and what passes (the shortest: on a busy machine the
 * workers wait for CPUs). Folds the tokens into *sum. */
static void measure(sl_threads *pool, const variant *v, float *logits, uint32_t n_vocab, size_t n_rows, uint32_t *sum,
                    double *cpu, double *passed)
{
    sl_err err;
    sl_sample_team *team;
    sl_sample_row *rows = calloc(n_rows, sizeof *rows);
    double times[ROUNDS];
    if (!rows)
        abort();
    require(sl_sample_team_open(pool, n_vocab, &team, &err), &err);
    for (size_t r = 0; r < n_rows; r++) {
        rows[r].logits = logits + r * n_vocab;
        require(sl_sampler_open(&v->params, n_vocab, &rows[r].sampler, &err), &err);
        for (uint32_t t = 0; t < HISTORY; t++)
            sl_sampler_accept(rows[r].sampler, (t * 37 + (uint32_t)r) % n_vocab, t > HISTORY / 2);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t r = 0; r < n_rows; r++)
            rows[r].position = (uint64_t)round;
        double begin = (double)sl_clock_ns() * 1e-3, cpu_begin = bench_cpu_ns() * 1e-3;
        sl_sample_rows(team, rows, n_rows);
        times[round] = bench_cpu_ns() * 1e-3 - cpu_begin;
        *passed = SL_MIN(*passed, (double)sl_clock_ns() * 1e-3 - begin);
        for (size_t r = 0; r < n_rows; r++) {
            require(rows[r].status, &rows[r].error);
            *sum = *sum * 31 + rows[r].sampled.token;
        }
    }
    for (size_t r = 0; r < n_rows; r++)
        sl_sampler_close(rows[r].sampler);
    sl_sample_team_close(team);
    free(rows);
    qsort(times, ROUNDS, sizeof *times, compare);
    *cpu = times[ROUNDS / 2];
}

/* A hill of logits with a few that stand out, as a model's. */
static void make_logits(float *logits, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double hill = sl_philox_uniform(9, i) + sl_philox_uniform(10, i) + sl_philox_uniform(11, i) - 1.5;
        logits[i] = (float)(8 * hill + (i % 997 == 0 ? 8 : 0));
    }
}

int main(int argc, char **argv)
{
    int n_threads = argc > 1 ? atoi(argv[1]) : 2;
    uint32_t n_vocab = argc > 2 ? (uint32_t)atoi(argv[2]) : 49152;
    size_t n_rows = argc > 3 ? (size_t)atoi(argv[3]) : 16;
    uint32_t few[100];
    for (uint32_t i = 0; i < 100; i++)
        few[i] = i * 400 % n_vocab;
    sl_sample_params plain = sl_sample_params_default();
    variant variants[] = {{"greedy", plain},
                          {"  repetition penalty", plain},
                          {"  100 stop tokens masked", plain},
                          {"  100 allowed", plain},
                          {"  5 log-probabilities", plain},
                          {"temperature 1", plain},
                          {"  top_p 0.95", plain},
                          {"  min_p 0.05", plain},
                          {"  top_k 40", plain},
                          {"  top_k 100, top_p, penalty, log-probabilities", plain}};
    variants[1].params.repetition_penalty = variants[9].params.repetition_penalty = 1.1f;
    variants[2].params.stop_tokens = variants[3].params.allowed_tokens = (sl_token_list){few, 100};
    variants[2].params.min_tokens = UINT32_MAX;
    variants[4].params.n_logprobs = variants[9].params.n_logprobs = 5;
    for (size_t v = 5; v < SL_COUNTOF(variants); v++)
        variants[v].params.temperature = 1;
    variants[6].params.top_p = variants[9].params.top_p = 0.95f;
    variants[7].params.min_p = 0.05f;
    variants[8].params.top_k = 40;
    variants[9].params.top_k = 100;
    float *logits = malloc((size_t)n_vocab * n_rows * sizeof *logits);
    sl_threads *pools[2];
    sl_err err;
    if (!logits)
        return 1;
    make_logits(logits, (size_t)n_vocab * n_rows);
    require(sl_threads_open(1, &pools[0], &err), &err);
    require(sl_threads_open(n_threads, &pools[1], &err), &err);
    printf("%zu rows of %u tokens: median us of CPU time; shortest us passed with 1 and %d workers\n", n_rows, n_vocab,
           n_threads);
    for (size_t v = 0; v < SL_COUNTOF(variants); v++) {
        uint32_t sums[2] = {0, 0};
        double cpu[2], passed[2] = {INFINITY, INFINITY};
        for (int i = 0; i < 2; i++)
            measure(pools[i], &variants[v], logits, n_vocab, n_rows, &sums[i], &cpu[i], &passed[i]);
        printf("%-48s %9.1f %9.1f %9.1f%s\n", variants[v].name, cpu[0], passed[0], passed[1],
               sums[0] == sums[1] ? "" : "  OTHER TOKENS");
    }
    sl_threads_close(pools[0]);
    sl_threads_close(pools[1]);
    free(logits);
    return 0;
}
