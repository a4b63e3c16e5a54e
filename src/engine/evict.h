/* Which cached block goes first. GreedyDual (Young, "The k-server dual and loose competitiveness for paging", 1994): a
 * block is worth the cost of making it again on top of a floor that rises to the worth of whatever was evicted last. So
 * what is expensive stays longer, and what nobody asked for in a long time goes whatever it cost. */
#ifndef SL_ENGINE_EVICT_H
#define SL_ENGINE_EVICT_H

#include "base/status.h"

typedef struct sl_evict_worth {
    uint64_t worth, stamp; /* equal worth: the older stamp goes first */
} sl_evict_worth;

/* Items are numbers below n_items. A heap holds those that may be evicted; the others keep their worth. */
typedef struct sl_evict {
    uint32_t *heap;        /* least worth first */
    uint32_t *place;       /* of each item in the heap; UINT32_MAX = not in it */
    sl_evict_worth *worth; /* of each item */
    uint32_t n, n_items;
    uint64_t floor, last_stamp;
} sl_evict;

SL_WARN_UNUSED sl_status sl_evict_open(sl_evict *evict, uint32_t n_items, sl_err *err); /* SL_ERR_NOMEM */
void sl_evict_close(sl_evict *evict);

/* The item, not in the heap, was used just now and costs this much to make again. */
void sl_evict_value(sl_evict *evict, uint32_t item, uint64_t cost);

/* Offers an item for eviction, or withdraws it; nothing happens where that is so already. */
void sl_evict_offer(sl_evict *evict, uint32_t item);
void sl_evict_withdraw(sl_evict *evict, uint32_t item);

/* Takes the offered item of least worth out; false when there is none. */
SL_WARN_UNUSED bool sl_evict_pop(sl_evict *evict, uint32_t *item);

#endif
