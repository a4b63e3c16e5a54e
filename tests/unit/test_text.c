/* text: tokenizer vectors of real vocabularies, round trips of odd bytes, forged control tokens, detokenizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "base/utf8.h"
#include "text/detok.h"
#include "vocab_file.h"

#define MEBI ((size_t)1 << 20)

static sl_vocab *open_vocab(const char *name)
{
    sl_arena arena;
    sl_arena_init(&arena, 1 << 20);
    char *file;
    sl_vocab *vocab;
    sl_err err = {0};
    sl_vocab_desc desc = read_vocab_desc(name, &arena, &file);
    if (sl_vocab_open(&desc, &vocab, &err) != SL_OK)
        fail_msg("%s: %s", name, err.message);
    sl_arena_reset(&arena);
    free(file);
    return vocab;
}

static sl_tokens tokenize(const sl_vocab *vocab, const char *bytes, size_t n_bytes, bool trusted, uint32_t flags)
{
    sl_tokens tokens = {0};
    sl_err err = {0};
    sl_span span = {bytes, n_bytes, trusted};
    if (sl_tokenize(vocab, &span, 1, flags, &tokens, &err) != SL_OK)
        fail_msg("%s", err.message);
    return tokens;
}

/* Compares the tokens of one input with a line of numbers. */
static void check_vector(const char *name, const sl_vocab *vocab, const char *text, size_t n_bytes, const char *line)
{
    sl_tokens tokens = tokenize(vocab, text, n_bytes, true, 0);
    size_t n = 0;
    for (char *end;; line = end, n++) {
        while (*line == ' ')
            line++;
        if (*line == '\n' || *line == '\0')
            break;
        unsigned long id = strtoul(line, &end, 10);
        if (n >= tokens.n || tokens.ids[n] != id)
            fail_msg("%s: token %zu of \"%.*s\" is %ld, should be %lu", name, n, (int)n_bytes, text,
                     n < tokens.n ? (long)tokens.ids[n] : -1L, id);
    }
    if (n != tokens.n)
        fail_msg("%s: %zu tokens instead of %zu for \"%.*s\"", name, tokens.n, n, (int)n_bytes, text);
    sl_tokens_free(&tokens);
}

static void check_vectors(const char *name, const sl_vocab *vocab, size_t n_expected)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char path[128];
    size_t n_in, n_out, n = 0;
    snprintf(path, sizeof path, "vocab/%s.inp", name);
    char *in = read_golden(path, &n_in);
    snprintf(path, sizeof path, "vocab/%s.out", name);
    char *out = read_golden(path, &n_out);
    const char *line = out, *text = in;
    while (*line) {
        const char *end = strstr(text, separator);
        check_vector(name, vocab, text, end ? (size_t)(end - text) : strlen(text), line);
        n++;
        line += strcspn(line, "\n");
        line += *line == '\n';
        if (!end)
            break;
        text = end + strlen(separator);
    }
    assert_int_equal(n, n_expected);
    assert_int_equal(*line, 0);
    free(in);
    free(out);
}

static void check_round_trip(const char *name, const sl_vocab *vocab, const char *what, const char *bytes,
                             size_t n_bytes)
{
    char *back;
    size_t n_back;
    sl_err err = {0};
    clock_t begin = clock();
    sl_tokens tokens = tokenize(vocab, bytes, n_bytes, false, 0);
    double took = (double)(clock() - begin) / CLOCKS_PER_SEC;
    print_message("%s: %zu bytes of %s in %.3f s of CPU time\n", name, n_bytes, what, took);
    if (took > 10) /* anything quadratic takes minutes; the figure itself is printed, not judged */
        fail_msg("%s: %zu bytes of %s took %.1f s", name, n_bytes, what, took);
    assert_int_equal(sl_detokenize(vocab, tokens.ids, tokens.n, 0, &back, &n_back, &err), SL_OK);
    if (n_back != n_bytes || memcmp(back, bytes, n_bytes) != 0)
        fail_msg("%s: %s comes back different", name, what);
    free(back);
    sl_tokens_free(&tokens);
}

/* True when each byte has a token of its own; some published BPE vocabularies lack a few. */
static void known_bytes(const sl_vocab *vocab, bool known[256])
{
    memset(known, 0, 256);
    for (uint32_t id = 0; id < sl_vocab_n_tokens(vocab); id++) {
        sl_bytes bytes = sl_vocab_bytes(vocab, id);
        if (bytes.n_bytes == 1 && sl_vocab_type(vocab, id) != SL_TOKEN_USER_DEFINED)
            known[(unsigned char)bytes.bytes[0]] = true;
    }
}

static void fill_with(char *bytes, size_t n_bytes, const char *unit)
{
    size_t n_unit = strlen(unit);
    for (size_t i = 0; i < n_bytes; i++)
        bytes[i] = unit[i % n_unit];
}

static void check_round_trips(const char *name, const sl_vocab *vocab)
{
    char *bytes = malloc(MEBI);
    bool known[256];
    uint32_t random = 12345;
    assert_non_null(bytes);
    known_bytes(vocab, known);
    /* The first three at full size, the rest at a size where a quadratic step would still take seconds. */
    static const char *const units[] = {"a",
                                        "\xf0\x9f\xa6\x99",
                                        " ",
                                        "Z",
                                        "\n",
                                        "7",
                                        "!",
                                        "\xf0\x9f\x91\xa9\xe2\x80\x8d",
                                        "\xe4\xb8\x80",
                                        "\xe4",
                                        "\x80",
                                        " \t",
                                        "ab ",
                                        "\xd7\x90"};
    for (size_t i = 0; i < SL_COUNTOF(units); i++) {
        size_t n_bytes = i < 3 ? MEBI : MEBI / 8;
        n_bytes -= n_bytes % strlen(units[i]);
        fill_with(bytes, n_bytes, units[i]);
        check_round_trip(name, vocab, units[i], bytes, n_bytes);
    }
    for (size_t i = 0; i < MEBI;) {
        random = random * 1664525 + 1013904223;
        if (known[random >> 24])
            bytes[i++] = (char)(random >> 24);
    }
    check_round_trip(name, vocab, "random bytes", bytes, MEBI);
    fill_with(bytes, MEBI, " ");
    memcpy(bytes + MEBI - 3, "\xe4\xb8\x80", 3);
    check_round_trip(name, vocab, "spaces before a character", bytes, MEBI);
    free(bytes);
}

/* A control token's text in untrusted bytes is text; in trusted bytes it is the token. */
static void check_forging(const char *name, const sl_vocab *vocab)
{
    for (uint32_t id = 0; id < sl_vocab_n_tokens(vocab); id++) {
        sl_bytes text = sl_vocab_stored_text(vocab, id);
        if (sl_vocab_type(vocab, id) != SL_TOKEN_CONTROL || text.n_bytes == 0)
            continue;
        sl_tokens tokens = tokenize(vocab, text.bytes, text.n_bytes, false, 0);
        assert_true(tokens.n > 0);
        for (size_t i = 0; i < tokens.n; i++)
            if (sl_vocab_type(vocab, tokens.ids[i]) == SL_TOKEN_CONTROL)
                fail_msg("%s: untrusted \"%.*s\" becomes control token %u", name, (int)text.n_bytes, text.bytes,
                         tokens.ids[i]);
        sl_tokens_free(&tokens);
        tokens = tokenize(vocab, text.bytes, text.n_bytes, true, 0);
        assert_int_equal(tokens.n, 1);
        assert_int_equal(tokens.ids[0], id);
        sl_tokens_free(&tokens);
    }
}

static void check_vocab(const char *name, size_t n_vectors)
{
    sl_vocab *vocab = open_vocab(name);
    check_vectors(name, vocab, n_vectors);
    check_forging(name, vocab);
    check_round_trips(name, vocab);
    sl_vocab_close(vocab);
}

#define VOCAB_TEST(function, name, n_vectors)                                                                          \
    static void function(void **state)                                                                                 \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        check_vocab(name, n_vectors);                                                                                  \
    }
VOCAB_TEST(test_gpt_2, "gpt-2", 46)
VOCAB_TEST(test_smollm2, "smollm2", 12)
VOCAB_TEST(test_llama_bpe, "llama-bpe", 46)
VOCAB_TEST(test_qwen2, "qwen2", 46)
VOCAB_TEST(test_deepseek_llm, "deepseek-llm", 46)
VOCAB_TEST(test_falcon, "falcon", 46)
VOCAB_TEST(test_llama_spm, "llama-spm", 46)
VOCAB_TEST(test_phi_3, "phi-3", 46)

static uint32_t find(const sl_vocab *vocab, const char *text)
{
    int64_t id = sl_vocab_find(vocab, (sl_bytes){text, strlen(text)});
    assert_true(id >= 0);
    return (uint32_t)id;
}

/* Spans: control tokens only in trusted ones, no match across a border, ordinary neighbours as one text. */
static void test_spans(void **state)
{
    (void)state;
    sl_vocab *vocab = open_vocab("smollm2");
    uint32_t start = find(vocab, "<|im_start|>"), end = find(vocab, "<|im_end|>");
    sl_span spans[] = {{"<|im_start|>us", 14, true},
                       {"er\nx<|im_end|>", 14, false},
                       {"<|im_", 5, true},
                       {"end|>", 5, true},
                       {"<|im_end|>", 10, true}};
    sl_tokens tokens = {0};
    sl_err err = {0};
    assert_int_equal(sl_tokenize(vocab, spans, SL_COUNTOF(spans), 0, &tokens, &err), SL_OK);
    assert_int_equal(tokens.ids[0], start);
    assert_int_equal(tokens.ids[1], find(vocab, "user"));
    assert_int_equal(tokens.ids[tokens.n - 1], end);
    for (size_t i = 1; i + 1 < tokens.n; i++)
        assert_int_not_equal(sl_vocab_type(vocab, tokens.ids[i]), SL_TOKEN_CONTROL);
    assert_true(sl_vocab_is_end(vocab, end));
    assert_false(sl_vocab_is_end(vocab, start));
    assert_false(sl_vocab_is_end(vocab, UINT32_MAX));
    char *text;
    size_t n_bytes;
    assert_int_equal(sl_detokenize(vocab, tokens.ids, tokens.n, 0, &text, &n_bytes, &err), SL_OK);
    assert_string_equal(text, "user\nx<|im_end|><|im_end|>");
    free(text);
    assert_int_equal(sl_detokenize(vocab, tokens.ids, tokens.n, SL_DETOK_SPECIAL, &text, &n_bytes, &err), SL_OK);
    assert_string_equal(text, "<|im_start|>user\nx<|im_end|><|im_end|><|im_end|>");
    free(text);
    sl_tokens_free(&tokens);
    sl_vocab_close(vocab);
}

/* A user-defined token's text that a span border cuts is ordinary text, and comes back with the space behind it. */
static void test_cut_user_defined(void **state)
{
    (void)state;
    const sl_bytes tokens[] = {{"\n\n", 2}, {"\n", 1}, {"\xe2\x96\x81", 3}, {"a", 1}};
    const int32_t types[] = {SL_TOKEN_USER_DEFINED, SL_TOKEN_NORMAL, SL_TOKEN_NORMAL, SL_TOKEN_NORMAL};
    const sl_vocab_desc desc = {.kind = SL_VOCAB_SPM,
                                .n_tokens = 4,
                                .tokens = tokens,
                                .types = types,
                                .bos = -1,
                                .eos = -1,
                                .eot = -1,
                                .unk = -1,
                                .pad = -1,
                                .add_space_prefix = true};
    sl_span cut[] = {{"\n", 1, false}, {"\n a", 3, true}}, whole = {"\n\n a", 4, false};
    sl_vocab *vocab;
    sl_tokens ids = {0};
    char *text;
    size_t n_bytes;
    assert_int_equal(sl_vocab_open(&desc, &vocab, NULL), SL_OK);
    assert_int_equal(sl_tokenize(vocab, cut, 2, 0, &ids, NULL), SL_OK);
    assert_int_equal(ids.n, 5); /* space prefix, two line ends, space, letter */
    assert_int_equal(sl_detokenize(vocab, ids.ids, ids.n, 0, &text, &n_bytes, NULL), SL_OK);
    assert_string_equal(text, "\n\n a");
    free(text);
    ids.n = 0;
    assert_int_equal(sl_tokenize(vocab, &whole, 1, 0, &ids, NULL), SL_OK);
    assert_int_equal(ids.n, 4);
    assert_int_equal(ids.ids[0], 0);
    assert_int_equal(sl_detokenize(vocab, ids.ids, ids.n, 0, &text, &n_bytes, NULL), SL_OK);
    assert_string_equal(text, "\n\n a");
    free(text);
    sl_tokens_free(&ids);
    sl_vocab_close(vocab);
}

/* BOS is added once, whether or not the text brings it; untrusted text cannot bring it. */
static void test_bos(void **state)
{
    (void)state;
    sl_vocab *vocab = open_vocab("llama-spm");
    uint32_t bos = (uint32_t)sl_vocab_bos(vocab);
    sl_tokens tokens = tokenize(vocab, "<s>Hello", 8, true, SL_TOKENIZE_ADD_SPECIAL);
    assert_int_equal(tokens.n, 2);
    assert_int_equal(tokens.ids[0], bos);
    assert_int_equal(tokens.ids[1], find(vocab, "\xe2\x96\x81Hello"));
    sl_tokens_free(&tokens);
    tokens = tokenize(vocab, "", 0, true, SL_TOKENIZE_ADD_SPECIAL);
    assert_int_equal(tokens.n, 1);
    assert_int_equal(tokens.ids[0], bos);
    sl_tokens_free(&tokens);
    tokens = tokenize(vocab, "<s>", 3, false, SL_TOKENIZE_ADD_SPECIAL);
    assert_int_equal(tokens.ids[0], bos);
    for (size_t i = 1; i < tokens.n; i++)
        assert_int_not_equal(tokens.ids[i], bos);
    sl_tokens_free(&tokens);
    sl_vocab_close(vocab);
    assert_true(sl_vocab_default_add_bos(SL_VOCAB_SPM, (sl_bytes){"", 0}));
    assert_true(sl_vocab_default_add_bos(SL_VOCAB_BPE, (sl_bytes){"llama-bpe", 9}));
    assert_false(sl_vocab_default_add_bos(SL_VOCAB_BPE, (sl_bytes){"gpt-2", 5}));
}

/* Bytes a vocabulary has no token for become U+FFFD, and nothing else changes. */
static void test_missing_bytes(void **state)
{
    (void)state;
    sl_vocab *vocab = open_vocab("smollm2");
    sl_tokens tokens = tokenize(vocab, "a\x04z\xff", 4, false, 0);
    sl_err err = {0};
    char *text;
    size_t n_bytes;
    assert_int_equal(sl_detokenize(vocab, tokens.ids, tokens.n, 0, &text, &n_bytes, &err), SL_OK);
    assert_string_equal(text, "a\xef\xbf\xbdz\xef\xbf\xbd");
    free(text);
    sl_tokens_free(&tokens);
    sl_vocab_close(vocab);
}

/* Pushes the tokens, or their bytes, one by one: each piece is whole characters, and together they are the text. */
static void check_stream_of(const sl_vocab *vocab, const char *in, size_t n_in, bool by_bytes, const char *expected,
                            size_t n_expected)
{
    sl_tokens tokens = tokenize(vocab, in, n_in, false, 0);
    sl_detok detok;
    sl_bytes piece;
    sl_err err = {0};
    char *all = malloc(3 * n_in + 4);
    size_t n = 0;
    assert_non_null(all);
    sl_detok_init(&detok, vocab, 0);
    for (size_t i = 0; i <= tokens.n; i++) {
        if (i < tokens.n && by_bytes)
            assert_int_equal(sl_detok_push_bytes(&detok, sl_vocab_bytes(vocab, tokens.ids[i]), &piece, &err), SL_OK);
        else if (i < tokens.n)
            assert_int_equal(sl_detok_push(&detok, tokens.ids[i], &piece, &err), SL_OK);
        else
            assert_int_equal(sl_detok_finish(&detok, &piece, &err), SL_OK);
        assert_true(sl_utf8_valid(piece.bytes, piece.n_bytes));
        assert_true(n + piece.n_bytes <= 3 * n_in + 3);
        memcpy(all + n, piece.bytes, piece.n_bytes);
        n += piece.n_bytes;
    }
    assert_int_equal(n, n_expected);
    assert_memory_equal(all, expected, n);
    sl_detok_free(&detok);
    sl_tokens_free(&tokens);
    free(all);
}

static void check_stream(const sl_vocab *vocab, const char *in, size_t n_in, const char *expected, size_t n_expected)
{
    check_stream_of(vocab, in, n_in, false, expected, n_expected);
    check_stream_of(vocab, in, n_in, true, expected, n_expected);
}

static void test_stream(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt-2", "llama-spm"};
    static const char good[] =
        " \xf0\x9f\xa6\x99 na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac\n \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x9a\x80";
    /* Expected: what Python's bytes.decode("utf-8", "replace") gives. */
    static const char bad[] = "a\xe2\x96z\xff\xc0\x80\xf0\x9f\xa6!\xed\xa0\x80\xf0\x9f";
    static const char bad_out[] = "a\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd!"
                                  "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd";
    for (size_t i = 0; i < SL_COUNTOF(names); i++) {
        sl_vocab *vocab = open_vocab(names[i]);
        check_stream(vocab, good, strlen(good), good, strlen(good));
        check_stream(vocab, bad, strlen(bad), bad_out, strlen(bad_out));
        sl_vocab_close(vocab);
    }
}

static void check_open_fails(sl_vocab_desc desc, sl_status status, const char *word)
{
    sl_vocab *vocab;
    sl_err err = {0};
    assert_int_equal(sl_vocab_open(&desc, &vocab, &err), status);
    assert_null(vocab);
    if (!strstr(err.message, word))
        fail_msg("\"%s\" does not mention %s", err.message, word);
}

static void test_open_errors(void **state)
{
    (void)state;
    const sl_bytes tokens[] = {{"a", 1}, {"b", 1}, {"ab", 2}};
    const sl_bytes merges[] = {{"a b", 3}}, bad_merges[] = {{"ab", 2}};
    const int32_t types[] = {1, 1, 7};
    sl_vocab_desc good = {.kind = SL_VOCAB_BPE,
                          .pre = {"gpt-2", 5},
                          .n_tokens = 3,
                          .tokens = tokens,
                          .n_merges = 1,
                          .merges = merges,
                          .bos = -1,
                          .eos = -1,
                          .eot = -1,
                          .unk = -1,
                          .pad = -1};
    sl_vocab *vocab;
    assert_int_equal(sl_vocab_open(&good, &vocab, NULL), SL_OK);
    sl_tokens ids = tokenize(vocab, "abba", 4, false, 0);
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.ids[0], 2);
    sl_tokens_free(&ids);
    assert_int_equal(sl_vocab_bytes(vocab, 3).n_bytes, 0);
    sl_vocab_close(vocab);
    sl_vocab_desc bad = good;
    bad.pre = (sl_bytes){"no-such", 7};
    check_open_fails(bad, SL_ERR_UNSUPPORTED, "no-such");
    bad = good;
    bad.merges = bad_merges;
    check_open_fails(bad, SL_ERR_FORMAT, "merge 0");
    bad = good;
    bad.types = types;
    check_open_fails(bad, SL_ERR_FORMAT, "token 2");
    bad = good;
    bad.eos = 3;
    check_open_fails(bad, SL_ERR_FORMAT, "eos");
    bad = good;
    bad.n_tokens = 0;
    check_open_fails(bad, SL_ERR_FORMAT, "no tokens");
    bad = good;
    bad.n_tokens = UINT32_MAX;
    check_open_fails(bad, SL_ERR_LIMIT, "too many");
}

/* Every name in the table compiles and survives a little of everything. */
static void test_pre_tokenizers(void **state)
{
    (void)state;
    static const char *const names[] = {
        "gpt-2",      "llama-bpe",  "llama3",    "smollm",       "qwen2",          "qwen35",      "starcoder", "refact",
        "command-r",  "falcon",     "mpt",       "deepseek-llm", "deepseek-coder", "deepseek-v3", "default",   "gpt-4o",
        "llama4",     "olmo",       "dbrx",      "tekken",       "stablelm2",      "chatglm-bpe", "bloom",     "viking",
        "bailingmoe", "seed-coder", "chameleon", "minerva-7b",   "exaone",
    };
    static const char text[] = "It's 12345 caf\xc3\xa9s, \xe4\xb8\x80\xe4\xba\x8c  x\n\n y\xff\xfe (ok)? HTTPServer  ";
    sl_bytes tokens[256];
    char storage[256][4];
    for (uint32_t i = 0, extra = 0; i < 256; i++) {
        bool printable = (i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i != 0xad);
        size_t n_bytes = sl_utf8_encode(printable ? i : 256 + extra++, storage[i]);
        tokens[i] = (sl_bytes){storage[i], n_bytes};
    }
    for (size_t i = 0; i < SL_COUNTOF(names); i++) {
        sl_vocab_desc desc = {.kind = SL_VOCAB_BPE,
                              .pre = {names[i], strlen(names[i])},
                              .n_tokens = 256,
                              .tokens = tokens,
                              .bos = -1,
                              .eos = -1,
                              .eot = -1,
                              .unk = -1,
                              .pad = -1};
        sl_vocab *vocab;
        sl_err err = {0};
        if (sl_vocab_open(&desc, &vocab, &err) != SL_OK)
            fail_msg("%s: %s", names[i], err.message);
        check_round_trip(names[i], vocab, "mixed text", text, strlen(text));
        sl_vocab_close(vocab);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt_2),
        cmocka_unit_test(test_smollm2),
        cmocka_unit_test(test_llama_bpe),
        cmocka_unit_test(test_qwen2),
        cmocka_unit_test(test_deepseek_llm),
        cmocka_unit_test(test_falcon),
        cmocka_unit_test(test_llama_spm),
        cmocka_unit_test(test_phi_3),
        cmocka_unit_test(test_spans),
        cmocka_unit_test(test_cut_user_defined),
        cmocka_unit_test(test_bos),
        cmocka_unit_test(test_missing_bytes),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_open_errors),
        cmocka_unit_test(test_pre_tokenizers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
