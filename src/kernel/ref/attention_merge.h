/* Shared by all attention kernels: which positions a row sees, and what splits of them come to together; the order of the operations stands at sl_attention in
 * kernel/ops.h. The total's acc is the row's place in `out` itself. */
#ifndef SL_KERNEL_REF_ATTENTION_MERGE_H
#define SL_KERNEL_REF_ATTENTION_MERGE_H

#include "kernel/ref/exp.h"

/* Positions [begin, end) that a row of the tile sees. */
typedef struct seen_range {
    size_t begin, end;
} seen_range;

SL_INLINE seen_range row_sees(const sl_attention *args, const sl_attention_tile *tile, size_t row)
{
    size_t end = (size_t)tile->position + row + 1, window = args->window;
    return (seen_range){window && end > window ? end - window : 0, end};
}

/* Positions of a chunk, as offsets in it; empty when begin == end. */
typedef struct span {
    size_t begin, end;
} span;

/* What a row sees of the chunk that begins at a position. */
SL_INLINE span sees_in_chunk(const sl_attention *args, const sl_attention_tile *tile, size_t row, size_t chunk_begin)
{
    seen_range seen = row_sees(args, tile, row);
    size_t begin = seen.begin > chunk_begin ? seen.begin - chunk_begin : 0;
    size_t end = seen.end > chunk_begin ? seen.end - chunk_begin : 0;
    end = end < SL_KV_CHUNK ? end : SL_KV_CHUNK;
    return begin < end ? (span){begin, end} : (span){0, 0};
}

SL_INLINE size_t align16(size_t n)
{
    return (n + LANES - 1) / LANES * LANES;
}

/* Adds a split's (max, sum, acc) to the total of one row and head. */
SL_INLINE void merge_split(float *out, float *all_max, float *all_sum, size_t dim, const float *acc, float max,
                           float sum, bool first)
{
    if (first) {
        *all_max = max;
        *all_sum = sum;
        memcpy(out, acc, dim * sizeof *out);
        return;
    }
    float top = *all_max > max ? *all_max : max;
    float a = exp_f32(*all_max - top), b = exp_f32(max - top);
    *all_max = top;
    *all_sum = *all_sum * a + sum * b;
    for (size_t d = 0; d < dim; d++)
        out[d] = __builtin_fmaf(acc[d], b, out[d] * a);
}

/* out may be acc. */
SL_INLINE void divide_by_sum(float *out, const float *acc, size_t dim, float sum)
{
    for (size_t d = 0; d < dim; d++)
        out[d] = acc[d] / sum;
}

#endif
