/* The public API misused: wrong sizes of structs, NULL, closed and unknown things, every kind of bad query. Each is a status
 * and a message, and disturbs nothing else. */
#include "api_kit.h"

#include <math.h>

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

/* ---- bad input ---- */

static uint32_t unknown_token, many_tokens[CONTEXT + 1], one_token = 3, end_token = 2;
static sl_message bad_message = {NULL, {"x", 1}};
static const sl_bytes empty_string = {"", 0}, long_string = {TINY_MODEL, 1025}, good_string = {"x", 1};
static const sl_token_list empty_word = {NULL, 0}, endless_word = {&one_token, SIZE_MAX}, one_word = {&one_token, 1};
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
BAD(nothing_left, q->min_tokens = 1; q->stop_tokens = q->allowed_tokens.tokens = &one_token;
    q->n_stop_tokens = q->allowed_tokens.n = 1)
BAD(nothing_left_but_ends, q->min_tokens = 1; q->ignore_end = false; q->allowed_tokens.tokens = &end_token;
    q->allowed_tokens.n = 1)
BAD(all_are_bad_words, q->bad_words = &one_word; q->n_bad_words = 1; q->allowed_tokens.tokens = &one_token;
    q->allowed_tokens.n = 1)
BAD(no_weight, q->tenant_weight = 0)
BAD(weight_is_no_number, q->tenant_weight = NAN)

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
    ARGUMENT(nothing_left),
    ARGUMENT(nothing_left_but_ends),
    ARGUMENT(all_are_bad_words),
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_of_options),
        cmocka_unit_test(test_newer_caller),
        cmocka_unit_test(test_older_caller),
        cmocka_unit_test(test_null),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_bad_queries),
        cmocka_unit_test(test_bad_runners),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
