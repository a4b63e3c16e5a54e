/* Between a layout's file and the matmul of many rows (many_avx512vnni.c). */
#ifndef SL_KERNEL_X86_MANY_H
#define SL_KERNEL_X86_MANY_H

#include "kernel/kernels.h"
#include "kernel/panel.h"

#include <immintrin.h>
#include <string.h>

#define SL_INLINE static inline __attribute__((always_inline))

/* What a group adds to a sum; ref/matmul_quant.c has the equations. */
typedef enum sl_vnni_form {
    SL_VNNI_SYMMETRIC,
    SL_VNNI_AFFINE,
    SL_VNNI_HALVES,
    SL_VNNI_SCALED,   /* symmetric; an integer scale of each half, which many rows get multiplied into the lines */
    SL_VNNI_MINIMUMS, /* scaled, no offset, and an integer minimum of each half */
    SL_VNNI_FORMS
} sl_vnni_form;

/* Offset of SCALED lines once multiplied: Q3_K's products go from -124 to 128. */
enum { SL_VNNI_SCALED_OFFSET = 124 };

/* A group of 32 columns of a panel, unpacked. */
typedef struct sl_vnni_group {
    _Alignas(64) uint8_t lines[8][SL_LINE]; /* unsigned integers, with their offset */
    float d[2][SL_PANEL_ROWS];    /* factor of the integer sum; HALVES: of each half's; MINIMUMS: second of mins' sum */
    float less[2][SL_PANEL_ROWS]; /* -(1.5 * 2^23) d */
    union {
        float m[SL_PANEL_ROWS];         /* AFFINE: factor of the activations' sum */
        int16_t mins[SL_PANEL_ROWS][2]; /* MINIMUMS: of each half */
    };
} sl_vnni_group;

/* Unpacks groups [first, first + n) of a panel. */
typedef void sl_vnni_unpack_fn(const void *panel, size_t first, size_t n, sl_vnni_group *out);

/* sl_matmul_fn for a layout given by its form, offset and unpacker; at least SL_MATMUL_MANY_ROWS rows; fewer are left
 * to the kernels that unpack on the fly. */
void sl_vnni_matmul_many(const sl_matmul *args, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end,
                         sl_vnni_form form, int offset, sl_vnni_unpack_fn *unpack);

#endif
