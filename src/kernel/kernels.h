/* Declarations of every kernel of the inventory, and the names of the feature sets plain C is compiled for. */
#ifndef SL_KERNEL_KERNELS_H
#define SL_KERNEL_KERNELS_H

#include "kernel/ops.h"

/* The function type behind a slot of sl_kernels. */
#define SL_KERNEL_FN(slot) __typeof__(*((sl_kernels *)0)->slot)

#define PLAIN(slot, name)      SL_KERNEL_FN(slot) name##_base, name##_v3, name##_v4;
#define TUNED(slot, name, isa) SL_KERNEL_FN(slot) name;
#include "kernel/kernels.inc"
#undef PLAIN
#undef TUNED

/* y[0..n_cols) = one row of a weight of any layout, through the source type's dequantizer. */
void sl_weight_unpack_row(const sl_weight *weight, size_t row, float *y);

#endif
