/* The op graph: what a model computes, before it is decided how. Nodes stand in an order in which they can be executed;
 * passes (pass.h) rewrite them, plan.h turns the result into steps. */
#ifndef SL_GRAPH_GRAPH_H
#define SL_GRAPH_GRAPH_H

#include "base/arena.h"
#include "kernel/ops.h"

typedef enum sl_op {
    SL_OP_CONST,      /* () -> ONE: a vector known when the graph is built */
    SL_OP_ROPE_FREQS, /* () -> ONE: base^(-2i/n_rot) * factor, i < n_rot / 2 */
    SL_OP_DIV,        /* (a, b) -> a / b elementwise */
    SL_OP_EMBED,      /* () -> ROWS: the row's token in a weight, or its embedding vector */
    SL_OP_SCALE,      /* (x) -> x * factor */
    SL_OP_ADD,        /* (a, b) */
    SL_OP_RMSNORM,    /* (x, w): each of n_heads parts of the row by itself */
    SL_OP_QUANTIZE,   /* (x) -> Q8 */
    SL_OP_MATMUL,     /* (x [, bias]) with a weight */
    SL_OP_GLU,        /* (gate, up) */
    SL_OP_ROPE_TABLE, /* (freqs) -> ROWS: cosines and sines of position * freq */
    SL_OP_ROPE,       /* (x, table) */
    SL_OP_KV_WRITE,   /* (k, v): into the layer's pool; no output */
    SL_OP_ATTENTION,  /* (q) over the layer's pool */
    SL_OP_SELECT,     /* (x) ROWS -> WANTED: the rows whose logits or hidden states are asked for */
    SL_OP_COUNT
} sl_op;

const char *sl_op_name(sl_op op);

/* How many rows a value has in a step. */
typedef enum sl_domain {
    SL_DOMAIN_ONE,    /* one, the same for all */
    SL_DOMAIN_ROWS,   /* every row of the batch */
    SL_DOMAIN_WANTED, /* the rows whose logits or hidden states are wanted */
    SL_DOMAIN_LOGITS, /* the first of these: the rows whose logits are wanted */
} sl_domain;

enum { SL_NONE = -1, SL_MAX_INPUTS = 2, SL_MAX_LAYERS = 1024 };

/* A tensor that flows: width elements in each row of its domain. */
typedef struct sl_value {
    const char *name; /* "blk.3.ffn_out"; what taps and `info --graph` call it */
    sl_domain domain;
    sl_act format; /* F32 or Q8 */
    uint32_t width;
    const float *data; /* of a constant, else NULL */
    bool tapped;       /* must be there with all its rows: passes leave it alone */
} sl_value;

typedef struct sl_node {
    sl_op op;
    int inputs[SL_MAX_INPUTS];  /* value ids or SL_NONE */
    int output;                 /* value id; SL_NONE for KV_WRITE */
    int weight;                 /* EMBED, MATMUL: index into the graph's weights */
    int layer;                  /* KV_WRITE, ATTENTION: attention layer */
    uint32_t n_heads, head_dim; /* RMSNORM, ROPE, ATTENTION */
    float factor;               /* SCALE; ROPE_FREQS; ATTENTION's scale; RMSNORM's epsilon */
    float base;                 /* ROPE_FREQS */
    sl_gate gate;
    sl_rope_mode rope_mode;
    int chain; /* set by fusion: nodes with the same non-negative number form one step */
} sl_node;

/* A weight matrix bound at one or several places. */
typedef struct sl_graph_weight {
    const char *name;
    sl_type type;
    size_t n_rows, n_cols;
    const void *source; /* rows in the file's form; NULL when only the plan is wanted */
    sl_weight weight;   /* filled by the layout pass */
} sl_graph_weight;

/* One attention layer's state pool: paged KV, full or windowed. */
typedef struct sl_graph_layer {
    uint32_t n_kv_heads, head_dim;
    uint32_t window; /* 0 = full */
} sl_graph_layer;

typedef struct sl_graph {
    sl_arena *arena; /* owns names, arrays and constants */
    sl_value *values;
    sl_node *nodes;
    sl_graph_weight *weights;
    sl_graph_layer *layers;
    int n_values, n_nodes, n_weights, n_layers;
    int cap_values, cap_nodes, cap_weights, cap_layers;
    int logits; /* value id of the result, domain LOGITS */
    int hidden; /* value id of what the vocabulary matmul reads, domain WANTED: the last layer's output, normed */
    const char *const *taps;
    size_t n_taps;
    bool failed; /* memory ran out while building: every later call is a no-op, checked once at the end */
} sl_graph;

/* Prepares an empty graph whose memory comes from arena. taps: names of values that passes must keep. */
void sl_graph_init(sl_graph *graph, sl_arena *arena, const char *const *taps, size_t n_taps);

/* Builders. Each returns the id of a new value (KV_WRITE: nothing). name is printf-like and copied. */
int sl_graph_const(sl_graph *graph, const float *data, uint32_t width, const char *name, ...) SL_PRINTF(4, 5);
int sl_graph_weight_add(sl_graph *graph, const char *name, sl_type type, size_t n_rows, size_t n_cols,
                        const void *source);
int sl_graph_layer_add(sl_graph *graph, sl_graph_layer layer);
/* Adds a node with an output value of the given domain and width (width 0: no output). */
int sl_graph_node_add(sl_graph *graph, sl_node node, sl_domain domain, uint32_t width, const char *name, ...)
    SL_PRINTF(5, 6);

/* Inserts node before position at (memory permitting) and returns its output value id. */
int sl_graph_insert(sl_graph *graph, int at, sl_node node, sl_domain domain, uint32_t width, const char *name);

/* Number of nodes that read value. */
int sl_graph_n_uses(const sl_graph *graph, int value);

/* Position of the node that produces value; SL_NONE when there is none. */
int sl_graph_producer(const sl_graph *graph, int value);

/* Bytes of one row of value as stored: padded to 64. */
size_t sl_value_row_bytes(const sl_value *value);

/* Prints one line a node. */
void sl_graph_print(const sl_graph *graph, void (*print)(void *user, const char *text), void *user);

#endif
