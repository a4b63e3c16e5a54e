#include "base/arena.h"

#include "base/checked.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct sl_arena_chunk {
    sl_arena_chunk *next;
    size_t size, used; /* of the payload */
    max_align_t payload[];
};

void sl_arena_init(sl_arena *arena, size_t chunk_bytes)
{
    *arena = (sl_arena){.chunk_bytes = chunk_bytes ? chunk_bytes : 64 * 1024};
}

void sl_arena_reset(sl_arena *arena)
{
    while (arena->head) {
        sl_arena_chunk *next = arena->head->next;
        free(arena->head);
        arena->head = next;
    }
    arena->used_bytes = 0;
}

void *sl_arena_alloc(sl_arena *arena, size_t n_bytes)
{
    if (n_bytes > (size_t)PTRDIFF_MAX - sizeof(sl_arena_chunk) - 64)
        return NULL;
    size_t need = sl_align_up(n_bytes, 16);
    sl_arena_chunk *chunk = arena->head;
    if (!chunk || chunk->size - chunk->used < need) {
        size_t size = SL_MAX(need, arena->chunk_bytes);
        chunk = calloc(1, sizeof *chunk + size);
        if (!chunk)
            return NULL;
        chunk->size = size;
        chunk->next = arena->head;
        arena->head = chunk;
    }
    void *p = (char *)chunk->payload + chunk->used;
    chunk->used += need;
    arena->used_bytes += need;
    return p;
}

void *sl_arena_array(sl_arena *arena, size_t count, size_t elem_bytes)
{
    size_t n_bytes;
    if (__builtin_mul_overflow(count, elem_bytes, &n_bytes))
        return NULL;
    return sl_arena_alloc(arena, n_bytes);
}

char *sl_arena_strndup(sl_arena *arena, const char *bytes, size_t n_bytes)
{
    char *copy = n_bytes < SIZE_MAX ? sl_arena_alloc(arena, n_bytes + 1) : NULL;
    if (copy && n_bytes)
        memcpy(copy, bytes, n_bytes);
    return copy;
}

char *sl_arena_printf(sl_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *out = n >= 0 ? sl_arena_alloc(arena, (size_t)n + 1) : NULL;
    if (!out)
        return NULL;
    va_start(args, format);
    vsnprintf(out, (size_t)n + 1, format, args);
    va_end(args);
    return out;
}

void *sl_pages_alloc(size_t n_bytes)
{
    void *p = mmap(NULL, SL_MAX(n_bytes, 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (n_bytes >= (size_t)4 << 20)
        (void)madvise(p, n_bytes, MADV_HUGEPAGE);
    return p;
}

void sl_pages_free(void *pages, size_t n_bytes)
{
    if (pages)
        munmap(pages, SL_MAX(n_bytes, 1));
}
