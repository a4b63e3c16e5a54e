/* Attention for AVX2, beside what attention.h tells: 16 registers hold 4 to 6 queries by 16 lanes, or up to 3 by 32. */
#include "kernel/x86/attention.h"

enum { PART = 8 }; /* lanes of a register */

/* ---- register tiles ---- */

/* A tile whose rows and groups are constants where this is inlined. */
SL_INLINE void fma_shape(const int rows, const int groups, size_t n, const float *w, size_t w_stride,
                         const float *const x[TILE_ROWS], float *acc, size_t acc_stride, const float *keep)
{
    __m256 sum[TILE_ROWS][4];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < 2 * groups; j++)
            sum[r][j] =
                keep ? _mm256_mul_ps(_mm256_loadu_ps(acc + (size_t)r * acc_stride + j * PART), _mm256_set1_ps(keep[r]))
                     : _mm256_setzero_ps();
    for (size_t c = 0; c < n; c++, w += w_stride) {
        __m256 wv[4];
#pragma GCC unroll 4
        for (int j = 0; j < 2 * groups; j++)
            wv[j] = _mm256_loadu_ps(w + j * PART);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            const __m256 xv = _mm256_broadcast_ss(x[r] + c);
#pragma GCC unroll 4
            for (int j = 0; j < 2 * groups; j++)
                sum[r][j] = _mm256_fmadd_ps(wv[j], xv, sum[r][j]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < 2 * groups; j++)
            _mm256_storeu_ps(acc + (size_t)r * acc_stride + j * PART, sum[r][j]);
}

#define TILE_SHAPE(r, g)                                                                                               \
    case (r)*8 + (g):                                                                                                  \
        fma_shape(r, g, n, w, w_stride, x, acc, acc_stride, keep);                                                     \
        break;

SL_INLINE void fma_tile(size_t rows, size_t groups, size_t n, const float *w, size_t w_stride,
                        const float *const x[TILE_ROWS], float *acc, size_t acc_stride, const float *keep)
{
    for (size_t once; groups > 0; groups -= once, w += once * LANES, acc += once * LANES) {
        once = rows > 3 || groups == 1 ? 1 : 2;
        switch (rows * 8 + once) {
            TILE_SHAPE(1, 1)
            TILE_SHAPE(2, 1)
            TILE_SHAPE(3, 1)
            TILE_SHAPE(4, 1)
            TILE_SHAPE(5, 1) TILE_SHAPE(6, 1) TILE_SHAPE(1, 2) TILE_SHAPE(2, 2) TILE_SHAPE(3, 2) default : break;
        }
    }
}

/* ---- a chunk's keys and values as floats ---- */

SL_INLINE __m256 load_f32_lanes(const void *p)
{
    return _mm256_loadu_ps(p);
}
SL_INLINE __m256 load_f16_lanes(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}
SL_INLINE __m256 load_bf16_lanes(const void *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
SL_INLINE __m256 load_q8_lanes(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)));
}

typedef __m256 load_fn(const void *p);

/* dim columns of a block's keys; load, elem_bytes and whether there is a scale (of each position) are constants where
 * inlined. */
SL_INLINE void load_k_as(load_fn *load, size_t elem_bytes, const char *src, const uint16_t *scales, size_t dim,
                         float *dst)
{
    __m256 scale[2];
    for (int p = 0; p < 2; p++)
        scale[p] = scales ? load_f16_lanes(scales + p * PART) : _mm256_setzero_ps();
    for (size_t d = 0; d < dim; d++, dst += SL_KV_CHUNK, src += LANES * elem_bytes) {
#pragma GCC unroll 2
        for (int p = 0; p < 2; p++) {
            const __m256 v = load(src + (size_t)p * PART * elem_bytes);
            _mm256_store_ps(dst + p * PART, scales ? _mm256_mul_ps(v, scale[p]) : v);
        }
    }
}

static void load_k(const work *w, size_t block, float *dst)
{
    const char *src = sl_kv_k_head(&w->args->kv, block, w->kv_head);
    switch (w->args->kv.type) {
    case SL_KV_F32:
        load_k_as(load_f32_lanes, 4, src, NULL, w->dim, dst);
        break;
    case SL_KV_F16:
        load_k_as(load_f16_lanes, 2, src, NULL, w->dim, dst);
        break;
    case SL_KV_BF16:
        load_k_as(load_bf16_lanes, 2, src, NULL, w->dim, dst);
        break;
    default: {
        const uint16_t *scales = (const uint16_t *)(const void *)(src + sl_kv_q8_bytes(w->dim));
        for (size_t d = 0; d < w->dim; d += SL_KV_GROUP, scales += SL_KV_BLOCK)
            load_k_as(load_q8_lanes, 1, src + d * SL_KV_BLOCK, scales, SL_MIN((size_t)SL_KV_GROUP, w->dim - d),
                      dst + d * SL_KV_CHUNK);
    }
    }
}

/* Values of one position, zeros up to a whole register; nothing behind them is read. */
SL_INLINE void load_v_as(load_fn *load, size_t elem_bytes, const char *src, const uint16_t *scale, size_t dim,
                         float *dst)
{
    const __m256 factor = _mm256_set1_ps(scale ? _cvtsh_ss(*scale) : 1.0f);
    const size_t whole = dim - dim % PART;
    for (size_t d = 0; d < whole; d += PART) {
        const __m256 v = load(src + d * elem_bytes);
        _mm256_store_ps(dst + d, scale ? _mm256_mul_ps(v, factor) : v);
    }
    if (whole < dim) {
        char tail[PART * sizeof(float)] = {0};
        memcpy(tail, src + whole * elem_bytes, (dim - whole) * elem_bytes);
        const __m256 v = load(tail);
        _mm256_store_ps(dst + whole, scale ? _mm256_mul_ps(v, factor) : v);
    }
}

static void load_q4(float *dst, const uint8_t *nibbles, const uint16_t *scales, size_t dim)
{
    const __m256i zero = _mm256_set1_epi32(8), low4 = _mm256_set1_epi32(15);
    for (size_t d = 0; d < dim; d += SL_KV_GROUP, nibbles += SL_KV_GROUP / 2, scales++) {
        const __m256 scale = _mm256_set1_ps(_cvtsh_ss(*scales));
#pragma GCC unroll 2
        for (size_t p = 0; p < LANES; p += PART) {
            const __m256i v = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(nibbles + p)));
            const __m256i low = _mm256_and_si256(v, low4), high = _mm256_srli_epi32(v, 4);
            _mm256_store_ps(dst + d + p, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(low, zero)), scale));
            if (d + LANES < dim)
                _mm256_store_ps(dst + d + LANES + p,
                                _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(high, zero)), scale));
        }
    }
}

static void load_v(const work *w, size_t block, size_t from, size_t to, float *dst)
{
    const sl_kv_type type = w->args->kv.type;
    const char *src = sl_kv_v_head(&w->args->kv, block, w->kv_head);
    const size_t dim = w->dim, groups = sl_kv_groups(dim);
    const size_t scales_at = type == SL_KV_K8V4 ? sl_kv_q4_bytes(dim) : sl_kv_q8_bytes(dim);
    const uint16_t *scales = (const uint16_t *)(const void *)(src + scales_at);
    for (size_t p = from; p < to; p++, dst += w->padded) {
        switch (type) {
        case SL_KV_F32:
            load_v_as(load_f32_lanes, 4, src + p * dim * 4, NULL, dim, dst);
            break;
        case SL_KV_F16:
            load_v_as(load_f16_lanes, 2, src + p * dim * 2, NULL, dim, dst);
            break;
        case SL_KV_BF16:
            load_v_as(load_bf16_lanes, 2, src + p * dim * 2, NULL, dim, dst);
            break;
        case SL_KV_Q8:
            load_v_as(load_q8_lanes, 1, src + p * dim, scales + p, dim, dst);
            break;
        default:
            load_q4(dst, (const uint8_t *)src + p * groups * (SL_KV_GROUP / 2), scales + p * groups, dim);
        }
    }
}

/* ---- softmax ---- */

/* exp_f32 of ref/exp.h for x <= 0 or NaN: its clamps do nothing there, and scaling by a power of two is exact. */
SL_INLINE __m256 exp_lanes(__m256 x)
{
    const __m256 magic = _mm256_set1_ps(0x1.8p23f), one = _mm256_set1_ps(1.0f);
    const __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(0x1.715476p+0f), magic), n = _mm256_sub_ps(t, magic);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.62e430p-1f), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(0x1.05c610p-29f), r);
    __m256 q = _mm256_set1_ps(0x1.6a23a8p-10f);
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.123a36p-7f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.5558f4p-5f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.555490p-3f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.fffffcp-2f));
    const __m256 e = _mm256_add_ps(_mm256_fmadd_ps(q, _mm256_mul_ps(r, r), r), one);
    /* The low bits of t are n; magic's own leave at the top. */
    const __m256i power = _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(t), 23), _mm256_castps_si256(one));
    const __m256 normal = _mm256_cmp_ps(x, _mm256_set1_ps(-87.3365f), _CMP_NLT_UQ);
    return _mm256_and_ps(_mm256_mul_ps(e, _mm256_castsi256_ps(power)), normal);
}

/* 16 values, in two registers, folded as the tree of sum16 and max16 does, in every lane. */
#define FOLD(op, low, high)                                                                                            \
    ({                                                                                                                 \
        __m256 f_ = op(low, high);                                                                                     \
        f_ = op(f_, _mm256_permute2f128_ps(f_, f_, 1));                                                                \
        f_ = op(f_, _mm256_permute_ps(f_, 0x4e));                                                                      \
        op(f_, _mm256_permute_ps(f_, 0xb1));                                                                           \
    })

SL_INLINE void softmax_query(const bool all_seen, const work *w, size_t query, float *score, span seen, __m256 scale)
{
    const __m256 old = _mm256_set1_ps(w->max[query]), nothing = _mm256_set1_ps(-__builtin_inff());
    const __m256i before = _mm256_set1_epi32((int)seen.begin - 1), end = _mm256_set1_epi32((int)seen.end);
    __m256i position = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256 top[2] = {old, old}, sum[2];
#pragma GCC unroll 8
    for (int i = 0; i < SL_KV_CHUNK / PART; i++) {
        __m256 t = _mm256_mul_ps(_mm256_loadu_ps(score + i * PART), scale);
        if (!all_seen) {
            __m256i in = _mm256_and_si256(_mm256_cmpgt_epi32(position, before), _mm256_cmpgt_epi32(end, position));
            t = _mm256_blendv_ps(nothing, t, _mm256_castsi256_ps(in));
            position = _mm256_add_epi32(position, _mm256_set1_epi32(PART));
            _mm256_storeu_ps(score + i * PART, t);
        }
        top[i % 2] = _mm256_max_ps(t, top[i % 2]);
    }
    const __m256 max = FOLD(_mm256_max_ps, top[0], top[1]), keep = exp_lanes(_mm256_sub_ps(old, max));
#pragma GCC unroll 8
    for (int i = 0; i < SL_KV_CHUNK / PART; i++) {
        __m256 t = _mm256_loadu_ps(score + i * PART);
        const __m256 p = exp_lanes(_mm256_sub_ps(all_seen ? _mm256_mul_ps(t, scale) : t, max));
        _mm256_storeu_ps(score + i * PART, p);
        sum[i % 2] = i < 2 ? p : _mm256_add_ps(sum[i % 2], p);
    }
    w->max[query] = _mm256_cvtss_f32(max);
    w->keep[query] = _mm256_cvtss_f32(keep);
    w->sum[query] = w->sum[query] * w->keep[query] + _mm256_cvtss_f32(FOLD(_mm256_add_ps, sum[0], sum[1]));
}

static void softmax_block(const work *w, const query_block *b, bool all_seen, float scale)
{
    for (size_t i = 0; i < b->n; i++) {
        float *score = w->score + i * SL_KV_CHUNK;
        if (all_seen)
            softmax_query(true, w, b->first + i, score, b->seen[i], _mm256_set1_ps(scale));
        else
            softmax_query(false, w, b->first + i, score, b->seen[i], _mm256_set1_ps(scale));
    }
}

void sl_attention_rows_avx2(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch,
                            uint32_t split, float *partial)
{
    attention_run(args, tile, kv_head, scratch, split, partial);
}
