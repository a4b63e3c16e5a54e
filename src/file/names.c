#include "file/names.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static uint64_t rotate(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012), folded to 32 bits. */
static uint32_t hash_of(const sl_names *names, const char *bytes, size_t n_bytes)
{
    uint64_t v[4] = {names->key[0] ^ UINT64_C(0x736f6d6570736575), names->key[1] ^ UINT64_C(0x646f72616e646f6d),
                     names->key[0] ^ UINT64_C(0x6c7967656e657261), names->key[1] ^ UINT64_C(0x7465646279746573)};
    for (size_t at = 0; at <= n_bytes; at += 8) {
        uint64_t word = 0;
        if (n_bytes - at >= 8) {
            memcpy(&word, bytes + at, 8);
        } else {
            memcpy(&word, bytes + at, n_bytes - at);
            word |= (uint64_t)n_bytes << 56;
        }
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    uint64_t hash = v[0] ^ v[1] ^ v[2] ^ v[3];
    return (uint32_t)(hash ^ hash >> 32);
}

void sl_names_init(sl_names *names)
{
    *names = (sl_names){0};
    if (getrandom(names->key, sizeof names->key, GRND_NONBLOCK) != (ssize_t)sizeof names->key) {
        names->key[0] = (uint64_t)sl_clock_ns();
        names->key[1] = (uint64_t)(uintptr_t)names;
    }
}

void sl_names_reset(sl_names *names)
{
    free(names->names);
    free(names->slots);
    *names = (sl_names){.key = {names->key[0], names->key[1]}};
}

/* Slot that holds the name, or the free one where it belongs. */
static size_t slot_of(const sl_names *names, const char *bytes, size_t n_bytes, uint32_t hash)
{
    size_t mask = names->n_slots - 1, slot = hash & mask;
    for (; names->slots[slot]; slot = (slot + 1) & mask) {
        const sl_name *name = &names->names[names->slots[slot] - 1];
        if (name->hash == hash && name->n_bytes == n_bytes && !memcmp(name->bytes, bytes, n_bytes))
            break;
    }
    return slot;
}

/* Room for twice as many names; at most half of the slots are ever used. */
static sl_status grow(sl_names *names)
{
    size_t n_slots = names->n_slots ? names->n_slots * 2 : 64;
    if (n_slots > (size_t)1 << 32)
        return SL_ERR_LIMIT;
    sl_name *wider = realloc(names->names, n_slots / 2 * sizeof *wider);
    if (!wider)
        return SL_ERR_NOMEM;
    names->names = wider;
    uint32_t *slots = calloc(n_slots, sizeof *slots);
    if (!slots)
        return SL_ERR_NOMEM;
    free(names->slots);
    names->slots = slots;
    names->n_slots = n_slots;
    for (size_t i = 0; i < names->n_names; i++) {
        size_t slot = names->names[i].hash & (n_slots - 1);
        while (slots[slot])
            slot = (slot + 1) & (n_slots - 1);
        slots[slot] = (uint32_t)i + 1;
    }
    return SL_OK;
}

sl_status sl_names_add(sl_names *names, const char *bytes, uint32_t n_bytes)
{
    if (names->n_names == names->n_slots / 2)
        SL_TRY(grow(names));
    uint32_t hash = hash_of(names, bytes, n_bytes);
    size_t slot = slot_of(names, bytes, n_bytes, hash);
    if (names->slots[slot])
        return SL_ERR_STATE;
    names->names[names->n_names++] = (sl_name){bytes, n_bytes, hash};
    names->slots[slot] = (uint32_t)names->n_names;
    return SL_OK;
}

int64_t sl_names_find(const sl_names *names, const char *bytes, size_t n_bytes)
{
    if (!names->n_names)
        return -1;
    size_t slot = slot_of(names, bytes, n_bytes, hash_of(names, bytes, n_bytes));
    return (int64_t)names->slots[slot] - 1;
}
