/* The engine's own state, shared by engine.c (opening, requests) and step.c (the loop). */
#ifndef SL_ENGINE_STEP_H
#define SL_ENGINE_STEP_H

#include "engine/sequence.h"

struct sl_engine {
    const sl_model *model;
    const sl_plan *plan;
    const sl_backend *backend;
    sl_context *context;
    sl_engine_options options; /* defaults filled in */
    sl_blocks pools[SL_MAX_KV_GROUPS];
    uint32_t unreserved[SL_MAX_KV_GROUPS]; /* blocks that no running sequence may still claim */
    sl_sequence *waiting, *running;        /* in order of arrival */
    uint32_t n_running;
    uint64_t last_id;
    /* the batch of the step in progress */
    sl_row *rows;          /* options.chunk */
    sl_batch_seq *seqs;    /* options.n_sequences */
    sl_sequence **members; /* sequence of each of seqs */
    uint32_t n_rows, n_seqs, n_wanted;
};

#endif
