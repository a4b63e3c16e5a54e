/* Packers: one source block (ggml's block formats) to one lane of a unit (kernel/panel.h) and back. */
#include "kernel/layout.h"
#include "kernel/panel.h"

#include <string.h>

/* Bytes 4 i … 4 i + 3 of 16 nibble pairs (low: element e, high: element e + 16) are lane's place in line i. */
static void put_nibbles(uint8_t (*lines)[SL_LINE], int lane, const uint8_t qs[16])
{
    for (int i = 0; i < 4; i++)
        memcpy(lines[i] + 4 * lane, qs + 4 * i, 4);
}

static void get_nibbles(const uint8_t (*lines)[SL_LINE], int lane, uint8_t qs[16])
{
    for (int i = 0; i < 4; i++)
        memcpy(qs + 4 * i, lines[i] + 4 * lane, 4);
}

/* Bits 0, 1 of 32 values in lane's place of the two lines of bit pairs, and back. */
static void put_bit_pairs(uint8_t (*lines)[SL_LINE], int lane, const uint8_t q[SL_GROUP])
{
    uint8_t bytes[2][4] = {{0}};
    for (int c = 0; c < SL_GROUP; c++)
        bytes[c / 16][c % 4] |= (uint8_t)((q[c] & 3) << c % 16 / 4 * 2);
    for (int h = 0; h < 2; h++)
        memcpy(lines[h] + 4 * lane, bytes[h], 4);
}

static void get_bit_pairs(const uint8_t (*lines)[SL_LINE], int lane, uint8_t q[SL_GROUP])
{
    for (int c = 0; c < SL_GROUP; c++)
        q[c] = lines[c / 16][4 * lane + c % 4] >> c % 16 / 4 * 2 & 3;
}

/* Bit 0 of 32 values in lane's place of a line of bits, and back. */
static void put_bits(uint8_t *line, int lane, const uint8_t q[SL_GROUP])
{
    uint8_t bytes[4] = {0};
    for (int c = 0; c < SL_GROUP; c++)
        bytes[c % 4] |= (uint8_t)((q[c] & 1) << c / 4);
    memcpy(line + 4 * lane, bytes, 4);
}

static void get_bits(const uint8_t *line, int lane, uint8_t q[SL_GROUP])
{
    for (int c = 0; c < SL_GROUP; c++)
        q[c] = line[4 * lane + c % 4] >> c / 4 & 1;
}

/* The u32 of Q5_0 and Q5_1, bit c for element c: a line of bits, and back. */
static void put_high_word(uint8_t *line, int lane, const uint8_t word[4])
{
    uint8_t bits[SL_GROUP];
    for (int c = 0; c < SL_GROUP; c++)
        bits[c] = word[c / 8] >> c % 8 & 1;
    put_bits(line, lane, bits);
}

static void get_high_word(const uint8_t *line, int lane, uint8_t word[4])
{
    uint8_t bits[SL_GROUP];
    get_bits(line, lane, bits);
    memset(word, 0, 4);
    for (int c = 0; c < SL_GROUP; c++)
        word[c / 8] |= (uint8_t)(bits[c] << c % 8);
}

/* One pair of 6-bit numbers of group g (kernel/panel.h), and back; put adds to high, which begins as zero. */
static void put_pair(uint8_t (*low)[SL_PANEL_ROWS], uint8_t (*high)[SL_PANEL_ROWS], int g, int lane, unsigned a,
                     unsigned b)
{
    low[g][lane] = (uint8_t)((a & 15) | (b & 15) << 4);
    high[g % 4][lane] |= (uint8_t)((a >> 4 | b >> 4 << 2) << g / 4 * 4);
}

static void get_pair(const uint8_t (*low)[SL_PANEL_ROWS], const uint8_t (*high)[SL_PANEL_ROWS], int g, int lane,
                     unsigned *a, unsigned *b)
{
    unsigned l = low[g][lane], h = (unsigned)high[g % 4][lane] >> g / 4 * 4;
    *a = (l & 15) | (h & 3) << 4;
    *b = l >> 4 | (h >> 2 & 3) << 4;
}

/* Q4_0: f16 d, 16 nibble pairs. */
void sl_pack_q4_0(const uint8_t *block, void *unit, int lane)
{
    sl_unit_q4_0 *u = unit;
    memcpy(&u->d[lane], block, 2);
    put_nibbles(u->lines, lane, block + 2);
}

void sl_unpack_q4_0(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q4_0 *u = unit;
    memcpy(block, &u->d[lane], 2);
    get_nibbles(u->lines, lane, block + 2);
}

/* Q4_1: f16 d, f16 m, 16 nibble pairs. */
void sl_pack_q4_1(const uint8_t *block, void *unit, int lane)
{
    sl_unit_q4_1 *u = unit;
    memcpy(&u->d[lane], block, 2);
    memcpy(&u->m[lane], block + 2, 2);
    put_nibbles(u->lines, lane, block + 4);
}

void sl_unpack_q4_1(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q4_1 *u = unit;
    memcpy(block, &u->d[lane], 2);
    memcpy(block + 2, &u->m[lane], 2);
    get_nibbles(u->lines, lane, block + 4);
}

/* Q5_0: f16 d, u32 of bit 4 of each element, 16 nibble pairs. */
void sl_pack_q5_0(const uint8_t *block, void *unit, int lane)
{
    sl_unit_q5_0 *u = unit;
    memcpy(&u->d[lane], block, 2);
    put_high_word(u->high, lane, block + 2);
    put_nibbles(u->lines, lane, block + 6);
}

void sl_unpack_q5_0(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q5_0 *u = unit;
    memcpy(block, &u->d[lane], 2);
    get_high_word(u->high, lane, block + 2);
    get_nibbles(u->lines, lane, block + 6);
}

/* Q5_1: f16 d, f16 m, then as Q5_0. */
void sl_pack_q5_1(const uint8_t *block, void *unit, int lane)
{
    sl_unit_q5_1 *u = unit;
    memcpy(&u->d[lane], block, 2);
    memcpy(&u->m[lane], block + 2, 2);
    put_high_word(u->high, lane, block + 4);
    put_nibbles(u->lines, lane, block + 8);
}

void sl_unpack_q5_1(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q5_1 *u = unit;
    memcpy(block, &u->d[lane], 2);
    memcpy(block + 2, &u->m[lane], 2);
    get_high_word(u->high, lane, block + 4);
    get_nibbles(u->lines, lane, block + 8);
}

/* Q8_0: f16 d, int8[32]. */
void sl_pack_q8_0(const uint8_t *block, void *unit, int lane)
{
    sl_unit_q8_0 *u = unit;
    memcpy(&u->d[lane], block, 2);
    for (int c = 0; c < SL_GROUP; c++)
        u->lines[c / 4][4 * lane + c % 4] = block[2 + c] ^ 0x80;
}

void sl_unpack_q8_0(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q8_0 *u = unit;
    memcpy(block, &u->d[lane], 2);
    for (int c = 0; c < SL_GROUP; c++)
        block[2 + c] = u->lines[c / 4][4 * lane + c % 4] ^ 0x80;
}

/* Q2_K and Q3_K keep bits 0, 1 of 256 elements in 64 bytes: element 32 n + e of half k (128 elements) in bits 2 n of
 * byte 32 k + e. */
static void plane_pairs(const uint8_t *qs, int g, uint8_t q[SL_GROUP])
{
    for (int e = 0; e < SL_GROUP; e++)
        q[e] = qs[g / 4 * 32 + e] >> g % 4 * 2 & 3;
}

static void add_plane_pairs(uint8_t *qs, int g, const uint8_t q[SL_GROUP])
{
    for (int e = 0; e < SL_GROUP; e++)
        qs[g / 4 * 32 + e] |= (uint8_t)((q[e] & 3) << g % 4 * 2);
}

/* Q3_K and Q5_K keep one more bit of each element in 32 bytes: of element e of group g in bit g of byte e. */
static void plane_bits(const uint8_t *mask, int g, uint8_t q[SL_GROUP])
{
    for (int e = 0; e < SL_GROUP; e++)
        q[e] = mask[e] >> g & 1;
}

static void add_plane_bits(uint8_t *mask, int g, const uint8_t q[SL_GROUP])
{
    for (int e = 0; e < SL_GROUP; e++)
        mask[e] |= (uint8_t)((q[e] & 1) << g);
}

/* Q2_K: 16 bytes of scale (low) and minimum (high nibble) of each 16 elements, qs[64], f16 d, f16 dmin. */
void sl_pack_q2_k(const uint8_t *block, void *unit, int lane)
{
    sl_unit_q2_k *u = unit;
    memcpy(&u->d[lane], block + 80, 2);
    memcpy(&u->dmin[lane], block + 82, 2);
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        uint8_t q[SL_GROUP];
        plane_pairs(block + 16, g, q);
        put_bit_pairs(u->lines[g], lane, q);
        for (int h = 0; h < 2; h++)
            u->scales[g][lane][h] = block[2 * g + h];
    }
}

void sl_unpack_q2_k(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q2_k *u = unit;
    memset(block, 0, 80);
    memcpy(block + 80, &u->d[lane], 2);
    memcpy(block + 82, &u->dmin[lane], 2);
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        uint8_t q[SL_GROUP];
        get_bit_pairs(u->lines[g], lane, q);
        add_plane_pairs(block + 16, g, q);
        for (int h = 0; h < 2; h++)
            block[2 * g + h] = u->scales[g][lane][h];
    }
}

/* Numbers of 3 bits in lane's place of three lines (sl_unit_q3_k), and back. */
static void put_threes(uint8_t (*lines)[SL_LINE], int lane, const uint8_t q[SL_GROUP])
{
    uint8_t bytes[3][4] = {{0}};
    for (int c = 0; c < SL_GROUP; c++) {
        int i = c / 4, j = c % 4;
        if (i < 6) {
            bytes[i / 2][j] |= (uint8_t)(q[c] << i % 2 * 3);
        } else {
            bytes[i - 6][j] |= (uint8_t)((q[c] & 3) << 6);
            bytes[2][j] |= (uint8_t)(q[c] >> 2 << i);
        }
    }
    for (int k = 0; k < 3; k++)
        memcpy(lines[k] + 4 * lane, bytes[k], 4);
}

static void get_threes(const uint8_t (*lines)[SL_LINE], int lane, uint8_t q[SL_GROUP])
{
    for (int c = 0; c < SL_GROUP; c++) {
        int i = c / 4, at = 4 * lane + c % 4;
        q[c] =
            i < 6 ? lines[i / 2][at] >> i % 2 * 3 & 7 : (uint8_t)(lines[i - 6][at] >> 6 | (lines[2][at] >> i & 1) << 2);
    }
}

/* Q3_K: hmask[32] of bit 2, qs[64], 12 bytes with 16 scales of 6 bits, f16 d. Scale s has its low 4 bits in byte s % 8
 * (high nibble for s >= 8) and its high 2 bits in bits s / 4 * 2 of byte 8 + s % 4. */
void sl_pack_q3_k(const uint8_t *block, void *unit, int lane)
{
    sl_unit_q3_k *u = unit;
    const uint8_t *scales = block + 96;
    memcpy(&u->d[lane], block + 108, 2);
    for (int g = 0; g < SL_SUPER_GROUPS / 2; g++)
        memset(u->low[g][lane], 0, 2);
    for (int g = 0; g < SL_SUPER_GROUPS / 4; g++)
        memset(u->high[g][lane], 0, 2);
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        uint8_t q[SL_GROUP], high[SL_GROUP];
        plane_pairs(block + 32, g, q);
        plane_bits(block, g, high);
        for (int e = 0; e < SL_GROUP; e++)
            q[e] |= (uint8_t)(high[e] << 2);
        put_threes(u->lines[g], lane, q);
        for (int h = 0, s = 2 * g; h < 2; h++, s++) {
            u->low[g % 4][lane][h] |= (uint8_t)((scales[s % 8] >> s / 8 * 4 & 15) << g / 4 * 4);
            u->high[g % 2][lane][h] |= (uint8_t)((scales[8 + s % 4] >> s / 4 * 2 & 3) << g / 2 * 2);
        }
    }
}

void sl_unpack_q3_k(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q3_k *u = unit;
    uint8_t *scales = block + 96;
    memset(block, 0, 108);
    memcpy(block + 108, &u->d[lane], 2);
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        uint8_t q[SL_GROUP], high[SL_GROUP];
        get_threes(u->lines[g], lane, q);
        for (int e = 0; e < SL_GROUP; e++)
            high[e] = q[e] >> 2;
        add_plane_pairs(block + 32, g, q);
        add_plane_bits(block, g, high);
        for (int h = 0, s = 2 * g; h < 2; h++, s++) {
            scales[s % 8] |= (uint8_t)((u->low[g % 4][lane][h] >> g / 4 * 4 & 15) << s / 8 * 4);
            scales[8 + s % 4] |= (uint8_t)((u->high[g % 2][lane][h] >> g / 2 * 2 & 3) << s / 4 * 2);
        }
    }
}

/* Q4_K's and Q5_K's 12 bytes: sub-blocks 0-3 keep sc in the low 6 bits of byte g and mn in those of byte g + 4; sub-blocks 4-7
 * keep the low 4 bits of both in byte g + 4 and their high 2 bits in the top of bytes g - 4 and g. */
static void get_scale_min(const uint8_t *s, int g, unsigned *sc, unsigned *mn)
{
    if (g < 4) {
        *sc = s[g] & 63;
        *mn = s[g + 4] & 63;
    } else {
        *sc = (s[g + 4] & 15u) | (unsigned)(s[g - 4] >> 6) << 4;
        *mn = s[g + 4] >> 4 | (unsigned)(s[g] >> 6) << 4;
    }
}

static void put_scale_min(uint8_t *s, int g, unsigned sc, unsigned mn)
{
    if (g < 4) {
        s[g] |= (uint8_t)sc;
        s[g + 4] |= (uint8_t)mn;
    } else {
        s[g + 4] |= (uint8_t)((sc & 15) | (mn & 15) << 4);
        s[g - 4] |= (uint8_t)(sc >> 4 << 6);
        s[g] |= (uint8_t)(mn >> 4 << 6);
    }
}

/* Q4_K and Q5_K keep the low nibbles in 128 bytes: each 32 hold sub-block 2 k (low) and 2 k + 1 (high). */
static void pack_super_nibbles(const uint8_t *qs, uint8_t (*lines)[SL_LINE], int g, int lane)
{
    const uint8_t *q = qs + g / 2 * 32;
    uint8_t pairs[16];
    for (int e = 0, shift = g % 2 * 4; e < 16; e++)
        pairs[e] = (uint8_t)((q[e] >> shift & 15) | (q[e + 16] >> shift & 15) << 4);
    put_nibbles(lines, lane, pairs);
}

static void unpack_super_nibbles(const uint8_t (*lines)[SL_LINE], uint8_t *qs, int g, int lane)
{
    uint8_t *q = qs + g / 2 * 32, pairs[16];
    get_nibbles(lines, lane, pairs);
    for (int e = 0, shift = g % 2 * 4; e < 16; e++) {
        q[e] |= (uint8_t)((pairs[e] & 15) << shift);
        q[e + 16] |= (uint8_t)(pairs[e] >> 4 << shift);
    }
}

/* Q4_K: f16 d, f16 dmin, 12 bytes of scales and minimums, 128 bytes of nibbles. */
void sl_pack_q4_k(const uint8_t *block, void *unit, int lane)
{
    sl_unit_q4_k *u = unit;
    memcpy(&u->d[lane], block, 2);
    memcpy(&u->dmin[lane], block + 2, 2);
    for (int g = 0; g < SL_SUPER_GROUPS / 2; g++)
        u->high[g][lane] = 0;
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        unsigned sc, mn;
        pack_super_nibbles(block + 16, u->lines[g], g, lane);
        get_scale_min(block + 4, g, &sc, &mn);
        put_pair(u->low, u->high, g, lane, sc, mn);
    }
}

void sl_unpack_q4_k(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q4_k *u = unit;
    memcpy(block, &u->d[lane], 2);
    memcpy(block + 2, &u->dmin[lane], 2);
    memset(block + 4, 0, 140);
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        unsigned sc, mn;
        unpack_super_nibbles(u->lines[g], block + 16, g, lane);
        get_pair(u->low, u->high, g, lane, &sc, &mn);
        put_scale_min(block + 4, g, sc, mn);
    }
}

/* Q5_K: as Q4_K with qh[32] of bit 4 before the nibbles. */
void sl_pack_q5_k(const uint8_t *block, void *unit, int lane)
{
    sl_unit_q5_k *u = unit;
    memcpy(&u->d[lane], block, 2);
    memcpy(&u->dmin[lane], block + 2, 2);
    for (int g = 0; g < SL_SUPER_GROUPS / 2; g++)
        u->high[g][lane] = 0;
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        uint8_t q[SL_GROUP];
        unsigned sc, mn;
        plane_bits(block + 16, g, q);
        put_bits(u->group[g].high, lane, q);
        pack_super_nibbles(block + 48, u->group[g].lines, g, lane);
        get_scale_min(block + 4, g, &sc, &mn);
        put_pair(u->low, u->high, g, lane, sc, mn);
    }
}

void sl_unpack_q5_k(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q5_k *u = unit;
    memcpy(block, &u->d[lane], 2);
    memcpy(block + 2, &u->dmin[lane], 2);
    memset(block + 4, 0, 172);
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        uint8_t q[SL_GROUP];
        unsigned sc, mn;
        get_bits(u->group[g].high, lane, q);
        add_plane_bits(block + 16, g, q);
        unpack_super_nibbles(u->group[g].lines, block + 48, g, lane);
        get_pair(u->low, u->high, g, lane, &sc, &mn);
        put_scale_min(block + 4, g, sc, mn);
    }
}

/* Q6_K: ql[128], qh[64], int8 sc[16], f16 d. In each half of 128 elements, element 32 n + l has its low bits in ql
 * byte l + 32 (n % 2) (low nibbles for n < 2) and its high bits in bits 2 n of qh byte l. */
void sl_pack_q6_k(const uint8_t *block, void *unit, int lane)
{
    sl_unit_q6_k *u = unit;
    memcpy(&u->d[lane], block + 208, 2);
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        int n = g % 4;
        const uint8_t *ql = block + g / 4 * 64 + n % 2 * 32;
        uint8_t pairs[16], high[SL_GROUP];
        for (int e = 0; e < 16; e++)
            pairs[e] = (uint8_t)((ql[e] >> n / 2 * 4 & 15) | (ql[e + 16] >> n / 2 * 4 & 15) << 4);
        put_nibbles(u->group[g].lines, lane, pairs);
        plane_pairs(block + 128, g, high);
        put_bit_pairs(u->group[g].high, lane, high);
        for (int h = 0; h < 2; h++)
            u->sc[g][h][lane] = (int8_t)block[192 + 2 * g + h];
    }
}

void sl_unpack_q6_k(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q6_k *u = unit;
    memset(block, 0, 192);
    memcpy(block + 208, &u->d[lane], 2);
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        int n = g % 4;
        uint8_t *ql = block + g / 4 * 64 + n % 2 * 32, pairs[16], high[SL_GROUP];
        get_nibbles(u->group[g].lines, lane, pairs);
        for (int e = 0; e < 16; e++) {
            ql[e] |= (uint8_t)((pairs[e] & 15) << n / 2 * 4);
            ql[e + 16] |= (uint8_t)(pairs[e] >> 4 << n / 2 * 4);
        }
        get_bit_pairs(u->group[g].high, lane, high);
        add_plane_pairs(block + 128, g, high);
        for (int h = 0; h < 2; h++)
            block[192 + 2 * g + h] = (uint8_t)u->sc[g][h][lane];
    }
}

/* IQ4_NL: as Q4_0. */
void sl_pack_iq4_nl(const uint8_t *block, void *unit, int lane)
{
    sl_pack_q4_0(block, unit, lane);
}

void sl_unpack_iq4_nl(const void *unit, int lane, uint8_t *block)
{
    sl_unpack_q4_0(unit, lane, block);
}

/* IQ4_XS: f16 d, u16 of the scales' high 2 bits, 4 bytes of their low nibbles, eight sub-blocks of 16 nibble pairs. */
void sl_pack_iq4_xs(const uint8_t *block, void *unit, int lane)
{
    sl_unit_iq4_xs *u = unit;
    memcpy(&u->d[lane], block, 2);
    memcpy(&u->high[lane], block + 2, 2);
    for (int g = 0; g < SL_SUPER_GROUPS; g++)
        put_nibbles(u->lines[g], lane, block + 8 + 16 * g);
    for (int g = 0; g < SL_SUPER_GROUPS / 2; g++)
        u->low[g][lane] = (uint8_t)((block[4 + g / 2] >> g % 2 * 4 & 15) | (block[6 + g / 2] >> g % 2 * 4 & 15) << 4);
}

void sl_unpack_iq4_xs(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_iq4_xs *u = unit;
    memcpy(block, &u->d[lane], 2);
    memcpy(block + 2, &u->high[lane], 2);
    memset(block + 4, 0, 4);
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        get_nibbles(u->lines[g], lane, block + 8 + 16 * g);
        block[4 + g / 2] |= (uint8_t)((u->low[g % 4][lane] >> g / 4 * 4 & 15) << g % 2 * 4);
    }
}

/* MXFP4: exponent e, 16 nibble pairs. */
void sl_pack_mxfp4(const uint8_t *block, void *unit, int lane)
{
    sl_unit_mxfp4 *u = unit;
    u->e[lane] = block[0];
    put_nibbles(u->lines, lane, block + 1);
}

void sl_unpack_mxfp4(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_mxfp4 *u = unit;
    block[0] = u->e[lane];
    get_nibbles(u->lines, lane, block + 1);
}
