/* Memory of packed panels: 16 output rows by n_cols input columns, cut into units of one source block per row.
 * A unit takes exactly 16 source blocks' bytes; units follow each other from column 0 on.
 *
 * A line is 64 bytes: 4 columns of 16 rows, byte 4 l + j for row l and column j, as vpdpbusd wants its unsigned operand.
 * Quantized weights are unsigned there; the offset that makes them signed goes out through the activations' sums.
 * In a line of nibbles i (0-3) the low ones are columns 4 i + j and the high ones columns 16 + 4 i + j of a group of 32.
 * Scales and minimums keep the source's bits. Float layouts have one column as their unit: 16 values of the rows.
 * All fields are little endian. */
#ifndef SL_KERNEL_PANEL_H
#define SL_KERNEL_PANEL_H

#include "kernel/ops.h"

enum { SL_LINE = 64, SL_SUPER = 256, SL_SUPER_GROUPS = SL_SUPER / SL_GROUP };

typedef struct sl_unit_q4_0 { /* w = d (q - 8) */
    uint8_t lines[4][SL_LINE];
    uint16_t d[SL_PANEL_ROWS];
} sl_unit_q4_0;

typedef struct sl_unit_q4_1 { /* w = d q + m */
    uint8_t lines[4][SL_LINE];
    uint16_t d[SL_PANEL_ROWS], m[SL_PANEL_ROWS];
} sl_unit_q4_1;

typedef struct sl_unit_q5_0 { /* w = d (q - 16) */
    uint8_t lines[4][SL_LINE];
    uint8_t high[SL_LINE]; /* bit c / 4 of byte 4 l + c % 4: bit 4 of column c (0-31) of row l */
    uint16_t d[SL_PANEL_ROWS];
} sl_unit_q5_0;

typedef struct sl_unit_q8_0 { /* w = d (q - 128): the source's int8 with its sign bit turned over */
    uint8_t lines[8][SL_LINE];
    uint16_t d[SL_PANEL_ROWS];
} sl_unit_q8_0;

typedef struct sl_unit_q4_k { /* group g: w = (d sc) q - (dmin mn), sc and mn of 6 bits */
    uint8_t lines[SL_SUPER_GROUPS][4][SL_LINE];
    uint8_t low[SL_SUPER_GROUPS][SL_PANEL_ROWS]; /* low nibble: low 4 bits of sc, high nibble: of mn */
    /* high 2 bits of sc (bits 0-1) and mn (bits 2-3): group g < 4 in the low nibble, group g + 4 in the high one */
    uint8_t high[SL_SUPER_GROUPS / 2][SL_PANEL_ROWS];
    uint16_t d[SL_PANEL_ROWS], dmin[SL_PANEL_ROWS];
} sl_unit_q4_k;

typedef struct sl_unit_q6_k { /* half h of group g: w = (d sc) (q - 32) */
    struct {
        uint8_t lines[4][SL_LINE];
        uint8_t high[2][SL_LINE]; /* bits 2 i, 2 i + 1 of byte 4 l + j: bits 4, 5 of column 16 h + 4 i + j of row l */
    } group[SL_SUPER_GROUPS];
    int8_t sc[SL_SUPER_GROUPS][2][SL_PANEL_ROWS];
    uint16_t d[SL_PANEL_ROWS];
} sl_unit_q6_k;

#endif
