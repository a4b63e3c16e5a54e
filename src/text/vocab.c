#include "text/vocab_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "text/bytelevel.h"

#define MAX_TOKENS (UINT32_C(4) << 20)

static const char space_mark[] = "\xe2\x96\x81"; /* U+2581 stands for a space in SentencePiece vocabularies */

/* Control tokens that end a turn or a text in the chat formats of the field. */
static const char *const end_texts[] = {
    "<|im_end|>",
    "<end_of_turn>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|return|>",
    "<|call|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|EOT|>",
    "<EOT>",
    "<end_of_utterance>",
    "<|end_of_turn|>",
    "<turn|>",
    "<eos>",
    "<\357\275\234end\342\226\201of\342\226\201sentence\357\275\234>", /* <｜end▁of▁sentence｜> */
};

static sl_token_type type_of(const sl_vocab_desc *desc, uint32_t id)
{
    return desc->types ? (sl_token_type)desc->types[id] : SL_TOKEN_NORMAL;
}

static sl_status check_id(const char *name, int64_t id, uint32_t n_tokens, sl_err *err)
{
    if (id < -1 || id >= (int64_t)n_tokens)
        SL_FAIL(err, SL_ERR_FORMAT, "vocabulary: %s id %lld is outside its %u tokens", name, (long long)id, n_tokens);
    return SL_OK;
}

static sl_status check_desc(const sl_vocab_desc *desc, sl_err *err)
{
    if (desc->kind != SL_VOCAB_BPE && desc->kind != SL_VOCAB_SPM)
        SL_FAIL(err, SL_ERR_ARGUMENT, "vocabulary: no such kind");
    if (desc->n_tokens == 0)
        SL_FAIL(err, SL_ERR_FORMAT, "vocabulary: no tokens");
    if (desc->n_tokens > MAX_TOKENS || desc->n_merges > 4 * MAX_TOKENS)
        SL_FAIL(err, SL_ERR_LIMIT, "vocabulary: %u tokens and %u merges are too many", desc->n_tokens, desc->n_merges);
    for (uint32_t i = 0; desc->types && i < desc->n_tokens; i++)
        if (desc->types[i] < SL_TOKEN_UNDEFINED || desc->types[i] > SL_TOKEN_BYTE)
            SL_FAIL(err, SL_ERR_FORMAT, "vocabulary: token %u has unknown type %d", i, (int)desc->types[i]);
    SL_TRY(check_id("bos", desc->bos, desc->n_tokens, err));
    SL_TRY(check_id("eos", desc->eos, desc->n_tokens, err));
    SL_TRY(check_id("eot", desc->eot, desc->n_tokens, err));
    SL_TRY(check_id("unk", desc->unk, desc->n_tokens, err));
    return check_id("pad", desc->pad, desc->n_tokens, err);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Byte that "<0xHH>" names; -1 for any other text. */
static int byte_token_value(const char *text, size_t n_bytes)
{
    if (n_bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Stored text with U+2581 turned into spaces. */
static size_t spaces_decode(const char *stored, size_t n_bytes, char *out)
{
    size_t n_out = 0;
    for (size_t at = 0; at < n_bytes;) {
        bool is_mark = n_bytes - at >= 3 && memcmp(stored + at, space_mark, 3) == 0;
        out[n_out++] = is_mark ? ' ' : stored[at];
        at += is_mark ? 3 : 1;
    }
    return n_out;
}

/* Writes what a token stands for to out, which has room for its stored text. */
static size_t token_bytes(sl_vocab_kind kind, sl_token_type type, const char *stored, size_t n_bytes, char *out)
{
    int byte = type == SL_TOKEN_BYTE ? byte_token_value(stored, n_bytes) : -1;
    if (byte >= 0) {
        out[0] = (char)byte;
        return 1;
    }
    if (type == SL_TOKEN_CONTROL || type == SL_TOKEN_UNKNOWN || type == SL_TOKEN_UNUSED)
        return 0;
    if (n_bytes == 0)
        return 0;
    if (kind == SL_VOCAB_SPM)
        return spaces_decode(stored, n_bytes, out);
    if (type != SL_TOKEN_USER_DEFINED)
        return sl_bytelevel_decode(stored, n_bytes, out);
    memcpy(out, stored, n_bytes);
    return n_bytes;
}

/* Copies the texts and makes the indexes over them. */
static sl_status add_texts(sl_vocab *vocab, const sl_vocab_desc *desc, sl_err *err)
{
    uint64_t n_bytes = 0;
    uint32_t at = 0, at_bytes = 0;
    for (uint32_t i = 0; i < desc->n_tokens; i++)
        if (!sl_add_u64(n_bytes, desc->tokens[i].n_bytes, &n_bytes))
            SL_FAIL(err, SL_ERR_LIMIT, "vocabulary: the token texts exceed 4 GiB");
    SL_TRY(sl_texts_init(&vocab->stored, desc->n_tokens, n_bytes, err));
    SL_TRY(sl_texts_init(&vocab->bytes, desc->n_tokens, n_bytes, err));
    SL_TRY(sl_text_index_init(&vocab->by_stored, &vocab->stored, desc->n_tokens, err));
    SL_TRY(sl_text_index_init(&vocab->by_bytes, &vocab->bytes, desc->n_tokens, err));
    bool *merges = malloc(desc->n_tokens * sizeof *merges);
    if (!merges)
        SL_FAIL(err, SL_ERR_NOMEM, "vocabulary: out of memory");
    for (uint32_t i = 0; i < desc->n_tokens; i++) {
        const sl_bytes *token = &desc->tokens[i];
        sl_token_type type = type_of(desc, i);
        vocab->types[i] = (uint8_t)type;
        if (token->n_bytes)
            memcpy(vocab->stored.bytes + at, token->bytes, token->n_bytes);
        at += (uint32_t)token->n_bytes;
        at_bytes +=
            (uint32_t)token_bytes(desc->kind, type, token->bytes, token->n_bytes, vocab->bytes.bytes + at_bytes);
        vocab->stored.offsets[i + 1] = at;
        vocab->bytes.offsets[i + 1] = at_bytes;
        merges[i] = sl_token_type_merges(type);
    }
    sl_text_index_add_all(&vocab->by_stored, NULL, desc->n_tokens);
    sl_text_index_add_all(&vocab->by_bytes, merges, desc->n_tokens);
    free(merges);
    return SL_OK;
}

static void mark_end(sl_vocab *vocab, int64_t id)
{
    if (id >= 0)
        vocab->ends[id / 8] |= (uint8_t)(1u << (id % 8));
}

static sl_status add_special(sl_vocab *vocab, const sl_vocab_desc *desc, sl_err *err)
{
    for (uint32_t i = 0; i < desc->n_tokens; i++) {
        bool is_control = vocab->types[i] == SL_TOKEN_CONTROL;
        size_t n_bytes;
        const char *text = sl_texts_at(&vocab->stored, i, &n_bytes);
        if (n_bytes && (is_control || vocab->types[i] == SL_TOKEN_USER_DEFINED))
            SL_TRY(sl_special_add(&vocab->special, text, n_bytes, i, is_control, err));
    }
    mark_end(vocab, desc->eos);
    mark_end(vocab, desc->eot);
    for (size_t k = 0; k < SL_COUNTOF(end_texts); k++) {
        uint32_t id = sl_text_index_find(&vocab->by_stored, end_texts[k], strlen(end_texts[k]));
        if (id != SL_TOKEN_NONE && vocab->types[id] == SL_TOKEN_CONTROL)
            mark_end(vocab, id);
    }
    return SL_OK;
}

/* Tokens of single bytes: normal ones for BPE, the ones of type BYTE for SPM. */
static void find_byte_tokens(sl_vocab *vocab)
{
    memset(vocab->byte_tokens, 0xff, sizeof vocab->byte_tokens);
    for (uint32_t i = 0; i < vocab->n_tokens; i++) {
        sl_token_type type = (sl_token_type)vocab->types[i];
        size_t n_bytes;
        const char *bytes = sl_texts_at(&vocab->bytes, i, &n_bytes);
        bool is_byte = vocab->kind == SL_VOCAB_SPM ? type == SL_TOKEN_BYTE : sl_token_type_merges(type);
        if (is_byte && n_bytes == 1 && vocab->byte_tokens[(unsigned char)bytes[0]] == SL_TOKEN_NONE)
            vocab->byte_tokens[(unsigned char)bytes[0]] = i;
    }
}

static sl_merge *merge_slot(const sl_vocab *vocab, uint32_t left, uint32_t right)
{
    uint64_t hash = sl_hash_mix((uint64_t)left << 32 | right, vocab->by_stored.seed);
    for (uint32_t i = (uint32_t)hash & vocab->merge_mask;; i = (i + 1) & vocab->merge_mask) {
        sl_merge *slot = &vocab->merges[i];
        if (slot->merged == SL_TOKEN_NONE || (slot->left == left && slot->right == right))
            return slot;
    }
}

const sl_merge *sl_vocab_find_merge(const sl_vocab *vocab, uint32_t left, uint32_t right)
{
    return merge_slot(vocab, left, right);
}

/* Token with this stored text that merging may use; SL_TOKEN_NONE when there is none. */
static uint32_t find_mergeable(const sl_vocab *vocab, const char *text, size_t n_bytes)
{
    uint32_t id = sl_text_index_find(&vocab->by_stored, text, n_bytes);
    if (id != SL_TOKEN_NONE && !sl_token_type_merges((sl_token_type)vocab->types[id]))
        return SL_TOKEN_NONE; /* above all, text must never add up to a control token */
    return id;
}

/* Adds "left right". A merge that names a text without a token can never end in one and is left out. */
static sl_status add_merge(sl_vocab *vocab, sl_bytes line, uint32_t rank, char *joined, sl_err *err)
{
    const char *space = line.n_bytes > 1 ? memchr(line.bytes + 1, ' ', line.n_bytes - 1) : NULL;
    if (!space)
        SL_FAIL(err, SL_ERR_FORMAT, "vocabulary: merge %u is no pair", rank);
    size_t n_left = (size_t)(space - line.bytes), n_right = line.n_bytes - n_left - 1;
    if (n_left + n_right > vocab->by_stored.max_bytes)
        return SL_OK;
    memcpy(joined, line.bytes, n_left);
    memcpy(joined + n_left, space + 1, n_right);
    sl_merge merge = {.left = find_mergeable(vocab, joined, n_left),
                      .right = find_mergeable(vocab, joined + n_left, n_right),
                      .rank = rank,
                      .merged = find_mergeable(vocab, joined, n_left + n_right)};
    if (merge.left == SL_TOKEN_NONE || merge.right == SL_TOKEN_NONE || merge.merged == SL_TOKEN_NONE)
        return SL_OK;
    sl_merge *slot = merge_slot(vocab, merge.left, merge.right);
    if (slot->merged == SL_TOKEN_NONE)
        *slot = merge;
    return SL_OK;
}

static sl_status add_merges(sl_vocab *vocab, const sl_vocab_desc *desc, sl_err *err)
{
    uint32_t capacity = sl_hash_capacity(desc->n_merges);
    vocab->merge_mask = capacity - 1;
    vocab->merges = malloc((size_t)capacity * sizeof *vocab->merges);
    char *joined = malloc((size_t)vocab->by_stored.max_bytes + 1);
    sl_status status = SL_OK;
    if (!vocab->merges || !joined)
        status = sl_err_set(err, SL_ERR_NOMEM, "vocabulary: out of memory");
    else
        memset(vocab->merges, 0xff, (size_t)capacity * sizeof *vocab->merges);
    for (uint32_t i = 0; status == SL_OK && i < desc->n_merges; i++)
        status = add_merge(vocab, desc->merges[i], i, joined, err);
    free(joined);
    return status;
}

static sl_status add_scores(sl_vocab *vocab, const sl_vocab_desc *desc, sl_err *err)
{
    vocab->scores = calloc(desc->n_tokens, sizeof *vocab->scores);
    if (!vocab->scores)
        SL_FAIL(err, SL_ERR_NOMEM, "vocabulary: out of memory");
    if (desc->scores)
        memcpy(vocab->scores, desc->scores, desc->n_tokens * sizeof *vocab->scores);
    for (uint32_t i = 0; i < vocab->n_tokens; i++) {
        size_t n_bytes;
        const char *bytes = sl_texts_at(&vocab->bytes, i, &n_bytes);
        for (size_t k = 1; sl_token_type_merges((sl_token_type)vocab->types[i]) && k < n_bytes; k++)
            if (bytes[k] == ' ' && bytes[k - 1] != ' ')
                vocab->space_joins[(unsigned char)bytes[k - 1]] = true;
    }
    return SL_OK;
}

static sl_status fill(sl_vocab *vocab, const sl_vocab_desc *desc, sl_err *err)
{
    vocab->kind = desc->kind;
    vocab->n_tokens = desc->n_tokens;
    vocab->bos = desc->bos;
    vocab->eos = desc->eos;
    vocab->unk = desc->unk;
    vocab->add_bos = desc->add_bos && desc->bos >= 0;
    vocab->add_eos = desc->add_eos && desc->eos >= 0;
    vocab->add_space_prefix = desc->add_space_prefix && desc->kind == SL_VOCAB_SPM;
    vocab->types = malloc(desc->n_tokens);
    vocab->ends = calloc(desc->n_tokens / 8 + 1, 1);
    if (!vocab->types || !vocab->ends)
        SL_FAIL(err, SL_ERR_NOMEM, "vocabulary: out of memory");
    SL_TRY(add_texts(vocab, desc, err));
    SL_TRY(add_special(vocab, desc, err));
    find_byte_tokens(vocab);
    if (desc->kind == SL_VOCAB_SPM)
        return add_scores(vocab, desc, err);
    SL_TRY(sl_pretokenizer_open(desc->pre, &vocab->pre, err));
    return add_merges(vocab, desc, err);
}

sl_status sl_vocab_open(const sl_vocab_desc *desc, sl_vocab **out, sl_err *err)
{
    *out = NULL;
    SL_TRY(check_desc(desc, err));
    sl_vocab *vocab = calloc(1, sizeof *vocab);
    if (!vocab)
        SL_FAIL(err, SL_ERR_NOMEM, "vocabulary: out of memory");
    sl_status status = fill(vocab, desc, err);
    if (status != SL_OK) {
        sl_vocab_close(vocab);
        return status;
    }
    *out = vocab;
    return SL_OK;
}

void sl_vocab_close(sl_vocab *vocab)
{
    if (!vocab)
        return;
    sl_texts_free(&vocab->stored);
    sl_texts_free(&vocab->bytes);
    sl_text_index_free(&vocab->by_stored);
    sl_text_index_free(&vocab->by_bytes);
    sl_special_free(&vocab->special);
    sl_pretokenizer_close(vocab->pre);
    free(vocab->types);
    free(vocab->ends);
    free(vocab->merges);
    free(vocab->scores);
    free(vocab);
}

uint32_t sl_vocab_n_tokens(const sl_vocab *vocab)
{
    return vocab->n_tokens;
}

int64_t sl_vocab_bos(const sl_vocab *vocab)
{
    return vocab->bos;
}

int64_t sl_vocab_eos(const sl_vocab *vocab)
{
    return vocab->eos;
}

bool sl_vocab_adds_bos(const sl_vocab *vocab)
{
    return vocab->add_bos;
}

bool sl_vocab_adds_space_prefix(const sl_vocab *vocab)
{
    return vocab->add_space_prefix;
}

bool sl_vocab_is_end(const sl_vocab *vocab, uint32_t token)
{
    return token < vocab->n_tokens && (vocab->ends[token / 8] >> (token % 8) & 1);
}

sl_token_type sl_vocab_type(const sl_vocab *vocab, uint32_t token)
{
    return token < vocab->n_tokens ? (sl_token_type)vocab->types[token] : SL_TOKEN_UNDEFINED;
}

static sl_bytes text_at(const sl_vocab *vocab, const sl_texts *texts, uint32_t token)
{
    sl_bytes text = {"", 0};
    if (token < vocab->n_tokens)
        text.bytes = sl_texts_at(texts, token, &text.n_bytes);
    return text;
}

sl_bytes sl_vocab_stored_text(const sl_vocab *vocab, uint32_t token)
{
    return text_at(vocab, &vocab->stored, token);
}

sl_bytes sl_vocab_bytes(const sl_vocab *vocab, uint32_t token)
{
    return text_at(vocab, &vocab->bytes, token);
}

void sl_vocab_all_bytes(const sl_vocab *vocab, const char **bytes, const uint32_t **offsets)
{
    *bytes = vocab->bytes.bytes;
    *offsets = vocab->bytes.offsets;
}

int64_t sl_vocab_find(const sl_vocab *vocab, sl_bytes text)
{
    uint32_t id = sl_text_index_find(&vocab->by_stored, text.bytes, text.n_bytes);
    return id == SL_TOKEN_NONE ? -1 : (int64_t)id;
}
