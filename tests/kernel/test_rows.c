/* Row kernels against double precision, and the exponential over its whole range. */
#include "support.h"

#include "kernel/ref/exp.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const double u = 0x1p-24;

static double ulps(double want, float got)
{
    double spacing = fmax(ldexp(1.0, ilogb(want) - 23), 0x1p-149);
    return fabs((double)got - want) / spacing;
}

/* Every 397th float there is: within 1 ulp where the result is a normal number, 0 or infinity beyond. */
static void test_exp(void **state)
{
    (void)state;
    double worst = 0;
    for (uint64_t bits = 0; bits < 0x100000000; bits += 397) {
        float x = f32_from_bits((uint32_t)bits), y = exp_f32(x);
        if (isnan(x))
            assert_true(isnan(y));
        else if (x < -87.3365f)
            assert_true(y == 0);
        else if (x > 88.7229f)
            assert_true(isinf(y) && y > 0);
        else if (x < 88.7228f)
            worst = fmax(worst, ulps(exp((double)x), y));
    }
    print_message("exp: worst error %.3f ulp\n", worst);
    assert_true(worst <= 1.0);
    assert_true(exp_f32(0.0f) == 1.0f);
}

static void test_tanh(void **state)
{
    (void)state;
    double worst = 0;
    for (uint64_t bits = 0; bits < 0x100000000; bits += 397) {
        float x = f32_from_bits((uint32_t)bits), y = tanh_f32(x);
        if (isnan(x))
            assert_true(isnan(y));
        else if (fabsf(x) > 1e-37f) /* below, the spacing of subnormals hides nothing but costs a special case */
            worst = fmax(worst, ulps(tanh((double)x), y));
    }
    print_message("tanh: worst error %.3f ulp\n", worst);
    assert_true(worst <= 3.0);
}

/* The scalar conversions of kernel/type.h are the independent side: written elsewhere, tested there. */
static void test_f16(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float a = f16_to_f32((uint16_t)h), b = sl_f16_to_f32((uint16_t)h);
        assert_true(isnan(b) ? isnan(a) : f32_bits(a) == f32_bits(b));
    }
    for (uint64_t bits = 0; bits < 0x100000000; bits += 241) {
        float x = f32_from_bits((uint32_t)bits);
        uint16_t a = f32_to_f16(x), b = sl_f32_to_f16(x);
        assert_true(isnan(x) ? (a & 0x7fff) > 0x7c00 && (b & 0x7fff) > 0x7c00 : a == b);
    }
}

/* mean and r by at most n / 16 + 6 roundings of positive terms, halved by the root, then two products: relative. */
static void test_rmsnorm(void **state)
{
    (void)state;
    const sl_kernels *k = sl_kernels_get(SL_LEVEL_REF);
    for (size_t n = 1; n < 3000; n = n * 3 / 2 + 1) {
        float *x = malloc(n * sizeof *x), *w = malloc(n * sizeof *w), *y = malloc(n * sizeof *y);
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            x[i] = random_float() * 3, w[i] = random_float();
            sum += (double)x[i] * (double)x[i];
        }
        k->rmsnorm(y, x, w, n, 1e-6f);
        double r = 1 / sqrt(sum / (double)n + (double)1e-6f), bound = ((double)n / 16 + 6) / 2 * u + 4 * u;
        for (size_t i = 0; i < n; i++) {
            double want = (double)x[i] * r * (double)w[i];
            assert_true(fabs((double)y[i] - want) <= bound * fabs(want) + 1e-44);
        }
        free(x), free(w), free(y);
    }
}

static void test_quantize_q8(void **state)
{
    (void)state;
    enum { N = 64 * SL_GROUP };
    float *x = malloc(N * sizeof *x);
    int8_t *row = aligned_alloc(64, sl_q8_row_bytes(N));
    for (size_t i = 0; i < N; i++)
        x[i] = i / SL_GROUP == 3 ? 0 : random_float() * powf(10, (float)(int)(i / SL_GROUP % 9) - 4);
    x[5 * SL_GROUP + 7] = NAN;
    x[6 * SL_GROUP + 31] = -INFINITY;
    sl_kernels_get(sl_level_best())->quantize_q8(row, x, N);
    const float *scale = sl_q8_scale(row, N), *sum = sl_q8_sum(row, N);
    const int16_t *half = sl_q8_half_sum(row, N);
    for (size_t g = 0; g < N / SL_GROUP; g++) {
        float amax = 0;
        int sums[2] = {0, 0};
        for (size_t i = g * SL_GROUP; i < (g + 1) * SL_GROUP; i++)
            amax = fmaxf(amax, fabsf(x[i]));
        for (size_t i = 0; i < SL_GROUP; i++) {
            float v = x[g * SL_GROUP + i];
            int q = row[g * SL_GROUP + i];
            sums[i / 16] += q;
            assert_int_equal(q, g == 5 || g == 6 || g == 3 ? 0 : (int)rintf(v * (127.0f / amax)));
        }
        assert_int_equal(half[2 * g], sums[0]);
        assert_int_equal(half[2 * g + 1], sums[1]);
        if (g == 5 || g == 6) {
            assert_true(isnan(scale[g]) && isnan(sum[g]));
        } else {
            assert_true(scale[g] == amax / 127.0f);
            assert_true(sum[g] == scale[g] * (float)(sums[0] + sums[1]));
        }
    }
    free(x), free(row);
}

/* g / (1 + e^-t): t carries a relative error of 4 u (0 for silu), so e^-t one of 4 u |t| more than its ulp. */
static void test_glu(void **state)
{
    (void)state;
    enum { N = 4096 };
    static float g[N], up[N], y[N];
    for (int gate = SL_GATE_SILU; gate <= SL_GATE_GELU_TANH; gate++) {
        for (size_t i = 0; i < N; i++)
            g[i] = random_float() * (i % 2 ? 3.0f : 12.0f), up[i] = random_float();
        sl_kernels_get(SL_LEVEL_REF)->glu(y, g, up, N, (sl_gate)gate);
        for (size_t i = 0; i < N; i++) {
            double x = (double)g[i], t = 2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
            t = gate == SL_GATE_SILU ? x : t;
            double act = gate == SL_GATE_SILU ? x / (1 + exp(-x)) : 0.5 * x * (1 + tanh(t / 2));
            double want = act * (double)up[i], bound = (8 + 4 * fabs(t)) * u * fabs(want) + 1e-15;
            if (t > -80)
                assert_true(fabs((double)y[i] - want) <= bound);
        }
    }
}

/* A rotation: (a, b) turned by the angle, each mode pairing its own elements; others untouched. */
static void test_rope(void **state)
{
    (void)state;
    enum { HEADS = 3, DIM = 20, PAIRS = 8 };
    float x[HEADS * DIM], before[HEADS * DIM], cos_sin[2 * PAIRS];
    for (int mode = SL_ROPE_NORM; mode <= SL_ROPE_NEOX; mode++) {
        for (size_t i = 0; i < HEADS * DIM; i++)
            before[i] = x[i] = random_float();
        for (size_t i = 0; i < PAIRS; i++)
            cos_sin[i] = (float)cos((double)i), cos_sin[PAIRS + i] = (float)sin((double)i);
        sl_kernels_get(SL_LEVEL_REF)->rope(x, HEADS, DIM, cos_sin, PAIRS, (sl_rope_mode)mode);
        for (size_t h = 0; h < HEADS; h++) {
            for (size_t i = 0; i < PAIRS; i++) {
                size_t ia = h * DIM + (mode == SL_ROPE_NORM ? 2 * i : i);
                size_t ib = mode == SL_ROPE_NORM ? ia + 1 : ia + PAIRS;
                double a = (double)before[ia], b = (double)before[ib], c = cos((double)i), s = sin((double)i);
                assert_true(fabs((double)x[ia] - (a * c - b * s)) < 1e-6);
                assert_true(fabs((double)x[ib] - (b * c + a * s)) < 1e-6);
            }
            for (size_t i = 2 * PAIRS; i < DIM; i++)
                assert_true(x[h * DIM + i] == before[h * DIM + i]);
        }
    }
}

int main(void)
{
    seed_random("test_rows");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),     cmocka_unit_test(test_tanh),        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_rmsnorm), cmocka_unit_test(test_quantize_q8), cmocka_unit_test(test_glu),
        cmocka_unit_test(test_rope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
