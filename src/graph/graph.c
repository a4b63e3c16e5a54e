#include "graph/graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const op_names[SL_OP_COUNT] = {
    [SL_OP_CONST] = "const",       [SL_OP_ROPE_FREQS] = "rope_freqs", [SL_OP_DIV] = "div",
    [SL_OP_EMBED] = "embed",       [SL_OP_SCALE] = "scale",           [SL_OP_ADD] = "add",
    [SL_OP_RMSNORM] = "rmsnorm",   [SL_OP_QUANTIZE] = "quantize",     [SL_OP_MATMUL] = "matmul",
    [SL_OP_GLU] = "glu",           [SL_OP_ROPE_TABLE] = "rope_table", [SL_OP_ROPE] = "rope",
    [SL_OP_KV_WRITE] = "kv_write", [SL_OP_ATTENTION] = "attention",   [SL_OP_SELECT] = "select",
};

const char *sl_op_name(sl_op op)
{
    return op_names[op];
}

void sl_graph_init(sl_graph *graph, sl_arena *arena, const char *const *taps, size_t n_taps)
{
    *graph = (sl_graph){.arena = arena, .logits = SL_NONE, .hidden = SL_NONE, .taps = taps, .n_taps = n_taps};
}

/* Makes room for one more element: the arrays live in the arena, so growing leaves the old one behind. */
static void *grow(sl_graph *graph, void *array, int n, int *capacity, size_t elem_bytes)
{
    if (n < *capacity)
        return array;
    int bigger = *capacity ? *capacity * 2 : 64;
    void *copy = graph->failed ? NULL : sl_arena_array(graph->arena, (size_t)bigger, elem_bytes);
    if (!copy) {
        graph->failed = true;
        return NULL;
    }
    if (n)
        memcpy(copy, array, (size_t)n * elem_bytes);
    *capacity = bigger;
    return copy;
}

static bool is_tap(const sl_graph *graph, const char *name)
{
    for (size_t i = 0; i < graph->n_taps; i++)
        if (strcmp(graph->taps[i], name) == 0)
            return true;
    return false;
}

static int value_add(sl_graph *graph, sl_value value)
{
    sl_value *values = grow(graph, graph->values, graph->n_values, &graph->cap_values, sizeof *values);
    if (!values || !value.name) {
        graph->failed = true;
        return 0;
    }
    graph->values = values;
    value.tapped = is_tap(graph, value.name);
    values[graph->n_values] = value;
    return graph->n_values++;
}

static const char *format_name(sl_graph *graph, const char *format, va_list args)
{
    char buffer[128];
    int n = vsnprintf(buffer, sizeof buffer, format, args);
    return sl_arena_strndup(graph->arena, buffer, SL_MIN((size_t)SL_MAX(n, 0), sizeof buffer - 1));
}

static void node_insert(sl_graph *graph, int at, sl_node node)
{
    sl_node *nodes = grow(graph, graph->nodes, graph->n_nodes, &graph->cap_nodes, sizeof *nodes);
    if (!nodes)
        return;
    graph->nodes = nodes;
    memmove(nodes + at + 1, nodes + at, (size_t)(graph->n_nodes - at) * sizeof *nodes);
    node.chain = SL_NONE;
    nodes[at] = node;
    graph->n_nodes++;
}

int sl_graph_const(sl_graph *graph, const float *data, uint32_t width, const char *name, ...)
{
    va_list args;
    va_start(args, name);
    const char *copy = format_name(graph, name, args);
    va_end(args);
    return value_add(graph, (sl_value){.name = copy, .domain = SL_DOMAIN_ONE, .width = width, .data = data});
}

int sl_graph_weight_add(sl_graph *graph, const char *name, sl_type type, size_t n_rows, size_t n_cols,
                        const void *source)
{
    sl_graph_weight *weights = grow(graph, graph->weights, graph->n_weights, &graph->cap_weights, sizeof *weights);
    if (!weights)
        return 0;
    graph->weights = weights;
    weights[graph->n_weights] =
        (sl_graph_weight){.name = name, .type = type, .n_rows = n_rows, .n_cols = n_cols, .source = source};
    return graph->n_weights++;
}

int sl_graph_layer_add(sl_graph *graph, sl_graph_layer layer)
{
    sl_graph_layer *layers = grow(graph, graph->layers, graph->n_layers, &graph->cap_layers, sizeof *layers);
    if (!layers)
        return 0;
    graph->layers = layers;
    layers[graph->n_layers] = layer;
    return graph->n_layers++;
}

int sl_graph_insert(sl_graph *graph, int at, sl_node node, sl_domain domain, uint32_t width, const char *name)
{
    node.output = SL_NONE;
    if (width) {
        sl_act format = node.op == SL_OP_QUANTIZE ? SL_ACT_Q8 : SL_ACT_F32;
        if (node.op == SL_OP_SELECT)
            format = graph->values[node.inputs[0]].format;
        node.output = value_add(graph, (sl_value){.name = name, .domain = domain, .width = width, .format = format});
    }
    node_insert(graph, at, node);
    return node.output;
}

int sl_graph_node_add(sl_graph *graph, sl_node node, sl_domain domain, uint32_t width, const char *name, ...)
{
    va_list args;
    va_start(args, name);
    const char *copy = format_name(graph, name, args);
    va_end(args);
    return sl_graph_insert(graph, graph->n_nodes, node, domain, width, copy);
}

int sl_graph_n_uses(const sl_graph *graph, int value)
{
    int n = value == graph->logits;
    for (int i = 0; i < graph->n_nodes; i++)
        for (int j = 0; j < SL_MAX_INPUTS; j++)
            n += graph->nodes[i].inputs[j] == value;
    return n;
}

int sl_graph_producer(const sl_graph *graph, int value)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].output == value)
            return i;
    return SL_NONE;
}

size_t sl_value_row_bytes(const sl_value *value)
{
    if (value->format == SL_ACT_Q8)
        return sl_q8_row_bytes(value->width);
    return ((size_t)value->width * sizeof(float) + 63) & ~(size_t)63;
}

static void print_value(const sl_graph *graph, int id, char *buffer, size_t n_bytes)
{
    static const char *const domains[] = {"1", "rows", "wanted", "logits"};
    const sl_value *v = &graph->values[id];
    snprintf(buffer, n_bytes, "%s [%s, %u]%s", v->name, domains[v->domain], v->width,
             v->format == SL_ACT_Q8 ? " q8" : "");
}

void sl_graph_print(const sl_graph *graph, void (*print)(void *user, const char *text), void *user)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        const sl_node *node = &graph->nodes[i];
        char line[1024], part[160];
        int n = snprintf(line, sizeof line, "%5d ", i);
        if (node->chain != SL_NONE)
            n += snprintf(line + n, sizeof line - (size_t)n, "step %-4d ", node->chain);
        if (node->output != SL_NONE) {
            print_value(graph, node->output, part, sizeof part);
            n += snprintf(line + n, sizeof line - (size_t)n, "%s = ", part);
        }
        n += snprintf(line + n, sizeof line - (size_t)n, "%s(", op_names[node->op]);
        for (int j = 0; j < SL_MAX_INPUTS && node->inputs[j] != SL_NONE; j++)
            n +=
                snprintf(line + n, sizeof line - (size_t)n, "%s%s", j ? ", " : "", graph->values[node->inputs[j]].name);
        if (node->op == SL_OP_MATMUL || node->op == SL_OP_EMBED) {
            const sl_graph_weight *w = &graph->weights[node->weight];
            n += snprintf(line + n, sizeof line - (size_t)n, "%s%s: %s %zux%zu", node->inputs[0] != SL_NONE ? ", " : "",
                          w->name, sl_type_get(w->type)->name, w->n_rows, w->n_cols);
        }
        snprintf(line + n, sizeof line - (size_t)n, ")\n");
        print(user, line);
    }
}
