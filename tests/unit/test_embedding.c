/* Embeddings: hidden states and their pooling against transformers on tiny models; the same bits in any chunk, batch,
 * number of threads, memory and with any passes; refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model_run.h"

#include <math.h>

enum { MAX_EMBD = 128, N_LENGTHS = 4, N_GOLDEN = 80, MAX_TOKENS = 40, N_REQUESTS = 13, CONTEXT = 128 };

static const char *const names[] = {"tiny_llama", "tiny_llama31", "tiny_gemma3"};

/* What tools/tiny_models.py wrote of a model: tokens and the hidden state behind each. */
typedef struct {
    char path[512];
    uint32_t tokens[N_GOLDEN], n_embd;
    float *states;
} golden;

static golden read_golden(const char *name)
{
    golden g;
    char path[512];
    uint32_t shape[2];
    snprintf(g.path, sizeof g.path, "%s/%s.gguf", SL_TEST_GOLDEN_DIR, name);
    snprintf(path, sizeof path, "%s/%s.hidden", SL_TEST_GOLDEN_DIR, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(shape, 4, 2, f), 2);
    assert_int_equal(shape[0], N_GOLDEN);
    g.n_embd = shape[1];
    assert_true(g.n_embd <= MAX_EMBD);
    assert_int_equal(fread(g.tokens, 4, N_GOLDEN, f), N_GOLDEN);
    size_t n = (size_t)N_GOLDEN * g.n_embd;
    g.states = malloc(n * sizeof *g.states);
    assert_int_equal(fread(g.states, 4, n, f), n);
    fclose(f);
    return g;
}

typedef struct {
    float embedding[MAX_EMBD];
    uint32_t n_embd, n_embeddings, n_cached;
    uint32_t tokens[MAX_TOKENS], n_tokens;
    sl_finish finish;
    uint32_t n_finished;
} answer;

static void on_event(void *user, const sl_event *event)
{
    answer *a = user;
    switch (event->kind) {
    case SL_EVENT_EMBEDDING:
        assert_int_equal(a->n_finished, 0);
        assert_true(event->n_embedding <= MAX_EMBD);
        a->n_embd = event->n_embedding;
        memcpy(a->embedding, event->embedding, a->n_embd * sizeof *a->embedding);
        a->n_embeddings++;
        break;
    case SL_EVENT_TOKEN:
        a->tokens[a->n_tokens++] = event->sampled.token;
        break;
    case SL_EVENT_FINISHED:
        a->finish = event->finish;
        a->n_cached = event->n_cached;
        a->n_finished++;
        break;
    case SL_EVENT_PROMPT:
        assert_int_equal(a->n_tokens, 0);
        break;
    }
}

static sl_request embedding_request(const uint32_t *tokens, size_t n, sl_pooling pooling, bool normalise, answer *a)
{
    *a = (answer){0};
    return (sl_request){.prompt = tokens,
                        .n_prompt = n,
                        .sampling = sl_sample_params_default(),
                        .pooling = pooling,
                        .normalise = normalise,
                        .on_event = on_event,
                        .user = a};
}

static void submit(run_model *run, const sl_request *request)
{
    sl_err err;
    run_require(sl_engine_submit(run->engine, request, NULL, &err), &err);
}

static void pool_naively(const golden *g, size_t n, sl_pooling pooling, bool normalise, double *out)
{
    double squares = 0;
    for (uint32_t i = 0; i < g->n_embd; i++) {
        out[i] = 0;
        for (size_t t = 0; t < n; t++)
            out[i] += (double)g->states[t * g->n_embd + i] / (double)n;
        if (pooling != SL_POOLING_MEAN)
            out[i] = (double)g->states[(pooling == SL_POOLING_LAST ? n - 1 : 0) * g->n_embd + i];
        squares += out[i] * out[i];
    }
    for (uint32_t i = 0; i < g->n_embd && normalise; i++)
        out[i] /= sqrt(squares);
}

/* Largest difference of an embedding to the golden one. */
static double compare(const golden *g, run_model *run, size_t n, sl_pooling pooling, bool normalise)
{
    answer a;
    double want[MAX_EMBD], worst = 0;
    sl_request request = embedding_request(g->tokens, n, pooling, normalise, &a);
    submit(run, &request);
    run_until_idle(run);
    assert_int_equal(a.n_embeddings, 1);
    assert_int_equal(a.n_finished, 1);
    assert_int_equal(a.finish, SL_FINISH_LENGTH);
    assert_int_equal(a.n_embd, g->n_embd);
    pool_naively(g, n, pooling, normalise, want);
    for (uint32_t i = 0; i < g->n_embd; i++)
        worst = fmax(worst, fabs((double)a.embedding[i] - want[i]));
    return worst;
}

static void test_golden(void **state)
{
    (void)state;
    static const size_t lengths[N_LENGTHS] = {1, 2, 33, N_GOLDEN};
    for (size_t m = 0; m < SL_COUNTOF(names); m++) {
        golden g = read_golden(names[m]);
        run_setup setup = {.path = g.path, .level = SL_LEVEL_EXACT, .kv_type = SL_KV_F32, .chunk = 20};
        run_model run = run_open(&setup);
        double worst = 0, largest = 0;
        for (size_t i = 0; i < N_LENGTHS * (SL_POOLING_COUNT - 1) * 2; i++) {
            sl_pooling pooling = (sl_pooling)(1 + i / 2 % (SL_POOLING_COUNT - 1));
            worst = fmax(worst, compare(&g, &run, lengths[i / 2 / (SL_POOLING_COUNT - 1)], pooling, i % 2));
        }
        for (size_t i = 0; i < (size_t)N_GOLDEN * g.n_embd; i++)
            largest = fmax(largest, fabs((double)g.states[i]));
        print_message("%s: largest difference to transformers %.1e, of states up to %.1f\n", names[m], worst, largest);
        /* Both sides compute in float32 with other orders of summation. */
        assert_true(worst < 1e-4 && largest > 1);
        run_close(&run);
        free(g.states);
    }
}

/* Embeddings of all kinds, answers and prompts' log-probabilities beside each other. */
static sl_request scene_request(const golden *g, size_t i, answer *a)
{
    static const size_t lengths[] = {80, 1, 33, 64, 17, 79, 48};
    sl_request r = embedding_request(g->tokens, lengths[i % SL_COUNTOF(lengths)], (sl_pooling)(1 + i % 3), i % 2, a);
    if (i % 4 == 3) {
        r.pooling = SL_POOLING_NONE;
        r.max_tokens = MAX_TOKENS;
        r.sampling.temperature = 1;
        r.prompt_logprobs = i == 7;
    }
    return r;
}

static void run_scene(run_model *run, const golden *g, answer *answers, bool together)
{
    for (size_t i = 0; i < N_REQUESTS; i++) {
        sl_request request = scene_request(g, i, &answers[i]);
        submit(run, &request);
        if (!together)
            run_until_idle(run);
    }
    run_until_idle(run);
}

static void assert_same_answers(const answer *a, const answer *b)
{
    for (size_t i = 0; i < N_REQUESTS; i++) {
        assert_int_equal(b[i].n_finished, 1);
        assert_int_equal(b[i].finish, SL_FINISH_LENGTH);
        assert_int_equal(b[i].n_embeddings, i % 4 != 3);
        assert_int_equal(a[i].n_tokens, b[i].n_tokens);
        assert_memory_equal(a[i].tokens, b[i].tokens, sizeof a[i].tokens);
        assert_int_equal(a[i].n_embd, b[i].n_embd);
        assert_memory_equal(a[i].embedding, b[i].embedding, sizeof a[i].embedding);
    }
}

/* KV memory of little more than one sequence, so that others are pre-empted. */
static uint64_t tight_memory(const run_model *run)
{
    sl_engine_model model = sl_engine_model_of(sl_bundle_model(run->bundle));
    uint64_t n_bytes = 0;
    for (int i = 0; i < model.plan->n_groups; i++)
        n_bytes += model.plan->groups[i].block_bytes * (CONTEXT / SL_KV_BLOCK + 4);
    return n_bytes;
}

static void test_same_bits(void **state)
{
    (void)state;
    static const struct {
        uint32_t chunk, n_sequences;
        int n_threads;
        uint32_t disabled_passes;
        bool tight, no_prefix_cache;
    } variants[] = {{7, 1, 2, 0, false, false},    {16, 4, 1, 0, false, false},
                    {200, 8, 3, 0, false, true},   {64, 8, 2, 0, true, false},
                    {30, 5, 2, ~0u, false, false}, {100, 13, 1, 1u << SL_PASS_NARROW, true, true}};
    for (size_t m = 0; m < SL_COUNTOF(names); m++) {
        golden g = read_golden(names[m]);
        static answer alone[N_REQUESTS], others[N_REQUESTS];
        run_setup base = {.path = g.path, .level = sl_level_best(), .kv_type = SL_KV_F16, .context = CONTEXT};
        base.no_prefix_cache = true;
        run_model run = run_open(&base);
        uint64_t tight = tight_memory(&run);
        run_scene(&run, &g, alone, false);
        assert_same_answers(alone, alone);
        run_close(&run);
        uint64_t n_preemptions = 0, n_cached = 0;
        for (size_t v = 0; v < SL_COUNTOF(variants); v++) {
            run_setup setup = base;
            setup.chunk = variants[v].chunk;
            setup.n_sequences = variants[v].n_sequences;
            setup.n_threads = variants[v].n_threads;
            setup.disabled_passes = variants[v].disabled_passes;
            setup.no_prefix_cache = variants[v].no_prefix_cache;
            setup.kv_bytes = variants[v].tight ? tight : 0;
            run = run_open(&setup);
            for (int round = 0; round < 2; round++) {
                run_scene(&run, &g, others, true);
                assert_same_answers(alone, others);
            }
            for (size_t i = 0; i < N_REQUESTS; i++)
                if (i % 4 != 3)
                    n_cached += others[i].n_cached;
            sl_engine_statistics statistics;
            sl_engine_stats(run.engine, &statistics);
            n_preemptions += statistics.n_preemptions;
            run_close(&run);
        }
        print_message("%s: %llu pre-emptions\n", names[m], (unsigned long long)n_preemptions);
        assert_true(n_preemptions > 0);
        assert_true(n_cached > 0); /* the last token's state needs no others computed again */
        free(g.states);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    golden g = read_golden(names[0]);
    run_setup setup = {.path = g.path, .level = sl_level_best(), .context = 60};
    run_model run = run_open(&setup);
    answer a;
    sl_err err;
    sl_request request = embedding_request(g.tokens, 20, SL_POOLING_MEAN, true, &a);
    request.max_tokens = 1;
    assert_int_equal(sl_engine_submit(run.engine, &request, NULL, &err), SL_ERR_ARGUMENT);
    request = embedding_request(g.tokens, 20, SL_POOLING_COUNT, true, &a);
    assert_int_equal(sl_engine_submit(run.engine, &request, NULL, &err), SL_ERR_ARGUMENT);
    request = embedding_request(g.tokens, 20, SL_POOLING_LAST, true, &a);
    request.prompt_logprobs = true;
    assert_int_equal(sl_engine_submit(run.engine, &request, NULL, &err), SL_ERR_ARGUMENT);
    request = embedding_request(g.tokens, 61, SL_POOLING_LAST, true, &a);
    assert_int_equal(sl_engine_submit(run.engine, &request, NULL, &err), SL_ERR_LIMIT);
    request = embedding_request(g.tokens, 60, SL_POOLING_LAST, true, &a);
    submit(&run, &request);
    run_until_idle(&run);
    assert_int_equal(a.n_embeddings, 1);
    run_close(&run);
    free(g.states);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
