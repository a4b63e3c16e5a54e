/* Speed of the matmul kernels by weight type, level, shape and rows, beside what one core can do at most.
 *
 * usage: kernel_bench [TYPE | all [LEVEL | all [SHAPE]]]     as in: kernel_bench Q4_K avx512vnni 8192x2048
 *
 * One thread, timed by its own CPU clock, so that it can be used while the machine does other things too: slices of the
 * kernel and of the limits' loops take turns, and the share of the limit is the median over the pairs. The limit is the
 * longer of two times: the operations at the peak of int8 (float types: fp32) multiply-adds, and the weights' bytes at
 * the speed at which the same memory can be read. Weights are copies of a matrix in more memory than most caches hold,
 * and each run takes the next copy. */
#define _GNU_SOURCE
#include "support.h"

#include "kernel/ops.h"
#include "kernel/peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct shape {
    size_t n_out, n_in;
} shape;

static const shape shapes[] = {{576, 576}, {1536, 576}, {576, 1536}, {2048, 2048}, {8192, 2048}, {2048, 8192}};
static const size_t row_counts[] = {1, 4, 8, 16, 32, 504};

enum { TYPES = 64, WEIGHT_BYTES = 256 << 20, READ_STEP = 1 << 20, MAX_ROWS = 504, N_PAIRS = 9, SLICE_NS = 8000000 };

typedef struct bench {
    char *weights; /* WEIGHT_BYTES */
    void *scratch; /* SL_MATMUL_SCRATCH_BYTES */
    sl_peak peak;
    float sink;
    size_t read_at; /* of the read loop */
} bench;

typedef struct job {
    sl_matmul_fn *kernel;
    sl_matmul args;
    sl_weight weight;
    size_t n_rows, copy;
    bool fp32;
} job;

/* Nanoseconds of a run of the job, each with the next copy of the weights. */
static double slice_of_job(const bench *b, job *j)
{
    size_t bytes = j->weight.n_panels * j->weight.panel_bytes, n_copies = WEIGHT_BYTES / bytes, n = 0;
    double start = bench_cpu_ns(), now = start;
    for (; now < start + SLICE_NS; now = bench_cpu_ns()) {
        j->weight.data = b->weights + j->copy++ % n_copies * bytes;
        j->kernel(&j->args, 0, j->n_rows, 0, j->weight.n_panels);
        n++;
    }
    return (now - start) / (double)n;
}

/* Operations a nanosecond. */
static double slice_of_peak(bench *b, sl_peak_fn *loop)
{
    double start = bench_cpu_ns(), now = start, ops = 0;
    for (; now < start + SLICE_NS / 2.0; now = bench_cpu_ns())
        ops += (double)loop(20000, &b->sink);
    return ops / (now - start);
}

/* Bytes a nanosecond, of the memory that the weights are in. */
static double slice_of_reading(bench *b)
{
    double start = bench_cpu_ns(), now = start, bytes = 0;
    for (; now < start + SLICE_NS / 2.0; now = bench_cpu_ns()) {
        b->peak.read(b->weights + b->read_at, READ_STEP, &b->sink);
        b->read_at = (b->read_at + READ_STEP) % WEIGHT_BYTES;
        bytes += READ_STEP;
    }
    return bytes / (now - start);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, N_PAIRS, sizeof *values, compare);
    return values[N_PAIRS / 2];
}

static void measure(bench *b, job *j)
{
    double ops = 2.0 * (double)(j->n_rows * j->weight.n_rows * j->weight.n_cols);
    double bytes = (double)(j->weight.n_panels * j->weight.panel_bytes);
    double times[N_PAIRS], shares[N_PAIRS];
    slice_of_job(b, j);
    for (int i = 0; i < N_PAIRS; i++) {
        double peak = slice_of_peak(b, j->fp32 ? b->peak.fp32 : b->peak.int8), reading = slice_of_reading(b);
        times[i] = slice_of_job(b, j);
        shares[i] = SL_MAX(ops / peak, bytes / reading) / times[i];
    }
    double ns = median(times);
    printf("  %3zu: %6.1f Gop/s %5.1f GB/s %3.0f%%", j->n_rows, ops / ns, bytes / ns, 100 * median(shares));
    fflush(stdout);
}

/* Activations: MAX_ROWS rows of small floats, quantized if the weight wants them so. */
static void *make_rows(const sl_kernels *kernels, const sl_weight *weight, size_t *stride)
{
    size_t n = weight->n_cols;
    *stride = weight->act == SL_ACT_Q8 ? sl_q8_row_bytes(n) : n * sizeof(float);
    char *rows = bench_allocate(*stride * MAX_ROWS);
    float *x = bench_allocate(n * sizeof *x);
    uint32_t random = 1;
    for (size_t r = 0; r < MAX_ROWS; r++) {
        for (size_t i = 0; i < n; i++) {
            random = random * 1664525u + 1013904223u; /* Numerical Recipes */
            x[i] = (float)(random >> 16) / 32768 - 1;
        }
        if (weight->act == SL_ACT_Q8)
            kernels->quantize_q8(rows + r * *stride, x, n);
        else
            memcpy(rows + r * *stride, x, n * sizeof *x);
    }
    sl_pages_free(x, n * sizeof *x);
    return rows;
}

static void bench_shape(bench *b, sl_level level, sl_type type, shape s)
{
    const sl_kernels *kernels = sl_kernels_get(level);
    job j = {0};
    sl_err err;
    if (sl_weight_describe(level, type, s.n_out, s.n_in, &j.weight, &err) != SL_OK)
        return;
    size_t stride, y_bytes = s.n_out * MAX_ROWS * sizeof(float);
    void *x = make_rows(kernels, &j.weight, &stride), *y = bench_allocate(y_bytes);
    j.args = (sl_matmul){.weight = &j.weight,
                         .x = x,
                         .x_stride_bytes = stride,
                         .y = y,
                         .y_stride_elems = s.n_out,
                         .scratch = b->scratch,
                         .reading = kernels->reading};
    j.kernel = kernels->matmul[j.weight.layout];
    j.fp32 = j.weight.act != SL_ACT_Q8;
    printf("%-7s %-10s %4zux%-4zu", sl_type_get((uint32_t)type)->name, sl_level_name(level), s.n_out, s.n_in);
    for (size_t i = 0; i < SL_COUNTOF(row_counts); i++) {
        j.n_rows = row_counts[i];
        measure(b, &j);
    }
    printf("\n");
    sl_pages_free(x, stride * MAX_ROWS);
    sl_pages_free(y, y_bytes);
}

/* The level can be computed with here and the type has a packed layout there. */
static bool is_measurable(sl_level level, sl_type type)
{
    sl_weight weight;
    sl_level capped;
    sl_err err;
    return level > SL_LEVEL_REF && sl_level_choose(sl_level_name(level), &capped, &err) == SL_OK && capped == level &&
           sl_type_get((uint32_t)type) && sl_weight_describe(level, type, 16, 8192, &weight, &err) == SL_OK &&
           weight.layout != SL_LAYOUT_SOURCE;
}

int main(int argc, char **argv)
{
    const char *type_name = argc > 1 ? argv[1] : "all", *shape_name = argc > 3 ? argv[3] : "all";
    const char *level_name = argc > 2 ? argv[2] : sl_level_name(sl_level_best());
    bool all_types = strcmp(type_name, "all") == 0, all_levels = strcmp(level_name, "all") == 0;
    bool all_shapes = strcmp(shape_name, "all") == 0;
    bench b = {.weights = bench_allocate(WEIGHT_BYTES),
               .scratch = bench_allocate(SL_MATMUL_SCRATCH_BYTES),
               .peak = sl_peak_get(sl_level_best())};
    shape only = {0};
    if (!all_shapes && sscanf(shape_name, "%zux%zu", &only.n_out, &only.n_in) != 2) {
        fprintf(stderr, "kernel_bench: '%s' is no shape like 2048x8192\n", shape_name);
        return 2;
    }
    double int8 = slice_of_peak(&b, b.peak.int8), fp32 = slice_of_peak(&b, b.peak.fp32), reading = slice_of_reading(&b);
    printf("one core: %.0f Gop/s int8, %.0f Gflop/s fp32, reads %.1f GB/s\n", int8, fp32, reading);
    for (int level = 0; level < SL_LEVEL_COUNT; level++) {
        b.peak = sl_peak_get((sl_level)level);
        for (int type = 0; type < TYPES; type++) {
            if (!is_measurable((sl_level)level, (sl_type)type) ||
                (!all_levels && strcmp(level_name, sl_level_name((sl_level)level)) != 0) ||
                (!all_types && strcmp(type_name, sl_type_get((uint32_t)type)->name) != 0))
                continue;
            for (size_t s = 0; s < SL_COUNTOF(shapes) && all_shapes; s++)
                bench_shape(&b, (sl_level)level, (sl_type)type, shapes[s]);
            if (!all_shapes)
                bench_shape(&b, (sl_level)level, (sl_type)type, only);
        }
    }
    sl_pages_free(b.weights, WEIGHT_BYTES);
    sl_pages_free(b.scratch, SL_MATMUL_SCRATCH_BYTES);
    return 0;
}
