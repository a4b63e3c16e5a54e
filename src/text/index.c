#include "text/index.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

sl_status sl_texts_init(sl_texts *texts, size_t n, uint64_t n_bytes, sl_err *err)
{
    if (n_bytes > UINT32_MAX || n >= UINT32_MAX)
        SL_FAIL(err, SL_ERR_LIMIT, "vocabulary: the token texts exceed 4 GiB");
    texts->bytes = malloc(n_bytes ? n_bytes : 1);
    texts->offsets = calloc(n + 1, sizeof *texts->offsets);
    if (!texts->bytes || !texts->offsets)
        SL_FAIL(err, SL_ERR_NOMEM, "vocabulary: out of memory");
    return SL_OK;
}

void sl_texts_free(sl_texts *texts)
{
    free(texts->bytes);
    free(texts->offsets);
    *texts = (sl_texts){0};
}

static uint64_t hash_bytes(const char *bytes, size_t n_bytes, uint64_t seed)
{
    uint64_t hash = sl_hash_mix(seed, n_bytes), word;
    for (; n_bytes >= 8; bytes += 8, n_bytes -= 8) {
        memcpy(&word, bytes, 8);
        hash = sl_hash_mix(hash, word);
    }
    word = 0;
    for (size_t i = 0; i < n_bytes; i++)
        word = word << 8 | (unsigned char)bytes[i];
    return sl_hash_mix(hash, word);
}

sl_status sl_text_index_init(sl_text_index *index, const sl_texts *texts, uint32_t n, sl_err *err)
{
    uint32_t capacity = sl_hash_capacity(n);
    *index = (sl_text_index){.texts = texts, .mask = capacity - 1};
    index->slots = malloc((size_t)capacity * sizeof *index->slots);
    if (!index->slots)
        SL_FAIL(err, SL_ERR_NOMEM, "vocabulary: out of memory");
    memset(index->slots, 0xff, (size_t)capacity * sizeof *index->slots);
    index->seed = sl_hash_mix((uint64_t)sl_clock_ns(), (uint64_t)(uintptr_t)index->slots);
    return SL_OK;
}

void sl_text_index_free(sl_text_index *index)
{
    free(index->slots);
    *index = (sl_text_index){0};
}

/* Slot that holds the text of that hash, or the empty one where it would go. */
static sl_text_slot *find_slot(const sl_text_index *index, const char *bytes, size_t n_bytes, uint64_t hash)
{
    uint32_t tag = (uint32_t)(hash >> 32);
    for (uint32_t i = (uint32_t)hash & index->mask;; i = (i + 1) & index->mask) {
        sl_text_slot *slot = &index->slots[i];
        if (slot->id == UINT32_MAX)
            return slot;
        if (slot->tag != tag)
            continue;
        size_t n_other;
        const char *other = sl_texts_at(index->texts, slot->id, &n_other);
        if (n_other == n_bytes && memcmp(other, bytes, n_bytes) == 0)
            return slot;
    }
}

/* Adds text number id, unless an equal one is there. */
static void add_hashed(sl_text_index *index, uint32_t id, uint64_t hash)
{
    size_t n_bytes;
    const char *bytes = sl_texts_at(index->texts, id, &n_bytes);
    sl_text_slot *slot = find_slot(index, bytes, n_bytes, hash);
    if (slot->id != UINT32_MAX)
        return;
    *slot = (sl_text_slot){.tag = (uint32_t)(hash >> 32), .id = id};
    index->max_bytes = SL_MAX(index->max_bytes, (uint32_t)n_bytes);
}

static uint64_t hash_of(const sl_text_index *index, uint32_t id)
{
    size_t n_bytes;
    const char *bytes = sl_texts_at(index->texts, id, &n_bytes);
    return hash_bytes(bytes, n_bytes, index->seed);
}

void sl_text_index_add_all(sl_text_index *index, const bool *wanted, uint32_t n)
{
    enum { AHEAD = 16 };
    struct {
        uint64_t hash;
        uint32_t id;
    } ring[AHEAD];
    uint32_t n_seen = 0, n_added = 0;
    for (uint32_t id = 0; id < n; id++) {
        if (wanted && !wanted[id])
            continue;
        if (n_seen - n_added == AHEAD) {
            add_hashed(index, ring[n_added % AHEAD].id, ring[n_added % AHEAD].hash);
            n_added++;
        }
        uint64_t hash = hash_of(index, id);
        __builtin_prefetch(&index->slots[(uint32_t)hash & index->mask], 1);
        ring[n_seen % AHEAD].hash = hash;
        ring[n_seen++ % AHEAD].id = id;
    }
    for (; n_added < n_seen; n_added++)
        add_hashed(index, ring[n_added % AHEAD].id, ring[n_added % AHEAD].hash);
}

uint32_t sl_text_index_find(const sl_text_index *index, const char *bytes, size_t n_bytes)
{
    if (n_bytes > index->max_bytes)
        return UINT32_MAX;
    return find_slot(index, bytes, n_bytes, hash_bytes(bytes, n_bytes, index->seed))->id;
}
