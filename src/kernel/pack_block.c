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
    uint8_t high[4] = {0};
    for (int c = 0; c < SL_GROUP; c++)
        high[c % 4] |= (uint8_t)((block[2 + c / 8] >> c % 8 & 1) << c / 4);
    memcpy(u->high + 4 * lane, high, 4);
    put_nibbles(u->lines, lane, block + 6);
}

void sl_unpack_q5_0(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q5_0 *u = unit;
    memcpy(block, &u->d[lane], 2);
    memset(block + 2, 0, 4);
    for (int c = 0; c < SL_GROUP; c++)
        block[2 + c / 8] |= (uint8_t)((u->high[4 * lane + c % 4] >> c / 4 & 1) << c % 8);
    get_nibbles(u->lines, lane, block + 6);
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

/* Q4_K's 12 bytes: sub-blocks 0-3 keep sc in the low 6 bits of byte g and mn in those of byte g + 4; sub-blocks 4-7
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

/* Q4_K: f16 d, f16 dmin, 12 bytes of scales, 128 bytes: each 32 hold sub-block 2 k (low) and 2 k + 1 (high). */
void sl_pack_q4_k(const uint8_t *block, void *unit, int lane)
{
    sl_unit_q4_k *u = unit;
    memcpy(&u->d[lane], block, 2);
    memcpy(&u->dmin[lane], block + 2, 2);
    for (int g = 0; g < SL_SUPER_GROUPS / 2; g++)
        u->high[g][lane] = 0;
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        const uint8_t *qs = block + 16 + 32 * (g / 2);
        int shift = g % 2 * 4;
        uint8_t pairs[16];
        for (int e = 0; e < 16; e++)
            pairs[e] = (uint8_t)((qs[e] >> shift & 15) | (qs[e + 16] >> shift & 15) << 4);
        put_nibbles(u->lines[g], lane, pairs);
        unsigned sc, mn;
        get_scale_min(block + 4, g, &sc, &mn);
        u->low[g][lane] = (uint8_t)((sc & 15) | (mn & 15) << 4);
        u->high[g % 4][lane] |= (uint8_t)((sc >> 4 | mn >> 4 << 2) << g / 4 * 4);
    }
}

void sl_unpack_q4_k(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q4_k *u = unit;
    memcpy(block, &u->d[lane], 2);
    memcpy(block + 2, &u->dmin[lane], 2);
    memset(block + 4, 0, 140);
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        uint8_t *qs = block + 16 + 32 * (g / 2), pairs[16];
        int shift = g % 2 * 4;
        get_nibbles(u->lines[g], lane, pairs);
        for (int e = 0; e < 16; e++) {
            qs[e] |= (uint8_t)((pairs[e] & 15) << shift);
            qs[e + 16] |= (uint8_t)(pairs[e] >> 4 << shift);
        }
        unsigned low = u->low[g][lane], high = (unsigned)u->high[g % 4][lane] >> g / 4 * 4;
        put_scale_min(block + 4, g, (low & 15) | (high & 3) << 4, low >> 4 | (high >> 2 & 3) << 4);
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
        const uint8_t *ql = block + g / 4 * 64 + n % 2 * 32, *qh = block + 128 + g / 4 * 32;
        uint8_t pairs[16], high[2][4] = {{0}};
        for (int e = 0; e < 16; e++)
            pairs[e] = (uint8_t)((ql[e] >> n / 2 * 4 & 15) | (ql[e + 16] >> n / 2 * 4 & 15) << 4);
        for (int e = 0; e < SL_GROUP; e++)
            high[e / 16][e % 4] |= (uint8_t)((qh[e] >> 2 * n & 3) << e % 16 / 4 * 2);
        put_nibbles(u->group[g].lines, lane, pairs);
        for (int h = 0; h < 2; h++) {
            memcpy(u->group[g].high[h] + 4 * lane, high[h], 4);
            u->sc[g][h][lane] = (int8_t)block[192 + 2 * g + h];
        }
    }
}

void sl_unpack_q6_k(const void *unit, int lane, uint8_t *block)
{
    const sl_unit_q6_k *u = unit;
    memset(block, 0, 192);
    memcpy(block + 208, &u->d[lane], 2);
    for (int g = 0; g < SL_SUPER_GROUPS; g++) {
        int n = g % 4;
        uint8_t *ql = block + g / 4 * 64 + n % 2 * 32, *qh = block + 128 + g / 4 * 32, pairs[16];
        get_nibbles(u->group[g].lines, lane, pairs);
        for (int e = 0; e < 16; e++) {
            ql[e] |= (uint8_t)((pairs[e] & 15) << n / 2 * 4);
            ql[e + 16] |= (uint8_t)(pairs[e] >> 4 << n / 2 * 4);
        }
        for (int e = 0; e < SL_GROUP; e++)
            qh[e] |= (uint8_t)((u->group[g].high[e / 16][4 * lane + e % 4] >> e % 16 / 4 * 2 & 3) << 2 * n);
        for (int h = 0; h < 2; h++)
            block[192 + 2 * g + h] = (uint8_t)u->sc[g][h][lane];
    }
}
