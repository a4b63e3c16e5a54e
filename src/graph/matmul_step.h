/* How a matmul step is divided between workers, and its weights read before their turn. */
#ifndef SL_GRAPH_MATMUL_STEP_H
#define SL_GRAPH_MATMUL_STEP_H

#include "graph/plan.h"

/* Rows [row, row_end) by panels [panel, panel_end), counted through all matmuls of the step. */
typedef struct sl_matmul_piece {
    size_t row, row_end, panel, panel_end;
} sl_matmul_piece;

/* Piece i of a step that runs on n_rows rows; false behind the last. Workers take pieces as they get done, so that one
 * which is slowed down holds nobody up. */
bool sl_matmul_cut(const sl_graph *graph, const sl_step *step, size_t n_rows, int n_workers, size_t i,
                   sl_matmul_piece *piece);

/* Weights of a piece still to be asked for, where the kernel begins to read them (sl_matmul_streams). */
typedef struct sl_read_ahead {
    const char *at, *end; /* of the first stream */
    size_t apart;         /* bytes from one stream to the next */
    int n_streams;
} sl_read_ahead;

sl_read_ahead sl_read_ahead_of(const sl_plan *plan, const sl_step *step, const sl_matmul_piece *piece);

/* Brings a line of each stream into the second level cache; an sl_idle_fn, user being an sl_read_ahead. */
bool sl_read_ahead_some(void *user);

#endif
