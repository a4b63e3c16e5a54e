#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "text/merge.h"

#define MAX_TEXT_BYTES (UINT64_C(256) << 20)

/* One call of sl_tokenize. Ordinary text gathers in pending until a special token or the end. */
typedef struct run {
    const sl_vocab *vocab;
    sl_merger merger;
    sl_pretokenizer_run *pre; /* BPE; opened when first needed */
    char *pending;
    size_t n_pending, capacity;
    sl_tokens *out;
} run;

sl_status sl_tokens_push(sl_tokens *tokens, uint32_t id, sl_err *err)
{
    if (tokens->n == tokens->capacity) {
        size_t capacity = tokens->capacity ? tokens->capacity * 2 : 64;
        uint32_t *ids = realloc(tokens->ids, capacity * sizeof *ids);
        if (!ids)
            SL_FAIL(err, SL_ERR_NOMEM, "tokenizer: out of memory");
        tokens->ids = ids;
        tokens->capacity = capacity;
    }
    tokens->ids[tokens->n++] = id;
    return SL_OK;
}

void sl_tokens_free(sl_tokens *tokens)
{
    free(tokens->ids);
    *tokens = (sl_tokens){0};
}

static sl_status gather(run *r, const char *bytes, size_t n_bytes, sl_err *err)
{
    size_t need = r->n_pending + n_bytes + 1; /* and a space prefix; sizes are below MAX_TEXT_BYTES */
    if (n_bytes == 0)
        return SL_OK;
    if (need > r->capacity) {
        size_t capacity = SL_MAX(need, r->capacity * 2);
        char *pending = realloc(r->pending, capacity);
        if (!pending)
            SL_FAIL(err, SL_ERR_NOMEM, "tokenizer: out of memory");
        r->pending = pending;
        r->capacity = capacity;
    }
    if (r->n_pending == 0 && r->vocab->add_space_prefix)
        r->pending[r->n_pending++] = ' ';
    memcpy(r->pending + r->n_pending, bytes, n_bytes);
    r->n_pending += n_bytes;
    return SL_OK;
}

static sl_status flush_bpe(run *r, sl_err *err)
{
    const sl_pieces *pieces;
    const char *at = r->pending;
    if (!r->pre)
        SL_TRY(sl_pretokenizer_run_open(r->vocab->pre, &r->pre, err));
    SL_TRY(sl_pretokenizer_split(r->pre, r->pending, r->n_pending, &pieces, err));
    for (size_t i = 0; i < pieces->n; i++) {
        SL_TRY(sl_merger_run(&r->merger, at, pieces->lengths[i], r->out, err));
        at += pieces->lengths[i];
    }
    return SL_OK;
}

/* Merges word by word: where no token holds a space after the byte before it, none can cross that border. */
static sl_status flush_spm(run *r, sl_err *err)
{
    const char *text = r->pending;
    size_t begin = 0;
    for (size_t i = 1; i <= r->n_pending; i++) {
        bool at_border = i == r->n_pending ||
                         (text[i] == ' ' && text[i - 1] != ' ' && !r->vocab->space_joins[(unsigned char)text[i - 1]]);
        if (!at_border)
            continue;
        SL_TRY(sl_merger_run(&r->merger, text + begin, i - begin, r->out, err));
        begin = i;
    }
    return SL_OK;
}

static sl_status flush(run *r, sl_err *err)
{
    if (r->n_pending == 0)
        return SL_OK;
    SL_TRY(r->vocab->kind == SL_VOCAB_BPE ? flush_bpe(r, err) : flush_spm(r, err));
    r->n_pending = 0;
    return SL_OK;
}

static sl_status add_span(run *r, const sl_span *span, sl_err *err)
{
    const char *at = span->bytes;
    size_t left = span->n_bytes, before, n_match;
    uint32_t id;
    while (left && sl_special_find(&r->vocab->special, at, left, span->trusted, &before, &n_match, &id)) {
        SL_TRY(gather(r, at, before, err));
        SL_TRY(flush(r, err));
        SL_TRY(sl_tokens_push(r->out, id, err));
        at += before + n_match;
        left -= before + n_match;
    }
    return gather(r, at, left, err);
}

/* Drops the BOS put in front when the text brought its own. */
static void undouble_bos(const sl_vocab *vocab, sl_tokens *out, size_t begin)
{
    if (out->n - begin < 2 || out->ids[begin] != (uint32_t)vocab->bos || out->ids[begin + 1] != (uint32_t)vocab->bos)
        return;
    out->n--;
    memmove(out->ids + begin, out->ids + begin + 1, (out->n - begin) * sizeof *out->ids);
}

static sl_status tokenize(run *r, const sl_span *spans, size_t n_spans, uint32_t flags, sl_err *err)
{
    bool add_bos = (flags & SL_TOKENIZE_ADD_SPECIAL) && r->vocab->add_bos;
    bool add_eos = (flags & SL_TOKENIZE_ADD_SPECIAL) && r->vocab->add_eos;
    size_t begin = r->out->n;
    if (add_bos)
        SL_TRY(sl_tokens_push(r->out, (uint32_t)r->vocab->bos, err));
    for (size_t i = 0; i < n_spans; i++)
        SL_TRY(add_span(r, &spans[i], err));
    SL_TRY(flush(r, err));
    if (add_bos)
        undouble_bos(r->vocab, r->out, begin);
    if (add_eos)
        SL_TRY(sl_tokens_push(r->out, (uint32_t)r->vocab->eos, err));
    return SL_OK;
}

sl_status sl_tokenize(const sl_vocab *vocab, const sl_span *spans, size_t n_spans, uint32_t flags, sl_tokens *out,
                      sl_err *err)
{
    run r = {.vocab = vocab, .merger = {.vocab = vocab}, .out = out};
    uint64_t n_bytes = 0;
    for (size_t i = 0; i < n_spans; i++)
        if (!sl_add_u64(n_bytes, spans[i].n_bytes, &n_bytes) || n_bytes > MAX_TEXT_BYTES)
            SL_FAIL(err, SL_ERR_LIMIT, "tokenizer: text above 256 MiB");
    sl_status status = tokenize(&r, spans, n_spans, flags, err);
    sl_merger_free(&r.merger);
    sl_pretokenizer_run_close(r.pre);
    free(r.pending);
    return status;
}
