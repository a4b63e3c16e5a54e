/* What the tests of the public API share: a tiny model, runners on it, answers read to their end. */
#ifndef SL_TESTS_API_KIT_H
#define SL_TESTS_API_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sluice/sluice.h>

#include <stdatomic.h>
#include <time.h>

#define TINY_MODEL SL_TEST_GOLDEN_DIR "/tiny_llama.gguf"

enum { CONTEXT = 128, N_TOKENS = 20, SLOW_US = 60 * 1000000 };

static sl_llm *llm;
static sl_llm_info info;

static inline void pause_ms(int ms)
{
    struct timespec delay = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&delay, NULL);
}

static inline int open_model(void **state)
{
    sl_llm_options options = sl_llm_options_default();
    options.n_threads = 2;
    options.cache = false;
    info.size = sizeof info;
    return sl_llm_open(TINY_MODEL, &options, &llm, NULL) != SL_OK || sl_llm_get_info(llm, &info, NULL) != SL_OK;
}

static inline int close_model(void **state)
{
    sl_llm_close(llm);
    return 0;
}

static inline sl_runner *open_runner(const sl_runner_options *more)
{
    sl_err err = {SL_OK, ""};
    sl_runner *runner;
    sl_runner_options options = more ? *more : sl_runner_options_default();
    options.context = options.context ? options.context : CONTEXT;
    if (sl_runner_open(llm, &options, &runner, &err) != SL_OK)
        fail_msg("%s", err.message);
    return runner;
}

static inline sl_query text_query(const char *text)
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

static inline void add_output(answer *a, const sl_output *out)
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

static inline sl_stream *open_stream(sl_runner *runner, const sl_query *query)
{
    sl_err err = {SL_OK, ""};
    sl_stream *stream;
    if (sl_stream_open(runner, query, &stream, &err) != SL_OK)
        fail_msg("%s", err.message);
    return stream;
}

static inline void read_to_end(sl_stream *stream, answer *a)
{
    const sl_output *out;
    while ((out = sl_stream_next(stream, SLOW_US)) != NULL)
        add_output(a, out);
    assert_true(a->last);
    assert_null(a->problem);
    assert_null(sl_stream_next(stream, SL_FOREVER)); /* it does not wait for what can't come */
}

static inline void ask(sl_runner *runner, const sl_query *query, answer *a)
{
    *a = (answer){.n_text = 0};
    sl_stream *stream = open_stream(runner, query);
    read_to_end(stream, a);
    sl_stream_close(stream);
}

static inline void assert_same(const answer *a, const answer *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->tokens, b->tokens, a->n * sizeof *a->tokens);
    assert_int_equal(a->n_text, b->n_text);
    assert_memory_equal(a->text, b->text, a->n_text);
    assert_int_equal(a->finish, b->finish);
}

/* A callback for queries that must not call it. */
static inline void count_call(void *user, const sl_output *out)
{
    atomic_fetch_add((atomic_int *)user, 1);
}

#endif
