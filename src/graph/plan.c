#include "graph/plan.h"

#include "base/checked.h"

#include <stdlib.h>

/* Cuts the node list where the chain number changes; nodes that no fusion touched are steps of their own. */
static sl_status cut_steps(sl_plan *plan, sl_err *err)
{
    const sl_graph *graph = &plan->graph;
    plan->steps = sl_arena_array(graph->arena, (size_t)graph->n_nodes, sizeof *plan->steps);
    if (!plan->steps)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for the step plan");
    for (int i = 0; i < graph->n_nodes; i++) {
        const sl_node *node = &graph->nodes[i];
        if (i > 0 && node->chain != SL_NONE && node->chain == node[-1].chain) {
            plan->steps[plan->n_steps - 1].end = i + 1;
            continue;
        }
        sl_step_kind kind = node->op == SL_OP_MATMUL      ? SL_STEP_MATMUL
                            : node->op == SL_OP_ATTENTION ? SL_STEP_ATTENTION
                                                          : SL_STEP_ROWS;
        int value = node->output != SL_NONE ? node->output : node->inputs[0];
        plan->steps[plan->n_steps++] =
            (sl_step){.kind = kind, .domain = graph->values[value].domain, .begin = i, .end = i + 1};
    }
    return SL_OK;
}

/* Layers with the same window share block tables. */
static sl_status group_layers(sl_plan *plan, sl_err *err)
{
    const sl_graph *graph = &plan->graph;
    plan->layer_group = sl_arena_array(graph->arena, (size_t)graph->n_layers, sizeof *plan->layer_group);
    if (!plan->layer_group)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for the layer groups");
    for (int i = 0; i < graph->n_layers; i++) {
        const sl_graph_layer *layer = &graph->layers[i];
        int g = 0;
        while (g < plan->n_groups && plan->groups[g].window != layer->window)
            g++;
        if (g == SL_MAX_KV_GROUPS)
            SL_FAIL(err, SL_ERR_UNSUPPORTED, "more than %d kinds of attention layers", SL_MAX_KV_GROUPS);
        if (g == plan->n_groups)
            plan->groups[plan->n_groups++] = (sl_kv_group){.window = layer->window};
        sl_kv_layer kv = sl_kv_layer_make(plan->kv_type, layer->n_kv_heads, layer->head_dim);
        plan->groups[g].n_layers++;
        plan->groups[g].block_bytes += kv.k_stride_bytes + kv.v_stride_bytes;
        plan->layer_group[i] = g;
    }
    return SL_OK;
}

sl_status sl_plan_compile(const sl_graph *graph, sl_level level, sl_kv_type kv_type, uint32_t disabled,
                          sl_pass_observer *observer, void *observer_user, sl_plan *out, sl_err *err)
{
    *out = (sl_plan){.graph = *graph, .level = level, .kv_type = kv_type, .kernels = sl_kernels_get(level)};
    if (graph->failed)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for the model's graph");
    int n = 0;
    if (observer)
        observer(observer_user, "build", &out->graph, 0);
    for (int pass = 0; pass < SL_PASS_COUNT; pass++) {
        if (pass == SL_PASS_SHARE) {
            SL_TRY(sl_pass_layout(&out->graph, level, &n, err));
            if (observer)
                observer(observer_user, "layout", &out->graph, n);
        }
        if (disabled & 1u << pass)
            continue;
        SL_TRY(sl_pass_run(&out->graph, (sl_pass)pass, out->kernels, &n, err));
        if (observer)
            observer(observer_user, sl_pass_name((sl_pass)pass), &out->graph, n);
    }
    SL_TRY(cut_steps(out, err));
    return group_layers(out, err);
}

typedef struct {
    int value, first, last; /* steps */
    uint64_t bytes, offset;
} life;

static int by_size(const void *a, const void *b)
{
    const life *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->value - y->value;
}

static uint64_t value_bytes(const sl_value *value, uint32_t max_rows, uint32_t max_wanted)
{
    uint64_t n = value->domain == SL_DOMAIN_ONE ? 1 : value->domain == SL_DOMAIN_LOGITS ? max_wanted : max_rows;
    uint64_t bytes;
    return sl_mul_u64(n, sl_value_row_bytes(value), &bytes) ? bytes : UINT64_MAX;
}

/* First and last step of every value that a node writes. Returns how many. */
static int find_lives(const sl_plan *plan, uint32_t max_rows, uint32_t max_wanted, life *lives, int *index)
{
    const sl_graph *graph = &plan->graph;
    int n = 0;
    for (int s = 0; s < plan->n_steps; s++) {
        for (int i = plan->steps[s].begin; i < plan->steps[s].end; i++) {
            const sl_node *node = &graph->nodes[i];
            for (int j = 0; j < SL_MAX_INPUTS; j++)
                if (node->inputs[j] != SL_NONE && index[node->inputs[j]] >= 0)
                    lives[index[node->inputs[j]]].last = s;
            if (node->output == SL_NONE)
                continue;
            uint64_t bytes = value_bytes(&graph->values[node->output], max_rows, max_wanted);
            bool kept = node->output == graph->logits || node->output == graph->hidden;
            index[node->output] = n;
            lives[n++] = (life){.value = node->output, .first = s, .last = kept ? plan->n_steps : s, .bytes = bytes};
        }
    }
    return n;
}

/* Lowest offset at which one fits beside those already placed whose lives overlap with it. */
static bool place(life *lives, int n_placed, life *one)
{
    one->offset = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < n_placed; i++) {
            const life *other = &lives[i];
            bool together = other->first <= one->last && one->first <= other->last;
            if (together && other->offset < one->offset + one->bytes && one->offset < other->offset + other->bytes) {
                one->offset = other->offset + other->bytes;
                moved = true;
            }
        }
    }
    uint64_t end;
    return sl_add_u64(one->offset, one->bytes, &end) && end < UINT64_MAX / 2;
}

uint64_t sl_plan_memory(const sl_plan *plan, uint32_t max_rows, uint32_t max_wanted, size_t *offsets,
                        uint64_t *sum_bytes)
{
    int n_values = plan->graph.n_values;
    life *lives = calloc((size_t)n_values + 1, sizeof *lives);
    int *index = calloc((size_t)n_values + 1, sizeof *index);
    uint64_t total = 0, sum = 0;
    bool fits = lives && index;
    if (fits) {
        for (int i = 0; i < n_values; i++)
            index[i] = -1;
        int n = find_lives(plan, max_rows, max_wanted, lives, index);
        qsort(lives, (size_t)n, sizeof *lives, by_size);
        for (int i = 0; i < n_values && offsets; i++)
            offsets[i] = SIZE_MAX;
        for (int i = 0; i < n && fits; i++) {
            fits = lives[i].bytes < UINT64_MAX / 4 && place(lives, i, &lives[i]);
            total = SL_MAX(total, lives[i].offset + lives[i].bytes);
            sum = sum > UINT64_MAX / 2 ? sum : sum + lives[i].bytes;
            if (offsets)
                offsets[lives[i].value] = lives[i].offset;
        }
    }
    free(lives);
    free(index);
    if (sum_bytes)
        *sum_bytes = sum;
    return fits ? total : 0;
}

/* ---- parts ---- */

int sl_plan_parts(const sl_plan *plan)
{
    int n = 0;
    for (int s = 0; s < plan->n_steps; s++)
        n += plan->steps[s].kind == SL_STEP_ATTENTION;
    return SL_MAX(n, 1);
}

int sl_plan_part(const sl_plan *plan, int i)
{
    if (i == 0)
        return 0;
    for (int s = 0, n = 0; s < plan->n_steps; s++)
        if (plan->steps[s].kind == SL_STEP_ATTENTION && n++ == i)
            return s;
    return plan->n_steps;
}

int sl_plan_live(const sl_plan *plan, int step, int *values)
{
    enum { NOT, WRITTEN, LIVE };
    const sl_graph *graph = &plan->graph;
    const int begin = step < plan->n_steps ? plan->steps[step].begin : graph->n_nodes;
    int n = 0;
    for (int i = 0; i < graph->n_values; i++)
        values[i] = NOT;
    for (int i = 0; i < begin; i++) {
        const int output = graph->nodes[i].output;
        if (output != SL_NONE && graph->values[output].domain == SL_DOMAIN_ROWS)
            values[output] = WRITTEN;
    }
    for (int i = begin; i < graph->n_nodes; i++)
        for (int j = 0; j < SL_MAX_INPUTS; j++) {
            const int input = graph->nodes[i].inputs[j];
            if (input != SL_NONE && values[input] == WRITTEN)
                values[input] = LIVE;
        }
    for (int i = 0; i < graph->n_values; i++)
        if (values[i] == LIVE)
            values[n++] = i;
    return n;
}
