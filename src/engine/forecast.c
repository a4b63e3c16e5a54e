#include "engine/forecast.h"

#include <math.h>

enum { STRETCH = 256 /* rows of a prompt for which one position stands */ };

typedef struct forecast {
    const sl_schedule *schedule;
    const sl_cost *cost;
    const sl_task *tasks;
    const uint32_t *order;
    uint32_t n, next;                       /* order[0..next): what runs or has started */
    sl_forecast_slot *prompts, *streams;    /* by rank; a heap, the first to end on top */
    uint32_t n_prompts, n_streams, n_taken; /* n_taken: slots */
    sl_step_work decoding;                  /* a row of each stream */
    bool targets;                           /* a stream has an ITL target */
    uint64_t n_steps;
    double us;
} forecast;

/* ---- streams ---- */

static void add_work(sl_step_work *sum, const sl_step_work *work)
{
    sum->n_rows += work->n_rows;
    sum->n_wanted += work->n_wanted;
    sum->row_positions += work->row_positions;
    sum->tile_positions += work->tile_positions;
}

/* The slot becomes as many streams as it has choices, which get n_to_come tokens each from the next step on. */
static void begin_streams(forecast *f, const sl_forecast_slot *slot, uint32_t n_to_come)
{
    sl_forecast_slot s = *slot;
    if (n_to_come == 0) {
        f->n_taken -= s.n_choices;
        return;
    }
    s.end = f->n_steps + n_to_come;
    s.work = (sl_step_work){0};
    for (uint32_t i = 0; i < s.n_choices; i++)
        sl_cost_add(f->cost, &s.work, s.n_done + n_to_come / 2, 1, 1);
    add_work(&f->decoding, &s.work);
    f->targets |= f->tasks[s.index].itl_target_us > 0;
    uint32_t at = f->n_streams++;
    for (; at > 0 && f->streams[(at - 1) / 2].end > s.end; at = (at - 1) / 2)
        f->streams[at] = f->streams[(at - 1) / 2];
    f->streams[at] = s;
}

static void end_first_stream(forecast *f)
{
    sl_forecast_slot ended = f->streams[0], last = f->streams[--f->n_streams];
    uint32_t at = 0;
    for (uint32_t child = 1; child < f->n_streams; child = 2 * at + 1) {
        child += child + 1 < f->n_streams && f->streams[child + 1].end < f->streams[child].end;
        if (f->streams[child].end >= last.end)
            break;
        f->streams[at] = f->streams[child];
        at = child;
    }
    f->streams[at] = last;
    f->n_taken -= ended.n_choices;
    f->decoding.n_rows -= ended.work.n_rows;
    f->decoding.n_wanted -= ended.work.n_wanted;
    f->decoding.row_positions = fmax(0, f->decoding.row_positions - ended.work.row_positions);
    f->decoding.tile_positions = fmax(0, f->decoding.tile_positions - ended.work.tile_positions);
}

/* ---- starting ---- */

static uint32_t count_choices(const sl_task *task)
{
    return SL_MAX(task->n_choices, 1);
}

static sl_forecast_slot take_slots(forecast *f, uint32_t rank)
{
    const sl_task *task = &f->tasks[f->order[rank]];
    sl_forecast_slot slot = {.index = f->order[rank],
                             .rank = rank,
                             .n_choices = count_choices(task),
                             .n_done = task->n_done,
                             .n_left = SL_MAX(task->n_left, 1),
                             .n_wanted = task->n_wanted};
    f->n_taken += slot.n_choices;
    SL_ASSERT(f->n_taken <= f->schedule->options.n_slots);
    return slot;
}

static void start_prompt(forecast *f, uint32_t rank)
{
    sl_forecast_slot slot = take_slots(f, rank);
    uint32_t at = f->n_prompts++;
    for (; at > 0 && f->prompts[at - 1].rank > rank; at--)
        f->prompts[at] = f->prompts[at - 1];
    f->prompts[at] = slot;
}

static void take_running(forecast *f)
{
    for (uint32_t rank = 0; rank < f->n; rank++) {
        const sl_task *task = &f->tasks[f->order[rank]];
        if (!task->running)
            continue;
        if (sl_task_decodes(task)) {
            sl_forecast_slot slot = take_slots(f, rank);
            begin_streams(f, &slot, SL_MAX(task->n_to_come, 1));
        } else {
            start_prompt(f, rank);
        }
    }
}

/* DYNAMIC: passes the time until a batch is full, which it will not be if nothing else arrives, or has waited enough. */
static void wait_for_batch(forecast *f, int64_t now_us)
{
    const sl_schedule_options *o = &f->schedule->options;
    uint32_t n_waiting = 0;
    int64_t first_us = INT64_MAX;
    for (uint32_t i = f->next; i < f->n; i++) {
        const sl_task *task = &f->tasks[f->order[i]];
        if (task->running)
            continue;
        n_waiting++;
        first_us = SL_MIN(first_us, task->arrived_us);
    }
    if (n_waiting > 0 && n_waiting < o->n_slots)
        f->us = fmax(f->us, (double)(first_us + o->max_wait_us - now_us));
}

static void start_waiting(forecast *f, int64_t now_us)
{
    const sl_schedule_options *o = &f->schedule->options;
    if (o->batching != SL_BATCHING_CONTINUOUS && f->n_taken > 0)
        return;
    if (o->batching == SL_BATCHING_DYNAMIC)
        wait_for_batch(f, now_us);
    for (; f->next < f->n; f->next++) {
        const sl_task *task = &f->tasks[f->order[f->next]];
        if (task->running)
            continue;
        if (f->n_taken + count_choices(task) > o->n_slots)
            return;
        start_prompt(f, f->next);
    }
}

/* ---- steps ---- */

/* The most time of a step, as in sl_schedule_limit_us when every stream had its last token just now. */
static double find_limit_us(const forecast *f)
{
    if (f->n_streams == 0)
        return INFINITY;
    sl_step_work all = f->decoding;
    for (uint32_t i = 0; i < f->n_prompts; i++)
        sl_cost_add(f->cost, &all, 0, 1, 1);
    double usual_us = sl_schedule_usual_us(f->schedule, f->cost, &all, f->n_prompts);
    if (!f->targets)
        return usual_us;
    double alone_us = sl_cost_predict_us(f->cost, &f->decoding), limit_us = INFINITY;
    for (uint32_t i = 0; i < f->n_streams; i++) {
        int64_t target_us = f->tasks[f->streams[i].index].itl_target_us;
        double left_us = sl_cost_with_margin(f->cost, (double)target_us);
        limit_us = fmin(limit_us, target_us > 0 && left_us >= alone_us ? left_us : usual_us);
    }
    return limit_us;
}

/* Rows of a prompt that fit into a step beside the work: all that is left, or what fits at the middle of its next STRETCH
 * rows, as many as on average of the steps that they take. *position: of the rows. */
static uint32_t find_rows(const forecast *f, const sl_step_work *work, const sl_forecast_slot *p, double limit_us,
                          uint32_t *position)
{
    uint32_t room = f->schedule->options.max_rows - SL_MIN(work->n_rows, f->schedule->options.max_rows);
    sl_step_work whole = *work;
    *position = p->n_done;
    if (p->n_left <= room) {
        sl_cost_add(f->cost, &whole, p->n_done, p->n_left, sl_cost_wanted(p->n_left, p->n_left, p->n_wanted));
        if (sl_cost_predict_us(f->cost, &whole) <= limit_us)
            return p->n_left;
    }
    if (limit_us == INFINITY)
        return room;
    *position += SL_MIN(p->n_left, (uint32_t)STRETCH) / 2;
    return sl_cost_rows_within(f->cost, work, *position, p->n_left, p->n_wanted, SL_MIN(room, p->n_left), limit_us);
}

/* The only prompt's rows of a step, where they are layered: as many as on average, in one of the steps that it takes to
 * take some through all parts. */
static bool find_layered(forecast *f, double limit_us, sl_step_work *work)
{
    sl_forecast_slot *p = &f->prompts[0];
    const uint32_t position = p->n_done + SL_MIN(p->n_left, (uint32_t)STRETCH) / 2;
    if (f->n_prompts != 1 || p->n_wanted > 1 || f->tasks[p->index].whole ||
        work->n_rows >= f->schedule->options.max_rows)
        return false;
    const sl_layered l = sl_schedule_layered(f->schedule, f->cost, work, position, p->n_left, limit_us);
    if (l.n_rows == 0)
        return false;
    uint32_t n_steps = 0;
    for (uint32_t done = 0; done < f->cost->n_parts; n_steps++)
        done += SL_MAX(sl_cost_parts_within(f->cost, work, position, l.n_rows, done, limit_us), 1);
    p->n_rows = (uint32_t)fmax(1, round((double)l.n_rows / n_steps));
    sl_cost_add_mean_layered(f->cost, work, position, l.n_rows, n_steps);
    return true;
}

/* Sets the prompts' rows of the next step; returns its work. Where nothing fits, the steps that pass until a prompt gets a
 * block of rows all the same have passed then. */
static sl_step_work plan_step(forecast *f)
{
    sl_step_work work = f->decoding;
    double limit_us = find_limit_us(f);
    uint32_t position;
    for (uint32_t i = 0; i < f->n_prompts; i++)
        f->prompts[i].n_rows = 0;
    if (find_layered(f, limit_us, &work))
        return work;
    for (uint32_t i = 0; i < f->n_prompts; i++) {
        sl_forecast_slot *p = &f->prompts[i];
        p->n_rows = find_rows(f, &work, p, limit_us, &position);
        if (p->n_rows == 0)
            break;
        sl_cost_add(f->cost, &work, position, p->n_rows, sl_cost_wanted(p->n_rows, p->n_left, p->n_wanted));
    }
    if (f->n_prompts > 0 && f->prompts[0].n_rows == 0) {
        sl_forecast_slot *p = &f->prompts[0];
        f->us += f->schedule->options.ageing_turn * sl_cost_predict_us(f->cost, &work);
        f->n_steps += f->schedule->options.ageing_turn;
        p->n_rows = SL_MIN(p->n_left, (uint32_t)SL_KV_BLOCK);
        sl_cost_add(f->cost, &work, p->n_done, p->n_rows, sl_cost_wanted(p->n_rows, p->n_left, p->n_wanted));
    }
    return work;
}

/* How many steps like the planned one follow before a prompt is through or much farther, or a stream ends; at least 1. */
static uint64_t count_alike(const forecast *f)
{
    uint64_t n = UINT64_MAX;
    for (uint32_t i = 0; i < f->n_prompts; i++) {
        const sl_forecast_slot *p = &f->prompts[i];
        if (p->n_rows > 0)
            n = SL_MIN(n, SL_MAX(SL_MIN(p->n_left, (uint32_t)STRETCH) / p->n_rows, UINT64_C(1)));
    }
    if (f->n_streams > 0)
        n = SL_MIN(n, f->streams[0].end > f->n_steps ? f->streams[0].end - f->n_steps : 1);
    return n;
}

/* Lets n steps pass; true when the prompt of tasks[index] is through. */
static bool advance(forecast *f, uint64_t n, uint32_t index)
{
    uint32_t n_kept = 0, n_prompts = f->n_prompts;
    bool through = false;
    f->n_steps += n;
    while (f->n_streams > 0 && f->streams[0].end <= f->n_steps)
        end_first_stream(f);
    for (uint32_t i = 0; i < n_prompts; i++) {
        sl_forecast_slot p = f->prompts[i];
        p.n_done += (uint32_t)n * p.n_rows;
        p.n_left -= (uint32_t)n * p.n_rows;
        if (p.n_left > 0) {
            f->prompts[n_kept++] = p;
            continue;
        }
        uint32_t n_to_come = f->tasks[p.index].n_to_come; /* the first of them comes now */
        begin_streams(f, &p, n_to_come - (n_to_come > 0));
        through |= p.index == index;
    }
    f->n_prompts = n_kept;
    return through;
}

double sl_forecast_us(const sl_schedule *schedule, const sl_cost *cost, const sl_task *tasks, uint32_t n,
                      const uint32_t *order, uint32_t index, int64_t now_us, sl_forecast_slot *slots)
{
    forecast f = {.schedule = schedule,
                  .cost = cost,
                  .tasks = tasks,
                  .order = order,
                  .n = n,
                  .prompts = slots,
                  .streams = slots + schedule->options.n_slots};
    SL_ASSERT(index < n && !sl_task_decodes(&tasks[index]));
    take_running(&f);
    for (bool through = false; !through;) {
        start_waiting(&f, now_us);
        SL_ASSERT(f.n_taken > 0);
        sl_step_work work = plan_step(&f);
        uint64_t n_steps = count_alike(&f);
        f.us += (double)n_steps * sl_cost_predict_us(cost, &work);
        through = advance(&f, n_steps, index);
    }
    return f.us;
}
