/* The kernels: what each computes, and the table through which a level's choice is reached.
 *
 * Contract 1: for one level and one model the result of a row never depends on how many rows are computed together, on
 * the range a worker is given or on the number of workers. So every sum below has one fixed order:
 *  - a lane is an output row (matmul) or a KV position (attention scores): no sum ever crosses lanes there;
 *  - where a row itself is summed (norms, softmax), 16 partial sums run over index mod 16 and are then added as a tree:
 *    8 apart, 4 apart, 2 apart, 1 apart ("sum16").
 * fma(a, b, c) is one rounding; everything else rounds once per operation (-ffp-contract=off). */
#ifndef SL_KERNEL_OPS_H
#define SL_KERNEL_OPS_H

#include "base/cpu.h"
#include "kernel/type.h"

/* Output rows of a weight panel; columns of a quantization group. */
enum { SL_PANEL_ROWS = 16, SL_GROUP = 32 };

/* How a weight matrix lies in memory. SOURCE is the file's own form (row after row of blocks), used by `exact`.
 * The others are panels of 16 output rows, interleaved so that a vector register holds one column of all 16. */
typedef enum sl_layout {
    SL_LAYOUT_SOURCE,
    SL_LAYOUT_F32,  /* from F32:        per column 16 f32 */
    SL_LAYOUT_F16,  /* from F16 */
    SL_LAYOUT_BF16, /* from BF16 */
    SL_LAYOUT_Q4_0, /* 4-bit, symmetric */
    SL_LAYOUT_Q4_1, /* 4-bit, scale and minimum */
    SL_LAYOUT_Q5_0,
    SL_LAYOUT_Q5_1,
    SL_LAYOUT_Q8_0,
    SL_LAYOUT_Q2_K,
    SL_LAYOUT_Q3_K,
    SL_LAYOUT_Q4_K,
    SL_LAYOUT_Q5_K,
    SL_LAYOUT_Q6_K,
    SL_LAYOUT_IQ4_NL,
    SL_LAYOUT_IQ4_XS,
    SL_LAYOUT_MXFP4,
    SL_LAYOUT_COUNT
} sl_layout;

/* What a layout's matmul reads as activations. */
typedef enum sl_act {
    SL_ACT_F32, /* float32[n_cols] a row */
    SL_ACT_Q8,  /* sl_q8 row, see below */
} sl_act;

/* Row of int8 activations for n columns (a multiple of 32), G = n / 32 groups:
 *   int8_t q[n] | float scale[G] | float sum[G] | int16_t half_sum[2 * G]
 * For each group: amax = max|x|, scale = amax / 127, q = round-to-nearest-even(x * (127 / amax)) (0 when amax is 0),
 * half_sum = the exact sums of q over columns 0-15 and 16-31, sum = scale * (float)(half_sum[0] + half_sum[1]).
 * An amax below 2^-100 counts as 0; a group with a NaN or an infinity gets q = 0 and scale = sum = NaN.
 * The row is padded to a multiple of 64 bytes. */
static inline size_t sl_q8_row_bytes(size_t n_cols)
{
    size_t groups = n_cols / SL_GROUP;
    return (n_cols + groups * (2 * sizeof(float) + 2 * sizeof(int16_t)) + 63) & ~(size_t)63;
}
static inline const float *sl_q8_scale(const void *row, size_t n_cols)
{
    return (const float *)(const void *)((const char *)row + n_cols);
}
static inline const float *sl_q8_sum(const void *row, size_t n_cols)
{
    return sl_q8_scale(row, n_cols) + n_cols / SL_GROUP;
}
static inline const int16_t *sl_q8_half_sum(const void *row, size_t n_cols)
{
    return (const int16_t *)(const void *)(sl_q8_sum(row, n_cols) + n_cols / SL_GROUP);
}

/* A weight matrix W[n_rows][n_cols] (n_rows outputs, n_cols inputs; GGUF's ne = {n_cols, n_rows}) ready for a matmul. */
typedef struct sl_weight {
    sl_type type;
    sl_layout layout;
    sl_act act;
    size_t n_rows, n_cols;
    size_t n_panels;    /* ceil(n_rows / 16); rows beyond n_rows are zero */
    size_t panel_bytes; /* of a packed panel; SOURCE: of 16 source rows */
    const void *data;   /* 64-byte aligned unless SOURCE */
} sl_weight;

/* Layout in which a level computes with a source type. SL_ERR_UNSUPPORTED names the type when there is none, or when
 * n_cols is no multiple of what it needs. Fills everything of *out but data. */
SL_WARN_UNUSED sl_status sl_weight_describe(sl_level level, sl_type type, size_t n_rows, size_t n_cols, sl_weight *out,
                                            sl_err *err);

/* Bytes of the packed form (n_panels * panel_bytes, computed with checks at describe time); at most 1.03 times the
 * source's for n_rows a multiple of 16. 0 for SOURCE: the file's mapping is used. */
size_t sl_weight_packed_bytes(const sl_weight *weight);

/* Packs panels [panel_begin, panel_end) from the source rows at src into dst, the start of the whole packed matrix.
 * Panels are independent: any number of workers may pack different ranges. */
void sl_weight_pack(const sl_weight *weight, const void *src, void *dst, size_t panel_begin, size_t panel_end);

/* How a core reads weights for few rows fastest; a matter of the CPU, which changes no bit. */
typedef struct sl_reading {
    uint32_t one_row, few_rows; /* runs of panels read side by side: 1, 2 or 4; 1 or 2 */
    uint32_t ahead_bytes;       /* asked for ahead of the place at work, in each run */
} sl_reading;

/* y[r][o] = sum over columns of W[o][c] * x[r][c] (+ bias[o]), for rows [row_begin, row_end) and output panels
 * [panel_begin, panel_end). The order of the sum depends on the layout alone and stands above each reference kernel. */
typedef struct sl_matmul {
    const sl_weight *weight;
    const void *x; /* activations in weight->act format */
    size_t x_stride_bytes;
    float *y;
    size_t y_stride_elems;
    const float *bias; /* n_rows, or NULL; added last */
    void *scratch;     /* SL_MATMUL_SCRATCH_BYTES, 64-byte aligned, of this worker alone */
    sl_reading reading;
} sl_matmul;
/* From so many rows on a kernel may begin with work on each of its rows: those who cut a matmul up keep pieces large. */
enum { SL_MATMUL_SCRATCH_BYTES = 1 << 20, SL_MATMUL_MANY_ROWS = 32, SL_MATMUL_MAX_STREAMS = 4 };

/* Number of equal runs of panels that a kernel goes through side by side for n_rows rows; what such runs leave over comes
 * last. A hint to those who fetch weights before the kernel does. */
static inline uint32_t sl_matmul_streams(const sl_reading *reading, size_t n_rows)
{
    return n_rows == 1 ? reading->one_row : n_rows < SL_MATMUL_MANY_ROWS ? reading->few_rows : 1;
}

typedef void sl_matmul_fn(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin,
                          size_t panel_end);

typedef enum sl_gate { SL_GATE_SILU, SL_GATE_GELU_TANH } sl_gate;
typedef enum sl_rope_mode { SL_ROPE_NORM, SL_ROPE_NEOX } sl_rope_mode; /* adjacent pairs; halves */

/* Positions in a KV block; in one softmax update; in one split, whose result is merged with the others'. Chunks and
 * splits are aligned to absolute positions. */
enum { SL_KV_BLOCK = 16, SL_KV_CHUNK = 64, SL_KV_SPLIT = 256, SL_KV_GROUP = 32 };

/* Number formats of the KV pool. The part of one block and one KV head, D = head_dim, a lane of K being a position:
 *   F32, F16, BF16  K elem[D][16]    V elem[16][D]
 *   Q8              K int8[D][16], f16 scale[G][16]    V int8[16][D], f16 scale[16]; x = q * scale; G = ceil(D / 32)
 *   K8V4            K as Q8's        V nibbles[16][G][16], f16 scale[16][G]; in a group byte i has column i low and
 *                   column 16 + i high; x = (q - 8) * scale
 * An int8 scale is amax / 127 of its token and head, in K of its token and 32 columns (keys have a few columns far
 * larger than the others); a 4-bit one the value of largest magnitude (the positive of two such) / -8 of its token and 32
 * columns; all rounded to f16 (whose range, times 127 or 8, holds that of F16's own elements, at half the bytes of f32);
 * q = round-to-nearest-even(x * (1 / scale)), kept within -127..127 or 0..15; 0 (or
 * 8) for a scale of 0. Where amax is infinite, NaN or too large for a scale, the scale is NaN. */
typedef enum sl_kv_type { SL_KV_F32, SL_KV_F16, SL_KV_BF16, SL_KV_Q8, SL_KV_K8V4, SL_KV_TYPE_COUNT } sl_kv_type;

/* "f32", "f16", "bf16", "q8", "k8v4". Static storage. */
const char *sl_kv_type_name(sl_kv_type type);

/* Type for a name, "int8" being another for q8; false when there is none. */
bool sl_kv_type_parse(const char *name, sl_kv_type *out);

/* KV pool of one layer: [block][kv_head] parts as above, blocks a stride apart. */
typedef struct sl_kv_layer {
    sl_kv_type type;
    uint32_t n_kv_heads, head_dim;
    size_t k_stride_bytes, v_stride_bytes;
    void *k, *v; /* of block 0 */
} sl_kv_layer;

/* A layer whose blocks follow each other; k and v are NULL. */
sl_kv_layer sl_kv_layer_make(sl_kv_type type, uint32_t n_kv_heads, uint32_t head_dim);

/* Bytes of K and of V of one layer in one block, all KV heads. */
size_t sl_kv_k_block_bytes(const sl_kv_layer *layer);
size_t sl_kv_v_block_bytes(const sl_kv_layer *layer);

/* Consecutive rows of one sequence at consecutive positions. */
typedef struct sl_attention_tile {
    const uint32_t *blocks; /* physical block of each logical block of the sequence */
    uint32_t row, n_rows;   /* rows [row, row + n_rows) of q and out; n_rows <= SL_ATTENTION_ROWS */
    uint32_t position;      /* of the first row; row i sees positions [max(0, p - window + 1), p], p = position + i */
} sl_attention_tile;
enum {
    SL_ATTENTION_ROWS = 64,
    SL_ATTENTION_FEW = 48, /* most queries (rows times query heads) that a kernel may take a split at a time */
};

/* out[r][h] = sum_p softmax_p(scale * q[r][h] . k[p][h / (n_heads / n_kv_heads)]) * v[p][...], K and V as float32.
 * Within a split of 256 positions one pass with the online softmax (Milakov and Gimelshein 2018) over chunks of 64, in
 * logical order: scores lane by lane, fma over d in order; m' = max(m, chunk's max); p = exp(s - m');
 * l = l * exp(m - m') + sum16(p); acc[d] = acc[d] * exp(m - m'), then fma(p, v[d], acc[d]) over positions in order. It
 * starts from m = -inf, l = 0, acc = 0. A chunk in which a row sees nothing leaves the row untouched; positions a row
 * does not see contribute p = 0 and are never multiplied with V's bytes.
 * The splits that a row sees, (m_i, l_i, acc_i), are then merged in logical order into (M, L, A), the first copied:
 * M' = max(M, m_i); a = exp(M - M'), b = exp(m_i - M'); L = L * a + l_i * b; A[d] = fma(acc_i[d], b, A[d] * a).
 * out[d] = A[d] / L. Workers may so take different splits of a row, and who took which makes no difference. */
typedef struct sl_attention {
    const float *q; /* [rows][n_heads][head_dim], rotated */
    size_t q_stride_elems;
    float *out; /* same shape */
    size_t out_stride_elems;
    uint32_t n_heads;
    uint32_t window; /* 0 = full */
    float scale;     /* positive; usually 1 / sqrt(head_dim) */
    float softcap;   /* 0 = none; s = softcap * tanh(s / softcap) */
    sl_kv_layer kv;
} sl_attention;

/* Splits [*begin, *end) of which some row of the tile sees something. */
static inline void sl_attention_splits(const sl_attention_tile *tile, uint32_t window, uint32_t *begin, uint32_t *end)
{
    *begin = window && tile->position >= window ? (tile->position - window + 1) / SL_KV_SPLIT : 0;
    *end = (tile->position + tile->n_rows - 1) / SL_KV_SPLIT + 1;
}

/* One tile and one kv head (all its query heads). scratch: sl_attention_scratch_bytes, 64-byte aligned, per worker.
 * partial NULL: all splits, into out. Else: split `split` alone, into partial, which has sl_attention_partial_elems. */
typedef void sl_attention_fn(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch,
                             uint32_t split, float *partial);
size_t sl_attention_scratch_bytes(uint32_t n_heads, uint32_t n_kv_heads, uint32_t head_dim);

/* Merges the partials of the tile's splits (sl_attention_splits; one after the other, partial_elems apart) into out. */
typedef void sl_attention_merge_fn(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head,
                                   const float *partials);

/* Floats of the partial result of n_rows rows, one kv head and one split: for each row and query head acc (head_dim
 * rounded up to 16), then 16 floats that begin with m and l. */
size_t sl_attention_partial_elems(const sl_attention *args, uint32_t n_rows);

/* How much attention the blocks draw: mass[b] += round(2^24 * w) for each row of the tile and each query head of kv_head,
 * w = the sum of softmax_p(scale * q . k[p]) over block b's positions that the row sees, in float32: of each block the
 * largest score m_b and l_b = sum16(exp(s - m_b)); then, over blocks in order, m = max m_b, L = the sum of
 * l_b * exp(m_b - m), and w = l_b * exp(m_b - m) / L. Integers add up to the same in any order, so neither tiles nor
 * workers make a difference. Layers without a window only; at most SL_MASS_BLOCKS blocks. scratch:
 * sl_attention_mass_scratch_bytes, 64-byte aligned. */
typedef void sl_attention_mass_fn(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head,
                                  void *scratch, uint64_t *mass);
enum { SL_MASS_BLOCKS = 2048 + 8 };
size_t sl_attention_mass_scratch_bytes(uint32_t n_heads, uint32_t n_kv_heads, uint32_t head_dim, uint32_t n_rows,
                                       uint32_t n_blocks);

/* Order-preserving integer of a float: a < b as floats exactly when the keys compare so; both zeros share a key. */
static inline int32_t sl_float_key(float x)
{
    union {
        float f;
        int32_t i;
    } u = {.f = x + 0.0f};
    return u.i ^ ((u.i >> 31) & INT32_MAX);
}
enum { SL_KEY_BLOCK = 64 }; /* floats that share a maximum */

/* The kernels of one level. Row kernels work on one row; y may equal x where both are float rows. */
typedef struct sl_kernels {
    sl_level level;
    sl_reading reading; /* this CPU's */
    /* r = 1 / sqrt(sum16(x*x by fma) / n + eps); y[i] = (x[i] * r) * w[i]; w NULL = 1. Zhang and Sennrich 2019. */
    void (*rmsnorm)(float *y, const float *x, const float *w, size_t n, float eps);
    /* x (n floats, n a multiple of 32) to an sl_q8 row */
    void (*quantize_q8)(void *y, const float *x, size_t n);
    /* y = act(gate) * up; silu(g) = g / (1 + exp(-g)); gelu_tanh(g) = 0.5 g (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3))) */
    void (*glu)(float *y, const float *gate, const float *up, size_t n, sl_gate gate_fn);
    void (*add)(float *y, const float *a, const float *b, size_t n);
    void (*scale)(float *y, const float *x, float factor, size_t n);
    /* Rotates the first 2 * n_pairs of head_dim of each head in place; cos_sin: n_pairs cosines, then n_pairs sines.
     * (a, b) -> (a cos - b sin, b cos + a sin) as fma(a, cos, -(b * sin)), fma(b, cos, a * sin). Su et al. 2021. */
    void (*rope)(float *x, uint32_t n_heads, uint32_t head_dim, const float *cos_sin, uint32_t n_pairs,
                 sl_rope_mode mode);
    /* Writes one row's k and v ([n_kv_heads][head_dim]) to slot (0-15) of physical block. */
    void (*kv_write)(const sl_kv_layer *layer, uint32_t block, uint32_t slot, const float *k, const float *v);
    /* out[b] = largest sl_float_key of x[64 b .. 64 b + 63], ceil(n / 64) of them; returns the smallest of all. */
    int32_t (*block_max)(int32_t *out, const float *x, size_t n);
    sl_attention_fn *attention;
    sl_attention_merge_fn *attention_merge;
    sl_attention_mass_fn *attention_mass;
    sl_matmul_fn *matmul[SL_LAYOUT_COUNT];
    /* y[0..n_cols) = row of the weight, bitwise what sl_type_info.dequantize gives (embedding look-up) */
    void (*unpack_row)(const sl_weight *weight, size_t row, float *y);
} sl_kernels;

/* Kernels for a level (never NULL); static storage, safe from any thread. */
const sl_kernels *sl_kernels_get(sl_level level);

/* Raised whenever any kernel's bits change; part of numerics_id. */
#define SL_KERNEL_REVISION 3

#endif
