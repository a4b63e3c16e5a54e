/* A thousand requests give the same tokens and log-probabilities, bit for bit, whatever happens around them: random order
 * and arrivals, batch sizes, chunks, threads, places of KV blocks, prefix hits, pre-emptions, a restart half way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model_run.h"

/* Sanitizers look for other faults, and slow the kernels down. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { N = 250 };
#else
enum { N = 1000 };
#endif
enum { N_BASES = 7, CONTEXT = 128, MAX_ANSWER = 48, N_TOP = 3 };

typedef struct {
    uint32_t tokens[MAX_ANSWER];
    float logprobs[MAX_ANSWER];
    sl_logprob top[MAX_ANSWER][N_TOP];
    uint32_t n;
    bool over;
} answer;

typedef struct {
    uint32_t prompt[CONTEXT];
    uint32_t n_prompt, max_tokens;
    int32_t priority;
    uint64_t seed;
    answer alone, together;
    answer *current;
    uint64_t id;
} request;

static request requests[N];

static uint32_t draw(uint64_t *random, uint32_t below)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX generator */
    return (uint32_t)((*random >> 33) % below);
}

static void make_requests(void)
{
    static uint32_t bases[N_BASES][CONTEXT];
    uint64_t random = 1;
    for (int b = 0; b < N_BASES; b++)
        for (int i = 0; i < CONTEXT; i++)
            bases[b][i] = draw(&random, 200);
    for (int i = 0; i < N; i++) {
        request *r = &requests[i];
        const uint32_t *base = bases[draw(&random, N_BASES)];
        uint32_t n_shared = draw(&random, 64);
        r->n_prompt = n_shared + 1 + draw(&random, 16);
        for (uint32_t t = 0; t < r->n_prompt; t++)
            r->prompt[t] = t < n_shared ? base[t] : draw(&random, 200);
        r->max_tokens = 1 + draw(&random, i % 2 ? 8 : MAX_ANSWER);
        r->priority = (int32_t)draw(&random, 3);
        r->seed = draw(&random, 50);
    }
}

static void on_event(void *user, const sl_event *event)
{
    request *r = user;
    answer *a = r->current;
    if (event->kind == SL_EVENT_FINISHED) {
        assert_int_not_equal(event->finish, SL_FINISH_ERROR);
        a->over = event->finish != SL_FINISH_CANCELLED;
        return;
    }
    a->tokens[a->n] = event->sampled.token;
    a->logprobs[a->n] = event->sampled.logprob;
    assert_int_equal(event->sampled.n_top, N_TOP);
    memcpy(a->top[a->n++], event->sampled.top, sizeof a->top[0]);
}

/* Submits what is left of a request: after a restart its prompt goes on with the tokens that it has given. */
static void submit(run_model *run, request *r, answer *a)
{
    uint32_t prompt[CONTEXT];
    memcpy(prompt, r->prompt, sizeof prompt);
    memcpy(prompt + r->n_prompt, a->tokens, a->n * sizeof *prompt);
    sl_request q = {.prompt = prompt,
                    .n_prompt = r->n_prompt + a->n,
                    .max_tokens = r->max_tokens - a->n,
                    .priority = r->priority,
                    .sampling = sl_sample_params_default(),
                    .on_event = on_event,
                    .user = r};
    q.sampling.temperature = r->seed % 4 ? 1.0f : 0.0f;
    q.sampling.seed = r->seed;
    q.sampling.n_logprobs = N_TOP;
    r->current = a;
    sl_err err;
    run_require(sl_engine_submit(run->engine, &q, &r->id, &err), &err);
}

static void shuffle(uint32_t order[N], uint64_t *random)
{
    for (uint32_t i = 0; i < N; i++)
        order[i] = i;
    for (uint32_t i = N; i > 1; i--) {
        uint32_t j = draw(random, i), t = order[i - 1];
        order[i - 1] = order[j];
        order[j] = t;
    }
}

/* Submits the requests of an order that are not over between steps, until n_steps have been made: a few at a time, or one
 * now and then, so that those of high priority find others running. */
static void play(run_model *run, const uint32_t order[N], uint64_t *random, uint32_t n_steps, bool slowly)
{
    sl_err err;
    bool busy = true;
    uint32_t next = 0;
    for (uint32_t s = 0; s < n_steps && (busy || next < N); s++) {
        for (uint32_t k = slowly ? draw(random, 6) == 0 : draw(random, 12); k > 0 && next < N; next++) {
            request *r = &requests[order[next]];
            if (r->together.over)
                continue;
            submit(run, r, &r->together);
            k--;
        }
        run_require(sl_engine_step(run->engine, run_clock(NULL), &busy, &err), &err);
    }
}

static void check_answers(const char *what)
{
    for (int i = 0; i < N; i++) {
        request *r = &requests[i];
        assert_true(r->together.over);
        if (memcmp(&r->alone, &r->together, sizeof r->alone) != 0)
            fail_msg("%s: request %d differs from what it gives alone", what, i);
        r->together = (answer){0};
    }
}

static void answer_alone(run_setup setup)
{
    setup.no_prefix_cache = true;
    run_model run = run_open(&setup);
    for (int i = 0; i < N; i++) {
        requests[i].alone = (answer){0};
        submit(&run, &requests[i], &requests[i].alone);
        run_until_idle(&run);
        assert_true(requests[i].alone.over);
    }
    run_close(&run);
}

static void check_model(const char *path, sl_kv_type kv_type)
{
    static const struct {
        const char *name;
        uint32_t n_sequences, chunk, restart_after;
        int n_threads;
        bool tight;
    } scenes[] = {{"large batches", 32, 512, 0, 1, false},
                  {"small chunks, two threads", 5, 7, 0, 2, false},
                  {"pre-empted", 16, 40, 0, 1, true},
                  {"restarted", 12, 64, 800, 1, true}};
    run_setup setup = {.path = path, .level = sl_level_best(), .kv_type = kv_type, .context = CONTEXT};
    answer_alone(setup);
    for (size_t c = 0; c < SL_COUNTOF(scenes); c++) {
        uint64_t random = c + 99;
        uint32_t order[N];
        sl_engine_statistics statistics;
        setup.n_sequences = scenes[c].n_sequences;
        setup.chunk = scenes[c].chunk;
        setup.n_threads = scenes[c].n_threads;
        setup.shuffle_seed = c;
        run_model run = run_open(&setup);
        sl_engine_model model = sl_engine_model_of(sl_bundle_model(run.bundle));
        for (int g = 0; scenes[c].tight && g < model.plan->n_groups; g++) /* what one and a half full sequences take */
            setup.kv_bytes += model.plan->groups[g].block_bytes * (CONTEXT / SL_KV_BLOCK) * 3 / 2;
        for (int pass = scenes[c].restart_after ? 0 : 1; pass < 2; pass++) {
            run_close(&run);
            run = run_open(&setup);
            shuffle(order, &random);
            play(&run, order, &random, pass == 0 ? scenes[c].restart_after : UINT32_MAX, scenes[c].tight);
            sl_engine_stats(run.engine, &statistics);
        }
        print_message("%s: %llu steps, %llu pre-emptions, %llu of %llu prompt tokens cached\n", scenes[c].name,
                      (unsigned long long)statistics.n_steps, (unsigned long long)statistics.n_preemptions,
                      (unsigned long long)statistics.cached_tokens, (unsigned long long)statistics.prompt_tokens);
        assert_true(statistics.cached_tokens > statistics.prompt_tokens / 10);
        assert_true(!scenes[c].tight || statistics.n_preemptions > N / 50);
        run_close(&run);
        setup.kv_bytes = 0;
        check_answers(scenes[c].name);
    }
}

static void test_windowed_model(void **state)
{
    (void)state;
    check_model(SL_TEST_GOLDEN_DIR "/tiny_gemma3.gguf", SL_KV_F16);
}

static void test_quantized_kv(void **state)
{
    (void)state;
    check_model(SL_TEST_GOLDEN_DIR "/tiny_llama31.gguf", SL_KV_K8V4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_windowed_model), cmocka_unit_test(test_quantized_kv)};
    make_requests();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
