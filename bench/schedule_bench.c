/* What the scheduler costs where many requests wait: CPU time of the calling thread to put them into order, and to predict
 * how long the last one waits. Sixteen streams decode; prompts have 16 to 2,000 tokens.
 *     build/bench/schedule_bench [n_waiting …] */
#include "support.h"

#include "engine/forecast.h"

enum { STREAMS = 16, ROUNDS = 201 };

typedef enum kind { NONE, ALIKE, MIXED } kind;

typedef struct queue {
    sl_schedule schedule;
    sl_cost cost;
    sl_tenants tenants;
    sl_task *tasks;
    sl_forecast_slot slots[2 * STREAMS];
    uint32_t n, *order, *scratch;
} queue;

static uint32_t random_state = 1;
static uint32_t draw(uint32_t below)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % below;
}

/* Round figures of a small model: 2.4 ms a step, 0.35 ms a row, 0.4 us a position. */
static sl_cost make_cost(void)
{
    sl_cost cost = {.n_groups = 2, .window = {0, 512}, .share = {0.5, 0.5}, .spread = 0.05};
    for (int i = 0; i < SL_COST_TERMS; i++) {
        cost.m[i] = 1;
        cost.prior_us[i] = i == 0 ? 2750 : i < SL_COST_ROW_TERMS ? 350 : i < SL_COST_TERMS - 2 ? 500 : 0.2;
    }
    return cost;
}

static queue make_queue(uint32_t n_waiting, kind targets)
{
    queue q = {.schedule = {.options = sl_schedule_options_default()}, .cost = make_cost(), .n = STREAMS + n_waiting};
    q.schedule.options.n_slots = STREAMS;
    q.tasks = bench_allocate(q.n * sizeof *q.tasks);
    q.order = bench_allocate(q.n * sizeof *q.order);
    q.scratch = bench_allocate(q.n * sizeof *q.scratch);
    for (uint32_t i = 0; i < q.n; i++) {
        sl_task *task = &q.tasks[i];
        *task = (sl_task){.id = i + 1, .n_left = 16 + draw(1984), .n_to_come = 1 + draw(200), .arrived_us = i};
        if (sl_tenants_enter(&q.tenants, i % 4, 1, &task->tenant, NULL) != SL_OK)
            exit(1);
        if (targets != NONE)
            task->ttft_target_us = targets == ALIKE ? 60000000 : 1000000 * (1 + (int64_t)draw(300));
        if (i < STREAMS) {
            task->n_done = task->n_left;
            task->n_left = task->n_generated = 1;
            task->running = true;
        }
    }
    return q;
}

static void order(queue *q)
{
    sl_schedule_order(&q->schedule, &q->cost, &q->tenants, q->tasks, q->n, 1000, q->order, q->scratch);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(uint32_t n_waiting, kind targets)
{
    static const char *const names[] = {"no targets", "one TTFT target", "mixed TTFT targets"};
    queue q = make_queue(n_waiting, targets);
    double order_us[ROUNDS], forecast_us[ROUNDS], wait_us = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double begin = bench_cpu_ns();
        order(&q);
        double middle = bench_cpu_ns();
        wait_us += sl_forecast_us(&q.schedule, &q.cost, q.tasks, q.n, q.order, q.order[q.n - 1], 1000, q.slots);
        forecast_us[i] = (bench_cpu_ns() - middle) / 1e3;
        order_us[i] = (middle - begin) / 1e3;
    }
    qsort(order_us, ROUNDS, sizeof *order_us, by_value);
    qsort(forecast_us, ROUNDS, sizeof *forecast_us, by_value);
    printf("%5u waiting, %-19s order %8.1f us   forecast %8.1f us (a wait of %.0f s)\n", n_waiting, names[targets],
           order_us[ROUNDS / 2], forecast_us[ROUNDS / 2], wait_us / ROUNDS / 1e6);
    sl_tenants_close(&q.tenants);
}

int main(int argc, char **argv)
{
    static const uint32_t usual[] = {16, 64, 512};
    for (kind t = NONE; t <= MIXED; t++)
        for (int i = 0; i < (argc > 1 ? argc - 1 : (int)SL_COUNTOF(usual)); i++)
            measure(argc > 1 ? (uint32_t)atoi(argv[i + 1]) : usual[i], t);
    return 0;
}
