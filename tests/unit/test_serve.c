/* The server's parsers and writers: HTTP heads, chunked bodies, request bodies, JSON text, API keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "serve/api_request.h"
#include "serve/http_parse.h"
#include "serve/keys.h"
#include "serve/metrics.h"
#include "serve/origin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- heads ---- */

static int parse_head(const char *text, sl_http_head *head)
{
    size_t scanned = 0, n = strlen(text);
    assert_int_equal(sl_http_head_length(text, n, &scanned), n);
    return sl_http_parse_head(text, n, head);
}

static void test_head(void **state)
{
    sl_http_head head;
    assert_int_equal(parse_head("POST /v1/completions?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 17\r\n"
                                "authorization:  Bearer k \r\nExpect: 100-continue\r\n\r\n",
                                &head),
                     0);
    assert_string_equal(head.method, "POST");
    assert_string_equal(head.path, "/v1/completions");
    assert_string_equal(head.authorization, "Bearer k");
    assert_true(head.keep_alive && head.expects_continue && !head.chunked && !head.http10);
    assert_int_equal(head.content_length, 17);
    assert_int_equal(parse_head("GET / HTTP/1.0\r\nConnection: keep-alive, x\r\n\r\n", &head), 0);
    assert_true(head.http10 && head.keep_alive);
    assert_int_equal(parse_head("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", &head), 0);
    assert_false(head.keep_alive);
    assert_int_equal(parse_head("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, keep-alive\r\n"
                                "Connection: keep-alive\r\n\r\n",
                                &head),
                     0);
    assert_false(head.keep_alive); /* whatever else is said */
    assert_int_equal(parse_head("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", &head), 0);
    assert_false(head.expects_continue); /* that version has none */
    assert_int_equal(parse_head("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", &head), 0);
    assert_true(head.chunked);
}

static void test_bad_heads(void **state)
{
    static const struct {
        const char *head;
        int status;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", 400},                                   /* no host */
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},             /* two */
        {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},                       /* two spaces */
        {"GET /\r\nHost: a\r\n\r\n", 400},                                 /* HTTP/0.9 */
        {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},                        /* another version */
        {"GET / http/1.1\r\nHost: a\r\n\r\n", 400},                        /* no version */
        {"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},                /* a proxy's form */
        {"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400},                    /* control character */
        {"GET / HTTP/1.1\nHost: a\r\n\r\n", 400},                          /* bare line end */
        {"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},                        /* no token */
        {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},                       /* space before the colon */
        {"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400},             /* folded line */
        {"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400},                 /* no name */
        {"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400},             /* control character */
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400}, /* negative */
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400}, /* signed */
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", 400},   /* empty */
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400}, /* smuggling */
        {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n\r\n", 415},
        {"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417},
    };
    sl_http_head head;
    for (size_t i = 0; i < SL_COUNTOF(cases); i++)
        if (parse_head(cases[i].head, &head) != cases[i].status)
            fail_msg("not %d: %s", cases[i].status, cases[i].head);
    char many[8192];
    int n = snprintf(many, sizeof many, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < SL_HTTP_MAX_HEADERS; i++)
        n += snprintf(many + n, sizeof many - (size_t)n, "X: %d\r\n", i);
    snprintf(many + n, sizeof many - (size_t)n, "\r\n");
    assert_int_equal(parse_head(many, &head), 431);
    snprintf(many, sizeof many, "GET /%0300d HTTP/1.1\r\nHost: a\r\n\r\n", 0);
    assert_int_equal(parse_head(many, &head), 414);
}

static void test_head_byte_by_byte(void **state)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET";
    size_t scanned = 0, n_head = sizeof text - 4;
    for (size_t n = 0; n < n_head; n++)
        assert_int_equal(sl_http_head_length(text, n, &scanned), 0);
    assert_int_equal(sl_http_head_length(text, sizeof text - 1, &scanned), n_head);
}

/* ---- who asks ---- */

static void test_origins(void **state)
{
    static const char *const local[] = {"localhost", "LocalHost:8080", "a.localhost:1", "127.0.0.1", "127.9.9.9:80",
                                        "[::1]",     "[::1]:8080",     "mybox",         "mybox:80"};
    static const char *const strange[] = {"",
                                          ":80",
                                          "example.com",
                                          "example.com:8080",
                                          "localhost.example.com",
                                          "127.0.0.1.example.com",
                                          "0.0.0.0",
                                          "192.168.1.2",
                                          "127.1",
                                          "2130706433",
                                          "[::2]",
                                          "[::1",
                                          "::1",
                                          "[::1]x",
                                          "localhost:80x",
                                          "localhost@example.com",
                                          "localhost:80@example.com",
                                          ".localhost",
                                          "xlocalhost",
                                          "[127.0.0.1]"};
    static const char *const good[] = {"http://localhost:3000", "https://127.0.0.1",      "http://[::1]:80",
                                       "HTTP://mybox",          "chrome-extension://abc", "vscode-webview://x",
                                       "tauri://localhost"};
    static const char *const bad[] = {
        "null",    "http://example.com", "https://localhost.example.com:80", "example.com", "://x",
        "http://", "http:/localhost"};
    for (size_t i = 0; i < SL_COUNTOF(local); i++)
        if (!sl_host_is_local(local[i], "mybox"))
            fail_msg("strange: %s", local[i]);
    for (size_t i = 0; i < SL_COUNTOF(strange); i++)
        if (sl_host_is_local(strange[i], "mybox"))
            fail_msg("local: %s", strange[i]);
    for (size_t i = 0; i < SL_COUNTOF(good); i++)
        if (!sl_origin_is_local(good[i], "mybox"))
            fail_msg("strange: %s", good[i]);
    for (size_t i = 0; i < SL_COUNTOF(bad); i++)
        if (sl_origin_is_local(bad[i], "mybox"))
            fail_msg("local: %s", bad[i]);
    sl_http_head head;
    assert_int_equal(parse_head("GET / HTTP/1.1\r\nHost: a:1\r\nOrigin: http://b\r\n\r\n", &head), 0);
    assert_string_equal(head.host, "a:1");
    assert_string_equal(head.origin, "http://b");
}

/* ---- chunks ---- */

/* Reads a chunked body handed over in pieces of step bytes; the data, "BAD", or "MORE". */
static const char *read_chunks(const char *text, size_t step, char *out)
{
    sl_http_chunks chunks = {0};
    size_t n = strlen(text), n_out = 0;
    for (size_t at = 0; at < n;) {
        size_t used, n_data, piece = SL_MIN(step, n - at);
        int what = sl_http_read_chunks(&chunks, text + at, piece, &used, &n_data);
        memcpy(out + n_out, text + at + used - n_data, n_data);
        n_out += n_data;
        at += used;
        out[n_out] = '\0';
        if (what == SL_HTTP_CHUNKS_BAD)
            return "BAD";
        if (what == SL_HTTP_CHUNKS_DONE)
            return out;
    }
    return "MORE";
}

static void test_chunks(void **state)
{
    static const struct {
        const char *text, *result;
    } cases[] = {
        {"4\r\nWiki\r\n5;x=\"y\"\r\npedia\r\nE \r\n in\r\n\r\nchunks.\r\n0\r\n\r\n", "Wikipedia in\r\n\r\nchunks."},
        {"0\r\n\r\n", ""},
        {"00000001\r\na\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n", "a"},
        {"1\r\na\r\n", "MORE"},
        {"-2\r\na", "BAD"},
        {"\r\n", "BAD"},
        {" 1\r\na\r\n", "BAD"},
        {"1 1\r\na\r\n", "BAD"},
        {"1 x\r\na\r\n", "BAD"},
        {"1 \t;x\r\na\r\n0\r\n\r\n", "a"},
        {"0x1\r\na\r\n", "BAD"},
        {"100000000\r\n", "BAD"},
        {"ffffffffffffffff1\r\n", "BAD"},
        {"1\na\n", "BAD"},
        {"1\r\nab\r\n", "BAD"},
        {"0\r\nx\nsmuggled", "BAD"},
    };
    char out[256];
    for (size_t i = 0; i < SL_COUNTOF(cases); i++)
        for (size_t step = 1; step < 30; step++)
            if (strcmp(read_chunks(cases[i].text, step, out), cases[i].result) != 0)
                fail_msg("%s in steps of %zu: %s", cases[i].text, step, read_chunks(cases[i].text, step, out));
    char line[SL_HTTP_MAX_CHUNK_LINE + 64] = "1;";
    memset(line + 2, 'x', SL_HTTP_MAX_CHUNK_LINE);
    assert_string_equal(read_chunks(line, 1000, out), "BAD");
}

/* ---- bodies ---- */

static sl_status parse(sl_api_kind kind, const char *body, sl_api_request *request, sl_api_error *error)
{
    return sl_api_parse(kind, body, strlen(body), request, error);
}

static void test_defaults(void **state)
{
    sl_api_request r;
    sl_api_error error;
    assert_int_equal(parse(SL_API_COMPLETION, "{\"prompt\":\"x\",\"temperature\":null}", &r, &error), SL_OK);
    assert_true(r.sampling.temperature == 1 && r.sampling.top_p == 1 && r.n == 1 && r.max_tokens == 16 && !r.stream);
    sl_api_request_free(&r);
    assert_int_equal(parse(SL_API_CHAT, "{\"messages\":[{}]}", &r, &error), SL_OK);
    assert_true(r.max_tokens == UINT32_MAX && !r.logprobs && !r.seeded);
    sl_api_request_free(&r);
}

static void test_all_fields(void **state)
{
    sl_api_request r;
    sl_api_error error;
    assert_int_equal(
        parse(SL_API_CHAT,
              "{\"model\":\"m\",\"messages\":[{}],\"stream\":true,\"stream_options\":{\"include_usage\":true},"
              "\"max_completion_tokens\":7,\"max_tokens\":9,\"n\":3,\"temperature\":0.5,\"top_p\":0.25,\"top_k\":5,"
              "\"min_p\":0.125,\"presence_penalty\":-1,\"frequency_penalty\":2,\"repetition_penalty\":1.5,"
              "\"seed\":-4,\"logit_bias\":{\"5\":-100,\"7\":1.5},\"logprobs\":true,\"top_logprobs\":20,"
              "\"stop\":[\"a\",\"b\\u0000\"],\"stop_token_ids\":[3],\"ignore_eos\":true,\"user\":\"u\","
              "\"tools\":[],\"response_format\":{\"type\":\"text\"},\"nonsense\":1,\"bad\\nname\":2}",
              &r, &error),
        SL_OK);
    const sl_sample_params *s = &r.sampling;
    assert_true(r.stream && r.include_usage && r.logprobs && r.ignore_eos && r.seeded && r.n == 3 && r.max_tokens == 7);
    assert_true(s->temperature == 0.5f && s->top_p == 0.25f && s->top_k == 5 && s->min_p == 0.125f);
    assert_true(s->presence_penalty == -1 && s->frequency_penalty == 2 && s->repetition_penalty == 1.5f);
    assert_true(s->seed == (uint64_t)-4 && s->n_bias == 2 && s->n_logprobs == 20 && s->want_logprob);
    assert_true(r.n_stop_strings == 2 && r.stop_strings[1].n_bytes == 2 && r.stop_tokens.n == 1);
    assert_string_equal(r.ignored, "nonsense");
    sl_api_request_free(&r);
}

static void test_bad_bodies(void **state)
{
    static const struct {
        const char *field, *param;
    } cases[] = {
        {"\"temperature\":-0.1", "temperature"},
        {"\"temperature\":\"1\"", "temperature"},
        {"\"temperature\":1e999", ""},
        {"\"temperature\":NaN", ""},
        {"\"top_p\":1.01", "top_p"},
        {"\"top_k\":-2", "top_k"},
        {"\"top_k\":2147483648", "top_k"},
        {"\"n\":0", "n"},
        {"\"n\":-1", "n"},
        {"\"n\":129", "n"},
        {"\"n\":1.0", "n"},
        {"\"n\":9223372036854775807", "n"},
        {"\"n\":18446744073709551617", ""},
        {"\"max_tokens\":0", "max_tokens"},
        {"\"max_tokens\":-1", "max_tokens"},
        {"\"max_tokens\":4294967296", "max_tokens"},
        {"\"max_tokens\":true", "max_tokens"},
        {"\"seed\":1.5", "seed"},
        {"\"logprobs\":21", "logprobs"},
        {"\"logprobs\":-1", "logprobs"},
        {"\"logit_bias\":{\"x\":1}", "logit_bias"},
        {"\"logit_bias\":{\"-1\":1}", "logit_bias"},
        {"\"logit_bias\":{\"1\":101}", "logit_bias"},
        {"\"logit_bias\":{\"1\":\"1\"}", "logit_bias"},
        {"\"logit_bias\":[1]", "logit_bias"},
        {"\"stop\":5", "stop"},
        {"\"stop\":[\"\"]", "stop"},
        {"\"stop\":[\"a\",1]", "stop"},
        {"\"stop_token_ids\":[-1]", "stop_token_ids"},
        {"\"stream\":1", "stream"},
        {"\"stream_options\":{\"include_usage\":true}", "stream_options"},
        {"\"echo\":1", "echo"},
        {"\"echo\":true,\"max_tokens\":0,\"n\":2", "n"},
        {"\"bad_words\":\"x\"", "bad_words"},
        {"\"bad_words\":[\"\"]", "bad_words"},
        {"\"bad_words\":[1]", "bad_words"},
        {"\"priority\":1.5", "priority"},
        {"\"priority\":1001", "priority"},
        {"\"ttft_target_ms\":-1", "ttft_target_ms"},
        {"\"itl_target_ms\":\"1\"", "itl_target_ms"},
        {"\"suffix\":\"x\"", "suffix"},
        {"\"best_of\":2", "best_of"},
        {"\"guided_json\":{\"a\":1}", "guided_json"},
        {"\"response_format\":{\"type\":\"json_object\"}", "response_format"},
        {"\"model\":5", "model"},
        {"\"model\":\"\"", "model"},
        {"\"user\":\"\\ud800\"", ""},
        {"\"n\":1,\"n\":2", ""},
    };
    for (size_t i = 0; i < SL_COUNTOF(cases); i++) {
        char body[256];
        sl_api_request r;
        sl_api_error error = {0};
        snprintf(body, sizeof body, "{\"prompt\":\"x\",%s}", cases[i].field);
        if (parse(SL_API_COMPLETION, body, &r, &error) == SL_OK || error.status != 400 ||
            strcmp(error.param, cases[i].param) != 0 || error.message[0] == '\0')
            fail_msg("%s: %d '%s' %s", body, error.status, error.param, error.message);
        sl_api_request_free(&r);
    }
    static const char *const bodies[] = {
        "", "[]", "5", "{", "{}", "{\"prompt\":5}", "{\"messages\":[]}", "\xff", "{\"prompt\":\"x\"} x"};
    for (size_t i = 0; i < SL_COUNTOF(bodies); i++)
        for (int kind = 0; kind < SL_API_COUNT; kind++) {
            sl_api_request r;
            sl_api_error error = {0};
            assert_int_not_equal(parse(kind, bodies[i], &r, &error), SL_OK);
            assert_int_equal(error.status, 400);
            sl_api_request_free(&r);
        }
}

static void test_more_fields(void **state)
{
    sl_api_request r;
    sl_api_error error;
    assert_int_equal(parse(SL_API_COMPLETION,
                           "{\"prompt\":\"x\",\"echo\":true,\"max_tokens\":0,\"bad_words\":[\"a\",\" b\"],"
                           "\"priority\":-7,\"ttft_target_ms\":2.5,\"itl_target_ms\":40}",
                           &r, &error),
                     SL_OK);
    assert_true(r.echo && r.max_tokens == 0 && json_array_size(r.bad_texts) == 2);
    assert_true(r.priority == -7 && r.ttft_target_us == 2500 && r.itl_target_us == 40000);
    sl_api_request_free(&r);
    assert_int_equal(parse(SL_API_EMBEDDING,
                           "{\"input\":[\"x\"],\"encoding_format\":\"base64\",\"dimensions\":64,\"user\":\"u\"}", &r,
                           &error),
                     SL_OK);
    assert_true(r.base64 && r.dimensions == 64 && r.max_tokens == 0 && r.ignored[0] == '\0');
    sl_api_request_free(&r);
    static const char *const bad[][2] = {{"{\"input\":5}", "input"},
                                         {"{}", "input"},
                                         {"{\"input\":\"x\",\"encoding_format\":\"int8\"}", "encoding_format"},
                                         {"{\"input\":\"x\",\"dimensions\":0}", "dimensions"}};
    for (size_t i = 0; i < SL_COUNTOF(bad); i++) {
        assert_int_not_equal(parse(SL_API_EMBEDDING, bad[i][0], &r, &error), SL_OK);
        assert_string_equal(error.param, bad[i][1]);
        sl_api_request_free(&r);
    }
    assert_int_not_equal(parse(SL_API_CHAT, "{\"messages\":[{}],\"echo\":true}", &r, &error), SL_OK);
    assert_string_equal(error.param, "echo");
    sl_api_request_free(&r);
}

static void test_deep_body(void **state)
{
    size_t n = 1 << 20;
    char *body = malloc(n + 1);
    assert_non_null(body);
    memset(body, '[', n);
    body[n] = '\0';
    sl_api_request r;
    sl_api_error error = {0};
    assert_int_not_equal(parse(SL_API_CHAT, body, &r, &error), SL_OK);
    sl_api_request_free(&r);
    free(body);
}

/* A body of many values: `value` n times in a field that nobody knows. */
static sl_status parse_many(const char *value, size_t n, sl_api_error *error)
{
    static const char head[] = "{\"prompt\":\"x\",\"unknown\":[";
    size_t each = strlen(value), n_bytes = sizeof head - 1;
    char *body = malloc(sizeof head + n * (each + 1) + 2);
    assert_non_null(body);
    memcpy(body, head, n_bytes);
    for (size_t i = 0; i < n; i++) {
        memcpy(body + n_bytes, value, each);
        body[n_bytes + each] = i + 1 < n ? ',' : ']';
        n_bytes += each + 1;
    }
    body[n_bytes++] = '}';
    sl_api_request r;
    sl_status status = sl_api_parse(SL_API_COMPLETION, body, n_bytes, &r, error);
    sl_api_request_free(&r);
    free(body);
    return status;
}

/* Parsed values take a hundred times their bytes in the body, so there is a limit to their number. */
static void test_many_values(void **state)
{
    sl_api_error error = {0};
    assert_int_equal(parse_many("{}", 60000, &error), SL_OK);
    assert_int_equal(parse_many("\"[[{{,,::\\\"\"", 500000, &error), SL_OK); /* what is in strings does not count */
    assert_int_equal(parse_many("{}", SL_API_MAX_CONTAINERS, &error), SL_ERR_LIMIT);
    assert_int_equal(error.status, 400);
    assert_int_equal(parse_many("1", SL_API_MAX_VALUES, &error), SL_ERR_LIMIT);
}

/* What the engine is asked for outlives the body that it was read from. */
static void test_dropped_body(void **state)
{
    sl_api_request r;
    sl_api_error error;
    assert_int_equal(parse(SL_API_COMPLETION, "{\"prompt\":\"x\",\"stop\":[\"one\",\"two\"]}", &r, &error), SL_OK);
    sl_api_request_drop_body(&r);
    assert_null(r.root);
    assert_int_equal(r.n_stop_strings, 2);
    assert_memory_equal(r.stop_strings[0].bytes, "one", 3);
    assert_memory_equal(r.stop_strings[1].bytes, "two", 3);
    sl_api_request_free(&r);
}

/* Log-probabilities of an answer that is held until it is complete: as many as SL_API_MAX_LOGPROBS, in a context of 8,192
 * tokens. What may be asked for is known before anything is computed. */
static void test_many_logprobs(void **state)
{
    static const struct {
        sl_api_kind kind;
        const char *fields, *param; /* NULL: allowed */
    } cases[] = {
        {SL_API_COMPLETION, "\"logprobs\":20,\"max_tokens\":4096,\"n\":12", NULL},
        {SL_API_COMPLETION, "\"logprobs\":20,\"max_tokens\":4096,\"n\":13", "logprobs"},
        {SL_API_COMPLETION, "\"logprobs\":20,\"max_tokens\":4096,\"n\":13,\"stream\":true", NULL},
        {SL_API_COMPLETION, "\"logprobs\":15,\"max_tokens\":4096,\"n\":16", NULL},
        {SL_API_COMPLETION, "\"logprobs\":15,\"max_tokens\":4096,\"n\":16,\"echo\":true", "logprobs"},
        {SL_API_COMPLETION, "\"max_tokens\":8000,\"n\":128", NULL},
        {SL_API_COMPLETION, "\"logprobs\":0,\"max_tokens\":4294967295,\"n\":128", NULL},
        {SL_API_COMPLETION, "\"logprobs\":1,\"max_tokens\":4294967295,\"n\":128", "logprobs"},
        {SL_API_CHAT, "\"logprobs\":true,\"top_logprobs\":20", NULL},
        {SL_API_CHAT, "\"logprobs\":true,\"top_logprobs\":20,\"n\":7", "top_logprobs"},
        {SL_API_CHAT, "\"logprobs\":true,\"top_logprobs\":20,\"n\":7,\"max_tokens\":100", NULL},
        {SL_API_CHAT, "\"logprobs\":true,\"top_logprobs\":20,\"n\":7,\"stream\":true", NULL},
    };
    sl_bundle_options options = sl_bundle_options_default();
    sl_bundle *bundle;
    options.flags = SL_BUNDLE_TEXT_ONLY;
    assert_int_equal(sl_bundle_open(SL_TEST_GOLDEN_DIR "/tiny_llama.gguf", &options, &bundle, NULL), SL_OK);
    for (size_t i = 0; i < SL_COUNTOF(cases); i++) {
        char body[256];
        sl_api_request r;
        sl_api_error error = {0};
        snprintf(body, sizeof body, "{%s,%s}",
                 cases[i].kind == SL_API_CHAT ? "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
                                              : "\"prompt\":[70,71]",
                 cases[i].fields);
        sl_status status = parse(cases[i].kind, body, &r, &error);
        if (status == SL_OK)
            status = sl_api_tokenize(bundle, 8192, &r, &error);
        if (status != (cases[i].param ? SL_ERR_LIMIT : SL_OK) ||
            strcmp(error.param, cases[i].param ? cases[i].param : ""))
            fail_msg("%s: %d '%s' %s", body, error.status, error.param, error.message);
        if (cases[i].param)
            assert_true(error.status == 400 && strstr(error.message, "'max_tokens', 'n'") &&
                        strstr(error.message, "stream"));
        sl_api_request_free(&r);
    }
    sl_bundle_close(bundle);
}

/* ---- text ---- */

static void test_json_text(void **state)
{
    static const char bytes[] = "a\"\\/\b\f\n\r\t\x01\x7f\0é\xff\xe2\x82 \xf0\x9f\x98\x80";
    sl_textbuf text = {0};
    sl_textbuf_json(&text, bytes, sizeof bytes - 1);
    assert_string_equal(text.bytes, "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u007f\\u0000é\xef\xbf\xbd\xef\xbf\xbd "
                                    "\xf0\x9f\x98\x80\"");
    json_t *read = json_loads(text.bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_non_null(read);
    assert_memory_equal(json_string_value(read), bytes, 12);
    json_decref(read);
    sl_textbuf_clear(&text);
    sl_textbuf_logprob(&text, -0.5f);
    sl_textbuf_text(&text, " ");
    sl_textbuf_logprob(&text, -INFINITY);
    assert_string_equal(text.bytes, "-0.5 -9999");
    sl_textbuf_free(&text);
}

static void test_histogram(void **state)
{
    sl_metrics metrics = {0};
    sl_service_stats stats = {0};
    sl_textbuf text = {0};
    sl_metrics_observe(&metrics, SL_METRIC_TTFT, 1000);
    sl_metrics_observe(&metrics, SL_METRIC_TTFT, 30000);
    sl_metrics_observe(&metrics, SL_METRIC_TTFT, 4000000000000);
    sl_metrics_write(&metrics, &stats, 0, "a\"b", &text);
    static const char *const lines[] = {
        "vllm:time_to_first_token_seconds_bucket{model_name=\"a\\\"b\",le=\"0.001\"} 1\n",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"a\\\"b\",le=\"0.02\"} 1\n",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"a\\\"b\",le=\"0.04\"} 2\n",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"a\\\"b\",le=\"+Inf\"} 3\n",
        "vllm:time_to_first_token_seconds_count{model_name=\"a\\\"b\"} 3\n",
    };
    for (size_t i = 0; i < SL_COUNTOF(lines); i++)
        assert_non_null(strstr(text.bytes, lines[i]));
    sl_textbuf_free(&text);
}

/* ---- keys ---- */

static sl_status open_keys(const char *text, sl_keys **keys, sl_err *err)
{
    char path[] = "/tmp/sluice-keys-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    sl_status status = sl_keys_open(path, keys, err);
    unlink(path);
    return status;
}

static void test_keys(void **state)
{
    sl_keys *keys;
    sl_err err;
    assert_int_equal(open_keys("# mine\n\nfirst\r\nsecond", &keys, &err), SL_OK);
    assert_true(sl_keys_find(keys, "Bearer first") && sl_keys_find(keys, "bearer second"));
    static const char *const wrong[] = {"",
                                        "first",
                                        "Bearer ",
                                        "Bearer firs",
                                        "Bearer first ",
                                        "Bearer firstx",
                                        "Bearer # mine",
                                        "Basic first",
                                        "Bearer first\r"};
    for (size_t i = 0; i < SL_COUNTOF(wrong); i++)
        assert_false(sl_keys_find(keys, wrong[i]));
    sl_keys_close(keys);
    assert_int_equal(open_keys("# none\n", &keys, &err), SL_ERR_FORMAT);
    assert_int_equal(open_keys("a b\n", &keys, &err), SL_ERR_FORMAT);
    char line[SL_MAX_KEY + 2];
    memset(line, 'k', sizeof line);
    line[sizeof line - 1] = '\0';
    assert_int_equal(open_keys(line, &keys, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_keys_open("/nonexistent/keys", &keys, &err), SL_ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_bad_heads),
        cmocka_unit_test(test_head_byte_by_byte),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all_fields),
        cmocka_unit_test(test_bad_bodies),
        cmocka_unit_test(test_deep_body),
        cmocka_unit_test(test_many_values),
        cmocka_unit_test(test_dropped_body),
        cmocka_unit_test(test_json_text),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_many_logprobs),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_more_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
