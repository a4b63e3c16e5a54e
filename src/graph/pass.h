/* Graph passes, in the order they run. Each can be switched off; the result then stays bitwise the same. */
#ifndef SL_GRAPH_PASS_H
#define SL_GRAPH_PASS_H

#include "graph/graph.h"

typedef enum sl_pass {
    SL_PASS_FOLD,   /* nodes whose inputs are constants become constants; what nobody reads goes */
    SL_PASS_NARROW, /* SELECT moves towards the inputs, so that only wanted rows are computed where that suffices */
    SL_PASS_SHARE,  /* equal nodes with equal inputs become one (one quantized row feeds Q, K and V) */
    SL_PASS_FUSE,   /* neighbours become one step: row by row chains, and matmuls on the same input */
    SL_PASS_COUNT
} sl_pass;

const char *sl_pass_name(sl_pass pass);

/* Runs one pass; *n_changes = nodes it removed, moved or joined. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_pass_run(sl_graph *graph, sl_pass pass, const sl_kernels *kernels, int *n_changes,
                                     sl_err *err);

/* Not optional: chooses every weight's layout for the level and puts a QUANTIZE before each matmul that reads int8.
 * Runs after NARROW and before SHARE. SL_ERR_UNSUPPORTED names the tensor whose type the level cannot compute with. */
SL_WARN_UNUSED sl_status sl_pass_layout(sl_graph *graph, sl_level level, int *n_changes, sl_err *err);

/* True when node works on each row by itself. */
bool sl_node_is_rowwise(const sl_node *node);

#endif
