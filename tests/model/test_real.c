/* The two real models that `sluice pull` brings: log-probabilities against committed references, fast arithmetic against
 * `exact`, and bitwise invariance.
 *
 *   test_real SMOLLM2.gguf GEMMA3.gguf     or the names of pulled models
 * SLUICE_TEST_POSITIONS: teacher-forced positions in each comparison of fast and exact (default 512). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include "../unit/model_run.h"
#include "file/store.h"

#include <math.h>

static char *smollm2, *gemma3;

static double log_sum(const float *row, uint32_t n)
{
    return sl_log_sum_exp(row, n);
}

/* Largest and mean difference between our log-probabilities of the golden file's tokens and the file's. */
static void compare_golden(const char *model, const char *file, double *largest, double *mean, size_t *n_prompts)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", SL_TEST_GOLDEN_DIR, file);
    json_t *golden = json_load_file(path, 0, NULL);
    assert_non_null(golden);
    json_t *prompts = json_object_get(golden, "prompts");
    run_setup setup = {.path = model, .level = SL_LEVEL_EXACT, .kv_type = SL_KV_F32, .n_threads = 2, .context = 2048};
    run_model run = run_open(&setup);
    double sum = 0;
    size_t count = 0;
    *largest = 0;
    *n_prompts = json_array_size(prompts);
    for (size_t p = 0; p < *n_prompts; p++) {
        json_t *prompt = json_array_get(prompts, p), *ids = json_object_get(prompt, "tokens");
        json_t *logprobs = json_object_get(prompt, "logprobs");
        size_t n = json_array_size(ids);
        uint32_t *tokens = malloc(n * sizeof *tokens);
        for (size_t i = 0; i < n; i++)
            tokens[i] = (uint32_t)json_integer_value(json_array_get(ids, i));
        assert_int_equal(json_array_size(logprobs), n - 1);
        float *rows = run_score(&run, tokens, n);
        for (size_t i = 0; i + 1 < n; i++) {
            const float *row = rows + i * run.n_vocab;
            double ours = (double)row[tokens[i + 1]] - log_sum(row, run.n_vocab);
            double d = fabs(ours - json_number_value(json_array_get(logprobs, i)));
            *largest = fmax(*largest, d);
            sum += d;
            count++;
        }
        free(rows);
        free(tokens);
    }
    *mean = sum / (double)count;
    run_close(&run);
    json_decref(golden);
}

static void test_smollm2_golden(void **state)
{
    (void)state;
    double largest, mean;
    size_t n;
    compare_golden(smollm2, "smollm2_logprobs.json", &largest, &mean, &n);
    print_message("SmolLM2, %zu prompts, exact against transformers in float32: largest %.2e, mean %.2e\n", n, largest,
                  mean);
    assert_true(n >= 10);
    assert_true(largest < 1e-3);
}

/* What a prompt's golden file says of some positions, and how far our log-probabilities are from that. */
typedef struct {
    json_t *positions, *logprobs, *top;
    const uint32_t *tokens;
    uint32_t n_vocab;
    size_t n_seen;
    double largest, sum;
} sparse_golden;

static void compare_position(void *user, uint32_t position, const float *logits)
{
    sparse_golden *g = user;
    size_t i = g->n_seen;
    if (i == json_array_size(g->positions) || position != json_integer_value(json_array_get(g->positions, i)))
        return;
    double lse = log_sum(logits, g->n_vocab);
    json_t *top = json_array_get(g->top, i);
    uint32_t first = (uint32_t)json_integer_value(json_array_get(top, 0));
    double next = (double)logits[g->tokens[position + 1]] - lse - json_number_value(json_array_get(g->logprobs, i));
    double best = (double)logits[first] - lse - json_number_value(json_array_get(top, 1));
    g->largest = fmax(g->largest, fmax(fabs(next), fabs(best)));
    g->sum += fabs(next);
    g->n_seen++;
}

/* Scores a prompt of the file and compares the positions it names. */
static sparse_golden compare_long_prompt(run_model *run, json_t *prompt)
{
    json_t *ids = json_object_get(prompt, "tokens");
    size_t n = json_array_size(ids);
    uint32_t *tokens = malloc(n * sizeof *tokens);
    for (size_t i = 0; i < n; i++)
        tokens[i] = (uint32_t)json_integer_value(json_array_get(ids, i));
    sparse_golden g = {.positions = json_object_get(prompt, "positions"),
                       .logprobs = json_object_get(prompt, "logprobs"),
                       .top = json_object_get(prompt, "top"),
                       .tokens = tokens,
                       .n_vocab = run->n_vocab};
    sl_request request = {.prompt = tokens,
                          .n_prompt = n,
                          .sampling = sl_sample_params_default(),
                          .on_logits = compare_position,
                          .user = &g};
    sl_err err;
    run_require(sl_engine_submit(run->engine, &request, NULL, &err), &err);
    run_until_idle(run);
    free(tokens);
    assert_int_equal(g.n_seen, json_array_size(g.positions));
    assert_true(json_integer_value(json_array_get(g.positions, g.n_seen - 1)) >= 1500);
    return g;
}

/* Attention merges splits of 256 positions: these prompts have 7 of them. */
static void test_smollm2_long(void **state)
{
    (void)state;
    json_t *golden = json_load_file(SL_TEST_GOLDEN_DIR "/smollm2_long_logprobs.json", 0, NULL);
    assert_non_null(golden);
    json_t *prompts = json_object_get(golden, "prompts");
    run_setup setup = {.path = smollm2, .level = SL_LEVEL_EXACT, .kv_type = SL_KV_F32, .n_threads = 2, .context = 2048};
    run_model run = run_open(&setup);
    assert_true(json_array_size(prompts) >= 2);
    for (size_t p = 0; p < json_array_size(prompts); p++) {
        sparse_golden g = compare_long_prompt(&run, json_array_get(prompts, p));
        print_message("SmolLM2, %zu tokens, exact against transformers in float32 at %zu positions: largest %.2e, "
                      "mean %.2e\n",
                      json_array_size(json_object_get(json_array_get(prompts, p), "tokens")), g.n_seen, g.largest,
                      g.sum / (double)g.n_seen);
        assert_true(g.n_seen >= 200);
        assert_true(g.largest < 1e-3);
    }
    run_close(&run);
    json_decref(golden);
}

/* Two references: float32 over the dequantized weights, which `exact` must meet, and llama.cpp, whose quantized activations
 * put it as far from float32 as the two golden files are from each other: 0.076 on average, 1.67 at most. */
static void test_gemma3_golden(void **state)
{
    (void)state;
    double largest, mean;
    size_t n;
    compare_golden(gemma3, "gemma3_fp32_logprobs.json", &largest, &mean, &n);
    print_message("Gemma 3, %zu prompts, exact against float32: largest %.2e, mean %.2e\n", n, largest, mean);
    assert_true(n >= 10);
    assert_true(largest < 1e-3);
    compare_golden(gemma3, "gemma3_logprobs.json", &largest, &mean, &n);
    print_message("Gemma 3, %zu prompts, exact against llama.cpp: largest %.2e, mean %.2e\n", n, largest, mean);
    assert_true(mean < 0.08 && largest < 1.7);
}

/* Text of the evaluation corpus as tokens, BOS first where the model wants one. */
static sl_tokens corpus_tokens(run_model *run, const char *file)
{
    char path[512];
    snprintf(path, sizeof path, "%s/text/%s", SL_TEST_GOLDEN_DIR, file);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    static char text[1 << 20];
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    sl_tokens tokens = {0};
    sl_err err;
    run_require(sl_bundle_text_tokens(run->bundle, text, n, &tokens, &err), &err);
    return tokens;
}

typedef struct {
    uint64_t n, n_agree;
    double nll_exact, nll_fast, kld, largest_gap;
} comparison;

static void compare_rows(comparison *c, const float *exact, const float *fast, uint32_t n_vocab, uint32_t next)
{
    double za = log_sum(exact, n_vocab), zb = log_sum(fast, n_vocab), kld = 0;
    uint32_t a = 0, b = 0;
    float second = -INFINITY;
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (exact[i] > exact[a]) {
            second = exact[a];
            a = i;
        } else if (i != a && exact[i] > second) {
            second = exact[i];
        }
        b = fast[i] > fast[b] ? i : b;
        double p = (double)exact[i] - za;
        if (p > -30)
            kld += exp(p) * (p - ((double)fast[i] - zb));
    }
    c->n++;
    c->n_agree += a == b;
    if (a != b)
        c->largest_gap = fmax(c->largest_gap, (double)exact[a] - (double)second);
    c->kld += kld;
    c->nll_exact += za - (double)exact[next];
    c->nll_fast += zb - (double)fast[next];
}

/* Windows of 256 tokens from both texts until n_positions are compared. */
static comparison compare_levels(const char *model, size_t n_positions)
{
    enum { WINDOW = 256 };
    comparison c = {0};
    run_setup exact = {.path = model, .level = SL_LEVEL_EXACT, .kv_type = SL_KV_F32, .n_threads = 2, .context = WINDOW};
    run_setup fast = exact;
    fast.level = sl_level_best();
    fast.kv_type = SL_KV_F16;
    run_model a = run_open(&exact), b = run_open(&fast);
    static const char *const files[] = {"english.txt", "code.txt"};
    for (size_t f = 0; f < SL_COUNTOF(files); f++) {
        sl_tokens tokens = corpus_tokens(&a, files[f]);
        for (size_t at = 0; at + WINDOW <= tokens.n && c.n < n_positions / SL_COUNTOF(files) * (f + 1); at += WINDOW) {
            /* As llama-perplexity does, every window begins with BOS where the model wants one. */
            if (sl_vocab_adds_bos(sl_bundle_vocab(a.bundle)))
                tokens.ids[at] = (uint32_t)sl_vocab_bos(sl_bundle_vocab(a.bundle));
            float *x = run_score(&a, tokens.ids + at, WINDOW), *y = run_score(&b, tokens.ids + at, WINDOW);
            for (size_t i = 0; i + 1 < WINDOW; i++)
                compare_rows(&c, x + i * a.n_vocab, y + i * a.n_vocab, a.n_vocab, tokens.ids[at + i + 1]);
            free(x);
            free(y);
        }
        sl_tokens_free(&tokens);
    }
    run_close(&a);
    run_close(&b);
    return c;
}

static void check_fast(const char *name, const char *model)
{
    const char *wanted = getenv("SLUICE_TEST_POSITIONS");
    comparison c = compare_levels(model, wanted ? strtoul(wanted, NULL, 10) : 512);
    double n = (double)c.n, agreement = (double)c.n_agree / n, ratio = exp((c.nll_fast - c.nll_exact) / n) - 1;
    print_message("%s, %s against exact, %.0f positions: argmax agreement %.2f %%, largest flip gap %.3f, "
                  "perplexity %+.2f %%, mean KLD %.2e\n",
                  name, sl_level_name(sl_level_best()), n, agreement * 100, c.largest_gap, ratio * 100, c.kld / n);
    assert_true(agreement >= 0.94);
    assert_true(c.largest_gap <= 0.5);
    assert_true(fabs(ratio) <= 0.007);
}

static void test_smollm2_fast(void **state)
{
    (void)state;
    check_fast("SmolLM2", smollm2);
}

static void test_gemma3_fast(void **state)
{
    (void)state;
    check_fast("Gemma 3", gemma3);
}

static void check_invariance(const char *model, size_t n_tokens)
{
    run_setup base = {.path = model, .level = sl_level_best(), .kv_type = SL_KV_F16, .n_threads = 1, .context = 700};
    run_model run = run_open(&base);
    sl_tokens tokens = corpus_tokens(&run, "english.txt");
    assert_true(tokens.n >= n_tokens);
    float *want = run_score(&run, tokens.ids, n_tokens);
    uint32_t n_vocab = run.n_vocab;
    run_close(&run);
    static const struct {
        int n_threads;
        uint32_t chunk;
        uint64_t shuffle_seed;
    } variants[] = {{2, 7, 0}, {3, 64, 0}, {2, 512, 5}, {2, 1, 0}};
    for (size_t v = 0; v < SL_COUNTOF(variants); v++) {
        run_setup other = base;
        other.n_threads = variants[v].n_threads;
        other.chunk = variants[v].chunk;
        other.shuffle_seed = variants[v].shuffle_seed;
        run = run_open(&other);
        float *got = run_score(&run, tokens.ids, n_tokens);
        assert_memory_equal(want, got, n_tokens * n_vocab * sizeof *want);
        free(got);
        run_close(&run);
    }
    free(want);
    sl_tokens_free(&tokens);
}

static void test_invariance(void **state)
{
    (void)state;
    check_invariance(smollm2, 600);
    check_invariance(gemma3, 100);
}

int main(int argc, char **argv)
{
    sl_err err;
    if (argc != 3) {
        fprintf(stderr, "usage: test_real SMOLLM2 GEMMA3\n");
        return 2;
    }
    run_require(sl_store_resolve(NULL, argv[1], &smollm2, &err), &err);
    run_require(sl_store_resolve(NULL, argv[2], &gemma3, &err), &err);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smollm2_golden), cmocka_unit_test(test_smollm2_long),
        cmocka_unit_test(test_gemma3_golden),  cmocka_unit_test(test_smollm2_fast),
        cmocka_unit_test(test_gemma3_fast),    cmocka_unit_test(test_invariance),
    };
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(smollm2);
    free(gemma3);
    return n_failed;
}
