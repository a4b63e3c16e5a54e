/* Packing and the plain matmuls against the mathematics: double precision over dequantized weights. */
#include "kernel/layout.h"
#include "kernel/panel.h"
#include "support.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double unit_roundoff = 0x1p-24;

static const sl_type types[] = {SL_TYPE_F32,  SL_TYPE_F16,    SL_TYPE_BF16,   SL_TYPE_Q4_0, SL_TYPE_Q4_1, SL_TYPE_Q5_0,
                                SL_TYPE_Q5_1, SL_TYPE_Q8_0,   SL_TYPE_Q2_K,   SL_TYPE_Q3_K, SL_TYPE_Q4_K, SL_TYPE_Q5_K,
                                SL_TYPE_Q6_K, SL_TYPE_IQ4_NL, SL_TYPE_IQ4_XS, SL_TYPE_MXFP4};

/* Activation c of a row as the kernel understands it. */
static double activation(const sl_weight *w, const void *row, size_t c)
{
    if (w->act == SL_ACT_F32)
        return ((const float *)row)[c];
    return (double)((const int8_t *)row)[c] * (double)sl_q8_scale(row, w->n_cols)[c / SL_GROUP];
}

/* Largest |minimum| in the block of column c: what an affine type takes off d q. */
static double minimum(sl_type type, const uint8_t *row, size_t c)
{
    const sl_type_info *info = sl_type_get((uint32_t)type);
    const uint8_t *block = row + c / info->block_elems * info->block_bytes;
    uint16_t m;
    memcpy(&m, block + (type == SL_TYPE_Q2_K ? 82 : 2), sizeof m);
    switch (type) {
    case SL_TYPE_Q4_1:
    case SL_TYPE_Q5_1:
        return fabs((double)sl_f16_to_f32(m));
    case SL_TYPE_Q2_K:
        return 15 * fabs((double)sl_f16_to_f32(m));
    case SL_TYPE_Q4_K:
    case SL_TYPE_Q5_K:
        return 63 * fabs((double)sl_f16_to_f32(m));
    default:
        return 0;
    }
}

/* True when the packed layout takes the block of column c for zero: MXFP4 with a unit below float32's normal numbers. */
static bool counts_as_zero(const sl_weight *w, const uint8_t *row, size_t c)
{
    return w->layout == SL_LAYOUT_MXFP4 && row[c / 32 * 17] < 2;
}

/* Checks every output. The error bound: the sum has at most n = n_cols + 8 roundings on the way of each term (float
 * layouts: a chain of n_cols fmas and three additions; quantized ones: per group isum * d or m * sum with its factors'
 * products, and at most five fmas a group), each of relative size u of what is summed so far, so |error| <= n u S / (1 - n u) with
 * S the sum of the absolute terms. A term of an affine weight is d q x or m x apart, |d q| <= |w| + |m|, hence
 * S = sum (|w| + 2 |m|) |x|. */
static void check_outputs(const sl_weight *w, const uint8_t *source, const activations *x, size_t n_rows,
                          const float *y, const float *bias)
{
    const sl_type_info *info = sl_type_get((uint32_t)w->type);
    size_t row_bytes = w->n_cols / info->block_elems * info->block_bytes;
    float *dequantized = malloc(w->n_cols * sizeof *dequantized);
    double n = (double)w->n_cols + 8, bound = n * unit_roundoff / (1 - n * unit_roundoff);
    for (size_t o = 0; o < w->n_rows; o++) {
        const uint8_t *row = source + o * row_bytes;
        info->dequantize(row, dequantized, w->n_cols);
        for (size_t r = 0; r < n_rows; r++) {
            const char *act = (const char *)x->x + r * x->stride_bytes;
            double sum = bias[o], terms = fabs(sum);
            for (size_t c = 0; c < w->n_cols; c++) {
                if (counts_as_zero(w, row, c))
                    continue;
                double xc = activation(w, act, c), m = w->act == SL_ACT_Q8 ? minimum(w->type, row, c) : 0;
                sum += (double)dequantized[c] * xc;
                /* dequantize rounds d q + m itself once or twice */
                terms += (fabs((double)dequantized[c]) + 2 * m) * fabs(xc);
            }
            assert_true(fabs(sum - (double)y[r * w->n_rows + o]) <= bound * terms + 1e-37);
        }
    }
    free(dequantized);
}

static void check_level(sl_level level, sl_type type)
{
    size_t unit = sl_type_get((uint32_t)type)->block_elems;
    for (int i = 0; i < 6; i++) {
        size_t n_out = 1 + random_below(40), n_rows = 1 + random_below(20);
        size_t n_cols = unit * (1 + random_below(unit == 1 ? 700 : unit == 32 ? 24 : 4));
        void *source = random_source(type, n_out, n_cols);
        sl_weight w = weight_from(level, type, source, n_out, n_cols);
        activations x = random_activations(w.act, n_rows, n_cols);
        float *y = malloc(n_rows * n_out * sizeof *y), *bias = malloc(n_out * sizeof *bias);
        for (size_t o = 0; o < n_out; o++)
            bias[o] = random_float();
        guarded scratch = guarded_alloc(SL_MATMUL_SCRATCH_BYTES, 0);
        sl_matmul args = {&w, x.x, x.stride_bytes, y, n_out, bias, scratch.data, sl_kernels_get(level)->reading};
        sl_kernels_get(level)->matmul[w.layout](&args, 0, n_rows, 0, w.n_panels);
        check_outputs(&w, source, &x, n_rows, y, bias);
        assert_true(guarded_free(&x.memory) && guarded_free(&scratch));
        weight_free(&w);
        free(source), free(y), free(bias);
    }
}

static void test_matmul_exact(void **state)
{
    (void)state;
    for (size_t i = 0; i < SL_COUNTOF(types); i++)
        check_level(SL_LEVEL_EXACT, types[i]);
}

static void test_matmul_ref(void **state)
{
    (void)state;
    for (size_t i = 0; i < SL_COUNTOF(types); i++)
        check_level(SL_LEVEL_REF, types[i]);
}

static void test_matmul_best(void **state)
{
    (void)state;
    for (size_t i = 0; i < SL_COUNTOF(types); i++)
        check_level(sl_level_best(), types[i]);
}

/* Unpacking gives the source's blocks back, byte by byte. */
static void check_unpacked(const sl_weight *packed, const uint8_t *source, size_t row_bytes)
{
    const sl_layout_info *layout = sl_layout_get(packed->layout);
    size_t block_bytes = layout->unit_bytes / SL_PANEL_ROWS;
    for (size_t o = 0; layout->unpack && o < packed->n_rows; o++) {
        const char *unit = (const char *)packed->data + o / SL_PANEL_ROWS * packed->panel_bytes;
        for (size_t at = 0; at < row_bytes; at += block_bytes, unit += layout->unit_bytes) {
            uint8_t block[SL_SUPER];
            layout->unpack(unit, (int)(o % SL_PANEL_ROWS), block);
            assert_memory_equal(source + o * row_bytes + at, block, block_bytes);
        }
    }
}

/* A packed row unpacks to what its source dequantizes to, bit by bit, and packing does not grow a weight. */
static void test_pack(void **state)
{
    (void)state;
    for (size_t i = 0; i < SL_COUNTOF(types); i++) {
        const sl_type_info *info = sl_type_get((uint32_t)types[i]);
        for (size_t n_out = 1; n_out <= 50; n_out += 7) {
            size_t n_cols = info->block_elems * (info->block_elems == 1 ? 77 : 3);
            size_t row_bytes = n_cols / info->block_elems * info->block_bytes;
            uint8_t *source = random_source(types[i], n_out, n_cols);
            sl_weight packed = weight_from(SL_LEVEL_REF, types[i], source, n_out, n_cols);
            sl_weight direct = weight_from(SL_LEVEL_EXACT, types[i], source, n_out, n_cols);
            assert_int_equal(sl_weight_packed_bytes(&direct), 0);
            assert_true(sl_weight_packed_bytes(&packed) * 100 <= (n_out + 15) / 16 * 16 * row_bytes * 103);
            check_unpacked(&packed, source, row_bytes);
            float *want = malloc(n_cols * sizeof *want), *got = malloc(n_cols * sizeof *got);
            for (size_t o = 0; o < n_out; o++) {
                info->dequantize(source + o * row_bytes, want, n_cols);
                sl_kernels_get(SL_LEVEL_REF)->unpack_row(&packed, o, got);
                assert_memory_equal(want, got, n_cols * sizeof *got);
                sl_kernels_get(SL_LEVEL_EXACT)->unpack_row(&direct, o, got);
                assert_memory_equal(want, got, n_cols * sizeof *got);
            }
            weight_free(&packed);
            free(source), free(want), free(got);
        }
    }
}

static void test_describe_refuses(void **state)
{
    (void)state;
    sl_weight w;
    sl_err err;
    assert_int_equal(sl_weight_describe(SL_LEVEL_REF, SL_TYPE_Q4_0, 16, 48, &w, &err), SL_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "Q4_0"));
    assert_int_equal(sl_weight_describe(SL_LEVEL_REF, SL_TYPE_Q4_K, 16, 128, &w, &err), SL_ERR_UNSUPPORTED);
    assert_int_equal(sl_weight_describe(SL_LEVEL_REF, SL_TYPE_I32, 16, 32, &w, &err), SL_ERR_UNSUPPORTED);
    assert_int_equal(sl_weight_describe(SL_LEVEL_REF, (sl_type)4, 16, 32, &w, &err), SL_ERR_UNSUPPORTED);
    assert_int_equal(sl_weight_describe(SL_LEVEL_REF, SL_TYPE_IQ2_XS, 16, 256, &w, &err), SL_ERR_UNSUPPORTED);
    assert_int_equal(sl_weight_describe(SL_LEVEL_EXACT, SL_TYPE_Q2_K, 16, 256, &w, &err), SL_OK);
    assert_int_equal(w.layout, SL_LAYOUT_SOURCE);
    assert_int_equal(sl_weight_describe(SL_LEVEL_REF, SL_TYPE_F32, 0, 32, &w, &err), SL_ERR_UNSUPPORTED);
    assert_int_equal(sl_weight_describe(SL_LEVEL_REF, SL_TYPE_F32, SIZE_MAX, 32, &w, &err), SL_ERR_LIMIT);
    assert_int_equal(sl_weight_describe(SL_LEVEL_REF, SL_TYPE_F32, 16, SIZE_MAX, &w, &err), SL_ERR_LIMIT);
    assert_int_equal(sl_weight_describe(SL_LEVEL_REF, SL_TYPE_F32, SIZE_MAX / 64, 16, &w, &err), SL_ERR_LIMIT);
}

int main(void)
{
    seed_random("test_matmul");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack),       cmocka_unit_test(test_describe_refuses), cmocka_unit_test(test_matmul_exact),
        cmocka_unit_test(test_matmul_ref), cmocka_unit_test(test_matmul_best),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
