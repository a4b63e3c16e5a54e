/* What the engine asks of whatever runs a plan. The KV layout belongs to the backend: blocks are indices here. */
#ifndef SL_GRAPH_BACKEND_H
#define SL_GRAPH_BACKEND_H

#include "base/threads.h"
#include "graph/plan.h"

/* One row of a step. */
typedef struct sl_row {
    uint32_t seq;      /* index into the batch's seqs */
    uint32_t position; /* in its sequence */
    int32_t parent;    /* row it follows in a tree of drafts; -1: the sequence's previous position */
    uint32_t token;
    const float *embedding; /* n_embd floats instead of the token, or NULL */
    uint32_t adapter;       /* 0 = none */
    bool causal;
    bool wanted; /* its logits are asked for */
    bool hidden; /* its hidden state is asked for, which takes no vocabulary matmul; never both */
} sl_row;

/* Block tables of one sequence, one a KV group: blocks[g][i] holds positions [16 i, 16 i + 16). Where blocks were given up
 * for good (engine/keep.h), only those that are left stand in the table, in order, and n_dropped[g] is how many do not: a
 * row's own place in the table is its position - 16 n_dropped[g], and it sees all that stands before. */
typedef struct sl_batch_seq {
    const uint32_t *blocks[SL_MAX_KV_GROUPS];
    uint32_t n_dropped[SL_MAX_KV_GROUPS];
    /* Not NULL: mass[g][i] is raised by the attention that rows at positions from mass_from on give to block i of the
     * table, summed over query heads and layers of the group, which has no window; see sl_attention_mass_fn. */
    uint64_t *mass[SL_MAX_KV_GROUPS];
    uint32_t mass_from;
} sl_batch_seq;

/* Rows of a sequence stand together, in rising position. */
typedef struct sl_batch {
    const sl_row *rows;
    uint32_t n_rows;
    const sl_batch_seq *seqs;
    uint32_t n_seqs;
    /* The last n_layered rows, those of one sequence, go through parts [part_begin, part_end) of the plan (sl_plan_part)
     * alone: first from 0 on, in the next run that has such rows from where the last ended. They are the same rows each
     * time, and none has its logits or hidden state wanted. 0: all rows go through everything. */
    uint32_t n_layered;
    int part_begin, part_end;
} sl_batch;
enum { SL_LAYERED_ROWS = 64 }; /* most of n_layered */

typedef struct sl_context_sizes {
    uint32_t max_rows, max_wanted;       /* of a run; those whose logits are wanted */
    uint32_t n_blocks[SL_MAX_KV_GROUPS]; /* of each group's pool */
} sl_context_sizes;

typedef struct sl_context sl_context; /* what one engine has on the backend: pools, buffers, scratch */

/* Called between two steps, on one of the workers while the others wait, with a tapped value: n_rows rows of width
 * floats, stride_elems apart. */
typedef void sl_tap_fn(void *user, const char *name, const float *data, size_t n_rows, size_t width,
                       size_t stride_elems);

/* A look at where a run's time goes. While one is set, worker w fills marks[w * stride ...] with CLOCK_MONOTONIC in ns:
 * the run's begin, then for each step of the plan when its own work was done and when the barrier behind it was passed. */
typedef struct sl_profile {
    int64_t *marks; /* of all workers of the pool */
    size_t stride;  /* at least 1 + 2 * n_steps; a multiple of 8 keeps workers off each other's cache lines */
    /* Called on the running thread after each run, of n_wanted rows with logits or hidden states. */
    void (*on_run)(void *user, const sl_batch *batch, uint32_t n_wanted);
    void *user;
} sl_profile;

typedef struct sl_backend {
    const char *name;
    /* Memory that context_open will take: step buffers, per-worker scratch, KV. */
    void (*context_bytes)(const sl_plan *plan, const sl_context_sizes *sizes, int n_threads, uint64_t *step_bytes,
                          uint64_t *scratch_bytes, uint64_t *kv_bytes);
    sl_status (*context_open)(const sl_plan *plan, const sl_context_sizes *sizes, sl_threads *pool, sl_context **out,
                              sl_err *err);
    void (*context_close)(sl_context *context);
    /* Runs the plan on a batch. SL_ERR_UNSUPPORTED for a row that needs what the backend lacks. */
    sl_status (*run)(sl_context *context, const sl_batch *batch, sl_err *err);
    /* Logits of the index-th wanted row of the last run, the host's to read and write until the next. */
    float *(*logits)(sl_context *context, uint32_t index);
    /* Hidden state of the index-th such row of the last run: the last layer's output after its norm, as wide as the plan's
     * value `hidden`; readable by the host until the next run. */
    const float *(*hidden)(sl_context *context, uint32_t index);
    void (*copy_block)(sl_context *context, int group, uint32_t from, uint32_t to);
    void (*synchronise)(sl_context *context);
    void (*set_tap)(sl_context *context, sl_tap_fn *fn, void *user);
    /* profile must stay until it is replaced; NULL ends it. */
    void (*set_profile)(sl_context *context, const sl_profile *profile);
} sl_backend;

/* This machine's CPU. */
const sl_backend *sl_backend_cpu(void);

#endif
