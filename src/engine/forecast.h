/* How long a request will wait: the scheduler played forward by the cost model, step by step where something changes and
 * in one go where steps are alike.
 *
 * What runs goes on, what waits starts in the given order as slots become free, streams get a row a step, prompts what the
 * step's limit leaves, as in sl_schedule_share. So time is charged once: a prompt makes the streams' steps longer, and the
 * streams take of the prompt's steps what their rows cost. A stream attends what it will at the middle of what is still to
 * come of it. Not played: memory that runs out, cached prefixes of what waits, tasks that are pushed out, ageing turns to
 * come, and that targets may hold back a start.
 *
 * Its time grows with the number of requests ahead, not with their tokens. */
#ifndef SL_ENGINE_FORECAST_H
#define SL_ENGINE_FORECAST_H

#include "engine/schedule.h"

/* A running task while it is played: its prompt, then the stream or streams that it becomes. */
typedef struct sl_forecast_slot {
    uint32_t index, rank;    /* of the task, and its place in the order */
    uint32_t n_choices;      /* slots that it takes */
    uint32_t n_done, n_left; /* of its prompt */
    uint32_t n_wanted;       /* of the last of n_left (sl_cost_wanted) */
    uint32_t n_rows;         /* of the prompt in the step at hand */
    uint64_t end;            /* streams: the step after which they end */
    sl_step_work work;       /* streams: one row of each */
} sl_forecast_slot;

/* Time in microseconds from now to the first token of tasks[index], a waiting one, if nothing else arrives. order: all n
 * tasks, as sl_schedule_order left it; n_choices and n_to_come of the tasks count. slots: 2 * n_slots of scratch. */
double sl_forecast_us(const sl_schedule *schedule, const sl_cost *cost, const sl_task *tasks, uint32_t n,
                      const uint32_t *order, uint32_t index, int64_t now_us, sl_forecast_slot *slots);

#endif
