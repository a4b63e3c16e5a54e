#include "engine/blocks.h"

#include <stdlib.h>

/* SplitMix64 (Steele, Lea and Flood 2014). */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

sl_status sl_blocks_open(sl_blocks *blocks, uint32_t n_blocks, uint64_t shuffle_seed, sl_err *err)
{
    *blocks = (sl_blocks){.free = malloc(((size_t)n_blocks + 1) * sizeof *blocks->free),
                          .refs = calloc((size_t)n_blocks + 1, sizeof *blocks->refs),
                          .n_blocks = n_blocks};
    if (!blocks->free || !blocks->refs) {
        sl_blocks_close(blocks);
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a pool of %u KV blocks", n_blocks);
    }
    for (uint32_t i = 0; i < n_blocks; i++)
        blocks->free[i] = n_blocks - 1 - i;
    for (uint32_t i = n_blocks; shuffle_seed && i > 1; i--) {
        uint32_t j = (uint32_t)(next_random(&shuffle_seed) % i), t = blocks->free[i - 1];
        blocks->free[i - 1] = blocks->free[j];
        blocks->free[j] = t;
    }
    blocks->n_free = n_blocks;
    return SL_OK;
}

void sl_blocks_close(sl_blocks *blocks)
{
    free(blocks->free);
    free(blocks->refs);
    *blocks = (sl_blocks){0};
}

uint32_t sl_blocks_take(sl_blocks *blocks)
{
    SL_ASSERT(blocks->n_free > 0);
    uint32_t block = blocks->free[--blocks->n_free];
    blocks->refs[block] = 1;
    return block;
}

void sl_blocks_share(sl_blocks *blocks, uint32_t block)
{
    SL_ASSERT(block < blocks->n_blocks && blocks->refs[block] > 0);
    blocks->refs[block]++;
}

uint32_t sl_blocks_drop(sl_blocks *blocks, uint32_t block)
{
    SL_ASSERT(block < blocks->n_blocks && blocks->refs[block] > 0);
    if (--blocks->refs[block] == 0)
        blocks->free[blocks->n_free++] = block;
    return blocks->refs[block];
}
