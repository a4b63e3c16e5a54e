#include "engine/schedule.h"

#include <math.h>

static const double most_slowdown = 10; /* of prompts, where targets leave them hardly anything */

sl_schedule_options sl_schedule_options_default(void)
{
    return (sl_schedule_options){.n_slots = 1,
                                 .max_rows = 512,
                                 .ageing_us = 30000000,
                                 .ageing_turn = 8,
                                 .itl_factor = 1.8,
                                 .most_preemptions = 4};
}

/* ---- heaps of indices, by the tasks they stand for ---- */

typedef bool before_fn(const sl_task *a, const sl_task *b);

static void sift_down(const sl_task *tasks, uint32_t *heap, uint32_t n, uint32_t i, before_fn *before)
{
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        child += child + 1 < n && before(&tasks[heap[child]], &tasks[heap[child + 1]]);
        if (!before(&tasks[heap[i]], &tasks[heap[child]]))
            return;
        uint32_t t = heap[i];
        heap[i] = heap[child];
        heap[child] = t;
    }
}

static void sift_up(const sl_task *tasks, uint32_t *heap, uint32_t i, before_fn *before)
{
    for (uint32_t parent; i > 0 && (parent = (i - 1) / 2, before(&tasks[heap[parent]], &tasks[heap[i]])); i = parent) {
        uint32_t t = heap[i];
        heap[i] = heap[parent];
        heap[parent] = t;
    }
}

/* Heapsort: in place, and the C library's qsort may allocate. Often all are in order already. */
static void sort(const sl_task *tasks, uint32_t *order, uint32_t n, before_fn *before)
{
    uint32_t n_sorted = SL_MIN(n, 1);
    while (n_sorted < n && !before(&tasks[order[n_sorted]], &tasks[order[n_sorted - 1]]))
        n_sorted++;
    if (n_sorted == n)
        return;
    for (uint32_t i = n / 2; i-- > 0;)
        sift_down(tasks, order, n, i, before);
    for (uint32_t end = n; end > 1; end--) {
        uint32_t t = order[0];
        order[0] = order[end - 1];
        order[end - 1] = t;
        sift_down(tasks, order, end - 1, 0, before);
    }
}

/* ---- the order ---- */

static bool by_arrival(const sl_task *a, const sl_task *b)
{
    return a->id < b->id;
}

static bool by_deadline(const sl_task *a, const sl_task *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
    return a->deadline_us != b->deadline_us ? a->deadline_us < b->deadline_us : a->id < b->id;
}

/* Which work is given up first when not all deadlines can be met; key says 1 for a tenant that is ahead. */
static bool by_worth(const sl_task *a, const sl_task *b)
{
    if (a->key != b->key)
        return a->key < b->key;
    return a->prefill_us != b->prefill_us ? a->prefill_us < b->prefill_us : a->id < b->id;
}

/* The order itself; key is the start tag of fair queueing. */
static bool comes_first(const sl_task *a, const sl_task *b)
{
    bool a_decodes = sl_task_decodes(a), b_decodes = sl_task_decodes(b);
    if (a_decodes != b_decodes)
        return a_decodes;
    if (a->ageing != b->ageing)
        return a->ageing;
    if (a->priority != b->priority)
        return a->priority > b->priority;
    if (a->feasible != b->feasible)
        return a->feasible;
    if (a->feasible && a->deadline_us != b->deadline_us)
        return a->deadline_us < b->deadline_us;
    if (!a->feasible && a->key != b->key)
        return a->key < b->key;
    return a->id < b->id;
}

static int64_t next_deadline(const sl_task *task)
{
    if (task->n_generated > 0)
        return task->itl_target_us > 0 ? task->last_us + task->itl_target_us : INT64_MAX;
    return task->ttft_target_us > 0 ? task->arrived_us + task->ttft_target_us : INT64_MAX;
}

/* The one whose ageing turn it is, if any: the longest overdue. */
static void give_ageing_turn(const sl_schedule *schedule, sl_task *tasks, uint32_t n, int64_t now_us)
{
    sl_task *oldest = NULL;
    for (uint32_t i = 0; i < n; i++)
        if (!sl_task_decodes(&tasks[i]) && now_us - tasks[i].arrived_us >= schedule->options.ageing_us &&
            (!oldest || tasks[i].id < oldest->id))
            oldest = &tasks[i];
    if (oldest && schedule->turn >= schedule->options.ageing_turn)
        oldest->ageing = true;
}

/* Work of one decoding row for each running task. With only_decoding, those of tasks that do decode; otherwise also those
 * of tasks that will, at no position, since what they attend is not yet there. */
static sl_step_work decode_work(const sl_cost *cost, const sl_task *tasks, uint32_t n, bool only_decoding)
{
    sl_step_work work = {0};
    for (uint32_t i = 0; i < n; i++)
        if (sl_task_decodes(&tasks[i]))
            sl_cost_add(cost, &work, tasks[i].n_done, 1, 1);
        else if (tasks[i].running && !only_decoding)
            sl_cost_add(cost, &work, 0, 1, 1);
    return work;
}

/* How many times a decoding step a step with so many prompts may take for streams without a target. */
static double step_factor(const sl_schedule *schedule, uint32_t n_prompts)
{
    return pow(schedule->options.itl_factor, SL_MAX(n_prompts, 1));
}

/* What a stretch of prefill takes beside the streams, as a multiple of what it takes alone: steps are as long as the
 * streams' targets allow, or the factor with all prompts running that there are slots for, or a full chunk. */
static double slowdown(const sl_schedule *schedule, const sl_cost *cost, const sl_task *tasks, uint32_t n)
{
    const sl_schedule_options *o = &schedule->options;
    sl_step_work streams = decode_work(cost, tasks, n, true), full = streams;
    if (streams.n_rows == 0)
        return 1;
    uint32_t n_free = o->n_slots - SL_MIN(streams.n_rows, o->n_slots);
    double alone_us = sl_cost_predict_us(cost, &streams);
    double usual_us = step_factor(schedule, SL_MIN(n - streams.n_rows, n_free)) * alone_us;
    sl_cost_add(cost, &full, 0, o->max_rows, 1);
    double step_us = sl_cost_predict_us(cost, &full);
    for (uint32_t i = 0; i < n; i++) {
        double target_us = sl_cost_with_margin(cost, (double)tasks[i].itl_target_us);
        if (sl_task_decodes(&tasks[i]))
            step_us = fmin(step_us, target_us > alone_us ? target_us : usual_us);
    }
    return fmin(step_us / (step_us - alone_us), most_slowdown);
}

/* Time of the task's own work, were it alone. */
static double prefill_us(const sl_schedule *schedule, const sl_cost *cost, const sl_task *task)
{
    return sl_cost_prefill_us(cost, task->n_done, task->n_left, task->n_wanted, schedule->options.max_rows);
}

/* Moore and Hodgson's rule. order[0..n): not decoding. What has a higher priority is done before, with a deadline or not. */
static void find_feasible(sl_task *tasks, uint32_t n, int64_t now_us, double slower, uint32_t *order, uint32_t *heap)
{
    double busy_us = 0, above_us = 0; /* kept work of this priority, and all work above it */
    uint32_t n_heap = 0;
    sort(tasks, order, n, by_deadline);
    for (uint32_t i = 0; i < n; i++) {
        sl_task *task = &tasks[order[i]];
        if (i > 0 && task->priority != tasks[order[i - 1]].priority) {
            for (uint32_t j = i; j-- > 0 && tasks[order[j]].priority == tasks[order[i - 1]].priority;)
                above_us += slower * tasks[order[j]].prefill_us;
            busy_us = n_heap = 0;
        }
        if (task->deadline_us == INT64_MAX)
            continue;
        task->feasible = true;
        busy_us += slower * task->prefill_us;
        heap[n_heap] = order[i];
        sift_up(tasks, heap, n_heap++, by_worth);
        while (n_heap > 0 && above_us + busy_us > (double)(task->deadline_us - now_us)) {
            tasks[heap[0]].feasible = false;
            busy_us -= slower * tasks[heap[0]].prefill_us;
            heap[0] = heap[--n_heap];
            sift_down(tasks, heap, n_heap, 0, by_worth);
        }
    }
}

/* Start tags: a tenant's requests one behind the other, in the order of their arrival. order[0..n): not decoding. */
static void give_tags(sl_tenants *tenants, sl_task *tasks, uint32_t n, uint32_t *order)
{
    for (uint32_t i = 0; i < tenants->n_tenants; i++)
        tenants->tenants[i].tag = tenants->tenants[i].virtual_time;
    sort(tasks, order, n, by_arrival);
    for (uint32_t i = 0; i < n; i++) {
        sl_task *task = &tasks[order[i]];
        sl_tenant *tenant = &tenants->tenants[task->tenant];
        task->key = tenant->tag;
        tenant->tag += task->n_left / tenant->weight;
    }
}

void sl_schedule_order(const sl_schedule *schedule, const sl_cost *cost, sl_tenants *tenants, sl_task *tasks,
                       uint32_t n, int64_t now_us, uint32_t *order, uint32_t *scratch)
{
    uint32_t n_prefills = 0;
    bool deadlines = false;
    for (uint32_t i = 0; i < n; i++) {
        sl_task *task = &tasks[i];
        task->deadline_us = next_deadline(task);
        task->feasible = task->ageing = false;
        task->key = 0;
        if (sl_task_decodes(task))
            continue;
        order[n_prefills++] = i;
        deadlines |= task->deadline_us < INT64_MAX;
        task->key = sl_tenants_lead(tenants, task->tenant) > schedule->options.max_rows;
    }
    for (uint32_t i = 0; i < n_prefills && deadlines; i++)
        tasks[order[i]].prefill_us = prefill_us(schedule, cost, &tasks[order[i]]);
    if (deadlines)
        find_feasible(tasks, n_prefills, now_us, slowdown(schedule, cost, tasks, n), order, scratch);
    give_tags(tenants, tasks, n_prefills, order);
    give_ageing_turn(schedule, tasks, n, now_us);
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    sort(tasks, order, n, comes_first);
}

/* ---- starting ---- */

bool sl_schedule_opens_batch(const sl_schedule *schedule, const sl_task *tasks, uint32_t n, int64_t now_us)
{
    const sl_schedule_options *o = &schedule->options;
    int64_t waited_us = 0;
    if (o->batching == SL_BATCHING_CONTINUOUS)
        return true;
    for (uint32_t i = 0; i < n; i++) {
        if (tasks[i].running)
            return false;
        waited_us = SL_MAX(waited_us, now_us - tasks[i].arrived_us);
    }
    return o->batching == SL_BATCHING_STATIC || n >= o->n_slots || waited_us >= o->max_wait_us;
}

bool sl_schedule_may_start(const sl_schedule *schedule, const sl_cost *cost, const sl_task *tasks, uint32_t n,
                           const sl_task *task)
{
    uint32_t n_running = 0;
    int64_t least_target = task->itl_target_us > 0 ? task->itl_target_us : INT64_MAX;
    for (uint32_t i = 0; i < n; i++) {
        n_running += tasks[i].running;
        if (tasks[i].running && tasks[i].itl_target_us > 0)
            least_target = SL_MIN(least_target, tasks[i].itl_target_us);
    }
    if (n_running >= schedule->options.n_slots)
        return false;
    if (n_running == 0 || least_target == INT64_MAX || task->ageing)
        return true;
    sl_step_work work = decode_work(cost, tasks, n, false);
    double now = sl_cost_predict_us(cost, &work), limit = sl_cost_with_margin(cost, (double)least_target);
    sl_cost_add(cost, &work, task->n_done + task->n_left, 1, 1);
    return sl_cost_predict_us(cost, &work) <= limit || now > limit; /* a target that is lost already holds nobody up */
}

/* ---- the budget of a step ---- */

double sl_schedule_usual_us(const sl_schedule *schedule, const sl_cost *cost, const sl_step_work *all,
                            uint32_t n_prompts)
{
    return step_factor(schedule, n_prompts) * sl_cost_predict_us(cost, all) * (1 + 2 * sl_cost_doubt(cost, all));
}

double sl_schedule_limit_us(const sl_schedule *schedule, const sl_cost *cost, const sl_task *tasks, uint32_t n,
                            int64_t now_us)
{
    sl_step_work decoding = decode_work(cost, tasks, n, true), all = decode_work(cost, tasks, n, false);
    if (decoding.n_rows == 0)
        return INFINITY;
    double alone_us = sl_cost_predict_us(cost, &decoding), limit_us = INFINITY;
    double usual_us = sl_schedule_usual_us(schedule, cost, &all, all.n_rows - decoding.n_rows);
    for (uint32_t i = 0; i < n; i++) {
        if (!sl_task_decodes(&tasks[i]))
            continue;
        double left_us = sl_cost_with_margin(cost, (double)(next_deadline(&tasks[i]) - now_us));
        bool promised = tasks[i].itl_target_us > 0 && left_us >= alone_us;
        limit_us = fmin(limit_us, promised ? left_us : usual_us);
    }
    return limit_us;
}

sl_layered sl_schedule_layered(const sl_schedule *schedule, const sl_cost *cost, const sl_step_work *work,
                               uint32_t position, uint32_t n_left, double limit_us)
{
    enum { LEAST_PARTS = 3 };      /* in a step: fewer would leave too much of the limit unused */
    const double own_limit = 0.95; /* of it behind the first, so that as many fit, whatever the model learns */
    /* There may be a stream for each slot before the rows are through. */
    const uint32_t max_rows = schedule->options.max_rows,
                   room = max_rows - SL_MIN(max_rows, SL_MAX(work->n_rows, schedule->options.n_slots));
    /* The prompt's last row, whose logits are wanted, is computed with everything there. */
    const uint32_t most = SL_MIN(SL_MIN(room, n_left - 1), (uint32_t)SL_LAYERED_ROWS);
    const double others_us = sl_cost_predict_us(cost, work);
    if (cost->n_parts <= LEAST_PARTS || limit_us == INFINITY || limit_us <= others_us)
        return (sl_layered){0};
    const double share =
        fmax(sl_cost_parts_share(cost, 0, LEAST_PARTS), sl_cost_parts_share(cost, 1, 1 + LEAST_PARTS) / own_limit);
    const double all_us = others_us + (limit_us - others_us) / share;
    uint32_t n = sl_cost_rows_within(cost, work, position, n_left, 1, most, all_us);
    uint32_t whole = sl_cost_rows_within(cost, work, position, n_left, 1, most, limit_us);
    if (2 * n < 3 * whole + 2) /* they save little then */
        return (sl_layered){0};
    return (sl_layered){n, sl_cost_parts_within(cost, work, position, n, 0, limit_us)};
}

/* A step that is being shared out. */
typedef struct sharing {
    const sl_schedule *schedule;
    const sl_cost *cost;
    sl_task *tasks;
    uint32_t n;
    double limit_us;
    bool dry; /* some prompt is to have rows in any case */
    sl_step_work work;
    sl_grant_fn *grant;
    void *user;
} sharing;

/* Rows of a prompt that fit into what is left of the step. */
static uint32_t fitting_rows(const sharing *s, const sl_task *task)
{
    uint32_t room = s->schedule->options.max_rows - s->work.n_rows;
    if (s->limit_us == INFINITY)
        return SL_MIN(task->n_left, room);
    return sl_cost_rows_within(s->cost, &s->work, task->n_done, task->n_left, task->n_wanted, room, s->limit_us);
}

static void grant_rows(sharing *s, uint32_t index, uint32_t n_rows)
{
    sl_task *task = &s->tasks[index];
    task->n_rows = s->grant ? s->grant(s->user, index, n_rows) : n_rows;
    if (task->n_rows > 0)
        sl_cost_add(s->cost, &s->work, task->n_done, task->n_rows,
                    sl_cost_wanted(task->n_rows, task->n_left, task->n_wanted));
}

/* Takes n_rows of the task through the next n parts. */
static void grant_parts(sharing *s, sl_task *task, uint32_t n_rows, uint32_t n)
{
    const uint32_t index = (uint32_t)(task - s->tasks);
    task->until_part = task->n_parts_done + n;
    task->n_rows = s->grant ? s->grant(s->user, index, n_rows) : n_rows;
    if (task->n_rows > 0)
        sl_cost_add_layered(s->cost, &s->work, task->n_done, task->n_rows, task->n_parts_done, task->until_part);
    else
        task->until_part = 0;
}

/* How many parts the task's layered rows that are under way go through now: in a dry step as many as cost what a KV block of
 * rows does, at least one. */
static uint32_t next_parts(const sharing *s, const sl_task *task)
{
    double limit_us = s->limit_us;
    if (s->dry) {
        sl_step_work block = s->work;
        sl_cost_add(s->cost, &block, task->n_done, SL_MIN(task->n_layered, (uint32_t)SL_KV_BLOCK), 0);
        limit_us = fmax(limit_us, sl_cost_predict_us(s->cost, &block));
    }
    uint32_t n = sl_cost_parts_within(s->cost, &s->work, task->n_done, task->n_layered, task->n_parts_done, limit_us);
    return s->dry ? SL_MAX(n, 1) : n;
}

/* The one prompt that has rows in this step, as layered ones; false where chunks of all are to be shared out. *offered:
 * whether any were to go through a part. */
static bool share_layered(sharing *s, bool *offered)
{
    sl_task *only = NULL;
    uint32_t n_prompts = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        if (!s->tasks[i].running || sl_task_decodes(&s->tasks[i]))
            continue;
        only = n_prompts++ == 0 || s->tasks[i].n_layered > 0 ? &s->tasks[i] : only;
    }
    if (!only)
        return false;
    uint32_t n_rows = only->n_layered, n_parts = 0;
    if (n_rows > 0) {
        n_parts = next_parts(s, only);
    } else if (n_prompts == 1 && only->n_wanted <= 1 && !only->whole) {
        sl_layered l = sl_schedule_layered(s->schedule, s->cost, &s->work, only->n_done, only->n_left, s->limit_us);
        n_parts = l.n_parts;
        n_rows = n_parts > 0 ? l.n_rows : 0;
    }
    *offered = n_rows > 0 && n_parts > 0;
    if (*offered)
        grant_parts(s, only, n_rows, n_parts);
    return n_rows > 0;
}

double sl_schedule_share(sl_schedule *schedule, const sl_cost *cost, sl_task *tasks, uint32_t n, const uint32_t *order,
                         int64_t now_us, sl_grant_fn *grant, void *user)
{
    const uint32_t max_rows = schedule->options.max_rows;
    sharing s = {.schedule = schedule,
                 .cost = cost,
                 .tasks = tasks,
                 .n = n,
                 .limit_us = INFINITY,
                 .dry = schedule->dry >= schedule->options.ageing_turn,
                 .grant = grant,
                 .user = user};
    uint32_t n_prompt_rows = 0;
    bool prompts = false, offered = false, aged = false;
    for (uint32_t i = 0; i < n; i++) {
        tasks[i].n_rows = tasks[i].until_part = 0;
        if (sl_task_decodes(&tasks[i]) && s.work.n_rows < max_rows)
            grant_rows(&s, i, 1);
        prompts |= tasks[i].running && !sl_task_decodes(&tasks[i]);
    }
    if (s.work.n_rows > 0)
        s.limit_us = sl_schedule_limit_us(schedule, cost, tasks, n, now_us);
    bool layered = share_layered(&s, &offered);
    for (uint32_t i = 0; i < n && s.work.n_rows < max_rows; i++) {
        sl_task *task = &tasks[order[i]];
        if (!task->running || sl_task_decodes(task))
            continue;
        if (layered) {
            n_prompt_rows += task->n_rows;
            aged |= task->ageing && task->n_rows > 0;
            continue;
        }
        uint32_t rows = fitting_rows(&s, task);
        if (rows == 0 && s.dry && n_prompt_rows == 0)
            rows = SL_MIN(SL_MIN(task->n_left, max_rows - s.work.n_rows), (uint32_t)SL_KV_BLOCK);
        if (rows == 0)
            break; /* nobody behind overtakes because less fits */
        offered = true;
        grant_rows(&s, order[i], rows);
        n_prompt_rows += task->n_rows;
        aged |= task->ageing && task->n_rows > 0;
    }
    schedule->dry = prompts && !offered ? schedule->dry + 1 : 0;
    schedule->turn = aged ? 0 : schedule->turn + (n_prompt_rows > 0);
    return sl_cost_predict_us(cost, &s.work);
}

/* ---- pre-emption ---- */

bool sl_schedule_outranks(const sl_schedule *schedule, const sl_task *a, const sl_task *b)
{
    bool a_spared = a->n_preemptions >= schedule->options.most_preemptions;
    bool b_spared = b->n_preemptions >= schedule->options.most_preemptions;
    if (a_spared != b_spared)
        return a_spared;
    if (!a_spared && a->priority != b->priority)
        return a->priority > b->priority;
    return a->id < b->id;
}

bool sl_schedule_may_push_out(const sl_schedule *schedule, const sl_task *waiting, const sl_task *running)
{
    return waiting->priority > running->priority && !running->ageing &&
           running->n_preemptions < schedule->options.most_preemptions;
}
