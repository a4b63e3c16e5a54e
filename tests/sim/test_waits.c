/* Waits that the engine predicts, beside those that come true: queues of several shapes on the fake backend, whose runs
 * take virtual time. The engine learns what they take, and how long answers are, from requests that went before. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_backend.h"
#include "invariants.h"

#include <stdlib.h>

enum { CONTEXT = 2000, SLOTS = 16, STOP = 3 };

typedef struct queue {
    const char *name;
    uint32_t n_ahead, n_prompt, n_answer; /* requests before the one that asks; most tokens of each */
    bool mixed;                           /* lengths from a quarter of the most up, else all alike */
    bool stops;                           /* at a token that comes with a probability of 1/24 */
    uint32_t n_choices, n_steps;          /* n_steps: that the engine has made when the one asks */
    sl_batching batching;
    double weight; /* of the one's tenant, against all others' */
} queue;

static void require(sl_status status, const sl_err *err)
{
    if (status != SL_OK)
        fail_msg("%s: %s", sl_status_name(status), err->message);
}

static sl_engine *open_engine(sl_batching batching)
{
    static sl_step steps[100]; /* every fifth attention: so many parts */
    static sl_plan plan = {
        .groups = {{.n_layers = 1, .block_bytes = 1000}}, .n_groups = 1, .steps = steps, .n_steps = SL_COUNTOF(steps)};
    for (size_t i = 0; i < SL_COUNTOF(steps); i++)
        steps[i].kind = i % 5 == 2 ? SL_STEP_ATTENTION : SL_STEP_MATMUL;
    sl_engine_model model = {
        .plan = &plan, .backend = fake_backend(), .n_vocab = FAKE_VOCAB, .context_length = CONTEXT};
    sl_engine_options options = {
        .n_sequences = SLOTS, .chunk = 256, .clock = fake_clock, .batching = batching, .max_wait_us = 30000};
    sl_engine *e;
    sl_err err;
    require(sl_engine_open(&model, &options, NULL, &e, &err), &err);
    return e;
}

static bool step(sl_engine *e)
{
    bool busy;
    sl_err err;
    int64_t before_us = fake_now_us;
    require(sl_engine_step(e, fake_now_us, &busy, &err), &err);
    if (fake_now_us == before_us)
        fake_now_us += 100; /* a batch is being collected */
    return busy;
}

static uint64_t random_state;
static uint32_t draw(uint32_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((random_state >> 33) % below);
}

static uint32_t length(const queue *q, uint32_t most)
{
    return q->mixed ? most / 4 + draw(most * 3 / 4) : most;
}

static void on_event(void *user, const sl_event *event)
{
    int64_t *first_us = user;
    if (first_us && *first_us == 0) /* a token, or the end of an answer without one */
        *first_us = fake_now_us;
}

/* A request of the queue; *first_us becomes the time of its first token. Before that its prediction, where one is asked
 * for. Tokens are drawn, nearly all alike likely. */
static void submit(sl_engine *e, const queue *q, uint64_t tenant, int64_t *first_us, int64_t *predicted_us)
{
    uint32_t prompt[CONTEXT], stop = STOP;
    sl_err err;
    sl_request r = {.prompt = prompt,
                    .n_prompt = length(q, q->n_prompt),
                    .max_tokens = length(q, q->n_answer),
                    .n_choices = q->n_choices,
                    .tenant = tenant,
                    .tenant_weight = tenant ? q->weight : 1,
                    .stop_tokens = &stop,
                    .n_stop_tokens = q->stops,
                    .sampling = sl_sample_params_default(),
                    .on_event = on_event,
                    .user = first_us};
    for (size_t i = 0; i < r.n_prompt; i++)
        prompt[i] = draw(FAKE_VOCAB);
    r.sampling.temperature = 20; /* nearly uniform */
    r.sampling.seed = draw(1u << 30);
    if (predicted_us)
        require(sl_engine_predict(e, &r, predicted_us, &err), &err);
    require(sl_engine_submit(e, &r, NULL, &err), &err);
}

/* Requests one by one, of all lengths, then a crowd of the queue's own. */
static void warm_up(sl_engine *e, const queue *q)
{
    queue any = {.n_prompt = 1900, .n_answer = 8, .mixed = true};
    for (uint32_t i = 0; i < 40; i++) {
        any.n_prompt = 8 + draw(1900);
        submit(e, &any, 0, NULL, NULL);
        while (step(e))
            ;
    }
    for (uint32_t i = 0; i < 100; i++) {
        submit(e, q, 0, NULL, NULL);
        step(e);
    }
    while (step(e))
        ;
}

/* What was predicted over what came true. */
static double ask(const queue *q, uint64_t seed)
{
    random_state = seed;
    fake_now_us = 1000;
    sl_engine *e = open_engine(q->batching);
    warm_up(e, q);
    for (uint32_t i = 0; i < q->n_ahead; i++)
        submit(e, q, 0, NULL, NULL);
    for (uint32_t i = 0; i < q->n_steps; i++)
        step(e);
    int64_t first_us = 0, predicted_us, now_us = fake_now_us;
    submit(e, q, q->weight > 0, &first_us, &predicted_us);
    while (first_us == 0)
        step(e);
    double ratio = (double)predicted_us / (double)(first_us - now_us);
    print_message("%s: waited %.0f ms, predicted %.0f (%+.0f %%)\n", q->name, (double)(first_us - now_us) / 1e3,
                  (double)predicted_us / 1e3, 100 * (ratio - 1));
    while (step(e))
        ;
    sl_engine_close(e);
    return ratio;
}

/* Where nothing is left to chance a prediction is as good as the cost model. */
static void test_known_lengths(void **state)
{
    (void)state;
    const queue queues[] = {
        {.name = "nobody", .n_prompt = 128, .n_answer = 64},
        {.name = "half of the slots", .n_ahead = 8, .n_prompt = 128, .n_answer = 64},
        {.name = "the last slot", .n_ahead = 15, .n_prompt = 128, .n_answer = 64},
        {.name = "no slot", .n_ahead = 16, .n_prompt = 128, .n_answer = 64},
        {.name = "no slot, later", .n_ahead = 16, .n_prompt = 128, .n_answer = 64, .n_steps = 40},
        {.name = "a queue", .n_ahead = 90, .n_prompt = 128, .n_answer = 64},
        {.name = "a mixed queue", .n_ahead = 90, .n_prompt = 300, .n_answer = 200, .mixed = true},
        {.name = "a mixed queue, later",
         .n_ahead = 90,
         .n_prompt = 300,
         .n_answer = 200,
         .mixed = true,
         .n_steps = 400},
        {.name = "long prompts", .n_ahead = 40, .n_prompt = 1900, .n_answer = 20, .mixed = true},
        {.name = "long answers", .n_ahead = 40, .n_prompt = 20, .n_answer = 1000, .mixed = true},
        {.name = "choices", .n_ahead = 40, .n_prompt = 200, .n_answer = 100, .n_choices = 4},
        {.name = "static",
         .n_ahead = 40,
         .n_prompt = 128,
         .n_answer = 64,
         .batching = SL_BATCHING_STATIC,
         .mixed = true},
        {.name = "dynamic", .n_ahead = 5, .n_prompt = 128, .n_answer = 64, .batching = SL_BATCHING_DYNAMIC},
        {.name = "dynamic, a queue", .n_ahead = 40, .n_prompt = 128, .n_answer = 64, .batching = SL_BATCHING_DYNAMIC},
        {.name = "a tenant of its own", .n_ahead = 90, .n_prompt = 128, .n_answer = 64, .n_steps = 30, .weight = 1},
    };
    enum { N_SEEDS = 3 };
    double sum = 0;
    for (size_t i = 0; i < SL_COUNTOF(queues); i++)
        for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
            double error = fabs(log(ask(&queues[i], seed)));
            assert_true(error <= log(1.3));
            sum += error;
        }
    double mean = expm1(sum / (double)(SL_COUNTOF(queues) * N_SEEDS));
    print_message("error %.1f %% on average\n", 100 * mean);
    assert_true(mean <= 0.1);
}

/* Where answers stop when they like, predictions are right on average. */
static void test_unknown_lengths(void **state)
{
    (void)state;
    enum { N = 12 };
    const queue queues[] = {
        {.name = "answers that stop", .n_ahead = 90, .n_prompt = 128, .n_answer = 1000, .stops = true},
        {.name = "answers that stop, later",
         .n_ahead = 90,
         .n_prompt = 300,
         .n_answer = 60,
         .stops = true,
         .mixed = true,
         .n_steps = 100},
    };
    for (size_t i = 0; i < SL_COUNTOF(queues); i++) {
        double sum = 0;
        for (uint64_t seed = 1; seed <= N; seed++)
            sum += log(ask(&queues[i], seed)) / N;
        print_message("%s: %+.0f %% on average\n", queues[i].name, 100 * expm1(sum));
        assert_true(fabs(sum) <= log(1.1));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_lengths),
        cmocka_unit_test(test_unknown_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
