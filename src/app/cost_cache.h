/* What engines learned of the time their steps take, kept between starts: a small text for each machine and model in the
 * folder of packed weights (file/pack_cache.h). */
#ifndef SL_APP_COST_CACHE_H
#define SL_APP_COST_CACHE_H

#include "engine/cost.h"
#include "file/pack_cache.h"

/* *cost has been initialised (sl_cost_init) for the plan and threads at hand: takes over what is saved for the same. What is
 * missing, damaged or of something else is ignored. False when nothing was taken over. */
bool sl_cost_cache_load(const sl_pack_cache_options *options, sl_cost *cost);

/* Saves it when it has seen enough steps to be worth it. Failing does no harm. */
void sl_cost_cache_save(const sl_pack_cache_options *options, const sl_cost *cost);

#endif
