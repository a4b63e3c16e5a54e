/* Row-wise nodes that need nothing but their inputs; constant folding and the executor share them. */
#ifndef SL_GRAPH_ROW_OPS_H
#define SL_GRAPH_ROW_OPS_H

#include "graph/graph.h"

/* True for the ops that sl_row_eval computes. */
bool sl_row_can_eval(sl_op op);

/* Computes one row of node: in[j] = the row of its j-th input, out = the row of its output (not overlapping in). */
void sl_row_eval(const sl_kernels *kernels, const sl_graph *graph, const sl_node *node, const void *const *in,
                 void *out);

#endif
