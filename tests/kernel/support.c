#define _GNU_SOURCE
#include "support.h"

#include "base/clock.h"
#include "kernel/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GUARD_BYTES = 128, GUARD = 0xa5, ALIGNMENT = 64 };

static uint64_t state;
static size_t slack_bytes;

void seed_random(const char *program)
{
    const char *given = getenv("SL_TEST_SEED");
    state = given ? strtoull(given, NULL, 10) : (uint64_t)sl_clock_ns() % 1000000007u;
    printf("%s: SL_TEST_SEED=%llu repeats this run\n", program, (unsigned long long)state);
}

/* SplitMix64 (Steele, Lea and Flood 2014). */
uint32_t random_u32(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

uint32_t random_below(uint32_t n)
{
    return (uint32_t)((uint64_t)random_u32() * n >> 32);
}

float random_float(void)
{
    return (float)(int32_t)(random_u32() >> 8) * 0x1p-23f - 1.0f;
}

static void *must(void *p)
{
    if (!p) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return p;
}

void guard_loosely(void)
{
    slack_bytes = ALIGNMENT;
}

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Bytes that can be touched of the pages that hold n_bytes behind GUARD_BYTES, at any offset from 64. */
static size_t open_bytes(size_t n_bytes)
{
    return (n_bytes + GUARD_BYTES + 3 * ALIGNMENT + page_bytes() - 1) / page_bytes() * page_bytes();
}

/* The last start, offset_bytes off the alignment, from which n_bytes still lie before a page that can't be touched. */
static unsigned char *edge_alloc(size_t n_bytes, size_t offset_bytes)
{
    size_t n_open = open_bytes(n_bytes);
    unsigned char *pages =
        mmap(NULL, n_open + page_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + n_open, page_bytes(), PROT_NONE))
        must(NULL);
    memset(pages, GUARD, n_open);
    return pages + (n_open - n_bytes - offset_bytes - slack_bytes) / ALIGNMENT * ALIGNMENT + offset_bytes;
}

static unsigned char *edge_of(const unsigned char *data, size_t n_bytes)
{
    uintptr_t last = (uintptr_t)data + n_bytes;
    return (unsigned char *)(uintptr_t)data +
           ((last + page_bytes() - 1) / page_bytes() * page_bytes() - (uintptr_t)data);
}

static void edge_free(const unsigned char *data, size_t n_bytes)
{
    munmap(edge_of(data, n_bytes) - open_bytes(n_bytes), open_bytes(n_bytes) + page_bytes());
}

guarded guarded_alloc(size_t n_bytes, size_t offset_bytes)
{
    return (guarded){edge_alloc(n_bytes, offset_bytes), n_bytes};
}

bool guarded_free(guarded *g)
{
    bool intact = true;
    unsigned char *data = g->data;
    for (const unsigned char *p = data - GUARD_BYTES; p < data; p++)
        intact &= *p == GUARD;
    for (const unsigned char *p = data + g->n_bytes; p < edge_of(data, g->n_bytes); p++)
        intact &= *p == GUARD;
    edge_free(data, g->n_bytes);
    return intact;
}

/* A finite f16: mostly of a weight scale's size, sometimes zero, subnormal or large. */
static uint16_t random_f16(void)
{
    switch (random_below(16)) {
    case 0:
        return (uint16_t)(random_below(2) << 15);
    case 1:
        return (uint16_t)(random_below(2) << 15 | random_below(0x400));
    case 2:
        return sl_f32_to_f16(random_float() * 100.0f);
    default:
        return sl_f32_to_f16(random_float() * 0.1f);
    }
}

/* Where a block keeps its f16 factors; how many there are. */
static size_t f16_fields(sl_type type, size_t at[2])
{
    at[0] = type == SL_TYPE_Q2_K ? 80 : type == SL_TYPE_Q3_K ? 108 : type == SL_TYPE_Q6_K ? 208 : 0;
    at[1] = at[0] + 2;
    switch (type) {
    case SL_TYPE_MXFP4:
        return 0;
    case SL_TYPE_Q4_1:
    case SL_TYPE_Q5_1:
    case SL_TYPE_Q2_K:
    case SL_TYPE_Q4_K:
    case SL_TYPE_Q5_K:
        return 2;
    default:
        return 1;
    }
}

/* An exponent whose weights and sums stay finite: mostly near one, sometimes as small as they come, or large. */
static uint8_t random_e8m0(void)
{
    switch (random_below(8)) {
    case 0:
        return (uint8_t)random_below(4);
    case 1:
        return (uint8_t)random_below(160);
    default:
        return (uint8_t)(117 + random_below(12));
    }
}

void *random_source(sl_type type, size_t n_rows, size_t n_cols)
{
    const sl_type_info *info = sl_type_get((uint32_t)type);
    size_t n_blocks = n_rows * (n_cols / info->block_elems), n_bytes = n_blocks * info->block_bytes;
    uint8_t *source = must(malloc(n_bytes));
    for (size_t b = 0; b < n_blocks; b++) {
        uint8_t *block = source + b * info->block_bytes;
        float value = random_float();
        uint16_t half = type == SL_TYPE_F16 ? random_f16() : sl_f32_to_bf16(value);
        if (type == SL_TYPE_F32) {
            memcpy(block, &value, sizeof value);
            continue;
        }
        if (type == SL_TYPE_F16 || type == SL_TYPE_BF16) {
            memcpy(block, &half, sizeof half);
            continue;
        }
        /* Sometimes all bits one or zero: the extremes of every integer field. */
        uint32_t kind = random_below(20);
        for (size_t i = 0; i < info->block_bytes; i++)
            block[i] = kind == 0 ? 0xff : kind == 1 ? 0 : (uint8_t)random_u32();
        size_t at[2], n_fields = f16_fields(type, at);
        for (size_t i = 0; i < n_fields; i++) {
            half = random_f16();
            memcpy(block + at[i], &half, sizeof half);
        }
        if (type == SL_TYPE_MXFP4)
            block[0] = random_e8m0();
    }
    return source;
}

void spoil_factors(sl_type type, void *source, size_t n_rows, size_t n_cols)
{
    static const uint16_t halves[] = {0x7e00, 0xfe00, 0x7c00, 0xfc00, 0x0000, 0x8000, 0x7bff, 0x0001};
    static const uint8_t exponents[] = {0, 1, 2, 200, 231, 232, 254, 255};
    const sl_type_info *info = sl_type_get((uint32_t)type);
    size_t n_blocks = n_rows * (n_cols / info->block_elems);
    for (size_t i = 0; i < 1 + n_blocks / 8; i++) {
        uint8_t *block = (uint8_t *)source + random_below((uint32_t)n_blocks) * info->block_bytes;
        size_t at[2], n_fields = f16_fields(type, at), which = random_below(8);
        if (type == SL_TYPE_MXFP4)
            block[0] = exponents[which];
        else
            memcpy(block + at[random_below((uint32_t)n_fields)], &halves[which], sizeof halves[0]);
    }
}

sl_weight weight_from(sl_level level, sl_type type, const void *source, size_t n_rows, size_t n_cols)
{
    sl_weight weight;
    sl_err err;
    if (sl_weight_describe(level, type, n_rows, n_cols, &weight, &err) != SL_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    weight.data = source;
    if (weight.layout != SL_LAYOUT_SOURCE) {
        void *data = edge_alloc(sl_weight_packed_bytes(&weight), 0);
        /* In two parts, the second first: panels are independent. */
        sl_weight_pack(&weight, source, data, weight.n_panels / 2, weight.n_panels);
        sl_weight_pack(&weight, source, data, 0, weight.n_panels / 2);
        weight.data = data;
    }
    return weight;
}

void weight_free(sl_weight *weight)
{
    if (weight->layout != SL_LAYOUT_SOURCE)
        edge_free(weight->data, sl_weight_packed_bytes(weight));
    weight->data = NULL;
}

static void random_q8_row(int8_t *q, size_t n_cols)
{
    size_t groups = n_cols / SL_GROUP;
    float *scale = (float *)(void *)(q + n_cols), *sum = scale + groups;
    int16_t *half = (int16_t *)(void *)(sum + groups);
    for (size_t g = 0; g < groups; g++) {
        uint32_t kind = random_below(8);
        half[2 * g] = half[2 * g + 1] = 0;
        for (size_t c = 0; c < SL_GROUP; c++) {
            int v = (int)random_below(255) - 127;
            v = kind == 0 ? 127 : kind == 1 ? -127 : kind == 2 ? 0 : v;
            q[g * SL_GROUP + c] = (int8_t)v;
            half[2 * g + c / 16] = (int16_t)(half[2 * g + c / 16] + v);
        }
        scale[g] = kind == 3 ? 1e20f : kind == 4 ? 1e-20f : kind == 2 ? 0.0f : 0.01f * (1.0f + random_float());
        sum[g] = scale[g] * (float)(half[2 * g] + half[2 * g + 1]);
    }
}

activations random_activations(sl_act act, size_t n_rows, size_t n_cols)
{
    activations a;
    if (act == SL_ACT_Q8) {
        a.stride_bytes = sl_q8_row_bytes(n_cols);
        a.memory = guarded_alloc(n_rows * a.stride_bytes, 0);
        for (size_t r = 0; r < n_rows; r++)
            random_q8_row((int8_t *)a.memory.data + r * a.stride_bytes, n_cols);
    } else {
        a.stride_bytes = (n_cols + random_below(5)) * sizeof(float);
        a.memory = guarded_alloc(n_rows * a.stride_bytes, random_below(16) * sizeof(float));
        for (size_t i = 0; i < n_rows * a.stride_bytes / sizeof(float); i++)
            ((float *)a.memory.data)[i] = random_float();
    }
    a.x = a.memory.data;
    return a;
}

sl_type layout_type(sl_layout layout)
{
    return sl_layout_get(layout)->type;
}
