/* sample: filtered distributions and log-probabilities against transformers, random words against NumPy (see
 * tools/golden_sampler.py), frequencies of draws, ties, bad parameters and logits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "sample/philox.h"
#include "sample/rows.h"
#include "sample/sampler.h"
#include "sample/sampler_internal.h"

static json_t *golden;
static sl_sample_scratch *scratch; /* for the samplers of the size opened last */

static int load_golden(void **state)
{
    (void)state;
    json_error_t e;
    golden = json_load_file(SL_TEST_GOLDEN_DIR "/sampler.json", 0, &e);
    if (!golden)
        fprintf(stderr, "%s:%d: %s\n", e.source, e.line, e.text);
    return golden ? 0 : -1;
}

static int free_golden(void **state)
{
    (void)state;
    json_decref(golden);
    sl_sample_scratch_close(scratch);
    return 0;
}

/* Array of numbers, null for -inf; the caller frees it. */
static double *read_numbers(const json_t *array, uint32_t *n)
{
    *n = (uint32_t)json_array_size(array);
    double *x = calloc(*n, sizeof(*x));
    assert_non_null(x);
    for (uint32_t i = 0; i < *n; i++) {
        const json_t *v = json_array_get(array, i);
        x[i] = json_is_null(v) ? -INFINITY : json_number_value(v);
    }
    return x;
}

static float *read_logits(const char *name, uint32_t *n)
{
    double *x = read_numbers(json_object_get(json_object_get(golden, "logits"), name), n);
    float *logits = calloc(*n, sizeof(*logits));
    assert_non_null(logits);
    for (uint32_t i = 0; i < *n; i++)
        logits[i] = (float)x[i];
    free(x);
    return logits;
}

static float number(const json_t *object, const char *key, float fallback)
{
    const json_t *v = json_object_get(object, key);
    return v ? (float)json_number_value(v) : fallback;
}

static void need_scratch(uint32_t n_vocab)
{
    if (scratch && scratch->n_vocab == n_vocab)
        return;
    sl_sample_scratch_close(scratch);
    assert_int_equal(sl_sample_scratch_open(n_vocab, &scratch, NULL), SL_OK);
}

static sl_sampler *open_sampler(const sl_sample_params *params, uint32_t n_vocab)
{
    sl_sampler *sampler;
    sl_err err;
    if (sl_sampler_open(params, n_vocab, &sampler, &err) != SL_OK)
        fail_msg("%s", err.message);
    need_scratch(n_vocab);
    return sampler;
}

static void accept_all(sl_sampler *sampler, const json_t *tokens, bool generated)
{
    for (size_t i = 0; i < json_array_size(tokens); i++)
        sl_sampler_accept(sampler, (uint32_t)json_integer_value(json_array_get(tokens, i)), generated);
}

/* A list of tokens of a case; *store is advanced. */
static sl_token_list read_tokens(const json_t *array, uint32_t **store)
{
    sl_token_list list = {*store, json_array_size(array)};
    for (size_t i = 0; i < list.n; i++)
        *(*store)++ = (uint32_t)json_integer_value(json_array_get(array, i));
    return list;
}

enum { CASE_TOKENS = 400, CASE_WORDS = 20 };

/* Bad words, stop tokens and allowed tokens of a case. */
static void read_masks(const json_t *c, sl_sample_params *params, sl_token_list *words, uint32_t *store)
{
    const uint32_t *begin = store;
    const json_t *bad = json_object_get(c, "bad_words");
    params->n_bad_words = json_array_size(bad);
    params->bad_words = words;
    assert_true(params->n_bad_words <= CASE_WORDS);
    for (size_t i = 0; i < params->n_bad_words; i++)
        words[i] = read_tokens(json_array_get(bad, i), &store);
    params->stop_tokens = read_tokens(json_object_get(c, "stop_tokens"), &store);
    params->allowed_tokens = read_tokens(json_object_get(c, "allowed_tokens"), &store);
    params->min_tokens = (uint32_t)number(c, "min_tokens", 0);
    assert_true(store <= begin + CASE_TOKENS);
}

static void compare_case(const json_t *c, size_t index)
{
    uint32_t store[CASE_TOKENS];
    sl_token_list words[CASE_WORDS];
    uint32_t n, n_support, n_probabilities;
    float *logits = read_logits(json_string_value(json_object_get(c, "logits")), &n);
    double *support = read_numbers(json_object_get(c, "support"), &n_support);
    double *probability = read_numbers(json_object_get(c, "probability"), &n_probabilities);
    sl_logit_bias bias[16];
    const json_t *biases = json_object_get(c, "bias");
    sl_sample_params params = sl_sample_params_default();
    params.temperature = number(c, "temperature", 1);
    params.top_k = (uint32_t)number(c, "top_k", 0);
    params.top_p = number(c, "top_p", 1);
    params.min_p = number(c, "min_p", 0);
    params.repetition_penalty = number(c, "repetition_penalty", 1);
    params.presence_penalty = number(c, "presence_penalty", 0);
    params.frequency_penalty = number(c, "frequency_penalty", 0);
    params.n_bias = json_array_size(biases);
    assert_true(params.n_bias <= SL_COUNTOF(bias));
    for (size_t i = 0; i < params.n_bias; i++) {
        const json_t *entry = json_array_get(biases, i);
        bias[i].token = (uint32_t)json_integer_value(json_array_get(entry, 0));
        bias[i].bias = (float)json_number_value(json_array_get(entry, 1));
    }
    params.bias = bias;
    read_masks(c, &params, words, store);
    sl_sampler *sampler = open_sampler(&params, n);
    memset(store, 0xff, sizeof store); /* the sampler has its own copies */
    memset(words, 0, sizeof words);
    memset(bias, 0, sizeof bias);
    accept_all(sampler, json_object_get(c, "prompt"), false);
    accept_all(sampler, json_object_get(c, "generated"), true);
    const sl_candidates *got;
    float *before = read_logits(json_string_value(json_object_get(c, "logits")), &n);
    assert_int_equal(sl_sampler_filter(sampler, scratch, logits, &got, NULL), SL_OK);
    assert_memory_equal(before, logits, n * sizeof *logits);
    free(before);
    double sum = 0, largest = 0;
    for (uint32_t i = 0; i < got->n; i++) {
        sum += (double)got->weight[i];
        largest = fmax(largest, fabs((double)got->logit[i]));
    }
    /* transformers divides by the temperature before it subtracts the maximum: two roundings of the quotient */
    double tolerance = 1e-5 + 0x1p-23 * largest / (double)params.temperature;
    /* transformers' softmax drops what is below the smallest float of the sum, we what is below it relative to the
     * maximum: the tail beyond 1e-37 may differ */
    uint32_t g = 0;
    for (uint32_t i = 0; i < n_support; i++) {
        if (g < got->n && got->id[g] == (uint32_t)support[i]) {
            double p = (double)got->weight[g++] / sum;
            if (fabs(p - probability[i]) > tolerance * probability[i] + 1e-30)
                fail_msg("case %zu: token %.0f has %.9g, not %.9g", index, support[i], p, probability[i]);
        } else if (probability[i] > 1e-37) {
            fail_msg("case %zu: token %.0f is missing", index, support[i]);
        }
    }
    if (g != got->n)
        fail_msg("case %zu: token %u should be filtered out", index, got->id[g]);
    sl_sampler_close(sampler);
    free(logits);
    free(support);
    free(probability);
}

static void test_filters(void **state)
{
    (void)state;
    const json_t *cases = json_object_get(golden, "cases");
    assert_true(json_array_size(cases) >= 100);
    for (size_t i = 0; i < json_array_size(cases); i++)
        compare_case(json_array_get(cases, i), i);
}

static void test_philox(void **state)
{
    (void)state;
    const json_t *words = json_object_get(golden, "philox");
    assert_true(json_array_size(words) >= 6);
    for (size_t i = 0; i < json_array_size(words); i++) {
        uint64_t v[3];
        for (size_t j = 0; j < 3; j++)
            v[j] = strtoull(json_string_value(json_array_get(json_array_get(words, i), j)), NULL, 16);
        assert_true(sl_philox_u64(v[0], v[1]) == v[2]);
        assert_true(sl_philox_uniform(v[0], v[1]) == ldexp((double)(v[2] >> 11), -53));
    }
}

/* The chosen token's and the most likely tokens' log-probabilities are the model's, whatever the filters. */
static void test_logprobs(void **state)
{
    (void)state;
    const char *names[] = {"plain", "masked", "peaked", "flat"};
    for (size_t k = 0; k < SL_COUNTOF(names); k++) {
        uint32_t n, n_logprobs;
        float *logits = read_logits(names[k], &n);
        double *expected = read_numbers(json_object_get(json_object_get(golden, "logprobs"), names[k]), &n_logprobs);
        assert_int_equal(n, n_logprobs);
        sl_sample_params params = sl_sample_params_default();
        sl_logit_bias bias = {.token = 1, .bias = -50};
        params.temperature = 1.7f;
        params.top_k = 30;
        params.repetition_penalty = 1.5f;
        params.bias = &bias;
        params.n_bias = 1;
        params.n_logprobs = SL_MAX_LOGPROBS;
        sl_sampler *sampler = open_sampler(&params, n);
        for (uint64_t position = 0; position < 50; position++) {
            sl_sampled got;
            assert_int_equal(sl_sampler_sample(sampler, scratch, logits, position, &got, NULL), SL_OK);
            sl_sampler_accept(sampler, got.token, true);
            assert_true(fabs((double)got.logprob - expected[got.token]) < 1e-5);
            assert_int_equal(got.n_top, SL_MAX_LOGPROBS);
            for (uint32_t i = 0; i < got.n_top; i++) {
                assert_true(fabs((double)got.top[i].logprob - expected[got.top[i].token]) < 1e-5);
                uint32_t n_above = 0;
                for (uint32_t t = 0; t < n; t++)
                    n_above += logits[t] > logits[got.top[i].token];
                assert_int_equal(n_above, i);
            }
        }
        sl_sampler_close(sampler);
        free(logits);
        free(expected);
    }
}

/* Pearson's chi-square of 200,000 draws against the probabilities; cells of less than 10 expected draws are merged. */
static void test_frequencies(void **state)
{
    (void)state;
    enum { N_DRAWS = 200000, N = 300 };
    uint32_t n;
    float *logits = read_logits("plain", &n);
    assert_int_equal(n, N);
    const sl_sample_params variants[] = {
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 1},
        {.temperature = 2, .top_p = 1, .repetition_penalty = 1, .seed = 2},
        {.temperature = 1.5f, .top_k = 40, .top_p = 0.95f, .min_p = 0.02f, .repetition_penalty = 1, .seed = 3},
    };
    for (size_t v = 0; v < SL_COUNTOF(variants); v++) {
        sl_sampler *sampler = open_sampler(&variants[v], n);
        uint32_t count[N] = {0};
        sl_sampled got;
        for (uint64_t position = 0; position < N_DRAWS; position++) {
            assert_int_equal(sl_sampler_sample(sampler, scratch, logits, position, &got, NULL), SL_OK);
            count[got.token]++;
        }
        const sl_candidates *c;
        assert_int_equal(sl_sampler_filter(sampler, scratch, logits, &c, NULL), SL_OK);
        double sum = 0, chi = 0, rest_expected = 0, rest = 0, n_cells = 0, n_drawn = 0;
        for (uint32_t i = 0; i < c->n; i++)
            sum += (double)c->weight[i];
        for (uint32_t i = 0; i < c->n; i++) {
            double expected = (double)c->weight[i] / sum * N_DRAWS, observed = count[c->id[i]];
            n_drawn += observed;
            if (expected < 10) {
                rest_expected += expected;
                rest += observed;
                continue;
            }
            chi += (observed - expected) * (observed - expected) / expected;
            n_cells++;
        }
        if (rest_expected > 10) {
            chi += (rest - rest_expected) * (rest - rest_expected) / rest_expected;
            n_cells++;
        }
        assert_true(n_drawn == N_DRAWS);
        /* Wilson-Hilferty: the cube root of chi over its degrees of freedom is nearly normal; 3.3 sigma either way, for
         * too even draws are wrong as well */
        double df = n_cells - 1;
        double z = (cbrt(chi / df) - (1 - 2 / (9 * df))) / sqrt(2 / (9 * df));
        assert_true(df > 5);
        if (fabs(z) > 3.3)
            fail_msg("variant %zu: chi-square %.1f of %.0f degrees of freedom", v, chi, df);
        sl_sampler_close(sampler);
    }
    free(logits);
}

static sl_sampled sample_once(const sl_sample_params *params, float *logits, uint32_t n, uint64_t position)
{
    sl_sampler *sampler = open_sampler(params, n);
    sl_sampled got;
    sl_err err;
    if (sl_sampler_sample(sampler, scratch, logits, position, &got, &err) != SL_OK)
        fail_msg("%s", err.message);
    sl_sampler_close(sampler);
    return got;
}

/* Equal logits: the lower id wins, also across blocks, zeros of both signs and every kind of filter. */
static void test_ties(void **state)
{
    (void)state;
    enum { N = 1000 };
    float logits[N];
    for (int i = 0; i < N; i++)
        logits[i] = i % 3 == 0 ? -0.0f : i % 3 == 1 ? 0.0f : -1.0f;
    sl_sample_params params = sl_sample_params_default();
    params.n_logprobs = 5;
    sl_sampled got = sample_once(&params, logits, N, 0);
    assert_int_equal(got.token, 0);
    const uint32_t order[] = {0, 1, 3, 4, 6};
    for (int i = 0; i < 5; i++)
        assert_int_equal(got.top[i].token, order[i]);
    logits[0] = -1;
    assert_int_equal(sample_once(&params, logits, N, 0).token, 1);
    params.temperature = 1;
    for (uint32_t k = 1; k <= 600; k += 13) {
        params.top_k = k;
        sl_sampler *sampler = open_sampler(&params, N);
        const sl_candidates *c;
        assert_int_equal(sl_sampler_filter(sampler, scratch, logits, &c, NULL), SL_OK);
        assert_int_equal(c->n, k);
        for (uint32_t i = 0; i < k; i++)
            assert_int_equal(c->id[i], 3 * ((i + 1) / 2) + ((i + 1) % 2));
        sl_sampler_close(sampler);
    }
    for (int i = 0; i < N; i++)
        logits[i] = 2.5f;
    params.top_k = 0;
    params.top_p = 0.25f;
    sl_sampler *sampler = open_sampler(&params, N);
    const sl_candidates *c;
    assert_int_equal(sl_sampler_filter(sampler, scratch, logits, &c, NULL), SL_OK);
    assert_int_equal(c->n, 250);
    assert_int_equal(c->id[249], 249);
    sl_sampler_close(sampler);
}

/* Top-k and top-p of a large vocabulary against a full sort; equal bits from a second sampler and after other draws. */
static int compare_descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

static void test_large(void **state)
{
    (void)state;
    enum { N = 262144 };
    float *logits = calloc(N, sizeof(*logits)), *sorted = calloc(N, sizeof(*sorted));
    assert_true(logits && sorted);
    for (uint32_t i = 0; i < N; i++)
        logits[i] = (float)(12 * (sl_philox_uniform(9, i) + sl_philox_uniform(10, i) + sl_philox_uniform(11, i)) - 25);
    memcpy(sorted, logits, N * sizeof(*logits));
    qsort(sorted, N, sizeof(*sorted), compare_descending);
    double total = 0;
    for (uint32_t i = 0; i < N; i++)
        total += exp((double)sorted[i] - (double)sorted[0]);
    sl_sample_params params = sl_sample_params_default();
    params.temperature = 1;
    const uint32_t ks[] = {1, 2, 40, 4095, 4096, 4097, 100000, N - 1, N, N + 1};
    for (size_t k = 0; k < SL_COUNTOF(ks); k++) {
        params.top_k = ks[k];
        sl_sampler *sampler = open_sampler(&params, N);
        const sl_candidates *c;
        assert_int_equal(sl_sampler_filter(sampler, scratch, logits, &c, NULL), SL_OK);
        uint32_t n = SL_MIN(ks[k], (uint32_t)N);
        assert_int_equal(c->n, n);
        for (uint32_t i = 0; i < n; i++)
            assert_true(c->logit[i] == logits[c->id[i]] && c->logit[i] >= sorted[n - 1]);
        sl_sampler_close(sampler);
    }
    params.top_k = 0;
    const double ps[] = {0.01, 0.5, 0.9, 0.99};
    for (size_t k = 0; k < SL_COUNTOF(ps); k++) {
        params.top_p = (float)ps[k];
        sl_sampler *sampler = open_sampler(&params, N);
        const sl_candidates *c;
        assert_int_equal(sl_sampler_filter(sampler, scratch, logits, &c, NULL), SL_OK);
        double mass = 0;
        uint32_t n = 0;
        while (mass < (double)params.top_p * total)
            mass += exp((double)sorted[n++] - (double)sorted[0]);
        /* single-precision weights may move the edge by a few of the thousands of tokens around it */
        assert_true(fabs((double)c->n - n) <= 2 + 1e-3 * n);
        sl_sampler_close(sampler);
    }
    params.top_p = 0.95f;
    params.seed = 77;
    sl_sampler *sampler = open_sampler(&params, N);
    for (uint64_t position = 0; position < 10; position++) {
        sl_sampled got;
        assert_int_equal(sl_sampler_sample(sampler, scratch, logits, position, &got, NULL), SL_OK);
        assert_int_equal(got.token, sample_once(&params, logits, N, position).token);
        assert_true(isnan(got.logprob));
    }
    sl_sampler_close(sampler);
    free(logits);
    free(sorted);
}

static void test_bad_params(void **state)
{
    (void)state;
    enum { FIELDS = 6 };
    static const struct {
        const char *name;
        size_t offset;
        float low, high;
    } fields[FIELDS] = {
        {"temperature", offsetof(sl_sample_params, temperature), 0, 100},
        {"top_p", offsetof(sl_sample_params, top_p), 0, 1},
        {"min_p", offsetof(sl_sample_params, min_p), 0, 1},
        {"repetition_penalty", offsetof(sl_sample_params, repetition_penalty), 0.01f, 100},
        {"presence_penalty", offsetof(sl_sample_params, presence_penalty), -2, 2},
        {"frequency_penalty", offsetof(sl_sample_params, frequency_penalty), -2, 2},
    };
    sl_err err;
    for (int f = 0; f < FIELDS; f++) {
        const float bad[] = {nextafterf(fields[f].low, -INFINITY),
                             nextafterf(fields[f].high, INFINITY),
                             NAN,
                             INFINITY,
                             -INFINITY,
                             1e30f,
                             -1e30f};
        for (size_t i = 0; i < SL_COUNTOF(bad); i++) {
            sl_sample_params params = sl_sample_params_default();
            memcpy((char *)&params + fields[f].offset, &bad[i], sizeof(float));
            assert_int_equal(sl_sample_params_check(&params, 10, &err), SL_ERR_ARGUMENT);
            assert_non_null(strstr(err.message, fields[f].name));
            sl_sampler *sampler;
            assert_int_equal(sl_sampler_open(&params, 10, &sampler, &err), SL_ERR_ARGUMENT);
            assert_null(sampler);
        }
        for (int i = 0; i < 2; i++) {
            sl_sample_params params = sl_sample_params_default();
            memcpy((char *)&params + fields[f].offset, i ? &fields[f].high : &fields[f].low, sizeof(float));
            assert_int_equal(sl_sample_params_check(&params, 10, &err), SL_OK);
        }
    }
    sl_sample_params params = sl_sample_params_default();
    params.n_logprobs = SL_MAX_LOGPROBS + 1;
    assert_int_equal(sl_sample_params_check(&params, 10, &err), SL_ERR_ARGUMENT);
    params = sl_sample_params_default();
    params.n_bias = 1;
    assert_int_equal(sl_sample_params_check(&params, 10, &err), SL_ERR_ARGUMENT);
    const sl_logit_bias bad[] = {{10, 0}, {UINT32_MAX, 0}, {3, NAN}, {3, 101}, {3, -INFINITY}};
    for (size_t i = 0; i < SL_COUNTOF(bad); i++) {
        params.bias = &bad[i];
        assert_int_equal(sl_sample_params_check(&params, 10, &err), SL_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "logit_bias"));
    }
    const uint32_t tokens[] = {3, 10};
    for (size_t n_good = 0; n_good < 2; n_good++) {
        sl_token_list lists[] = {{tokens, 2}, {NULL, 1}, {tokens + 1, 1}};
        for (size_t i = 0; i < SL_COUNTOF(lists); i++) {
            params = sl_sample_params_default();
            *(n_good ? &params.stop_tokens : &params.allowed_tokens) = lists[i];
            assert_int_equal(sl_sample_params_check(&params, 10, &err), SL_ERR_ARGUMENT);
            assert_non_null(strstr(err.message, n_good ? "stop_tokens" : "allowed_tokens"));
        }
    }
    const sl_token_list bad_words[] = {{tokens, 2}, {tokens, 0}, {tokens, SL_MAX_BAD_WORD + 1}, {NULL, 1}};
    for (size_t i = 0; i < SL_COUNTOF(bad_words); i++) {
        params = sl_sample_params_default();
        params.bad_words = &bad_words[i];
        params.n_bad_words = 1;
        assert_int_equal(sl_sample_params_check(&params, 10, &err), SL_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "bad_words"));
    }
    params.bad_words = NULL;
    assert_int_equal(sl_sample_params_check(&params, 10, &err), SL_ERR_ARGUMENT);
    params.bad_words = bad_words;
    params.n_bad_words = SL_MAX_BAD_WORDS + 1;
    assert_int_equal(sl_sample_params_check(&params, 10, &err), SL_ERR_ARGUMENT);
    params = sl_sample_params_default();
    sl_sampler *sampler;
    assert_int_equal(sl_sampler_open(&params, 0, &sampler, &err), SL_ERR_ARGUMENT);
}

static void test_bad_logits(void **state)
{
    (void)state;
    enum { N = 200 };
    float logits[N];
    for (int variant = 0; variant < 3; variant++) {
        sl_sample_params params = sl_sample_params_default();
        params.temperature = variant == 0 ? 0 : 1;
        params.repetition_penalty = variant == 2 ? 2 : 1;
        sl_sampler *sampler = open_sampler(&params, N);
        sl_sampler_accept(sampler, 5, true);
        sl_sampler_accept(sampler, N, true); /* ignored */
        sl_sampled got;
        sl_err err;
        const float bad[] = {NAN, -NAN, INFINITY};
        for (size_t b = 0; b < SL_COUNTOF(bad); b++) {
            for (int at = 0; at < N; at += 7) {
                for (int i = 0; i < N; i++)
                    logits[i] = -INFINITY;
                logits[20] = 1;
                logits[at] = bad[b];
                assert_int_equal(sl_sampler_sample(sampler, scratch, logits, 0, &got, &err), SL_ERR_NUMERIC);
            }
        }
        for (int i = 0; i < N; i++)
            logits[i] = -INFINITY;
        assert_int_equal(sl_sampler_sample(sampler, scratch, logits, 0, &got, &err), SL_ERR_NUMERIC);
        logits[N - 1] = -3e38f;
        assert_int_equal(sl_sampler_sample(sampler, scratch, logits, 0, &got, &err), SL_OK);
        assert_int_equal(got.token, N - 1);
        logits[5] = 3e38f;
        assert_int_equal(sl_sampler_sample(sampler, scratch, logits, 0, &got, &err), SL_OK);
        assert_int_equal(got.token, 5);
        sl_sampler_close(sampler);
    }
}

static void test_log_sum_exp(void **state)
{
    (void)state;
    const float same[4] = {3, 3, 3, 3}, huge[2] = {3e38f, 3e38f}, masked[3] = {-INFINITY, 2, -INFINITY};
    const float none[2] = {-INFINITY, -INFINITY};
    assert_true(fabs(sl_log_sum_exp(same, 4) - (3 + log(4))) < 1e-15);
    assert_true(sl_log_sum_exp(huge, 2) == (double)3e38f);
    assert_true(sl_log_sum_exp(masked, 3) == 2);
    assert_true(sl_log_sum_exp(none, 2) == -INFINITY);
    enum { N = 10007 };
    static float logits[N];
    for (double scale = 0.1; scale < 100; scale *= 3) {
        double sum = 0;
        for (uint32_t i = 0; i < N; i++) {
            logits[i] = (float)(scale * (sl_philox_uniform(3, i) - 0.5) + scale);
            sum += exp((double)logits[i]);
        }
        assert_true(fabs(sl_log_sum_exp(logits, N) - log(sum)) < 2e-7 * (1 + scale));
    }
}

/* Stop tokens come back after min_tokens generated ones; a mask that leaves nothing is an error, and the logits are
 * whole again after it. */
static void test_masks_end(void **state)
{
    (void)state;
    enum { N = 100 };
    float logits[N] = {0};
    logits[7] = 5;
    logits[8] = 4;
    const uint32_t stops[] = {7, 8};
    sl_sample_params params = sl_sample_params_default();
    params.stop_tokens = (sl_token_list){stops, 2};
    params.min_tokens = 3;
    sl_sampler *sampler = open_sampler(&params, N);
    sl_sampler_accept(sampler, 1, false);
    for (uint32_t i = 0; i < 5; i++) {
        sl_sampled got;
        assert_int_equal(sl_sampler_sample(sampler, scratch, logits, i, &got, NULL), SL_OK);
        assert_int_equal(got.token, i < 3 ? 0 : 7);
        sl_sampler_accept(sampler, got.token, true);
    }
    sl_sampler_close(sampler);
    sl_sampled got;
    sl_err err;
    params.allowed_tokens = params.stop_tokens;
    assert_int_equal(sl_sampler_open(&params, N, &sampler, &err), SL_ERR_ARGUMENT);
    /* What a longer bad word will rule out is not known before. */
    const uint32_t word[] = {1, 7};
    const sl_token_list words = {word, 2};
    params.min_tokens = 0;
    params.allowed_tokens.n = 1;
    params.bad_words = &words;
    params.n_bad_words = 1;
    sampler = open_sampler(&params, N);
    assert_int_equal(sl_sampler_sample(sampler, scratch, logits, 0, &got, &err), SL_OK);
    sl_sampler_accept(sampler, 1, false);
    assert_int_equal(sl_sampler_sample(sampler, scratch, logits, 1, &got, &err), SL_ERR_NUMERIC);
    assert_true(logits[7] == 5 && logits[8] == 4);
    sl_sampler_close(sampler);
}

/* What the sampler looks at for top-p and min-p is narrowed beforehand; that leaves what filters over all logits leave. */
static void test_bound(void **state)
{
    (void)state;
    enum { N = 3000, N_ROUNDS = 1500 };
    static float logits[N];
    static int32_t block_max[N / SL_KEY_BLOCK + 1];
    static uint32_t id[N];
    static float logit[N], weight[N];
    uint32_t n_narrow = 0;
    for (uint32_t round = 0; round < N_ROUNDS; round++) {
        double u[4];
        for (uint32_t i = 0; i < 4; i++)
            u[i] = sl_philox_uniform(21, 4 * round + i);
        float scale = (float)pow(10, 4 * u[0] - 2), offset = (float)(round % 3 * 1000 * u[1]);
        for (uint32_t i = 0; i < N; i++)
            logits[i] = i % 50 == round % 50 ? -INFINITY : offset + scale * (float)sl_philox_uniform(round, i);
        sl_sample_params params = sl_sample_params_default();
        params.temperature = (float)pow(10, 2.5 * u[1] - 1.5);
        params.top_p = round % 4 == 1 ? 1 : round % 4 == 2 ? 1 - (float)pow(10, -7 * u[2]) : (float)u[2];
        params.min_p = round % 4 == 3 ? 0 : (float)pow(10, -6 * u[3]);
        sl_sampler *sampler = open_sampler(&params, N);
        const sl_candidates *got;
        assert_int_equal(sl_sampler_filter(sampler, scratch, logits, &got, NULL), SL_OK);
        sl_candidates want = {.id = id, .logit = logit, .weight = weight};
        int32_t max;
        assert_true(sl_logits_scan(logits, N, block_max, &max));
        float max_logit = logits[sl_logits_argmax(logits, N, block_max, max)];
        sl_candidates_gather(&want, logits, N, block_max, -INFINITY, 0);
        assert_int_equal(want.n, N - N / 50);
        sl_candidates_weigh(&want, max_logit, params.temperature);
        double total = sl_logits_total(logits, N, max_logit, params.temperature);
        assert_true(fabs(total - sl_candidates_sum(&want)) <= 1e-12 * total);
        if (params.top_p < 1)
            sl_candidates_top_p(&want, params.top_p, total);
        sl_candidates_min_p(&want, params.min_p);
        assert_int_equal(want.n, got->n);
        assert_memory_equal(want.id, got->id, want.n * sizeof *id);
        assert_memory_equal(want.weight, got->weight, want.n * sizeof *weight);
        n_narrow += want.n < N / 10;
        sl_sampler_close(sampler);
    }
    assert_true(n_narrow > N_ROUNDS / 5 && n_narrow < N_ROUNDS * 4 / 5);
}

/* ---- rows on several workers ---- */

enum { ROWS_VOCAB = 5000, MANY_ROWS = 41 };

static sl_sample_params row_params(size_t r, const uint32_t *tokens)
{
    sl_sample_params params = sl_sample_params_default();
    params.seed = r;
    params.temperature = r % 4 ? 0.5f + (float)(r % 3) : 0;
    params.top_p = r % 5 == 1 ? 0.9f : 1;
    params.top_k = r % 7 == 2 ? 50 : 0;
    params.repetition_penalty = r % 3 == 0 ? 1.3f : 1;
    params.n_logprobs = (uint32_t)(r % 6);
    if (r % 4 == 3)
        params.allowed_tokens = (sl_token_list){tokens, 200};
    return params;
}

/* Samples and scores the rows with a pool; four at a time share their logits. */
static void do_rows(int n_workers, float *logits, sl_sample_row *rows)
{
    uint32_t tokens[200];
    sl_threads *pool;
    sl_sample_team *team;
    sl_err err;
    for (uint32_t i = 0; i < 200; i++)
        tokens[i] = (i * 7919) % ROWS_VOCAB;
    assert_int_equal(sl_threads_open(n_workers, &pool, &err), SL_OK);
    assert_int_equal(sl_sample_team_open(pool, ROWS_VOCAB, &team, &err), SL_OK);
    memset(rows, 0, MANY_ROWS * sizeof *rows);
    for (size_t r = 0; r < MANY_ROWS; r++) {
        rows[r].logits = logits + r / 4 * 4 * ROWS_VOCAB;
        rows[r].position = r;
        rows[r].token = (uint32_t)r;
        rows[r].n_top = (uint32_t)r % SL_MAX_LOGPROBS;
        if (r % 8 == 5)
            continue; /* scored */
        sl_sample_params params = row_params(r, tokens);
        rows[r].sampler = open_sampler(&params, ROWS_VOCAB);
        for (uint32_t t = 0; t < 1000; t++)
            sl_sampler_accept(rows[r].sampler, t * 5 + (uint32_t)r % 5, true);
    }
    sl_sample_rows(team, rows, 0);
    sl_sample_rows(team, rows, MANY_ROWS);
    for (size_t r = 0; r < MANY_ROWS; r++) {
        sl_sampler_close(rows[r].sampler);
        rows[r].sampler = NULL;
    }
    sl_sample_team_close(team);
    sl_threads_close(pool);
}

static void assert_same_sampled(const sl_sampled *a, const sl_sampled *b)
{
    assert_int_equal(a->token, b->token);
    assert_memory_equal(&a->logprob, &b->logprob, sizeof a->logprob);
    assert_int_equal(a->n_top, b->n_top);
    assert_memory_equal(a->top, b->top, a->n_top * sizeof *a->top);
}

/* Rows on any number of workers come to the same bits, each as alone; one row's bad logits are its own failure. */
static void test_rows(void **state)
{
    (void)state;
    float *logits = malloc(MANY_ROWS * ROWS_VOCAB * sizeof *logits),
          *copy = malloc(MANY_ROWS * ROWS_VOCAB * sizeof *copy);
    sl_sample_row *alone = malloc(MANY_ROWS * sizeof *alone), *rows = malloc(MANY_ROWS * sizeof *rows);
    assert_true(logits && copy && alone && rows);
    for (size_t i = 0; i < MANY_ROWS * ROWS_VOCAB; i++)
        logits[i] = (float)(20 * sl_philox_uniform(5, i) - 10 * sl_philox_uniform(6, i));
    logits[8 * ROWS_VOCAB + 77] = NAN;
    memcpy(copy, logits, MANY_ROWS * ROWS_VOCAB * sizeof *copy);
    do_rows(1, logits, alone);
    for (int round = 0; round < 40; round++) {
        do_rows(2 + round % 4, logits, rows);
        assert_memory_equal(copy, logits, MANY_ROWS * ROWS_VOCAB * sizeof *copy);
        for (size_t r = 0; r < MANY_ROWS; r++) {
            bool bad = r / 4 == 2;
            assert_int_equal(rows[r].status, bad ? SL_ERR_NUMERIC : SL_OK);
            if (!bad)
                assert_same_sampled(&alone[r].sampled, &rows[r].sampled);
        }
    }
    for (size_t r = 0; r < MANY_ROWS; r++) {
        if (r % 8 != 5)
            continue;
        double want = (double)rows[r].logits[r] - sl_log_sum_exp(rows[r].logits, ROWS_VOCAB);
        assert_int_equal(rows[r].sampled.token, r);
        assert_true(fabs((double)rows[r].sampled.logprob - want) < 1e-5);
        assert_int_equal(rows[r].sampled.n_top, r % SL_MAX_LOGPROBS);
    }
    free(logits);
    free(copy);
    free(alone);
    free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filters),     cmocka_unit_test(test_philox),     cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_frequencies), cmocka_unit_test(test_ties),       cmocka_unit_test(test_large),
        cmocka_unit_test(test_bad_params),  cmocka_unit_test(test_bad_logits), cmocka_unit_test(test_log_sum_exp),
        cmocka_unit_test(test_masks_end),   cmocka_unit_test(test_rows),       cmocka_unit_test(test_bound),
    };
    return cmocka_run_group_tests(tests, load_golden, free_golden);
}
