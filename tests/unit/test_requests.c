/* What a request may ask for besides tokens: log-probabilities of its prompt, no end before min_tokens, bad words. The
 * answers are compared with the logits of a scoring request, and with each other across chunks, batches and threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model_run.h"

#include <math.h>

enum { N_PROMPT = 70, N_GENERATED = 12, N_VARIANTS = 4 };

static const char *const models[] = {SL_TEST_GOLDEN_DIR "/tiny_llama.gguf", SL_TEST_GOLDEN_DIR "/tiny_gemma3.gguf"};

/* Chunks, workers, requests at once. */
static const struct {
    uint32_t chunk;
    int n_threads;
    uint32_t n_sequences;
} variants[N_VARIANTS] = {{0, 1, 1}, {7, 2, 1}, {16, 3, 3}, {50, 2, 4}};

static run_model open_variant(const char *path, size_t v)
{
    run_setup setup = {.path = path,
                       .level = sl_level_best(),
                       .kv_type = SL_KV_F16,
                       .context = N_PROMPT + N_GENERATED,
                       .chunk = variants[v].chunk,
                       .n_threads = variants[v].n_threads,
                       .n_sequences = variants[v].n_sequences,
                       .with_bytes = true};
    return run_open(&setup);
}

static void make_prompt(uint32_t *prompt, uint32_t seed)
{
    for (uint32_t i = 0; i < N_PROMPT; i++) {
        seed = seed * 1664525u + 1013904223u;
        prompt[i] = 3 + (seed >> 8) % 340;
    }
}

typedef struct {
    sl_sampled scored[N_PROMPT], generated[N_GENERATED];
    uint32_t n_scored, n_generated, first;
    sl_finish finish;
    char text[512];
    size_t n_bytes;
} answer;

static void on_event(void *user, const sl_event *event)
{
    answer *a = user;
    if (event->n_bytes > 0)
        memcpy(a->text + a->n_bytes, event->bytes, event->n_bytes);
    a->n_bytes += event->n_bytes;
    switch (event->kind) {
    case SL_EVENT_PROMPT:
        if (a->n_scored == 0)
            a->first = event->position;
        assert_int_equal(event->position, a->first + a->n_scored);
        assert_int_equal(a->n_generated, 0);
        a->scored[a->n_scored++] = event->sampled;
        break;
    case SL_EVENT_TOKEN:
        a->generated[a->n_generated++] = event->sampled;
        break;
    default:
        a->finish = event->finish;
        break;
    }
}

static sl_request make_request(const uint32_t *prompt, answer *a)
{
    *a = (answer){0};
    sl_request request = {.prompt = prompt,
                          .n_prompt = N_PROMPT,
                          .max_tokens = N_GENERATED,
                          .sampling = sl_sample_params_default(),
                          .on_event = on_event,
                          .user = a};
    request.sampling.temperature = 1;
    request.sampling.n_logprobs = 2;
    return request;
}

static void submit(run_model *run, const sl_request *request)
{
    sl_err err;
    run_require(sl_engine_submit(run->engine, request, NULL, &err), &err);
}

static void assert_same_sampled(const sl_sampled *a, const sl_sampled *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(a[i].token, b[i].token);
        assert_memory_equal(&a[i].logprob, &b[i].logprob, sizeof a->logprob);
        assert_int_equal(a[i].n_top, b[i].n_top);
        assert_memory_equal(a[i].top, b[i].top, a[i].n_top * sizeof *a[i].top);
    }
}

/* The scores of a prompt against the softmax of its logits, in double precision. */
static void check_scores(run_model *run, const uint32_t *prompt, const answer *a, uint32_t from, uint32_t n_top)
{
    float *rows = run_score(run, prompt, N_PROMPT);
    assert_int_equal(a->first, from + 1);
    assert_int_equal(a->n_scored, N_PROMPT - 1 - from);
    for (uint32_t i = 0; i < a->n_scored; i++) {
        const float *logits = rows + (size_t)(from + i) * run->n_vocab;
        const sl_sampled *got = &a->scored[i];
        double sum = 0;
        for (uint32_t t = 0; t < run->n_vocab; t++)
            sum += exp((double)logits[t]);
        assert_int_equal(got->token, prompt[from + i + 1]);
        assert_true(fabs((double)got->logprob - ((double)logits[got->token] - log(sum))) < 1e-5);
        assert_int_equal(got->n_top, n_top);
        for (uint32_t k = 0; k < n_top; k++) {
            uint32_t n_above = 0;
            for (uint32_t t = 0; t < run->n_vocab; t++)
                n_above += logits[t] > logits[got->top[k].token];
            assert_int_equal(n_above, k);
            assert_true(fabs((double)got->top[k].logprob - ((double)logits[got->top[k].token] - log(sum))) < 1e-5);
        }
    }
    free(rows);
}

/* Log-probabilities of prompts, alone and beside others, with an answer after them and without. */
static void test_prompt_logprobs(void **state)
{
    (void)state;
    for (size_t m = 0; m < SL_COUNTOF(models); m++) {
        static answer first[4], others[4];
        uint32_t prompts[4][N_PROMPT];
        for (uint32_t i = 0; i < 4; i++)
            make_prompt(prompts[i], i + 1);
        for (size_t v = 0; v < N_VARIANTS; v++) {
            run_model run = open_variant(models[m], v);
            answer *answers = v ? others : first;
            for (uint32_t i = 0; i < 4; i++) {
                sl_request request = make_request(prompts[i], &answers[i]);
                request.prompt_logprobs = i != 3;
                request.n_prompt_logprobs = 5 * i;
                request.score_from = i == 2 ? 40 : 0;
                if (i == 1)
                    request.max_tokens = 0;
                submit(&run, &request);
            }
            run_until_idle(&run);
            for (uint32_t i = 0; i < 3; i++)
                check_scores(&run, prompts[i], &answers[i], i == 2 ? 40 : 0, 5 * i);
            assert_int_equal(answers[3].n_scored, 0);
            for (uint32_t i = 0; i < 4 && v; i++) {
                assert_int_equal(answers[i].n_generated, i == 1 ? 0 : N_GENERATED);
                assert_same_sampled(first[i].scored, others[i].scored, others[i].n_scored);
                assert_same_sampled(first[i].generated, others[i].generated, others[i].n_generated);
            }
            run_close(&run);
        }
    }
}

/* Before min_tokens neither stop tokens nor stop strings end an answer, and bad words do not come. */
static void test_min_tokens_and_bad_words(void **state)
{
    (void)state;
    static answer free_run, a;
    uint32_t prompt[N_PROMPT];
    make_prompt(prompt, 9);
    run_model run = open_variant(models[0], 2);
    sl_request request = make_request(prompt, &free_run);
    submit(&run, &request);
    run_until_idle(&run);
    assert_int_equal(free_run.n_generated, N_GENERATED);

    uint32_t stops[N_GENERATED];
    for (uint32_t i = 0; i < N_GENERATED; i++)
        stops[i] = free_run.generated[i].token;
    request = make_request(prompt, &a);
    request.stop_tokens = stops;
    request.n_stop_tokens = N_GENERATED;
    request.sampling.min_tokens = 8;
    submit(&run, &request);
    run_until_idle(&run);
    assert_true(a.n_generated >= 8);
    for (uint32_t i = 0; i < 8; i++)
        for (uint32_t k = 0; k < N_GENERATED; k++)
            assert_true(a.generated[i].token != stops[k]);

    /* the first byte of the answer as a stop string: it counts from the end of the fifth token on */
    sl_bytes string = {free_run.text, 1};
    for (uint32_t min = 0; min <= N_GENERATED; min += N_GENERATED / 2) {
        request = make_request(prompt, &a);
        request.stop_strings = (sl_bytes_list){&string, 1};
        request.sampling.min_tokens = min;
        submit(&run, &request);
        run_until_idle(&run);
        assert_true(a.n_generated >= min);
        if (min == 0)
            assert_int_equal(a.n_bytes, 0);
    }

    const uint32_t pair[] = {free_run.generated[3].token, free_run.generated[4].token};
    const uint32_t begun[] = {prompt[N_PROMPT - 1], free_run.generated[0].token};
    for (int k = 0; k < 2; k++) {
        sl_token_list word = {k ? begun : pair, 2};
        request = make_request(prompt, &a);
        request.sampling.bad_words = &word;
        request.sampling.n_bad_words = 1;
        submit(&run, &request);
        run_until_idle(&run);
        uint32_t at = k ? 0 : 4;
        for (uint32_t i = 0; i < at; i++)
            assert_int_equal(a.generated[i].token, free_run.generated[i].token);
        assert_true(a.generated[at].token != free_run.generated[at].token);
    }
    run_close(&run);
}

static void test_refusals(void **state)
{
    (void)state;
    static answer a;
    uint32_t prompt[N_PROMPT];
    make_prompt(prompt, 9);
    run_model run = open_variant(models[0], 0);
    sl_err err;
    sl_request request = make_request(prompt, &a);
    request.n_prompt_logprobs = SL_MAX_LOGPROBS + 1;
    assert_int_equal(sl_engine_submit(run.engine, &request, NULL, &err), SL_ERR_ARGUMENT);
    request = make_request(prompt, &a);
    request.max_tokens = 0;
    assert_int_equal(sl_engine_submit(run.engine, &request, NULL, &err), SL_ERR_ARGUMENT);
    const uint32_t outside = run.n_vocab;
    request = make_request(prompt, &a);
    request.sampling.allowed_tokens = (sl_token_list){&outside, 1};
    assert_int_equal(sl_engine_submit(run.engine, &request, NULL, &err), SL_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "allowed_tokens"));
    run_close(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt_logprobs),
        cmocka_unit_test(test_min_tokens_and_bad_words),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
