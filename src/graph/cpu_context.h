/* What one engine has on the CPU backend: cpu_context.c makes it, cpu_backend.c runs plans with it. */
#ifndef SL_GRAPH_CPU_CONTEXT_H
#define SL_GRAPH_CPU_CONTEXT_H

#include "graph/backend.h"

#include <stdatomic.h>

/* Next piece of a step's work that nobody has taken yet, alone on its cache line. */
typedef struct claim {
    _Alignas(64) atomic_uint next;
} claim;

/* A worker's share of attention, for each KV head: all of a tile, or one split of it. */
typedef struct attention_part {
    uint32_t tile, split;
    uint32_t slot; /* where the tile's partial results begin; NO_SLOT: all of the tile */
} attention_part;
enum {
    SPLIT_ROWS = 16, /* a tile with more rows is work enough for one */
    MANY_PARTS = 8,  /* for each worker */
};
#define NO_SLOT UINT32_MAX

struct sl_context {
    const sl_plan *plan;
    sl_threads *pool;
    sl_context_sizes sizes;
    char *arena; /* step buffers */
    uint64_t arena_bytes;
    size_t *offsets; /* of each value in the arena */
    sl_kv_layer *kv; /* of each attention layer */
    char *kv_pool;
    uint64_t kv_bytes;
    char *scratch; /* scratch_stride bytes for each worker */
    size_t scratch_stride;
    sl_attention_tile *tiles[SL_MAX_KV_GROUPS]; /* max_rows each */
    uint32_t n_tiles;
    attention_part *parts[SL_MAX_KV_GROUPS]; /* max_rows + n_slots each */
    uint32_t n_parts[SL_MAX_KV_GROUPS];
    char *partials;           /* n_slots times a row's partial results of one split */
    atomic_uint *splits_done; /* of each KV head of the tile whose partials begin in a slot; 0 between steps */
    uint32_t n_slots, slot_heads;
    size_t slot_bytes;
    uint32_t *wanted; /* rows whose logits are asked for, then those whose hidden states are */
    uint32_t n_wanted, n_logits;
    claim *claims; /* one for each step */
    /* The run in progress, or a stretch of it: steps [begin, end) on rows [0, n_rows) of the batch. */
    const sl_batch *batch;
    uint32_t n_rows;
    int begin, end;
    /* What layered rows are between two runs: values of the rows, one value after the other. */
    char *layered;
    size_t layered_bytes; /* room */
    int *live;            /* of the cut in question */
    sl_tap_fn *tap;
    void *tap_user;
    const sl_profile *profile;
};

/* Memory of a context, and its opening and closing: those of sl_backend. */
void sl_cpu_context_bytes(const sl_plan *plan, const sl_context_sizes *sizes, int n_threads, uint64_t *step_bytes,
                          uint64_t *scratch_bytes, uint64_t *kv_bytes);
sl_status sl_cpu_context_open(const sl_plan *plan, const sl_context_sizes *sizes, sl_threads *pool, sl_context **out,
                              sl_err *err);
void sl_cpu_context_close(sl_context *context);

#endif
