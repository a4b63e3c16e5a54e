#include "model/model.h"

#include "model/build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sl_model {
    sl_arena arena; /* graph, names, constants */
    sl_plan plan;
    sl_model_info info;
    sl_weights weights;
};

sl_model_options sl_model_options_default(void)
{
    return (sl_model_options){.level = sl_level_best(), .kv_type = SL_KV_F16};
}

/* ---- from file to plan ---- */

static sl_status find_arch(const sl_gguf *gguf, const sl_arch **out, sl_err *err)
{
    sl_gguf_string name = {"", 0};
    SL_TRY(sl_gguf_get_string(gguf, "general.architecture", &name, err));
    if (name.n_bytes == 0)
        SL_FAIL(err, SL_ERR_FORMAT, "the file names no architecture (general.architecture)");
    *out = sl_arch_find(name);
    if (!*out)
        SL_FAIL(err, SL_ERR_UNSUPPORTED, "architecture '%.*s' is not supported: this build runs %s",
                (int)SL_MIN(name.n_bytes, 40), name.bytes, sl_arch_names());
    return SL_OK;
}

static sl_status compile(const sl_gguf *gguf, const sl_model_options *options, sl_arena *arena,
                         sl_pass_observer *observer, void *observer_user, const sl_arch **arch, sl_hparams *hparams,
                         sl_plan *plan, sl_err *err)
{
    sl_bindings bindings;
    sl_graph graph;
    SL_TRY(find_arch(gguf, arch, err));
    SL_TRY(sl_hparams_read(gguf, *arch, hparams, err));
    SL_TRY(sl_bindings_find(gguf, *arch, hparams, arena, &bindings, err));
    sl_graph_init(&graph, arena, options->taps, options->n_taps);
    SL_TRY(sl_build_decoder(&graph, *arch, hparams, &bindings, err));
    sl_kv_type kv_type = options->level == SL_LEVEL_EXACT ? SL_KV_F32 : options->kv_type;
    return sl_plan_compile(&graph, options->level, kv_type, options->disabled_passes, observer, observer_user, plan,
                           err);
}

static sl_status check_taps(const sl_plan *plan, const sl_model_options *options, sl_err *err)
{
    for (size_t t = 0; t < options->n_taps; t++) {
        bool found = false;
        for (int i = 0; i < plan->graph.n_nodes && !found; i++) {
            int output = plan->graph.nodes[i].output;
            found = output != SL_NONE && strcmp(plan->graph.values[output].name, options->taps[t]) == 0;
        }
        if (!found)
            SL_FAIL(err, SL_ERR_NOT_FOUND, "the plan computes no value named '%s'", options->taps[t]);
    }
    return SL_OK;
}

static void fill_info(sl_model *model, const sl_gguf *gguf, const sl_arch *arch, const sl_hparams *h)
{
    sl_model_info *info = &model->info;
    *info = (sl_model_info){
        .arch = arch->name,
        .n_layers = h->n_layers,
        .n_embd = h->n_embd,
        .n_ff = h->n_ff,
        .n_heads = h->n_heads,
        .n_kv_heads = h->n_kv_heads,
        .head_dim = h->head_dim,
        .n_vocab = h->n_vocab,
        .context_length = h->context_length,
        .window = h->window,
        .tied_embeddings = !sl_gguf_find_tensor(gguf, "output.weight"),
    };
    sl_gguf_string name = {"", 0};
    const sl_gguf_value *value = sl_gguf_find(gguf, "general.name");
    if (value && value->kind == SL_GGUF_STRING)
        name = value->strings[0];
    snprintf(info->name, sizeof info->name, "%.*s", (int)SL_MIN(name.n_bytes, sizeof info->name - 1), name.bytes);
    for (size_t i = 0; i < sl_gguf_n_tensors(gguf); i++) {
        info->n_params += sl_gguf_tensor_at(gguf, i)->n_elems;
        info->weight_bytes += sl_gguf_tensor_at(gguf, i)->n_bytes;
    }
    for (int i = 0; i < model->plan.graph.n_weights; i++)
        info->packed_bytes += sl_weight_packed_bytes(&model->plan.graph.weights[i].weight);
    for (int g = 0; g < model->plan.n_groups; g++) {
        info->kv_bytes_per_token += model->plan.groups[g].block_bytes / SL_KV_BLOCK;
        if (model->plan.groups[g].window)
            info->n_window_layers += model->plan.groups[g].n_layers;
    }
}

sl_status sl_model_open(const sl_gguf *gguf, const sl_model_options *options, sl_threads *pool, sl_model **out,
                        sl_err *err)
{
    *out = NULL;
    sl_model *model = calloc(1, sizeof *model);
    if (!model)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a model");
    sl_arena_init(&model->arena, 256 * 1024);
    const sl_arch *arch;
    sl_hparams hparams;
    sl_status status = compile(gguf, options, &model->arena, NULL, NULL, &arch, &hparams, &model->plan, err);
    if (status == SL_OK)
        status = check_taps(&model->plan, options, err);
    if (status == SL_OK) {
        fill_info(model, gguf, arch, &hparams);
        if (!(options->flags & SL_MODEL_NO_WEIGHTS))
            status = sl_weights_bind(&model->weights, &model->plan, gguf, &options->cache, pool, options->progress,
                                     options->progress_user, err);
    }
    if (status != SL_OK) {
        sl_model_close(model);
        return status;
    }
    *out = model;
    return SL_OK;
}

void sl_model_close(sl_model *model)
{
    if (!model)
        return;
    sl_weights_close(&model->weights);
    sl_arena_reset(&model->arena);
    free(model);
}

const sl_model_info *sl_model_get_info(const sl_model *model)
{
    return &model->info;
}

const sl_plan *sl_model_plan(const sl_model *model)
{
    return &model->plan;
}

/* ---- printing ---- */

typedef struct {
    sl_print_fn *print;
    void *user;
} pass_printer;

static void print_pass(void *user, const char *pass_name, const sl_graph *graph, int n_changes)
{
    pass_printer *p = user;
    char line[128];
    if (strcmp(pass_name, "build") == 0)
        snprintf(line, sizeof line, "== graph as built: %d nodes\n", graph->n_nodes);
    else
        snprintf(line, sizeof line, "== after pass '%s': %d changes, %d nodes\n", pass_name, n_changes, graph->n_nodes);
    p->print(p->user, line);
    sl_graph_print(graph, p->print, p->user);
}

static void print_plan(const sl_plan *plan, pass_printer *p)
{
    enum { ROWS = 512, WANTED = 1 };
    static const char *const kinds[] = {"rows", "matmul", "attention"};
    uint64_t sum, total = sl_plan_memory(plan, ROWS, WANTED, NULL, &sum);
    char line[256];
    snprintf(line, sizeof line, "== step plan: %d steps; buffers for %d rows take %.2f MB (%.2f MB without sharing)\n",
             plan->n_steps, ROWS, (double)total / 1e6, (double)sum / 1e6);
    p->print(p->user, line);
    for (int s = 0; s < plan->n_steps; s++) {
        const sl_step *step = &plan->steps[s];
        int n = snprintf(line, sizeof line, "%5d %-9s", s, kinds[step->kind]);
        for (int i = step->begin; i < step->end && n < 200; i++)
            n += snprintf(line + n, sizeof line - (size_t)n, " %s", sl_op_name(plan->graph.nodes[i].op));
        snprintf(line + n, sizeof line - (size_t)n, "\n");
        p->print(p->user, line);
    }
}

sl_status sl_model_print_passes(const sl_gguf *gguf, const sl_model_options *options, sl_print_fn *print, void *user,
                                sl_err *err)
{
    sl_arena arena;
    sl_arena_init(&arena, 256 * 1024);
    const sl_arch *arch;
    sl_hparams hparams;
    sl_plan plan;
    pass_printer printer = {print, user};
    sl_status status = compile(gguf, options, &arena, print_pass, &printer, &arch, &hparams, &plan, err);
    if (status == SL_OK)
        print_plan(&plan, &printer);
    sl_arena_reset(&arena);
    return status;
}
