/* Compares every kernel of the inventory that this CPU can run with the plain C compiled for the baseline, bit by bit.
 * All arithmetic is fixed (kernel/ops.h), so equality is demanded of float kernels too. For matmuls the candidate
 * computes every split of rows and panels, which also shows that a row's result depends on neither. */
#include "support.h"

#include "kernel/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void any_fn(void);

typedef struct line {
    const char *name;
    size_t slot;
    any_fn *fn;
    uint32_t isa;
} line;

#if defined(__x86_64__)
#define PLAIN(slot, name)                                                                                              \
    {#name "_v3", offsetof(sl_kernels, slot), (any_fn *)name##_v3, SL_CPU_AVX2},                                       \
        {#name "_v4", offsetof(sl_kernels, slot), (any_fn *)name##_v4, SL_CPU_AVX2 | SL_CPU_AVX512},
#else
#define PLAIN(slot, name)
#endif
#define TUNED(slot, name, isa) {#name, offsetof(sl_kernels, slot), (any_fn *)name, (isa)},
static const line lines[] = {
#include "kernel/kernels.inc"
    {NULL, 0, NULL, 0},
};
#undef PLAIN
#undef TUNED

static sl_kernels base_kernels(void)
{
    sl_kernels k = {.level = SL_LEVEL_REF, .unpack_row = sl_weight_unpack_row};
#define PLAIN(slot, name) k.slot = name##_base;
#define TUNED(slot, name, isa)
#include "kernel/kernels.inc"
#undef PLAIN
#undef TUNED
    return k;
}

static int failures;
static bool small; /* few and small cases: an emulator takes hundreds of times as long */

/* Bound of a loop over sizes. */
static size_t most(size_t n)
{
    return small ? SL_MIN(n, (size_t)40) : n;
}

static void expect(bool ok, const line *l, const char *what, size_t a, size_t b)
{
    if (!ok && failures++ < 20)
        printf("FAIL %s: %s (%zu, %zu)\n", l->name, what, a, b);
}

/* Two guarded float buffers of the same random contents, for in-place and out-of-place results. */
typedef struct pair {
    guarded a, b;
} pair;

static pair pair_random(size_t n_floats)
{
    size_t offset = random_below(16) * sizeof(float);
    pair p = {guarded_alloc(n_floats * sizeof(float), offset), guarded_alloc(n_floats * sizeof(float), offset)};
    for (size_t i = 0; i < n_floats; i++)
        ((float *)p.a.data)[i] = random_float() * 4.0f;
    memcpy(p.b.data, p.a.data, n_floats * sizeof(float));
    return p;
}

static void pair_expect_same(pair *p, const line *l, const char *what, size_t n)
{
    expect(memcmp(p->a.data, p->b.data, p->a.n_bytes) == 0, l, what, n, 0);
    bool intact = guarded_free(&p->a);
    expect(guarded_free(&p->b) && intact, l, "guard bytes", n, 0);
}

static void check_rmsnorm(const line *l, const sl_kernels *base, const sl_kernels *k)
{
    for (size_t n = 1; n < most(700); n = n < 70 ? n + 1 : n + 61) {
        pair x = pair_random(n), w = pair_random(n);
        base->rmsnorm(x.a.data, x.a.data, n % 3 ? w.a.data : NULL, n, 1e-5f);
        k->rmsnorm(x.b.data, x.b.data, n % 3 ? w.b.data : NULL, n, 1e-5f);
        pair_expect_same(&x, l, "in place", n);
        pair_expect_same(&w, l, "weights changed", n);
    }
}

static void check_quantize_q8(const line *l, const sl_kernels *base, const sl_kernels *k)
{
    const float factor[] = {1.0f, 1e-38f, 1e30f, 0.0f, 1e-30f};
    for (size_t n = 32; n <= most(1024); n += 32) {
        pair x = pair_random(n);
        float *xa = x.a.data;
        for (size_t i = 0; i < n; i++)
            xa[i] *= factor[i / 32 % 7 < 5 ? i / 32 % 7 : 0];
        if (n % 96 == 0)
            xa[random_below((uint32_t)n)] = random_below(2) ? __builtin_nanf("") : __builtin_inff();
        memcpy(x.b.data, xa, n * sizeof(float));
        pair y = {guarded_alloc(sl_q8_row_bytes(n), 0), guarded_alloc(sl_q8_row_bytes(n), 0)};
        base->quantize_q8(y.a.data, x.a.data, n);
        k->quantize_q8(y.b.data, x.b.data, n);
        pair_expect_same(&y, l, "row", n);
        pair_expect_same(&x, l, "input changed", n);
    }
}

static void check_glu(const line *l, const sl_kernels *base, const sl_kernels *k)
{
    for (size_t n = 1; n < most(600); n = n < 70 ? n + 1 : n + 61) {
        for (int gate = SL_GATE_SILU; gate <= SL_GATE_GELU_TANH; gate++) {
            pair g = pair_random(n), up = pair_random(n);
            for (size_t i = 0; i < n; i++)
                ((float *)g.a.data)[i] *= i % 5 ? 1.0f : 40.0f;
            memcpy(g.b.data, g.a.data, n * sizeof(float));
            base->glu(g.a.data, g.a.data, up.a.data, n, (sl_gate)gate);
            k->glu(g.b.data, g.b.data, up.b.data, n, (sl_gate)gate);
            pair_expect_same(&g, l, "in place", n);
            pair_expect_same(&up, l, "input changed", n);
        }
    }
}

static void check_block_max(const line *l, const sl_kernels *base, const sl_kernels *k)
{
    const float extreme[] = {0.0f, -0.0f, __builtin_inff(), -__builtin_inff(), __builtin_nanf(""), -__builtin_nanf("")};
    for (size_t n = 1; n < most(700); n = n < 140 ? n + 1 : n + 61) {
        pair x = pair_random(n);
        for (size_t e = random_below(10); e < SL_COUNTOF(extreme); e++)
            ((float *)x.a.data)[random_below((uint32_t)n)] = extreme[e];
        memcpy(x.b.data, x.a.data, n * sizeof(float));
        size_t bytes = (n + SL_KEY_BLOCK - 1) / SL_KEY_BLOCK * sizeof(int32_t);
        pair y = {guarded_alloc(bytes, 0), guarded_alloc(bytes, 4)};
        expect(base->block_max(y.a.data, x.a.data, n) == k->block_max(y.b.data, x.b.data, n), l, "lowest", n, 0);
        pair_expect_same(&y, l, "maxima", n);
        pair_expect_same(&x, l, "input changed", n);
    }
}

static void check_add(const line *l, const sl_kernels *base, const sl_kernels *k)
{
    for (size_t n = 1; n < most(100); n++) {
        pair x = pair_random(n), b = pair_random(n);
        base->add(x.a.data, x.a.data, b.a.data, n);
        k->add(x.b.data, x.b.data, b.b.data, n);
        pair_expect_same(&x, l, "in place", n);
        pair_expect_same(&b, l, "input changed", n);
    }
}

static void check_scale(const line *l, const sl_kernels *base, const sl_kernels *k)
{
    for (size_t n = 1; n < most(100); n++) {
        pair x = pair_random(n);
        float factor = random_float();
        base->scale(x.a.data, x.a.data, factor, n);
        k->scale(x.b.data, x.b.data, factor, n);
        pair_expect_same(&x, l, "in place", n);
    }
}

static void check_rope(const line *l, const sl_kernels *base, const sl_kernels *k)
{
    for (uint32_t dim = 2; dim <= most(130); dim += 2) {
        for (int mode = SL_ROPE_NORM; mode <= SL_ROPE_NEOX; mode++) {
            uint32_t n_pairs = 1 + random_below(dim / 2), n_heads = 1 + random_below(4);
            pair x = pair_random((size_t)n_heads * dim), table = pair_random(2 * (size_t)n_pairs);
            base->rope(x.a.data, n_heads, dim, table.a.data, n_pairs, (sl_rope_mode)mode);
            k->rope(x.b.data, n_heads, dim, table.b.data, n_pairs, (sl_rope_mode)mode);
            pair_expect_same(&x, l, "rotated", dim);
            pair_expect_same(&table, l, "table changed", dim);
        }
    }
}

static void check_kv_write(const line *l, const sl_kernels *base, const sl_kernels *k)
{
    for (int i = 0; i < (int)most(200); i++) {
        sl_kv_layer layer =
            sl_kv_layer_make((sl_kv_type)(i % SL_KV_TYPE_COUNT), 1 + random_below(3), 1 + random_below(80));
        size_t n = (size_t)layer.n_kv_heads * layer.head_dim;
        pair kv = pair_random(2 * n), kp = pair_random(3 * sl_kv_k_block_bytes(&layer) / sizeof(float));
        pair vp = pair_random(3 * sl_kv_v_block_bytes(&layer) / sizeof(float));
        const float extreme[] = {65519.0f, 65520.0f, -1e30f, 5.9e-8f, -3e-8f, 2.9e-8f, 6.1e-5f, 0.0f, -0.0f};
        for (size_t e = 0; e < SL_COUNTOF(extreme); e++)
            ((float *)kv.a.data)[random_below((uint32_t)(2 * n))] = extreme[e];
        if (i % 7 == 0)
            ((float *)kv.a.data)[random_below((uint32_t)(2 * n))] = random_below(2) ? __builtin_nanf("") : -1e38f;
        for (size_t d = 0; i % 4 == 0 && d < layer.head_dim; d++)
            ((float *)kv.a.data)[d] *= i % 8 ? 1e-9f : 0.0f;
        memcpy(kv.b.data, kv.a.data, kv.a.n_bytes);
        uint32_t block = random_below(3), slot = random_below(16);
        layer.k = kp.a.data, layer.v = vp.a.data;
        base->kv_write(&layer, block, slot, kv.a.data, (float *)kv.a.data + n);
        layer.k = kp.b.data, layer.v = vp.b.data;
        k->kv_write(&layer, block, slot, kv.b.data, (float *)kv.b.data + n);
        pair_expect_same(&kp, l, "keys", layer.head_dim);
        pair_expect_same(&vp, l, "values", layer.head_dim);
        pair_expect_same(&kv, l, "input changed", layer.head_dim);
    }
}

/* A pool of random rows, written by the reference. */
static void fill_pool(const sl_kernels *base, const sl_kv_layer *kv, uint32_t n_blocks)
{
    size_t n = (size_t)kv->n_kv_heads * kv->head_dim;
    float *row = malloc(2 * n * sizeof *row);
    for (uint32_t p = 0; p < n_blocks * SL_KV_BLOCK; p++) {
        for (size_t i = 0; i < 2 * n; i++)
            row[i] = random_float() * (random_below(20) ? 1.0f : 1e-5f);
        base->kv_write(kv, p / SL_KV_BLOCK, p % SL_KV_BLOCK, row, row + n);
    }
    free(row);
}

/* All splits one by one through the candidate, then merged by it. */
static void attention_by_splits(const sl_kernels *k, const sl_attention *args, const sl_attention_tile *tile,
                                const line *l, uint32_t kv_head, void *scratch)
{
    uint32_t begin, end;
    sl_attention_splits(tile, args->window, &begin, &end);
    size_t n = sl_attention_partial_elems(args, tile->n_rows);
    guarded partials = guarded_alloc((end - begin) * n * sizeof(float), 0);
    for (uint32_t s = end; s-- > begin;)
        k->attention(args, tile, kv_head, scratch, s, (float *)partials.data + (s - begin) * n);
    k->attention_merge(args, tile, kv_head, partials.data);
    expect(guarded_free(&partials), l, "partials", args->kv.head_dim, end - begin);
}

/* Keys and values of n_blocks blocks at random, and a table that has them in reverse. */
typedef struct pool {
    sl_kv_layer kv;
    guarded keys, values;
    uint32_t *blocks;
} pool;

static pool pool_make(const sl_kernels *base, sl_kv_type type, uint32_t kv_heads, uint32_t dim, uint32_t n_blocks)
{
    pool p = {.kv = sl_kv_layer_make(type, kv_heads, dim), .blocks = malloc(n_blocks * sizeof *p.blocks)};
    p.keys = guarded_alloc(n_blocks * sl_kv_k_block_bytes(&p.kv), 0);
    p.values = guarded_alloc(n_blocks * sl_kv_v_block_bytes(&p.kv), 0);
    p.kv.k = p.keys.data, p.kv.v = p.values.data;
    fill_pool(base, &p.kv, n_blocks);
    for (uint32_t i = 0; i < n_blocks; i++)
        p.blocks[i] = n_blocks - 1 - i;
    return p;
}

static void pool_free(pool *p, const line *l, uint32_t dim, uint32_t group)
{
    expect(guarded_free(&p->keys), l, "keys", dim, group);
    expect(guarded_free(&p->values), l, "values", dim, group);
    free(p->blocks);
}

static void check_attention_once(const line *l, const sl_kernels *base, const sl_kernels *k, sl_kv_type type,
                                 uint32_t dim)
{
    uint32_t kv_heads = 1 + random_below(3), group = 1 + random_below(5), n_rows = 1 + random_below(SL_ATTENTION_ROWS);
    uint32_t position = random_below(random_below(2) ? 300 : 1200), n_blocks = (position + n_rows + 15) / 16;
    uint32_t n_heads = kv_heads * group;
    pool cached = pool_make(base, type, kv_heads, dim, n_blocks);
    size_t n = (size_t)n_rows * n_heads * dim, scratch = sl_attention_scratch_bytes(n_heads, kv_heads, dim);
    pair q = pair_random(n), out = pair_random(n);
    guarded sa = guarded_alloc(scratch, 0), sb = guarded_alloc(scratch, 0);
    sl_attention args = {q.a.data,   (size_t)n_heads * dim,
                         out.a.data, (size_t)n_heads * dim,
                         n_heads,    random_below(2) ? 0 : 1 + random_below(random_below(2) ? 20 : 700),
                         0.125f,     random_below(3) ? 0.0f : 20.0f,
                         cached.kv};
    sl_attention_tile tile = {cached.blocks, 0, n_rows, position};
    for (uint32_t h = 0; h < kv_heads; h++) {
        args.out = out.a.data;
        base->attention(&args, &tile, h, sa.data, 0, NULL);
        args.out = out.b.data;
        if (random_below(2))
            k->attention(&args, &tile, h, sb.data, 0, NULL);
        else
            attention_by_splits(k, &args, &tile, l, h, sb.data);
    }
    expect(guarded_free(&sa), l, "scratch of the reference", dim, group);
    expect(guarded_free(&sb), l, "scratch", dim, group);
    pair_expect_same(&out, l, sl_kv_type_name(type), dim);
    guarded_free(&q.a), guarded_free(&q.b);
    pool_free(&cached, l, dim, group);
}

static void check_attention(const line *l, const sl_kernels *base, const sl_kernels *k)
{
    const uint32_t dims[] = {64, 64, 64, 128, 32, 96, 16, 80, 8, 24, 100, 20, 33, 256};
    for (size_t i = small ? SL_COUNTOF(dims) - 3 : 0; i < SL_COUNTOF(dims) - small; i++)
        for (int type = 0; type < SL_KV_TYPE_COUNT; type++)
            check_attention_once(l, base, k, (sl_kv_type)type, dims[i]);
}

/* Positions and rows at random; what mass holds already is added to. */
static void check_attention_mass_once(const line *l, const sl_kernels *base, const sl_kernels *k, sl_kv_type type,
                                      uint32_t dim)
{
    uint32_t kv_heads = 1 + random_below(3), group = 1 + random_below(5), n_rows = 1 + random_below(SL_ATTENTION_ROWS);
    uint32_t position = random_below(random_below(2) ? 40 : 700), n_blocks = (position + n_rows + 15) / 16;
    uint32_t n_heads = kv_heads * group;
    pool cached = pool_make(base, type, kv_heads, dim, n_blocks);
    pair q = pair_random((size_t)n_rows * n_heads * dim);
    pair mass = {guarded_alloc(n_blocks * sizeof(uint64_t), 0), guarded_alloc(n_blocks * sizeof(uint64_t), 0)};
    memset(mass.a.data, 1, mass.a.n_bytes), memset(mass.b.data, 1, mass.b.n_bytes);
    size_t scratch = sl_attention_mass_scratch_bytes(n_heads, kv_heads, dim, n_rows, n_blocks);
    guarded sa = guarded_alloc(scratch, 0), sb = guarded_alloc(scratch, 0);
    if (random_below(8) == 0)
        ((float *)q.a.data)[random_below(n_rows * n_heads * dim)] = __builtin_nanf("");
    sl_attention args = {.q = q.a.data,
                         .q_stride_elems = (size_t)n_heads * dim,
                         .n_heads = n_heads,
                         .scale = 0.125f,
                         .softcap = random_below(3) ? 0.0f : 20.0f,
                         .kv = cached.kv};
    sl_attention_tile tile = {cached.blocks, 0, n_rows, position};
    for (uint32_t h = 0; h < kv_heads; h++) {
        base->attention_mass(&args, &tile, h, sa.data, mass.a.data);
        k->attention_mass(&args, &tile, h, sb.data, mass.b.data);
    }
    expect(guarded_free(&sa), l, "scratch of the reference", dim, group);
    expect(guarded_free(&sb), l, "scratch", dim, group);
    pair_expect_same(&mass, l, sl_kv_type_name(type), dim);
    guarded_free(&q.a), guarded_free(&q.b);
    pool_free(&cached, l, dim, group);
}

static void check_attention_mass(const line *l, const sl_kernels *base, const sl_kernels *k)
{
    const uint32_t dims[] = {64, 64, 128, 16, 8, 20, 33, 256};
    for (size_t i = small ? SL_COUNTOF(dims) - 3 : 0; i < SL_COUNTOF(dims) - small; i++)
        for (int type = 0; type < SL_KV_TYPE_COUNT; type++)
            check_attention_mass_once(l, base, k, (sl_kv_type)type, dims[i]);
}

/* Bitwise equal, where any NaN equals any other: which NaN comes out of two is the order of an instruction's operands. */
static bool same_values(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0 && !(__builtin_isnan(a[i]) && __builtin_isnan(b[i])))
            return false;
    return true;
}

/* The candidate's result in random pieces of rows and panels against the whole. */
static void compare_pieces(const line *l, sl_matmul *args, sl_matmul_fn *fn, const float *want, size_t n_rows)
{
    const sl_weight *w = args->weight;
    size_t stride = w->n_rows + random_below(20);
    guarded y = guarded_alloc(n_rows * stride * sizeof(float), random_below(16) * sizeof(float));
    memset(y.data, 0x5a, y.n_bytes);
    args->y = y.data;
    args->y_stride_elems = stride;
    for (size_t p = 0, pn; p < w->n_panels; p = pn) {
        pn = p + 1 + random_below((uint32_t)(w->n_panels - p));
        for (size_t r = 0, rn; r < n_rows; r = rn) {
            rn = r + 1 + random_below((uint32_t)(n_rows - r));
            fn(args, r, rn, p, pn);
        }
    }
    for (size_t r = 0; r < n_rows; r++) {
        const float *row = (const float *)y.data + r * stride;
        expect(same_values(row, want + r * w->n_rows, w->n_rows), l, "row", w->n_rows, w->n_cols);
        for (size_t i = w->n_rows; i < stride; i++)
            expect(memcmp(row + i, "ZZZZ", 4) == 0, l, "wrote beyond the row", w->n_rows, i);
    }
    expect(guarded_free(&y), l, "guard bytes", w->n_rows, w->n_cols);
}

static void check_matmul_shape(const line *l, sl_layout layout, const sl_kernels *base, const sl_kernels *k,
                               size_t n_rows, size_t n_out, size_t n_cols)
{
    sl_level level = layout == SL_LAYOUT_SOURCE ? SL_LEVEL_EXACT : SL_LEVEL_REF;
    sl_type type = layout == SL_LAYOUT_SOURCE ? SL_TYPE_Q8_0 : layout_type(layout);
    void *source = random_source(type, n_out, n_cols);
    if (sl_type_get((uint32_t)type)->block_elems > 1 && random_below(4) == 0)
        spoil_factors(type, source, n_out, n_cols);
    sl_weight weight = weight_from(level, type, source, n_out, n_cols);
    activations x = random_activations(weight.act, n_rows, n_cols);
    float *want = malloc(n_rows * n_out * sizeof *want), *bias = malloc(n_out * sizeof *bias);
    for (size_t i = 0; i < n_out; i++)
        bias[i] = random_float();
    guarded scratch = guarded_alloc(SL_MATMUL_SCRATCH_BYTES, 0);
    static const sl_reading readings[] = {{4, 2, 4096}, {1, 1, 8192}, {2, 2, 64}, {1, 2, 0}};
    sl_matmul args = {&weight,      x.x,        x.stride_bytes, want, n_out, random_below(2) ? bias : NULL,
                      scratch.data, readings[0]};
    base->matmul[layout](&args, 0, n_rows, 0, weight.n_panels);
    args.y = NULL;
    for (size_t i = 0; i < 2 * SL_COUNTOF(readings); i++) {
        args.reading = readings[i % SL_COUNTOF(readings)]; /* which changes no bit */
        compare_pieces(l, &args, k->matmul[layout], want, n_rows);
    }
    expect(guarded_free(&x.memory), l, "activations' guard bytes", n_out, n_cols);
    expect(guarded_free(&scratch), l, "the scratch's guard bytes", n_out, n_cols);
    weight_free(&weight);
    free(source), free(want), free(bias);
}

static void check_matmul(const line *l, sl_layout layout, const sl_kernels *base, const sl_kernels *k)
{
    size_t unit = layout == SL_LAYOUT_SOURCE ? 32 : sl_type_get((uint32_t)layout_type(layout))->block_elems;
    if (small) {
        check_matmul_shape(l, layout, base, k, 1, 17, SL_MAX(unit, 96u));
        check_matmul_shape(l, layout, base, k, 7, 33, SL_MAX(unit, 32u));
        return;
    }
    const size_t outs[] = {1, 15, 16, 17, 33, 64, 100};
    for (size_t i = 0; i < SL_COUNTOF(outs); i++) {
        check_matmul_shape(l, layout, base, k, 1 + random_below(40), outs[i],
                           unit * (1 + random_below(unit > 32 ? 3 : 12)));
        check_matmul_shape(l, layout, base, k, 1, outs[i], unit * (1 + random_below(unit > 32 ? 5 : 50)));
    }
    for (size_t n_rows = 1; n_rows <= 40; n_rows++)
        check_matmul_shape(l, layout, base, k, n_rows, 1 + random_below(40), unit > 1 ? SL_MAX(unit, 96u) : 101);
    check_matmul_shape(l, layout, base, k, 130, 20, unit > 32 ? unit : unit * 3);
    /* More columns, and more rows of them, than a kernel may want to hold at once. */
    check_matmul_shape(l, layout, base, k, 300, 33, (4096 / unit + 1) * unit);
}

typedef void check_fn(const line *l, const sl_kernels *base, const sl_kernels *k);

static const struct {
    size_t slot;
    check_fn *check;
} checks[] = {
    {offsetof(sl_kernels, rmsnorm), check_rmsnorm},
    {offsetof(sl_kernels, quantize_q8), check_quantize_q8},
    {offsetof(sl_kernels, glu), check_glu},
    {offsetof(sl_kernels, add), check_add},
    {offsetof(sl_kernels, scale), check_scale},
    {offsetof(sl_kernels, rope), check_rope},
    {offsetof(sl_kernels, kv_write), check_kv_write},
    {offsetof(sl_kernels, block_max), check_block_max},
    {offsetof(sl_kernels, attention), check_attention},
    {offsetof(sl_kernels, attention_merge), check_attention},
    {offsetof(sl_kernels, attention_mass), check_attention_mass},
};

static void check_line(const line *l, const sl_kernels *base)
{
    sl_kernels k = *base;
    memcpy((char *)&k + l->slot, &l->fn, sizeof l->fn);
    for (size_t i = 0; i < SL_COUNTOF(checks); i++) {
        if (checks[i].slot == l->slot) {
            checks[i].check(l, base, &k);
            return;
        }
    }
    size_t first = offsetof(sl_kernels, matmul), layout = (l->slot - first) / sizeof(sl_matmul_fn *);
    if (l->slot < first || layout >= SL_LAYOUT_COUNT)
        expect(false, l, "no check for this slot", l->slot, 0);
    else
        check_matmul(l, (sl_layout)layout, base, &k);
}

/* Every level must offer every row kernel and a matmul for every layout its weights get. */
static void check_tables(void)
{
    const line table = {"dispatch", 0, NULL, 0};
    for (int level = 0; level < SL_LEVEL_COUNT; level++) {
        const sl_kernels *k = sl_kernels_get((sl_level)level);
        expect(k->level == (sl_level)level && k->rmsnorm && k->quantize_q8 && k->glu && k->add && k->scale && k->rope &&
                   k->kv_write && k->block_max && k->attention && k->attention_merge && k->attention_mass &&
                   k->unpack_row,
               &table, "incomplete level", (size_t)level, 0);
        for (int i = 0; i < SL_LAYOUT_COUNT; i++)
            expect(k->matmul[i] != NULL, &table, "no matmul", (size_t)level, (size_t)i);
    }
}

/* What dispatch picks on this CPU, slot by slot, in small cases; their number. */
static int check_picked(const sl_kernels *base)
{
    static const line slots[] = {
#define PLAIN(slot, name) {#name " as picked", offsetof(sl_kernels, slot), NULL, 0},
#define TUNED(slot, name, isa)
#include "kernel/kernels.inc"
#undef PLAIN
#undef TUNED
    };
    small = true;
    for (size_t i = 0; i < SL_COUNTOF(slots); i++) {
        line l = slots[i];
        memcpy(&l.fn, (const char *)sl_kernels_get(sl_level_best()) + l.slot, sizeof l.fn);
        check_line(&l, base);
    }
    return (int)SL_COUNTOF(slots);
}

static void print_levels(uint32_t cpu)
{
    printf("levels:");
    for (int level = 0; level < SL_LEVEL_COUNT; level++) {
        uint32_t need = sl_level_features((sl_level)level) & ~(uint32_t)SL_CPU_AVX512BF16;
        if ((cpu & need) == need)
            printf(" %s", sl_level_name((sl_level)level));
    }
    printf("\n");
}

/* usage: check_kernels [--picked]      --picked: only what dispatch picks, for emulated CPUs */
int main(int argc, char **argv)
{
    seed_random("check_kernels");
    sl_kernels base = base_kernels();
    uint32_t cpu = sl_cpu_features();
    int compared = 0, skipped = 0;
    bool picked = argc > 1 && strcmp(argv[1], "--picked") == 0;
    check_tables();
    if (picked) {
        guard_loosely();
        compared = check_picked(&base);
    }
    for (const line *l = lines; !picked && l->name; l++) {
        if ((cpu & l->isa) == l->isa) {
            check_line(l, &base);
            compared++;
        } else {
            skipped++;
        }
    }
    print_levels(cpu);
    printf("%d kernels bitwise equal to the baseline, %d beyond this CPU, %d failures\n", failures ? 0 : compared,
           skipped, failures);
    return failures ? 1 : 0;
}
