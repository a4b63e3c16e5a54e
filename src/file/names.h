/* Hashed look-up of names that came from outside: keyed SipHash, so that a file can't choose colliding names. */
#ifndef SL_FILE_NAMES_H
#define SL_FILE_NAMES_H

#include "base/status.h"

typedef struct sl_name {
    const char *bytes;
    uint32_t n_bytes;
    uint32_t hash;
} sl_name;

typedef struct sl_names {
    sl_name *names;  /* in the order they were added */
    uint32_t *slots; /* index of a name + 1; 0 is free */
    size_t n_names, n_slots;
    uint64_t key[2];
} sl_names;

/* Prepares caller storage with a random hash key; nothing is allocated yet. */
void sl_names_init(sl_names *names);
void sl_names_reset(sl_names *names);

/* Adds a name, whose bytes stay the caller's; its index is the number of names before it. SL_ERR_STATE when it is
 * there already, SL_ERR_NOMEM, SL_ERR_LIMIT above 2^31 names; err is not filled. */
SL_WARN_UNUSED sl_status sl_names_add(sl_names *names, const char *bytes, uint32_t n_bytes);

/* Index of the name; -1 when absent. */
int64_t sl_names_find(const sl_names *names, const char *bytes, size_t n_bytes);

#endif
