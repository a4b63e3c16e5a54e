/* Pool of KV blocks of one layer group: physical blocks are indices, each with a count of who holds it. */
#ifndef SL_ENGINE_BLOCKS_H
#define SL_ENGINE_BLOCKS_H

#include "base/status.h"

#define SL_NO_BLOCK UINT32_MAX

typedef struct sl_blocks {
    uint32_t *free; /* stack of free blocks */
    uint32_t *refs; /* of each block: the block tables and the prefix tree that hold it; 0 = free */
    uint32_t n_free, n_blocks;
} sl_blocks;

/* All n_blocks free; handed out in rising order, or in an order that shuffle_seed (not 0) decides. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_blocks_open(sl_blocks *blocks, uint32_t n_blocks, uint64_t shuffle_seed, sl_err *err);
void sl_blocks_close(sl_blocks *blocks);

/* A free block with one holder; the caller has made sure that there is one. */
uint32_t sl_blocks_take(sl_blocks *blocks);

/* One more holder of a block that is held. */
void sl_blocks_share(sl_blocks *blocks, uint32_t block);

/* One holder less; the last one frees it. Returns how many are left. */
uint32_t sl_blocks_drop(sl_blocks *blocks, uint32_t block);

#endif
