/* The table of layouts and the packers behind sl_weight_pack. */
#ifndef SL_KERNEL_LAYOUT_H
#define SL_KERNEL_LAYOUT_H

#include "kernel/ops.h"

/* Copies one source block of one row into lane of a unit, or back; the two undo each other bit by bit. */
typedef void sl_block_pack_fn(const uint8_t *block, void *unit, int lane);
typedef void sl_block_unpack_fn(const void *unit, int lane, uint8_t *block);

typedef struct sl_layout_info {
    sl_type type; /* that is packed so */
    sl_act act;
    uint32_t unit_cols;     /* columns of a unit: of one source block */
    uint32_t unit_bytes;    /* 16 source blocks */
    sl_block_pack_fn *pack; /* NULL: blocks of the source are single values of unit_bytes / 16 */
    sl_block_unpack_fn *unpack;
} sl_layout_info;

/* Of a packed layout; NULL for SOURCE. */
const sl_layout_info *sl_layout_get(sl_layout layout);

sl_block_pack_fn sl_pack_q4_0, sl_pack_q4_1, sl_pack_q5_0, sl_pack_q5_1, sl_pack_q8_0, sl_pack_q2_k, sl_pack_q3_k,
    sl_pack_q4_k, sl_pack_q5_k, sl_pack_q6_k, sl_pack_iq4_nl, sl_pack_iq4_xs, sl_pack_mxfp4;
sl_block_unpack_fn sl_unpack_q4_0, sl_unpack_q4_1, sl_unpack_q5_0, sl_unpack_q5_1, sl_unpack_q8_0, sl_unpack_q2_k,
    sl_unpack_q3_k, sl_unpack_q4_k, sl_unpack_q5_k, sl_unpack_q6_k, sl_unpack_iq4_nl, sl_unpack_iq4_xs, sl_unpack_mxfp4;

#endif
