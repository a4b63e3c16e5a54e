/* The scheduler's rules, as functions on plain structs: no memory, no clock, no engine. step.c asks them.
 *
 * How a step asks:
 *
 *   1. It fills an sl_task for each sequence that runs or waits, and calls sl_schedule_order: order[] are the indices of
 *      all tasks, the next to be served first. Decoding tasks come first; they all get their row anyway.
 *   2. It walks order[]; a waiting task starts when sl_schedule_may_start says so and there is memory for it, and may
 *      push out running ones of lower priority for that (sl_schedule_may_push_out). At the first that can't start it
 *      stops, so that nobody overtakes by being small.
 *   3. sl_schedule_share sets n_rows of the running tasks: one for each that decodes, then prompt chunks in order as far
 *      as the step's time limit allows.
 *   4. Where blocks run out, those of the running task are taken that all others outrank (sl_schedule_outranks).
 *   5. After the step: sl_cost_observe with the work done and the time it took, sl_tenants_charge for each task's rows.
 *
 * The order of what is not decoding:
 *   - the ageing turn, when it is due (below);
 *   - priority, higher first;
 *   - requests whose deadline can be met, earliest deadline first. Which those are is found as by Moore and Hodgson
 *     (Moore 1968): deadlines in order, and whenever one would be missed, the longest work so far is given up, which
 *     leaves the most deadlines met. Work of tenants more than their share ahead is given up first;
 *   - all others, without a deadline or beyond it: by start tags of fair queueing between tenants (tenants.h);
 *   - arrival.
 *
 * Nothing starves. A task that has waited ageing_us since it arrived is overdue; after ageing_turn steps that computed
 * prompts, the one that is longest overdue goes first, before every priority, and nobody else starts until it has got
 * rows. So a request waits at most ageing_us, and then (ageing_turn + 1) steps for each step that it and those overdue
 * before it need, and one answer's length where all slots are taken; and once until layered rows that are under way are
 * through (below): (ageing_turn + 1) steps for each part that they still have, at worst.
 *
 * The time of a step with prompts is limited for the sake of the streams that decode beside them:
 *   - a stream with an ITL target must have its token in time: the limit is what is left of the target, less the margin
 *     of sl_cost_with_margin. Targets that not even decoding alone can meet do not count.
 *   - without a target, itl_factor to the power of the number of prompts that run, times a step that decodes all running
 *     sequences. One prompt: the p99 of ITL stays within twice what it is without prompts. (With factor f, prompts get
 *     1 - 1/f of the time, and a row costs nearly what it costs in full chunks, in chunks of its own or in layers (below),
 *     so a prompt alone against streams takes little more than its time alone / (1 - the streams' share).) Several hold
 *     as many slots from which no token comes: all steps meanwhile have smaller batches, and what a step costs whatever
 *     its rows is paid more often. So they are computed the faster the more there are, from about five on in full
 *     chunks: what is lost to the machine that only ever fills its chunks stays within 3 %, where a factor that grows
 *     by 0.2 for each prompt, up to 3, lost up to 8 % in a model of it. Prompts that wait for a slot do not count:
 *     it is streams that they wait for.
 *     As long as the cost model has not seen steps like these, they may be longer than it says, by twice what it doubts
 *     (sl_cost_doubt): too low a guess would cut the first prompts into small chunks, where nobody was promised anything.
 * A chunk of few rows is dear: however few they are, all keys and values before them are read. So where one prompt runs and
 * the limit leaves it few rows, more of them (up to a tile of attention) go through the layers in several steps, as many
 * layers in each as the limit allows, while the streams go through all of them in every step. Nothing else is computed of
 * a prompt meanwhile, whatever its rank. (Layered prefill: Lee et al. 2025, arXiv 2510.08055, who spare experts' weights by it.)
 *   If that leaves no row for a prompt for ageing_turn steps, it gets one KV block of rows all the same; layered rows that
 * are under way as many parts as that costs, at least one. */
#ifndef SL_ENGINE_SCHEDULE_H
#define SL_ENGINE_SCHEDULE_H

#include "engine/cost.h"
#include "engine/tenants.h"
#include "graph/backend.h"

typedef enum sl_batching {
    SL_BATCHING_CONTINUOUS, /* requests join and leave at every step */
    SL_BATCHING_STATIC,     /* what waits when nothing runs becomes the batch; nobody joins until all of it has ended */
    SL_BATCHING_DYNAMIC,    /* the same, but the batch waits until it is full or its first has waited max_wait_us */
} sl_batching;

typedef struct sl_schedule_options {
    sl_batching batching;
    int64_t max_wait_us;  /* DYNAMIC */
    uint32_t n_slots;     /* most sequences that run */
    uint32_t max_rows;    /* of a step */
    int64_t ageing_us;    /* waiting longer than this is overdue */
    uint32_t ageing_turn; /* steps with prompts between two turns of overdue tasks */
    /* Streams without an ITL target: a step with one prompt takes at most this many times a decoding one; above 1,
     * INFINITY: no limit */
    double itl_factor;
    uint32_t most_preemptions; /* of one sequence, before it goes ahead of all that were pre-empted less often */
} sl_schedule_options;

/* continuous, 1 slot, 512 rows, 30 s, every 8th step, factor 1.8, 4 pre-emptions */
sl_schedule_options sl_schedule_options_default(void);

typedef struct sl_schedule {
    sl_schedule_options options;
    uint32_t turn; /* steps with prompts since the last ageing turn */
    uint32_t dry;  /* steps in which the time limit left no row for the prompts that run */
} sl_schedule;

/* What the scheduler knows of a sequence. */
typedef struct sl_task {
    uint64_t id; /* in order of arrival */
    uint32_t tenant;
    int32_t priority;                      /* higher is served first */
    int64_t arrived_us;                    /* never later than that of a task with a higher id */
    int64_t last_us;                       /* of its last token */
    int64_t ttft_target_us, itl_target_us; /* 0 = none */
    uint32_t n_done, n_left; /* positions whose KV is there; that are still to be computed for its next token */
    uint32_t n_generated;
    uint32_t n_wanted;      /* of the last of n_left: their logits are computed; 0 = 1 */
    uint32_t n_choices;     /* sequences it becomes when its prompt is computed; 0 = 1 */
    uint32_t n_to_come;     /* tokens that each is expected to generate still */
    uint32_t n_preemptions; /* so far */
    uint32_t n_layered,
        n_parts_done; /* rows from n_done on that have gone through so many parts of the plan; 0 = none */
    bool whole;       /* its rows are not to be layered */
    bool running;
    /* set by sl_schedule_order */
    int64_t deadline_us; /* of its next token; INT64_MAX = none */
    bool feasible, ageing;
    double prefill_us, key; /* work of its own, where any has a deadline; scratch */
    /* set by sl_schedule_share */
    uint32_t n_rows;
    uint32_t
        until_part; /* n_rows are layered and go through the parts before this one; 0: they go through everything */
} sl_task;

/* A running task whose next token needs one row. */
static inline bool sl_task_decodes(const sl_task *task)
{
    return task->running && task->n_generated > 0 && task->n_left == 1;
}

/* order[0..n) = indices of all tasks, next first; scratch: n more indices. Tags of tenants change. */
void sl_schedule_order(const sl_schedule *schedule, const sl_cost *cost, sl_tenants *tenants, sl_task *tasks,
                       uint32_t n, int64_t now_us, uint32_t *order, uint32_t *scratch);

/* Whether the waiting task may begin to run, given the running ones (memory is the caller's to check): there is a slot,
 * and the ITL targets of all would hold with one more stream. In the modes STATIC and DYNAMIC only between a
 * sl_schedule_opens_batch that said true and the end of that step's starts. */
bool sl_schedule_may_start(const sl_schedule *schedule, const sl_cost *cost, const sl_task *tasks, uint32_t n,
                           const sl_task *task);

/* Whether a running task may be pre-empted so that the waiting one can start: it has a lower priority, not the ageing
 * turn, and was not pre-empted most_preemptions times. Those that may be pushed out rank last (sl_schedule_outranks), so
 * the caller takes them from the end, as few as it needs, and none where all of them would not do. Each task is pushed
 * out most_preemptions times at most once it has computed anything, and the highest priority never: no livelock. */
bool sl_schedule_may_push_out(const sl_schedule *schedule, const sl_task *waiting, const sl_task *running);

/* Modes STATIC and DYNAMIC, before tasks are started: whether a batch begins now. CONTINUOUS: always true. When it is
 * false nothing may start in this step. */
bool sl_schedule_opens_batch(const sl_schedule *schedule, const sl_task *tasks, uint32_t n, int64_t now_us);

/* The most time of a step beside streams that have no ITL target, with n_prompts prompts running; all: a row of each running
 * task. */
double sl_schedule_usual_us(const sl_schedule *schedule, const sl_cost *cost, const sl_step_work *all,
                            uint32_t n_prompts);

/* The most time that the step may take, by the running tasks; INFINITY when nothing decodes. */
double sl_schedule_limit_us(const sl_schedule *schedule, const sl_cost *cost, const sl_task *tasks, uint32_t n,
                            int64_t now_us);

/* Asked for n_rows rows of tasks[index]: returns how many there is memory for, which may be none. */
typedef uint32_t sl_grant_fn(void *user, uint32_t index, uint32_t n_rows);

/* Sets n_rows of all tasks (0 for those that wait); returns the predicted time in microseconds. Decoding tasks are granted
 * theirs in the order of the array. grant NULL: all that is asked for. */
double sl_schedule_share(sl_schedule *schedule, const sl_cost *cost, sl_task *tasks, uint32_t n, const uint32_t *order,
                         int64_t now_us, sl_grant_fn *grant, void *user);

/* Layered rows of a prompt at `position`, of which n_left are still to be computed, in a step with this work and limit. */
typedef struct sl_layered {
    uint32_t n_rows;  /* 0: as many rows as fit through all layers do as well */
    uint32_t n_parts; /* that they go through in the step */
} sl_layered;
sl_layered sl_schedule_layered(const sl_schedule *schedule, const sl_cost *cost, const sl_step_work *work,
                               uint32_t position, uint32_t n_left, double limit_us);

/* Whether a keeps its KV blocks rather than b when there are not enough: higher priority, then earlier arrival. A task
 * pre-empted most_preemptions times ranks above all that were not, among its like by arrival. Only who ranks above may
 * take another's blocks: so each task makes way a bounded number of times, and the first never does: no livelock. */
bool sl_schedule_outranks(const sl_schedule *schedule, const sl_task *a, const sl_task *b);

#endif
