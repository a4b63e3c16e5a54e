/* Attention for AVX-512: the arithmetic of ref/attention_tmpl.h, which kernel/ops.h fixes. What makes it fast:
 *  - 12 queries at a time go through scores, softmax and values while the chunk's K and V (float32, converted once for
 *    all rows of the tile) and their scores stay in the L1 cache;
 *  - 6 queries by 4 vectors are held in registers, the rescaling of acc happens while it is loaded;
 *  - 4 queries are reduced together, a 128-bit lane for each;
 *  - blocks of 16 positions that no row of a register tile sees have no scores. */
#include "kernel/kv_layout.h"
#include "kernel/ref/attention_merge.h"

#include <immintrin.h>

enum { TILE_ROWS = 6, TILE_GROUPS = 4, QUERY_BLOCK = 12, SOFTMAX_QUERIES = 4 };

typedef struct work {
    const sl_attention *args;
    const sl_attention_tile *tile;
    size_t kv_head, dim, padded; /* head_dim; the same rounded up to 16 */
    size_t n_heads, n_queries;   /* query heads of this KV head; n_heads * rows */
    const float *q;              /* the first query's */
    float *score;                /* [QUERY_BLOCK][64] */
    float *acc;                  /* [n_queries][padded], of the split in progress like max and sum */
    float *max, *sum, *keep;     /* [n_queries]; keep: what acc is still to be multiplied with */
    float *all_max, *all_sum;    /* [n_queries], of the splits so far */
    float *k;                    /* [dim][64] of the chunk */
    float *v;                    /* [64][padded] of the chunk */
} work;

/* ---- register tiles ---- */

/* acc[r][j] = fma(w[c][j], x[r][c], acc[r][j]), c = 0, 1, … n - 1; r < rows, j < groups of 16 lanes, both constants where
 * this is inlined. keep: what each row's acc is multiplied with first; NULL: acc starts at 0. */
SL_INLINE void fma_tile(const int rows, const int groups, size_t n, const float *w, size_t w_stride,
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
        fma_tile(r, g, n, w, w_stride, x, acc, acc_stride, keep);                                                      \
        break;
#define TILE_SHAPES(r) TILE_SHAPE(r, 1) TILE_SHAPE(r, 2) TILE_SHAPE(r, 3) TILE_SHAPE(r, 4)
#define TILE_SWITCH(rows, groups)                                                                                      \
    switch ((rows)*8 + (groups)) {                                                                                     \
        TILE_SHAPES(1) TILE_SHAPES(2) TILE_SHAPES(3) TILE_SHAPES(4) TILE_SHAPES(5) TILE_SHAPES(6) default : break;     \
    }

/* Scores of `rows` queries from `query` on with the chunk's positions [16 group, 16 (group + groups)). */
static void score_tile(const work *w_, size_t query, size_t rows, size_t group, size_t groups, float *acc)
{
    const size_t n = w_->dim, w_stride = SL_KV_CHUNK, acc_stride = SL_KV_CHUNK;
    const float *w = w_->k + group * LANES, *const keep = NULL, *x[TILE_ROWS];
    size_t row = query / w_->n_heads, head = query % w_->n_heads;
    for (size_t r = 0; r < rows; r++) {
        x[r] = w_->q + row * w_->args->q_stride_elems + head * n;
        if (++head == w_->n_heads)
            head = 0, row++;
    }
    acc += group * LANES;
    TILE_SWITCH(rows, groups)
}

/* acc of `rows` queries from `query` on, which all see the positions; score is the first one's. */
static void value_tile(const work *w_, size_t query, size_t rows, span seen, const float *score, const float *keep)
{
    const size_t n = seen.end - seen.begin, w_stride = w_->padded, acc_stride = w_->padded;
    const float *x[TILE_ROWS];
    for (size_t r = 0; r < TILE_ROWS; r++)
        x[r] = score + seen.begin + r * SL_KV_CHUNK;
    for (size_t d = 0; d < w_->padded; d += TILE_GROUPS * LANES) {
        const float *w = w_->v + seen.begin * w_->padded + d;
        float *acc = w_->acc + query * w_->padded + d;
        size_t groups = (w_->padded - d) / LANES;
        groups = groups < TILE_GROUPS ? groups : TILE_GROUPS;
        TILE_SWITCH(rows, groups)
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

/* Keys of the blocks that hold seen positions. */
static void load_keys(const work *w, const uint32_t *blocks, span seen)
{
    for (size_t b = seen.begin / SL_KV_BLOCK; b * SL_KV_BLOCK < seen.end; b++)
        load_k(w, blocks[b], w->k + b * SL_KV_BLOCK);
}

/* Values of the seen positions. */
static void load_values(const work *w, const uint32_t *blocks, span seen)
{
    for (size_t p = seen.begin, next; p < seen.end; p = next) {
        size_t b = p / SL_KV_BLOCK, begin = b * SL_KV_BLOCK;
        next = begin + SL_KV_BLOCK < seen.end ? begin + SL_KV_BLOCK : seen.end;
        load_v(w, blocks[b], p - begin, next - begin, w->v + p * w->padded);
    }
}

/* Brings the i-th of n parts of the next chunk near; there are n query blocks to do so between. */
static void prefetch_part(const work *w, size_t next_chunk, size_t i, size_t n)
{
    const sl_kv_layer *kv = &w->args->kv;
    size_t last = (size_t)w->tile->position + w->tile->n_rows - 1;
    enum { PARTS = 2 * SL_KV_CHUNK / SL_KV_BLOCK };
    for (size_t part = i * PARTS / n; part < (i + 1) * PARTS / n; part++) {
        size_t position = next_chunk + part / 2 * SL_KV_BLOCK;
        if (position > last)
            return;
        size_t block = w->tile->blocks[position / SL_KV_BLOCK];
        const char *p = part % 2 ? sl_kv_v_head(kv, block, w->kv_head) : sl_kv_k_head(kv, block, w->kv_head);
        size_t n_bytes = part % 2 ? sl_kv_v_head_bytes(kv->type, w->dim) : sl_kv_k_head_bytes(kv->type, w->dim);
        for (size_t at = 0; at < n_bytes; at += 64)
            _mm_prefetch(p + at, _MM_HINT_T1);
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

/* s = cap * tanh(scale * score / cap), for the rare models that cap. */
static void cap_scores(float *s, size_t n, float scale, float cap)
{
    for (size_t i = 0; i < n; i++)
        s[i] = cap * tanh_f32(s[i] * scale / cap);
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

/* ---- a block of queries in a chunk ---- */

typedef struct query_block {
    size_t first, n; /* queries */
    span seen[QUERY_BLOCK];
} query_block;

static query_block query_block_of(const work *w, size_t first, size_t n, size_t chunk_begin)
{
    query_block b = {.first = first, .n = n};
    size_t row = first / w->n_heads, next_row = (row + 1) * w->n_heads - first;
    span seen = sees_in_chunk(w->args, w->tile, row, chunk_begin);
    for (size_t i = 0; i < n; i++) {
        if (i == next_row) {
            seen = sees_in_chunk(w->args, w->tile, ++row, chunk_begin);
            next_row += w->n_heads;
        }
        b.seen[i] = seen;
    }
    return b;
}

static void score_queries(const work *w, const query_block *b)
{
    for (size_t i = 0, n; i < b->n; i += n) {
        n = b->n - i < TILE_ROWS ? b->n - i : TILE_ROWS;
        size_t group = b->seen[i].begin / LANES, last = (b->seen[i + n - 1].end - 1) / LANES;
        score_tile(w, b->first + i, n, group, last - group + 1, w->score + i * SL_KV_CHUNK);
    }
}

static void weigh_queries(const work *w, const query_block *b)
{
    const float cap = w->args->softcap;
    __m512 scale = _mm512_set1_ps(w->args->scale);
    if (cap > 0) {
        cap_scores(w->score, b->n * SL_KV_CHUNK, w->args->scale, cap);
        scale = _mm512_set1_ps(1.0f);
    }
    const span *first = &b->seen[0], *last = &b->seen[b->n - 1];
    bool all_seen = first->begin == 0 && first->end == SL_KV_CHUNK && last->begin == 0 && last->end == SL_KV_CHUNK;
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

static const float ones[TILE_ROWS] = {1, 1, 1, 1, 1, 1};

/* Adds to queries [i, end) of a register tile, those of a row together, the values that not all of them see: the
 * positions before `common` where `before`, else those behind it. */
static void add_uncommon(const work *w, const query_block *b, size_t i, size_t end, span common, bool before)
{
    for (size_t next; i < end; i = next) {
        span own = b->seen[i];
        for (next = i + 1; next < end && b->seen[next].begin == own.begin && b->seen[next].end == own.end; next++)
            continue;
        if (before)
            own.end = common.begin < own.end ? common.begin : own.end;
        else
            own.begin = common.end > own.begin ? common.end : own.begin;
        if (own.begin < own.end)
            value_tile(w, b->first + i, next - i, own, w->score + i * SL_KV_CHUNK, ones);
    }
}

static void add_values(const work *w, const query_block *b)
{
    for (size_t i = 0, n; i < b->n; i += n) {
        n = b->n - i < TILE_ROWS ? b->n - i : TILE_ROWS;
        const size_t query = b->first + i;
        const float *keep = w->keep + query;
        const span first = b->seen[i], last = b->seen[i + n - 1];
        span common = {last.begin, first.end};
        if (common.begin > first.begin) {
            for (size_t j = query; j < query + n; j++)
                for (size_t d = 0; d < w->padded; d++)
                    w->acc[j * w->padded + d] *= w->keep[j];
            keep = ones;
            if (common.begin >= common.end)
                common = (span){SL_KV_CHUNK, SL_KV_CHUNK};
            add_uncommon(w, b, i, i + n, common, true);
        }
        if (common.begin < common.end)
            value_tile(w, query, n, common, w->score + i * SL_KV_CHUNK, keep);
        if (last.end > first.end)
            add_uncommon(w, b, i, i + n, common, false);
    }
}

static void add_chunk(const work *w, size_t chunk_begin)
{
    size_t n_rows = w->tile->n_rows, first = 0, end = n_rows;
    while (first < n_rows && sees_in_chunk(w->args, w->tile, first, chunk_begin).end == 0)
        first++;
    while (end > first && sees_in_chunk(w->args, w->tile, end - 1, chunk_begin).end == 0)
        end--;
    if (first == end)
        return;
    const uint32_t *blocks = w->tile->blocks + chunk_begin / SL_KV_BLOCK;
    const span seen = {sees_in_chunk(w->args, w->tile, first, chunk_begin).begin,
                       sees_in_chunk(w->args, w->tile, end - 1, chunk_begin).end};
    const size_t query = first * w->n_heads, n = end * w->n_heads - query;
    const size_t n_blocks = (n + QUERY_BLOCK - 1) / QUERY_BLOCK;
    load_keys(w, blocks, seen);
    if (n_blocks > 1)
        load_values(w, blocks, seen);
    for (size_t i = 0; i < n_blocks; i++) {
        size_t at = i * QUERY_BLOCK, left = n - at;
        query_block b = query_block_of(w, query + at, left < QUERY_BLOCK ? left : QUERY_BLOCK, chunk_begin);
        prefetch_part(w, chunk_begin + SL_KV_CHUNK, i, n_blocks);
        score_queries(w, &b);
        weigh_queries(w, &b);
        if (n_blocks == 1)
            load_values(w, blocks, seen);
        add_values(w, &b);
    }
}

/* ---- splits ---- */

static void work_init(work *w, const sl_attention *args, const sl_attention_tile *tile, size_t kv_head, float *scratch)
{
    size_t dim = args->kv.head_dim, n_heads = args->n_heads / args->kv.n_kv_heads, n = n_heads * tile->n_rows;
    *w = (work){.args = args, .tile = tile, .kv_head = kv_head, .dim = dim, .n_heads = n_heads, .n_queries = n};
    w->padded = align16(dim);
    w->k = scratch;
    w->v = w->k + SL_KV_CHUNK * dim;
    w->acc = w->v + SL_KV_CHUNK * w->padded;
    if (n <= QUERY_BLOCK) /* the keys have been used when the values are loaded: half the traffic of the L1 cache */
        w->v = w->k;
    w->score = w->acc + n * w->padded;
    w->max = w->score + QUERY_BLOCK * SL_KV_CHUNK;
    w->sum = w->max + align16(n);
    w->keep = w->sum + align16(n);
    w->all_max = w->keep + align16(n);
    w->all_sum = w->all_max + align16(n);
    w->q = args->q + tile->row * args->q_stride_elems + kv_head * n_heads * dim;
}

static void run_split(const work *w, size_t split)
{
    size_t end = (split + 1) * SL_KV_SPLIT, seen_begin = row_sees(w->args, w->tile, 0).begin;
    size_t seen_end = (size_t)w->tile->position + w->tile->n_rows, chunk = split * SL_KV_SPLIT;
    end = end < seen_end ? end : seen_end;
    chunk = seen_begin > chunk ? seen_begin / SL_KV_CHUNK * SL_KV_CHUNK : chunk;
    for (size_t i = 0; i < w->n_queries; i++) {
        w->max[i] = -__builtin_inff();
        w->sum[i] = 0.0f;
    }
    memset(w->acc, 0, w->n_queries * w->padded * sizeof *w->acc);
    for (; chunk < end; chunk += SL_KV_CHUNK)
        add_chunk(w, chunk);
}

static void merge_queries(const work *w, size_t split)
{
    for (size_t i = 0; i < w->n_queries; i++) {
        size_t row = i / w->n_heads, head = w->kv_head * w->n_heads + i % w->n_heads;
        seen_range seen = row_sees(w->args, w->tile, row);
        size_t first = seen.begin / SL_KV_SPLIT, last = (seen.end - 1) / SL_KV_SPLIT;
        float *out = w->args->out + (w->tile->row + row) * w->args->out_stride_elems + head * w->dim;
        if (split < first || split > last)
            continue;
        if (first == last) {
            divide_by_sum(out, w->acc + i * w->padded, w->dim, w->sum[i]);
            continue;
        }
        merge_split(out, &w->all_max[i], &w->all_sum[i], w->dim, w->acc + i * w->padded, w->max[i], w->sum[i],
                    split == first);
        if (split == last)
            divide_by_sum(out, out, w->dim, w->all_sum[i]);
    }
}

void sl_attention_rows_avx512(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch,
                              uint32_t split, float *partial)
{
    work w;
    work_init(&w, args, tile, kv_head, scratch);
    if (!partial) {
        uint32_t end;
        for (sl_attention_splits(tile, args->window, &split, &end); split < end; split++) {
            run_split(&w, split);
            merge_queries(&w, split);
        }
        return;
    }
    run_split(&w, split);
    for (size_t i = 0; i < w.n_queries; i++, partial += w.padded + LANES) {
        memcpy(partial, w.acc + i * w.padded, w.padded * sizeof *partial);
        partial[w.padded] = w.max[i];
        partial[w.padded + 1] = w.sum[i];
    }
}
