#include "text/detok.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static const char replacement[3] = {'\xef', '\xbf', '\xbd'};

void sl_detok_init(sl_detok *detok, const sl_vocab *vocab, uint32_t flags)
{
    *detok = (sl_detok){.vocab = vocab, .flags = flags, .at_start = sl_vocab_adds_space_prefix(vocab)};
}

void sl_detok_free(sl_detok *detok)
{
    free(detok->buffer);
    *detok = (sl_detok){0};
}

/* Takes off the space that the tokenizer put before what comes *at_start. */
static sl_bytes drop_space(sl_bytes text, bool *at_start)
{
    if (text.n_bytes == 0 || !*at_start)
        return text;
    *at_start = false;
    size_t n_off = text.bytes[0] == ' ';
    return (sl_bytes){text.bytes + n_off, text.n_bytes - n_off};
}

/* What a token adds to a text. *at_start: the tokenizer put a space before what comes here; it is taken off again. */
static sl_bytes token_text(const sl_vocab *vocab, uint32_t token, uint32_t flags, bool *at_start)
{
    sl_token_type type = sl_vocab_type(vocab, token);
    sl_bytes text = sl_vocab_bytes(vocab, token);
    if (type == SL_TOKEN_CONTROL || type == SL_TOKEN_USER_DEFINED) {
        *at_start = sl_vocab_adds_space_prefix(vocab);
        return type == SL_TOKEN_CONTROL && (flags & SL_DETOK_SPECIAL) ? sl_vocab_stored_text(vocab, token) : text;
    }
    return drop_space(text, at_start);
}

static sl_status reserve(sl_detok *detok, size_t n_bytes, sl_err *err)
{
    if (n_bytes <= detok->capacity)
        return SL_OK;
    size_t capacity = SL_MAX(n_bytes, detok->capacity * 2);
    char *buffer = realloc(detok->buffer, capacity);
    if (!buffer)
        SL_FAIL(err, SL_ERR_NOMEM, "detokenizer: out of memory");
    detok->buffer = buffer;
    detok->capacity = capacity;
    return SL_OK;
}

/* text and what is held: *out = as much of it as is complete. */
static sl_status push(sl_detok *detok, sl_bytes text, sl_bytes *out, sl_err *err)
{
    /* Held bytes and new ones together, at the end of the buffer; what is complete is written from its beginning, where
     * each byte may grow to a U+FFFD of three. */
    *out = (sl_bytes){"", 0};
    size_t n_in = detok->n_held + text.n_bytes, n_out = 0;
    SL_TRY(reserve(detok, 4 * n_in + 1, err));
    char *in = detok->buffer + 3 * n_in;
    memcpy(in, detok->held, detok->n_held);
    memcpy(in + detok->n_held, text.bytes, text.n_bytes);
    detok->n_held = 0;
    for (size_t at = 0; at < n_in;) {
        int length = sl_utf8_decode(in + at, n_in - at, NULL);
        if (length < 0) {
            detok->n_held = n_in - at; /* 1 to 3 bytes */
            memcpy(detok->held, in + at, detok->n_held);
            break;
        }
        memcpy(detok->buffer + n_out, length ? in + at : replacement, length ? (size_t)length : 3);
        n_out += length ? (size_t)length : 3;
        at += length ? (size_t)length : sl_utf8_ill_formed(in + at, n_in - at);
    }
    *out = (sl_bytes){detok->buffer, n_out};
    return SL_OK;
}

sl_status sl_detok_push(sl_detok *detok, uint32_t token, sl_bytes *out, sl_err *err)
{
    return push(detok, token_text(detok->vocab, token, detok->flags, &detok->at_start), out, err);
}

sl_status sl_detok_push_bytes(sl_detok *detok, sl_bytes text, sl_bytes *out, sl_err *err)
{
    return push(detok, drop_space(text, &detok->at_start), out, err);
}

sl_status sl_detok_finish(sl_detok *detok, sl_bytes *out, sl_err *err)
{
    (void)err;
    *out = detok->n_held ? (sl_bytes){replacement, sizeof replacement} : (sl_bytes){"", 0};
    detok->n_held = 0;
    return SL_OK;
}

sl_status sl_detokenize(const sl_vocab *vocab, const uint32_t *ids, size_t n_ids, uint32_t flags, char **out,
                        size_t *n_bytes, sl_err *err)
{
    size_t n = 0, capacity = 256;
    bool at_start = sl_vocab_adds_space_prefix(vocab);
    char *text = malloc(capacity);
    *out = NULL;
    for (size_t i = 0; text && i < n_ids; i++) {
        sl_bytes piece = token_text(vocab, ids[i], flags, &at_start);
        if (piece.n_bytes >= capacity - n) {
            capacity = 2 * capacity + piece.n_bytes;
            char *grown = realloc(text, capacity);
            if (!grown)
                free(text);
            text = grown;
        }
        if (text && piece.n_bytes)
            memcpy(text + n, piece.bytes, piece.n_bytes);
        n += piece.n_bytes;
    }
    if (!text)
        SL_FAIL(err, SL_ERR_NOMEM, "detokenizer: out of memory");
    text[n] = '\0';
    *out = text;
    *n_bytes = n;
    return SL_OK;
}
