/* Checked size arithmetic: every sum and product of numbers that came from outside goes through these. */
#ifndef SL_BASE_CHECKED_H
#define SL_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* *out = a + b; false (and *out unspecified) when it does not fit. */
static inline bool sl_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* *out = a * b; false when it does not fit. */
static inline bool sl_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* *out = a rounded up to a multiple of align (a power of two); false when it does not fit. */
static inline bool sl_align_up_u64(uint64_t a, uint64_t align, uint64_t *out)
{
    uint64_t sum;
    if (!sl_add_u64(a, align - 1, &sum))
        return false;
    *out = sum & ~(align - 1);
    return true;
}

/* a rounded up to a multiple of align (a power of two), for sizes already known to be small. */
static inline size_t sl_align_up(size_t a, size_t align)
{
    return (a + align - 1) & ~(align - 1);
}

static inline uint64_t sl_ceil_div(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

#endif
