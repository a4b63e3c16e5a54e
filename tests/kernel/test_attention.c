/* Attention against a naive softmax in double precision, and what contract 1 promises about it: rows computed alone or
 * together, blocks anywhere in memory and bytes that no row sees make no difference of a bit. */
#include "support.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double u = 0x1p-24;

/* A sequence of n_positions written through kv_write into scattered blocks of a pool full of NaN. */
typedef struct setup {
    sl_kv_layer kv;
    uint32_t *blocks;
    float *keys, *values; /* [position][kv_head][dim], as written */
    float *q;             /* [position][n_heads][dim] */
    uint32_t n_positions, n_heads;
} setup;

static void scatter_blocks(uint32_t *blocks, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        blocks[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = random_below(i), t = blocks[i - 1];
        blocks[i - 1] = blocks[j], blocks[j] = t;
    }
}

static void write_pool(setup *s)
{
    uint32_t n_blocks = (s->n_positions + 15) / 16;
    size_t row = (size_t)s->kv.n_kv_heads * s->kv.head_dim;
    memset(s->kv.k, 0xff, n_blocks * sl_kv_k_block_bytes(&s->kv));
    memset(s->kv.v, 0xff, n_blocks * sl_kv_v_block_bytes(&s->kv));
    for (uint32_t p = 0; p < s->n_positions; p++)
        sl_kernels_get(SL_LEVEL_REF)
            ->kv_write(&s->kv, s->blocks[p / 16], p % 16, s->keys + p * row, s->values + p * row);
}

/* x as 16 bits keep it. */
static float through_half(sl_kv_type type, float x)
{
    return type == SL_KV_F16 ? sl_f16_to_f32(sl_f32_to_f16(x)) : sl_bf16_to_f32(sl_f32_to_bf16(x));
}

/* x[0..n) as integers of one scale keep it: from -low to high steps, the extreme being amax = top steps; written from
 * the definition at sl_kv_type, with libm's rounding. */
static void through_integers(float *x, size_t n, float top, float low, float high)
{
    float extreme = 0;
    for (size_t i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(extreme) || (fabsf(x[i]) == fabsf(extreme) && x[i] > 0))
            extreme = x[i];
    float scale = sl_f16_to_f32(sl_f32_to_f16((top > 0 ? fabsf(extreme) : extreme) / top));
    for (size_t i = 0; i < n; i++)
        x[i] = scale == 0 ? 0.0f : fmaxf(low, fminf(high, rintf(x[i] * (1.0f / scale)))) * scale;
}

/* The numbers as the pool keeps them, so that the truth starts from the same ones. */
static void through_pool(sl_kv_type type, float *k, float *v, size_t dim)
{
    for (size_t d = 0; d < dim && (type == SL_KV_F16 || type == SL_KV_BF16); d++)
        k[d] = through_half(type, k[d]), v[d] = through_half(type, v[d]);
    for (size_t d = 0; d < dim && (type == SL_KV_Q8 || type == SL_KV_K8V4); d += SL_KV_GROUP)
        through_integers(k + d, SL_MIN(dim - d, (size_t)SL_KV_GROUP), 127, -127, 127);
    if (type == SL_KV_Q8)
        through_integers(v, dim, 127, -127, 127);
    for (size_t d = 0; d < dim && type == SL_KV_K8V4; d += SL_KV_GROUP)
        through_integers(v + d, SL_MIN(dim - d, (size_t)SL_KV_GROUP), -8, -8, 7);
}

/* Puts the blocks elsewhere, contents and all. */
static void move_blocks(setup *s)
{
    uint32_t n = (s->n_positions + 15) / 16, *from = malloc(n * sizeof *from);
    size_t k_bytes = sl_kv_k_block_bytes(&s->kv), v_bytes = sl_kv_v_block_bytes(&s->kv);
    char *k = malloc(n * k_bytes), *v = malloc(n * v_bytes);
    memcpy(from, s->blocks, n * sizeof *from);
    memcpy(k, s->kv.k, n * k_bytes), memcpy(v, s->kv.v, n * v_bytes);
    scatter_blocks(s->blocks, n);
    for (uint32_t i = 0; i < n; i++) {
        memcpy((char *)s->kv.k + s->blocks[i] * k_bytes, k + from[i] * k_bytes, k_bytes);
        memcpy((char *)s->kv.v + s->blocks[i] * v_bytes, v + from[i] * v_bytes, v_bytes);
    }
    free(from), free(k), free(v);
}

static setup setup_random(sl_kv_type type, uint32_t n_positions, uint32_t n_heads, uint32_t n_kv_heads, uint32_t dim)
{
    setup s = {sl_kv_layer_make(type, n_kv_heads, dim), NULL, NULL, NULL, NULL, n_positions, n_heads};
    uint32_t n_blocks = (n_positions + 15) / 16;
    size_t row = (size_t)n_kv_heads * dim, n = n_positions * row;
    s.kv.k = malloc(n_blocks * sl_kv_k_block_bytes(&s.kv));
    s.kv.v = malloc(n_blocks * sl_kv_v_block_bytes(&s.kv));
    s.blocks = malloc(n_blocks * sizeof *s.blocks);
    s.keys = malloc(n * sizeof *s.keys), s.values = malloc(n * sizeof *s.values);
    s.q = malloc((size_t)n_positions * n_heads * dim * sizeof *s.q);
    for (size_t i = 0; i < n; i++)
        s.keys[i] = random_float() * 2, s.values[i] = random_float();
    for (size_t i = 0; i < (size_t)n_positions * n_heads * dim; i++)
        s.q[i] = random_float() * 2;
    scatter_blocks(s.blocks, n_blocks);
    write_pool(&s);
    for (size_t i = 0; i < n; i += dim)
        through_pool(type, s.keys + i, s.values + i, dim);
    return s;
}

static void setup_free(setup *s)
{
    free(s->kv.k), free(s->kv.v), free(s->blocks), free(s->keys), free(s->values), free(s->q);
}

/* Rows [first, first + n_rows) into out ([n_rows][n_heads][dim]) as one tile. */
static void run_tile(const setup *s, sl_level level, uint32_t window, float softcap, uint32_t first, uint32_t n_rows,
                     float *out)
{
    size_t stride = (size_t)s->n_heads * s->kv.head_dim;
    guarded scratch = guarded_alloc(sl_attention_scratch_bytes(s->n_heads, s->kv.n_kv_heads, s->kv.head_dim), 0);
    memset(scratch.data, 0xff, scratch.n_bytes);
    sl_attention args = {s->q + first * stride,
                         stride,
                         out,
                         stride,
                         s->n_heads,
                         window,
                         1.0f / sqrtf((float)s->kv.head_dim),
                         softcap,
                         s->kv};
    sl_attention_tile tile = {s->blocks, 0, n_rows, first};
    for (uint32_t h = 0; h < s->kv.n_kv_heads; h++)
        sl_kernels_get(level)->attention(&args, &tile, h, scratch.data, 0, NULL);
    assert_true(guarded_free(&scratch));
}

/* One row and head in double. The error of the fast form: a score is a chain of dim fmas and a product (softcap adds
 * 8 roundings of at most softcap), so off by e_s = (dim + 3) u sum|q k| scale + 12 u |softcap|; its weight e^(s - m) by
 * 2 e_s + 4 u (1 + |s - m|) relative; up to `chunks` rescalings, merges of splits among them, and n additions add
 * (n + 4 chunks) u; the ratio of two such sums doubles all of it, weighted by max |v|. */
static void check_row(const setup *s, uint32_t window, float softcap, uint32_t position, uint32_t head,
                      const float *got)
{
    size_t dim = s->kv.head_dim, kv_row = s->kv.n_kv_heads * dim, kv_head = head / (s->n_heads / s->kv.n_kv_heads);
    const float *q = s->q + ((size_t)position * s->n_heads + head) * dim;
    uint32_t first = window && position + 1 > window ? position + 1 - window : 0, n = position + 1 - first;
    double *score = malloc(n * sizeof *score), scale = (double)(1.0f / sqrtf((float)dim));
    double max = -INFINITY, min = INFINITY, total = 0, size = 0, v_max = 0;
    for (uint32_t i = 0; i < n; i++) {
        const float *k = s->keys + (first + i) * kv_row + kv_head * dim;
        double sum = 0, terms = 0;
        for (size_t d = 0; d < dim; d++) {
            sum += (double)q[d] * (double)k[d];
            terms += fabs((double)q[d] * (double)k[d]);
        }
        score[i] = sum * scale;
        if (softcap > 0)
            score[i] = (double)softcap * tanh(score[i] / (double)softcap);
        max = fmax(max, score[i]), min = fmin(min, score[i]), size = fmax(size, terms * scale);
    }
    for (uint32_t i = 0; i < n; i++)
        total += score[i] = exp(score[i] - max);
    double e_s = ((double)dim + 3) * u * size + 12 * u * (double)softcap;
    double weight = 2 * e_s + 4 * u * (1 + max - min) +
                    ((double)n + 4 * ((double)n / SL_KV_CHUNK + (double)n / SL_KV_SPLIT + 4)) * u;
    for (size_t d = 0; d < dim; d++) {
        double want = 0;
        for (uint32_t i = 0; i < n; i++) {
            double v = (double)s->values[(first + i) * kv_row + kv_head * dim + d];
            want += score[i] / total * v;
            v_max = fmax(v_max, fabs(v));
        }
        assert_true(fabs(want - (double)got[d]) <= 2 * weight * v_max);
    }
    free(score);
}

static const struct {
    uint32_t n_heads, n_kv_heads, dim, window;
    float softcap;
    sl_kv_type type;
} cases[] = {
    {9, 3, 64, 0, 0, SL_KV_F16},    {9, 3, 64, 0, 0, SL_KV_F32},   {4, 1, 128, 0, 0, SL_KV_F16},
    {4, 1, 256, 50, 0, SL_KV_F16},  {2, 2, 80, 64, 30, SL_KV_F32}, {6, 2, 8, 7, 0, SL_KV_F16},
    {3, 3, 20, 1, 5, SL_KV_F32},    {8, 1, 64, 100, 0, SL_KV_F16}, {5, 5, 16, 63, 0, SL_KV_F32},
    {9, 3, 64, 0, 0, SL_KV_BF16},   {3, 1, 20, 90, 0, SL_KV_BF16}, {9, 3, 64, 0, 0, SL_KV_Q8},
    {4, 1, 256, 300, 0, SL_KV_Q8},  {2, 2, 20, 0, 30, SL_KV_Q8},   {9, 3, 64, 0, 0, SL_KV_K8V4},
    {4, 1, 80, 300, 0, SL_KV_K8V4}, {2, 1, 20, 11, 0, SL_KV_K8V4},
};

/* Positions beyond a split, so that some rows see one and some more. */
enum { N_POSITIONS = 2 * SL_KV_SPLIT + 40 };

/* Two ranges of rows of a sequence against the truth: the first, and one across the border of a split. */
static void test_truth(void **state)
{
    (void)state;
    const sl_level levels[] = {SL_LEVEL_REF, sl_level_best()};
    const uint32_t ranges[][2] = {{0, 150}, {2 * SL_KV_SPLIT - 40, N_POSITIONS}};
    for (size_t c = 0; c < SL_COUNTOF(cases) * SL_COUNTOF(ranges); c++) {
        size_t i = c / SL_COUNTOF(ranges);
        const uint32_t begin = ranges[c % SL_COUNTOF(ranges)][0], end = ranges[c % SL_COUNTOF(ranges)][1];
        setup s = setup_random(cases[i].type, end, cases[i].n_heads, cases[i].n_kv_heads, cases[i].dim);
        size_t stride = (size_t)s.n_heads * s.kv.head_dim;
        float *out = malloc(end * stride * sizeof *out);
        for (size_t l = 0; l < SL_COUNTOF(levels); l++) {
            for (uint32_t first = begin, n; first < end; first += n) {
                n = 1 + random_below(SL_ATTENTION_ROWS);
                n = SL_MIN(n, end - first);
                run_tile(&s, levels[l], cases[i].window, cases[i].softcap, first, n, out + first * stride);
            }
            for (uint32_t p = begin; p < end; p++)
                for (uint32_t h = 0; h < s.n_heads; h++)
                    check_row(&s, cases[i].window, cases[i].softcap, p, h, out + p * stride + h * s.kv.head_dim);
        }
        free(out);
        setup_free(&s);
    }
}

/* All rows one by one, then in tiles of every size, then with the blocks elsewhere: the same bits. */
static void test_invariance(void **state)
{
    (void)state;
    enum { FIRST = SL_KV_SPLIT - 90, N = SL_KV_SPLIT + 60 };
    sl_level level = sl_level_best();
    for (size_t c = 0; c < SL_COUNTOF(cases); c++) {
        setup s = setup_random(cases[c].type, N, cases[c].n_heads, cases[c].n_kv_heads, cases[c].dim);
        size_t stride = (size_t)s.n_heads * s.kv.head_dim, n_bytes = (N - FIRST) * stride * sizeof(float);
        float *alone = malloc(n_bytes), *out = malloc(n_bytes);
        for (uint32_t p = FIRST; p < N; p++)
            run_tile(&s, level, cases[c].window, cases[c].softcap, p, 1, alone + (p - FIRST) * stride);
        for (uint32_t n = 2; n <= SL_ATTENTION_ROWS; n += 3) {
            if (n % 2)
                move_blocks(&s);
            for (uint32_t first = FIRST; first < N; first += n)
                run_tile(&s, level, cases[c].window, cases[c].softcap, first, SL_MIN(n, N - first),
                         out + (first - FIRST) * stride);
            assert_memory_equal(out, alone, n_bytes);
        }
        free(alone), free(out);
        setup_free(&s);
    }
}

/* The attention that blocks draw from a tile, added up in double. A weight's relative error is that of attention's (see
 * check_row), but each block's sum is of 16 and they are added up one by one; then it is rounded to 2^-24. */
static void check_mass(const setup *s, float softcap, uint32_t first, uint32_t n_rows, const uint64_t *got)
{
    const uint32_t n_blocks = (first + n_rows - 1) / SL_KV_BLOCK + 1, group = s->n_heads / s->kv.n_kv_heads;
    const size_t dim = s->kv.head_dim, kv_row = s->kv.n_kv_heads * dim;
    const double scale = (double)(1.0f / sqrtf((float)dim));
    double *want = calloc(n_blocks, sizeof *want), *weight = calloc(first + n_rows, sizeof *weight), worst = 0;
    for (uint32_t p = first; p < first + n_rows; p++) {
        for (uint32_t h = 0; h < s->n_heads; h++) {
            const float *q = s->q + ((size_t)p * s->n_heads + h) * dim;
            double max = -INFINITY, min = INFINITY, total = 0, size = 0;
            for (uint32_t i = 0; i <= p; i++) {
                double sum = 0, terms = 0;
                for (size_t d = 0; d < dim; d++) {
                    double product = (double)q[d] * (double)s->keys[i * kv_row + h / group * dim + d];
                    sum += product, terms += fabs(product);
                }
                weight[i] = softcap > 0 ? (double)softcap * tanh(sum * scale / (double)softcap) : sum * scale;
                max = fmax(max, weight[i]), min = fmin(min, weight[i]), size = fmax(size, terms * scale);
            }
            for (uint32_t i = 0; i <= p; i++)
                total += weight[i] = exp(weight[i] - max);
            for (uint32_t i = 0; i <= p; i++)
                want[i / SL_KV_BLOCK] += weight[i] / total;
            double e_s = ((double)dim + 3) * u * size + 12 * u * (double)softcap;
            worst += 2 * (2 * e_s + 4 * u * (1 + max - min) + (24 + (double)n_blocks) * u) + u;
        }
    }
    for (uint32_t b = 0; b < n_blocks; b++)
        assert_true(fabs(want[b] - (double)got[b] * 0x1p-24) <= worst);
    free(want), free(weight);
}

/* Against the truth, and row by row against all rows at once: integers, so exactly the same. */
static void test_mass(void **state)
{
    (void)state;
    enum { FIRST = 90, N_ROWS = 40, N_BLOCKS = (FIRST + N_ROWS - 1) / SL_KV_BLOCK + 1 };
    const sl_level levels[] = {SL_LEVEL_REF, sl_level_best()};
    for (size_t c = 0; c < SL_COUNTOF(cases) * SL_COUNTOF(levels); c++) {
        size_t i = c / SL_COUNTOF(levels);
        setup s = setup_random(cases[i].type, FIRST + N_ROWS, cases[i].n_heads, cases[i].n_kv_heads, cases[i].dim);
        size_t stride = (size_t)s.n_heads * s.kv.head_dim;
        uint64_t together[N_BLOCKS] = {0}, alone[N_BLOCKS] = {0};
        guarded scratch = guarded_alloc(
            sl_attention_mass_scratch_bytes(s.n_heads, s.kv.n_kv_heads, s.kv.head_dim, N_ROWS, N_BLOCKS), 0);
        const sl_attention args = {.q = s.q + FIRST * stride,
                                   .q_stride_elems = stride,
                                   .n_heads = s.n_heads,
                                   .scale = 1.0f / sqrtf((float)s.kv.head_dim),
                                   .softcap = cases[i].softcap,
                                   .kv = s.kv};
        sl_attention_mass_fn *kernel = sl_kernels_get(levels[c % SL_COUNTOF(levels)])->attention_mass;
        for (uint32_t h = 0; h < s.kv.n_kv_heads; h++) {
            sl_attention_tile tile = {s.blocks, 0, N_ROWS, FIRST};
            kernel(&args, &tile, h, scratch.data, together);
            for (uint32_t r = 0; r < N_ROWS; r++) {
                sl_attention_tile row = {s.blocks, r, 1, FIRST + r};
                kernel(&args, &row, h, scratch.data, alone);
            }
        }
        assert_true(guarded_free(&scratch));
        assert_memory_equal(alone, together, sizeof alone);
        check_mass(&s, cases[i].softcap, FIRST, N_ROWS, together);
        setup_free(&s);
    }
}

int main(void)
{
    seed_random("test_attention");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_truth), cmocka_unit_test(test_invariance),
                                       cmocka_unit_test(test_mass)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
