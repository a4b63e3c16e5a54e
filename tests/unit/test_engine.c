/* The engine and everything below it on tiny random-weight models: golden logits, invariance, taps, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "graph/backend.h"
#include "model_run.h"
#include "random_model.h"

#include <math.h>
#include <unistd.h>

/* The last one is written by main: a random model of all weight types. */
static char mixed_model[64];
static const char *const models[] = {
    SL_TEST_GOLDEN_DIR "/tiny_llama.gguf",
    SL_TEST_GOLDEN_DIR "/tiny_llama31.gguf",
    SL_TEST_GOLDEN_DIR "/tiny_gemma3.gguf",
    mixed_model,
};

enum { N_TOKENS = 90 };

/* Some ids below n_vocab, the same each time. */
static void make_tokens(uint32_t *tokens, size_t n, uint32_t n_vocab, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        tokens[i] = (seed >> 8) % n_vocab;
    }
}

static float *score_tokens(const run_setup *setup, const uint32_t *tokens, size_t n, uint32_t *n_vocab)
{
    run_model run = run_open(setup);
    float *rows = run_score(&run, tokens, n);
    *n_vocab = run.n_vocab;
    for (size_t i = 0; i < n * run.n_vocab; i++)
        assert_true(isfinite(rows[i]));
    run_close(&run);
    return rows;
}

/* Logits of the standard tokens. */
static float *score(const run_setup *setup, uint32_t *n_vocab)
{
    uint32_t tokens[N_TOKENS];
    make_tokens(tokens, N_TOKENS, 200, 7);
    return score_tokens(setup, tokens, N_TOKENS, n_vocab);
}

static void assert_same_bits(const float *a, const float *b, uint32_t n_vocab, const char *what, const char *model)
{
    size_t n = (size_t)N_TOKENS * n_vocab;
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s: %s: position %zu, token %zu: %a instead of %a", model, what, i / n_vocab, i % n_vocab,
                     (double)b[i], (double)a[i]);
    }
}

/* Runs the setup and compares it with the reference bit for bit. */
static void check_variant(const run_setup *setup, const float *reference, const char *what)
{
    uint32_t n_vocab;
    float *rows = score(setup, &n_vocab);
    assert_same_bits(reference, rows, n_vocab, what, setup->path);
    free(rows);
}

static void test_invariance(void **state)
{
    (void)state;
    static const sl_level levels[] = {SL_LEVEL_EXACT, SL_LEVEL_REF};
    for (size_t m = 0; m < SL_COUNTOF(models); m++) {
        for (size_t l = 0; l <= SL_COUNTOF(levels); l++) {
            run_setup base = {.path = models[m], .kv_type = SL_KV_F16};
            base.level = l < SL_COUNTOF(levels) ? levels[l] : sl_level_best();
            uint32_t n_vocab;
            float *reference = score(&base, &n_vocab);
            static const uint32_t chunks[] = {1, 7, 64, 512};
            for (size_t c = 0; c < SL_COUNTOF(chunks); c++) {
                run_setup v = base;
                v.chunk = chunks[c];
                v.n_threads = (int)c % 3 + 1;
                check_variant(&v, reference, "chunk and threads");
            }
            run_setup shuffled = base;
            shuffled.shuffle_seed = 12345;
            shuffled.context = 2048;
            check_variant(&shuffled, reference, "shuffled blocks");
            for (int pass = 0; pass <= SL_PASS_COUNT; pass++) {
                run_setup v = base;
                v.disabled_passes = pass < SL_PASS_COUNT ? 1u << pass : ~0u;
                check_variant(&v, reference, pass < SL_PASS_COUNT ? sl_pass_name((sl_pass)pass) : "no passes");
            }
            free(reference);
        }
    }
}

/* Each type of the KV cache with a context of several splits: prompt chunks, few rows on two workers (which take
 * different splits), blocks anywhere and the level ref all give the same bits. */
static void test_kv_types(void **state)
{
    (void)state;
    enum { N = 2 * SL_KV_SPLIT + 70 };
    static const struct {
        uint32_t chunk;
        int n_threads;
        uint64_t shuffle_seed;
        sl_level level;
    } variants[] = {{4, 2, 7, SL_LEVEL_COUNT}, {100, 1, 0, SL_LEVEL_REF}};
    uint32_t tokens[N];
    make_tokens(tokens, N, 200, 11);
    for (size_t i = 0; i < SL_COUNTOF(models) * SL_KV_TYPE_COUNT; i++) {
        run_setup base = {.path = models[i / SL_KV_TYPE_COUNT], .level = sl_level_best(), .context = N + 40};
        base.kv_type = (sl_kv_type)(i % SL_KV_TYPE_COUNT);
        uint32_t n_vocab;
        float *reference = score_tokens(&base, tokens, N, &n_vocab);
        for (size_t v = 0; v < SL_COUNTOF(variants); v++) {
            run_setup setup = base;
            setup.chunk = variants[v].chunk;
            setup.n_threads = variants[v].n_threads;
            setup.shuffle_seed = variants[v].shuffle_seed;
            setup.level = variants[v].level < SL_LEVEL_COUNT ? variants[v].level : base.level;
            float *rows = score_tokens(&setup, tokens, N, &n_vocab);
            if (memcmp(rows, reference, (size_t)N * n_vocab * sizeof *rows) != 0)
                fail_msg("%s: KV type %s, variant %zu: other bits", base.path, sl_kv_type_name(base.kv_type), v);
            free(rows);
        }
        free(reference);
    }
}

/* Every level's kernels do the same arithmetic as ref: the same bits. */
static void test_levels_agree(void **state)
{
    (void)state;
    for (size_t m = 0; m < SL_COUNTOF(models); m++) {
        run_setup base = {.path = models[m], .kv_type = SL_KV_F16, .level = SL_LEVEL_REF};
        uint32_t n_vocab;
        float *reference = score(&base, &n_vocab);
        for (sl_level level = SL_LEVEL_AVX2; level <= sl_level_best(); level++) {
            sl_level usable;
            sl_err err;
            run_require(sl_level_choose(sl_level_name(level), &usable, &err), &err);
            run_setup v = base;
            v.level = usable;
            check_variant(&v, reference, sl_level_name(usable));
        }
        free(reference);
    }
}

/* Reads a golden file: u32 n_tokens, u32 n_vocab, ids, then float32 logits [n_tokens][n_vocab] of transformers. */
static float *read_golden(const char *path, uint32_t **tokens, uint32_t *n_tokens, uint32_t *n_vocab)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(n_tokens, 4, 1, f), 1);
    assert_int_equal(fread(n_vocab, 4, 1, f), 1);
    *tokens = malloc(*n_tokens * sizeof **tokens);
    assert_int_equal(fread(*tokens, 4, *n_tokens, f), *n_tokens);
    size_t n = (size_t)*n_tokens * *n_vocab;
    float *rows = malloc(n * sizeof *rows);
    assert_int_equal(fread(rows, 4, n, f), n);
    fclose(f);
    return rows;
}

static void test_golden(void **state)
{
    (void)state;
    static const char *const names[] = {"tiny_llama", "tiny_llama31", "tiny_gemma3"};
    for (size_t m = 0; m < SL_COUNTOF(names); m++) {
        char path[512], golden[512];
        snprintf(path, sizeof path, "%s/%s.gguf", SL_TEST_GOLDEN_DIR, names[m]);
        snprintf(golden, sizeof golden, "%s/%s.logits", SL_TEST_GOLDEN_DIR, names[m]);
        uint32_t *tokens, n_tokens, n_vocab, n_vocab_golden;
        float *want = read_golden(golden, &tokens, &n_tokens, &n_vocab_golden);
        run_setup setup = {.path = path, .level = SL_LEVEL_EXACT, .kv_type = SL_KV_F32};
        float *got = score_tokens(&setup, tokens, n_tokens, &n_vocab);
        assert_int_equal(n_vocab, n_vocab_golden);
        double worst = 0;
        for (uint32_t t = 0; t < n_tokens; t++)
            worst = fmax(worst, run_difference(want + (size_t)t * n_vocab, got + (size_t)t * n_vocab, n_vocab));
        print_message("%s: largest log-probability difference to transformers %.2e\n", names[m], worst);
        /* Both sides compute in float32 with other orders of summation. */
        assert_true(worst < 1e-4);
        free(want);
        free(got);
        free(tokens);
    }
}

/* Fast arithmetic stays near `exact`: what int8 activations may cost, measured as the mean Kullback-Leibler divergence. */
static void test_fast_near_exact(void **state)
{
    (void)state;
    for (size_t m = 0; m < SL_COUNTOF(models); m++) {
        run_setup setup = {.path = models[m], .level = SL_LEVEL_EXACT, .kv_type = SL_KV_F32};
        uint32_t n_vocab;
        float *exact = score(&setup, &n_vocab);
        setup.level = sl_level_best();
        setup.kv_type = SL_KV_F16;
        float *fast = score(&setup, &n_vocab);
        double kld = 0, entropy = 0;
        for (size_t t = 0; t < N_TOKENS; t++) {
            const float *a = exact + t * n_vocab, *b = fast + t * n_vocab;
            double za = run_log_sum(a, n_vocab), zb = run_log_sum(b, n_vocab);
            for (uint32_t i = 0; i < n_vocab; i++) {
                double p = (double)a[i] - za, q = (double)b[i] - zb;
                kld += exp(p) * (p - q) / N_TOKENS;
                entropy -= exp(p) * p / N_TOKENS;
            }
        }
        print_message("%s: mean KLD to exact %.2e (entropy %.2f)\n", models[m], kld, entropy);
        assert_true(entropy > 0.1 && entropy < 0.95 * log(n_vocab)); /* neither one-hot nor uniform: differences show */
        assert_true(kld < 0.01);
        free(exact);
        free(fast);
    }
}

typedef struct {
    uint32_t tokens[64];
    uint32_t n;
    int n_finished;
    sl_finish finish;
} answer;

static void on_event(void *user, const sl_event *event)
{
    answer *a = user;
    if (event->kind == SL_EVENT_TOKEN)
        a->tokens[a->n++] = event->sampled.token;
    else {
        a->n_finished++;
        a->finish = event->finish;
        assert_int_equal(event->n_generated, a->n);
    }
}

static sl_request generation(const uint32_t *prompt, size_t n, answer *a, uint64_t seed)
{
    sl_request r = {.prompt = prompt,
                    .n_prompt = n,
                    .max_tokens = 24,
                    .sampling = sl_sample_params_default(),
                    .on_event = on_event,
                    .user = a};
    r.sampling.temperature = 1.0f;
    r.sampling.seed = seed;
    return r;
}

/* Requests that run together give what each gives alone. */
static void test_together_as_alone(void **state)
{
    (void)state;
    enum { N = 6 };
    for (size_t m = 0; m < SL_COUNTOF(models); m++) {
        uint32_t prompts[N][60];
        answer alone[N] = {0}, together[N] = {0};
        sl_err err;
        for (int i = 0; i < N; i++)
            make_tokens(prompts[i], 60, 200, (uint32_t)i + 1);
        run_setup setup = {.path = models[m], .level = sl_level_best(), .kv_type = SL_KV_F16, .context = 128};
        run_model one = run_open(&setup);
        for (int i = 0; i < N; i++) {
            sl_request r = generation(prompts[i], 5 + 11 * (size_t)i, &alone[i], (uint64_t)i);
            run_require(sl_engine_submit(one.engine, &r, NULL, &err), &err);
            run_until_idle(&one);
        }
        run_close(&one);
        setup.n_sequences = 4; /* fewer than requests: two wait */
        setup.chunk = 16;
        setup.n_threads = 2;
        run_model many = run_open(&setup);
        for (int i = 0; i < N; i++) {
            sl_request r = generation(prompts[i], 5 + 11 * (size_t)i, &together[i], (uint64_t)i);
            run_require(sl_engine_submit(many.engine, &r, NULL, &err), &err);
        }
        run_until_idle(&many);
        run_close(&many);
        for (int i = 0; i < N; i++) {
            assert_int_equal(alone[i].n, 24);
            assert_int_equal(together[i].n_finished, 1);
            assert_int_equal(together[i].finish, SL_FINISH_LENGTH);
            assert_memory_equal(alone[i].tokens, together[i].tokens, sizeof alone[i].tokens);
        }
    }
}

static void test_stop_cancel_limits(void **state)
{
    (void)state;
    uint32_t prompt[60];
    make_tokens(prompt, 60, 200, 3);
    run_setup setup = {.path = models[0], .level = sl_level_best(), .kv_type = SL_KV_F16, .context = 64};
    run_model run = run_open(&setup);
    sl_err err;
    answer free_run = {0}, stopped = {0}, cancelled = {0}, full = {0};
    sl_request r = generation(prompt, 10, &free_run, 5);
    run_require(sl_engine_submit(run.engine, &r, NULL, &err), &err);
    run_until_idle(&run);
    /* the first token that did not occur before it in the run stops it there */
    uint32_t at = 3;
    for (uint32_t i = 0; i < at; i++)
        if (free_run.tokens[i] == free_run.tokens[at])
            at = i;
    r = generation(prompt, 10, &stopped, 5);
    r.stop_tokens = &free_run.tokens[at];
    r.n_stop_tokens = 1;
    run_require(sl_engine_submit(run.engine, &r, NULL, &err), &err);
    run_until_idle(&run);
    assert_int_equal(stopped.finish, SL_FINISH_STOP);
    assert_int_equal(stopped.n, at);
    r = generation(prompt, 10, &cancelled, 5);
    uint64_t id;
    bool busy;
    run_require(sl_engine_submit(run.engine, &r, &id, &err), &err);
    run_require(sl_engine_step(run.engine, run_clock(NULL), &busy, &err), &err);
    assert_true(busy);
    sl_engine_cancel(run.engine, id);
    run_until_idle(&run);
    assert_int_equal(cancelled.finish, SL_FINISH_CANCELLED);
    assert_int_equal(cancelled.n, 1);
    r = generation(prompt, 60, &full, 5);
    run_require(sl_engine_submit(run.engine, &r, NULL, &err), &err);
    run_until_idle(&run);
    assert_int_equal(full.finish, SL_FINISH_LENGTH);
    assert_int_equal(full.n, 4); /* 64 - 60 */

    r = generation(prompt, 0, &full, 5);
    assert_int_equal(sl_engine_submit(run.engine, &r, NULL, &err), SL_ERR_ARGUMENT);
    uint32_t long_prompt[65];
    make_tokens(long_prompt, 65, 200, 3);
    r = generation(long_prompt, 65, &full, 5);
    assert_int_equal(sl_engine_submit(run.engine, &r, NULL, &err), SL_ERR_LIMIT);
    assert_non_null(strstr(err.message, "65"));
    long_prompt[5] = run.n_vocab;
    r = generation(long_prompt, 10, &full, 5);
    assert_int_equal(sl_engine_submit(run.engine, &r, NULL, &err), SL_ERR_ARGUMENT);
    run_close(&run);
}

/* ---- what the KV memory does changes nothing ---- */

enum { N_SCENE = 8, SCENE_CONTEXT = 160, SCENE_CHOICES = 3 };

/* One choice's answer: tokens, and what was reported of their logits. */
typedef struct {
    sl_sampled sampled[40];
    uint32_t n, n_cached;
    bool finished;
} report;

typedef struct {
    report choices[SCENE_CHOICES];
    float *scores; /* logits of the prompt from score_from on; NULL: not scored */
    uint32_t n_vocab, next, score_from;
} reports;

static void on_report(void *user, const sl_event *event)
{
    report *r = &((reports *)user)->choices[event->choice];
    assert_false(r->finished);
    if (event->kind == SL_EVENT_TOKEN) {
        r->sampled[r->n++] = event->sampled;
        return;
    }
    r->finished = true;
    r->n_cached = event->n_cached;
    assert_int_equal(event->finish, SL_FINISH_LENGTH);
    assert_int_equal(event->n_generated, r->n);
}

static void on_scores(void *user, uint32_t position, const float *logits)
{
    reports *r = user;
    assert_int_equal(position, r->next);
    memcpy(r->scores + (size_t)(r->next++ - r->score_from) * r->n_vocab, logits, r->n_vocab * sizeof *logits);
}

/* Request i of a scene: the first 70 tokens are those of all others; every third has several choices, every fourth has
 * the end of its prompt scored. */
static void submit_scene(run_model *run, int i, reports *out)
{
    uint32_t prompt[SCENE_CONTEXT];
    sl_err err;
    make_tokens(prompt, 70, 200, 42);
    make_tokens(prompt + 70, 30, 200, (uint32_t)i + 5);
    *out = (reports){.n_vocab = run->n_vocab, .score_from = 50, .next = 50};
    sl_request r = {.prompt = prompt,
                    .n_prompt = 71 + 3 * (size_t)i,
                    .max_tokens = 40,
                    .n_choices = i % 3 == 1 ? SCENE_CHOICES : 1,
                    .sampling = sl_sample_params_default(),
                    .on_event = on_report,
                    .user = out};
    r.sampling.temperature = 1.0f;
    r.sampling.seed = (uint64_t)i;
    r.sampling.n_logprobs = SL_MAX_LOGPROBS;
    if (i % 4 == 1) {
        out->scores = malloc((r.n_prompt - out->score_from) * run->n_vocab * sizeof *out->scores);
        r.on_logits = on_scores;
        r.score_from = out->score_from;
    }
    run_require(sl_engine_submit(run->engine, &r, NULL, &err), &err);
}

static void assert_same_reports(const reports *a, const reports *b, const char *model, const char *what)
{
    for (int k = 0; k < SCENE_CHOICES; k++) {
        const report *x = &a->choices[k], *y = &b->choices[k];
        assert_int_equal(x->n, y->n);
        for (uint32_t t = 0; t < x->n; t++)
            if (memcmp(&x->sampled[t].logprob, &y->sampled[t].logprob, sizeof(float)) != 0 ||
                x->sampled[t].token != y->sampled[t].token ||
                memcmp(x->sampled[t].top, y->sampled[t].top, sizeof x->sampled[t].top) != 0)
                fail_msg("%s: %s: choice %d, token %u differs", model, what, k, t);
    }
    assert_int_equal(a->next, b->next);
    if (a->scores)
        assert_memory_equal(a->scores, b->scores, (size_t)(a->next - a->score_from) * a->n_vocab * sizeof *a->scores);
}

static void run_scene(run_model *run, const reports alone[N_SCENE], const char *model, const char *what)
{
    reports together[N_SCENE];
    for (int i = 0; i < N_SCENE; i++)
        submit_scene(run, i, &together[i]);
    run_until_idle(run);
    for (int i = 0; i < N_SCENE; i++) {
        assert_same_reports(&alone[i], &together[i], model, what);
        free(together[i].scores);
    }
}

/* Each request alone, without a cache and with plenty of memory. */
static void run_alone(run_setup setup, reports alone[N_SCENE])
{
    setup.no_prefix_cache = true;
    setup.n_sequences = SCENE_CHOICES;
    run_model run = run_open(&setup);
    for (int i = 0; i < N_SCENE; i++) {
        submit_scene(&run, i, &alone[i]);
        run_until_idle(&run);
    }
    run_close(&run);
}

/* Shared prefixes, choices that fork, pools so small that sequences are pre-empted, blocks anywhere, chunks and threads:
 * every answer and every logit is what the request gives alone, bit for bit. */
static void test_kv_memory_changes_nothing(void **state)
{
    (void)state;
    static const uint32_t chunks[] = {512, 9, 40};
    for (size_t m = 0; m < SL_COUNTOF(models); m++) {
        run_setup setup = {.path = models[m], .level = sl_level_best(), .kv_type = SL_KV_F16, .context = SCENE_CONTEXT};
        reports alone[N_SCENE];
        run_alone(setup, alone);
        for (size_t c = 0; c < SL_COUNTOF(chunks); c++) {
            setup.n_sequences = 6;
            setup.chunk = chunks[c];
            setup.n_threads = c == 1 ? 2 : 1;
            setup.shuffle_seed = c;
            setup.kv_bytes = 0;
            run_model run = run_open(&setup);
            sl_engine_statistics statistics;
            run_scene(&run, alone, models[m], "shared");
            run_scene(&run, alone, models[m], "cached");
            sl_engine_stats(run.engine, &statistics);
            assert_int_equal(statistics.n_blocks_used, 0);
            assert_true(statistics.cached_tokens > 8 * 64);
            sl_engine_model model = sl_engine_model_of(sl_bundle_model(run.bundle));
            for (int g = 0; g < model.plan->n_groups; g++) /* little more than one sequence's */
                setup.kv_bytes += model.plan->groups[g].block_bytes * (SCENE_CONTEXT / SL_KV_BLOCK + 4);
            run_close(&run);
            run = run_open(&setup);
            run_scene(&run, alone, models[m], "pre-empted");
            sl_engine_stats(run.engine, &statistics);
            if (models[m] == mixed_model)
                print_message("%u blocks, %llu pre-emptions, %llu of %llu prompt tokens cached\n", statistics.n_blocks,
                              (unsigned long long)statistics.n_preemptions,
                              (unsigned long long)statistics.cached_tokens,
                              (unsigned long long)statistics.prompt_tokens);
            assert_true(statistics.n_preemptions > 0);
            run_close(&run);
        }
        for (int i = 0; i < N_SCENE; i++)
            free(alone[i].scores);
    }
}

typedef struct {
    uint32_t n_rows, width;
    double sum;
} tapped;

static void on_tap(void *user, const char *name, const float *data, size_t n_rows, size_t width, size_t stride)
{
    tapped *t = user;
    assert_string_equal(name, "blk.1.ffn_glu");
    t->n_rows += (uint32_t)n_rows;
    t->width = (uint32_t)width;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t i = 0; i < width; i++)
            t->sum += fabs((double)data[r * stride + i]);
}

/* A tap shows a value with all its rows (the narrowing of the last layer leaves it alone) and changes no bit. */
static void test_taps(void **state)
{
    (void)state;
    static const char *const taps[] = {"blk.1.ffn_glu"};
    run_setup setup = {.path = models[0], .level = sl_level_best(), .kv_type = SL_KV_F16};
    uint32_t tokens[N_TOKENS], n_vocab;
    make_tokens(tokens, N_TOKENS, 200, 7);
    float *plain = score(&setup, &n_vocab);
    setup.taps = taps;
    setup.n_taps = 1;
    float *with = score(&setup, &n_vocab);
    assert_same_bits(plain, with, n_vocab, "tapped", setup.path);
    free(plain);
    free(with);
    run_model run = run_open(&setup);
    const sl_plan *plan = sl_model_plan(sl_bundle_model(run.bundle));
    const sl_backend *cpu = sl_backend_cpu();
    sl_context_sizes sizes = {.max_rows = N_TOKENS, .max_wanted = 1, .n_blocks = {6, 6, 6, 6}};
    sl_context *context;
    sl_err err;
    run_require(cpu->context_open(plan, &sizes, sl_bundle_threads(run.bundle), &context, &err), &err);
    tapped t = {0};
    cpu->set_tap(context, on_tap, &t);
    sl_row rows[N_TOKENS];
    uint32_t blocks[] = {0, 1, 2, 3, 4, 5};
    for (uint32_t i = 0; i < N_TOKENS; i++)
        rows[i] =
            (sl_row){.position = i, .parent = -1, .token = tokens[i], .causal = true, .wanted = i == N_TOKENS - 1};
    sl_batch_seq seq = {.blocks = {blocks, blocks, blocks, blocks}};
    sl_batch batch = {.rows = rows, .n_rows = N_TOKENS, .seqs = &seq, .n_seqs = 1};
    run_require(cpu->run(context, &batch, &err), &err);
    assert_int_equal(t.n_rows, N_TOKENS);
    assert_int_equal(t.width, sl_model_get_info(sl_bundle_model(run.bundle))->n_ff);
    assert_true(t.sum > 0);
    cpu->context_close(context);
    run_close(&run);

    sl_bundle *bundle;
    sl_bundle_options options = sl_bundle_options_default();
    static const char *const wrong[] = {"blk.99.ffn_glu"};
    options.model.taps = wrong;
    options.model.n_taps = 1;
    assert_int_equal(sl_bundle_open(setup.path, &options, &bundle, &err), SL_ERR_NOT_FOUND);
}

/* Buffers that share space never overlap while both are needed. */
static void test_memory_plan(void **state)
{
    (void)state;
    for (size_t m = 0; m < SL_COUNTOF(models); m++) {
        run_setup setup = {.path = models[m], .level = sl_level_best(), .kv_type = SL_KV_F16};
        run_model run = run_open(&setup);
        const sl_plan *plan = sl_model_plan(sl_bundle_model(run.bundle));
        uint64_t sum, total = sl_plan_memory(plan, 64, 8, NULL, &sum);
        assert_true(total > 0 && total <= sum);
        assert_true(total < sum / 2); /* sharing pays */
        assert_int_equal(sl_plan_memory(plan, UINT32_MAX, UINT32_MAX, NULL, NULL) > total, 1);
        run_close(&run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),       cmocka_unit_test(test_fast_near_exact),
        cmocka_unit_test(test_invariance),   cmocka_unit_test(test_kv_types),
        cmocka_unit_test(test_levels_agree), cmocka_unit_test(test_together_as_alone),
        cmocka_unit_test(test_taps),         cmocka_unit_test(test_stop_cancel_limits),
        cmocka_unit_test(test_memory_plan),  cmocka_unit_test(test_kv_memory_changes_nothing),
    };
    snprintf(mixed_model, sizeof mixed_model, "/tmp/sluice-test-%ld.gguf", (long)getpid());
    random_model_write(mixed_model, models[0]);
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(mixed_model);
    return n_failed;
}
