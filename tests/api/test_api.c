/* The public API, of which this sees the header alone: answers by stream and by callback, cancelling, draining, closing in
 * any order, full queues. */
#include "api_kit.h"

#include <math.h>
#include <pthread.h>

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

static void test_choices(void **state)
{
    sl_runner *runner = open_runner(NULL);
    sl_query query = text_query("the quick brown fox");
    answer all, choices[3] = {{.n_text = 0}}, alone;
    const sl_output *out;
    query.n_choices = 3;
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

static void count_warning(void *user, sl_log_level level, const char *line)
{
    *(int *)user += level == SL_LOG_WARN && strstr(line, "32") != NULL;
}

/* Keys and values for two blocks: the context is no longer than they are, for whatever is asked. */
static void test_little_memory(void **state)
{
    sl_runner_options o = sl_runner_options_default();
    sl_query query = text_query("the dog");
    uint32_t many[33] = {3};
    answer a;
    sl_err err = {SL_OK, ""};
    sl_stream *stream;
    int n_warnings = 0;
    o.kv_bytes = info.kv_bytes_per_token * 16 * 2;
    sl_log_set(count_warning, &n_warnings, SL_LOG_WARN);
    sl_runner *runner = open_runner(&o);
    sl_log_set(NULL, NULL, SL_LOG_ERROR);
    assert_int_equal(n_warnings, 1);
    assert_int_equal(sl_runner_context(runner), 32);
    query.max_tokens = 100;
    ask(runner, &query, &a);
    assert_int_equal(a.finish, SL_FINISH_LENGTH);
    assert_int_equal(a.n, 32 - a.n_prompt);
    query.prompt = sl_bytes_of(NULL);
    query.tokens = many;
    for (query.n_tokens = 32; query.n_tokens <= 33; query.n_tokens++) {
        assert_int_equal(sl_stream_open(runner, &query, &stream, &err), SL_ERR_LIMIT);
        assert_non_null(strstr(err.message, "32"));
    }
    query.n_tokens = 31;
    ask(runner, &query, &a);
    assert_int_equal(a.finish, SL_FINISH_LENGTH);
    assert_int_equal(a.n, 1);
    assert_int_equal(sl_runner_close(runner), SL_OK);
    o.kv_bytes = info.kv_bytes_per_token * CONTEXT; /* enough: nothing is shortened */
    runner = open_runner(&o);
    assert_int_equal(sl_runner_context(runner), CONTEXT);
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

/* Slower than its query's tokens; where one stands when the other ends. */
static void on_slow_output(void *user, const sl_output *out)
{
    call *c = user;
    pause_ms(2);
    add_output(&c->all->answers[c->index], out);
    if (out->last && c->all->answers[1 - c->index].n < N_TOKENS - 3)
        c->all->problem = "one waited for the other's end";
}

static call turns[2];

/* Both are submitted while the callback thread is here, so that both have much to tell when it comes to them. */
static void submit_both(void *user, const sl_output *out)
{
    calls *all = user;
    sl_query query = text_query("the dog");
    query.on_output = on_slow_output;
    for (uint32_t i = 0; i < 2 && out->last; i++) {
        turns[i] = (call){all, i};
        query.user = &turns[i];
        if (sl_runner_submit(all->runner, &query, NULL, NULL) != SL_OK)
            all->problem = "refused";
    }
    atomic_store(&all->holds, out->last);
}

static void test_callbacks_take_turns(void **state)
{
    static calls all;
    sl_query query = text_query("the dog");
    all.runner = open_runner(NULL);
    query.max_tokens = 1;
    query.on_output = submit_both;
    query.user = &all;
    assert_int_equal(sl_runner_submit(all.runner, &query, NULL, NULL), SL_OK);
    while (!atomic_load(&all.holds))
        pause_ms(1);
    assert_int_equal(sl_runner_drain(all.runner, SL_FOREVER, NULL), SL_OK);
    assert_int_equal(sl_runner_close(all.runner), SL_OK);
    assert_null(all.problem);
    assert_int_equal(all.answers[0].n, N_TOKENS);
    assert_same(&all.answers[0], &all.answers[1]);
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

/* A query that is to be cancelled may have ended already when this thread gets no CPU for so long: then it is tried
 * again. */
enum { N_TRIES = 50 };

static void test_cancel_by_number(void **state)
{
    static calls all;
    call one = {&all, 0};
    sl_err err = {SL_OK, ""};
    sl_query query = text_query("the dog");
    uint64_t id;
    query.max_tokens = 110;
    query.on_output = on_output;
    query.user = &one;
    for (int i = 0; i < N_TRIES && all.answers[0].finish != SL_FINISH_CANCELLED; i++) {
        memset(&all, 0, sizeof all);
        all.runner = open_runner(NULL);
        assert_int_equal(sl_runner_cancel(all.runner, 0, &err), SL_ERR_NOT_FOUND);
        assert_int_equal(sl_runner_cancel(all.runner, UINT64_MAX, &err), SL_ERR_NOT_FOUND);
        assert_non_null(strstr(err.message, "18446744073709551615"));
        assert_int_equal(sl_runner_submit(all.runner, &query, &id, NULL), SL_OK);
        sl_status status = sl_runner_cancel(all.runner, id, &err);
        assert_true(status == SL_OK || status == SL_ERR_NOT_FOUND);
        assert_int_equal(sl_runner_drain(all.runner, SL_FOREVER, NULL), SL_OK);
        assert_int_equal(all.answers[0].n_ends, 1);
        assert_int_equal(sl_runner_cancel(all.runner, id, &err), SL_ERR_NOT_FOUND); /* it has ended */
        assert_int_equal(sl_runner_close(all.runner), SL_OK);
    }
    assert_int_equal(all.answers[0].finish, SL_FINISH_CANCELLED);
}

static void test_cancel_streams(void **state)
{
    sl_runner *runner = open_runner(NULL);
    sl_query query = text_query("the dog");
    answer a = {.n_text = 0};
    sl_stream *stream;
    query.max_tokens = 110;
    for (int i = 0; i < N_TRIES && a.finish != SL_FINISH_CANCELLED; i++) {
        a = (answer){.n_text = 0};
        stream = open_stream(runner, &query);
        sl_stream_cancel(stream);
        sl_stream_cancel(stream);
        read_to_end(stream, &a);
        sl_stream_close(stream);
    }
    assert_int_equal(a.finish, SL_FINISH_CANCELLED);
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
    sl_runner *runner = NULL;
    sl_query query = text_query("the dog");
    sl_err err;
    answer a = {.n_text = 0};
    sl_stream *unread = NULL, *refused;
    sl_status status = SL_OK;
    query.max_tokens = 110;
    for (int i = 0; i < N_TRIES && status == SL_OK; i++) {
        sl_stream_close(unread);
        assert_int_equal(sl_runner_close(runner), SL_OK);
        runner = open_runner(NULL);
        unread = open_stream(runner, &query);
        status = sl_runner_drain(runner, 0, &err); /* it has hardly begun */
    }
    assert_int_equal(status, SL_ERR_STATE);
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

/* Streams outlive their runner, and that its model. True when the close came before all was done. */
static bool close_in_any_order(void)
{
    static calls all;
    call each[N_CALLS];
    sl_llm_options options = sl_llm_options_default();
    sl_llm *model;
    sl_query query = text_query("the dog");
    answer a = {.n_text = 0};
    memset(&all, 0, sizeof all);
    options.n_threads = 1;
    options.cache = false;
    assert_int_equal(sl_llm_open(TINY_MODEL, &options, &model, NULL), SL_OK);
    assert_int_equal(sl_runner_open(model, NULL, &all.runner, NULL), SL_OK);
    sl_llm_close(model);
    query.max_tokens = 100;
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
    read_to_end(stream, &a);
    sl_stream_close(other); /* unread */
    sl_stream_close(stream);
    return all.answers[N_CALLS - 1].finish == SL_FINISH_CANCELLED && a.finish == SL_FINISH_CANCELLED;
}

static void test_close_in_any_order(void **state)
{
    bool in_time = false;
    for (int i = 0; i < N_TRIES && !in_time; i++)
        in_time = close_in_any_order();
    assert_true(in_time);
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
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_stop_string),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_prompt_logprobs),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_warm),
        cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_two_models),
        cmocka_unit_test(test_callbacks),
        cmocka_unit_test(test_callbacks_take_turns),
        cmocka_unit_test(test_callbacks_that_submit),
        cmocka_unit_test(test_cancel_by_number),
        cmocka_unit_test(test_cancel_streams),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_close_in_any_order),
        cmocka_unit_test(test_full_queues),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
