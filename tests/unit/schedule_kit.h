/* A cost model with round figures, for tests of the scheduler: 2 ms for the first row, 1 ms for each other, 1 us for each
 * position attended. Predictions are exact (no spread). */
#ifndef SCHEDULE_KIT_H
#define SCHEDULE_KIT_H

#include "engine/schedule.h"

static inline sl_cost kit_cost(void)
{
    sl_cost cost = {.n_groups = 1, .share = {1}, .n_parts = 1, .first_part = 1, .group_parts = {1}};
    for (int i = 0; i < SL_COST_TERMS; i++)
        cost.m[i] = 1;
    for (int i = 0; i < SL_COST_ROW_TERMS; i++)
        cost.prior_us[i] = i == 0 ? 2000 : 1000;
    cost.prior_us[SL_COST_ROW_TERMS + SL_COST_WANTED_TERMS] = 1;
    return cost;
}

/* Cuts its plan into n parts, all alike. */
static inline void kit_cut(sl_cost *cost, uint32_t n)
{
    cost->n_parts = cost->group_parts[0] = n;
    cost->first_part = cost->last_part = 1.0 / n;
}

#endif
