/* Attention of few queries for AVX-512: a decode step, a short chunk of a prompt. The arithmetic is that of
 * ref/attention_tmpl.h, which kernel/ops.h fixes. Few queries give the memory and the start of each loop much weight, so
 *  - K and V are converted in registers, by the first 6 queries' arithmetic, which stores them if there are more;
 *  - a whole split goes through scores, then softmax, then values: its exponentials don't wait for each other, and sums
 *    of values stay in registers over 256 positions;
 *  - what comes next is asked for evenly: the next chunk's keys, the values a chunk ahead. */
#include "kernel/x86/attention_avx512.h"

enum {
    TILE_ROWS = 6,
    TILE_GROUPS = 4,
    CHUNK_BLOCKS = SL_KV_CHUNK / SL_KV_BLOCK,
    SPLIT_CHUNKS = SL_KV_SPLIT / SL_KV_CHUNK,
    SPLIT_BLOCKS = SL_KV_SPLIT / SL_KV_BLOCK,
    ROOM = (SL_ATTENTION_FEW + LANES - 1) / LANES * LANES, /* queries, in whole vectors */
    LINE_BYTES = 64,
};

typedef struct work {
    const sl_attention *args;
    const sl_attention_tile *tile;
    size_t kv_head, dim, n_heads, n; /* n queries: a query head of a row each */
    float *score;                    /* [n][256] */
    float *acc;                      /* [n][acc_stride] */
    size_t acc_stride;
    bool alone;                                                     /* with all splits */
    uint64_t turns[(SL_ATTENTION_FEW + TILE_ROWS - 1) / TILE_ROWS]; /* of each tile, see value_shape */
    float *floats; /* a chunk's keys, or 64 columns of its values, for the tiles behind the first */
    const float *q[SL_ATTENTION_FEW];
    /* Of the split in progress: */
    span seen[SL_ATTENTION_FEW];
    size_t begin, end;                             /* positions that some query sees */
    bool all_see[SPLIT_CHUNKS];                    /* each query sees the whole chunk */
    const char *k[SPLIT_BLOCKS], *v[SPLIT_BLOCKS]; /* of the blocks, an unseen one's like a neighbour's */
    const char *later[CHUNK_BLOCKS];               /* what is asked for during the last values */
    _Alignas(64) float max[SPLIT_CHUNKS][ROOM], sum[SPLIT_CHUNKS][ROOM], keep[SPLIT_CHUNKS][ROOM];
} work;

typedef __m512 load_fn(const void *p, __mmask16 m);

/* ---- register tiles ---- */

SL_INLINE void fetch(const char *from, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i += LINE_BYTES)
        _mm_prefetch(from + i, _MM_HINT_T1);
}

/* Where a tile's K or V come from. With several tiles the first stores what it converts, for the others. */
typedef enum source { IN_PLACE, STORED_NOW, FLOATS } source;

/* Scores of `rows` queries with the 64 positions of the blocks k, or of floats [dim][64]; of next[0 … n_next - 1] as much
 * is asked for as is read of a block. from, load, elem and rows are constants where this is inlined. */
SL_INLINE void score_shape(const source from, load_fn *load, const size_t elem, const int rows, const size_t dim,
                           const char *const k[CHUNK_BLOCKS], float *floats, const float *const q[TILE_ROWS],
                           float *score, const char *const *next, size_t n_next)
{
    __m512 sum[TILE_ROWS][CHUNK_BLOCKS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < CHUNK_BLOCKS; j++)
            sum[r][j] = _mm512_setzero_ps();
    for (size_t d = 0; d < dim; d += 4) {
        for (size_t j = 0; j < n_next; j++)
            fetch(next[j] + d * LANES * elem, 4 * LANES * elem);
        for (size_t c = d; c < d + 4; c++, floats += SL_KV_CHUNK) {
            __m512 kv[CHUNK_BLOCKS];
#pragma GCC unroll 4
            for (int j = 0; j < CHUNK_BLOCKS; j++) {
                kv[j] = from == FLOATS ? _mm512_load_ps(floats + j * LANES) : load(k[j] + c * LANES * elem, 0xffff);
                if (from == STORED_NOW)
                    _mm512_store_ps(floats + j * LANES, kv[j]);
            }
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                const __m512 qv = _mm512_set1_ps(q[r][c]);
#pragma GCC unroll 4
                for (int j = 0; j < CHUNK_BLOCKS; j++)
                    sum[r][j] = _mm512_fmadd_ps(kv[j], qv, sum[r][j]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < CHUNK_BLOCKS; j++)
            _mm512_storeu_ps(score + r * SL_KV_SPLIT + j * LANES, sum[r][j]);
}

/* Adds the values of positions seen, 16 * groups columns from d on, to acc of `rows` queries from `query` on; where they
 * are stored as floats, [64][16 * groups], the positions are a chunk. ahead: the same place four blocks on is asked for. */
SL_INLINE void value_shape(const source from, load_fn *load, const size_t elem, const int rows, const int groups,
                           const work *w, size_t query, size_t d, span seen, uint64_t turns)
{
    __m512 sum[TILE_ROWS][TILE_GROUPS];
    const size_t stride = w->dim * elem;
    const float *score = w->score + query * SL_KV_SPLIT;
    float *acc = w->acc + query * w->acc_stride + d, *floats = w->floats;
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++)
            sum[r][j] = _mm512_loadu_ps(acc + (size_t)r * w->acc_stride + j * LANES);
    for (size_t p = seen.begin, end; p < seen.end; p = end) {
        const size_t block = p / SL_KV_BLOCK;
        const char *at = w->v[block] + (p % SL_KV_BLOCK * w->dim + d) * elem;
        end = SL_MIN((block + 1) * SL_KV_BLOCK, seen.end);
        const char *to = (block + CHUNK_BLOCKS < SPLIT_BLOCKS ? w->v[block + CHUNK_BLOCKS]
                                                              : w->later[block + CHUNK_BLOCKS - SPLIT_BLOCKS]) +
                         d * elem;
        if (p % SL_KV_CHUNK == 0) {
            const float *keep = &w->keep[p / SL_KV_CHUNK][query];
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
                for (int j = 0; j < groups; j++)
                    sum[r][j] = _mm512_mul_ps(sum[r][j], _mm512_set1_ps(keep[r]));
        }
        for (; p < end; p++, at += stride, floats += groups * LANES, to += stride) {
            if (turns >> p % SL_KV_CHUNK & 1)
                fetch(to, (size_t)groups * LANES * elem);
            __m512 kv[TILE_GROUPS];
#pragma GCC unroll 4
            for (int j = 0; j < groups; j++) {
                kv[j] =
                    from == FLOATS ? _mm512_load_ps(floats + j * LANES) : load(at + (size_t)j * LANES * elem, 0xffff);
                if (from == STORED_NOW)
                    _mm512_store_ps(floats + j * LANES, kv[j]);
            }
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                const __m512 weight = _mm512_set1_ps(score[r * SL_KV_SPLIT + p]);
#pragma GCC unroll 4
                for (int j = 0; j < groups; j++)
                    sum[r][j] = _mm512_fmadd_ps(kv[j], weight, sum[r][j]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++)
            _mm512_storeu_ps(acc + (size_t)r * w->acc_stride + j * LANES, sum[r][j]);
}

#define SHAPE(from, type, rows, groups) ((((from)*SL_KV_TYPE_COUNT + (type)) * 8 + (rows)) * 8 + (groups))
#define SCORE_SHAPE(from, type, load, elem, rows)                                                                      \
    case SHAPE(from, type, rows, CHUNK_BLOCKS):                                                                        \
        score_shape(from, load, elem, rows, w->dim, k, w->floats, q, score, next, n_next);                             \
        break;
#define VALUE_SHAPE(from, type, load, elem, rows, groups)                                                              \
    case SHAPE(from, type, rows, groups):                                                                              \
        value_shape(from, load, elem, rows, groups, w, query, d, seen, turns);                                         \
        break;
#define VALUE_SHAPES(from, type, load, elem, rows)                                                                     \
    VALUE_SHAPE(from, type, load, elem, rows, 2) VALUE_SHAPE(from, type, load, elem, rows, 4)
/* X for each source, type and number of rows that there are */
#define EACH_ROWS(X, from, type, load, elem)                                                                           \
    X(from, type, load, elem, 1)                                                                                       \
    X(from, type, load, elem, 2)                                                                                       \
    X(from, type, load, elem, 3)                                                                                       \
    X(from, type, load, elem, 4) X(from, type, load, elem, 5) X(from, type, load, elem, TILE_ROWS)
#define EACH_TYPE(X, type, load, elem)                                                                                 \
    EACH_ROWS(X, IN_PLACE, type, load, elem) X(STORED_NOW, type, load, elem, TILE_ROWS)
#define EACH_SHAPE(X)                                                                                                  \
    EACH_TYPE(X, SL_KV_F16, load_f16_lanes, 2)                                                                         \
    EACH_TYPE(X, SL_KV_BF16, load_bf16_lanes, 2)                                                                       \
    EACH_TYPE(X, SL_KV_F32, load_f32_lanes, 4)                                                                         \
    EACH_ROWS(X, FLOATS, SL_KV_F32, load_f32_lanes, 4)

static void score_tile(const work *w, source from, size_t rows, const char *const k[CHUNK_BLOCKS],
                       const float *const q[TILE_ROWS], float *score, const char *const *next, size_t n_next)
{
    const sl_kv_type type = from == FLOATS ? SL_KV_F32 : w->args->kv.type;
    switch (SHAPE(from, type, rows, CHUNK_BLOCKS)) {
        EACH_SHAPE(SCORE_SHAPE)
    }
}

static void value_tile(const work *w, source from, size_t query, size_t rows, size_t d, size_t groups, span seen,
                       uint64_t turns)
{
    const sl_kv_type type = from == FLOATS ? SL_KV_F32 : w->args->kv.type;
    switch (SHAPE(from, type, rows, groups)) {
        EACH_SHAPE(VALUE_SHAPES)
    }
}

/* ---- a split ---- */

static span both(span a, span b)
{
    return (span){a.begin > b.begin ? a.begin : b.begin, SL_MIN(a.end, b.end)};
}

/* Which positions each query sees, and where the blocks lie. Some query sees something. */
static void split_init(work *w, size_t split)
{
    const sl_kv_layer *kv = &w->args->kv;
    const size_t at = split * SL_KV_SPLIT;
    span common = {0, SL_KV_SPLIT};
    w->begin = SL_KV_SPLIT;
    w->end = 0;
    for (size_t i = 0; i < w->n; i++) {
        const seen_range all = row_sees(w->args, w->tile, i / w->n_heads);
        const size_t begin = all.begin > at ? all.begin - at : 0;
        const size_t end = all.end > at ? SL_MIN(all.end - at, (size_t)SL_KV_SPLIT) : 0;
        w->seen[i] = begin < end ? (span){begin, end} : (span){0, 0};
        common = both(common, w->seen[i]);
        if (begin < end) {
            w->begin = SL_MIN(w->begin, begin);
            w->end = end > w->end ? end : w->end;
        }
    }
    for (size_t c = 0; c < SPLIT_CHUNKS; c++)
        w->all_see[c] = common.begin <= c * SL_KV_CHUNK && common.end >= (c + 1) * SL_KV_CHUNK;
    const uint32_t *blocks = w->tile->blocks + at / SL_KV_BLOCK;
    const size_t first = w->begin / SL_KV_BLOCK, last = (w->end - 1) / SL_KV_BLOCK;
    for (size_t b = 0; b < SPLIT_BLOCKS; b++) {
        const size_t block = blocks[b < first ? first : b > last ? last : b];
        w->k[b] = sl_kv_k_head(kv, block, w->kv_head);
        w->v[b] = sl_kv_v_head(kv, block, w->kv_head);
    }
    /* Next come the keys of the next split or, where others may have that, of the next head. */
    const size_t behind = (w->tile->position + w->tile->n_rows - 1 - at) / SL_KV_BLOCK;
    const size_t next = w->alone ? SPLIT_BLOCKS : w->begin / SL_KV_CHUNK * CHUNK_BLOCKS;
    const size_t head = w->alone || w->kv_head + 1 == kv->n_kv_heads ? w->kv_head : w->kv_head + 1;
    for (size_t b = 0; b < CHUNK_BLOCKS; b++)
        w->later[b] = sl_kv_k_head(kv, blocks[SL_MIN(SL_MAX(next + b, first), behind)], head);
}

static void score_split(const work *w)
{
    const size_t n_tiles = (w->n + TILE_ROWS - 1) / TILE_ROWS;
    for (size_t c = w->begin / SL_KV_CHUNK; c * SL_KV_CHUNK < w->end; c++) {
        const char *const *next = (c + 1) * SL_KV_CHUNK < w->end ? w->k + (c + 1) * CHUNK_BLOCKS
                                                                 : w->v + w->begin / SL_KV_CHUNK * CHUNK_BLOCKS;
        for (size_t t = 0; t < n_tiles; t++) {
            const size_t i = t * TILE_ROWS, from = t * CHUNK_BLOCKS / n_tiles, to = (t + 1) * CHUNK_BLOCKS / n_tiles;
            score_tile(w,
                       n_tiles == 1 ? IN_PLACE
                       : t == 0     ? STORED_NOW
                                    : FLOATS,
                       SL_MIN(w->n - i, (size_t)TILE_ROWS), w->k + c * CHUNK_BLOCKS, w->q + i,
                       w->score + i * SL_KV_SPLIT + c * SL_KV_CHUNK, next + from, to - from);
        }
    }
}

/* s = cap * tanh(scale * score / cap), for the rare models that cap. */
static void cap_scores(const work *w)
{
    for (size_t i = 0; i < w->n * SL_KV_SPLIT; i++)
        w->score[i] = w->args->softcap * tanh_f32(w->score[i] * w->args->scale / w->args->softcap);
}

/* Positions of a chunk that the query sees, a bit each. */
SL_INLINE uint64_t chunk_bits(const work *w, size_t query, size_t chunk)
{
    const size_t at = chunk * SL_KV_CHUNK, begin = w->seen[query].begin, end = w->seen[query].end;
    const span seen = {begin > at ? begin - at : 0, end > at ? SL_MIN(end - at, (size_t)SL_KV_CHUNK) : 0};
    return seen.begin < seen.end ? seen_bits(seen) : 0;
}

/* Folded results of four queries, FOLD4's, to their places. */
SL_INLINE void store_fold(float *to, __m512 fold)
{
    const __m512i lanes = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
    _mm_store_ps(to, _mm512_castps512_ps128(_mm512_permutexvar_ps(lanes, fold)));
}

/* Largest scores of the queries in a chunk, unscaled; -inf where one sees nothing. all_see: each query the whole chunk; a
 * constant where this is inlined, as below. */
SL_INLINE void max_chunk(work *w, size_t chunk, const bool all_see)
{
    for (size_t i = 0; i < w->n; i += STEP) {
        __m512 top[STEP];
        EACH(j, STEP)
        {
            const size_t query = SL_MIN(i + (size_t)j, w->n - 1);
            const float *s = w->score + query * SL_KV_SPLIT + chunk * SL_KV_CHUNK;
            const uint64_t bits = all_see ? 0 : chunk_bits(w, query, chunk);
            top[j] = _mm512_set1_ps(-__builtin_inff());
            EACH(v, TILE_GROUPS)
            top[j] = all_see ? _mm512_max_ps(_mm512_load_ps(s + v * LANES), top[j])
                             : _mm512_mask_max_ps(top[j], (__mmask16)(bits >> v * LANES), _mm512_load_ps(s + v * LANES),
                                                  top[j]);
        }
        store_fold(&w->max[chunk][i], FOLD4(_mm512_max_ps, top));
    }
}

/* Queries that see something of a chunk, 16 from `first` on, a bit each. */
static __mmask16 seeing(const work *w, size_t first, size_t chunk)
{
    unsigned bits = 0;
    for (size_t i = first; i < w->n && i < first + LANES; i++)
        bits |= (unsigned)(chunk_bits(w, i, chunk) != 0) << (i - first);
    return (__mmask16)bits;
}

/* A query's scores of a chunk become weights, 0 where bits are. Returns their sum, 16 partial ones. */
SL_INLINE __m512 weigh_query(float *s, uint64_t bits, __m512 scale, __m512 top)
{
    const __mmask16 used[STEP] = {(__mmask16)bits, (__mmask16)(bits >> 16), (__mmask16)(bits >> 32),
                                  (__mmask16)(bits >> 48)};
    __m512 x[STEP];
    EACH(v, STEP) x[v] = _mm512_mul_ps(_mm512_load_ps(s + v * LANES), scale);
    EACH(v, STEP) x[v] = _mm512_sub_ps(x[v], top);
    exp_vectors(STEP, x, used);
    EACH(v, STEP) _mm512_store_ps(s + v * LANES, x[v]);
    return _mm512_add_ps(_mm512_add_ps(_mm512_add_ps(x[0], x[1]), x[2]), x[3]);
}

/* The scores of a chunk become weights, of which each query's sum is kept. */
SL_INLINE void weigh_chunk(work *w, size_t chunk, const bool all_see, __m512 scale)
{
    for (size_t i = 0; i < w->n; i += STEP) {
        __m512 part[STEP] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
        EACH(j, STEP)
        {
            const size_t query = i + (size_t)j;
            if (query < w->n)
                part[j] = weigh_query(w->score + query * SL_KV_SPLIT + chunk * SL_KV_CHUNK,
                                      all_see ? UINT64_MAX : chunk_bits(w, query, chunk), scale,
                                      _mm512_set1_ps(w->max[chunk][query]));
        }
        store_fold(&w->sum[chunk][i], FOLD4(_mm512_add_ps, part));
    }
}

/* Maxima become those up to and with each chunk, and keep what acc is multiplied with before it. */
static void chain_maxima(work *w, size_t first_chunk, size_t end_chunk, __m512 scale)
{
    const __mmask16 all = 0xffff;
    for (size_t i = 0; i < w->n; i += LANES) {
        __m512 old = _mm512_set1_ps(-__builtin_inff());
        for (size_t c = first_chunk; c < end_chunk; c++) {
            const __m512 new = _mm512_mul_ps(_mm512_load_ps(&w->max[c][i]), scale);
            const __m512 top = _mm512_mask_max_ps(old, seeing(w, i, c), new, old);
            __m512 keep = _mm512_sub_ps(old, top);
            exp_vectors(1, &keep, &all);
            _mm512_store_ps(&w->max[c][i], top);
            _mm512_store_ps(&w->keep[c][i], keep);
            old = top;
        }
    }
}

static void softmax_split(work *w)
{
    const size_t first = w->begin / SL_KV_CHUNK, end = (w->end + SL_KV_CHUNK - 1) / SL_KV_CHUNK;
    const __m512 scale = _mm512_set1_ps(w->args->softcap > 0 ? 1.0f : w->args->scale);
    if (w->args->softcap > 0)
        cap_scores(w);
    for (size_t c = first; c < end; c++) {
        if (w->all_see[c])
            max_chunk(w, c, true);
        else
            max_chunk(w, c, false);
    }
    chain_maxima(w, first, end, scale);
    for (size_t c = first; c < end; c++) {
        if (w->all_see[c])
            weigh_chunk(w, c, true, scale);
        else
            weigh_chunk(w, c, false, scale);
    }
}

/* Adds values, in place, to `rows` queries that all see them. */
static void add_seen(const work *w, size_t query, size_t rows, span seen, uint64_t turns)
{
    if (seen.begin >= seen.end)
        return;
    for (size_t d = 0, groups; d < w->dim; d += groups * LANES) {
        groups = SL_MIN((w->dim - d) / LANES, (size_t)TILE_GROUPS);
        value_tile(w, IN_PLACE, query, rows, d, groups, seen, turns);
    }
}

/* Adds the part of a piece that they see to queries [i, end), those of a row together. */
static void add_by_row(const work *w, size_t i, size_t end, span piece)
{
    for (size_t next; i < end; i = next) {
        for (next = i + 1; next < end && next / w->n_heads == i / w->n_heads; next++)
            continue;
        add_seen(w, i, next - i, both(w->seen[i], piece), 0);
    }
}

/* Adds the values of a piece of the split, tile by tile: what all its queries see at once, what is before and behind it row
 * by row. */
static void add_piece(const work *w, span piece)
{
    for (size_t i = 0, n; i < w->n; i += n) {
        n = SL_MIN(w->n - i, (size_t)TILE_ROWS);
        span common = piece;
        for (size_t j = i; j < i + n; j++)
            common = both(common, w->seen[j]);
        if (common.begin >= common.end)
            common = (span){piece.end, piece.end};
        add_by_row(w, i, i + n, (span){piece.begin, common.begin});
        add_seen(w, i, n, common, i == 0 ? UINT64_MAX : 0);
        add_by_row(w, i, i + n, (span){common.end, piece.end});
    }
}

/* The same of a chunk that all queries see, whose values are converted once. */
static void add_whole_chunk(const work *w, span chunk)
{
    for (size_t d = 0, groups; d < w->dim; d += groups * LANES) {
        groups = SL_MIN((w->dim - d) / LANES, (size_t)TILE_GROUPS);
        for (size_t i = 0; i < w->n; i += TILE_ROWS)
            value_tile(w, i == 0 ? STORED_NOW : FLOATS, i, SL_MIN(w->n - i, (size_t)TILE_ROWS), d, groups, chunk,
                       w->turns[i / TILE_ROWS]);
    }
}

static void add_values(const work *w)
{
    if (w->n <= TILE_ROWS) {
        add_piece(w, (span){w->begin, w->end});
        return;
    }
    for (size_t p = w->begin, end; p < w->end; p = end) {
        end = SL_MIN(p / SL_KV_CHUNK * SL_KV_CHUNK + SL_KV_CHUNK, w->end);
        if (w->all_see[p / SL_KV_CHUNK])
            add_whole_chunk(w, (span){p, end});
        else
            add_piece(w, (span){p, end});
    }
}

/* The split's maximum and sum of a query. */
static void finish_query(const work *w, size_t query, float *max, float *sum)
{
    *max = -__builtin_inff();
    *sum = 0;
    for (size_t c = w->begin / SL_KV_CHUNK; c * SL_KV_CHUNK < w->end; c++) {
        if (!chunk_bits(w, query, c))
            continue;
        *max = w->max[c][query];
        *sum = *sum * w->keep[c][query] + w->sum[c][query];
    }
}

static void run_split(work *w, size_t split)
{
    split_init(w, split);
    score_split(w);
    softmax_split(w);
    for (size_t i = 0; i < w->n; i++)
        memset(w->acc + i * w->acc_stride, 0, w->dim * sizeof *w->acc);
    add_values(w);
}

/* ---- all splits ---- */

static void run_all(work *w)
{
    float all_max[SL_ATTENTION_FEW], all_sum[SL_ATTENTION_FEW], max, sum;
    uint32_t split, end;
    for (sl_attention_splits(w->tile, w->args->window, &split, &end); split < end; split++) {
        run_split(w, split);
        for (size_t i = 0; i < w->n; i++) {
            const size_t row = i / w->n_heads, head = w->kv_head * w->n_heads + i % w->n_heads;
            const seen_range seen = row_sees(w->args, w->tile, row);
            const size_t first = seen.begin / SL_KV_SPLIT, last = (seen.end - 1) / SL_KV_SPLIT;
            float *out = w->args->out + (w->tile->row + row) * w->args->out_stride_elems + head * w->dim;
            if (split < first || split > last)
                continue;
            finish_query(w, i, &max, &sum);
            merge_split(out, &all_max[i], &all_sum[i], w->dim, w->acc + i * w->acc_stride, max, sum, split == first);
            if (split == last)
                divide_by_sum(out, out, w->dim, all_sum[i]);
        }
    }
}

void sl_attention_few_avx512(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch,
                             uint32_t split, float *partial)
{
    work w;
    w.args = args;
    w.tile = tile;
    w.kv_head = kv_head;
    w.dim = args->kv.head_dim;
    w.n_heads = args->n_heads / args->kv.n_kv_heads;
    w.n = w.n_heads * tile->n_rows;
    w.alone = !partial;
    for (size_t t = 0, n_tiles = (w.n + TILE_ROWS - 1) / TILE_ROWS; t < n_tiles; t++) {
        w.turns[t] = 0;
        for (size_t p = t; p < SL_KV_CHUNK; p += n_tiles)
            w.turns[t] |= UINT64_C(1) << p;
    }
    w.floats = scratch;
    w.score = w.floats + w.dim * SL_KV_CHUNK;
    w.acc = partial ? partial : w.score + w.n * SL_KV_SPLIT;
    w.acc_stride = partial ? w.dim + LANES : w.dim;
    for (size_t i = 0; i < w.n; i++)
        w.q[i] = args->q + (tile->row + i / w.n_heads) * args->q_stride_elems +
                 (kv_head * w.n_heads + i % w.n_heads) * w.dim;
    if (!partial) {
        run_all(&w);
        return;
    }
    run_split(&w, split);
    for (size_t i = 0; i < w.n; i++)
        finish_query(&w, i, &partial[i * w.acc_stride + w.dim], &partial[i * w.acc_stride + w.dim + 1]);
}
