/* libFuzzer target: any bytes as text. The first byte picks a vocabulary, the second how the text is cut into spans; the
 * tokens must give the text back byte for byte, and untrusted text must never become a control token. */
#include "base/utf8.h"
#include "text/detok.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static const char *const pre_names[] = {"gpt-2",          "smollm",      "llama-bpe", "qwen2",   "qwen35",
                                        "gpt-4o",         "tekken",      "falcon",    "default", "deepseek-llm",
                                        "deepseek-coder", "deepseek-v3", "bloom",     "viking",  "bailingmoe",
                                        "seed-coder",     "chameleon"};
static const char *const bpe_extra[] = {"th", "the",  "Ġt",      "Ġthe", "ab", "abab",
                                        "ĠĠ", "ĠĠĠĠ", "ð\u0178", "ÃÃ",   "11", "!!"};
static const char *const bpe_merges[] = {"t h", "th e",  "Ġ t",      "Ġt he", "Ġ the", "a b", "ab ab",
                                         "Ġ Ġ", "ĠĠ ĠĠ", "ð \u0178", "Ã Ã",   "1 1",   "! !"};
static const char *const spm_pieces[] = {"▁",   "t",    "h",  "e",  "a",   "b",  "1",    "é",   "日", "th",
                                         "the", "▁the", "▁t", "ab", "aba", "▁▁", "▁▁▁▁", ">▁<", "aa", "aaaa"};
static const char *const specials[] = {"<|a|>", "<|ab|>", "<s>", "\n\n", "\n\n\n", "<b>"};
enum { N_CONTROL = 3, MAX_TOKENS = 320 };

typedef struct builder {
    sl_bytes tokens[MAX_TOKENS];
    float scores[MAX_TOKENS];
    int32_t types[MAX_TOKENS];
    char storage[256][8];
    uint32_t n;
} builder;

static void add(builder *b, const char *text, size_t n_bytes, sl_token_type type)
{
    b->tokens[b->n] = (sl_bytes){text, n_bytes};
    b->types[b->n] = (int32_t)type;
    b->scores[b->n] = -(float)(b->n * 7 % 13);
    b->n++;
}

static sl_vocab *open_vocab(size_t which)
{
    static const char hex[] = "0123456789ABCDEF";
    bool is_spm = which >= SL_COUNTOF(pre_names);
    builder b = {.n = 0};
    sl_bytes merges[SL_COUNTOF(bpe_merges)];
    for (uint32_t i = 0, extra = 256; i < 256; i++) {
        bool printable = (i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i != 0xad);
        char *text = b.storage[i];
        size_t n = is_spm ? 6 : sl_utf8_encode(printable ? i : extra++, text);
        if (is_spm)
            memcpy(text, (const char[]){'<', '0', 'x', hex[i >> 4], hex[i & 15], '>'}, 6);
        add(&b, text, n, is_spm ? SL_TOKEN_BYTE : SL_TOKEN_NORMAL);
    }
    for (size_t i = 0; i < SL_COUNTOF(specials); i++)
        add(&b, specials[i], strlen(specials[i]), i < N_CONTROL ? SL_TOKEN_CONTROL : SL_TOKEN_USER_DEFINED);
    for (size_t i = 0; i < (is_spm ? SL_COUNTOF(spm_pieces) : SL_COUNTOF(bpe_extra)); i++)
        add(&b, is_spm ? spm_pieces[i] : bpe_extra[i], strlen(is_spm ? spm_pieces[i] : bpe_extra[i]), SL_TOKEN_NORMAL);
    for (size_t i = 0; i < SL_COUNTOF(bpe_merges); i++)
        merges[i] = (sl_bytes){bpe_merges[i], strlen(bpe_merges[i])};
    const char *pre = is_spm ? "" : pre_names[which];
    sl_vocab_desc desc = {.kind = is_spm ? SL_VOCAB_SPM : SL_VOCAB_BPE,
                          .pre = {pre, strlen(pre)},
                          .n_tokens = b.n,
                          .tokens = b.tokens,
                          .scores = b.scores,
                          .types = b.types,
                          .merges = merges,
                          .n_merges = is_spm ? 0 : SL_COUNTOF(bpe_merges),
                          .bos = -1,
                          .eos = -1,
                          .eot = -1,
                          .unk = -1,
                          .pad = -1,
                          .add_space_prefix = which > SL_COUNTOF(pre_names)};
    sl_vocab *vocab;
    if (sl_vocab_open(&desc, &vocab, NULL) != SL_OK)
        abort();
    return vocab;
}

static void check_stream(const sl_vocab *vocab, const sl_tokens *tokens, const char *text, size_t n_bytes)
{
    sl_detok detok;
    sl_bytes piece;
    bool is_valid = sl_utf8_valid(text, n_bytes);
    size_t n = 0;
    sl_detok_init(&detok, vocab, SL_DETOK_SPECIAL);
    for (size_t i = 0; i <= tokens->n; i++) {
        sl_status status =
            i < tokens->n ? sl_detok_push(&detok, tokens->ids[i], &piece, NULL) : sl_detok_finish(&detok, &piece, NULL);
        if (status != SL_OK || !sl_utf8_valid(piece.bytes, piece.n_bytes))
            abort();
        if (is_valid && (n + piece.n_bytes > n_bytes || memcmp(text + n, piece.bytes, piece.n_bytes) != 0))
            abort();
        n += piece.n_bytes;
    }
    if (is_valid && n != n_bytes)
        abort();
    sl_detok_free(&detok);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static sl_vocab *vocabs[SL_COUNTOF(pre_names) + 2];
    if (n_bytes < 2)
        return 0;
    size_t which = data[0] % SL_COUNTOF(vocabs);
    unsigned cut = data[1];
    const char *text = (const char *)data + 2;
    n_bytes -= 2;
    if (!vocabs[which])
        vocabs[which] = open_vocab(which);
    /* Up to two spans; the lowest two bits of the second byte are their trust. */
    size_t middle = n_bytes * (cut >> 2) / 63;
    sl_span spans[2] = {{text, middle, cut & 1}, {text + middle, n_bytes - middle, cut & 2}};
    sl_tokens tokens = {0};
    char *back;
    size_t n_back;
    if (sl_tokenize(vocabs[which], spans, 2, SL_TOKENIZE_ADD_SPECIAL, &tokens, NULL) != SL_OK)
        abort();
    if (sl_detokenize(vocabs[which], tokens.ids, tokens.n, SL_DETOK_SPECIAL, &back, &n_back, NULL) != SL_OK)
        abort();
    if (n_back != n_bytes || memcmp(back, text, n_bytes) != 0)
        abort();
    for (size_t i = 0; i < tokens.n; i++)
        if (sl_vocab_type(vocabs[which], tokens.ids[i]) == SL_TOKEN_CONTROL && !(cut & 3))
            abort();
    check_stream(vocabs[which], &tokens, text, n_bytes);
    sl_tokens_free(&tokens);
    free(back);
    return 0;
}
