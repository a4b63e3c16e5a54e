/* Attention for AVX-512, beside what attention.h tells: 6 queries by 4 vectors are held in registers, and 4 queries are
 * reduced together, a 128-bit lane for each. */
#include "kernel/x86/attention.h"

enum { SOFTMAX_QUERIES = 4 };

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

SL_INLINE __m512 load_f32_lanes(const void *p, __mmask16 m)
{
    return _mm512_maskz_loadu_ps(m, p);
}
SL_INLINE __m512 load_f16_lanes(const void *p, __mmask16 m)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p));
}
SL_INLINE __m512 load_bf16_lanes(const void *p, __mmask16 m)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16));
}
SL_INLINE __m512 load_q8_lanes(const void *p, __mmask16 m)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(m, p)));
}

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

/* exp_f32 of ref/exp.h for x <= 0 or NaN: the clamps do nothing there, and scaling by a power of two is exact. */
SL_INLINE __m512 exp_lanes(__m512 x)
{
    const __m512 magic = _mm512_set1_ps(0x1.8p23f);
    __m512 n = _mm512_sub_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(0x1.715476p+0f), magic), magic);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.62e430p-1f), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(0x1.05c610p-29f), r);
    __m512 q = _mm512_set1_ps(0x1.6a23a8p-10f);
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.123a36p-7f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.5558f4p-5f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.555490p-3f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.fffffcp-2f));
    __m512 e = _mm512_add_ps(_mm512_fmadd_ps(q, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
    __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3365f), _CMP_NLT_UQ);
    return _mm512_maskz_scalef_ps(normal, e, n);
}

/* Folds four vectors as the tree of sum16 and max16 does; the result of the j-th fills the j-th 128-bit lane. */
#define FOLD4(op, t)                                                                                                   \
    ({                                                                                                                 \
        __m512 ab_ = op(_mm512_shuffle_f32x4(t[0], t[1], 0x44), _mm512_shuffle_f32x4(t[0], t[1], 0xee));               \
        __m512 cd_ = op(_mm512_shuffle_f32x4(t[2], t[3], 0x44), _mm512_shuffle_f32x4(t[2], t[3], 0xee));               \
        __m512 f_ = op(_mm512_shuffle_f32x4(ab_, cd_, 0x88), _mm512_shuffle_f32x4(ab_, cd_, 0xdd));                    \
        f_ = op(f_, _mm512_permute_ps(f_, 0x4e));                                                                      \
        f_ = op(f_, _mm512_permute_ps(f_, 0xb1));                                                                      \
        _mm512_permute_ps(f_, 0);                                                                                      \
    })

/* Four floats, each filling a 128-bit lane, and back; one of them everywhere. */
SL_INLINE __m512 spread4(const float *p, __mmask8 m)
{
    const __m512i index = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    return _mm512_permutexvar_ps(index, _mm512_castps128_ps512(_mm_maskz_loadu_ps(m, p)));
}
SL_INLINE void gather4(float *p, __mmask8 m, __m512 v)
{
    const __m512i index = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
    _mm_mask_storeu_ps(p, m, _mm512_castps512_ps128(_mm512_permutexvar_ps(index, v)));
}
SL_INLINE __m512 broadcast4(__m512 v, int j)
{
    return _mm512_permutexvar_ps(_mm512_set1_epi32(4 * j), v);
}

/* Turns the scores of n <= 4 queries into weights; max, sum and keep follow. Each sees something. */
SL_INLINE void softmax_queries(const int n, const bool all_seen, const work *w, size_t query, float *score,
                               const span *seen, __m512 scale)
{
    __m512 s[SOFTMAX_QUERIES][TILE_GROUPS], fold[SOFTMAX_QUERIES];
    const __mmask8 used = (__mmask8)((1u << n) - 1);
#pragma GCC unroll 4
    for (int j = 0; j < n; j++) {
        const uint64_t bits = ~UINT64_C(0) >> (SL_KV_CHUNK - seen[j].end) & ~UINT64_C(0) << seen[j].begin;
        fold[j] = _mm512_set1_ps(w->max[query + (size_t)j]);
#pragma GCC unroll 4
        for (int g = 0; g < TILE_GROUPS; g++) {
            __m512 t = _mm512_mul_ps(_mm512_loadu_ps(score + j * SL_KV_CHUNK + g * LANES), scale);
            if (!all_seen)
                t = _mm512_mask_blend_ps((__mmask16)(bits >> (g * LANES)), _mm512_set1_ps(-__builtin_inff()), t);
            fold[j] = _mm512_max_ps(t, fold[j]);
            s[j][g] = t;
        }
    }
#pragma GCC unroll 4
    for (int j = n; j < SOFTMAX_QUERIES; j++)
        fold[j] = fold[0];
    const __m512 old = spread4(w->max + query, used), max = FOLD4(_mm512_max_ps, fold);
    const __m512 keep = exp_lanes(_mm512_sub_ps(old, max));
    gather4(w->max + query, used, max);
    gather4(w->keep + query, used, keep);
#pragma GCC unroll 4
    for (int j = 0; j < n; j++) {
        const __m512 top = broadcast4(max, j);
#pragma GCC unroll 4
        for (int g = 0; g < TILE_GROUPS; g++) {
            s[j][g] = exp_lanes(_mm512_sub_ps(s[j][g], top));
            _mm512_storeu_ps(score + j * SL_KV_CHUNK + g * LANES, s[j][g]);
        }
        fold[j] = _mm512_add_ps(_mm512_add_ps(_mm512_add_ps(s[j][0], s[j][1]), s[j][2]), s[j][3]);
    }
    __m512 sum = _mm512_mul_ps(spread4(w->sum + query, used), keep);
    gather4(w->sum + query, used, _mm512_add_ps(sum, FOLD4(_mm512_add_ps, fold)));
}

static void softmax_block(const work *w, const query_block *b, bool all_seen, float factor)
{
    const __m512 scale = _mm512_set1_ps(factor);
    for (size_t i = 0; i < b->n; i += SOFTMAX_QUERIES) {
        size_t n = b->n - i, query = b->first + i;
        float *score = w->score + i * SL_KV_CHUNK;
        if (n >= 4 && all_seen)
            softmax_queries(4, true, w, query, score, b->seen + i, scale);
        else if (n >= 4)
            softmax_queries(4, false, w, query, score, b->seen + i, scale);
        else if (n == 3)
            softmax_queries(3, false, w, query, score, b->seen + i, scale);
        else if (n == 2)
            softmax_queries(2, false, w, query, score, b->seen + i, scale);
        else
            softmax_queries(1, false, w, query, score, b->seen + i, scale);
    }
}

void sl_attention_rows_avx512(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch,
                              uint32_t split, float *partial)
{
    attention_run(args, tile, kv_head, scratch, split, partial);
}
