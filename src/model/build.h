/* From an architecture's table and a file to an op graph. */
#ifndef SL_MODEL_BUILD_H
#define SL_MODEL_BUILD_H

#include "graph/graph.h"
#include "model/arch.h"

/* Tensors of a model by role and layer, checked against the table's shapes. */
typedef struct sl_bindings {
    const sl_gguf_tensor *global[SL_ROLE_COUNT];
    const sl_gguf_tensor *(*layers)[SL_ROLE_COUNT]; /* n_layers */
} sl_bindings;

/* Finds every tensor of the table; arrays come from arena. SL_ERR_FORMAT names the tensor that is missing or whose shape
 * is not the table's. */
SL_WARN_UNUSED sl_status sl_bindings_find(const sl_gguf *gguf, const sl_arch *arch, const sl_hparams *hparams,
                                          sl_arena *arena, sl_bindings *out, sl_err *err);

/* Builds the decoder's graph. graph is initialised; memory failures are remembered in it. */
SL_WARN_UNUSED sl_status sl_build_decoder(sl_graph *graph, const sl_arch *arch, const sl_hparams *hparams,
                                          const sl_bindings *bindings, sl_err *err);

#endif
