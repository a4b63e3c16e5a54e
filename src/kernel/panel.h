/* Memory of packed panels: 16 output rows by n_cols input columns, cut into units of one source block per row.
 * A unit takes exactly 16 source blocks' bytes; units follow each other from column 0 on.
 *
 * A line is 64 bytes: 4 columns of 16 rows, byte 4 l + j for row l and column j, as vpdpbusd wants its unsigned operand.
 * Quantized weights are unsigned there; the offset that makes them signed goes out through the activations' sums.
 * In a line of nibbles i (0-3) the low ones are columns 4 i + j and the high ones columns 16 + 4 i + j of a group of 32.
 * A line of bit pairs for half h of a group (columns 16 h to 16 h + 15): bits 2 i, 2 i + 1 of byte 4 l + j are of column
 * 16 h + 4 i + j. A line of bits: bit i of byte 4 l + j is of column 4 i + j (0-31).
 * Scales and minimums keep the source's bits. Pairs (a, b) of 6 bits for each of 8 groups and 16 rows:
 *   low[g][l]: low nibble the low 4 bits of a, high nibble those of b
 *   high[g % 4][l]: high 2 bits of a (bits 0-1) and b (bits 2-3), group g < 4 in the low nibble, g >= 4 in the high one
 * Float layouts have one column as their unit: 16 values of the rows.
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
    uint8_t high[SL_LINE]; /* line of bits: bit 4 */
    uint16_t d[SL_PANEL_ROWS];
} sl_unit_q5_0;

typedef struct sl_unit_q5_1 { /* w = d q + m */
    uint8_t lines[4][SL_LINE];
    uint8_t high[SL_LINE]; /* line of bits: bit 4 */
    uint16_t d[SL_PANEL_ROWS], m[SL_PANEL_ROWS];
} sl_unit_q5_1;

typedef struct sl_unit_q8_0 { /* w = d (q - 128): the source's int8 with its sign bit turned over */
    uint8_t lines[8][SL_LINE];
    uint16_t d[SL_PANEL_ROWS];
} sl_unit_q8_0;

typedef struct sl_unit_q2_k {                   /* half h of group g: w = d (sc q) - dmin mn, sc and mn of 4 bits */
    uint8_t lines[SL_SUPER_GROUPS][2][SL_LINE]; /* line of bit pairs for each half */
    uint8_t scales[SL_SUPER_GROUPS][SL_PANEL_ROWS][2]; /* of each half: low nibble sc, high nibble mn */
    uint16_t d[SL_PANEL_ROWS], dmin[SL_PANEL_ROWS];
} sl_unit_q2_k;

/* Half h of group g: w = d ((sc - 32) (q - 4)), sc of 6 bits. Eight lines of three bits fill three: line i < 6 (columns
 * 4 i + j) is in bits 0-2 (even i) or 3-5 of line i / 2; the low bits of lines 6 and 7 are in bits 6, 7 of lines 0 and 1,
 * their bits 2 in bits 6 and 7 of line 2. */
typedef struct sl_unit_q3_k {
    uint8_t lines[SL_SUPER_GROUPS][3][SL_LINE];
    /* Of each half's sc: low 4 bits, group g in [g % 4], nibble g / 4; high 2 bits, in [g % 2], bits g / 2 * 2 */
    uint8_t low[SL_SUPER_GROUPS / 2][SL_PANEL_ROWS][2];
    uint8_t high[SL_SUPER_GROUPS / 4][SL_PANEL_ROWS][2];
    uint16_t d[SL_PANEL_ROWS];
} sl_unit_q3_k;

typedef struct sl_unit_q4_k { /* group g: w = (d sc) q - (dmin mn) */
    uint8_t lines[SL_SUPER_GROUPS][4][SL_LINE];
    uint8_t low[SL_SUPER_GROUPS][SL_PANEL_ROWS]; /* pairs (sc, mn) */
    uint8_t high[SL_SUPER_GROUPS / 2][SL_PANEL_ROWS];
    uint16_t d[SL_PANEL_ROWS], dmin[SL_PANEL_ROWS];
} sl_unit_q4_k;

typedef struct sl_unit_q5_k { /* as Q4_K */
    struct {
        uint8_t lines[4][SL_LINE];
        uint8_t high[SL_LINE]; /* line of bits: bit 4 */
    } group[SL_SUPER_GROUPS];
    uint8_t low[SL_SUPER_GROUPS][SL_PANEL_ROWS]; /* pairs (sc, mn) */
    uint8_t high[SL_SUPER_GROUPS / 2][SL_PANEL_ROWS];
    uint16_t d[SL_PANEL_ROWS], dmin[SL_PANEL_ROWS];
} sl_unit_q5_k;

typedef struct sl_unit_q6_k { /* half h of group g: w = (d sc) (q - 32) */
    struct {
        uint8_t lines[4][SL_LINE];
        uint8_t high[2][SL_LINE]; /* line of bit pairs for each half: bits 4, 5 */
    } group[SL_SUPER_GROUPS];
    int8_t sc[SL_SUPER_GROUPS][2][SL_PANEL_ROWS];
    uint16_t d[SL_PANEL_ROWS];
} sl_unit_q6_k;

/* Codebooks: a nibble is an index, the integer of a weight is the code less the offset. */
enum { SL_IQ4_OFFSET = 128, SL_MXFP4_OFFSET = 12 };
static const uint8_t sl_iq4_codes[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
static const uint8_t sl_mxfp4_codes[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

typedef sl_unit_q4_0 sl_unit_iq4_nl; /* w = d (code - 128) */

typedef struct sl_unit_iq4_xs { /* group g: w = (d (sc - 32)) (code - 128), sc of 6 bits */
    uint8_t lines[SL_SUPER_GROUPS][4][SL_LINE];
    uint8_t low[SL_SUPER_GROUPS / 2][SL_PANEL_ROWS]; /* low 4 bits of sc: group g % 4, g < 4 in the low nibble */
    uint16_t high[SL_PANEL_ROWS];                    /* bits 2 g, 2 g + 1: high 2 bits of sc */
    uint16_t d[SL_PANEL_ROWS];
} sl_unit_iq4_xs;

/* w = 2^(e - 128) (code - 12): the codes are e2m1 values doubled. An e below 2, whose unit is a subnormal float32 (and
 * which quantizers write for a block of zeros), counts as zero: subnormals would take a hundred times as long. */
typedef struct sl_unit_mxfp4 {
    uint8_t lines[4][SL_LINE];
    uint8_t e[SL_PANEL_ROWS];
} sl_unit_mxfp4;

#endif
