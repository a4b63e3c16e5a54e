/* Speed of prefill's attention by shape and position, beside what one core can do at most.
 *
 * usage: attention_bench [LEVEL [KV_TYPE]]     as in: attention_bench avx512vnni q8
 *
 * One thread, timed by its own CPU clock as in kernel_bench: the share of the fp32 peak is the median over pairs of
 * slices, the peak's loop and the kernel in turns. Counted are the multiply-adds of positions that a row sees. The rows
 * are cut into tiles as the CPU backend does; blocks lie as in a model of N_LAYERS layers, and each slice takes the next
 * layer, so that K and V come from behind the L2 cache. */
#include "support.h"

#include "kernel/kv_layout.h"
#include "kernel/peak.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N_POSITIONS = 4096, N_LAYERS = 16, N_PAIRS = 15, PEAK_NS = 4000000 };

typedef struct shape {
    const char *name;
    uint32_t n_heads, n_kv_heads, head_dim;
} shape;

static const shape shapes[] = {
    {"Llama 1B", 32, 8, 64}, {"SmolLM2", 9, 3, 64}, {"Gemma 3", 4, 1, 256}, {"Llama 8B", 32, 8, 128}};

/* Rows [begin, end) of a sequence, the last of which are positions of their own. */
static const struct {
    uint32_t begin, end;
} ranges[] = {
    {0, 512}, {N_POSITIONS - 128, N_POSITIONS}, {N_POSITIONS - 8, N_POSITIONS}, {N_POSITIONS - 1, N_POSITIONS}};

typedef struct bench {
    sl_attention_fn *kernel;
    sl_peak_fn *peak;
    sl_attention args;
    char *pool, *scratch;
    uint32_t blocks[N_POSITIONS / SL_KV_BLOCK];
    size_t layer, pool_bytes, scratch_bytes, row_bytes; /* of the pool the next layer; bytes of a row of q and out */
    float sink;
} bench;

static void fill(float *x, size_t n)
{
    static uint32_t random = 1;
    for (size_t i = 0; i < n; i++) {
        random = random * 1664525u + 1013904223u; /* Numerical Recipes */
        x[i] = (float)(random >> 16) / 32768 - 1;
    }
}

static void choose_layer(bench *b, size_t layer)
{
    sl_kv_layer *kv = &b->args.kv;
    const sl_kv_layer own = sl_kv_layer_make(kv->type, kv->n_kv_heads, kv->head_dim);
    kv->k = b->pool + layer * (own.k_stride_bytes + own.v_stride_bytes);
    kv->v = (char *)kv->k + own.k_stride_bytes;
    kv->k_stride_bytes = kv->v_stride_bytes = N_LAYERS * (own.k_stride_bytes + own.v_stride_bytes);
}

static void fill_pool(bench *b, const sl_kernels *kernels)
{
    const size_t n = (size_t)b->args.kv.n_kv_heads * b->args.kv.head_dim;
    float *row = bench_allocate(2 * n * sizeof *row);
    for (uint32_t p = 0; p < N_POSITIONS; p++) {
        fill(row, 2 * n);
        for (size_t layer = 0; layer < N_LAYERS; layer++) {
            choose_layer(b, layer);
            kernels->kv_write(&b->args.kv, b->blocks[p / SL_KV_BLOCK], p % SL_KV_BLOCK, row, row + n);
        }
    }
    sl_pages_free(row, 2 * n * sizeof *row);
}

static void bench_open(bench *b, const sl_kernels *kernels, shape s, sl_kv_type type)
{
    const size_t row = (size_t)s.n_heads * s.head_dim;
    for (uint32_t i = 0; i < SL_COUNTOF(b->blocks); i++)
        b->blocks[i] = i;
    b->args = (sl_attention){.n_heads = s.n_heads,
                             .q_stride_elems = row,
                             .out_stride_elems = row,
                             .scale = 1 / sqrtf((float)s.head_dim),
                             .kv = sl_kv_layer_make(type, s.n_kv_heads, s.head_dim)};
    b->pool_bytes = N_LAYERS * SL_COUNTOF(b->blocks) * (b->args.kv.k_stride_bytes + b->args.kv.v_stride_bytes);
    b->scratch_bytes = sl_attention_scratch_bytes(s.n_heads, s.n_kv_heads, s.head_dim);
    b->row_bytes = row * sizeof(float);
    b->pool = bench_allocate(b->pool_bytes);
    b->scratch = bench_allocate(b->scratch_bytes);
    b->args.out = bench_allocate(512 * b->row_bytes);
    float *q = bench_allocate(512 * b->row_bytes);
    fill(q, 512 * row);
    b->args.q = q;
    fill_pool(b, kernels);
}

static void bench_close(bench *b)
{
    sl_pages_free(b->pool, b->pool_bytes);
    sl_pages_free(b->scratch, b->scratch_bytes);
    sl_pages_free(b->args.out, 512 * b->row_bytes);
    sl_pages_free((void *)(uintptr_t)b->args.q, 512 * b->row_bytes);
}

/* Nanoseconds of a layer's attention for rows [begin, end), tile after tile from the last as the backend does. */
static double slice_of_attention(bench *b, uint32_t begin, uint32_t end)
{
    choose_layer(b, b->layer++ % N_LAYERS);
    double start = bench_cpu_ns();
    for (uint32_t at = end; at > begin;) {
        uint32_t n = SL_MIN(at - begin, (uint32_t)SL_ATTENTION_ROWS);
        at -= n;
        sl_attention_tile tile = {.blocks = b->blocks, .row = at - begin, .n_rows = n, .position = at};
        for (uint32_t h = 0; h < b->args.kv.n_kv_heads; h++)
            b->kernel(&b->args, &tile, h, b->scratch, 0, NULL);
    }
    return bench_cpu_ns() - start;
}

/* Operations a nanosecond. */
static double slice_of_peak(bench *b)
{
    double start = bench_cpu_ns(), now = start, ops = 0;
    for (; now < start + PEAK_NS; now = bench_cpu_ns())
        ops += (double)b->peak(20000, &b->sink);
    return ops / (now - start);
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

static double count_ops(const sl_attention *args, uint32_t begin, uint32_t end)
{
    double seen = ((double)begin + 1 + end) / 2 * (end - begin);
    return 4.0 * args->n_heads * args->kv.head_dim * seen;
}

static void measure(bench *b, uint32_t begin, uint32_t end)
{
    double rates[N_PAIRS], shares[N_PAIRS], ops = count_ops(&b->args, begin, end);
    slice_of_attention(b, begin, end);
    for (int i = 0; i < N_PAIRS; i++) {
        double peak = slice_of_peak(b);
        rates[i] = ops / slice_of_attention(b, begin, end);
        shares[i] = rates[i] / peak;
    }
    printf("  rows %4u-%-4u %6.1f Gflop/s %3.0f%%", begin, end - 1, median(rates), 100 * median(shares));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    sl_level level = sl_level_best();
    sl_kv_type type = SL_KV_F16;
    sl_err err;
    if (argc > 1 && sl_level_choose(argv[1], &level, &err) != SL_OK) {
        fprintf(stderr, "attention_bench: %s\n", err.message);
        return 2;
    }
    if (argc > 2 && !sl_kv_type_parse(argv[2], &type)) {
        fprintf(stderr, "attention_bench: '%s' is no type of the KV cache\n", argv[2]);
        return 2;
    }
    const sl_kernels *kernels = sl_kernels_get(level);
    static bench b;
    b = (bench){.kernel = kernels->attention, .peak = sl_peak_get(level).fp32};
    printf("%s, K and V %s; one core: %.0f Gflop/s fp32\n", sl_level_name(level), sl_kv_type_name(type),
           slice_of_peak(&b));
    for (size_t i = 0; i < SL_COUNTOF(shapes); i++) {
        bench_open(&b, kernels, shapes[i], type);
        printf("%-8s %2u/%u heads of %3u", shapes[i].name, shapes[i].n_heads, shapes[i].n_kv_heads, shapes[i].head_dim);
        for (size_t r = 0; r < SL_COUNTOF(ranges); r++)
            measure(&b, ranges[r].begin, ranges[r].end);
        printf("\n");
        bench_close(&b);
    }
    return 0;
}
