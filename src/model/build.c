#include "model/build.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static bool is_per_layer(sl_role role)
{
    return role >= SL_ROLE_ATTN_NORM;
}

static sl_status bind_tensor(const sl_gguf *gguf, const sl_tensor_rule *rule, uint32_t layer, const sl_hparams *h,
                             const sl_gguf_tensor **out, sl_err *err)
{
    char name[64];
    snprintf(name, sizeof name, rule->name, layer);
    const sl_gguf_tensor *t = sl_gguf_find_tensor(gguf, name);
    *out = t;
    if (!t) {
        if (!rule->optional)
            SL_FAIL(err, SL_ERR_FORMAT, "tensor %s is missing", name);
        return SL_OK;
    }
    uint64_t cols = sl_hparams_dim(h, rule->cols), rows = sl_hparams_dim(h, rule->rows);
    if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1)
        SL_FAIL(err, SL_ERR_FORMAT,
                "tensor %s is %" PRIu64 " x %" PRIu64 ", but the metadata asks for %" PRIu64 " x %" PRIu64, name,
                t->ne[1], t->ne[0], rows, cols);
    return SL_OK;
}

sl_status sl_bindings_find(const sl_gguf *gguf, const sl_arch *arch, const sl_hparams *hparams, sl_arena *arena,
                           sl_bindings *out, sl_err *err)
{
    memset(out, 0, sizeof *out);
    out->layers = sl_arena_array(arena, hparams->n_layers, sizeof *out->layers);
    if (!out->layers)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for the tensors' table");
    for (size_t i = 0; i < arch->n_tensors; i++) {
        const sl_tensor_rule *rule = &arch->tensors[i];
        if (!is_per_layer(rule->role)) {
            SL_TRY(bind_tensor(gguf, rule, 0, hparams, &out->global[rule->role], err));
            continue;
        }
        for (uint32_t l = 0; l < hparams->n_layers; l++)
            SL_TRY(bind_tensor(gguf, rule, l, hparams, &out->layers[l][rule->role], err));
    }
    return SL_OK;
}

/* What the builder carries along. */
typedef struct {
    sl_graph *graph;
    const sl_arch *arch;
    const sl_hparams *h;
    const sl_bindings *bindings;
    uint32_t layer;
    const sl_gguf_tensor *const *tensors; /* of the current layer, by role */
    int rope_table[2];                    /* global, local */
    sl_status status;
    sl_err *err;
} builder;

/* Constant from a vector tensor: F32 is used where it lies, other types are converted once. */
static int constant(builder *b, const sl_gguf_tensor *t)
{
    uint32_t width = (uint32_t)t->n_elems;
    const float *data = t->data;
    if (t->type != SL_TYPE_F32 || (uintptr_t)t->data % sizeof(float)) {
        if (!t->info->dequantize) {
            b->status = sl_err_set(b->err, SL_ERR_UNSUPPORTED, "tensor %s: type %s cannot be computed with", t->name,
                                   t->info->name);
            return 0;
        }
        float *copy = sl_arena_array(b->graph->arena, width, sizeof *copy);
        if (!copy) {
            b->graph->failed = true;
            return 0;
        }
        if (t->data)
            t->info->dequantize(t->data, copy, width);
        data = copy;
    }
    return sl_graph_const(b->graph, data, width, "%s", t->name);
}

static int norm(builder *b, int x, const sl_gguf_tensor *w, uint32_t n_heads, const char *name)
{
    const sl_value *v = &b->graph->values[x];
    sl_node node = {.op = SL_OP_RMSNORM, .inputs = {x, 0}, .n_heads = n_heads, .factor = b->h->norm_eps};
    sl_domain domain = v->domain;
    uint32_t width = v->width;
    node.inputs[1] = constant(b, w);
    return sl_graph_node_add(b->graph, node, domain, width, "%s", name);
}

static int weight_of(builder *b, const sl_gguf_tensor *t)
{
    return sl_graph_weight_add(b->graph, t->name, t->type, t->ne[1], t->ne[0], t->data);
}

/* y = W x (+ bias) named blk.<layer>.<name>. */
static int linear(builder *b, int x, sl_role role, sl_role bias_role, const char *name)
{
    const sl_gguf_tensor *w = b->tensors[role], *bias = bias_role < SL_ROLE_COUNT ? b->tensors[bias_role] : NULL;
    sl_node node = {.op = SL_OP_MATMUL, .inputs = {x, bias ? constant(b, bias) : SL_NONE}, .weight = weight_of(b, w)};
    return sl_graph_node_add(b->graph, node, SL_DOMAIN_ROWS, (uint32_t)w->ne[1], "blk.%u.%s", b->layer, name);
}

static int add(builder *b, int x, int y, const char *name)
{
    sl_node node = {.op = SL_OP_ADD, .inputs = {x, y}};
    return sl_graph_node_add(b->graph, node, SL_DOMAIN_ROWS, b->h->n_embd, "blk.%u.%s", b->layer, name);
}

static int layer_norm_of(builder *b, int x, sl_role role, uint32_t n_heads, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "blk.%u.%s", b->layer, name);
    return b->tensors[role] ? norm(b, x, b->tensors[role], n_heads, full) : x;
}

static int rotate(builder *b, int x, uint32_t n_heads, int table, const char *name)
{
    sl_node node = {.op = SL_OP_ROPE,
                    .inputs = {x, table},
                    .n_heads = n_heads,
                    .head_dim = b->h->head_dim,
                    .rope_mode = b->arch->rope_mode};
    return sl_graph_node_add(b->graph, node, SL_DOMAIN_ROWS, n_heads * b->h->head_dim, "blk.%u.%s", b->layer, name);
}

static int attention(builder *b, int x)
{
    const sl_hparams *h = b->h;
    bool local = sl_hparams_is_local(h, b->arch, b->layer);
    int q = linear(b, x, SL_ROLE_Q, SL_ROLE_Q_BIAS, "q");
    int k = linear(b, x, SL_ROLE_K, SL_ROLE_K_BIAS, "k");
    int v = linear(b, x, SL_ROLE_V, SL_ROLE_V_BIAS, "v");
    q = layer_norm_of(b, q, SL_ROLE_Q_NORM, h->n_heads, "q_norm");
    k = layer_norm_of(b, k, SL_ROLE_K_NORM, h->n_kv_heads, "k_norm");
    q = rotate(b, q, h->n_heads, b->rope_table[local], "q_rope");
    k = rotate(b, k, h->n_kv_heads, b->rope_table[local], "k_rope");
    int layer = sl_graph_layer_add(
        b->graph,
        (sl_graph_layer){.n_kv_heads = h->n_kv_heads, .head_dim = h->head_dim, .window = local ? h->window : 0});
    sl_node write = {.op = SL_OP_KV_WRITE, .inputs = {k, v}, .layer = layer};
    sl_graph_node_add(b->graph, write, SL_DOMAIN_ROWS, 0, "-");
    sl_node attend = {.op = SL_OP_ATTENTION,
                      .inputs = {q, SL_NONE},
                      .layer = layer,
                      .n_heads = h->n_heads,
                      .head_dim = h->head_dim,
                      .factor = h->attention_scale};
    int heads =
        sl_graph_node_add(b->graph, attend, SL_DOMAIN_ROWS, h->n_heads * h->head_dim, "blk.%u.attention", b->layer);
    return linear(b, heads, SL_ROLE_ATTN_OUT, SL_ROLE_COUNT, "attn_out");
}

static int feed_forward(builder *b, int x)
{
    int gate = linear(b, x, SL_ROLE_GATE, SL_ROLE_COUNT, "ffn_gate");
    int up = linear(b, x, SL_ROLE_UP, SL_ROLE_COUNT, "ffn_up");
    sl_node glu = {.op = SL_OP_GLU, .inputs = {gate, up}, .gate = b->arch->gate};
    int hidden = sl_graph_node_add(b->graph, glu, SL_DOMAIN_ROWS, b->h->n_ff, "blk.%u.ffn_glu", b->layer);
    return linear(b, hidden, SL_ROLE_DOWN, SL_ROLE_COUNT, "ffn_out");
}

/* x + post_norm(f(norm(x))), twice. */
static int decoder_layer(builder *b, int x)
{
    int y = attention(b, layer_norm_of(b, x, SL_ROLE_ATTN_NORM, 1, "attn_norm"));
    x = add(b, x, layer_norm_of(b, y, SL_ROLE_ATTN_POST_NORM, 1, "attn_post_norm"), "attn_residual");
    y = feed_forward(b, layer_norm_of(b, x, SL_ROLE_FFN_NORM, 1, "ffn_norm"));
    return add(b, x, layer_norm_of(b, y, SL_ROLE_FFN_POST_NORM, 1, "ffn_post_norm"), "out");
}

/* Cosines and sines for one RoPE base; divisors as in Llama 3.1's rope_freqs.weight. */
static int rope_table(builder *b, float base, float factor, const sl_gguf_tensor *divisors, const char *name)
{
    uint32_t n_pairs = b->h->n_rot / 2;
    sl_node freqs = {.op = SL_OP_ROPE_FREQS, .inputs = {SL_NONE, SL_NONE}, .base = base, .factor = factor};
    int f = sl_graph_node_add(b->graph, freqs, SL_DOMAIN_ONE, n_pairs, "%s.freqs", name);
    if (divisors) {
        sl_node div = {.op = SL_OP_DIV, .inputs = {f, constant(b, divisors)}};
        f = sl_graph_node_add(b->graph, div, SL_DOMAIN_ONE, n_pairs, "%s.freqs_scaled", name);
    }
    sl_node table = {.op = SL_OP_ROPE_TABLE, .inputs = {f, SL_NONE}};
    return sl_graph_node_add(b->graph, table, SL_DOMAIN_ROWS, 2 * n_pairs, "%s", name);
}

static int embed(builder *b, int weight)
{
    sl_node node = {.op = SL_OP_EMBED, .inputs = {SL_NONE, SL_NONE}, .weight = weight};
    int x = sl_graph_node_add(b->graph, node, SL_DOMAIN_ROWS, b->h->n_embd, "embedding");
    if (!b->arch->scale_embeddings)
        return x;
    sl_node scale = {.op = SL_OP_SCALE, .inputs = {x, SL_NONE}, .factor = sqrtf((float)b->h->n_embd)};
    return sl_graph_node_add(b->graph, scale, SL_DOMAIN_ROWS, b->h->n_embd, "embedding_scaled");
}

sl_status sl_build_decoder(sl_graph *graph, const sl_arch *arch, const sl_hparams *hparams, const sl_bindings *bindings,
                           sl_err *err)
{
    builder b = {.graph = graph, .arch = arch, .h = hparams, .bindings = bindings, .err = err};
    const sl_gguf_tensor *const *global = bindings->global;
    int embed_weight = weight_of(&b, global[SL_ROLE_EMBED]);
    int output_weight = global[SL_ROLE_OUTPUT] ? weight_of(&b, global[SL_ROLE_OUTPUT]) : embed_weight;
    int x = embed(&b, embed_weight);
    b.rope_table[0] = rope_table(&b, hparams->rope_base, hparams->rope_factor, global[SL_ROLE_ROPE_DIVISORS], "rope");
    if (hparams->window)
        b.rope_table[1] = rope_table(&b, hparams->local_rope_base, 1.0f, NULL, "rope_local");
    for (b.layer = 0; b.layer < hparams->n_layers && !graph->failed; b.layer++) {
        b.tensors = bindings->layers[b.layer];
        x = decoder_layer(&b, x);
    }
    sl_node select = {.op = SL_OP_SELECT, .inputs = {x, SL_NONE}};
    x = sl_graph_node_add(graph, select, SL_DOMAIN_WANTED, hparams->n_embd, "last_hidden");
    x = graph->hidden = graph->failed ? 0 : norm(&b, x, global[SL_ROLE_OUTPUT_NORM], 1, "output_norm");
    sl_node head = {.op = SL_OP_MATMUL, .inputs = {x, SL_NONE}, .weight = output_weight};
    graph->logits = sl_graph_node_add(graph, head, SL_DOMAIN_LOGITS, hparams->n_vocab, "logits");
    if (graph->failed)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for the model's graph");
    return b.status;
}
