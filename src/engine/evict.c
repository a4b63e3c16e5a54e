#include "engine/evict.h"

#include <stdlib.h>
#include <string.h>

static const uint32_t nowhere = UINT32_MAX;

sl_status sl_evict_open(sl_evict *e, uint32_t n_items, sl_err *err)
{
    *e = (sl_evict){.heap = calloc((size_t)n_items + 1, sizeof *e->heap),
                    .place = malloc(((size_t)n_items + 1) * sizeof *e->place),
                    .worth = calloc((size_t)n_items + 1, sizeof *e->worth),
                    .n_items = n_items};
    if (!e->heap || !e->place || !e->worth) {
        sl_evict_close(e);
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for the order of %u cached blocks", n_items);
    }
    memset(e->place, 0xff, ((size_t)n_items + 1) * sizeof *e->place);
    return SL_OK;
}

void sl_evict_close(sl_evict *e)
{
    free(e->heap);
    free(e->place);
    free(e->worth);
    *e = (sl_evict){0};
}

static bool goes_before(const sl_evict *e, uint32_t a, uint32_t b)
{
    const sl_evict_worth *x = &e->worth[a], *y = &e->worth[b];
    return x->worth != y->worth ? x->worth < y->worth : x->stamp < y->stamp;
}

static void put(sl_evict *e, uint32_t at, uint32_t item)
{
    e->heap[at] = item;
    e->place[item] = at;
}

/* Moves the item at a place to where it belongs. */
static void settle(sl_evict *e, uint32_t at)
{
    uint32_t item = e->heap[at];
    for (; at > 0 && goes_before(e, item, e->heap[(at - 1) / 2]); at = (at - 1) / 2)
        put(e, at, e->heap[(at - 1) / 2]);
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < e->n && goes_before(e, e->heap[child + 1], e->heap[child]))
            child++;
        if (child >= e->n || !goes_before(e, e->heap[child], item))
            break;
        put(e, at, e->heap[child]);
        at = child;
    }
    put(e, at, item);
}

void sl_evict_value(sl_evict *e, uint32_t item, uint64_t cost)
{
    SL_ASSERT(item < e->n_items && e->place[item] == nowhere);
    e->worth[item] = (sl_evict_worth){.worth = e->floor + cost, .stamp = ++e->last_stamp};
}

void sl_evict_offer(sl_evict *e, uint32_t item)
{
    if (e->place[item] != nowhere)
        return;
    put(e, e->n++, item);
    settle(e, e->n - 1);
}

void sl_evict_withdraw(sl_evict *e, uint32_t item)
{
    uint32_t at = e->place[item];
    if (at == nowhere)
        return;
    e->place[item] = nowhere;
    uint32_t last = e->heap[--e->n];
    if (at == e->n)
        return;
    put(e, at, last);
    settle(e, at);
}

bool sl_evict_pop(sl_evict *e, uint32_t *item)
{
    if (e->n == 0)
        return false;
    *item = e->heap[0];
    e->floor = SL_MAX(e->floor, e->worth[*item].worth);
    sl_evict_withdraw(e, *item);
    return true;
}
