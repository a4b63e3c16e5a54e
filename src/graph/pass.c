#include "graph/pass.h"

#include "graph/row_ops.h"

#include <string.h>

static const char *const pass_names[SL_PASS_COUNT] = {
    [SL_PASS_FOLD] = "fold",
    [SL_PASS_NARROW] = "narrow",
    [SL_PASS_SHARE] = "share",
    [SL_PASS_FUSE] = "fuse",
};

const char *sl_pass_name(sl_pass pass)
{
    return pass_names[pass];
}

bool sl_node_is_rowwise(const sl_node *node)
{
    return node->op != SL_OP_MATMUL && node->op != SL_OP_ATTENTION;
}

static void remove_node(sl_graph *graph, int at)
{
    memmove(graph->nodes + at, graph->nodes + at + 1, (size_t)(graph->n_nodes - at - 1) * sizeof *graph->nodes);
    graph->n_nodes--;
}

static void replace_uses(sl_graph *graph, int from, int to)
{
    for (int i = 0; i < graph->n_nodes; i++)
        for (int j = 0; j < SL_MAX_INPUTS; j++)
            if (graph->nodes[i].inputs[j] == from)
                graph->nodes[i].inputs[j] = to;
    if (graph->logits == from)
        graph->logits = to;
    if (graph->hidden == from)
        graph->hidden = to;
}

/* ---- fold: constants are computed once, dead nodes go ---- */

static bool inputs_are_constant(const sl_graph *graph, const sl_node *node)
{
    for (int j = 0; j < SL_MAX_INPUTS; j++)
        if (node->inputs[j] != SL_NONE && !graph->values[node->inputs[j]].data)
            return false;
    return true;
}

static int remove_dead(sl_graph *graph)
{
    int n = 0;
    for (int i = graph->n_nodes - 1; i >= 0; i--) {
        int out = graph->nodes[i].output;
        if (out != SL_NONE && !graph->values[out].tapped && sl_graph_n_uses(graph, out) == 0) {
            remove_node(graph, i);
            n++;
        }
    }
    return n;
}

static int fold(sl_graph *graph, const sl_kernels *kernels)
{
    int n = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        sl_node *node = &graph->nodes[i];
        if (!sl_row_can_eval(node->op) || !inputs_are_constant(graph, node) || graph->values[node->output].tapped)
            continue;
        sl_value *out = &graph->values[node->output];
        void *data = sl_arena_alloc(graph->arena, sl_value_row_bytes(out));
        if (!data) {
            graph->failed = true;
            return n;
        }
        const void *in[SL_MAX_INPUTS];
        for (int j = 0; j < SL_MAX_INPUTS; j++)
            in[j] = node->inputs[j] == SL_NONE ? NULL : graph->values[node->inputs[j]].data;
        sl_row_eval(kernels, graph, node, in, data);
        out->data = data;
        remove_node(graph, i--);
        n++;
    }
    return n + remove_dead(graph);
}

/* ---- narrow: rows that nobody asked for are dropped as early as possible ---- */

static bool can_narrow(const sl_node *node)
{
    switch (node->op) {
    case SL_OP_SCALE:
    case SL_OP_ADD:
    case SL_OP_RMSNORM:
    case SL_OP_MATMUL:
    case SL_OP_GLU:
        return true;
    default:
        return false;
    }
}

/* The value that selects the wanted rows of value: an existing one or a new node right behind the producer. */
static int selected(sl_graph *graph, int value)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].op == SL_OP_SELECT && graph->nodes[i].inputs[0] == value)
            return graph->nodes[i].output;
    sl_node node = {.op = SL_OP_SELECT, .inputs = {value, SL_NONE}};
    const sl_value *v = &graph->values[value];
    const char *name = sl_arena_printf(graph->arena, "%s.wanted", v->name);
    return sl_graph_insert(graph, sl_graph_producer(graph, value) + 1, node, SL_DOMAIN_WANTED, v->width, name);
}

/* Moves the SELECT at position at above the node that feeds it; false when it cannot. */
static bool hoist_select(sl_graph *graph, int at)
{
    int value = graph->nodes[at].inputs[0], narrowed = graph->nodes[at].output;
    int producer = sl_graph_producer(graph, value);
    if (producer == SL_NONE || !can_narrow(&graph->nodes[producer]) || graph->values[value].tapped ||
        graph->values[narrowed].tapped || sl_graph_n_uses(graph, value) != 1)
        return false;
    int inputs[SL_MAX_INPUTS];
    memcpy(inputs, graph->nodes[producer].inputs, sizeof inputs);
    remove_node(graph, at);
    for (int j = 0; j < SL_MAX_INPUTS; j++)
        if (inputs[j] != SL_NONE && graph->values[inputs[j]].domain == SL_DOMAIN_ROWS)
            inputs[j] = selected(graph, inputs[j]);
    memcpy(graph->nodes[sl_graph_producer(graph, value)].inputs, inputs, sizeof inputs);
    graph->values[value].domain = SL_DOMAIN_WANTED;
    replace_uses(graph, narrowed, value);
    return true;
}

static int narrow(sl_graph *graph)
{
    int n = 0;
    for (int i = graph->n_nodes - 1; i >= 0 && !graph->failed; i--) {
        if (graph->nodes[i].op == SL_OP_SELECT && hoist_select(graph, i)) {
            n++;
            i = graph->n_nodes; /* positions moved: start over */
        }
    }
    return n;
}

/* ---- share: common subexpressions ---- */

static bool same_node(const sl_node *a, const sl_node *b)
{
    return a->op == b->op && memcmp(a->inputs, b->inputs, sizeof a->inputs) == 0 && a->n_heads == b->n_heads &&
           a->head_dim == b->head_dim && a->factor == b->factor && a->base == b->base && a->gate == b->gate &&
           a->rope_mode == b->rope_mode && a->weight == b->weight;
}

static bool can_share(const sl_graph *graph, const sl_node *node)
{
    return sl_node_is_rowwise(node) && node->output != SL_NONE && !graph->values[node->output].tapped;
}

static int share(sl_graph *graph)
{
    int n = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        /* Equal inputs stand close together: the reach keeps this linear for deep models. */
        for (int j = i + 1; j < graph->n_nodes && j < i + 64; j++) {
            sl_node *a = &graph->nodes[i], *b = &graph->nodes[j];
            if (!same_node(a, b) || !can_share(graph, b) || a->output == SL_NONE)
                continue;
            replace_uses(graph, b->output, a->output);
            remove_node(graph, j--);
            n++;
        }
    }
    return n;
}

/* ---- fuse: neighbours that need no barrier between them form one step ---- */

static sl_domain node_domain(const sl_graph *graph, const sl_node *node)
{
    int value = node->output != SL_NONE ? node->output : node->inputs[0];
    return graph->values[value].domain;
}

static bool reads_any_output(const sl_graph *graph, const sl_node *node, int begin, int end)
{
    for (int i = begin; i < end; i++)
        for (int j = 0; j < SL_MAX_INPUTS; j++)
            if (graph->nodes[i].output != SL_NONE && node->inputs[j] == graph->nodes[i].output)
                return true;
    return false;
}

static bool joins(const sl_graph *graph, int begin, int at)
{
    const sl_node *first = &graph->nodes[begin], *node = &graph->nodes[at];
    if (node_domain(graph, first) != node_domain(graph, node))
        return false;
    if (sl_node_is_rowwise(node))
        return sl_node_is_rowwise(first);
    return node->op == SL_OP_MATMUL && first->op == SL_OP_MATMUL && !reads_any_output(graph, node, begin, at);
}

static int fuse(sl_graph *graph)
{
    int n = 0, chain = 0, begin = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        if (i > 0 && joins(graph, begin, i)) {
            n++;
        } else {
            begin = i;
            chain++;
        }
        graph->nodes[i].chain = chain - 1;
    }
    return n;
}

sl_status sl_pass_run(sl_graph *graph, sl_pass pass, const sl_kernels *kernels, int *n_changes, sl_err *err)
{
    switch (pass) {
    case SL_PASS_FOLD:
        *n_changes = fold(graph, kernels);
        break;
    case SL_PASS_NARROW:
        *n_changes = narrow(graph);
        break;
    case SL_PASS_SHARE:
        *n_changes = share(graph);
        break;
    case SL_PASS_FUSE:
        *n_changes = fuse(graph);
        break;
    default:
        SL_FAIL(err, SL_ERR_ARGUMENT, "no graph pass number %d", pass);
    }
    if (graph->failed)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for graph pass '%s'", pass_names[pass]);
    return SL_OK;
}

/* ---- layout: how each weight lies in memory, and in which form its matmul reads activations ---- */

static bool weight_is_multiplied(const sl_graph *graph, int weight)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].op == SL_OP_MATMUL && graph->nodes[i].weight == weight)
            return true;
    return false;
}

sl_status sl_pass_layout(sl_graph *graph, sl_level level, int *n_changes, sl_err *err)
{
    *n_changes = 0;
    for (int i = 0; i < graph->n_weights; i++) {
        sl_graph_weight *w = &graph->weights[i];
        /* What is only looked up stays as it lies in the file. */
        sl_level use = weight_is_multiplied(graph, i) ? level : SL_LEVEL_EXACT;
        sl_err inner;
        sl_status status = sl_weight_describe(use, w->type, w->n_rows, w->n_cols, &w->weight, &inner);
        if (status != SL_OK)
            SL_FAIL(err, status, "tensor %s: %.180s", w->name, inner.message);
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        sl_node node = graph->nodes[i];
        if (node.op != SL_OP_MATMUL || graph->weights[node.weight].weight.act != SL_ACT_Q8)
            continue;
        const sl_value *x = &graph->values[node.inputs[0]];
        sl_node quantize = {.op = SL_OP_QUANTIZE, .inputs = {node.inputs[0], SL_NONE}};
        const char *name = sl_arena_printf(graph->arena, "%s.q8", x->name);
        int q8 = sl_graph_insert(graph, i, quantize, x->domain, x->width, name);
        if (graph->failed)
            SL_FAIL(err, SL_ERR_NOMEM, "no memory for graph pass 'layout'");
        graph->nodes[++i].inputs[0] = q8;
        ++*n_changes;
    }
    return SL_OK;
}
