/* Arena: memory that is taken piece by piece and given back all at once. Not thread-safe. */
#ifndef SL_BASE_ARENA_H
#define SL_BASE_ARENA_H

#include "base/status.h"

typedef struct sl_arena_chunk sl_arena_chunk;

typedef struct sl_arena {
    sl_arena_chunk *head; /* newest chunk first */
    size_t chunk_bytes;   /* size of an ordinary chunk */
    size_t used_bytes;    /* handed out in all, alignment included */
} sl_arena;

/* Prepares caller-owned storage; nothing is allocated yet. chunk_bytes 0 means 64 KiB. */
void sl_arena_init(sl_arena *arena, size_t chunk_bytes);

/* Frees everything that was handed out; the arena may be used again. */
void sl_arena_reset(sl_arena *arena);

/* n_bytes of zeroed memory aligned to 16; NULL when memory is short or n_bytes exceeds PTRDIFF_MAX. */
void *sl_arena_alloc(sl_arena *arena, size_t n_bytes) SL_WARN_UNUSED;

/* Zeroed array of count elements of elem_bytes; NULL when short or when the product overflows. */
void *sl_arena_array(sl_arena *arena, size_t count, size_t elem_bytes) SL_WARN_UNUSED;

/* NUL-terminated copy of n_bytes at bytes; NULL when short. */
char *sl_arena_strndup(sl_arena *arena, const char *bytes, size_t n_bytes) SL_WARN_UNUSED;

/* printf into the arena; NULL when short. */
char *sl_arena_printf(sl_arena *arena, const char *format, ...) SL_PRINTF(2, 3) SL_WARN_UNUSED;

/* n_bytes of zeroed memory from the system, 64-byte aligned and with transparent huge pages asked for where
 * it is large; NULL when short. Freed with sl_pages_free and the same size. */
void *sl_pages_alloc(size_t n_bytes) SL_WARN_UNUSED;

void sl_pages_free(void *pages, size_t n_bytes);

#endif
