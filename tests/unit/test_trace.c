/* Request traces: the same on every run, with the distributions they claim; files with every field checked; and a replay
 * on a tiny model. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tune/replay.h"

#define TINY SL_TEST_GOLDEN_DIR "/tiny_llama.gguf"

static sl_trace *make(const char *name, sl_trace_options options)
{
    sl_trace *trace;
    sl_err err;
    assert_int_equal(sl_trace_make(name, &options, &trace, &err), SL_OK);
    return trace;
}

/* ---- determinism ---- */

/* FNV-1a over all that a trace is. */
static uint64_t digest(const sl_trace *trace)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < trace->n_requests; i++) {
        const sl_trace_request *r = &trace->requests[i];
        uint64_t fields[] = {
            (uint64_t)r->arrival_us, r->n_prompt, r->n_output, r->n_prefix,
            r->prefix_group,         r->follows,  r->tenant,   sl_trace_token(trace, i, r->n_prompt - 1, 50000)};
        for (size_t f = 0; f < SL_COUNTOF(fields); f++)
            hash = (hash ^ fields[f]) * 1099511628211u;
    }
    return hash;
}

static void test_builtin_traces_are_committed(void **state)
{
    (void)state;
    /* Of seed 1. A change here is a change of what every published figure was measured with. */
    static const struct {
        const char *name;
        uint64_t digest;
    } known[] = {
        {"fixed", 0x777e59f1d4871459u},       {"uniform", 0xa3159237d897aceeu},
        {"lognormal", 0xc7ed5c80f70d9377u},   {"poisson", 0xee73942eaddfe2e1u},
        {"bursty", 0x5ab19f3e2e7c6ea1u},      {"shared-prefix", 0x5b5f695d3a83ff14u},
        {"long-prefix", 0xc1d03ea5b50b443du}, {"chat", 0x8026a79324925fccu},
        {"two-tenants", 0x1b509b7dd27ebcc1u}, {"equal-tenants", 0x6e03ffec0d2b0c01u},
    };
    assert_null(sl_trace_builtin(SL_COUNTOF(known), NULL));
    for (size_t i = 0; i < SL_COUNTOF(known); i++) {
        const char *summary;
        assert_string_equal(sl_trace_builtin(i, &summary), known[i].name);
        assert_true(strlen(summary) > 10);
        sl_trace *trace = make(known[i].name, (sl_trace_options){.seed = 1});
        if (digest(trace) != known[i].digest)
            fail_msg("%s is now 0x%llx", known[i].name, (unsigned long long)digest(trace));
        sl_trace_close(trace);
    }
}

static void test_seed_decides(void **state)
{
    (void)state;
    sl_trace *one = make("chat", (sl_trace_options){.seed = 5}), *same = make("chat", (sl_trace_options){.seed = 5}),
             *other = make("chat", (sl_trace_options){.seed = 6});
    assert_true(digest(one) == digest(same));
    assert_true(digest(one) != digest(other));
    sl_trace_close(one);
    sl_trace_close(same);
    sl_trace_close(other);
}

/* A longer trace begins with the shorter one. */
static void test_first_requests_stay(void **state)
{
    (void)state;
    sl_trace *few = make("bursty", (sl_trace_options){.seed = 3, .n_requests = 50}),
             *many = make("bursty", (sl_trace_options){.seed = 3, .n_requests = 500});
    many->n_requests = 50;
    assert_true(digest(few) == digest(many));
    sl_trace_close(few);
    sl_trace_close(many);
}

/* ---- distributions: seeds are fixed, so that these never fail by chance ---- */

enum { MANY = 20000 };

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Kolmogorov and Smirnov's distance of n values of a distribution function from the uniform one. */
static double ks_distance(double *values, size_t n)
{
    double most = 0;
    qsort(values, n, sizeof *values, compare_doubles);
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs(values[i] - (double)i / (double)n));
        most = fmax(most, fabs(values[i] - (double)(i + 1) / (double)n));
    }
    return most;
}

/* 99.9% of samples of a true distribution stay below 1.95 / sqrt(n). */
static void assert_distributed(double *values, size_t n)
{
    assert_true(ks_distance(values, n) < 1.95 / sqrt((double)n));
}

static void test_poisson_gaps_are_exponential(void **state)
{
    (void)state;
    static double values[MANY];
    const double rate = 50;
    sl_trace *trace = make("poisson", (sl_trace_options){.seed = 11, .n_requests = MANY, .rate = rate});
    int64_t before = 0;
    for (size_t i = 0; i < MANY; i++) {
        int64_t gap_us = trace->requests[i].arrival_us - before;
        before = trace->requests[i].arrival_us;
        values[i] = 1 - exp(-rate * (double)gap_us / 1e6);
    }
    assert_distributed(values, MANY);
    assert_true(fabs((double)before / 1e6 * rate / MANY - 1) < 4 / sqrt(MANY));
    sl_trace_close(trace);
}

static void assert_bursts(uint32_t burst, double want)
{
    sl_trace *trace = make("bursty", (sl_trace_options){.seed = 11, .n_requests = MANY, .rate = 50, .burst = burst});
    size_t n_bursts = 1, n_single = 0, size = 1;
    for (size_t i = 1; i < MANY; i++) {
        if (trace->requests[i].arrival_us == trace->requests[i - 1].arrival_us) {
            size++;
            continue;
        }
        n_bursts++;
        n_single += size == 1;
        size = 1;
    }
    double mean = (double)MANY / (double)n_bursts, seconds = (double)trace->requests[MANY - 1].arrival_us / 1e6;
    assert_true(fabs(mean / want - 1) <
                4 / sqrt((double)n_bursts)); /* a geometric number: its deviation is near its mean */
    assert_true(fabs((double)n_single / (double)n_bursts - 1 / want) <
                4 * sqrt((want - 1) / want / want / (double)n_bursts));
    assert_true(fabs(seconds * 50 / MANY - 1) < 6 / sqrt((double)n_bursts));
    sl_trace_close(trace);
}

static void test_bursts(void **state)
{
    (void)state;
    assert_bursts(0, 8);
    assert_bursts(32, 32);
    sl_trace *trace = make("bursty", (sl_trace_options){.seed = 11, .n_requests = MANY, .rate = 50, .burst = 1});
    for (size_t i = 1; i < MANY; i++)
        assert_true(trace->requests[i].arrival_us > trace->requests[i - 1].arrival_us);
    sl_trace_close(trace);
}

static void test_lognormal_lengths(void **state)
{
    (void)state;
    static double values[MANY];
    sl_trace *trace = make("lognormal", (sl_trace_options){.seed = 12, .n_requests = MANY});
    size_t n = 0, n_least = 0;
    for (size_t i = 0; i < MANY; i++) {
        uint32_t length = trace->requests[i].n_output;
        assert_in_range(length, 4, 1024);
        assert_in_range(trace->requests[i].n_prompt, 8, 1024);
        assert_int_equal(trace->requests[i].arrival_us, 0);
        n_least += length == 4;
        /* Lengths are whole: each is put at a random place of the half-open interval that is rounded to it. */
        if (length > 4 && length < 1024) {
            double place = length - 0.5 + (double)(i * 7919 % MANY) / MANY;
            values[n++] = 0.5 * erfc(-(log(place / 48) / 1.2) / sqrt(2));
        }
    }
    /* What lies in between is distributed as the part of the lognormal that does. */
    double low = 0.5 * erfc(-(log(4.5 / 48) / 1.2) / sqrt(2)), high = 0.5 * erfc(-(log(1023.5 / 48) / 1.2) / sqrt(2));
    for (size_t i = 0; i < n; i++)
        values[i] = (values[i] - low) / (high - low);
    assert_distributed(values, n);
    assert_true(fabs((double)n_least / MANY - low) < 4 * sqrt(low / MANY));
    sl_trace_close(trace);
}

static void test_uniform_lengths(void **state)
{
    (void)state;
    size_t counts[257] = {0};
    sl_trace *trace = make("uniform", (sl_trace_options){.seed = 13, .n_requests = MANY});
    for (size_t i = 0; i < MANY; i++) {
        assert_in_range(trace->requests[i].n_prompt, 16, 256);
        assert_in_range(trace->requests[i].n_output, 16, 128);
        counts[trace->requests[i].n_prompt]++;
    }
    double expected = MANY / 241.0, chi2 = 0;
    for (size_t i = 16; i <= 256; i++)
        chi2 += ((double)counts[i] - expected) * ((double)counts[i] - expected) / expected;
    assert_true(fabs(chi2 - 240) < 4 * sqrt(2 * 240.0));
    sl_trace_close(trace);
}

static void test_tenants_and_groups(void **state)
{
    (void)state;
    sl_trace *trace = make("two-tenants", (sl_trace_options){.seed = 14, .n_requests = MANY});
    size_t n_b = 0, groups[5] = {0};
    for (size_t i = 0; i < MANY; i++)
        n_b += trace->requests[i].tenant;
    assert_int_equal(trace->n_tenants, 2);
    assert_true(fabs((double)n_b / MANY - 1.0 / 21) < 4 * sqrt(20.0 / 441 / MANY));
    sl_trace_close(trace);
    trace = make("equal-tenants", (sl_trace_options){.seed = 14, .n_requests = MANY});
    n_b = 0;
    for (size_t i = 0; i < MANY; i++)
        n_b += trace->requests[i].tenant;
    assert_true(fabs((double)n_b / MANY - 0.5) < 4 * sqrt(0.25 / MANY));
    sl_trace_close(trace);
    trace = make("shared-prefix", (sl_trace_options){.seed = 14, .n_requests = MANY});
    for (size_t i = 0; i < MANY; i++) {
        assert_in_range(trace->requests[i].prefix_group, 1, 4);
        assert_in_range(trace->requests[i].n_prompt, 512 + 16, 512 + 64);
        groups[trace->requests[i].prefix_group]++;
    }
    for (size_t g = 1; g <= 4; g++)
        assert_true(fabs((double)groups[g] / MANY - 0.25) < 4 * sqrt(0.1875 / MANY));
    sl_trace_close(trace);
}

static void test_chat_turns_follow(void **state)
{
    (void)state;
    sl_trace *trace = make("chat", (sl_trace_options){.seed = 15, .n_requests = 3000});
    size_t n_turns = 0, longest = 0, n_conversations = 0;
    for (size_t i = 0; i < trace->n_requests; i++) {
        const sl_trace_request *r = &trace->requests[i];
        n_turns = r->follows ? n_turns + 1 : 1;
        n_conversations += n_turns == 1;
        longest = n_turns > longest ? n_turns : longest;
        if (!r->follows)
            continue;
        assert_int_equal(r->follows, i);
        assert_true(r->n_prompt > trace->requests[i - 1].n_prompt + trace->requests[i - 1].n_output);
        assert_int_equal(sl_trace_n_history(trace, i),
                         trace->requests[i - 1].n_prompt + trace->requests[i - 1].n_output);
    }
    assert_int_equal(longest, 6);
    assert_true(fabs(3000.0 / (double)n_conversations - 4) < 0.3);
    sl_trace_close(trace);
}

/* ---- tokens, cuts, bounds ---- */

static void test_prefixes_are_shared(void **state)
{
    (void)state;
    sl_trace *trace = make("shared-prefix", (sl_trace_options){.seed = 1});
    size_t same = 0, different = 0;
    for (size_t i = 1; i < trace->n_requests; i++) {
        bool equal = true;
        for (uint32_t p = 0; p < 512; p++) {
            assert_true(sl_trace_token(trace, i, p, 300) < 300);
            equal &= sl_trace_token(trace, i, p, 300) == sl_trace_token(trace, 0, p, 300);
        }
        assert_int_equal(equal, trace->requests[i].prefix_group == trace->requests[0].prefix_group);
        same += equal;
        different += !equal;
        uint32_t own = 0;
        for (uint32_t p = 512; p < 528; p++)
            own += sl_trace_token(trace, i, p, 50000) != sl_trace_token(trace, 0, p, 50000);
        assert_true(own >= 15);
    }
    assert_true(same > 5 && different > 5);
    sl_trace_close(trace);
}

static void test_cut_to_context(void **state)
{
    (void)state;
    sl_trace *trace = make("lognormal", (sl_trace_options){.seed = 1, .max_tokens = 100});
    size_t n_full = 0;
    for (size_t i = 0; i < trace->n_requests; i++) {
        const sl_trace_request *r = &trace->requests[i];
        assert_true(r->n_prompt >= 1 && r->n_output >= 1 && r->n_prompt + r->n_output <= 100);
        n_full += r->n_prompt + r->n_output == 100;
    }
    assert_true(trace->n_cut > 10 && trace->n_cut <= n_full);
    sl_trace_close(trace);
}

static void test_bound(void **state)
{
    (void)state;
    sl_trace_request requests[5] = {
        {.n_output = 11}, {.n_output = 1}, {.n_output = 1}, {.n_output = 11}, {.n_output = 6}};
    sl_trace trace = {.requests = requests, .n_requests = 5};
    /* Batches of 2: 10 + 10 + 5 steps against ceil(25 / 2) = 13. */
    assert_true(fabs(sl_trace_bound(&trace, 2) - 25.0 / 13) < 1e-12);
    assert_true(sl_trace_bound(&trace, 1) == 1);
    assert_true(sl_trace_bound(&trace, 5) == 1); /* the longest output is a bound of its own */
    trace.n_requests = 0;
    assert_true(sl_trace_bound(&trace, 4) == 1);
}

static void test_padding(void **state)
{
    (void)state;
    sl_trace_request requests[5] = {
        {.n_output = 11}, {.n_output = 1}, {.n_output = 1}, {.n_output = 12}, {.n_output = 6}};
    static const uint32_t expected[5] = {0, 10, 11, 0, 0};
    sl_trace trace = {.requests = requests, .n_requests = 5};
    sl_err err;
    assert_int_equal(sl_trace_pad(&trace, 2, &err), SL_OK);
    for (int i = 0; i < 5; i++)
        assert_int_equal(requests[i].n_padding, expected[i]);
    requests[3].arrival_us = 1;
    assert_int_equal(sl_trace_pad(&trace, 2, &err), SL_ERR_ARGUMENT);
    requests[3] = (sl_trace_request){.n_output = 12, .priority = 1};
    assert_int_equal(sl_trace_pad(&trace, 2, &err), SL_ERR_ARGUMENT);
    requests[3] = (sl_trace_request){.n_output = 12, .tenant = 1};
    assert_int_equal(sl_trace_pad(&trace, 2, &err), SL_ERR_ARGUMENT);
    requests[3] = (sl_trace_request){.n_output = 12, .follows = 1};
    assert_int_equal(sl_trace_pad(&trace, 2, &err), SL_ERR_ARGUMENT);
}

static void test_bad_options(void **state)
{
    (void)state;
    sl_trace *trace;
    sl_err err;
    assert_int_equal(sl_trace_make("nosuch", &(sl_trace_options){0}, &trace, &err), SL_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "lognormal"));
    assert_non_null(strstr(err.message, "two-tenants"));
    assert_null(trace);
    sl_trace_options many = {.n_requests = SL_TRACE_MAX_REQUESTS + 1}, backwards = {.rate = -1};
    assert_int_equal(sl_trace_make("fixed", &many, &trace, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_trace_make("fixed", &backwards, &trace, &err), SL_ERR_ARGUMENT);
}

/* ---- files ---- */

static sl_status read_text(const char *text, sl_trace **out, sl_err *err)
{
    return sl_trace_read(text, strlen(text), "test", 7, out, err);
}

static void test_file(void **state)
{
    (void)state;
    sl_trace *trace;
    sl_err err;
    assert_int_equal(
        read_text(
            "{\"arrival_ms\": 20.5, \"prompt_tokens\": 30, \"output_tokens\": 4, \"tenant\": \"x\", \"priority\": -3}\n"
            "\n  \r\n"
            "{\"prompt\": [5, 6, 7], \"output_tokens\": 1, \"conversation\": \"c\", \"arrival_ms\": 1}\r\n"
            "{\"prompt_tokens\": 9, \"output_tokens\": 2, \"prefix_group\": \"g\", \"prefix_tokens\": 8}\n"
            "{\"prompt\": [8], \"output_tokens\": 5, \"conversation\": \"c\", \"arrival_ms\": 100, \"tenant\": \"x\"}",
            &trace, &err),
        SL_OK);
    assert_int_equal(trace->n_requests, 4);
    const sl_trace_request *r = trace->requests;
    assert_int_equal(r[0].prefix_group, 1); /* arrives at 0 */
    assert_int_equal(r[0].n_prefix, 8);
    assert_int_equal(r[1].n_prompt, 3);
    assert_int_equal(sl_trace_token(trace, 1, 2, 1), 7);
    assert_int_equal(r[2].follows, 2);
    assert_int_equal(r[2].n_prompt, 5);
    assert_int_equal(r[2].arrival_us, 100000);
    assert_int_equal(sl_trace_n_history(trace, 2), 4);
    assert_int_equal(sl_trace_token(trace, 2, 4, 1), 8);
    assert_int_equal(r[3].arrival_us, 20500);
    assert_int_equal(r[3].priority, -3);
    assert_string_equal(trace->tenants[r[3].tenant], "x");
    assert_int_equal(r[2].tenant, r[3].tenant);
    assert_string_equal(trace->tenants[r[0].tenant], "");
    assert_int_equal(trace->n_tenants, 2);
    sl_trace_close(trace);
}

static void test_bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *line, *words[2];
    } bad[] = {
        {"", {"no requests", ""}},
        {"nonsense", {"no JSON", ""}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 1, \"output_tokens\": 1}", {"duplicate", ""}},
        {"[1]", {"object", ""}},
        {"{\"output_tokens\": 1}", {"\"prompt\"", "\"prompt_tokens\""}},
        {"{\"prompt_tokens\": 1, \"prompt\": [1], \"output_tokens\": 1}", {"\"prompt\"", "\"prompt_tokens\""}},
        {"{\"prompt_tokens\": 1}", {"\"output_tokens\"", "missing"}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 0}", {"\"output_tokens\"", "from 1"}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 1.5}", {"\"output_tokens\"", "whole"}},
        {"{\"prompt_tokens\": 0, \"output_tokens\": 1}", {"\"prompt_tokens\"", "from 1"}},
        {"{\"prompt_tokens\": 16777217, \"output_tokens\": 1}", {"\"prompt_tokens\"", "16777216"}},
        {"{\"prompt_tokens\": 16777216, \"output_tokens\": 1}", {"\"output_tokens\"", "16777216"}},
        {"{\"prompt\": [], \"output_tokens\": 1}", {"\"prompt\"", "list"}},
        {"{\"prompt\": \"text\", \"output_tokens\": 1}", {"\"prompt\"", "list"}},
        {"{\"prompt\": [1, -1], \"output_tokens\": 1}", {"\"prompt\"", "place 1"}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 1, \"arrival_ms\": -1}", {"\"arrival_ms\"", "from 0"}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 1, \"arrival_ms\": \"1\"}", {"\"arrival_ms\"", "number"}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 1, \"arrival_ms\": 1e300}", {"\"arrival_ms\"", "1e+09"}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 1, \"priority\": 2147483648}", {"\"priority\"", "2147483647"}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 1, \"tenant_weight\": 0}", {"\"tenant_weight\"", "number"}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 1, \"ttft_target_ms\": 0}", {"\"ttft_target_ms\"", "from"}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 1, \"itl_target_ms\": true}", {"\"itl_target_ms\"", "number"}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 1, \"tenant\": 5}", {"\"tenant\"", "name"}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 1, \"tenant\": \"\"}", {"\"tenant\"", "name"}},
        {"{\"prompt_tokens\": 4, \"output_tokens\": 1, \"prefix_group\": \"a\"}",
         {"\"prefix_group\"", "prefix_tokens"}},
        {"{\"prompt_tokens\": 4, \"output_tokens\": 1, \"prefix_tokens\": 2}", {"\"prefix_tokens\"", "prefix_group"}},
        {"{\"prompt\": [4], \"output_tokens\": 1, \"prefix_group\": \"a\", \"prefix_tokens\": 1}",
         {"\"prefix_group\"", ""}},
        {"{\"prompt_tokens\": 4, \"output_tokens\": 1, \"prefix_group\": \"a\", \"prefix_tokens\": 5}",
         {"\"prefix_tokens\"", "to 4"}},
        {"{\"prompt_tokens\": 1, \"output_tokens\": 1, \"temperature\": 1}", {"unknown field", "\"temperature\""}},
    };
    for (size_t i = 0; i < SL_COUNTOF(bad); i++) {
        char text[512];
        sl_trace *trace = (sl_trace *)text;
        sl_err err = {0};
        snprintf(text, sizeof text, "%s%s\n", i ? "{\"prompt_tokens\": 1, \"output_tokens\": 1}\n\n" : "", bad[i].line);
        assert_int_equal(read_text(text, &trace, &err), SL_ERR_FORMAT);
        assert_null(trace);
        if (i && !strstr(err.message, "line 3"))
            fail_msg("%s: %s", bad[i].line, err.message);
        for (size_t w = 0; w < 2; w++)
            if (!strstr(err.message, bad[i].words[w]))
                fail_msg("%s: %s", bad[i].line, err.message);
    }
}

/* ---- replay and report ---- */

static void test_percentiles(void **state)
{
    (void)state;
    double values[200];
    for (int i = 0; i < 200; i++)
        values[i] = (i * 77) % 200 + 1; /* 1 to 200 in another order */
    sl_percentiles p = sl_percentiles_of(values, 200);
    assert_true(p.n == 200 && p.mean == 100.5 && p.p50 == 100 && p.p90 == 180 && p.p99 == 198 && p.max == 200);
    p = sl_percentiles_of(values, 1);
    assert_true(p.p50 == 1 && p.p99 == 1 && p.max == 1);
    assert_true(sl_percentiles_of(values, 0).n == 0);
}

static void test_report(void **state)
{
    (void)state;
    /* Two requests with tokens at these times, and one that failed. */
    int64_t times[] = {2000, 3000, 7000, 12000, 22000};
    uint32_t tokens[5] = {0};
    sl_replay_record records[] = {
        {.arrival_us = 1000,
         .first_us = 2000,
         .last_us = 7000,
         .n_prompt = 10,
         .n_cached = 5,
         .n_generated = 3,
         .ttft_target_us = 1000,
         .itl_target_us = 4000},
        {.arrival_us = 2000,
         .first_us = 12000,
         .last_us = 22000,
         .n_prompt = 20,
         .n_generated = 2,
         .first = 3,
         .tenant = 1,
         .ttft_target_us = 1000},
        {.n_prompt = 99, .failed = true},
    };
    sl_replay_sample samples[] = {
        {.start_us = 1000, .end_us = 3000, .n_tokens = 2, .n_in_flight = 1, .predicted_us = 90, .measured_us = 100},
        {.start_us = 3000,
         .end_us = 11000,
         .n_in_flight = 2,
         .n_running = 2,
         .n_positions = 40,
         .n_slots = 64,
         .n_unused = 19},
        {.start_us = 11000,
         .end_us = 21000,
         .n_tokens = 3,
         .n_in_flight = 1,
         .predicted_us = 60,
         .measured_us = 40,
         .n_running = 1,
         .n_positions = 10,
         .n_slots = 16,
         .n_unused = 6}};
    sl_replay replay = {.records = records,
                        .n_records = 3,
                        .tokens = tokens,
                        .times_us = times,
                        .n_tokens = 5,
                        .samples = samples,
                        .n_samples = 3,
                        .end_us = 21000};
    sl_replay_report report;
    sl_err err;
    assert_int_equal(sl_replay_summarise(&replay, &report, &err), SL_OK);
    assert_true(report.seconds == 0.02);
    assert_int_equal(report.n_prompt_tokens, 30);
    assert_int_equal(report.n_cached_tokens, 5);
    assert_int_equal(report.n_generated_tokens, 5);
    assert_int_equal(report.all.n_failed, 1);
    assert_true(report.all.ttft_ms.p50 == 1 && report.all.ttft_ms.max == 10);
    assert_true(report.all.itl_ms.n == 3 && report.all.itl_ms.p50 == 4 && report.all.itl_ms.max == 10);
    assert_true(report.all.tpot_ms.p50 == 2.5 && report.all.e2e_ms.max == 20);
    assert_int_equal(report.all.n_good, 1);
    assert_true(report.batch_mean == 2.5 && report.batch_max == 3);
    assert_true(report.batch_over_time[0] == 2 && report.batch_over_time[19] == 3);
    assert_true(report.in_flight_over_time[5] == 2);
    assert_int_equal(report.n_kv_samples, 2);
    assert_true(report.slots_per_token == 1.6 && report.unused_slots == 25.0 / 3);
    assert_true(report.prediction_error.n == 2 && fabs(report.prediction_error.p50 - 0.1) < 1e-12);
    assert_true(report.prediction_error.max == 0.5);
    records[0].itl_target_us = 3999;
    assert_int_equal(sl_replay_summarise(&replay, &report, &err), SL_OK);
    assert_int_equal(report.all.n_good, 0);
    records[0].itl_target_us = records[1].ttft_target_us = 0;
    assert_int_equal(sl_replay_summarise(&replay, &report, &err), SL_OK);
    assert_int_equal(report.all.n_good, 2);
    sl_replay_latency latency;
    assert_int_equal(sl_replay_latency_of(&replay, 1, &latency, &err), SL_OK);
    assert_true(latency.n_requests == 1 && latency.ttft_ms.max == 10);
}

typedef struct tiny {
    sl_gguf *gguf;
    sl_threads *pool;
    sl_model *model;
} tiny;

static int open_tiny(void **state)
{
    static tiny t;
    sl_err err;
    sl_model_options model = sl_model_options_default();
    if (sl_gguf_open(TINY, 0, &t.gguf, &err) != SL_OK || sl_threads_open(1, &t.pool, &err) != SL_OK ||
        sl_model_open(t.gguf, &model, t.pool, &t.model, &err) != SL_OK)
        return -1;
    *state = &t;
    return 0;
}

static int close_tiny(void **state)
{
    tiny *t = *state;
    sl_model_close(t->model);
    sl_threads_close(t->pool);
    sl_gguf_close(t->gguf);
    return 0;
}

static sl_engine *open_engine(const tiny *t, sl_batching batching)
{
    sl_engine *engine;
    sl_err err;
    sl_engine_model model = sl_engine_model_of(t->model);
    sl_engine_options options = {.n_sequences = 4,
                                 .chunk = 32,
                                 .context = 128,
                                 .no_prefix_cache = true,
                                 .batching = batching,
                                 .max_wait_us = 1000};
    assert_int_equal(sl_engine_open(&model, &options, t->pool, &engine, &err), SL_OK);
    return engine;
}

static sl_replay replay_on(const tiny *t, const sl_trace *trace, sl_batching batching)
{
    sl_replay replay;
    sl_err err;
    sl_engine *engine = open_engine(t, batching);
    sl_replay_options options = {
        .trace = trace, .engine = engine, .n_vocab = sl_model_get_info(t->model)->n_vocab, .itl_target_us = 70000000};
    assert_int_equal(sl_replay_run(&options, &replay, &err), SL_OK);
    sl_engine_statistics statistics;
    sl_engine_stats(engine, &statistics);
    assert_int_equal(replay.n_samples, statistics.n_steps); /* to wait for a batch is no step */
    sl_engine_close(engine);
    return replay;
}

/* Every request of a chat gets its tokens, in order, and the same ones however requests are put together. */
static void test_replay(void **state)
{
    const tiny *t = *state;
    sl_trace *trace = make("chat", (sl_trace_options){.seed = 2, .n_requests = 24, .rate = 1000, .max_tokens = 128});
    for (size_t i = 0; i < trace->n_requests; i++)
        if (trace->requests[i].follows)
            trace->requests[i].arrival_us /= 1000; /* nobody wants to think for two seconds here */
    sl_replay first = replay_on(t, trace, SL_BATCHING_CONTINUOUS);
    for (int batching = SL_BATCHING_STATIC; batching <= SL_BATCHING_DYNAMIC; batching++) {
        sl_replay other = replay_on(t, trace, (sl_batching)batching);
        assert_memory_equal(first.tokens, other.tokens, first.n_tokens * sizeof *first.tokens);
        sl_replay_free(&other);
    }
    for (size_t i = 0; i < first.n_samples; i++) { /* of one layer group here */
        const sl_replay_sample *s = &first.samples[i];
        if (s->n_running > 0)
            assert_in_range(s->n_slots - s->n_positions, 0, 15 * s->n_running);
        assert_int_equal(s->n_unused, s->n_slots - s->n_positions);
    }
    for (size_t i = 0; i < first.n_records; i++) {
        const sl_replay_record *r = &first.records[i];
        const sl_trace_request *wanted = &trace->requests[i];
        assert_false(r->failed);
        assert_int_equal(r->n_generated, wanted->n_output);
        assert_true(r->arrival_us < r->first_us && r->first_us <= r->last_us);
        if (wanted->follows)
            assert_true(r->arrival_us >= first.records[wanted->follows - 1].last_us + wanted->arrival_us);
    }
    sl_replay_free(&first);
    sl_trace_close(trace);
}

/* With all requests there at once, a static batch begins when the one before has ended. */
static void test_static_batches_do_not_mix(void **state)
{
    const tiny *t = *state;
    sl_trace *trace = make("uniform", (sl_trace_options){.seed = 3, .n_requests = 10, .max_tokens = 100});
    sl_replay replay = replay_on(t, trace, SL_BATCHING_STATIC);
    for (size_t i = 4; i < 10; i++)
        for (size_t before = 0; before < i / 4 * 4; before++)
            assert_true(replay.records[i].first_us > replay.records[before].last_us);
    sl_replay_free(&replay);
    replay = replay_on(t, trace, SL_BATCHING_CONTINUOUS);
    size_t n_mixed = 0;
    for (size_t i = 4; i < 10; i++)
        n_mixed += replay.records[i].first_us < replay.records[i / 4 * 4 - 1].last_us;
    assert_true(n_mixed > 0);
    sl_replay_free(&replay);
    sl_trace_close(trace);
}

/* A request that cannot be done is a failure with a reason, and so are the turns behind it; the others go on. */
static void test_refused_requests(void **state)
{
    const tiny *t = *state;
    sl_trace *trace;
    sl_err err;
    assert_int_equal(read_text("{\"prompt_tokens\": 500, \"output_tokens\": 2, \"conversation\": \"a\"}\n"
                               "{\"prompt_tokens\": 1, \"output_tokens\": 2, \"conversation\": \"a\"}\n"
                               "{\"prompt\": [99999], \"output_tokens\": 2}\n"
                               "{\"prompt_tokens\": 120, \"output_tokens\": 20}\n"
                               "{\"prompt_tokens\": 5, \"output_tokens\": 3}\n",
                               &trace, &err),
                     SL_OK);
    sl_replay replay = replay_on(t, trace, SL_BATCHING_CONTINUOUS);
    for (size_t i = 0; i < 4; i++) {
        assert_true(replay.records[i].failed);
        assert_true(replay.records[i].error.message[0] != '\0');
    }
    assert_non_null(strstr(replay.records[2].error.message, "99999"));
    assert_false(replay.records[4].failed);
    sl_replay_free(&replay);
    sl_trace_close(trace);
}

static bool stop_soon(void *user)
{
    return ++*(int *)user > 3;
}

static void test_stopped_replay_leaves_the_engine_idle(void **state)
{
    const tiny *t = *state;
    int n_asked = 0;
    bool busy = true;
    sl_replay replay;
    sl_err err;
    sl_trace *trace = make("fixed", (sl_trace_options){.seed = 1, .n_requests = 9, .max_tokens = 100});
    sl_engine *engine = open_engine(t, SL_BATCHING_CONTINUOUS);
    sl_replay_options options = {.trace = trace, .engine = engine, .n_vocab = 300, .stop = stop_soon, .user = &n_asked};
    assert_int_equal(sl_replay_run(&options, &replay, &err), SL_ERR_CANCELLED);
    sl_replay_free(&replay);
    assert_int_equal(sl_engine_step(engine, 0, &busy, &err), SL_OK);
    assert_false(busy);
    sl_engine_close(engine);
    sl_trace_close(trace);
}

/* Priority, tenant, weight and targets of the trace reach the engine. All requests come at once; the one of high priority
 * is first though it is last in the file. */
static void test_wishes_reach_the_engine(void **state)
{
    const tiny *t = *state;
    sl_trace *trace;
    sl_err err;
    assert_int_equal(read_text("{\"prompt_tokens\": 100, \"output_tokens\": 2}\n"
                               "{\"prompt_tokens\": 100, \"output_tokens\": 2, \"itl_target_ms\": 2e6}\n"
                               "{\"prompt_tokens\": 100, \"output_tokens\": 2, \"ttft_target_ms\": 3e6}\n"
                               "{\"prompt_tokens\": 100, \"output_tokens\": 2, \"tenant\": \"heavy\", "
                               "\"tenant_weight\": 4, \"priority\": 7}\n",
                               &trace, &err),
                     SL_OK);
    assert_true(trace->requests[3].tenant_weight == 4);
    sl_replay replay = replay_on(t, trace, SL_BATCHING_CONTINUOUS);
    const sl_replay_record *r = replay.records;
    assert_true(r[0].ttft_target_us == 0 && r[0].itl_target_us == 70000000); /* those of the replay's options */
    assert_true(r[1].itl_target_us == 2000000000 && r[2].ttft_target_us == 3000000000);
    assert_true(r[3].first_us < r[2].first_us);                                      /* priority */
    assert_true(r[2].first_us < r[0].first_us && r[0].first_us < r[1].first_us + 1); /* a deadline, then arrival */
    sl_replay_free(&replay);
    /* A weight that the engine refuses shows that it got there. */
    trace->requests[3].tenant_weight = -1;
    replay = replay_on(t, trace, SL_BATCHING_CONTINUOUS);
    assert_true(replay.records[3].failed && strstr(replay.records[3].error.message, "weight"));
    sl_replay_free(&replay);
    sl_trace_close(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builtin_traces_are_committed),
        cmocka_unit_test(test_seed_decides),
        cmocka_unit_test(test_first_requests_stay),
        cmocka_unit_test(test_poisson_gaps_are_exponential),
        cmocka_unit_test(test_bursts),
        cmocka_unit_test(test_lognormal_lengths),
        cmocka_unit_test(test_uniform_lengths),
        cmocka_unit_test(test_tenants_and_groups),
        cmocka_unit_test(test_chat_turns_follow),
        cmocka_unit_test(test_prefixes_are_shared),
        cmocka_unit_test(test_cut_to_context),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_percentiles),
        cmocka_unit_test(test_report),
        cmocka_unit_test_setup_teardown(test_replay, open_tiny, close_tiny),
        cmocka_unit_test_setup_teardown(test_static_batches_do_not_mix, open_tiny, close_tiny),
        cmocka_unit_test_setup_teardown(test_wishes_reach_the_engine, open_tiny, close_tiny),
        cmocka_unit_test_setup_teardown(test_refused_requests, open_tiny, close_tiny),
        cmocka_unit_test_setup_teardown(test_stopped_replay_leaves_the_engine_idle, open_tiny, close_tiny),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
