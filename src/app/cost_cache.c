#include "app/cost_cache.h"

#include <inttypes.h>
#include <stdio.h>

enum { NAME_BYTES = 32, LEAST_STEPS = 64 };

static void name_file(const sl_cost *cost, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "cost-%016" PRIx64 ".txt", cost->key);
}

bool sl_cost_cache_load(const sl_pack_cache_options *options, sl_cost *cost)
{
    char name[NAME_BYTES], text[SL_COST_TEXT_BYTES];
    name_file(cost, name);
    size_t n = sl_pack_cache_read_text(options, name, text, sizeof text);
    return n > 0 && sl_cost_read(cost, text, n);
}

void sl_cost_cache_save(const sl_pack_cache_options *options, const sl_cost *cost)
{
    char name[NAME_BYTES], text[SL_COST_TEXT_BYTES];
    if (cost->n_observed < LEAST_STEPS)
        return;
    name_file(cost, name);
    (void)sl_pack_cache_write_text(options, name, text, sl_cost_write(cost, text));
}
