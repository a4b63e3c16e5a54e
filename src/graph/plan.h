/* The step plan: what a forward pass executes, in order, with every buffer's place known. */
#ifndef SL_GRAPH_PLAN_H
#define SL_GRAPH_PLAN_H

#include "graph/pass.h"

typedef enum sl_step_kind {
    SL_STEP_ROWS,      /* row-wise nodes, run one after the other on each row; rows are divided among workers */
    SL_STEP_MATMUL,    /* matmuls on the same rows; panels are divided among workers */
    SL_STEP_ATTENTION, /* tiles and kv heads are divided among workers */
} sl_step_kind;

typedef struct sl_step {
    sl_step_kind kind;
    sl_domain domain;
    int begin, end; /* nodes [begin, end) of the graph */
} sl_step;

/* Layers that share a rule and block tables: all full ones, all with the same window. */
typedef struct sl_kv_group {
    uint32_t window; /* 0 = full */
    uint32_t n_layers;
    uint64_t block_bytes; /* K and V of all its layers in one block of SL_KV_BLOCK positions */
} sl_kv_group;
enum { SL_MAX_KV_GROUPS = 4 };

typedef struct sl_plan {
    sl_graph graph; /* after all passes */
    sl_level level;
    sl_kv_type kv_type;
    const sl_kernels *kernels;
    sl_step *steps;
    int n_steps;
    sl_kv_group groups[SL_MAX_KV_GROUPS];
    int n_groups;
    int *layer_group; /* group of each attention layer */
} sl_plan;

/* Called after the graph was built and after each pass; pass_name is "build", a pass's name or "layout". */
typedef void sl_pass_observer(void *user, const char *pass_name, const sl_graph *graph, int n_changes);

/* Runs the passes (disabled: bits 1 << sl_pass) and cuts the graph into steps. The plan keeps using the graph's arena. */
SL_WARN_UNUSED sl_status sl_plan_compile(const sl_graph *graph, sl_level level, sl_kv_type kv_type, uint32_t disabled,
                                         sl_pass_observer *observer, void *observer_user, sl_plan *out, sl_err *err);

/* Memory plan: offsets[value] (SIZE_MAX for constants and values nobody stores) in an arena that serves max_rows rows,
 * each of which may be one whose hidden state is wanted, and the logits of max_wanted, buffers sharing space when their lives do not overlap. Returns the arena's bytes;
 * *sum_bytes (may be NULL) = what it would take without sharing. 0 when the sizes overflow. */
uint64_t sl_plan_memory(const sl_plan *plan, uint32_t max_rows, uint32_t max_wanted, size_t *offsets,
                        uint64_t *sum_bytes);

/* Parts of a pass, each with one layer's attention, that rows may go through in several runs: part i is steps
 * [sl_plan_part(plan, i), sl_plan_part(plan, i + 1)), and there are sl_plan_parts(plan), at least 1. The cuts lie before
 * the attention of all layers but the first. */
int sl_plan_parts(const sl_plan *plan);
int sl_plan_part(const sl_plan *plan, int i);

/* Values of domain ROWS that steps before `step` write and others read: all that a row is at that point, besides its KV.
 * values: room for graph.n_values; returns how many. */
int sl_plan_live(const sl_plan *plan, int step, int *values);

#endif
