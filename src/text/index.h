/* Many short texts in one block, and a hash index over them. */
#ifndef SL_TEXT_INDEX_H
#define SL_TEXT_INDEX_H

#include "base/status.h"

/* Text i is bytes[offsets[i] .. offsets[i + 1]). */
typedef struct sl_texts {
    char *bytes;
    uint32_t *offsets; /* n + 1 */
} sl_texts;

/* Room for n texts of n_bytes in all (at most UINT32_MAX); the offsets are zero. SL_ERR_LIMIT, SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_texts_init(sl_texts *texts, size_t n, uint64_t n_bytes, sl_err *err);
void sl_texts_free(sl_texts *texts);

static inline const char *sl_texts_at(const sl_texts *texts, uint32_t i, size_t *n_bytes)
{
    *n_bytes = texts->offsets[i + 1] - texts->offsets[i];
    return texts->bytes + texts->offsets[i];
}

typedef struct sl_text_slot {
    uint32_t tag; /* upper half of the hash, so that most mismatches cost no second look */
    uint32_t id;  /* UINT32_MAX: empty */
} sl_text_slot;

/* Open-addressing hash from a text to its number in texts. */
typedef struct sl_text_index {
    const sl_texts *texts;
    sl_text_slot *slots;
    uint32_t mask;
    uint32_t max_bytes; /* longest text inside */
    uint64_t seed;      /* differs from run to run, so that a file cannot be made to collide */
} sl_text_index;

/* Empty index with room for n texts. The texts must outlive it. */
SL_WARN_UNUSED sl_status sl_text_index_init(sl_text_index *index, const sl_texts *texts, uint32_t n, sl_err *err);
void sl_text_index_free(sl_text_index *index);

/* Adds the texts below n, all of them or those that wanted says, in their order; of equal texts the first one stays. At
 * most as many as init was told, and once. Slots are fetched ahead: in a large vocabulary nearly each is a cache miss. */
void sl_text_index_add_all(sl_text_index *index, const bool *wanted, uint32_t n);

/* Number of the text; UINT32_MAX when there is none. */
uint32_t sl_text_index_find(const sl_text_index *index, const char *bytes, size_t n_bytes);

/* Mixes two words into one hash (multiply and fold). */
static inline uint64_t sl_hash_mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product =
        (unsigned __int128)(a ^ UINT64_C(0x9e3779b97f4a7c15)) * (b ^ UINT64_C(0xe7037ed1a0b428db));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Smallest power of two that is at least twice n, so that probe runs stay short. */
static inline uint32_t sl_hash_capacity(uint32_t n)
{
    uint32_t capacity = 16;
    while (capacity / 2 < n && capacity < UINT32_C(1) << 31)
        capacity *= 2;
    return capacity;
}

#endif
