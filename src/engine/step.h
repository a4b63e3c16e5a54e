/* The engine's own state, shared by engine.c (opening, requests) and step.c (the loop). */
#ifndef SL_ENGINE_STEP_H
#define SL_ENGINE_STEP_H

#include "engine/kv.h"
#include "engine/tasks.h"

struct sl_engine {
    sl_engine_model model;
    sl_context *context;
    sl_engine_options options; /* defaults filled in */
    sl_kv kv;
    sl_tasks tasks;
    sl_sequence *waiting, *running; /* each by rank: who keeps its blocks when there are not enough */
    uint32_t n_running, n_waiting;
    uint64_t last_id;
    sl_engine_statistics statistics;
    /* the batch of the step in progress */
    sl_row *rows;          /* options.chunk */
    sl_batch_seq *seqs;    /* options.n_sequences */
    sl_sequence **members; /* sequence of each of seqs */
    sl_sample_row *draws;  /* what is sampled or scored: options.logit_rows + options.n_sequences */
    sl_sequence **drawers; /* sequence of each of draws */
    sl_sample_team *team;
    uint32_t n_rows, n_seqs, n_draws, n_wanted;
};

/* Puts a sequence where it belongs in one of the engine's queues: after all that outrank it. */
void sl_queue_insert(const sl_engine *engine, sl_sequence **queue, sl_sequence *sequence);

/* Time by the engine's clock. */
static inline int64_t sl_engine_now(const sl_engine *engine)
{
    return engine->options.clock(engine->options.clock_user);
}

#endif
