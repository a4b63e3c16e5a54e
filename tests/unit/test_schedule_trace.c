/* What the scheduler's rules add up to: traces in virtual time on a machine with round figures (those of a small model on
 * two cores) whose steps swing by 10 %, beside first come, first served as the engine had it before: every stream's row,
 * then prompts in order of arrival as far as the chunk goes. The scheduler learns the machine as it goes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/forecast.h"
#include "schedule_kit.h"

enum { SLOTS = 16 };

typedef struct request {
    int64_t arrives_us, first_us, end_us;
    uint32_t n_prompt, n_answer;
    uint64_t tenant;
    int32_t priority;
    int64_t ttft_target_us, itl_target_us;
    int64_t longest_us; /* between two of its tokens */
} request;

/* What the machine's steps take. */
typedef struct speed {
    double step_us, row_us, wanted_us, position_us;
} speed;

/* SmolLM2 on two cores: 3.3 ms for one stream, 9.2 for eight, 0.35 ms for a row of a prompt. */
static const speed small_model = {2400, 350, 500, 0.4};
/* A model that is large for its machine: a step for one stream reads 60 ms of weights, as much as 20 rows take. */
static const speed large_model = {60000, 3000, 1000, 2};

static double true_us(const speed *s, const sl_step_work *work)
{
    return s->step_us + s->row_us * work->n_rows + s->wanted_us * work->n_wanted + s->position_us * work->row_positions;
}

typedef struct machine {
    sl_schedule schedule;
    sl_cost cost;
    sl_tenants tenants;
    sl_task *tasks; /* id - 1: the request's index */
    uint32_t *order, *scratch, n, capacity;
    int64_t now_us;
    uint64_t random;
    bool first_come;
    speed speed;
    double noise;
    double *gaps; /* all ITLs of requests with n_prompt below gap_below */
    size_t n_gaps;
    uint32_t gap_below;
} machine;

static double uniform(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return ((double)(*state >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(uint64_t *state)
{
    double a = uniform(state), b = uniform(state);
    return sqrt(-2 * log(a)) * cos(6.283185307179586 * b);
}

static uint32_t lognormal(uint64_t *state, double median, double sigma, uint32_t least, uint32_t most)
{
    return (uint32_t)fmin(fmax(median * exp(sigma * normal(state)), least), most);
}

static machine open_machine(uint32_t capacity, bool first_come)
{
    machine m = {.schedule = {.options = sl_schedule_options_default()},
                 .cost = kit_cost(),
                 .tasks = calloc(capacity, sizeof *m.tasks),
                 .order = calloc(capacity, sizeof *m.order),
                 .scratch = calloc(capacity, sizeof *m.scratch),
                 .capacity = capacity,
                 .random = 99,
                 .first_come = first_come,
                 .speed = small_model,
                 .noise = 0.1};
    m.schedule.options.n_slots = SLOTS;
    m.cost.spread = 0.05;
    for (int i = 0; i < SL_COST_TERMS; i++)
        for (int j = 0; j < SL_COST_TERMS; j++)
            m.cost.p[i][j] = 1 + 0.25 * (i == j);
    return m;
}

static void close_machine(machine *m)
{
    sl_tenants_close(&m->tenants);
    free(m->tasks);
    free(m->order);
    free(m->scratch);
}

static void arrive(machine *m, const request *r, uint64_t id)
{
    sl_task *task = &m->tasks[m->n++];
    *task = (sl_task){.id = id,
                      .priority = r->priority,
                      .arrived_us = r->arrives_us,
                      .ttft_target_us = r->ttft_target_us,
                      .itl_target_us = r->itl_target_us,
                      .n_left = r->n_prompt,
                      .n_to_come = r->n_answer};
    assert_int_equal(sl_tenants_enter(&m->tenants, r->tenant, 1, &task->tenant, NULL), SL_OK);
}

static void plan_first_come(machine *m)
{
    uint32_t room = m->schedule.options.max_rows, n_running = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        n_running += m->tasks[i].running;
        m->tasks[i].n_rows = sl_task_decodes(&m->tasks[i]);
        room -= m->tasks[i].n_rows;
    }
    for (uint32_t i = 0; i < m->n; i++) { /* tasks stand in order of arrival */
        sl_task *task = &m->tasks[i];
        if (!task->running && n_running < SLOTS) {
            task->running = true;
            n_running++;
        }
        if (!task->running || sl_task_decodes(task))
            continue;
        task->n_rows = SL_MIN(task->n_left, room);
        room -= task->n_rows;
    }
}

static void plan(machine *m)
{
    if (m->first_come) {
        plan_first_come(m);
        return;
    }
    sl_schedule_order(&m->schedule, &m->cost, &m->tenants, m->tasks, m->n, m->now_us, m->order, m->scratch);
    bool open = sl_schedule_opens_batch(&m->schedule, m->tasks, m->n, m->now_us);
    for (uint32_t i = 0; i < m->n && open; i++) {
        sl_task *task = &m->tasks[m->order[i]];
        if (!task->running && !sl_schedule_may_start(&m->schedule, &m->cost, m->tasks, m->n, task))
            break;
        task->running = true;
    }
    sl_schedule_share(&m->schedule, &m->cost, m->tasks, m->n, m->order, m->now_us, NULL, NULL);
}

static void move_on(machine *m, sl_task *task, request *r)
{
    task->n_done += task->n_rows;
    task->n_left -= task->n_rows;
    sl_tenants_charge(&m->tenants, task->tenant, task->n_rows);
    if (task->n_left > 0)
        return;
    task->n_left = 1;
    if (task->n_generated++ == 0) {
        r->first_us = m->now_us;
    } else {
        int64_t gap_us = m->now_us - task->last_us;
        r->longest_us = SL_MAX(r->longest_us, gap_us);
        if (m->gaps && r->n_prompt < m->gap_below)
            m->gaps[m->n_gaps++] = (double)gap_us;
    }
    task->last_us = r->end_us = m->now_us;
    task->n_to_come--;
}

static void step(machine *m, request *requests)
{
    sl_step_work work = {0};
    plan(m);
    for (uint32_t i = 0; i < m->n; i++)
        if (m->tasks[i].n_rows > 0)
            sl_cost_add(&m->cost, &work, m->tasks[i].n_done, m->tasks[i].n_rows,
                        m->tasks[i].n_rows == m->tasks[i].n_left);
    assert_true(work.n_rows > 0 && work.n_rows <= m->schedule.options.max_rows);
    double took_us = true_us(&m->speed, &work) * exp(m->noise * normal(&m->random));
    m->now_us += (int64_t)took_us;
    sl_cost_observe(&m->cost, &work, took_us);
    uint32_t n_kept = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        sl_task task = m->tasks[i];
        request *r = &requests[task.id - 1];
        if (task.n_rows > 0)
            move_on(m, &task, r);
        if (task.n_generated == r->n_answer)
            sl_tenants_leave(&m->tenants, task.tenant);
        else
            m->tasks[n_kept++] = task;
    }
    m->n = n_kept;
}

/* Runs requests, which stand in order of arrival, to the end. */
static void run(machine *m, request *requests, uint32_t n)
{
    for (uint32_t next = 0; next < n || m->n > 0;) {
        if (m->n == 0)
            m->now_us = SL_MAX(m->now_us, requests[next].arrives_us);
        for (; next < n && requests[next].arrives_us <= m->now_us; next++)
            arrive(m, &requests[next], next + 1);
        step(m, requests);
    }
}

static void fill_lengths(request *requests, uint32_t n, uint64_t *random)
{
    for (uint32_t i = 0; i < n; i++)
        requests[i] = (request){.n_prompt = lognormal(random, 200, 0.8, 16, 2000),
                                .n_answer = lognormal(random, 80, 0.7, 4, 400)};
}

/* Seconds from one arrival to the next when the machine is just busy: all at once, first come, first served. */
static double busy_seconds(uint64_t seed)
{
    enum { N = 1000 };
    request *requests = calloc(N, sizeof *requests);
    fill_lengths(requests, N, &seed);
    machine m = open_machine(N, true);
    run(&m, requests, N);
    double seconds = (double)m.now_us / 1e6 / N;
    close_machine(&m);
    free(requests);
    return seconds;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *values, size_t n, double q)
{
    qsort(values, n, sizeof *values, by_value);
    return values[(size_t)(q * (double)(n - 1))];
}

/* TTFT of a tenant's requests, in ms. */
static double ttft(const request *requests, uint32_t n, uint64_t tenant, double q)
{
    double *values = calloc(n, sizeof *values);
    size_t count = 0;
    for (uint32_t i = 0; i < n; i++)
        if (requests[i].tenant == tenant)
            values[count++] = (double)(requests[i].first_us - requests[i].arrives_us) / 1e3;
    double result = quantile(values, count, q);
    free(values);
    return result;
}

/* ---- fairness ---- */

/* Two tenants, Poisson at 80 % of capacity together; tenant 1 has one request in `of`. Returns tenant 1's TTFT p99. */
static double share_with(bool first_come, uint32_t of, double load, uint32_t n)
{
    uint64_t random = 7;
    request *requests = calloc(n, sizeof *requests);
    fill_lengths(requests, n, &random);
    double gap_us = busy_seconds(7) / load * 1e6, at_us = 0;
    for (uint32_t i = 0; i < n; i++) {
        at_us -= gap_us * log(uniform(&random));
        requests[i].arrives_us = (int64_t)at_us;
        requests[i].tenant = (uint64_t)(uniform(&random) * of < 1);
    }
    machine m = open_machine(n, first_come);
    run(&m, requests, n);
    double p99 = ttft(requests, n, 1, 0.99);
    print_message("%s, load %.0f %%, one request in %u: TTFT p50 %.0f, p99 %.0f ms; the other's p99 %.0f ms\n",
                  first_come ? "first come" : "scheduler ", 100 * load, of, ttft(requests, n, 1, 0.5), p99,
                  ttft(requests, n, 0, 0.99));
    close_machine(&m);
    free(requests);
    return p99;
}

static void test_flooding_tenant(void **state)
{
    (void)state;
    double equal = share_with(false, 2, 0.8, 11000), flooded = share_with(false, 21, 0.8, 11000);
    assert_true(flooded <= 1.3 * equal);
    /* In overload the difference is between a queue without end and none. */
    flooded = share_with(false, 21, 1.3, 1500);
    assert_true(flooded <= 1.3 * equal);
    assert_true(share_with(true, 21, 1.3, 1500) > 10 * flooded);
}

/* ---- deadlines ---- */

/* Share of requests whose first token was in time and whose tokens came at the target's pace on average. */
static double goodput(bool first_come, uint64_t seed)
{
    enum { N = 2000 };
    uint64_t random = seed;
    request *requests = calloc(N, sizeof *requests);
    fill_lengths(requests, N, &random);
    double gap_us = busy_seconds(seed) / 0.9 * 1e6, at_us = 0;
    for (uint32_t i = 0; i < N; i++) {
        /* Of each 20 s of load 4 are a burst with 2.5 times the mean rate, the others have 0.625 times. */
        bool burst = fmod(at_us, 20e6) < 4e6;
        at_us -= gap_us / (burst ? 2.5 : 0.625) * log(uniform(&random));
        requests[i].arrives_us = (int64_t)at_us;
        requests[i].ttft_target_us = 1000000;
        requests[i].itl_target_us = 50000;
    }
    machine m = open_machine(N, first_come);
    run(&m, requests, N);
    uint32_t n_good = 0, n_first = 0;
    for (uint32_t i = 0; i < N; i++) {
        const request *r = &requests[i];
        bool first = r->first_us - r->arrives_us <= r->ttft_target_us;
        n_first += first;
        n_good += first && r->end_us - r->first_us <= (int64_t)(r->n_answer - 1) * r->itl_target_us;
    }
    print_message("%s: %.1f %% in time, %.1f %% with first token in time; TTFT p50 %.0f ms, p99 %.0f; %.0f s in all\n",
                  first_come ? "first come" : "scheduler ", 100.0 * n_good / N, 100.0 * n_first / N,
                  ttft(requests, N, 0, 0.5), ttft(requests, N, 0, 0.99), (double)m.now_us / 1e6);
    close_machine(&m);
    free(requests);
    return (double)n_good / N;
}

static void test_goodput(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        double first = goodput(true, seed), ours = goodput(false, seed);
        assert_true(ours >= 1.3 * first);
    }
}

/* ---- a long prompt beside streams ---- */

enum { STREAMS = 8, ARRIVES_US = 5000000, SLICES = 8 };

typedef struct long_prompt {
    double us; /* from the prompt's arrival to its first token, or until the streams have as many tokens as then */
    double *gaps;
    size_t n_gaps;
} long_prompt;

/* n_gaps 0: with the prompt, until its first token; else without it, for so many gaps of the streams. What counts is the
 * time from the prompt's arrival on: the same tokens of the streams either way, which attend equally far. */
static long_prompt run_long_prompt(bool with_streams, size_t n_gaps, uint64_t seed)
{
    request requests[STREAMS + 1];
    uint32_t n = 0;
    for (; n < STREAMS && with_streams; n++)
        requests[n] = (request){.n_prompt = 100, .n_answer = 4000};
    if (n_gaps == 0)
        requests[n++] = (request){.arrives_us = ARRIVES_US, .n_prompt = 8000, .n_answer = 2};
    machine m = open_machine(16, false);
    m.random = seed;
    m.gaps = calloc(STREAMS * 4000, sizeof *m.gaps);
    m.gap_below = 1000;
    uint32_t next = 0;
    int64_t from_us = ARRIVES_US;
    size_t from = 0;
    while (next < n || m.n > 0) {
        if (m.n == 0)
            m.now_us = SL_MAX(m.now_us, requests[next].arrives_us);
        for (; next < n && requests[next].arrives_us <= m.now_us; next++)
            arrive(&m, &requests[next], next + 1);
        step(&m, requests);
        if (m.now_us < ARRIVES_US) {
            from = m.n_gaps;
            from_us = m.now_us;
        }
        if (n_gaps == 0 ? requests[n - 1].first_us > 0 : m.n_gaps - from >= n_gaps)
            break;
    }
    long_prompt result = {.us = (double)(m.now_us - from_us), .gaps = m.gaps, .n_gaps = m.n_gaps - from};
    memmove(m.gaps, m.gaps + from, result.n_gaps * sizeof *m.gaps);
    close_machine(&m);
    return result;
}

/* The streams' ITL p99 is at most twice that without the prompt: over all, and in each eighth of the tokens, so that late
 * tokens, which attend farther, do not excuse early ones. */
static void check_gaps(const long_prompt *with, const long_prompt *without)
{
    size_t n = SL_MIN(with->n_gaps, without->n_gaps) / SLICES;
    for (size_t i = 0; i < SLICES; i++) {
        double p99 = quantile(with->gaps + i * n, n, 0.99), usual = quantile(without->gaps + i * n, n, 0.99);
        print_message("%s%.1f / %.1f%s", i ? ", " : "ITL p99 with and without, ms: ", p99 / 1e3, usual / 1e3,
                      i + 1 < SLICES ? "" : "\n");
        assert_true(p99 <= 2 * usual);
    }
    assert_true(quantile(with->gaps, with->n_gaps, 0.99) <= 2 * quantile(without->gaps, without->n_gaps, 0.99));
}

static void test_long_prompt(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        long_prompt both = run_long_prompt(true, 0, seed), alone = run_long_prompt(false, 0, seed),
                    streams = run_long_prompt(true, both.n_gaps, seed);
        /* The streams' share of the time: what the same tokens take them without the prompt. */
        double share = streams.us / both.us, allowed_us = 1.25 * alone.us / (1 - share);
        print_message("TTFT %.2f s alone, %.2f beside streams that took %.0f %%, %.2f allowed\n", alone.us / 1e6,
                      both.us / 1e6, 100 * share, allowed_us / 1e6);
        check_gaps(&both, &streams);
        assert_true(both.us <= allowed_us);
        free(both.gaps);
        free(alone.gaps);
        free(streams.gaps);
    }
}

/* ---- throughput ---- */

typedef struct crowd {
    const char *name;
    uint32_t n_requests;
    bool fixed; /* prompts of 128 and answers of 64 tokens, else of mixed lengths */
    speed speed;
} crowd;

/* The requests all at once, at us. Returns the number of tokens to generate. */
static double fill_crowd(const crowd *c, int64_t us, request *requests)
{
    uint64_t random = 17;
    double n_tokens = 0;
    fill_lengths(requests, c->n_requests, &random);
    for (uint32_t i = 0; i < c->n_requests; i++) {
        if (c->fixed)
            requests[i] = (request){.n_prompt = 128, .n_answer = 64};
        requests[i].arrives_us = us;
        n_tokens += requests[i].n_answer;
    }
    return n_tokens;
}

/* Without targets, and without noise, since a few per cent are compared; on a machine that the cost model has seen at work
 * before, or (cold) has not. Returns the generated tokens a second. */
static double throughput(const crowd *c, bool first_come, bool cold)
{
    request *requests = calloc(c->n_requests, sizeof *requests);
    double n_tokens = fill_crowd(c, 0, requests);
    machine m = open_machine(c->n_requests, first_come);
    m.speed = c->speed;
    m.noise = 0;
    m.gaps = calloc((size_t)n_tokens, sizeof *m.gaps);
    m.gap_below = UINT32_MAX;
    if (!cold)
        run(&m, requests, c->n_requests);
    int64_t begin_us = m.now_us;
    m.n_gaps = 0;
    fill_crowd(c, begin_us, requests);
    run(&m, requests, c->n_requests);
    double seconds = (double)(m.now_us - begin_us) / 1e6, mean = 0;
    for (size_t i = 0; i < m.n_gaps; i++)
        mean += m.gaps[i] / 1e3 / (double)m.n_gaps;
    print_message(
        "%s, %u requests, %s: %.1f tokens/s; TTFT p50 %.0f ms, ITL mean %.1f, p99 %.1f\n", c->name, c->n_requests,
        first_come ? "full chunks"
        : cold     ? "scheduler, cold"
                   : "scheduler",
        n_tokens / seconds, ttft(requests, c->n_requests, 0, 0.5), mean, quantile(m.gaps, m.n_gaps, 0.99) / 1e3);
    free(m.gaps);
    close_machine(&m);
    free(requests);
    return n_tokens / seconds;
}

/* Where many wait and nobody has targets, steps between short and full chunks cost next to nothing. */
static void test_throughput(void **state)
{
    (void)state;
    const crowd crowds[] = {
        {"small model, fixed", 16, true, small_model},   {"small model, fixed", 64, true, small_model},
        {"small model, mixed", 128, false, small_model}, {"large model, fixed", 16, true, large_model},
        {"large model, fixed", 64, true, large_model},   {"large model, mixed", 128, false, large_model}};
    for (size_t i = 0; i < SL_COUNTOF(crowds); i++) {
        double full = throughput(&crowds[i], true, false);
        assert_true(throughput(&crowds[i], false, false) >= 0.97 * full);
        assert_true(throughput(&crowds[i], false, true) >= 0.97 * full);
    }
}

/* ---- predicted waits ---- */

typedef struct wait_scene {
    crowd crowd;
    uint32_t n_over;       /* of the crowd's requests, when one more arrives */
    uint32_t long_prompt;  /* of the crowd's last request; 0 = like the others */
    int64_t itl_target_us; /* of every second request */
} wait_scene;

/* The cost model of a machine that is known to it exactly. */
static sl_cost known_cost(const speed *s)
{
    sl_cost cost = kit_cost();
    for (int i = 0; i < SL_COST_ROW_TERMS; i++)
        cost.prior_us[i] = s->row_us + (i == 0 ? s->step_us : 0);
    for (int i = 0; i < SL_COST_WANTED_TERMS; i++)
        cost.prior_us[SL_COST_ROW_TERMS + i] = s->wanted_us;
    cost.prior_us[SL_COST_ROW_TERMS + SL_COST_WANTED_TERMS] = s->position_us;
    return cost;
}

/* The wait of a request for its first token, in us, and in *predicted_us what the forecast said when it arrived. */
static double wait_behind(const wait_scene *scene, double *predicted_us)
{
    uint32_t n = scene->crowd.n_requests;
    request *requests = calloc(n + 1, sizeof *requests);
    sl_forecast_slot slots[2 * SLOTS];
    machine m = open_machine(n + 1, false);
    m.speed = scene->crowd.speed;
    m.noise = 0;
    m.cost = known_cost(&m.speed); /* it is the forecast that is looked at, not the cost model */
    fill_crowd(&scene->crowd, m.now_us, requests);
    for (uint32_t i = 0; i < n; i++) {
        requests[i].itl_target_us = i % 2 ? scene->itl_target_us : 0;
        if (i + 1 == n && scene->long_prompt > 0)
            requests[i].n_prompt = scene->long_prompt;
        arrive(&m, &requests[i], i + 1);
    }
    while (n - m.n < scene->n_over)
        step(&m, requests);
    requests[n] = (request){.arrives_us = m.now_us, .n_prompt = 150, .n_answer = 50};
    arrive(&m, &requests[n], n + 1);
    sl_schedule_order(&m.schedule, &m.cost, &m.tenants, m.tasks, m.n, m.now_us, m.order, m.scratch);
    *predicted_us = sl_forecast_us(&m.schedule, &m.cost, m.tasks, m.n, m.order, m.n - 1, m.now_us, slots);
    while (requests[n].first_us == 0)
        step(&m, requests);
    double waited_us = (double)(requests[n].first_us - requests[n].arrives_us);
    close_machine(&m);
    free(requests);
    return waited_us;
}

static void test_predicted_waits(void **state)
{
    (void)state;
    const wait_scene scenes[] = {
        {.crowd = {"small model, fixed", 4, true, small_model}},
        {.crowd = {"small model, fixed", 24, true, small_model}},
        {.crowd = {"small model, fixed", 96, true, small_model}},
        {.crowd = {"small model, mixed", 24, false, small_model}},
        {.crowd = {"small model, mixed", 24, false, small_model}, .n_over = 8},
        {.crowd = {"small model, mixed", 128, false, small_model}},
        {.crowd = {"small model, mixed", 128, false, small_model}, .n_over = 64},
        {.crowd = {"small model, targets", 48, false, small_model}, .itl_target_us = 50000},
        {.crowd = {"small model, a long prompt", 9, false, small_model}, .long_prompt = 6000},
        {.crowd = {"small model, a long prompt", 24, false, small_model}, .long_prompt = 6000},
        {.crowd = {"large model, fixed", 4, true, large_model}},
        {.crowd = {"large model, fixed", 96, true, large_model}},
        {.crowd = {"large model, mixed", 24, false, large_model}, .n_over = 8},
        {.crowd = {"large model, mixed", 128, false, large_model}, .n_over = 64},
    };
    for (size_t i = 0; i < SL_COUNTOF(scenes); i++) {
        double predicted_us, waited_us = wait_behind(&scenes[i], &predicted_us);
        print_message("%s, %u requests, %u over: waited %.2f s, predicted %.2f (%+.0f %%)\n", scenes[i].crowd.name,
                      scenes[i].crowd.n_requests, scenes[i].n_over, waited_us / 1e6, predicted_us / 1e6,
                      100 * (predicted_us / waited_us - 1));
        assert_true(fabs(predicted_us / waited_us - 1) <= 0.1);
    }
}

/* ---- starvation ---- */

/* A request of low priority under 130 % load of high priority gets its tokens within the bound that schedule.h states. */
static void test_nobody_starves(void **state)
{
    (void)state;
    enum { N = 600 };
    uint64_t random = 5;
    request *requests = calloc(N, sizeof *requests);
    fill_lengths(requests, N, &random);
    double gap_us = busy_seconds(5) / 1.3 * 1e6, at_us = 0;
    for (uint32_t i = 0; i < N; i++) {
        at_us -= gap_us * log(uniform(&random));
        requests[i].arrives_us = (int64_t)at_us;
        requests[i].priority = i != 50;
    }
    int64_t waits_us[2];
    for (int ageing = 0; ageing < 2; ageing++) {
        machine m = open_machine(N, false);
        m.schedule.options.ageing_us = ageing ? 2000000 : INT64_MAX;
        run(&m, requests, N);
        waits_us[ageing] = requests[50].first_us - requests[50].arrives_us;
        close_machine(&m);
    }
    print_message("low priority under overload: first token after %.1f s, without ageing after %.1f s\n",
                  (double)waits_us[1] / 1e6, (double)waits_us[0] / 1e6);
    /* 2 s, some steps of at most 60 ms for each of its own (least chunk: a block), and one answer of 400 tokens. */
    uint32_t n_steps = (requests[50].n_prompt / SL_KV_BLOCK + 1) * 9;
    assert_true(waits_us[1] < 2000000 + n_steps * 60000 + 400 * 60000);
    assert_true(waits_us[1] < waits_us[0] / 2);
    free(requests);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flooding_tenant), cmocka_unit_test(test_goodput),
        cmocka_unit_test(test_long_prompt),     cmocka_unit_test(test_throughput),
        cmocka_unit_test(test_nobody_starves),  cmocka_unit_test(test_predicted_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
