/* What the engine tells the scheduler of its sequences, and keeps of it between steps. */
#ifndef SL_ENGINE_TASKS_H
#define SL_ENGINE_TASKS_H

#include "engine/forecast.h"
#include "engine/sequence.h"

typedef struct sl_tasks {
    sl_schedule schedule;
    sl_cost cost;
    sl_tenants tenants;
    /* The step in progress: the running sequences in their order, then the waiting ones. */
    sl_task *tasks;
    sl_sequence **sequences; /* of each task */
    uint32_t *order;         /* of the tasks; as many again for scratch */
    sl_forecast_slot *slots; /* 2 * options.n_slots */
    uint32_t n, capacity;
    /* Answers that could have stopped before their most tokens: how many did, and draws of tokens, both fading. */
    double n_stops, n_draws;
} sl_tasks;

/* options: the engine's, with its defaults filled in. SL_ERR_NOMEM, SL_ERR_ARGUMENT. */
SL_WARN_UNUSED sl_status sl_tasks_open(sl_tasks *tasks, const sl_plan *plan, const sl_engine_options *options,
                                       int n_threads, sl_err *err);
void sl_tasks_close(sl_tasks *tasks);

/* A new sequence: its tenant is noted, and there is room for n_sequences tasks from now on. SL_ERR_NOMEM,
 * SL_ERR_ARGUMENT. Each that entered leaves once. */
SL_WARN_UNUSED sl_status sl_tasks_enter(sl_tasks *tasks, sl_sequence *sequence, uint32_t n_sequences, sl_err *err);
void sl_tasks_leave(sl_tasks *tasks, const sl_sequence *sequence);

/* Makes tasks of all sequences and their order. extra (may be NULL): one more, which only waits. */
void sl_tasks_gather(sl_tasks *tasks, sl_sequence *running, sl_sequence *waiting, sl_sequence *extra, int64_t now_us);

/* Task i again, after its sequence got on without being computed: it found a prefix. */
void sl_tasks_update(sl_tasks *tasks, uint32_t i);

/* Sets n_to_come of the gathered tasks to the tokens that answers are expected to have still: each draw of a token ends an
 * answer that has stop tokens as often as draws have done lately. Until then it is the most that they may have. */
void sl_tasks_expect(sl_tasks *tasks);

/* The task that was made of a sequence, which must be among them. */
sl_task *sl_tasks_of(const sl_tasks *tasks, const sl_sequence *sequence);

/* Whether a keeps its blocks rather than b; the same at any time but for pre-emptions of one of them. */
bool sl_tasks_outranks(const sl_tasks *tasks, const sl_sequence *a, const sl_sequence *b);

#endif
