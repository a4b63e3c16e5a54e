/* Keeping only some keys and values (engine/keep.h): logits of transformers under the same masks; the same bits whatever
 * the chunks, threads, batch, cache and pre-emptions; memory that does not grow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model_run.h"
#include "random_model.h"

#include <math.h>
#include <unistd.h>

/* The last one is written by main: a random model of all weight types. */
static char mixed_model[64];
static const struct {
    const char *path;
    sl_kv_type kv_type;
} models[] = {
    {SL_TEST_GOLDEN_DIR "/tiny_llama.gguf", SL_KV_F16},
    {SL_TEST_GOLDEN_DIR "/tiny_llama31.gguf", SL_KV_BF16},
    {SL_TEST_GOLDEN_DIR "/tiny_gemma3.gguf", SL_KV_Q8},
    {mixed_model, SL_KV_K8V4},
};

/* By the second, blocks are chosen by attention from position 128 on, where 96 tokens are kept; by the third from 256. */
static const sl_keep settings[] = {{4, 40, 0}, {4, 20, 40}, {4, 100, 60}};

enum { N_TOKENS = 400, N_SETTINGS = sizeof settings / sizeof settings[0] };

static void make_tokens(uint32_t *tokens, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        tokens[i] = (seed >> 8) % 200;
    }
}

/* Logits of all tokens; the caller frees them. */
static float *score(const run_setup *setup, const uint32_t *tokens, size_t n, uint32_t *n_vocab)
{
    run_model run = run_open(setup);
    float *rows = run_score(&run, tokens, n);
    *n_vocab = run.n_vocab;
    run_close(&run);
    return rows;
}

/* ---- against transformers ---- */

static void read_u32(FILE *f, uint32_t *out, size_t n)
{
    assert_int_equal(fread(out, sizeof *out, n, f), n);
}

/* Each setting of a golden file (its form: write_kept in tools/tiny_models.py). */
static void check_golden(const char *name)
{
    enum { MOST_POSITIONS = 16 };
    char path[512], golden[512];
    snprintf(path, sizeof path, "%s/%s.gguf", SL_TEST_GOLDEN_DIR, name);
    snprintf(golden, sizeof golden, "%s/%s.kept", SL_TEST_GOLDEN_DIR, name);
    FILE *f = fopen(golden, "rb");
    assert_non_null(f);
    uint32_t sizes[4], tokens[N_TOKENS], positions[MOST_POSITIONS], n_vocab;
    read_u32(f, sizes, 4);
    assert_int_equal(sizes[0], N_TOKENS);
    assert_true(sizes[2] <= MOST_POSITIONS);
    read_u32(f, tokens, N_TOKENS);
    read_u32(f, positions, sizes[2]);
    run_setup setup = {.path = path, .level = SL_LEVEL_EXACT, .kv_type = SL_KV_F32, .context = N_TOKENS};
    float *full = score(&setup, tokens, N_TOKENS, &n_vocab), *want = malloc(n_vocab * sizeof *want);
    assert_int_equal(sizes[1], n_vocab);
    for (uint32_t i = 0; i < sizes[3]; i++) {
        uint32_t keep[3];
        double worst = 0, change = 0;
        read_u32(f, keep, 3);
        setup.keep = (sl_keep){keep[0], keep[1], keep[2]};
        float *rows = score(&setup, tokens, N_TOKENS, &n_vocab);
        for (uint32_t p = 0; p < sizes[2]; p++) {
            const float *row = rows + (size_t)positions[p] * n_vocab;
            assert_int_equal(fread(want, sizeof *want, n_vocab, f), n_vocab);
            worst = fmax(worst, run_difference(want, row, n_vocab));
            change = fmax(change, run_difference(full + (size_t)positions[p] * n_vocab, row, n_vocab));
        }
        print_message("%s, %u+%u+%u: largest log-probability difference to transformers %.2e, to all kept %.2f\n", name,
                      keep[0], keep[1], keep[2], worst, change);
        assert_true(worst < 1e-4); /* as in test_engine.c */
        assert_true(change > 0.1);
        free(rows);
    }
    free(want);
    free(full);
    fclose(f);
}

static void test_golden(void **state)
{
    (void)state;
    check_golden("tiny_llama");
    check_golden("tiny_llama31");
    check_golden("tiny_gemma3");
}

/* ---- the same bits ---- */

static void test_invariance(void **state)
{
    (void)state;
    static const struct {
        uint32_t chunk;
        int n_threads;
        uint64_t shuffle_seed;
        bool is_ref;
    } variants[] = {{1, 2, 0, false}, {7, 3, 5, false}, {50, 2, 9, false}, {100, 1, 0, true}};
    uint32_t tokens[N_TOKENS], n_vocab;
    make_tokens(tokens, N_TOKENS, 7);
    for (size_t i = 0; i < SL_COUNTOF(models) * N_SETTINGS; i++) {
        size_t m = i / N_SETTINGS;
        run_setup base = {.path = models[m].path,
                          .level = sl_level_best(),
                          .kv_type = models[m].kv_type,
                          .context = N_TOKENS,
                          .keep = settings[i % N_SETTINGS]};
        float *reference = score(&base, tokens, N_TOKENS, &n_vocab);
        for (size_t v = 0; v < SL_COUNTOF(variants); v++) {
            run_setup setup = base;
            setup.chunk = variants[v].chunk;
            setup.n_threads = variants[v].n_threads;
            setup.shuffle_seed = variants[v].shuffle_seed;
            setup.level = variants[v].is_ref ? SL_LEVEL_REF : base.level;
            float *rows = score(&setup, tokens, N_TOKENS, &n_vocab);
            if (memcmp(rows, reference, (size_t)N_TOKENS * n_vocab * sizeof *rows) != 0)
                fail_msg("%s: setting %zu, variant %zu: other bits", base.path, i % N_SETTINGS, v);
            free(rows);
        }
        free(reference);
    }
}

/* As long as nothing is given up, nothing changes. */
static void test_short_texts(void **state)
{
    (void)state;
    enum { N_FIRST = 256 };
    uint32_t tokens[N_TOKENS], n_vocab;
    make_tokens(tokens, N_TOKENS, 8);
    for (size_t m = 0; m < SL_COUNTOF(models); m++) {
        run_setup setup = {
            .path = models[m].path, .level = sl_level_best(), .kv_type = models[m].kv_type, .context = N_TOKENS};
        float *all = score(&setup, tokens, N_TOKENS, &n_vocab);
        setup.keep = settings[2];
        float *kept = score(&setup, tokens, N_TOKENS, &n_vocab);
        size_t row = n_vocab * sizeof *all;
        assert_memory_equal(kept, all, N_FIRST * row);
        for (size_t p = N_FIRST; p < N_TOKENS; p++)
            assert_memory_not_equal(kept + p * n_vocab, all + p * n_vocab, row);
        free(all);
        free(kept);
    }
}

/* ---- many requests at once ---- */

enum { N_SCENE = 6, SCENE_CONTEXT = 448, N_COMMON = 290, N_ANSWER = 90, N_CHOICES = 3, SCORE_FROM = 250 };

/* One choice's answer: tokens, and what was reported of their logits. */
typedef struct {
    sl_sampled sampled[N_ANSWER];
    uint32_t n, n_cached;
    bool finished;
} report;

typedef struct {
    report choices[N_CHOICES];
    float *scores; /* logits of the prompt from SCORE_FROM on; NULL: not scored */
    uint32_t n_vocab, next;
} reports;

static void on_event(void *user, const sl_event *event)
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
}

static void on_scores(void *user, uint32_t position, const float *logits)
{
    reports *r = user;
    assert_int_equal(position, r->next);
    memcpy(r->scores + (size_t)(r->next++ - SCORE_FROM) * r->n_vocab, logits, r->n_vocab * sizeof *logits);
}

/* Request i of a scene: it begins like all others, some for longer than blocks are kept; some have choices, some are
 * scored. */
static void submit_scene(run_model *run, int i, reports *out)
{
    uint32_t prompt[SCENE_CONTEXT];
    sl_err err;
    make_tokens(prompt, N_COMMON, 42);
    make_tokens(prompt + N_COMMON, SCENE_CONTEXT - N_COMMON, (uint32_t)i + 5);
    *out = (reports){.n_vocab = run->n_vocab, .next = SCORE_FROM};
    sl_request r = {.prompt = prompt,
                    .n_prompt = i % 2 ? 100 + 9 * (size_t)i : 300 + 9 * (size_t)i,
                    .max_tokens = N_ANSWER,
                    .n_choices = i % 3 == 1 ? N_CHOICES : 1,
                    .sampling = sl_sample_params_default(),
                    .on_event = on_event,
                    .user = out};
    r.sampling.temperature = 1.0f;
    r.sampling.seed = (uint64_t)i;
    r.sampling.n_logprobs = SL_MAX_LOGPROBS;
    if (i == 2) {
        out->scores = malloc((r.n_prompt - SCORE_FROM) * run->n_vocab * sizeof *out->scores);
        r.on_logits = on_scores;
        r.score_from = SCORE_FROM;
    }
    run_require(sl_engine_submit(run->engine, &r, NULL, &err), &err);
}

static void assert_same_reports(const reports *a, const reports *b, const char *what)
{
    for (int k = 0; k < N_CHOICES; k++) {
        const report *x = &a->choices[k], *y = &b->choices[k];
        assert_int_equal(x->n, y->n);
        for (uint32_t t = 0; t < x->n; t++)
            if (memcmp(&x->sampled[t].logprob, &y->sampled[t].logprob, sizeof(float)) != 0 ||
                x->sampled[t].token != y->sampled[t].token ||
                memcmp(x->sampled[t].top, y->sampled[t].top, sizeof x->sampled[t].top) != 0)
                fail_msg("%s: choice %d, token %u differs", what, k, t);
    }
    assert_int_equal(a->next, b->next);
    if (a->scores)
        assert_memory_equal(a->scores, b->scores, (size_t)(a->next - SCORE_FROM) * a->n_vocab * sizeof *a->scores);
}

static void run_scene(run_model *run, const reports alone[N_SCENE], const char *what)
{
    reports together[N_SCENE];
    sl_engine_statistics statistics;
    for (int i = 0; i < N_SCENE; i++)
        submit_scene(run, i, &together[i]);
    run_until_idle(run);
    for (int i = 0; i < N_SCENE; i++) {
        assert_same_reports(&alone[i], &together[i], what);
        free(together[i].scores);
    }
    sl_engine_stats(run->engine, &statistics);
    assert_int_equal(statistics.n_blocks_used, 0);
}

/* Bytes of the most that one sequence takes, and so many blocks more in each group. */
static uint64_t tight_bytes(const run_model *run, const run_setup *setup, uint32_t n_more)
{
    sl_engine_model model = sl_engine_model_of(sl_bundle_model(run->bundle));
    sl_engine_options options = {.context = setup->context, .chunk = setup->chunk, .keep = setup->keep};
    sl_engine_memory memory;
    sl_err err;
    run_require(sl_engine_measure(&model, &options, 1, &memory, &err), &err);
    for (int g = 0; g < model.plan->n_groups; g++)
        memory.kv_bytes += n_more * model.plan->groups[g].block_bytes;
    return memory.kv_bytes;
}

/* Shared prefixes, choices that fork, pools so small that sequences are pre-empted, blocks anywhere, chunks and threads:
 * every answer and every logit is what the request gives alone, bit for bit. */
static void check_scene(const char *path, sl_kv_type kv_type, sl_keep keep)
{
    static const uint32_t chunks[] = {512, 24};
    run_setup setup = {.path = path,
                       .level = sl_level_best(),
                       .kv_type = kv_type,
                       .context = SCENE_CONTEXT,
                       .keep = keep,
                       .n_sequences = N_CHOICES,
                       .no_prefix_cache = true};
    reports alone[N_SCENE];
    sl_engine_statistics statistics;
    uint64_t n_preemptions = 0;
    run_model run = run_open(&setup);
    for (int i = 0; i < N_SCENE; i++) {
        submit_scene(&run, i, &alone[i]);
        run_until_idle(&run);
    }
    run_close(&run);
    setup.no_prefix_cache = false;
    for (size_t c = 0; c < SL_COUNTOF(chunks); c++) {
        setup.n_sequences = 5;
        setup.chunk = chunks[c];
        setup.n_threads = 1 + (int)c;
        setup.shuffle_seed = c;
        setup.kv_bytes = 0;
        run = run_open(&setup);
        run_scene(&run, alone, "shared");
        run_scene(&run, alone, "cached");
        setup.kv_bytes = tight_bytes(&run, &setup, sl_model_plan(sl_bundle_model(run.bundle))->n_groups > 1 ? 15 : 5);
        run_close(&run);
        run = run_open(&setup);
        run_scene(&run, alone, "pre-empted");
        run_scene(&run, alone, "pre-empted with a cache");
        sl_engine_stats(run.engine, &statistics);
        n_preemptions += statistics.n_preemptions;
        run_close(&run);
    }
    print_message("%s, %u+%u+%u: %llu pre-emptions\n", path, keep.sinks, keep.recent, keep.heavy,
                  (unsigned long long)n_preemptions);
    assert_true(n_preemptions > 0);
    for (int i = 0; i < N_SCENE; i++)
        free(alone[i].scores);
}

static void test_together_as_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < SL_COUNTOF(models) * N_SETTINGS; i++)
        check_scene(models[i / N_SETTINGS].path, models[i / N_SETTINGS].kv_type, settings[i % N_SETTINGS]);
}

/* ---- memory, cache ---- */

static sl_request generation(const uint32_t *prompt, size_t n_prompt, uint32_t max_tokens, reports *out)
{
    *out = (reports){0};
    sl_request r = {.prompt = prompt,
                    .n_prompt = n_prompt,
                    .max_tokens = max_tokens,
                    .sampling = sl_sample_params_default(),
                    .on_event = on_event,
                    .user = out};
    r.sampling.temperature = 0;
    return r;
}

static void on_nothing(void *user, const sl_event *event)
{
    sl_finish *finish = user;
    if (event->kind == SL_EVENT_FINISHED)
        *finish = event->finish;
}

/* A long answer in the memory of 12 or 14 blocks, which is all that it is measured to need; without the option it is
 * refused. */
static void test_memory_is_bounded(void **state)
{
    (void)state;
    enum { CONTEXT = 1600 };
    static const struct {
        sl_keep keep;
        uint32_t n_blocks;
    } cases[] = {{{4, 40, 0}, 4 + 8}, {{4, 20, 40}, 6 + 8}};
    uint32_t prompt[300];
    sl_err err;
    make_tokens(prompt, SL_COUNTOF(prompt), 3);
    for (size_t c = 0; c < SL_COUNTOF(cases); c++) {
        run_setup setup = {.path = models[1].path,
                           .level = sl_level_best(),
                           .kv_type = SL_KV_F16,
                           .context = CONTEXT,
                           .keep = cases[c].keep};
        run_model run = run_open(&setup);
        sl_engine_statistics statistics;
        sl_engine_stats(run.engine, &statistics);
        assert_int_equal(statistics.n_blocks, cases[c].n_blocks);
        uint64_t block_bytes = sl_model_plan(sl_bundle_model(run.bundle))->groups[0].block_bytes;
        assert_int_equal(tight_bytes(&run, &setup, 0), cases[c].n_blocks * block_bytes);
        sl_finish finish = SL_FINISH_COUNT;
        sl_request r = generation(prompt, SL_COUNTOF(prompt), CONTEXT, &(reports){0});
        r.on_event = on_nothing;
        r.user = &finish;
        run_require(sl_engine_submit(run.engine, &r, NULL, &err), &err);
        for (bool busy = true; busy;) {
            run_require(sl_engine_step(run.engine, 1000, &busy, &err), &err);
            sl_engine_stats(run.engine, &statistics);
            assert_true(statistics.n_slots_unused <= 15 * statistics.n_running); /* whatever was given up before */
        }
        assert_int_equal(finish, SL_FINISH_LENGTH);
        assert_int_equal(statistics.generated_tokens, CONTEXT - SL_COUNTOF(prompt));
        assert_int_equal(statistics.n_blocks_used, 0);
        assert_int_equal(statistics.n_preemptions, 0);
        run_close(&run);
        setup.keep = (sl_keep){0};
        setup.kv_bytes = cases[c].n_blocks * block_bytes;
        run = run_open(&setup);
        assert_int_equal(sl_engine_submit(run.engine, &r, NULL, &err), SL_ERR_LIMIT);
        run_close(&run);
    }
}

/* A prompt is found in the cache beyond positions at which blocks were given up, but where attention chooses them, only
 * what lies well in front of the first such position. A pin keeps it there. */
static void test_cache(void **state)
{
    (void)state;
    static const uint32_t n_cached[N_SETTINGS] = {288, 0, 128};
    uint32_t prompt[300], other[300], n_pinned;
    sl_err err;
    make_tokens(prompt, SL_COUNTOF(prompt), 3);
    for (size_t i = 0; i < SL_COUNTOF(models) * N_SETTINGS; i++) {
        run_setup setup = {.path = models[i / N_SETTINGS].path,
                           .level = sl_level_best(),
                           .kv_type = SL_KV_F16,
                           .context = 310,
                           .keep = settings[i % N_SETTINGS]};
        run_model run = run_open(&setup);
        setup.kv_bytes = 3 * tight_bytes(&run, &setup, 0);
        run_close(&run);
        run = run_open(&setup);
        reports first, again, between;
        sl_request r = generation(prompt, SL_COUNTOF(prompt), 5, &first);
        run_require(sl_engine_submit(run.engine, &r, NULL, &err), &err);
        run_until_idle(&run);
        assert_int_equal(first.choices[0].n_cached, 0);
        uint32_t expected = n_cached[i % N_SETTINGS];
        sl_status status = sl_engine_pin_prefix(run.engine, 0, prompt, SL_COUNTOF(prompt), &n_pinned, &err);
        assert_int_equal(status, expected > 0 ? SL_OK : SL_ERR_NOT_FOUND);
        for (uint32_t k = 0; k < 6; k++) {
            make_tokens(other, SL_COUNTOF(other), 100 + k);
            r = generation(other, SL_COUNTOF(other), 5, &between);
            run_require(sl_engine_submit(run.engine, &r, NULL, &err), &err);
            run_until_idle(&run);
        }
        r = generation(prompt, SL_COUNTOF(prompt), 5, &again);
        run_require(sl_engine_submit(run.engine, &r, NULL, &err), &err);
        run_until_idle(&run);
        assert_same_reports(&first, &again, setup.path);
        assert_int_equal(again.choices[0].n_cached, expected);
        if (expected > 0) {
            assert_int_equal(n_pinned, expected);
            run_require(sl_engine_unpin_prefix(run.engine, 0, prompt, n_pinned, &err), &err);
        }
        run_close(&run);
    }
}

static void test_bad_settings(void **state)
{
    (void)state;
    static const sl_keep bad[] = {{4, 0, 0}, {0, 0, 64}, {4, 1 << 25, 0}, {UINT32_MAX, 16, 0}, {4, 16, 1 << 15}};
    sl_keep good = {0, 1, 17};
    sl_err err;
    for (size_t i = 0; i < SL_COUNTOF(bad); i++) {
        sl_keep keep = bad[i];
        assert_int_equal(sl_keep_settle(&keep, &err), SL_ERR_ARGUMENT);
    }
    run_require(sl_keep_settle(&good, &err), &err);
    assert_int_equal(good.sinks, 0);
    assert_int_equal(good.recent, 16);
    assert_int_equal(good.heavy, 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_invariance),
        cmocka_unit_test(test_short_texts),
        cmocka_unit_test(test_together_as_alone),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_bad_settings),
    };
    snprintf(mixed_model, sizeof mixed_model, "/tmp/sluice-keep-%ld.gguf", (long)getpid());
    random_model_write(mixed_model, SL_TEST_GOLDEN_DIR "/tiny_llama.gguf");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(mixed_model);
    return failed;
}
