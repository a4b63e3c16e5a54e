/* Speed of the matmul kernels by layout, shape and rows, beside what the machine can do at most.
 * usage: kernel_bench [LEVEL [THREADS]]      figures: GOP/s (multiply and add are two), for one row also GB/s */
#include "base/arena.h"
#include "base/clock.h"
#include "base/threads.h"
#include "kernel/layout.h"
#include "tune/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shape {
    size_t n_out, n_in;
} shape;

static const shape shapes[] = {{1536, 576}, {576, 1536}, {576, 576}, {49152, 576}, {2048, 8192}, {8192, 2048}};
static const size_t row_counts[] = {1, 8, 128, 512};

/* One row reads weights from DRAM in real use: so many bytes of copies of the matrix pass by in turn. */
enum { WEIGHT_BYTES = 512 << 20, SLICE_NS = 250000000 };

typedef struct job {
    const sl_kernels *kernels;
    sl_matmul args;
    size_t n_rows;
} job;

static void run_job(void *user, int index, int n_threads)
{
    const job *j = user;
    size_t begin, end;
    sl_threads_share(j->args.weight->n_panels, index, n_threads, &begin, &end);
    sl_matmul args = j->args;
    args.scratch = (char *)j->args.scratch + (size_t)index * SL_MATMUL_SCRATCH_BYTES;
    j->kernels->matmul[args.weight->layout](&args, 0, j->n_rows, begin, end);
}

/* Nanoseconds a run: the average over a slice of time, each run with the next copy of the weights. */
static double run_ns(sl_threads *pool, job *j, sl_weight *weight, const char *weights)
{
    size_t bytes = weight->n_panels * weight->panel_bytes, n_copies = WEIGHT_BYTES / bytes;
    int64_t start = sl_clock_ns(), now = start;
    size_t n = 0;
    for (; n < 3 || now < start + SLICE_NS; n++, now = sl_clock_ns()) {
        weight->data = weights + n % n_copies * bytes;
        sl_threads_run(pool, run_job, j);
    }
    return (double)(now - start) / (double)n;
}

static void *zeroed(size_t n_bytes)
{
    void *p = sl_pages_alloc(n_bytes);
    if (!p) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    memset(p, 0, n_bytes);
    return p;
}

static void bench_shape(sl_threads *pool, sl_level level, sl_type type, shape s, const char *weights)
{
    sl_weight weight;
    sl_err err;
    if (sl_weight_describe(level, type, s.n_out, s.n_in, &weight, &err) != SL_OK)
        return;
    size_t bytes = weight.n_panels * weight.panel_bytes, max_rows = row_counts[SL_COUNTOF(row_counts) - 1];
    size_t stride = weight.act == SL_ACT_Q8 ? sl_q8_row_bytes(s.n_in) : s.n_in * sizeof(float);
    void *x = zeroed(stride * max_rows), *y = zeroed(s.n_out * max_rows * sizeof(float));
    size_t scratch_bytes = (size_t)sl_threads_count(pool) * SL_MATMUL_SCRATCH_BYTES;
    void *scratch = zeroed(scratch_bytes);
    printf("%-11s %-5s %6zu x %-5zu", sl_level_name(level), sl_type_get((uint32_t)type)->name, s.n_out, s.n_in);
    for (size_t i = 0; i < SL_COUNTOF(row_counts); i++) {
        job j = {sl_kernels_get(level), {&weight, x, stride, y, s.n_out, NULL, scratch}, row_counts[i]};
        double ns = run_ns(pool, &j, &weight, weights);
        printf("  %4zu: %7.1f", j.n_rows, 2.0 * (double)(j.n_rows * s.n_out * s.n_in) / ns);
        if (j.n_rows == 1)
            printf(" (%.1f GB/s)", (double)bytes / ns);
    }
    printf("\n");
    fflush(stdout);
    sl_pages_free(x, stride * max_rows);
    sl_pages_free(y, s.n_out * max_rows * sizeof(float));
    sl_pages_free(scratch, scratch_bytes);
}

static void bench_threads(int n_threads, sl_level level)
{
    sl_threads *pool;
    sl_limits limits;
    sl_err err;
    if (sl_threads_open(n_threads, &pool, &err) != SL_OK ||
        sl_limits_measure(pool, level, 0.5, &limits, &err) != SL_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    printf("%d threads: DRAM %.1f GB/s, int8 %.0f GOP/s, fp32 %.0f GFLOP/s\n", n_threads, limits.dram_gbps,
           limits.int8_gops, limits.fp32_gflops);
    char *weights = zeroed(WEIGHT_BYTES);
    for (int i = SL_LAYOUT_F32; i < SL_LAYOUT_COUNT; i++)
        for (size_t s = 0; s < SL_COUNTOF(shapes); s++)
            bench_shape(pool, level, sl_layout_get((sl_layout)i)->type, shapes[s], weights);
    sl_pages_free(weights, WEIGHT_BYTES);
    sl_threads_close(pool);
}

int main(int argc, char **argv)
{
    sl_level level;
    sl_err err;
    if (sl_level_choose(argc > 1 ? argv[1] : NULL, &level, &err) != SL_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 2;
    }
    if (argc > 2) {
        bench_threads(atoi(argv[2]), level);
        return 0;
    }
    bench_threads(1, level);
    bench_threads(2, level);
    return 0;
}
