/* kernel/type and kernel/dequant against golden values from gguf-py (tools/golden_dequant.py). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernel/type.h"

static uint8_t golden[1 << 20];
static size_t golden_bytes;

static int load_golden(void **state)
{
    (void)state;
    FILE *f = fopen(SL_TEST_GOLDEN_DIR "/dequant.bin", "rb");
    if (!f)
        return -1;
    golden_bytes = fread(golden, 1, sizeof golden, f);
    fclose(f);
    return golden_bytes > 0 && golden_bytes < sizeof golden ? 0 : -1;
}

static uint32_t u32_at(size_t at)
{
    uint32_t u;
    assert_true(at + 4 <= golden_bytes);
    memcpy(&u, golden + at, 4);
    return u;
}

/* Walks the type records and returns where they end, checking each when check is set. */
static size_t walk_types(bool check, uint64_t *seen)
{
    size_t at = 0;
    while (u32_at(at) != UINT32_MAX) {
        uint32_t type = u32_at(at), n_elems = u32_at(at + 4), n_bytes = u32_at(at + 8);
        const uint8_t *blocks = golden + at + 12, *want = blocks + n_bytes;
        at += 12 + n_bytes + 4 * (size_t)n_elems;
        *seen |= UINT64_C(1) << type;
        if (!check)
            continue;
        const sl_type_info *info = sl_type_get(type);
        assert_non_null(info);
        assert_int_equal((uint64_t)n_elems * info->block_bytes, (uint64_t)n_bytes * info->block_elems);
        float *got = malloc(4 * (size_t)n_elems);
        assert_non_null(got);
        info->dequantize(blocks, got, n_elems);
        for (uint32_t i = 0; i < n_elems; i++) {
            if (memcmp(&got[i], want + 4 * (size_t)i, 4)) {
                float w;
                memcpy(&w, want + 4 * (size_t)i, 4);
                fail_msg("%s element %u: %a, gguf-py has %a", info->name, i, (double)got[i], (double)w);
            }
        }
        free(got);
    }
    return at;
}

static void test_golden(void **state)
{
    (void)state;
    uint64_t seen = 0;
    walk_types(true, &seen);
    for (uint32_t type = 0; type < 64; type++) {
        const sl_type_info *info = sl_type_get(type);
        assert_int_equal(info && info->dequantize, seen >> type & 1);
    }
}

static void test_table(void **state)
{
    (void)state;
    const uint32_t gaps[] = {4, 5, 31, 32, 33, 36, 37, 38, 42, 1000, UINT32_MAX};
    for (size_t i = 0; i < SL_COUNTOF(gaps); i++)
        assert_null(sl_type_get(gaps[i]));
    assert_string_equal(sl_type_get(SL_TYPE_Q4_K)->name, "Q4_K");
}

/* Every f16 through both directions; conversions to f16 and bf16 at their rounding borders as numpy does them. */
static void test_scalars(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = sl_f16_to_f32((uint16_t)h);
        bool nan = (h & 0x7fff) > 0x7c00;
        assert_int_equal(isnan(f) != 0, nan);
        assert_int_equal(sl_f32_to_f16(f), nan ? (h | 0x200) : h);
        float b = sl_bf16_to_f32((uint16_t)h);
        nan = (h & 0x7fff) > 0x7f80;
        assert_int_equal(isnan(b) != 0, nan);
        assert_int_equal(sl_f32_to_bf16(b), nan ? (h | 0x40) : h);
    }
    uint64_t seen = 0;
    size_t at = walk_types(false, &seen);
    uint32_t n = u32_at(at + 4);
    assert_true(n > 1000);
    for (at += 8; n--; at += 8) {
        uint32_t bits = u32_at(at), want = u32_at(at + 4);
        float f;
        memcpy(&f, &bits, 4);
        if (sl_f32_to_f16(f) != (want & 0xffff) || sl_f32_to_bf16(f) != want >> 16)
            fail_msg("%08x: f16 %04x, bf16 %04x", bits, sl_f32_to_f16(f), sl_f32_to_bf16(f));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_scalars),
    };
    return cmocka_run_group_tests(tests, load_golden, NULL);
}
