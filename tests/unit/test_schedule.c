/* The scheduler's rules, one by one, on plain structs. tests/unit/test_schedule_trace.c looks at what they add up to. */
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

enum { MOST = 64 };

typedef struct scene {
    sl_schedule schedule;
    sl_cost cost;
    sl_tenants tenants;
    sl_task tasks[MOST];
    uint32_t n, order[MOST], scratch[MOST];
} scene;

static scene open_scene(void)
{
    scene s = {.schedule = {.options = sl_schedule_options_default()}, .cost = kit_cost()};
    s.schedule.options.n_slots = 8;
    for (uint64_t id = 0; id < 3; id++) { /* tenants 0, 1, 2 with a weight of 1 */
        uint32_t index;
        assert_int_equal(sl_tenants_enter(&s.tenants, id, 1, &index, NULL), SL_OK);
        assert_int_equal(index, id);
    }
    return s;
}

/* A prompt of n_left tokens that arrives now. */
static sl_task *add(scene *s, uint32_t n_left)
{
    sl_task *task = &s->tasks[s->n];
    *task = (sl_task){.id = ++s->n, .n_left = n_left, .n_to_come = 10};
    return task;
}

/* A stream that decodes. */
static sl_task *add_stream(scene *s, int64_t itl_target_us)
{
    sl_task *task = add(s, 1);
    task->n_done = 1;
    task->n_generated = 1;
    task->running = true;
    task->itl_target_us = itl_target_us;
    return task;
}

/* The ids in order must be those that are listed. */
static void expect_order(scene *s, int64_t now_us, const char *wanted)
{
    char got[4 * MOST] = "";
    sl_schedule_order(&s->schedule, &s->cost, &s->tenants, s->tasks, s->n, now_us, s->order, s->scratch);
    for (uint32_t i = 0; i < s->n; i++)
        sprintf(got + strlen(got), "%s%u", i ? " " : "", (unsigned)s->tasks[s->order[i]].id);
    assert_string_equal(got, wanted);
}

static double share(scene *s, int64_t now_us)
{
    sl_schedule_order(&s->schedule, &s->cost, &s->tenants, s->tasks, s->n, now_us, s->order, s->scratch);
    return sl_schedule_share(&s->schedule, &s->cost, s->tasks, s->n, s->order, now_us, NULL, NULL);
}

static void test_arrival_and_priority(void **state)
{
    (void)state;
    scene s = open_scene();
    add(&s, 100);
    add(&s, 10)->priority = -1;
    add(&s, 10)->priority = 5;
    add(&s, 1000);
    add(&s, 10)->priority = 5;
    expect_order(&s, 0, "3 5 1 4 2");
    add_stream(&s, 0);
    expect_order(&s, 0, "6 3 5 1 4 2");
    sl_tenants_close(&s.tenants);
}

static void test_deadlines(void **state)
{
    (void)state;
    scene s = open_scene();
    add(&s, 100);                            /* none */
    add(&s, 100)->ttft_target_us = 10000000; /* late */
    add(&s, 100)->ttft_target_us = 1000000;  /* early */
    add(&s, 100)->ttft_target_us = 1000;     /* can't be met: 100 rows take 106 ms */
    expect_order(&s, 0, "3 2 1 4");
    expect_order(&s, 950000, "2 1 3 4"); /* by now that of 3 can't be met either */
    s.tasks[3].priority = 1;             /* priority still goes before all deadlines */
    expect_order(&s, 0, "4 3 2 1");
    sl_tenants_close(&s.tenants);
}

/* Three deadlines of which two can be met: the longest work is given up, though its deadline is not the last. */
static void test_most_deadlines(void **state)
{
    (void)state;
    scene s = open_scene();
    add(&s, 500)->ttft_target_us = 700000;
    add(&s, 200)->ttft_target_us = 800000;
    add(&s, 200)->ttft_target_us = 810000;
    expect_order(&s, 0, "2 3 1");
    /* With enough time all are feasible, by deadline. */
    s.tasks[1].ttft_target_us = s.tasks[2].ttft_target_us = 2000000;
    expect_order(&s, 0, "1 2 3");
    /* Work of a higher priority takes its time first, deadline or not. */
    add(&s, 500)->priority = 1;
    expect_order(&s, 0, "4 2 3 1");
    sl_tenants_close(&s.tenants);
}

/* Of work that can't all be in time, that of a tenant far ahead is given up before longer work of others. */
static void test_deadlines_and_shares(void **state)
{
    (void)state;
    scene s = open_scene();
    add(&s, 500)->ttft_target_us = 700000;
    add(&s, 250)->ttft_target_us = 710000;
    expect_order(&s, 0, "2 1");
    s.tasks[1].tenant = 1;
    sl_tenants_charge(&s.tenants, 1, 10000);
    expect_order(&s, 0, "1 2");
    sl_tenants_close(&s.tenants);
}

/* Compares with every subset on small random cases: no set with more deadlines met exists. */
static void test_feasible_is_best(void **state)
{
    (void)state;
    uint32_t random = 1;
    for (int round = 0; round < 300; round++) {
        scene s = open_scene();
        for (int i = 0; i < 7; i++) {
            random = random * 1664525 + 1013904223;
            sl_task *task = add(&s, 20 + (random >> 16) % 300);
            task->ttft_target_us = 1000 * (int64_t)(50 + (random >> 10) % 700);
        }
        sl_schedule_order(&s.schedule, &s.cost, &s.tenants, s.tasks, s.n, 0, s.order, s.scratch);
        uint32_t n_feasible = 0, most = 0;
        double done_us = 0;
        for (uint32_t i = 0; i < s.n && s.tasks[s.order[i]].feasible; i++) {
            done_us += s.tasks[s.order[i]].prefill_us;
            assert_true(done_us <= (double)s.tasks[s.order[i]].deadline_us);
            n_feasible++;
        }
        for (unsigned set = 0; set < 1u << 7; set++) {
            bool taken[7] = {0}, good = true;
            double us = 0;
            uint32_t count = 0;
            for (;;) { /* earliest deadline of the set that is left */
                int next = -1;
                for (int i = 0; i < 7; i++)
                    if ((set >> i & 1) && !taken[i] && (next < 0 || s.tasks[i].deadline_us < s.tasks[next].deadline_us))
                        next = i;
                if (next < 0)
                    break;
                taken[next] = true;
                us += s.tasks[next].prefill_us;
                good &= us <= (double)s.tasks[next].deadline_us;
                count++;
            }
            most = good ? SL_MAX(most, count) : most;
        }
        assert_int_equal(n_feasible, most);
        sl_tenants_close(&s.tenants);
    }
}

static void test_fair_shares(void **state)
{
    (void)state;
    scene s = open_scene();
    for (int i = 0; i < 4; i++)
        add(&s, 100);        /* tenant 0: tags 0, 100, 200, 300 */
    add(&s, 50)->tenant = 1; /* tags 0, 50, 100 */
    add(&s, 50)->tenant = 1;
    add(&s, 50)->tenant = 1;
    expect_order(&s, 0, "1 5 6 2 7 3 4");
    sl_tenants_charge(&s.tenants, 0, 1000);
    expect_order(&s, 0, "5 6 7 1 2 3 4");
    s.tenants.tenants[1].weight = 4;        /* tags 0, 12.5, 25 */
    s.tenants.tenants[0].virtual_time = 20; /* tags 20, 120, … */
    expect_order(&s, 0, "5 6 1 7 2 3 4");
    sl_tenants_close(&s.tenants);
}

static void test_tenants(void **state)
{
    (void)state;
    sl_tenants t = {0};
    sl_err err;
    uint32_t a, b, c;
    assert_int_equal(sl_tenants_enter(&t, 70, 0, &a, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_tenants_enter(&t, 70, NAN, &a, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_tenants_enter(&t, 70, 1, &a, &err), SL_OK);
    assert_int_equal(sl_tenants_enter(&t, 80, 2, &b, &err), SL_OK);
    sl_tenants_charge(&t, a, 1000);
    sl_tenants_charge(&t, b, 1000);
    assert_true(sl_tenants_lead(&t, a) == 500 && sl_tenants_lead(&t, b) == 0);
    /* Who was away can't claim what it did not use: it starts where the least served one is. */
    assert_int_equal(sl_tenants_enter(&t, 90, 1, &c, &err), SL_OK);
    assert_true(t.tenants[c].virtual_time == 500);
    /* Who leaves and comes back at once is still as far ahead as it was. */
    sl_tenants_leave(&t, a);
    assert_int_equal(sl_tenants_enter(&t, 70, 1, &a, &err), SL_OK);
    assert_true(t.tenants[a].virtual_time == 1000);
    /* Who was alone is not charged for it when another comes. */
    sl_tenants_leave(&t, b);
    sl_tenants_leave(&t, c);
    sl_tenants_charge(&t, a, 1000000);
    assert_int_equal(sl_tenants_enter(&t, 80, 1, &b, &err), SL_OK);
    assert_true(sl_tenants_lead(&t, a) == 0 && sl_tenants_lead(&t, b) == 0);
    sl_tenants_leave(&t, a);
    sl_tenants_leave(&t, b);
    /* Places of those who are gone are used again. */
    for (uint64_t id = 1000; id < 2000; id++) {
        assert_int_equal(sl_tenants_enter(&t, id, 1, &c, &err), SL_OK);
        sl_tenants_charge(&t, c, 7);
        sl_tenants_leave(&t, c);
    }
    assert_true(t.capacity <= 8);
    sl_tenants_close(&t);
}

static void test_ageing(void **state)
{
    (void)state;
    scene s = open_scene();
    sl_task *poor = add(&s, 100);
    poor->priority = -3;
    poor->running = true;
    sl_task *rich = add(&s, 1 << 20);
    rich->running = true;
    int64_t late = s.schedule.options.ageing_us;
    int n_turns = 0;
    for (int i = 0; i < 100; i++) { /* before it is overdue it gets nothing */
        share(&s, late - 1);
        assert_int_equal(poor->n_rows, 0);
    }
    for (int i = 0; i < 90; i++) {
        share(&s, late);
        assert_true(poor->n_rows == 0 || s.tasks[s.order[0]].id == poor->id);
        n_turns += poor->n_rows > 0;
    }
    assert_int_equal(n_turns, 90 / (int)(s.schedule.options.ageing_turn + 1));
    /* Among several the one that waits longest; a turn that can't be taken (no slot) stays due. */
    sl_task *poorer = add(&s, 100);
    poorer->priority = -3;
    poor->running = false;
    for (int i = 0; i < 30; i++)
        share(&s, late);
    assert_int_equal(s.tasks[s.order[0]].id, poor->id);
    expect_order(&s, late, "1 2 3");
    sl_tenants_close(&s.tenants);
}

static void test_limit(void **state)
{
    (void)state;
    scene s = open_scene();
    s.cost.spread = 0;
    sl_task *prompt = add(&s, 1000);
    prompt->running = true;
    assert_true(isinf(sl_schedule_limit_us(&s.schedule, &s.cost, s.tasks, s.n, 0)));
    add_stream(&s, 0);
    /* Without a target: 1.8 times a step that decodes both (2 + 1 ms and 2 + 1 positions). */
    double usual = 1.8 * (3000 + 3);
    assert_true(fabs(sl_schedule_limit_us(&s.schedule, &s.cost, s.tasks, s.n, 0) - usual) < 1e-6);
    /* First come, first served as others have it: none. */
    s.schedule.options.itl_factor = INFINITY;
    assert_true(isinf(sl_schedule_limit_us(&s.schedule, &s.cost, s.tasks, s.n, 0)));
    s.schedule.options.itl_factor = 1.8;
    /* One that waits changes nothing, each that runs besides is a factor of 1.8 and one more that will decode. */
    sl_task *second = add(&s, 1000);
    assert_true(fabs(sl_schedule_limit_us(&s.schedule, &s.cost, s.tasks, s.n, 0) - usual) < 1e-6);
    second->running = true;
    assert_true(fabs(sl_schedule_limit_us(&s.schedule, &s.cost, s.tasks, s.n, 0) - 1.8 * 1.8 * (4000 + 4)) < 1e-6);
    s.n--; /* it is gone */
    /* What is not known yet: two standard deviations more. */
    s.cost.p[0][0] = 0.25; /* of the first row's 2 ms: half of it */
    assert_true(fabs(sl_schedule_limit_us(&s.schedule, &s.cost, s.tasks, s.n, 0) - 1.8 * (3003 + 2 * 1000)) < 1e-6);
    s.cost.p[0][0] = 0;
    /* With a target: what is left of it. */
    sl_task *stream = add_stream(&s, 50000);
    stream->last_us = 10000;
    assert_true(fabs(sl_schedule_limit_us(&s.schedule, &s.cost, s.tasks, 3, 10000) - 1.8 * 4005) < 10);
    s.tasks[1].itl_target_us = 90000;
    s.tasks[1].last_us = 10000;
    assert_true(fabs(sl_schedule_limit_us(&s.schedule, &s.cost, s.tasks, 3, 12000) - 48000 * 0.75) <
                1e-6);   /* with margin */
    s.cost.spread = 0.1; /* a margin for errors of the prediction */
    assert_true(fabs(sl_schedule_limit_us(&s.schedule, &s.cost, s.tasks, 3, 12000) - 48000 * 0.75 / 1.3) < 1e-6);
    /* A target that can't be met does not stop the prompt; the other one still holds. */
    s.cost.spread = 0;
    s.tasks[1].itl_target_us = 1000;
    double limit = sl_schedule_limit_us(&s.schedule, &s.cost, s.tasks, 3, 12000);
    assert_true(limit > 4000 && limit < 1.8 * 4100);
    sl_tenants_close(&s.tenants);
}

static void test_share(void **state)
{
    (void)state;
    scene s = open_scene();
    s.cost.spread = 0;
    sl_task *prompt = add(&s, 1000);
    prompt->running = true;
    share(&s, 0);
    assert_int_equal(prompt->n_rows, s.schedule.options.max_rows); /* alone: whole chunks */
    for (int i = 0; i < 6; i++)
        add_stream(&s, 0);
    double us = share(&s, 0), limit = sl_schedule_limit_us(&s.schedule, &s.cost, s.tasks, s.n, 0);
    assert_true(us <= limit && us > limit - 1100 && prompt->n_rows > 0);
    for (uint32_t i = 1; i < s.n; i++)
        assert_int_equal(s.tasks[i].n_rows, 1);
    /* A waiting prompt gets nothing, a second running one what the first left. */
    prompt->n_left = 2;
    sl_task *second = add(&s, 1000), *waiting = add(&s, 1);
    second->running = true;
    share(&s, 0);
    assert_int_equal(prompt->n_rows, 2);
    assert_true(second->n_rows > 0 && waiting->n_rows == 0);
    sl_tenants_close(&s.tenants);
}

/* Targets that leave a prompt nothing: a block of rows now and then all the same. */
/* Few rows fit beside a stream: more of them go through as many of 30 parts as fit, step by step, and nothing else does. */
static void test_layered(void **state)
{
    (void)state;
    scene s = open_scene();
    kit_cut(&s.cost, 30);
    sl_task *stream = add_stream(&s, 0), *prompt = add(&s, 100);
    stream->n_done = 6000;
    prompt->running = true;
    prompt->n_done = 300;
    double limit_us = sl_schedule_limit_us(&s.schedule, &s.cost, s.tasks, s.n, 0), us;
    uint32_t n_steps = 0, n_rows = 0;
    while (prompt->n_parts_done < 30) {
        us = share(&s, 0);
        assert_int_equal(stream->n_rows, 1);
        assert_true(n_rows == 0 || prompt->n_rows == n_rows);
        assert_true(us <= limit_us);
        prompt->n_layered = n_rows = prompt->n_rows;
        prompt->n_parts_done = prompt->until_part;
        n_steps++;
    }
    /* 1.8 * 9 ms less the stream's 8 are 8.2 ms for three parts, of which they take 95 %: 58 rows of 1 ms and some 0.33. */
    assert_int_equal(n_rows, 58);
    assert_in_range(n_steps, 10, 11);
    /* On their way nobody else has rows, whatever its rank; without streams they go through the rest at once. */
    prompt->n_parts_done = 7;
    sl_task *other = add(&s, 50);
    other->running = true;
    other->priority = 5;
    share(&s, 0);
    assert_true(other->n_rows == 0 && prompt->n_rows == n_rows && prompt->until_part > 7);
    stream->running = false;
    share(&s, 0);
    assert_true(other->n_rows == 0 && prompt->until_part == 30);
    /* Where nothing fits they get as many parts all the same, after some steps, as cost what a block of rows does: 16 rows
     * of 58 are 8.3 parts of 30. */
    stream->running = true;
    stream->itl_target_us = 11000; /* less the margin: no more than the stream's own */
    for (uint32_t i = 0; i < s.schedule.options.ageing_turn; i++) {
        share(&s, 0);
        assert_int_equal(prompt->n_rows, 0);
    }
    share(&s, 0);
    assert_true(prompt->n_rows == n_rows && prompt->until_part == 7 + 8);
    stream->itl_target_us = 0;
    /* None begins where two prompts run, its rows' logits or hidden states are wanted, or the plan has too few parts. */
    prompt->n_layered = prompt->n_parts_done = 0;
    share(&s, 0);
    assert_true(prompt->n_rows + other->n_rows > 0 && prompt->until_part == 0 && other->until_part == 0);
    s.n--;
    prompt->n_wanted = 20;
    share(&s, 0);
    assert_true(prompt->n_rows > 0 && prompt->until_part == 0);
    prompt->n_wanted = 1;
    prompt->whole = true;
    share(&s, 0);
    assert_true(prompt->n_rows > 0 && prompt->until_part == 0);
    prompt->whole = false;
    /* They leave room for a stream in each slot. */
    s.schedule.options.max_rows = s.schedule.options.n_slots + 40;
    share(&s, 0);
    assert_true(prompt->n_rows == 40 && prompt->until_part > 0);
    kit_cut(&s.cost, 3);
    share(&s, 0);
    assert_true(prompt->n_rows > 0 && prompt->until_part == 0);
    sl_tenants_close(&s.tenants);
}

static void test_dry(void **state)
{
    (void)state;
    scene s = open_scene();
    s.cost.spread = 0;
    sl_task *prompt = add(&s, 1000);
    prompt->running = true;
    sl_task *stream = add_stream(&s, 2500 * 4 / 3);
    uint32_t n_rows = 0;
    for (int i = 0; i < 90; i++) {
        stream->last_us = i;
        share(&s, i);
        assert_int_equal(stream->n_rows, 1);
        assert_true(prompt->n_rows == 0 || prompt->n_rows == SL_KV_BLOCK);
        n_rows += prompt->n_rows;
    }
    assert_int_equal(n_rows, SL_KV_BLOCK * (90 / (s.schedule.options.ageing_turn + 1)));
    sl_tenants_close(&s.tenants);
}

static void test_may_start(void **state)
{
    (void)state;
    scene s = open_scene();
    s.cost.spread = 0;
    s.schedule.options.n_slots = 4;
    for (int i = 0; i < 3; i++)
        add_stream(&s, 0);
    sl_task *task = add(&s, 100);
    assert_true(sl_schedule_may_start(&s.schedule, &s.cost, s.tasks, s.n, task));
    task->itl_target_us = 5500 * 4 / 3; /* four streams take 5 ms and what they attend, the target has a margin */
    assert_true(sl_schedule_may_start(&s.schedule, &s.cost, s.tasks, s.n, task));
    task->itl_target_us = 5000 * 4 / 3;
    assert_false(sl_schedule_may_start(&s.schedule, &s.cost, s.tasks, s.n, task));
    task->ageing = true; /* its turn comes before targets */
    assert_true(sl_schedule_may_start(&s.schedule, &s.cost, s.tasks, s.n, task));
    task->ageing = false;
    task->itl_target_us = 1000; /* lost anyway */
    assert_true(sl_schedule_may_start(&s.schedule, &s.cost, s.tasks, s.n, task));
    add_stream(&s, 0);
    assert_false(sl_schedule_may_start(&s.schedule, &s.cost, s.tasks, s.n, task)); /* no slot */
    sl_tenants_close(&s.tenants);
}

static void test_batching(void **state)
{
    (void)state;
    scene s = open_scene();
    s.schedule.options.n_slots = 3;
    s.schedule.options.max_wait_us = 1000;
    sl_batching *mode = &s.schedule.options.batching;
    add(&s, 10);
    for (*mode = SL_BATCHING_CONTINUOUS; *mode <= SL_BATCHING_STATIC; (*mode)++)
        assert_true(sl_schedule_opens_batch(&s.schedule, s.tasks, s.n, 0));
    *mode = SL_BATCHING_DYNAMIC;
    assert_false(sl_schedule_opens_batch(&s.schedule, s.tasks, s.n, 999));
    assert_true(sl_schedule_opens_batch(&s.schedule, s.tasks, s.n, 1000));
    add(&s, 10);
    add(&s, 10);
    assert_true(sl_schedule_opens_batch(&s.schedule, s.tasks, s.n, 0)); /* full */
    add_stream(&s, 0);
    assert_false(sl_schedule_opens_batch(&s.schedule, s.tasks, s.n, 5000));
    *mode = SL_BATCHING_STATIC;
    assert_false(sl_schedule_opens_batch(&s.schedule, s.tasks, s.n, 5000));
    *mode = SL_BATCHING_CONTINUOUS;
    assert_true(sl_schedule_opens_batch(&s.schedule, s.tasks, s.n, 5000));
    sl_tenants_close(&s.tenants);
}

static void test_outranks(void **state)
{
    (void)state;
    scene s = open_scene();
    for (int i = 0; i < 3; i++)
        add_stream(&s, 0);
    const sl_schedule *schedule = &s.schedule;
    uint32_t most = schedule->options.most_preemptions;
    sl_task *t = s.tasks;
    assert_true(sl_schedule_outranks(schedule, &t[0], &t[1]) && !sl_schedule_outranks(schedule, &t[1], &t[0]));
    t[1].priority = 1;
    assert_true(sl_schedule_outranks(schedule, &t[1], &t[0]) && !sl_schedule_outranks(schedule, &t[0], &t[1]));
    t[2].n_preemptions = most - 1;
    assert_false(sl_schedule_outranks(schedule, &t[2], &t[1]));
    t[2].n_preemptions = most; /* pre-empted often enough: above all others now */
    assert_true(sl_schedule_outranks(schedule, &t[2], &t[1]) && !sl_schedule_outranks(schedule, &t[1], &t[2]));
    t[0].n_preemptions = t[1].n_preemptions = most; /* among the spared arrival alone counts */
    assert_true(sl_schedule_outranks(schedule, &t[0], &t[1]) && sl_schedule_outranks(schedule, &t[1], &t[2]));
    sl_tenants_close(&s.tenants);
}

static void test_may_push_out(void **state)
{
    (void)state;
    scene s = open_scene();
    sl_task *low = add_stream(&s, 0), *high = add(&s, 100);
    high->priority = 1;
    assert_true(sl_schedule_may_push_out(&s.schedule, high, low));
    low->ageing = true;
    assert_false(sl_schedule_may_push_out(&s.schedule, high, low));
    low->ageing = false;
    low->n_preemptions = s.schedule.options.most_preemptions - 1;
    assert_true(sl_schedule_may_push_out(&s.schedule, high, low));
    low->n_preemptions++;
    assert_false(sl_schedule_may_push_out(&s.schedule, high, low));
    low->n_preemptions = 0;
    low->priority = 1;
    assert_false(sl_schedule_may_push_out(&s.schedule, high, low));
    sl_tenants_close(&s.tenants);
}

/* What there is no memory for goes to the next in order. */
static uint32_t grant_none_to_first(void *user, uint32_t index, uint32_t n_rows)
{
    (void)user;
    return index == 0 ? 0 : SL_MIN(n_rows, 7);
}

static void test_grant(void **state)
{
    (void)state;
    scene s = open_scene();
    for (int i = 0; i < 3; i++)
        add(&s, 100)->running = true;
    sl_schedule_order(&s.schedule, &s.cost, &s.tenants, s.tasks, s.n, 0, s.order, s.scratch);
    double us = sl_schedule_share(&s.schedule, &s.cost, s.tasks, s.n, s.order, 0, grant_none_to_first, NULL);
    assert_true(s.tasks[0].n_rows == 0 && s.tasks[1].n_rows == 7 && s.tasks[2].n_rows == 7);
    assert_true(us == 2000 + 13 * 1000 + 2 * 28);
    sl_tenants_close(&s.tenants);
}

/* What a prompt costs in chunks, counted row by row and tile by tile. */
static double price_anew(const scene *s, const sl_task *task)
{
    const sl_cost *cost = &s->cost;
    uint32_t chunk = s->schedule.options.max_rows;
    double us = 0;
    for (uint32_t at = 0, n; at < task->n_left; at += n) {
        n = SL_MIN(chunk, task->n_left - at);
        sl_step_work work = {.n_rows = n, .n_wanted = at + n == task->n_left};
        for (uint32_t r = 0; r < n; r++)
            for (uint32_t g = 0; g < cost->n_groups; g++) {
                double seen = task->n_done + at + r + 1, window = cost->window[g] ? cost->window[g] : INFINITY;
                uint32_t in_tile = r % SL_ATTENTION_ROWS + 1;
                work.row_positions += cost->share[g] * fmin(seen, window);
                if (in_tile == SL_ATTENTION_ROWS || r + 1 == n)
                    work.tile_positions += cost->share[g] * fmin(seen, window + in_tile - 1);
            }
        us += sl_cost_predict_us(cost, &work);
    }
    return us;
}

/* The order prices all prompts at each step, while the cost model learns: as if each were priced with care. */
static void test_prices(void **state)
{
    (void)state;
    uint32_t random = 7;
    scene s = open_scene();
    s.cost.n_groups = 2;
    s.cost.window[1] = 100;
    s.cost.share[0] = 0.25;
    s.cost.share[1] = 0.75;
    s.cost.prior_us[SL_COST_TERMS - 1] = 3;
    for (int i = 0; i < SL_COST_TERMS; i++)
        s.cost.p[i][i] = 1;
    for (int i = 0; i < 20; i++)
        add(&s, 1)->ttft_target_us = 1000000;
    for (int round = 0; round < 100; round++) {
        for (uint32_t i = 0; i < s.n; i++) {
            random = random * 1664525 + 1013904223;
            s.tasks[i].n_done = (random >> 8) % 3 ? 0 : (random >> 16) % 700;
            random = random * 1664525 + 1013904223;
            s.tasks[i].n_left = i == 0 ? 1024 : 1 + (random >> 16) % (i % 2 ? 300 : 3000);
        }
        sl_schedule_order(&s.schedule, &s.cost, &s.tenants, s.tasks, s.n, 0, s.order, s.scratch);
        for (uint32_t i = 0; i < s.n; i++) {
            double anew = price_anew(&s, &s.tasks[i]);
            assert_true(fabs(s.tasks[i].prefill_us / anew - 1) < 1e-9);
        }
        sl_step_work work = {0};
        sl_cost_add(&s.cost, &work, s.tasks[1].n_done, s.tasks[1].n_left, 1);
        sl_cost_observe(&s.cost, &work, 1000.0 * (1 + (random >> 16) % 2000));
    }
    sl_tenants_close(&s.tenants);
}

static double forecast(scene *s, uint32_t index, int64_t now_us)
{
    sl_forecast_slot slots[2 * MOST];
    sl_schedule_order(&s->schedule, &s->cost, &s->tenants, s->tasks, s->n, now_us, s->order, s->scratch);
    return sl_forecast_us(&s->schedule, &s->cost, s->tasks, s->n, s->order, index, now_us, slots);
}

static void expect_wait(scene *s, uint32_t index, int64_t now_us, double expected_us)
{
    assert_true(fabs(forecast(s, index, now_us) - expected_us) < 1e-6);
}

static void test_forecast_of_prompts(void **state)
{
    (void)state;
    scene s = open_scene();
    add(&s, 100);
    add(&s, 200);
    double both = 2000 + 299 * 1000 + 100 * 101 / 2 + 200 * 201 / 2; /* one step computes both */
    expect_wait(&s, 0, 0, both);
    expect_wait(&s, 1, 0, both);
    s.tasks[0].running = true;
    expect_wait(&s, 1, 0, both);
    s.n = 1; /* alone, in chunks */
    s.tasks[0].n_left = 1024;
    expect_wait(&s, 0, 0, sl_cost_prefill_us(&s.cost, 0, 1024, 1, 512));
    s.tasks[0].n_left = 1;
    s.tasks[0].running = false;
    s.schedule.options.batching = SL_BATCHING_DYNAMIC; /* it arrived at 0 */
    s.schedule.options.max_wait_us = 1000;
    expect_wait(&s, 0, 400, 600 + 2001);
    expect_wait(&s, 0, 4000, 2001);
    sl_tenants_close(&s.tenants);
}

/* Eight streams fill all slots: what waits starts when the first one ends, or the first two, or all. */
static void test_forecast_of_slots(void **state)
{
    (void)state;
    scene s = open_scene();
    sl_task *task = add(&s, 1);
    double segment_us[9]; /* a step of the streams from the i-th on, each at the middle of what it will attend */
    for (uint32_t i = 0; i < 8; i++)
        add_stream(&s, 0)->n_to_come = 100 + 50 * i;
    for (uint32_t i = 0; i < 9; i++) {
        segment_us[i] = i < 8 ? 1000 : 0;
        for (uint32_t j = i; j < 8; j++)
            segment_us[i] += 1000 + 2 + 50 + 25 * j;
    }
    expect_wait(&s, 0, 0, 100 * segment_us[0] + segment_us[1] + 1001);
    task->n_choices = 2;
    expect_wait(&s, 0, 0, 100 * segment_us[0] + 50 * segment_us[1] + segment_us[2] + 1001);
    s.schedule.options.batching = SL_BATCHING_STATIC;
    double all_us = 100 * segment_us[0] + 2001;
    for (int i = 1; i < 8; i++)
        all_us += 50 * segment_us[i];
    expect_wait(&s, 0, 0, all_us);
    /* One behind another: the first one's ten tokens take as many steps, of which its prompt is one. */
    s.schedule.options.batching = SL_BATCHING_CONTINUOUS;
    task->n_choices = 1;
    add(&s, 1);
    double steps_us = 100 * segment_us[0] + segment_us[1] + 1001 + 9 * (segment_us[1] + 1000 + 1 + 4 + 1);
    expect_wait(&s, s.n - 1, 0, steps_us + segment_us[1] + 1001);
    sl_tenants_close(&s.tenants);
}

/* Targets of streams leave a prompt nothing: a block of rows every ninth step. */
static void test_forecast_of_dry_steps(void **state)
{
    (void)state;
    scene s = open_scene();
    s.cost.spread = 0;
    add(&s, 20);
    add_stream(&s, 2600 * 4 / 3)->n_to_come = 1000;
    double alone_us = 2000 + 502, block_us = 16 * 1000 + 16 * 17 / 2, rest_us = 4 * 1000 + 4 * 16 + 10;
    expect_wait(&s, 0, 0, 8 * alone_us + alone_us + block_us + 8 * alone_us + alone_us + rest_us);
    sl_tenants_close(&s.tenants);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrival_and_priority),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_most_deadlines),
        cmocka_unit_test(test_deadlines_and_shares),
        cmocka_unit_test(test_feasible_is_best),
        cmocka_unit_test(test_fair_shares),
        cmocka_unit_test(test_tenants),
        cmocka_unit_test(test_ageing),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_layered),
        cmocka_unit_test(test_dry),
        cmocka_unit_test(test_may_start),
        cmocka_unit_test(test_batching),
        cmocka_unit_test(test_outranks),
        cmocka_unit_test(test_may_push_out),
        cmocka_unit_test(test_grant),
        cmocka_unit_test(test_prices),
        cmocka_unit_test(test_forecast_of_prompts),
        cmocka_unit_test(test_forecast_of_slots),
        cmocka_unit_test(test_forecast_of_dry_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
