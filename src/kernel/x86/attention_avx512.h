/* What both ways of attention for AVX-512 share: lanes of the KV cache's types as floats, exponentials, folds; and when
 * which way is taken. */
#ifndef SL_KERNEL_X86_ATTENTION_AVX512_H
#define SL_KERNEL_X86_ATTENTION_AVX512_H

#include "kernel/kv_layout.h"
#include "kernel/ref/attention_merge.h"

#include <immintrin.h>

/* Whether the tile has so few queries that sl_attention_few_avx512 is the faster way, and whether that can do it. */
static inline bool sl_attention_is_few(const sl_attention *args, const sl_attention_tile *tile)
{
    const bool has_scales = args->kv.type == SL_KV_Q8 || args->kv.type == SL_KV_K8V4;
    return tile->n_rows * (args->n_heads / args->kv.n_kv_heads) <= SL_ATTENTION_FEW && args->kv.head_dim % 32 == 0 &&
           !has_scales;
}

/* sl_attention_fn for tiles of few queries. */
void sl_attention_few_avx512(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch,
                             uint32_t split, float *partial);

/* ---- lanes as floats ---- */

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

/* ---- softmax ---- */

enum { STEP = 4 }; /* vectors that go through the exponential side by side, and queries that are folded together */
#define EACH(i, n) _Pragma("GCC unroll 4") for (int i = 0; i < (n); i++)

/* x[i] = exp_f32 of ref/exp.h for x <= 0 or NaN: the clamps do nothing there, and scaling by a power of two is exact.
 * Lanes outside of used become 0. */
SL_INLINE void exp_vectors(const int n, __m512 *x, const __mmask16 *used)
{
    const __m512 magic = _mm512_set1_ps(0x1.8p23f);
    __m512 k[STEP], r[STEP], q[STEP];
    __mmask16 normal[STEP];
    EACH(i, n) normal[i] = _mm512_mask_cmp_ps_mask(used[i], x[i], _mm512_set1_ps(-87.3365f), _CMP_NLT_UQ);
    EACH(i, n) k[i] = _mm512_fmadd_ps(x[i], _mm512_set1_ps(0x1.715476p+0f), magic);
    EACH(i, n) k[i] = _mm512_sub_ps(k[i], magic);
    EACH(i, n) r[i] = _mm512_fmadd_ps(k[i], _mm512_set1_ps(-0x1.62e430p-1f), x[i]);
    EACH(i, n) r[i] = _mm512_fmadd_ps(k[i], _mm512_set1_ps(0x1.05c610p-29f), r[i]);
    EACH(i, n) q[i] = _mm512_fmadd_ps(_mm512_set1_ps(0x1.6a23a8p-10f), r[i], _mm512_set1_ps(0x1.123a36p-7f));
    EACH(i, n) q[i] = _mm512_fmadd_ps(q[i], r[i], _mm512_set1_ps(0x1.5558f4p-5f));
    EACH(i, n) q[i] = _mm512_fmadd_ps(q[i], r[i], _mm512_set1_ps(0x1.555490p-3f));
    EACH(i, n) q[i] = _mm512_fmadd_ps(q[i], r[i], _mm512_set1_ps(0x1.fffffcp-2f));
    EACH(i, n) q[i] = _mm512_fmadd_ps(q[i], _mm512_mul_ps(r[i], r[i]), r[i]);
    EACH(i, n) q[i] = _mm512_add_ps(q[i], _mm512_set1_ps(1.0f));
    EACH(i, n) x[i] = _mm512_maskz_scalef_ps(normal[i], q[i], k[i]);
}

/* Folds four vectors as the tree of sum16 and max16 does; all of the j-th 128-bit lane is the result of the j-th. */
#define FOLD4(op, t)                                                                                                   \
    ({                                                                                                                 \
        __m512 ab_ = op(_mm512_shuffle_f32x4(t[0], t[1], 0x44), _mm512_shuffle_f32x4(t[0], t[1], 0xee));               \
        __m512 cd_ = op(_mm512_shuffle_f32x4(t[2], t[3], 0x44), _mm512_shuffle_f32x4(t[2], t[3], 0xee));               \
        __m512 f_ = op(_mm512_shuffle_f32x4(ab_, cd_, 0x88), _mm512_shuffle_f32x4(ab_, cd_, 0xdd));                    \
        f_ = op(f_, _mm512_permute_ps(f_, 0x4e));                                                                      \
        op(f_, _mm512_permute_ps(f_, 0xb1));                                                                           \
    })

/* Positions that a query sees, a bit each. */
SL_INLINE uint64_t seen_bits(span seen)
{
    return ~UINT64_C(0) >> (SL_KV_CHUNK - seen.end) & ~UINT64_C(0) << seen.begin;
}

#endif
