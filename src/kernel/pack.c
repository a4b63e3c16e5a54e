#include "base/checked.h"
#include "kernel/kernels.h"
#include "kernel/layout.h"
#include "kernel/panel.h"

#include <string.h>

static const sl_layout_info layouts[SL_LAYOUT_COUNT] = {
    [SL_LAYOUT_F32] = {SL_TYPE_F32, SL_ACT_F32, 1, 16 * 4, NULL, NULL},
    [SL_LAYOUT_F16] = {SL_TYPE_F16, SL_ACT_F32, 1, 16 * 2, NULL, NULL},
    [SL_LAYOUT_BF16] = {SL_TYPE_BF16, SL_ACT_F32, 1, 16 * 2, NULL, NULL},
    [SL_LAYOUT_Q4_0] = {SL_TYPE_Q4_0, SL_ACT_Q8, 32, sizeof(sl_unit_q4_0), sl_pack_q4_0, sl_unpack_q4_0},
    [SL_LAYOUT_Q4_1] = {SL_TYPE_Q4_1, SL_ACT_Q8, 32, sizeof(sl_unit_q4_1), sl_pack_q4_1, sl_unpack_q4_1},
    [SL_LAYOUT_Q5_0] = {SL_TYPE_Q5_0, SL_ACT_Q8, 32, sizeof(sl_unit_q5_0), sl_pack_q5_0, sl_unpack_q5_0},
    [SL_LAYOUT_Q5_1] = {SL_TYPE_Q5_1, SL_ACT_Q8, 32, sizeof(sl_unit_q5_1), sl_pack_q5_1, sl_unpack_q5_1},
    [SL_LAYOUT_Q8_0] = {SL_TYPE_Q8_0, SL_ACT_Q8, 32, sizeof(sl_unit_q8_0), sl_pack_q8_0, sl_unpack_q8_0},
    [SL_LAYOUT_Q2_K] = {SL_TYPE_Q2_K, SL_ACT_Q8, 256, sizeof(sl_unit_q2_k), sl_pack_q2_k, sl_unpack_q2_k},
    [SL_LAYOUT_Q3_K] = {SL_TYPE_Q3_K, SL_ACT_Q8, 256, sizeof(sl_unit_q3_k), sl_pack_q3_k, sl_unpack_q3_k},
    [SL_LAYOUT_Q4_K] = {SL_TYPE_Q4_K, SL_ACT_Q8, 256, sizeof(sl_unit_q4_k), sl_pack_q4_k, sl_unpack_q4_k},
    [SL_LAYOUT_Q5_K] = {SL_TYPE_Q5_K, SL_ACT_Q8, 256, sizeof(sl_unit_q5_k), sl_pack_q5_k, sl_unpack_q5_k},
    [SL_LAYOUT_Q6_K] = {SL_TYPE_Q6_K, SL_ACT_Q8, 256, sizeof(sl_unit_q6_k), sl_pack_q6_k, sl_unpack_q6_k},
    [SL_LAYOUT_IQ4_NL] = {SL_TYPE_IQ4_NL, SL_ACT_Q8, 32, sizeof(sl_unit_iq4_nl), sl_pack_iq4_nl, sl_unpack_iq4_nl},
    [SL_LAYOUT_IQ4_XS] = {SL_TYPE_IQ4_XS, SL_ACT_Q8, 256, sizeof(sl_unit_iq4_xs), sl_pack_iq4_xs, sl_unpack_iq4_xs},
    [SL_LAYOUT_MXFP4] = {SL_TYPE_MXFP4, SL_ACT_Q8, 32, sizeof(sl_unit_mxfp4), sl_pack_mxfp4, sl_unpack_mxfp4},
};

/* A unit holds its 16 source blocks and nothing more: packing never grows a weight. */
_Static_assert(sizeof(sl_unit_q4_0) == 16 * 18 && sizeof(sl_unit_q4_1) == 16 * 20, "no padding");
_Static_assert(sizeof(sl_unit_q5_0) == 16 * 22 && sizeof(sl_unit_q5_1) == 16 * 24, "no padding");
_Static_assert(sizeof(sl_unit_q8_0) == 16 * 34 && sizeof(sl_unit_q2_k) == 16 * 84, "no padding");
_Static_assert(sizeof(sl_unit_q3_k) == 16 * 110 && sizeof(sl_unit_q4_k) == 16 * 144, "no padding");
_Static_assert(sizeof(sl_unit_q5_k) == 16 * 176 && sizeof(sl_unit_q6_k) == 16 * 210, "no padding");
_Static_assert(sizeof(sl_unit_iq4_nl) == 16 * 18 && sizeof(sl_unit_iq4_xs) == 16 * 136, "no padding");
_Static_assert(sizeof(sl_unit_mxfp4) == 16 * 17, "no padding");

const sl_layout_info *sl_layout_get(sl_layout layout)
{
    return layouts[layout].unit_bytes ? &layouts[layout] : NULL;
}

static sl_status find_layout(sl_level level, sl_type type, const sl_type_info *info, sl_layout *out, sl_err *err)
{
    if (!info || !info->dequantize)
        SL_FAIL(err, SL_ERR_UNSUPPORTED, "weights of type %s (%d) cannot be computed with", info ? info->name : "?",
                (int)type);
    *out = SL_LAYOUT_SOURCE;
    if (level == SL_LEVEL_EXACT)
        return SL_OK;
    for (int i = 0; i < SL_LAYOUT_COUNT; i++) {
        if (layouts[i].unit_bytes && layouts[i].type == type) {
            *out = (sl_layout)i;
            return SL_OK;
        }
    }
    SL_FAIL(err, SL_ERR_UNSUPPORTED, "weights of type %s have no kernel yet at level %s (level exact has)", info->name,
            sl_level_name(level));
}

sl_status sl_weight_describe(sl_level level, sl_type type, size_t n_rows, size_t n_cols, sl_weight *out, sl_err *err)
{
    const sl_type_info *info = sl_type_get((uint32_t)type);
    sl_layout layout;
    SL_TRY(find_layout(level, type, info, &layout, err));
    const sl_layout_info *packed = sl_layout_get(layout);
    size_t unit_cols = packed ? packed->unit_cols : info->block_elems;
    uint64_t unit_bytes = packed ? packed->unit_bytes : (uint64_t)info->block_bytes * SL_PANEL_ROWS;
    if (n_rows == 0 || n_cols == 0 || n_cols % unit_cols != 0)
        SL_FAIL(err, SL_ERR_UNSUPPORTED, "a weight of %zu x %zu %s: columns must be a multiple of %zu", n_rows, n_cols,
                info->name, unit_cols);
    uint64_t n_panels = sl_ceil_div(n_rows, SL_PANEL_ROWS), panel_bytes, total;
    if (!sl_mul_u64(n_cols / unit_cols, unit_bytes, &panel_bytes) || !sl_mul_u64(n_panels, panel_bytes, &total) ||
        total > PTRDIFF_MAX)
        SL_FAIL(err, SL_ERR_LIMIT, "a weight of %zu x %zu %s is too large", n_rows, n_cols, info->name);
    *out = (sl_weight){
        .type = type,
        .layout = layout,
        .act = packed ? packed->act : SL_ACT_F32,
        .n_rows = n_rows,
        .n_cols = n_cols,
        .n_panels = (size_t)n_panels,
        .panel_bytes = (size_t)panel_bytes,
        .data = NULL,
    };
    return SL_OK;
}

size_t sl_weight_packed_bytes(const sl_weight *weight)
{
    return weight->layout == SL_LAYOUT_SOURCE ? 0 : weight->n_panels * weight->panel_bytes;
}

static size_t panel_lanes(const sl_weight *weight, size_t panel)
{
    size_t left = weight->n_rows - panel * SL_PANEL_ROWS;
    return SL_MIN(left, (size_t)SL_PANEL_ROWS);
}

/* Single values of 4 bytes, or of 2: column after column. */
static void pack_values(const char *rows, size_t n_cols, size_t value_bytes, size_t n_lanes, char *panel)
{
    for (size_t l = 0; l < n_lanes; l++) {
        const char *row = rows + l * n_cols * value_bytes;
        char *lane = panel + l * value_bytes;
        if (value_bytes == 4)
            for (size_t c = 0; c < n_cols; c++)
                memcpy(lane + c * 4 * SL_PANEL_ROWS, row + c * 4, 4);
        else
            for (size_t c = 0; c < n_cols; c++)
                memcpy(lane + c * 2 * SL_PANEL_ROWS, row + c * 2, 2);
    }
}

void sl_weight_pack(const sl_weight *weight, const void *src, void *dst, size_t panel_begin, size_t panel_end)
{
    const sl_layout_info *layout = sl_layout_get(weight->layout);
    if (!layout)
        return;
    size_t block_bytes = layout->unit_bytes / SL_PANEL_ROWS, n_units = weight->n_cols / layout->unit_cols;
    size_t row_bytes = n_units * block_bytes;
    for (size_t p = panel_begin; p < panel_end; p++) {
        const char *rows = (const char *)src + p * SL_PANEL_ROWS * row_bytes;
        char *panel = (char *)dst + p * weight->panel_bytes;
        size_t n_lanes = panel_lanes(weight, p);
        if (n_lanes < SL_PANEL_ROWS)
            memset(panel, 0, weight->panel_bytes);
        if (!layout->pack) {
            pack_values(rows, weight->n_cols, block_bytes, n_lanes, panel);
            continue;
        }
        for (size_t u = 0; u < n_units; u++)
            for (size_t l = 0; l < n_lanes; l++)
                layout->pack((const uint8_t *)rows + l * row_bytes + u * block_bytes, panel + u * layout->unit_bytes,
                             (int)l);
    }
}

void sl_weight_unpack_row(const sl_weight *weight, size_t row, float *y)
{
    const sl_type_info *info = sl_type_get((uint32_t)weight->type);
    const sl_layout_info *layout = sl_layout_get(weight->layout);
    size_t row_bytes = weight->panel_bytes / SL_PANEL_ROWS;
    if (!layout) {
        info->dequantize((const char *)weight->data + row * row_bytes, y, weight->n_cols);
        return;
    }
    const char *unit = (const char *)weight->data + row / SL_PANEL_ROWS * weight->panel_bytes;
    size_t block_bytes = layout->unit_bytes / SL_PANEL_ROWS, lane = row % SL_PANEL_ROWS;
    for (size_t c = 0; c < weight->n_cols; c += layout->unit_cols, unit += layout->unit_bytes) {
        uint8_t block[SL_SUPER]; /* Q6_K's 210 bytes are the most */
        if (layout->unpack)
            layout->unpack(unit, (int)lane, block);
        else
            memcpy(block, unit + lane * block_bytes, block_bytes);
        info->dequantize(block, y + c, layout->unit_cols);
    }
}
