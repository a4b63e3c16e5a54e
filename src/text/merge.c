#include "text/merge.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

void sl_merger_free(sl_merger *merger)
{
    free(merger->symbols);
    free(merger->heap);
    *merger = (sl_merger){0};
}

static sl_status reserve(sl_merger *merger, size_t n_bytes, sl_err *err)
{
    if (n_bytes <= merger->symbol_capacity)
        return SL_OK;
    size_t capacity = SL_MAX(n_bytes + n_bytes / 2, (size_t)256);
    free(merger->symbols);
    merger->symbol_capacity = 0;
    merger->symbols = malloc(capacity * sizeof *merger->symbols);
    if (!merger->symbols)
        SL_FAIL(err, SL_ERR_NOMEM, "tokenizer: out of memory");
    merger->symbol_capacity = capacity;
    return SL_OK;
}

static sl_status heap_reserve(sl_merger *merger, sl_err *err)
{
    if (merger->n_heap < merger->heap_capacity)
        return SL_OK;
    size_t capacity = merger->heap_capacity ? merger->heap_capacity * 2 : 256;
    uint64_t *heap = realloc(merger->heap, capacity * sizeof *heap);
    if (!heap)
        SL_FAIL(err, SL_ERR_NOMEM, "tokenizer: out of memory");
    merger->heap = heap;
    merger->heap_capacity = capacity;
    return SL_OK;
}

static sl_status heap_push(sl_merger *merger, uint64_t key, sl_err *err)
{
    SL_TRY(heap_reserve(merger, err));
    uint64_t *heap = merger->heap;
    size_t i = merger->n_heap++;
    while (i > 0 && key < heap[(i - 1) / 2]) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = key;
    return SL_OK;
}

static uint64_t heap_pop(sl_merger *merger)
{
    uint64_t *heap = merger->heap, top = heap[0], last = heap[--merger->n_heap];
    size_t i = 0, child, n = merger->n_heap;
    while ((child = 2 * i + 1) < n) {
        child += child + 1 < n && heap[child + 1] < heap[child];
        if (last <= heap[child])
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* Score as a number that is lower the higher the score is: the bits of an IEEE float, made monotone. */
static uint32_t rank_of_score(float score)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return ~(bits & UINT32_C(1) << 31 ? ~bits : bits | UINT32_C(1) << 31);
}

/* Looks up the merge of the symbol at offset with its right neighbour and queues it. */
static sl_status queue_pair(sl_merger *merger, const char *bytes, size_t n_bytes, uint32_t at, sl_err *err)
{
    const sl_vocab *vocab = merger->vocab;
    sl_symbol *left = &merger->symbols[at];
    uint32_t right_at = at + left->n_bytes;
    left->merged = SL_TOKEN_NONE;
    if (right_at >= n_bytes)
        return SL_OK;
    const sl_symbol *right = &merger->symbols[right_at];
    if (vocab->kind == SL_VOCAB_BPE) {
        const sl_merge *merge = sl_vocab_find_merge(vocab, left->id, right->id);
        left->merged = merge->merged;
        left->rank = merge->rank;
    } else {
        left->merged = sl_text_index_find(&vocab->by_bytes, bytes + at, left->n_bytes + right->n_bytes);
        if (left->merged != SL_TOKEN_NONE)
            left->rank = rank_of_score(vocab->scores[left->merged]);
    }
    if (left->merged == SL_TOKEN_NONE)
        return SL_OK;
    return heap_push(merger, (uint64_t)left->rank << 32 | at, err);
}

/* First symbols: bytes for BPE, characters (or single ill-formed bytes) for SPM. */
static void split_symbols(sl_merger *merger, const char *bytes, size_t n_bytes)
{
    const sl_vocab *vocab = merger->vocab;
    uint32_t prev = UINT32_MAX;
    for (uint32_t at = 0; at < n_bytes; at += merger->symbols[prev].n_bytes) {
        int length = vocab->kind == SL_VOCAB_SPM ? sl_utf8_decode(bytes + at, n_bytes - at, NULL) : 1;
        uint32_t id = vocab->kind == SL_VOCAB_BPE ? vocab->byte_tokens[(unsigned char)bytes[at]] : SL_TOKEN_NONE;
        merger->symbols[at] = (sl_symbol){.n_bytes = length > 0 ? (uint32_t)length : 1, .prev = prev, .id = id};
        prev = at;
    }
}

/* Makes one symbol of the one at offset and its right neighbour. */
static sl_status merge_at(sl_merger *merger, const char *bytes, size_t n_bytes, uint32_t at, sl_err *err)
{
    sl_symbol *left = &merger->symbols[at], *right = &merger->symbols[at + left->n_bytes];
    left->id = left->merged;
    left->n_bytes += right->n_bytes;
    right->merged = SL_TOKEN_NONE;
    if (at + left->n_bytes < n_bytes)
        merger->symbols[at + left->n_bytes].prev = at;
    if (left->prev != UINT32_MAX)
        SL_TRY(queue_pair(merger, bytes, n_bytes, left->prev, err));
    return queue_pair(merger, bytes, n_bytes, at, err);
}

/* U+FFFD as tokens: its three bytes, merged as far as they merge in order. Nothing when a byte is missing as well. */
static sl_status push_replacement(const sl_vocab *vocab, sl_tokens *out, sl_err *err)
{
    static const unsigned char replacement[3] = {0xef, 0xbf, 0xbd};
    size_t begin = out->n;
    for (int i = 0; i < 3; i++) {
        uint32_t id = vocab->byte_tokens[replacement[i]];
        if (id == SL_TOKEN_NONE) {
            out->n = begin;
            return SL_OK;
        }
        const sl_merge *merge = out->n > begin ? sl_vocab_find_merge(vocab, out->ids[out->n - 1], id) : NULL;
        if (merge && merge->merged != SL_TOKEN_NONE)
            out->ids[out->n - 1] = merge->merged;
        else
            SL_TRY(sl_tokens_push(out, id, err));
    }
    return SL_OK;
}

/* Appends a symbol that no merge made. */
static sl_status push_unmerged(const sl_vocab *vocab, const char *bytes, size_t n_bytes, sl_tokens *out, sl_err *err)
{
    if (vocab->kind == SL_VOCAB_BPE)
        return push_replacement(vocab, out, err);
    uint32_t id = sl_text_index_find(&vocab->by_bytes, bytes, n_bytes);
    if (id != SL_TOKEN_NONE)
        return sl_tokens_push(out, id, err);
    for (size_t i = 0; i < n_bytes; i++) {
        id = vocab->byte_tokens[(unsigned char)bytes[i]];
        if (id == SL_TOKEN_NONE && vocab->unk >= 0)
            id = (uint32_t)vocab->unk;
        if (id != SL_TOKEN_NONE)
            SL_TRY(sl_tokens_push(out, id, err));
    }
    return SL_OK;
}

sl_status sl_merger_run(sl_merger *merger, const char *bytes, size_t n_bytes, sl_tokens *out, sl_err *err)
{
    if (merger->vocab->pre && sl_pretokenizer_ignores_merges(merger->vocab->pre)) {
        uint32_t id = sl_text_index_find(&merger->vocab->by_bytes, bytes, n_bytes);
        if (id != SL_TOKEN_NONE)
            return sl_tokens_push(out, id, err);
    }
    SL_TRY(reserve(merger, n_bytes, err));
    split_symbols(merger, bytes, n_bytes);
    merger->n_heap = 0;
    for (uint32_t at = 0; at < n_bytes; at += merger->symbols[at].n_bytes)
        SL_TRY(queue_pair(merger, bytes, n_bytes, at, err));
    while (merger->n_heap) {
        uint64_t key = heap_pop(merger);
        uint32_t at = (uint32_t)key;
        /* An entry is stale when its symbol has since merged, or its pair has become another one. */
        if (merger->symbols[at].merged != SL_TOKEN_NONE && merger->symbols[at].rank == (uint32_t)(key >> 32))
            SL_TRY(merge_at(merger, bytes, n_bytes, at, err));
    }
    for (uint32_t at = 0; at < n_bytes; at += merger->symbols[at].n_bytes) {
        const sl_symbol *symbol = &merger->symbols[at];
        if (symbol->id != SL_TOKEN_NONE)
            SL_TRY(sl_tokens_push(out, symbol->id, err));
        else
            SL_TRY(push_unmerged(merger->vocab, bytes + at, symbol->n_bytes, out, err));
    }
    return SL_OK;
}
