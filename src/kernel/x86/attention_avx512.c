/* Attention for AVX-512, beside what attention.h tells: 6 queries by 4 vectors are held in registers, and 4 queries are
 * reduced together, a 128-bit lane for each. */
#include "kernel/x86/attention.h"
#include "kernel/x86/attention_avx512.h"

/* A tile whose rows and groups are constants where this is inlined. */
SL_INLINE void fma_shape(const int rows, const int groups, size_t n, const float *w, size_t w_stride,
                         const float *const x[TILE_ROWS], float *acc, size_t acc_stride, const float *keep)
{
    __m512 sum[TILE_ROWS][TILE_GROUPS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++)
            sum[r][j] =
                keep ? _mm512_mul_ps(_mm512_loadu_ps(acc + (size_t)r * acc_stride + j * LANES), _mm512_set1_ps(keep[r]))
                     : _mm512_setzero_ps();
    for (size_t c = 0; c < n; c++, w += w_stride) {
        __m512 wv[TILE_GROUPS];
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++)
            wv[j] = _mm512_loadu_ps(w + j * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            const __m512 xv = _mm512_set1_ps(x[r][c]);
#pragma GCC unroll 4
            for (int j = 0; j < groups; j++)
                sum[r][j] = _mm512_fmadd_ps(wv[j], xv, sum[r][j]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++)
            _mm512_storeu_ps(acc + (size_t)r * acc_stride + j * LANES, sum[r][j]);
}

#define TILE_SHAPE(r, g)                                                                                               \
    case (r)*8 + (g):                                                                                                  \
        fma_shape(r, g, n, w, w_stride, x, acc, acc_stride, keep);                                                     \
        break;
#define TILE_SHAPES(r) TILE_SHAPE(r, 1) TILE_SHAPE(r, 2) TILE_SHAPE(r, 3) TILE_SHAPE(r, 4)

SL_INLINE void fma_tile(size_t rows, size_t groups, size_t n, const float *w, size_t w_stride,
                        const float *const x[TILE_ROWS], float *acc, size_t acc_stride, const float *keep)
{
    switch (rows * 8 + groups) {
        TILE_SHAPES(1) TILE_SHAPES(2) TILE_SHAPES(3) TILE_SHAPES(4) TILE_SHAPES(5) TILE_SHAPES(6) default : break;
    }
}

/* ---- a chunk's keys and values as floats ---- */

/* Keys of one block to dst[d * 64]. */
#define LOAD_K(load, elem_bytes)                                                                                       \
    for (size_t d = 0; d < dim; d++)                                                                                   \
    _mm512_store_ps(dst + d * SL_KV_CHUNK, load(src + d * LANES * (elem_bytes), 0xffff))

static void load_k(const work *w, size_t block, float *dst)
{
    const char *src = sl_kv_k_head(&w->args->kv, block, w->kv_head);
    const size_t dim = w->dim;
    switch (w->args->kv.type) {
    case SL_KV_F32:
        LOAD_K(load_f32_lanes, 4);
        break;
    case SL_KV_F16:
        LOAD_K(load_f16_lanes, 2);
        break;
    case SL_KV_BF16:
        LOAD_K(load_bf16_lanes, 2);
        break;
    default: {
        const char *scales = src + sl_kv_q8_bytes(dim);
        for (size_t first = 0; first < dim; first += SL_KV_GROUP, scales += LANES * sizeof(uint16_t)) {
            const __m512 scale = load_f16_lanes(scales, 0xffff);
            const size_t end = first + SL_KV_GROUP < dim ? first + SL_KV_GROUP : dim;
            for (size_t d = first; d < end; d++)
                _mm512_store_ps(dst + d * SL_KV_CHUNK, load_q8_lanes(src + d * LANES, 0xffff) * scale);
        }
    }
    }
}

static void load_q4(float *dst, const uint8_t *nibbles, const uint16_t *scales, size_t dim)
{
    for (size_t d = 0; d < dim; d += SL_KV_GROUP, nibbles += SL_KV_GROUP / 2, scales++) {
        const __m512 scale = _mm512_set1_ps(_cvtsh_ss(*scales));
        const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)nibbles));
        const __m512i low = _mm512_and_si512(bytes, _mm512_set1_epi32(15)), high = _mm512_srli_epi32(bytes, 4);
        const __m512i zero = _mm512_set1_epi32(8);
        _mm512_store_ps(dst + d, _mm512_cvtepi32_ps(_mm512_sub_epi32(low, zero)) * scale);
        if (d + LANES < dim)
            _mm512_store_ps(dst + d + LANES, _mm512_cvtepi32_ps(_mm512_sub_epi32(high, zero)) * scale);
    }
}

/* Values of positions [from, to) of one block to rows of `padded` floats. */
#define LOAD_V(load, elem_bytes, ...)                                                                                  \
    do {                                                                                                               \
        for (size_t d = 0; d < whole; d += LANES)                                                                      \
            _mm512_store_ps(dst + d, load(src + (p * dim + d) * (elem_bytes), 0xffff) __VA_ARGS__);                    \
        if (whole < dim)                                                                                               \
            _mm512_store_ps(dst + whole, load(src + (p * dim + whole) * (elem_bytes), tail) __VA_ARGS__);              \
    } while (0)
#define EACH_POSITION for (size_t p = from; p < to; p++, dst += padded)

static void load_v(const work *w, size_t block, size_t from, size_t to, float *dst)
{
    const char *src = sl_kv_v_head(&w->args->kv, block, w->kv_head);
    const size_t dim = w->dim, padded = w->padded, groups = sl_kv_groups(dim), whole = dim - dim % LANES;
    const __mmask16 tail = (__mmask16)((1u << (dim - whole)) - 1);
    switch (w->args->kv.type) {
    case SL_KV_F32:
        EACH_POSITION LOAD_V(load_f32_lanes, 4);
        break;
    case SL_KV_F16:
        EACH_POSITION LOAD_V(load_f16_lanes, 2);
        break;
    case SL_KV_BF16:
        EACH_POSITION LOAD_V(load_bf16_lanes, 2);
        break;
    case SL_KV_Q8: {
        const uint16_t *scales = (const uint16_t *)(const void *)(src + sl_kv_q8_bytes(dim));
        EACH_POSITION LOAD_V(load_q8_lanes, 1, *_mm512_set1_ps(_cvtsh_ss(scales[p])));
        break;
    }
    default: {
        const uint16_t *scales = (const uint16_t *)(const void *)(src + sl_kv_q4_bytes(dim));
        EACH_POSITION load_q4(dst, (const uint8_t *)src + p * groups * (SL_KV_GROUP / 2), scales + p * groups, dim);
    }
    }
}

/* ---- softmax ---- */

/* What FOLD4 gives of queries 0-3, 4-7 and 8-11 is kept in one vector: query 4 g + l is element g of lane l. In memory
 * they stand in order; the way there is the way back. */
SL_INLINE __m512 join_folds(const __m512 fold[3])
{
    return _mm512_mask_mov_ps(_mm512_mask_mov_ps(fold[0], 0x2222, fold[1]), 0x4444, fold[2]);
}
SL_INLINE __m512 reorder(__m512 v)
{
    return _mm512_permutexvar_ps(_mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), v);
}

/* Largest scores of the queries, joined. */
SL_INLINE __m512 max_scores(const bool all_seen, const work *w, const query_block *b)
{
    __m512 fold[QUERY_BLOCK / STEP] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
#pragma GCC unroll 3
    for (size_t g = 0; g < QUERY_BLOCK / STEP; g++) {
        __m512 top[STEP];
        if (g * STEP >= b->n)
            break;
        EACH(j, STEP)
        {
            const size_t i = SL_MIN(g * STEP + (size_t)j, b->n - 1);
            const float *s = w->score + i * SL_KV_CHUNK;
            const uint64_t bits = all_seen ? 0 : seen_bits(b->seen[i]);
            top[j] = _mm512_set1_ps(-__builtin_inff());
            EACH(v, TILE_GROUPS)
            top[j] = all_seen ? _mm512_max_ps(_mm512_load_ps(s + v * LANES), top[j])
                              : _mm512_mask_max_ps(top[j], (__mmask16)(bits >> v * LANES),
                                                   _mm512_load_ps(s + v * LANES), top[j]);
        }
        fold[g] = FOLD4(_mm512_max_ps, top);
    }
    return join_folds(fold);
}

/* A query's scores become weights; their sum, 16 partial ones, to *part. */
SL_INLINE void weigh_all(float *s, __m512 scale, __m512 top, float *part)
{
    const __mmask16 used[STEP] = {0xffff, 0xffff, 0xffff, 0xffff};
    __m512 x[STEP];
    EACH(v, STEP) x[v] = _mm512_mul_ps(_mm512_load_ps(s + v * LANES), scale);
    EACH(v, STEP) x[v] = _mm512_sub_ps(x[v], top);
    exp_vectors(STEP, x, used);
    EACH(v, STEP) _mm512_store_ps(s + v * LANES, x[v]);
    _mm512_store_ps(part, _mm512_add_ps(_mm512_add_ps(_mm512_add_ps(x[0], x[1]), x[2]), x[3]));
}

/* The same where only some positions are seen: the others' weights, as far as they are made at all, are 0. */
SL_INLINE void weigh_seen(float *s, span seen, __m512 scale, __m512 top, float *part)
{
    const uint64_t bits = seen_bits(seen);
    __m512 sum = _mm512_setzero_ps();
    for (size_t at = seen.begin / LANES * LANES; at < seen.end; at += LANES) {
        const __mmask16 used = (__mmask16)(bits >> at);
        __m512 x = _mm512_sub_ps(_mm512_mul_ps(_mm512_load_ps(s + at), scale), top);
        exp_vectors(1, &x, &used);
        _mm512_store_ps(s + at, x);
        sum = _mm512_add_ps(sum, x);
    }
    _mm512_store_ps(part, sum);
}

/* Sums of the queries' weights, joined. */
SL_INLINE __m512 sum_weights(size_t n, float part[QUERY_BLOCK][LANES])
{
    __m512 fold[QUERY_BLOCK / STEP] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
#pragma GCC unroll 3
    for (size_t g = 0; g < QUERY_BLOCK / STEP; g++) {
        __m512 t[STEP];
        if (g * STEP >= n)
            break;
        EACH(j, STEP) t[j] = _mm512_load_ps(part[SL_MIN(g * STEP + (size_t)j, n - 1)]);
        fold[g] = FOLD4(_mm512_add_ps, t);
    }
    return join_folds(fold);
}

/* In three passes, each of which has all queries' work to fill the ports with: maxima, weights, sums. The maximum is that
 * of the unscaled scores, scaled: rounding keeps the order, and scale is positive. */
static void softmax_block(const work *w, const query_block *b, bool all_seen, float factor)
{
    _Alignas(64) float top[LANES], part[QUERY_BLOCK][LANES];
    const __m512 scale = _mm512_set1_ps(factor);
    const __mmask16 used = (__mmask16)((1u << b->n) - 1), all = 0xffff;
    float *max = w->max + b->first, *sum = w->sum + b->first;
    const __m512 old = reorder(_mm512_maskz_loadu_ps(used, max));
    __m512 new = _mm512_mul_ps(all_seen ? max_scores(true, w, b) : max_scores(false, w, b), scale);
    new = _mm512_max_ps(new, old);
    __m512 keep = _mm512_sub_ps(old, new);
    exp_vectors(1, &keep, &all);
    new = reorder(new);
    _mm512_store_ps(top, new);
    _mm512_mask_storeu_ps(max, used, new);
    _mm512_mask_storeu_ps(w->keep + b->first, used, reorder(keep));
    for (size_t i = 0; i < b->n; i++) {
        if (all_seen)
            weigh_all(w->score + i * SL_KV_CHUNK, scale, _mm512_set1_ps(top[i]), part[i]);
        else
            weigh_seen(w->score + i * SL_KV_CHUNK, b->seen[i], scale, _mm512_set1_ps(top[i]), part[i]);
    }
    keep = _mm512_mul_ps(reorder(_mm512_maskz_loadu_ps(used, sum)), keep);
    _mm512_mask_storeu_ps(sum, used, reorder(_mm512_add_ps(keep, sum_weights(b->n, part))));
}

void sl_attention_rows_avx512(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch,
                              uint32_t split, float *partial)
{
    if (sl_attention_is_few(args, tile))
        sl_attention_few_avx512(args, tile, kv_head, scratch, split, partial);
    else
        attention_run(args, tile, kv_head, scratch, split, partial);
}
