/* Stop strings: the matcher against a naive search of the whole text on random strings and tokens, refusals, and answers
 * of the engine cut where a search of the uncut answer says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/stop.h"
#include "model_run.h"

static uint32_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

static sl_stop *open_stop(const sl_bytes *strings, size_t n, const sl_token_bytes *table)
{
    sl_stop *stop;
    sl_err err;
    run_require(sl_stop_open(&(sl_bytes_list){strings, n}, table, &stop, &err), &err);
    return stop;
}

/* ---- the matcher alone ---- */

/* What must be visible of a text: up to the first end (at least min_end) of a string, less the longest string that ends
 * there, or else up to the longest beginning of a string at the text's end. */
typedef struct {
    size_t n_visible;
    int matched;
} naive_result;

static naive_result search_naively(const char *text, size_t n, size_t min_end, const sl_bytes *strings,
                                   size_t n_strings)
{
    for (size_t end = min_end + 1; end <= n; end++) {
        naive_result best = {.n_visible = end, .matched = -1};
        for (size_t i = 0; i < n_strings; i++) {
            size_t length = strings[i].n_bytes;
            if (length <= end && end - length < best.n_visible &&
                memcmp(text + end - length, strings[i].bytes, length) == 0)
                best = (naive_result){.n_visible = end - length, .matched = (int)i};
        }
        if (best.matched >= 0)
            return best;
    }
    naive_result open = {.n_visible = n, .matched = -1};
    for (size_t i = 0; i < n_strings; i++)
        for (size_t k = 1; k < strings[i].n_bytes && k <= n; k++)
            if (n - k < open.n_visible && memcmp(text + n - k, strings[i].bytes, k) == 0)
                open.n_visible = n - k;
    return open;
}

enum { N_TOKENS = 40, TOKEN_BYTES = 200, TEXT_BYTES = 4096 };

/* A table of tokens of 0 to 6 letters out of n_letters. */
static void make_table(uint64_t *seed, uint32_t n_letters, sl_token_bytes *table, uint32_t *offsets, char *bytes)
{
    *table = (sl_token_bytes){.n_tokens = N_TOKENS, .offsets = offsets, .bytes = bytes};
    uint32_t n = 0;
    for (uint32_t i = 0; i < N_TOKENS; i++) {
        offsets[i] = n;
        uint32_t length = i == 0 ? 0 : next_random(seed) % (i < 30 ? 4 : 7);
        for (uint32_t k = 0; k < length; k++)
            bytes[n++] = (char)(250 + next_random(seed) % n_letters);
        table->longest = SL_MAX(table->longest, length);
    }
    offsets[N_TOKENS] = n;
    assert_true(n <= TOKEN_BYTES);
}

/* Pushes random tokens and compares after each. Returns whether a string was met. */
static bool check_stream(uint64_t *seed, sl_stop *stop, const sl_token_bytes *table, const sl_bytes *strings,
                         size_t n_strings)
{
    char text[TEXT_BYTES], shown[TEXT_BYTES];
    size_t n = 0, n_shown = 0, min_end = 0;
    uint32_t n_tokens = next_random(seed) % 120, min_tokens = next_random(seed) % 3 ? 0 : next_random(seed) % 20;
    for (uint32_t t = 0; t < n_tokens; t++) {
        uint32_t token = next_random(seed) % (N_TOKENS + 1); /* the last one is outside the table: no bytes */
        sl_bytes piece = sl_token_bytes_at(table, token), visible;
        memcpy(text + n, piece.bytes, piece.n_bytes);
        n += piece.n_bytes;
        if (t < min_tokens)
            min_end = n;
        bool stopped = sl_stop_push(stop, token, t >= min_tokens, &visible);
        memcpy(shown + n_shown, visible.bytes, visible.n_bytes);
        n_shown += visible.n_bytes;
        naive_result want = search_naively(text, n, min_end, strings, n_strings);
        assert_int_equal(stopped, want.matched >= 0);
        assert_int_equal(n_shown, want.n_visible);
        assert_memory_equal(shown, text, n_shown);
        if (stopped) {
            /* of equal strings the first counts */
            sl_bytes a = strings[want.matched], b = strings[sl_stop_matched(stop)];
            assert_int_equal(a.n_bytes, b.n_bytes);
            assert_memory_equal(a.bytes, b.bytes, a.n_bytes);
            sl_stop_finish(stop, &visible);
            assert_int_equal(visible.n_bytes, 0);
            return true;
        }
    }
    assert_int_equal(sl_stop_matched(stop), -1);
    sl_bytes rest;
    sl_stop_finish(stop, &rest);
    memcpy(shown + n_shown, rest.bytes, rest.n_bytes);
    assert_int_equal(n_shown + rest.n_bytes, n);
    assert_memory_equal(shown, text, n);
    sl_stop_finish(stop, &rest);
    assert_int_equal(rest.n_bytes, 0);
    return false;
}

static void test_against_naive(void **state)
{
    (void)state;
    enum { N_ROUNDS = 20000 };
    uint64_t seed = 1;
    uint32_t n_met = 0, n_missed = 0;
    for (int round = 0; round < N_ROUNDS; round++) {
        sl_token_bytes table;
        uint32_t offsets[N_TOKENS + 1], n_letters = 1 + next_random(&seed) % 4;
        char bytes[TOKEN_BYTES], letters[SL_MAX_STOP_STRINGS][20];
        make_table(&seed, n_letters, &table, offsets, bytes);
        sl_bytes strings[SL_MAX_STOP_STRINGS];
        size_t n_strings = next_random(&seed) % (SL_MAX_STOP_STRINGS + 1);
        for (size_t i = 0; i < n_strings; i++) {
            strings[i] = (sl_bytes){letters[i], 1 + next_random(&seed) % (round % 2 ? 20 : 6)};
            for (size_t k = 0; k < strings[i].n_bytes; k++)
                letters[i][k] = (char)(250 + next_random(&seed) % n_letters);
        }
        sl_stop *stop = open_stop(strings, n_strings, &table), *clone;
        run_require(sl_stop_clone(stop, &clone, NULL), NULL);
        sl_stop *both[] = {stop, clone};
        for (int i = 0; i < 2; i++) {
            bool met = check_stream(&seed, both[i], &table, strings, n_strings);
            n_met += met;
            n_missed += !met;
            sl_stop_close(both[i]);
        }
    }
    assert_true(n_met > N_ROUNDS / 4 && n_missed > N_ROUNDS / 4);
}

/* Several strings that begin alike, end together, lie inside each other. */
static void test_which_one(void **state)
{
    (void)state;
    static const char bytes[] = "abcdx";
    static const uint32_t offsets[] = {0, 1, 2, 3, 4, 5};
    const sl_token_bytes table = {.n_tokens = 5, .longest = 1, .offsets = offsets, .bytes = bytes};
    static const struct {
        const char *strings[3], *text, *shown;
        int matched;
    } cases[] = {
        {{"bcd", "c", "abcdx"}, "xabcdx", "xab", 1},      /* the earliest end, though another began before */
        {{"d", "abcd", "cd"}, "xabcd", "x", 1},           /* of equal ends the longest */
        {{"abcdx", "bd", "aac"}, "aabcdc", "aabcdc", -1}, /* all begun, none met */
        {{"aab", "x", "d"}, "aaab", "a", 0},              /* the fallback into the string itself */
    };
    for (size_t c = 0; c < SL_COUNTOF(cases); c++) {
        sl_bytes strings[3];
        for (size_t i = 0; i < 3; i++)
            strings[i] = (sl_bytes){cases[c].strings[i], strlen(cases[c].strings[i])};
        sl_stop *stop = open_stop(strings, 3, &table);
        char shown[16] = "";
        sl_bytes visible;
        bool met = false;
        for (const char *at = cases[c].text; *at && !met; at++) {
            met = sl_stop_push(stop, (uint32_t)(strchr(bytes, *at) - bytes), true, &visible);
            strncat(shown, visible.bytes, visible.n_bytes);
        }
        sl_stop_finish(stop, &visible);
        strncat(shown, visible.bytes, visible.n_bytes);
        assert_string_equal(shown, cases[c].shown);
        assert_int_equal(sl_stop_matched(stop), cases[c].matched);
        sl_stop_close(stop);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    static char longest[SL_MAX_STOP_BYTES + 1];
    static const uint32_t offsets[] = {0, 1};
    const sl_token_bytes table = {.n_tokens = 1, .longest = 1, .offsets = offsets, .bytes = longest};
    sl_bytes strings[SL_MAX_STOP_STRINGS + 1];
    for (size_t i = 0; i < SL_COUNTOF(strings); i++)
        strings[i] = (sl_bytes){longest, SL_MAX_STOP_BYTES};
    sl_stop *stop;
    sl_err err;
    sl_bytes_list list = {strings, SL_MAX_STOP_STRINGS + 1};
    assert_int_equal(sl_stop_open(&list, &table, &stop, &err), SL_ERR_LIMIT);
    list.n--;
    assert_int_equal(sl_stop_open(&list, NULL, &stop, &err), SL_ERR_ARGUMENT);
    run_require(sl_stop_open(&list, &table, &stop, &err), &err);
    sl_bytes visible;
    for (int i = 1; i < SL_MAX_STOP_BYTES; i++) {
        assert_false(sl_stop_push(stop, 0, true, &visible));
        assert_int_equal(visible.n_bytes, 0);
    }
    assert_true(sl_stop_push(stop, 0, true, &visible));
    sl_stop_close(stop);
    strings[3].n_bytes++;
    assert_int_equal(sl_stop_open(&list, &table, &stop, &err), SL_ERR_LIMIT);
    strings[3].n_bytes = 0;
    assert_int_equal(sl_stop_open(&list, &table, &stop, &err), SL_ERR_ARGUMENT);
    run_require(sl_stop_open(&(sl_bytes_list){0}, NULL, &stop, &err), &err);
    assert_null(stop);
    assert_false(sl_stop_push(stop, 0, true, &visible));
    assert_int_equal(visible.n_bytes, 0);
    sl_stop_close(stop);
}

/* ---- in the engine ---- */

enum { MAX_TOKENS = 40, PROMPT = 12 };

typedef struct {
    char text[1024];
    size_t n_bytes, bytes_after[MAX_TOKENS]; /* visible after each token */
    uint32_t tokens[MAX_TOKENS], n;
    sl_finish finish;
    int32_t stop_string;
} answer;

static void on_event(void *user, const sl_event *event)
{
    answer *a = user;
    memcpy(a->text + a->n_bytes, event->bytes, event->n_bytes);
    a->n_bytes += event->n_bytes;
    if (event->kind == SL_EVENT_TOKEN) {
        a->bytes_after[a->n] = a->n_bytes;
        a->tokens[a->n++] = event->sampled.token;
        return;
    }
    a->finish = event->finish;
    a->stop_string = event->stop_string;
}

static sl_request make_request(answer *a, uint64_t seed, const sl_bytes *strings, size_t n_strings)
{
    static uint32_t prompt[PROMPT];
    for (uint32_t i = 0; i < PROMPT; i++)
        prompt[i] = 5 + 7 * i;
    *a = (answer){0};
    sl_request request = {.prompt = prompt,
                          .n_prompt = PROMPT,
                          .max_tokens = MAX_TOKENS,
                          .stop_strings = {strings, n_strings},
                          .sampling = sl_sample_params_default(),
                          .on_event = on_event,
                          .user = a};
    request.sampling.temperature = 1;
    request.sampling.seed = seed;
    return request;
}

static void answer_one(run_model *run, const sl_request *request)
{
    sl_err err;
    run_require(sl_engine_submit(run->engine, request, NULL, &err), &err);
    run_until_idle(run);
}

/* A string taken from inside the uncut answer (with a decoy that never comes to its end) cuts it there. */
static void check_cut(run_model *run, uint64_t seed, const answer *uncut, size_t begin, size_t length)
{
    char decoy[12];
    memcpy(decoy, uncut->text + begin, 10);
    decoy[10] = decoy[11] = (char)0xff; /* no UTF-8, and no byte of this vocabulary's text in a row */
    const sl_bytes strings[] = {{decoy, sizeof decoy}, {uncut->text + begin, length}};
    naive_result want = search_naively(uncut->text, uncut->n_bytes, 0, strings, 2);
    answer cut;
    sl_request request = make_request(&cut, seed, strings, 2);
    answer_one(run, &request);
    assert_int_equal(cut.finish, SL_FINISH_STOP);
    assert_int_equal(cut.stop_string, want.matched);
    assert_int_equal(cut.n_bytes, want.n_visible);
    assert_memory_equal(cut.text, uncut->text, cut.n_bytes);
    assert_memory_equal(cut.tokens, uncut->tokens, cut.n * sizeof *cut.tokens);
    assert_true(uncut->bytes_after[cut.n - 1] >= want.n_visible + strings[want.matched].n_bytes);
    assert_true(cut.n == 1 || uncut->bytes_after[cut.n - 2] < want.n_visible + strings[want.matched].n_bytes);
    /* ended by a token instead: what was held back comes with the last event */
    request = make_request(&cut, seed, strings, 1);
    uint32_t last = 0;
    while (uncut->bytes_after[last] < begin + 5)
        last++;
    request.stop_tokens = &uncut->tokens[last];
    request.n_stop_tokens = 1;
    answer_one(run, &request);
    assert_int_equal(cut.finish, SL_FINISH_STOP);
    assert_int_equal(cut.stop_string, -1);
    assert_int_equal(cut.n_bytes, cut.n ? uncut->bytes_after[cut.n - 1] : 0);
    assert_memory_equal(cut.text, uncut->text, cut.n_bytes);
}

static void test_engine(void **state)
{
    (void)state;
    static const char *const models[] = {SL_TEST_GOLDEN_DIR "/tiny_llama.gguf", SL_TEST_GOLDEN_DIR "/tiny_gemma3.gguf"};
    for (size_t m = 0; m < SL_COUNTOF(models); m++) {
        run_setup setup = {.path = models[m], .level = sl_level_best(), .context = 64, .with_bytes = true};
        run_model run = run_open(&setup);
        for (uint64_t seed = 0; seed < 4; seed++) {
            answer uncut;
            sl_request request = make_request(&uncut, seed, NULL, 0);
            answer_one(&run, &request);
            assert_int_equal(uncut.finish, SL_FINISH_LENGTH);
            assert_int_equal(uncut.n, MAX_TOKENS);
            char *text;
            size_t n_bytes;
            assert_int_equal(
                sl_detokenize(sl_bundle_vocab(run.bundle), uncut.tokens, uncut.n, 0, &text, &n_bytes, NULL), SL_OK);
            assert_int_equal(uncut.n_bytes, n_bytes);
            assert_memory_equal(uncut.text, text, n_bytes);
            free(text);
            assert_true(n_bytes > 30);
            for (size_t begin = 0; begin + 12 < n_bytes; begin += 3)
                check_cut(&run, seed, &uncut, begin, 1 + begin % 11);
        }
        run_close(&run);
        setup.with_bytes = false;
        run = run_open(&setup);
        answer a;
        const sl_bytes string = {"x", 1};
        sl_request request = make_request(&a, 1, &string, 1);
        sl_err err;
        assert_int_equal(sl_engine_submit(run.engine, &request, NULL, &err), SL_ERR_ARGUMENT);
        request.stop_strings.n = 0;
        answer_one(&run, &request);
        assert_int_equal(a.n_bytes, 0);
        run_close(&run);
    }
}

/* The table has what the detokenizer writes inside a text. */
static void test_table(void **state)
{
    (void)state;
    static const char *const models[] = {SL_TEST_GOLDEN_DIR "/tiny_llama.gguf", SL_TEST_GOLDEN_DIR "/tiny_gemma3.gguf"};
    for (size_t m = 0; m < SL_COUNTOF(models); m++) {
        sl_bundle_options options = sl_bundle_options_default();
        options.flags = SL_BUNDLE_TEXT_ONLY;
        sl_bundle *bundle;
        sl_err err;
        run_require(sl_bundle_open(models[m], &options, &bundle, &err), &err);
        const sl_token_bytes *table = sl_bundle_token_bytes(bundle);
        const sl_vocab *vocab = sl_bundle_vocab(bundle);
        assert_int_equal(table->n_tokens, sl_vocab_n_tokens(vocab));
        uint32_t n_single = 0, longest = 0;
        for (uint32_t i = 0; i < table->n_tokens; i++) {
            char *text;
            size_t n_bytes;
            assert_int_equal(sl_detokenize(vocab, &i, 1, 0, &text, &n_bytes, NULL), SL_OK);
            sl_bytes got = sl_token_bytes_at(table, i);
            assert_int_equal(got.n_bytes, n_bytes);
            assert_memory_equal(got.bytes, text, n_bytes);
            assert_true(sl_vocab_type(vocab, i) != SL_TOKEN_CONTROL || n_bytes == 0);
            n_single += n_bytes == 1;
            longest = SL_MAX(longest, (uint32_t)n_bytes);
            free(text);
        }
        assert_true(n_single >= 256);
        assert_int_equal(longest, table->longest);
        assert_int_equal(sl_token_bytes_at(table, table->n_tokens).n_bytes, 0);
        sl_bundle_close(bundle);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_naive), cmocka_unit_test(test_which_one), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_table),         cmocka_unit_test(test_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
