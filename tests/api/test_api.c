/* The public API, of which this sees the header alone: answers by stream and by callback, every kind of bad input and
 * misuse, cancelling, draining, closing in any order, full queues. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sluice/sluice.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define TINY_MODEL SL_TEST_GOLDEN_DIR "/tiny_llama.gguf"

enum { CONTEXT = 128, N_TOKENS = 20, SLOW_US = 60 * 1000000 };

static sl_llm *llm;
static sl_llm_info info;

static void pause_ms(int ms)
{
    struct timespec delay = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&delay, NULL);
}

static int open_model(void **state)
{
    sl_llm_options options = sl_llm_options_default();
    options.n_threads = 2;
    options.cache = false;
    info.size = sizeof info;
    return sl_llm_open(TINY_MODEL, &options, &llm, NULL) != SL_OK || sl_llm_get_info(llm, &info, NULL) != SL_OK;
}

static int close_model(void **state)
{
    sl_llm_close(llm);
    return 0;
}

static sl_runner *open_runner(const sl_runner_options *more)
{
    sl_err err = {SL_OK, ""};
    sl_runner *runner;
    sl_runner_options options = more ? *more : sl_runner_options_default();
    options.context = options.context ? options.context : CONTEXT;
    if (sl_runner_open(llm, &options, &runner, &err) != SL_OK)
        fail_msg("%s", err.message);
    return runner;
}

static sl_query text_query(const char *text)
{
    sl_query query = sl_query_default();
    query.prompt = sl_bytes_of(text);
    query.max_tokens = N_TOKENS;
    query.ignore_end = true;
    query.temperature = 1;
    query.seed = 7;
    return query;
}

/* All that a query has said. */
typedef struct {
    char text[2048];
    size_t n_text;
    uint32_t n, tokens[CONTEXT];
    float logprobs[CONTEXT], embedding[256];
    uint32_t n_top, n_prompt_outputs, n_embedding, n_ends;
    sl_finish finish;
    int32_t stop_string;
    uint32_t n_cached, n_prompt;
    sl_err err;
    bool last;
    const char *problem; /* callbacks may not use cmocka's assertions */
} answer;

static void add_output(answer *a, const sl_output *out)
{
    if (a->last)
        a->problem = "an output after the last one";
    if (out->size != sizeof *out)
        a->problem = "an output of another size";
    if (a->n_text + out->text.n_bytes < sizeof a->text)
        memcpy(a->text + a->n_text, out->text.bytes, out->text.n_bytes);
    a->n_text += out->text.n_bytes;
    a->last = out->last;
    if (out->kind == SL_OUTPUT_TOKEN && a->n < CONTEXT) {
        a->n_top += out->n_top;
        a->logprobs[a->n] = out->logprob;
        a->tokens[a->n++] = out->token;
    } else if (out->kind == SL_OUTPUT_PROMPT) {
        a->n_prompt_outputs++;
    } else if (out->kind == SL_OUTPUT_EMBEDDING && out->n_embedding <= 256) {
        a->n_embedding = out->n_embedding;
        memcpy(a->embedding, out->embedding, out->n_embedding * sizeof *out->embedding);
    } else if (out->kind == SL_OUTPUT_END) {
        a->n_ends++;
        a->finish = out->finish;
        a->stop_string = out->stop_string;
        a->n_cached = out->n_cached;
        a->n_prompt = out->n_prompt;
        if (out->error)
            a->err = *out->error;
    }
}

static sl_stream *open_stream(sl_runner *runner, const sl_query *query)
{
    sl_err err = {SL_OK, ""};
    sl_stream *stream;
    if (sl_stream_open(runner, query, &stream, &err) != SL_OK)
        fail_msg("%s", err.message);
    return stream;
}

static void read_to_end(sl_stream *stream, answer *a)
{
    const sl_output *out;
    while ((out = sl_stream_next(stream, SLOW_US)) != NULL)
        add_output(a, out);
    assert_true(a->last);
    assert_null(a->problem);
    assert_null(sl_stream_next(stream, SL_FOREVER)); /* it does not wait for what can't come */
}

static void ask(sl_runner *runner, const sl_query *query, answer *a)
{
    *a = (answer){.n_text = 0};
    sl_stream *stream = open_stream(runner, query);
    read_to_end(stream, a);
    sl_stream_close(stream);
}

static void assert_same(const answer *a, const answer *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->tokens, b->tokens, a->n * sizeof *a->tokens);
    assert_int_equal(a->n_text, b->n_text);
    assert_memory_equal(a->text, b->text, a->n_text);
    assert_int_equal(a->finish, b->finish);
}

/* ---- sizes ---- */

static void test_sizes_of_options(void **state)
{
    const size_t wrong[] = {0, 1, sizeof(size_t), SIZE_MAX, 1 << 20};
    sl_err err;
    sl_llm *model;
    sl_runner *runner = open_runner(NULL), *other;
    sl_stream *stream;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        sl_llm_options for_llm = sl_llm_options_default();
        sl_runner_options for_runner = sl_runner_options_default();
        sl_query query = text_query("a");
        sl_llm_info about = {.size = wrong[i]};
        sl_runner_statistics statistics = {.size = wrong[i]};
        for_llm.size = for_runner.size = query.size = wrong[i];
        err.message[0] = '\0';
        assert_int_equal(sl_llm_open(TINY_MODEL, &for_llm, &model, &err), SL_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "sl_llm_options"));
        assert_int_equal(sl_runner_open(llm, &for_runner, &other, &err), SL_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "sl_runner_options"));
        assert_int_equal(sl_stream_open(runner, &query, &stream, &err), SL_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "sl_query"));
        assert_null(model);
        assert_null(other);
        assert_null(stream);
        assert_int_equal(sl_llm_get_info(llm, &about, &err), SL_ERR_ARGUMENT);
        assert_int_equal(sl_runner_get_statistics(runner, &statistics, &err), SL_ERR_ARGUMENT);
    }
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

/* A caller from the future: what this library does not know is fine while it is zero. */
static void test_newer_caller(void **state)
{
    struct {
        sl_query query;
        uint64_t unknown[2];
    } newer;
    struct {
        sl_llm_info info;
        uint64_t unknown;
    } about;
    sl_err err;
    answer a;
    sl_runner *runner = open_runner(NULL);
    sl_stream *stream;
    memset(&newer, 0xff, sizeof newer);
    sl_query_init(&newer.query, sizeof newer);
    assert_int_equal(newer.query.size, sizeof newer);
    assert_int_equal(newer.unknown[0] | newer.unknown[1], 0);
    newer.query.prompt = sl_bytes_of("the dog");
    newer.query.max_tokens = 3;
    ask(runner, &newer.query, &a);
    assert_in_range(a.n, 0, 3);
    newer.unknown[1] = 1;
    assert_int_equal(sl_stream_open(runner, &newer.query, &stream, &err), SL_ERR_UNSUPPORTED);
    memset(&about, 0xff, sizeof about);
    about.info.size = sizeof about;
    assert_int_equal(sl_llm_get_info(llm, &about.info, &err), SL_OK);
    assert_int_equal(about.unknown, 0);
    assert_int_equal(about.info.size, sizeof about);
    assert_int_equal(about.info.n_vocab, info.n_vocab);
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

/* A caller from the past: init writes no further than it is told. */
static void test_older_caller(void **state)
{
    union {
        char bytes[sizeof(sl_query) + 8];
        sl_query query;
    } room;
    for (size_t size = 0; size <= sizeof(sl_query); size += 4) {
        memset(&room, 0x55, sizeof room);
        sl_query_init(&room.query, size);
        for (size_t i = size; i < sizeof room; i++)
            assert_int_equal(room.bytes[i], 0x55);
    }
    sl_query_init(NULL, sizeof(sl_query));
    sl_llm_options_init(NULL, 8);
    sl_runner_options_init(NULL, 8);
}

/* ---- NULL ---- */

static void test_null(void **state)
{
    sl_err err;
    sl_llm *model;
    sl_runner *runner = open_runner(NULL), *other;
    sl_stream *stream;
    size_t n;
    uint32_t token;
    uint64_t id;
    sl_query query = text_query("a");
    assert_int_equal(sl_llm_open(NULL, NULL, &model, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_llm_open(TINY_MODEL, NULL, NULL, NULL), SL_ERR_ARGUMENT);
    assert_int_equal(sl_llm_get_info(NULL, &info, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_llm_get_info(llm, NULL, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_llm_tokenize(NULL, sl_bytes_of("a"), &token, 1, &n, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_llm_tokenize(llm, sl_bytes_of("a"), NULL, 1, &n, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_llm_tokenize(llm, sl_bytes_of("a"), &token, 1, NULL, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_llm_tokenize(llm, (sl_bytes){NULL, 3}, &token, 1, &n, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_llm_tokenize_chat(NULL, NULL, 0, &token, 1, &n, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_llm_tokenize_chat(llm, NULL, 2, &token, 1, &n, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_llm_token_bytes(NULL, 1).n_bytes, 0);
    assert_int_equal(sl_llm_token_bytes(llm, UINT32_MAX).n_bytes, 0);
    assert_null(sl_llm_retain(NULL));
    sl_llm_close(NULL);
    assert_int_equal(sl_runner_open(NULL, NULL, &other, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_runner_open(llm, NULL, NULL, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_runner_close(NULL), SL_OK);
    assert_int_equal(sl_runner_context(NULL), 0);
    assert_int_equal(sl_runner_submit(NULL, &query, &id, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_runner_submit(runner, NULL, &id, NULL), SL_ERR_ARGUMENT);
    assert_int_equal(sl_runner_submit(runner, &query, &id, &err), SL_ERR_ARGUMENT); /* no on_output */
    assert_int_equal(sl_runner_cancel(NULL, 1, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_runner_drain(NULL, 0, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_runner_get_statistics(NULL, NULL, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_runner_get_statistics(runner, NULL, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_runner_health(NULL, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_stream_open(NULL, &query, &stream, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_stream_open(runner, NULL, &stream, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_stream_open(runner, &query, NULL, &err), SL_ERR_ARGUMENT);
    assert_null(sl_stream_next(NULL, SL_FOREVER));
    sl_stream_cancel(NULL);
    sl_stream_close(NULL);
    sl_bytes none = sl_bytes_of(NULL);
    assert_int_equal(none.n_bytes, 0);
    assert_string_equal(sl_finish_name((sl_finish)99), "unknown");
    assert_string_equal(sl_finish_name(SL_FINISH_CANCELLED), "cancelled");
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

/* ---- models ---- */

static bool stop_progress(void *user, uint64_t n_done, uint64_t n_total)
{
    *(bool *)user = n_done <= n_total;
    return false;
}

static char warning[512];

static void keep_warning(void *user, sl_log_level level, const char *line)
{
    strncpy(warning, line, sizeof warning - 1);
}

static void test_model(void **state)
{
    sl_err err;
    sl_llm *model;
    bool seen = false;
    sl_llm_options options = sl_llm_options_default();
    assert_int_equal(sl_llm_open("/no/such.gguf", NULL, &model, &err), SL_ERR_IO);
    assert_int_equal(sl_llm_open("no-such-model", NULL, &model, &err), SL_ERR_NOT_FOUND);
    assert_int_equal(sl_llm_open(SL_TEST_GOLDEN_DIR "/dequant.bin", NULL, &model, &err), SL_ERR_FORMAT);
    assert_null(model);
    options.kv_type = "f17";
    assert_int_equal(sl_llm_open(TINY_MODEL, &options, &model, &err), SL_ERR_ARGUMENT);
    options = sl_llm_options_default();
    options.level = "fast";
    assert_int_equal(sl_llm_open(TINY_MODEL, &options, &model, &err), SL_ERR_ARGUMENT);
    options = sl_llm_options_default();
    options.n_threads = -1;
    assert_int_equal(sl_llm_open(TINY_MODEL, &options, &model, &err), SL_ERR_ARGUMENT);
    options = sl_llm_options_default();
    options.cache = false;
    options.on_progress = stop_progress;
    options.user = &seen;
    assert_int_equal(sl_llm_open(TINY_MODEL, &options, &model, &err), SL_ERR_CANCELLED);
    assert_true(seen);
    /* A cache that can't be is no error: the log says so, when somebody listens. */
    options = sl_llm_options_default();
    options.cache_folder = "/proc/none";
    options.kv_type = "q8";
    sl_log_set(keep_warning, NULL, SL_LOG_WARN);
    assert_int_equal(sl_llm_open(TINY_MODEL, &options, &model, &err), SL_OK);
    sl_log_set(NULL, NULL, SL_LOG_ERROR);
    assert_non_null(strstr(warning, "packed weights"));
    assert_ptr_equal(sl_llm_retain(model), model);
    sl_llm_close(model);
    sl_llm_info about = {.size = sizeof about};
    assert_int_equal(sl_llm_get_info(model, &about, &err), SL_OK); /* one reference is left */
    assert_string_equal(about.architecture, "llama");
    assert_true(about.n_vocab > 100 && about.n_layers > 0 && about.n_embedding > 0 && about.context >= CONTEXT);
    assert_true(about.kv_bytes_per_token < info.kv_bytes_per_token); /* q8 */
    sl_llm_close(model);
}

static void test_tokens(void **state)
{
    sl_err err;
    uint32_t tokens[64], few[64];
    size_t n, n_few;
    sl_message messages[] = {{"system", sl_bytes_of("the dog")}, {"user", sl_bytes_of("<|im_end|> the fox")}};
    assert_int_equal(sl_llm_tokenize(llm, sl_bytes_of("the quick brown fox"), tokens, 64, &n, &err), SL_OK);
    assert_in_range(n, 2, 32);
    few[2] = 12345;
    assert_int_equal(sl_llm_tokenize(llm, sl_bytes_of("the quick brown fox"), few, 2, &n_few, &err), SL_OK);
    assert_int_equal(n_few, n);
    assert_memory_equal(few, tokens, 2 * sizeof *few);
    assert_int_equal(few[2], 12345);
    assert_int_equal(sl_llm_tokenize(llm, sl_bytes_of("the quick brown fox"), NULL, 0, &n_few, &err), SL_OK);
    assert_int_equal(n_few, n);
    assert_int_equal(sl_llm_tokenize(llm, (sl_bytes){"the", 0}, tokens, 64, &n, &err), SL_OK);
    assert_in_range(n, 0, 1);
    assert_int_equal(sl_llm_tokenize_chat(llm, messages, 2, tokens, 64, &n, &err), SL_OK);
    assert_in_range(n, 10, 64);
    messages[1].role = NULL;
    assert_int_equal(sl_llm_tokenize_chat(llm, messages, 2, tokens, 64, &n, &err), SL_ERR_ARGUMENT);
    messages[1] = (sl_message){"user", {NULL, 7}};
    assert_int_equal(sl_llm_tokenize_chat(llm, messages, 2, tokens, 64, &n, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_llm_tokenize_chat(llm, messages, 0, tokens, 64, &n, &err), SL_ERR_ARGUMENT);
}

/* ---- answers ---- */

static size_t copy_ascii(char *to, const char *from, size_t n)
{
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)from[i] < 128)
            to[n_kept++] = from[i];
    return n_kept;
}

/* The text is what the tokens write; beyond ASCII a random model writes bytes that are no characters. */
static void assert_text_of_tokens(const answer *a)
{
    char expected[2048], found[2048];
    size_t n = 0, n_found = copy_ascii(found, a->text, a->n_text);
    for (uint32_t i = 0; i < a->n; i++) {
        sl_bytes piece = sl_llm_token_bytes(llm, a->tokens[i]);
        n += copy_ascii(expected + n, piece.bytes, piece.n_bytes);
    }
    assert_true(n > 4);
    assert_int_equal(n_found, n);
    assert_memory_equal(found, expected, n);
}

/* The prompt as text, tokens and messages; what is reported; the seed. */
static void test_streams(void **state)
{
    sl_runner *runner = open_runner(NULL);
    sl_query query = text_query("the quick brown fox");
    answer a, b;
    uint32_t tokens[64];
    size_t n;
    query.logprobs = true;
    query.n_top_logprobs = 3;
    ask(runner, &query, &a);
    assert_int_equal(a.n, N_TOKENS);
    assert_int_equal(a.finish, SL_FINISH_LENGTH);
    assert_int_equal(a.n_top, 3 * N_TOKENS);
    assert_true(a.logprobs[0] < 0 && isfinite(a.logprobs[0]));
    assert_text_of_tokens(&a);
    assert_int_equal(sl_llm_tokenize(llm, query.prompt, tokens, 64, &n, NULL), SL_OK);
    query.prompt = sl_bytes_of(NULL);
    query.tokens = tokens;
    query.n_tokens = n;
    ask(runner, &query, &b);
    assert_same(&a, &b);
    assert_int_equal(b.n_prompt, n);
    query.seed = 8;
    ask(runner, &query, &b);
    assert_memory_not_equal(a.tokens, b.tokens, sizeof a.tokens);
    sl_message message = {"user", sl_bytes_of("the dog")};
    query = text_query(NULL);
    query.messages = &message;
    query.n_messages = 1;
    ask(runner, &query, &a);
    assert_int_equal(a.n, N_TOKENS);
    assert_int_equal(sl_runner_context(runner), CONTEXT);
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

static void test_timeouts(void **state)
{
    sl_runner *runner = open_runner(NULL);
    sl_query query = text_query("the dog");
    answer a = {.n_text = 0};
    const sl_output *out;
    int n_empty = 0;
    query.max_tokens = 100;
    sl_stream *stream = open_stream(runner, &query);
    while (!a.last) {
        if ((out = sl_stream_next(stream, n_empty % 2 ? 50 : 0)) != NULL)
            add_output(&a, out);
        else
            n_empty++;
    }
    assert_int_equal(a.n, 100);
    assert_null(a.problem);
    sl_stream_cancel(stream); /* over: no effect */
    assert_null(sl_stream_next(stream, INT64_MAX));
    sl_stream_close(stream);
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

static void test_stop_string(void **state)
{
    sl_runner *runner = open_runner(NULL);
    sl_query query = text_query("the quick brown fox");
    answer a, b;
    ask(runner, &query, &a);
    assert_true(a.n_text > 8);
    sl_bytes stops[] = {{"\x01never\x02", 7}, {a.text + 5, 2}};
    query.stop_strings = stops;
    query.n_stop_strings = 2;
    ask(runner, &query, &b);
    assert_int_equal(b.finish, SL_FINISH_STOP);
    assert_int_equal(b.stop_string, 1);
    assert_in_range(b.n_text, 0, 5);
    assert_memory_equal(a.text, b.text, b.n_text);
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

/* What the service must be able to do for these: skipped while it refuses them. */
static bool unsupported(sl_runner *runner, const sl_query *query)
{
    sl_stream *stream;
    sl_status status = sl_stream_open(runner, query, &stream, NULL);
    sl_stream_close(stream);
    return status == SL_ERR_UNSUPPORTED;
}

static void test_choices(void **state)
{
    sl_runner *runner = open_runner(NULL);
    sl_query query = text_query("the quick brown fox");
    answer all, choices[3] = {{.n_text = 0}}, alone;
    const sl_output *out;
    query.n_choices = 3;
    if (unsupported(runner, &query)) {
        sl_runner_close(runner);
        skip();
    }
    sl_stream *stream = open_stream(runner, &query);
    uint32_t n_last = 0, n_ends = 0;
    while ((out = sl_stream_next(stream, SLOW_US)) != NULL) {
        assert_in_range(out->choice, 0, 2);
        add_output(&choices[out->choice], out);
        n_last += out->last;
        n_ends += out->kind == SL_OUTPUT_END;
        assert_int_equal(out->last, n_ends == 3);
    }
    sl_stream_close(stream);
    assert_int_equal(n_last, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(choices[i].n, N_TOKENS);
    assert_memory_not_equal(choices[0].tokens, choices[1].tokens, N_TOKENS * sizeof(uint32_t));
    assert_memory_not_equal(choices[1].tokens, choices[2].tokens, N_TOKENS * sizeof(uint32_t));
    query.n_choices = 1;
    ask(runner, &query, &alone);
    assert_memory_equal(alone.tokens, choices[0].tokens, N_TOKENS * sizeof(uint32_t));
    query.n_choices = 3;
    ask(runner, &query, &all);
    assert_int_equal(all.n_ends, 3);
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

static void test_prompt_logprobs(void **state)
{
    sl_runner *runner = open_runner(NULL);
    sl_query query = text_query("the quick brown fox jumps over the lazy dog");
    answer a;
    query.max_tokens = 0;
    query.n_prompt_top_logprobs = 2;
    if (unsupported(runner, &query)) {
        sl_runner_close(runner);
        skip();
    }
    ask(runner, &query, &a);
    assert_int_equal(a.finish, SL_FINISH_LENGTH);
    assert_int_equal(a.n, 0);
    assert_int_equal(a.n_prompt_outputs, a.n_prompt - 1);
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

static void test_embedding(void **state)
{
    sl_runner *runner = open_runner(NULL);
    sl_query query = sl_query_default();
    answer a, b;
    double length = 0;
    query.prompt = sl_bytes_of("the quick brown fox");
    query.pooling = SL_POOLING_MEAN;
    if (unsupported(runner, &query)) {
        sl_runner_close(runner);
        skip();
    }
    ask(runner, &query, &a);
    assert_int_equal(a.n_embedding, info.n_embedding);
    assert_int_equal(a.n, 0);
    for (uint32_t i = 0; i < a.n_embedding; i++)
        length += (double)a.embedding[i] * a.embedding[i];
    assert_true(fabs(length - 1) < 1e-5);
    query.pooling = SL_POOLING_LAST;
    ask(runner, &query, &b);
    assert_memory_not_equal(a.embedding, b.embedding, a.n_embedding * sizeof *a.embedding);
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

/* max_tokens 0 computes a prompt for those that come later. */
static void test_warm(void **state)
{
    sl_runner *runner = open_runner(NULL);
    sl_query query = text_query("the quick brown fox jumps over the lazy dog and then there is another thing that the");
    answer cold, warm;
    query.max_tokens = 0;
    ask(runner, &query, &cold);
    assert_int_equal(cold.n, 0);
    assert_int_equal(cold.n_cached, 0);
    query.max_tokens = N_TOKENS;
    ask(runner, &query, &warm);
    assert_true(warm.n_cached >= 16);
    query.tenant = 5; /* another tenant shares nothing */
    ask(runner, &query, &cold);
    assert_int_equal(cold.n_cached, 0);
    assert_same(&cold, &warm);
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

/* ---- bad input ---- */

static uint32_t unknown_token, many_tokens[CONTEXT + 1], one_token = 3;
static sl_message bad_message = {NULL, {"x", 1}};
static const sl_bytes empty_string = {"", 0}, long_string = {TINY_MODEL, 1025}, good_string = {"x", 1};
static const sl_token_list empty_word = {NULL, 0}, endless_word = {&one_token, SIZE_MAX};
static sl_logit_bias bad_bias = {1, 101}, unknown_bias, nan_bias = {1, NAN};

typedef void spoil_fn(sl_query *query);

/* Each makes a good query bad in its own way. */
#define BAD(name, ...)                                                                                                 \
    static void name(sl_query *q)                                                                                      \
    {                                                                                                                  \
        __VA_ARGS__;                                                                                                   \
    }
BAD(no_prompt, q->prompt = sl_bytes_of(NULL))
BAD(two_prompts, q->tokens = &one_token; q->n_tokens = 1)
BAD(message_without_role, q->prompt.bytes = NULL; q->messages = &bad_message; q->n_messages = 1)
BAD(messages_without_array, q->prompt.bytes = NULL; q->n_messages = 3)
BAD(messages_without_end, q->prompt.bytes = NULL; q->messages = &bad_message; q->n_messages = SIZE_MAX)
BAD(tokens_without_array, q->prompt.bytes = NULL; q->n_tokens = 3)
BAD(tokens_without_end, q->prompt.bytes = NULL; q->tokens = &one_token; q->n_tokens = SIZE_MAX)
BAD(prompt_beyond_context, q->prompt.bytes = NULL; q->tokens = many_tokens; q->n_tokens = CONTEXT + 1)
BAD(prompt_fills_context, q->prompt.bytes = NULL; q->tokens = many_tokens; q->n_tokens = CONTEXT)
BAD(prompt_of_unknown_token, q->prompt.bytes = NULL; q->tokens = &unknown_token; q->n_tokens = 1)
BAD(choices_without_end, q->n_choices = UINT32_MAX)
BAD(more_choices_than_sequences, q->n_choices = 17)
BAD(min_beyond_max, q->min_tokens = N_TOKENS + 1)
BAD(choices_of_nothing, q->max_tokens = 0; q->n_choices = 2)
BAD(logprobs_of_nothing, q->max_tokens = 0; q->logprobs = true)
BAD(unknown_stop_token, q->stop_tokens = &unknown_token; q->n_stop_tokens = 1)
BAD(stop_tokens_without_array, q->n_stop_tokens = 1)
BAD(stop_tokens_without_end, q->stop_tokens = &one_token; q->n_stop_tokens = SIZE_MAX)
BAD(empty_stop_string, q->stop_strings = &empty_string; q->n_stop_strings = 1)
BAD(long_stop_string, q->stop_strings = &long_string; q->n_stop_strings = 1)
BAD(stop_strings_without_array, q->n_stop_strings = 1)
BAD(stop_strings_without_end, q->stop_strings = &good_string; q->n_stop_strings = SIZE_MAX)
BAD(bias_out_of_range, q->bias = &bad_bias; q->n_bias = 1)
BAD(bias_that_is_no_number, q->bias = &nan_bias; q->n_bias = 1)
BAD(bias_of_unknown_token, q->bias = &unknown_bias; q->n_bias = 1)
BAD(bias_without_end, q->bias = &bad_bias; q->n_bias = SIZE_MAX)
BAD(bias_without_array, q->n_bias = 1)
BAD(empty_bad_word, q->bad_words = &empty_word; q->n_bad_words = 1)
BAD(endless_bad_word, q->bad_words = &endless_word; q->n_bad_words = 1)
BAD(bad_words_without_end, q->bad_words = &empty_word; q->n_bad_words = SIZE_MAX)
BAD(allowed_without_array, q->allowed_tokens.n = 2)
BAD(allowed_without_end, q->allowed_tokens.tokens = &one_token; q->allowed_tokens.n = SIZE_MAX)
BAD(unknown_allowed_token, q->allowed_tokens.tokens = &unknown_token; q->allowed_tokens.n = 1)
BAD(negative_temperature, q->temperature = -1)
BAD(temperature_is_no_number, q->temperature = NAN)
BAD(top_p_above_one, q->top_p = 1.5f)
BAD(negative_min_p, q->min_p = -0.1f)
BAD(no_repetition_penalty, q->repetition_penalty = 0)
BAD(endless_penalty, q->presence_penalty = INFINITY)
BAD(too_many_logprobs, q->n_top_logprobs = SL_MAX_LOGPROBS + 1)
BAD(too_many_prompt_logprobs, q->n_prompt_top_logprobs = UINT32_MAX)
BAD(unknown_pooling, q->pooling = (sl_pooling)77)
BAD(embedding_and_tokens, q->pooling = SL_POOLING_MEAN)
BAD(embedding_and_logprobs, q->pooling = SL_POOLING_MEAN; q->max_tokens = 0; q->prompt_logprobs = true)
BAD(negative_target, q->ttft_target_us = -1)
BAD(negative_other_target, q->itl_target_us = INT64_MIN)
BAD(no_weight, q->tenant_weight = 0)
BAD(weight_is_no_number, q->tenant_weight = NAN)

static void count_call(void *user, const sl_output *out)
{
    atomic_fetch_add((atomic_int *)user, 1);
}
BAD(callback_of_a_stream, q->on_output = count_call)

#define ARGUMENT(name)                                                                                                 \
    {                                                                                                                  \
#name, name, SL_ERR_ARGUMENT                                                                                   \
    }
#define LIMIT(name)                                                                                                    \
    {                                                                                                                  \
#name, name, SL_ERR_LIMIT                                                                                      \
    }
static const struct {
    const char *name;
    spoil_fn *spoil;
    sl_status status;
} bad[] = {
    ARGUMENT(no_prompt),
    ARGUMENT(two_prompts),
    ARGUMENT(message_without_role),
    ARGUMENT(messages_without_array),
    LIMIT(messages_without_end),
    ARGUMENT(tokens_without_array),
    LIMIT(tokens_without_end),
    LIMIT(prompt_beyond_context),
    LIMIT(prompt_fills_context),
    ARGUMENT(prompt_of_unknown_token),
    LIMIT(choices_without_end),
    LIMIT(more_choices_than_sequences),
    ARGUMENT(min_beyond_max),
    ARGUMENT(choices_of_nothing),
    ARGUMENT(logprobs_of_nothing),
    ARGUMENT(unknown_stop_token),
    ARGUMENT(stop_tokens_without_array),
    LIMIT(stop_tokens_without_end),
    ARGUMENT(empty_stop_string),
    ARGUMENT(long_stop_string),
    ARGUMENT(stop_strings_without_array),
    LIMIT(stop_strings_without_end),
    ARGUMENT(bias_out_of_range),
    ARGUMENT(bias_that_is_no_number),
    ARGUMENT(bias_of_unknown_token),
    LIMIT(bias_without_end),
    ARGUMENT(bias_without_array),
    ARGUMENT(empty_bad_word),
    ARGUMENT(endless_bad_word),
    LIMIT(bad_words_without_end),
    ARGUMENT(allowed_without_array),
    LIMIT(allowed_without_end),
    ARGUMENT(unknown_allowed_token),
    ARGUMENT(negative_temperature),
    ARGUMENT(temperature_is_no_number),
    ARGUMENT(top_p_above_one),
    ARGUMENT(negative_min_p),
    ARGUMENT(no_repetition_penalty),
    ARGUMENT(endless_penalty),
    ARGUMENT(too_many_logprobs),
    ARGUMENT(too_many_prompt_logprobs),
    ARGUMENT(unknown_pooling),
    ARGUMENT(embedding_and_tokens),
    ARGUMENT(embedding_and_logprobs),
    ARGUMENT(negative_target),
    ARGUMENT(negative_other_target),
    ARGUMENT(no_weight),
    ARGUMENT(weight_is_no_number),
    ARGUMENT(callback_of_a_stream),
};

/* A status and a message, at once; a query that runs meanwhile notices nothing, and neither do the counts. */
static void test_bad_queries(void **state)
{
    sl_runner *runner = open_runner(NULL);
    sl_query good = text_query("the quick brown fox");
    answer alone, beside = {.n_text = 0};
    atomic_int n_calls = 0;
    unknown_token = unknown_bias.token = info.n_vocab;
    good.max_tokens = 100;
    good.user = &n_calls;
    ask(runner, &good, &alone);
    sl_stream *witness = open_stream(runner, &good);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sl_err err = {SL_OK, ""};
        sl_stream *stream = (sl_stream *)&err;
        sl_query query = text_query("the dog");
        bad[i].spoil(&query);
        if (sl_stream_open(runner, &query, &stream, &err) != bad[i].status || err.code != bad[i].status)
            fail_msg("%s: %s (%s)", bad[i].name, sl_status_name(err.code), err.message);
        assert_true(strlen(err.message) > 8);
        assert_null(stream);
        query.on_output = bad[i].spoil == callback_of_a_stream ? NULL : count_call;
        assert_int_equal(sl_runner_submit(runner, &query, NULL, NULL), bad[i].status);
    }
    read_to_end(witness, &beside);
    assert_same(&alone, &beside);
    sl_stream_close(witness);
    sl_runner_statistics statistics = {.size = sizeof statistics};
    assert_int_equal(sl_runner_get_statistics(runner, &statistics, NULL), SL_OK);
    assert_int_equal(statistics.n_queries + statistics.n_waiting + statistics.n_running, 0);
    assert_int_equal(sl_runner_close(runner), SL_OK);
    assert_int_equal(n_calls, 0);
}

static void test_bad_runners(void **state)
{
    sl_err err;
    sl_runner *runner;
    sl_runner_options o = sl_runner_options_default();
    o.kv_bytes = 1;
    assert_int_equal(sl_runner_open(llm, &o, &runner, &err), SL_ERR_LIMIT); /* not one block for each layer */
    o = sl_runner_options_default();
    o.context = info.context + 1;
    assert_int_equal(sl_runner_open(llm, &o, &runner, &err), SL_ERR_LIMIT);
    o.context = 1;
    assert_int_equal(sl_runner_open(llm, &o, &runner, &err), SL_ERR_ARGUMENT);
    o = sl_runner_options_default();
    o.n_sequences = UINT32_MAX;
    assert_int_equal(sl_runner_open(llm, &o, &runner, &err), SL_ERR_ARGUMENT);
    o = sl_runner_options_default();
    o.chunk = UINT32_MAX;
    assert_int_equal(sl_runner_open(llm, &o, &runner, &err), SL_ERR_ARGUMENT);
    o = sl_runner_options_default();
    o.max_queries = UINT32_MAX;
    assert_int_equal(sl_runner_open(llm, &o, &runner, &err), SL_ERR_ARGUMENT);
    o = sl_runner_options_default();
    o.hang_us = -1;
    assert_int_equal(sl_runner_open(llm, &o, &runner, &err), SL_ERR_ARGUMENT);
    assert_null(runner);
    runner = open_runner(NULL);
    sl_runner *second = runner;
    assert_int_equal(sl_runner_open(llm, NULL, &second, &err), SL_ERR_STATE);
    assert_null(second);
    assert_int_equal(sl_runner_close(runner), SL_OK);
    runner = open_runner(NULL); /* again, now that the first is gone */
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

/* What only the engine can tell: keys and values that fit for one block, but not for this. */
static void test_little_memory(void **state)
{
    sl_runner_options o = sl_runner_options_default();
    sl_query query = text_query("the dog");
    answer a;
    o.kv_bytes = info.kv_bytes_per_token * 16 * 2;
    sl_runner *runner = open_runner(&o);
    query.max_tokens = 100;
    ask(runner, &query, &a);
    assert_int_equal(a.finish, SL_FINISH_ERROR);
    assert_int_equal(a.err.code, SL_ERR_LIMIT);
    assert_int_equal(a.n, 0);
    query.max_tokens = 4;
    ask(runner, &query, &a);
    assert_int_equal(a.finish, SL_FINISH_LENGTH);
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

static void test_two_models(void **state)
{
    sl_llm_options options = sl_llm_options_default();
    sl_llm *other;
    sl_query query = text_query("the dog");
    answer a, b;
    options.n_threads = 1;
    options.cache = false;
    assert_int_equal(sl_llm_open(TINY_MODEL, &options, &other, NULL), SL_OK);
    sl_runner *first = open_runner(NULL), *second;
    assert_int_equal(sl_runner_open(other, NULL, &second, NULL), SL_OK);
    sl_llm_close(other); /* its runner holds it */
    ask(first, &query, &a);
    ask(second, &query, &b);
    assert_same(&a, &b);
    assert_int_equal(sl_runner_close(second), SL_OK);
    assert_int_equal(sl_runner_close(first), SL_OK);
}

/* ---- callbacks ---- */

enum { N_CALLS = 12, N_LINKS = 5 };

typedef struct {
    sl_runner *runner;
    answer answers[N_CALLS];
    uint64_t ids[N_CALLS];
    pthread_t thread;
    atomic_int n_links, n_within;
    atomic_bool hold, holds;
    const char *problem;
} calls;

typedef struct {
    calls *all;
    uint32_t index;
} call;

static void on_output(void *user, const sl_output *out)
{
    call *c = user;
    calls *all = c->all;
    if (atomic_fetch_add(&all->n_within, 1) != 0)
        all->problem = "two callbacks at once";
    if (out->user != user || (all->ids[c->index] && out->id != all->ids[c->index]))
        all->problem = "an output with another's name";
    all->thread = pthread_self();
    add_output(&all->answers[c->index], out);
    atomic_fetch_sub(&all->n_within, 1);
}

static void test_callbacks(void **state)
{
    static calls all;
    call each[N_CALLS];
    answer alone[N_CALLS];
    static const char *const prompts[] = {"the dog", "a fox", "rain on the station", "trees"};
    all.runner = open_runner(NULL);
    for (uint32_t i = 0; i < N_CALLS; i++) {
        sl_query query = text_query(prompts[i % 4]);
        query.seed = i;
        ask(all.runner, &query, &alone[i]);
    }
    for (uint32_t i = 0; i < N_CALLS; i++) {
        char prompt[32];
        strcpy(prompt, prompts[i % 4]);
        sl_query query = text_query(prompt);
        each[i] = (call){&all, i};
        query.seed = i;
        query.on_output = on_output;
        query.user = &each[i];
        assert_int_equal(sl_runner_submit(all.runner, &query, &all.ids[i], NULL), SL_OK);
        assert_true(all.ids[i] != 0 && (i == 0 || all.ids[i] != all.ids[i - 1]));
        memset(prompt, 0, sizeof prompt); /* it was copied */
    }
    assert_int_equal(sl_runner_drain(all.runner, SL_FOREVER, NULL), SL_OK);
    for (uint32_t i = 0; i < N_CALLS; i++) {
        assert_null(all.answers[i].problem);
        assert_int_equal(all.answers[i].n_ends, 1);
        assert_same(&all.answers[i], &alone[i]);
    }
    assert_null(all.problem);
    assert_false(pthread_equal(all.thread, pthread_self()));
    sl_runner_statistics statistics = {.size = sizeof statistics};
    assert_int_equal(sl_runner_get_statistics(all.runner, &statistics, NULL), SL_OK);
    assert_int_equal(statistics.n_queries, 0);
    assert_int_equal(statistics.n_finished[SL_FINISH_LENGTH], 2 * N_CALLS);
    assert_int_equal(statistics.generated_tokens, 2 * N_CALLS * N_TOKENS);
    assert_true(statistics.cached_tokens <= statistics.prompt_tokens && statistics.n_steps > N_TOKENS);
    assert_int_equal(sl_runner_health(all.runner, NULL), SL_OK);
    assert_int_equal(sl_runner_close(all.runner), SL_OK);
}

/* At each end it submits the next one, and tries what a callback must not do. */
static void on_link(void *user, const sl_output *out)
{
    calls *all = user;
    if (!out->last)
        return;
    if (sl_runner_close(all->runner) != SL_ERR_STATE)
        all->problem = "closed in a callback";
    if (atomic_fetch_add(&all->n_links, 1) + 1 < N_LINKS) {
        sl_query query = text_query("the dog");
        query.on_output = on_link;
        query.user = user;
        if (sl_runner_submit(all->runner, &query, NULL, NULL) != SL_OK)
            all->problem = "a callback may submit";
        return;
    }
    if (sl_runner_drain(all->runner, SL_FOREVER, NULL) != SL_ERR_STATE ||
        sl_runner_drain(all->runner, 1000, NULL) != SL_ERR_STATE)
        all->problem = "waited for itself";
    sl_stream *stream;
    sl_query query = text_query("the dog");
    if (sl_stream_open(all->runner, &query, &stream, NULL) != SL_OK) /* the drains that were refused began nothing */
        all->problem = "a callback may open a stream";
    while (sl_stream_next(stream, SLOW_US))
        ;
    sl_stream_close(stream);
    if (sl_runner_drain(all->runner, 0, NULL) != SL_ERR_STATE) /* this callback has not returned */
        all->problem = "drained too early";
    atomic_store(&all->holds, true);
}

static void test_callbacks_that_submit(void **state)
{
    static calls all;
    sl_query query = text_query("the dog");
    all.runner = open_runner(NULL);
    query.on_output = on_link;
    query.user = &all;
    assert_int_equal(sl_runner_submit(all.runner, &query, NULL, NULL), SL_OK);
    while (!atomic_load(&all.holds))
        pause_ms(1);
    assert_int_equal(sl_runner_close(all.runner), SL_OK); /* waits for the last callback */
    assert_null(all.problem);
    assert_int_equal(all.n_links, N_LINKS);
}

/* ---- cancelling, draining, closing ---- */

static void test_cancel(void **state)
{
    static calls all;
    call one = {&all, 0};
    sl_err err = {SL_OK, ""};
    sl_query query = text_query("the dog");
    answer a = {.n_text = 0};
    all.runner = open_runner(NULL);
    assert_int_equal(sl_runner_cancel(all.runner, 0, &err), SL_ERR_NOT_FOUND);
    assert_int_equal(sl_runner_cancel(all.runner, UINT64_MAX, &err), SL_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "18446744073709551615"));
    query.max_tokens = 110;
    query.on_output = on_output;
    query.user = &one;
    uint64_t id;
    assert_int_equal(sl_runner_submit(all.runner, &query, &id, NULL), SL_OK);
    assert_int_equal(sl_runner_cancel(all.runner, id, &err), SL_OK);
    assert_int_equal(sl_runner_drain(all.runner, SL_FOREVER, NULL), SL_OK);
    assert_int_equal(all.answers[0].n_ends, 1);
    assert_int_equal(all.answers[0].finish, SL_FINISH_CANCELLED);
    assert_int_equal(sl_runner_cancel(all.runner, id, &err), SL_ERR_NOT_FOUND); /* it has ended */
    assert_int_equal(sl_runner_close(all.runner), SL_OK);
    sl_runner *runner = open_runner(NULL);
    query.on_output = NULL;
    sl_stream *stream = open_stream(runner, &query);
    sl_stream_cancel(stream);
    sl_stream_cancel(stream);
    read_to_end(stream, &a);
    assert_int_equal(a.finish, SL_FINISH_CANCELLED);
    sl_stream_close(stream);
    for (int i = 0; i < 20; i++) { /* closed at any moment */
        stream = open_stream(runner, &query);
        if (i % 3 == 1)
            sl_stream_next(stream, SLOW_US);
        sl_stream_close(stream);
    }
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

static void test_drain(void **state)
{
    sl_runner *runner = open_runner(NULL);
    sl_query query = text_query("the dog");
    sl_err err;
    answer a = {.n_text = 0};
    query.max_tokens = 110;
    sl_stream *unread = open_stream(runner, &query), *refused;
    assert_int_equal(sl_runner_drain(runner, 0, &err), SL_ERR_STATE); /* it has hardly begun */
    assert_int_equal(sl_stream_open(runner, &query, &refused, &err), SL_ERR_STATE);
    query.on_output = count_call;
    assert_int_equal(sl_runner_submit(runner, &query, NULL, &err), SL_ERR_STATE);
    assert_int_equal(sl_runner_drain(runner, SLOW_US, &err), SL_OK); /* nobody reads, and it ends all the same */
    assert_int_equal(sl_runner_drain(runner, SL_FOREVER, &err), SL_OK);
    assert_int_equal(sl_runner_drain(runner, 0, &err), SL_OK);
    read_to_end(unread, &a);
    assert_int_equal(a.n, 110);
    sl_stream_close(unread);
    assert_int_equal(sl_runner_close(runner), SL_OK);
}

/* Streams outlive their runner, and that its model. */
static void test_close_in_any_order(void **state)
{
    static calls all;
    call each[N_CALLS];
    sl_llm_options options = sl_llm_options_default();
    sl_llm *model;
    sl_query query = text_query("the dog");
    answer a = {.n_text = 0};
    options.n_threads = 1;
    options.cache = false;
    assert_int_equal(sl_llm_open(TINY_MODEL, &options, &model, NULL), SL_OK);
    assert_int_equal(sl_runner_open(model, NULL, &all.runner, NULL), SL_OK);
    sl_llm_close(model);
    query.max_tokens = 2000; /* more than there will be time for */
    sl_stream *stream = open_stream(all.runner, &query), *other = open_stream(all.runner, &query);
    for (uint32_t i = 0; i < N_CALLS; i++) {
        each[i] = (call){&all, i};
        query.on_output = on_output;
        query.user = &each[i];
        assert_int_equal(sl_runner_submit(all.runner, &query, &all.ids[i], NULL), SL_OK);
    }
    assert_int_equal(sl_runner_close(all.runner), SL_OK);
    for (uint32_t i = 0; i < N_CALLS; i++) {
        assert_null(all.answers[i].problem);
        assert_int_equal(all.answers[i].n_ends, 1);
        assert_true(all.answers[i].last);
    }
    assert_int_equal(all.answers[N_CALLS - 1].finish, SL_FINISH_CANCELLED);
    read_to_end(stream, &a);
    assert_int_equal(a.finish, SL_FINISH_CANCELLED);
    sl_stream_close(other); /* unread */
    sl_stream_close(stream);
}

/* ---- full queues ---- */

static void hold_callback(void *user, const sl_output *out)
{
    calls *all = user;
    atomic_store(&all->holds, true);
    while (atomic_load(&all->hold))
        pause_ms(1);
    add_output(&all->answers[0], out);
}

static void test_full_queues(void **state)
{
    static calls all;
    sl_runner_options o = sl_runner_options_default();
    sl_query query = text_query("the dog");
    sl_runner_statistics statistics = {.size = sizeof statistics};
    answer alone, unread = {.n_text = 0}, read = {.n_text = 0};
    o.event_bytes = 600; /* some tokens */
    o.max_queries = 3;
    all.runner = open_runner(&o);
    query.max_tokens = 4;
    ask(all.runner, &query, &alone);
    query.max_tokens = 100;
    sl_stream *slow = open_stream(all.runner, &query);
    query.on_output = hold_callback;
    query.user = &all;
    atomic_store(&all.hold, true);
    assert_int_equal(sl_runner_submit(all.runner, &query, NULL, NULL), SL_OK);
    query.on_output = NULL;
    query.max_tokens = 4; /* for which there is room, read or not */
    sl_stream *witness = open_stream(all.runner, &query), *refused;
    sl_err err;
    assert_int_equal(sl_stream_open(all.runner, &query, &refused, &err), SL_ERR_LIMIT); /* a fourth one */
    read_to_end(witness, &read);
    assert_same(&alone, &read);
    do {
        pause_ms(1);
        assert_int_equal(sl_runner_get_statistics(all.runner, &statistics, NULL), SL_OK);
    } while (statistics.n_overflow < 2 || !atomic_load(&all.holds));
    assert_int_equal(statistics.n_refused, 1);
    read_to_end(slow, &unread);
    assert_int_equal(unread.finish, SL_FINISH_ERROR);
    assert_int_equal(unread.err.code, SL_ERR_LIMIT);
    assert_in_range(unread.n, 1, 99); /* what found room came first */
    assert_memory_equal(unread.tokens, alone.tokens, (unread.n < 4 ? unread.n : 4) * sizeof *alone.tokens);
    atomic_store(&all.hold, false);
    assert_int_equal(sl_runner_drain(all.runner, SL_FOREVER, NULL), SL_OK);
    assert_int_equal(all.answers[0].finish, SL_FINISH_ERROR);
    assert_int_equal(all.answers[0].err.code, SL_ERR_LIMIT);
    sl_stream_close(slow);
    sl_stream_close(witness);
    assert_int_equal(sl_runner_close(all.runner), SL_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_of_options),
        cmocka_unit_test(test_newer_caller),
        cmocka_unit_test(test_older_caller),
        cmocka_unit_test(test_null),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_stop_string),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_prompt_logprobs),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_warm),
        cmocka_unit_test(test_bad_queries),
        cmocka_unit_test(test_bad_runners),
        cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_two_models),
        cmocka_unit_test(test_callbacks),
        cmocka_unit_test(test_callbacks_that_submit),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_close_in_any_order),
        cmocka_unit_test(test_full_queues),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
