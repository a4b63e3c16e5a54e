/* Quantized matmuls with AVX-512 but without VNNI: as with AVX2, a register for all 16 outputs. */
#include <immintrin.h>

typedef __m512i vi;
typedef __m512 vf;
#define VI "v"
enum { PARTS = 1, TILE_ROWS = 12, DOTS = 0 };

#define load_i(p)      _mm512_load_si512(p)
#define spread_i(p)    _mm512_castps_si512(_mm512_set1_ps(*(const float *)(const void *)(p)))
#define add_i          _mm512_add_epi32
#define zero_i         _mm512_setzero_si512
#define load_f         _mm512_loadu_ps
#define store_f        _mm512_storeu_ps
#define spread_f(p)    _mm512_set1_ps(*(p))
#define fma_f          _mm512_fmadd_ps
#define as_f           _mm512_castsi512_ps
#define zero_f         _mm512_setzero_ps
#define in_memory(acc) (void)(acc)

static inline __m512i sum_line(__m512i sum, __m512i w, __m512i x)
{
    return _mm512_add_epi16(sum, _mm512_maddubs_epi16(w, x));
}

static inline __m512i sum_total(__m512i sum)
{
    return _mm512_madd_epi16(sum, _mm512_set1_epi16(1));
}

static inline __m512i madd_i(__m512i sum, __m512i a, __m512i b)
{
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
}

#include "kernel/x86/blocked.h"

MATMULS(avx512)
