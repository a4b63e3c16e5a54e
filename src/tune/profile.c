#include "tune/profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sl_profiler {
    const sl_plan *plan;
    int n_threads;
    sl_profile hook;
    sl_profile_line *steps; /* of each step */
    uint32_t n_runs;
};

/* ---- what a step is called ---- */

static void append(char *out, size_t room, const char *text, size_t n)
{
    size_t have = strlen(out);
    n = SL_MIN(n, room - 1 - have);
    memcpy(out + have, text, n);
    out[have + n] = '\0';
}

/* "blk.3.attn_q.weight" is "attn_q" in every layer. */
static void append_weight(char *out, size_t room, const char *name)
{
    const char *dot = strchr(name, '.'), *second = dot != NULL ? strchr(dot + 1, '.') : NULL;
    if (second != NULL && dot == name + 3 && memcmp(name, "blk", 3) == 0)
        name = second + 1;
    const char *end = strstr(name, ".weight");
    append(out, room, name, end != NULL ? (size_t)(end - name) : strlen(name));
}

static void write_label(const sl_plan *plan, const sl_step *step, char *out, size_t room)
{
    static const char *const kinds[] = {"rows ", "matmul ", ""};
    const sl_graph *graph = &plan->graph;
    append(out, room, kinds[step->kind], strlen(kinds[step->kind]));
    for (int i = step->begin; i < step->end; i++) {
        const sl_node *node = &graph->nodes[i];
        if (i > step->begin)
            append(out, room, "+", 1);
        if (step->kind == SL_STEP_MATMUL)
            append_weight(out, room, graph->weights[node->weight].name);
        else
            append(out, room, sl_op_name(node->op), strlen(sl_op_name(node->op)));
    }
    if (step->kind != SL_STEP_MATMUL)
        return;
    for (int i = step->begin; i < step->end; i++) {
        sl_type type = graph->weights[graph->nodes[i].weight].type;
        if (i > step->begin && type == graph->weights[graph->nodes[i - 1].weight].type)
            continue;
        const char *name = sl_type_get((uint32_t)type)->name;
        append(out, room, i > step->begin ? "," : " ", 1);
        append(out, room, name, strlen(name));
    }
}

/* ---- what work a step is ---- */

static double rows_of(sl_domain domain, const sl_batch *batch, uint32_t n_wanted)
{
    double n_logits = 0;
    for (uint32_t r = 0; r < batch->n_rows && domain == SL_DOMAIN_LOGITS; r++)
        n_logits += batch->rows[r].wanted;
    return domain == SL_DOMAIN_ONE      ? 1
           : domain == SL_DOMAIN_ROWS   ? batch->n_rows
           : domain == SL_DOMAIN_WANTED ? n_wanted
                                        : n_logits;
}

static double value_bytes(const sl_graph *graph, int value, const sl_batch *batch, uint32_t n_wanted)
{
    if (value == SL_NONE)
        return 0;
    const sl_value *v = &graph->values[value];
    return rows_of(v->domain, batch, n_wanted) * (double)sl_value_row_bytes(v);
}

static void count_matmul(const sl_graph *graph, const sl_node *node, double n_rows, sl_profile_line *line)
{
    const sl_weight *weight = &graph->weights[node->weight].weight;
    line->ops += 2 * n_rows * (double)weight->n_rows * (double)weight->n_cols;
    line->bytes += (double)weight->n_panels * (double)weight->panel_bytes;
    line->int8 = weight->act == SL_ACT_Q8;
}

/* Rows of a sequence at consecutive positions share a tile of SL_ATTENTION_ROWS, which reads each position once. */
static void count_attention(const sl_plan *plan, const sl_node *node, const sl_batch *batch, sl_profile_line *line)
{
    const sl_graph_layer *layer = &plan->graph.layers[node->layer];
    const sl_kv_group *group = &plan->groups[plan->layer_group[node->layer]];
    double position_bytes = (double)group->block_bytes / group->n_layers / SL_KV_BLOCK;
    uint32_t in_tile = 0;
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        const sl_row *row = &batch->rows[r];
        uint32_t seen = row->position + 1;
        if (layer->window != 0)
            seen = SL_MIN(seen, layer->window);
        bool joins = r > 0 && row->seq == row[-1].seq && row->position == row[-1].position + 1;
        in_tile = joins && in_tile < SL_ATTENTION_ROWS ? in_tile + 1 : 1;
        line->ops += 4.0 * node->n_heads * layer->head_dim * seen;
        line->bytes += position_bytes * (in_tile == 1 ? seen : 1);
    }
}

static void count_work(const sl_plan *plan, const sl_step *step, const sl_batch *batch, uint32_t n_wanted,
                       sl_profile_line *line)
{
    const sl_graph *graph = &plan->graph;
    double n_rows = rows_of(step->domain, batch, n_wanted);
    for (int i = step->begin; i < step->end; i++) {
        const sl_node *node = &graph->nodes[i];
        if (node->op == SL_OP_MATMUL)
            count_matmul(graph, node, n_rows, line);
        else if (node->op == SL_OP_ATTENTION)
            count_attention(plan, node, batch, line);
        else if (node->op == SL_OP_EMBED)
            line->bytes += n_rows * (double)graph->weights[node->weight].weight.panel_bytes / 16;
        bool shared = i > step->begin && node->inputs[0] == node[-1].inputs[0]; /* matmuls of one input */
        for (int j = shared ? 1 : 0; j < SL_MAX_INPUTS; j++)
            line->bytes += value_bytes(graph, node->inputs[j], batch, n_wanted);
        line->bytes += value_bytes(graph, node->output, batch, n_wanted);
    }
}

/* ---- collecting ---- */

static void on_run(void *user, const sl_batch *batch, uint32_t n_wanted)
{
    sl_profiler *profiler = user;
    const sl_plan *plan = profiler->plan;
    for (int s = 0; s < plan->n_steps; s++) {
        sl_profile_line *line = &profiler->steps[s];
        int64_t work_ns = 0, wait_ns = 0, slowest_ns = 0;
        for (int w = 0; w < profiler->n_threads; w++) {
            const int64_t *mark = profiler->hook.marks + (size_t)w * profiler->hook.stride + 2 * (size_t)s;
            work_ns += mark[1] - mark[0];
            wait_ns += mark[2] - mark[1];
            slowest_ns = SL_MAX(slowest_ns, mark[1] - mark[0]);
        }
        line->work_us += (double)work_ns / 1e3 / profiler->n_threads;
        line->wait_us += (double)wait_ns / 1e3 / profiler->n_threads;
        line->slowest_us += (double)slowest_ns / 1e3;
        count_work(plan, &plan->steps[s], batch, n_wanted, line);
    }
    profiler->n_runs++;
}

void sl_profiler_reset(sl_profiler *profiler)
{
    profiler->n_runs = 0;
    for (int s = 0; s < profiler->plan->n_steps; s++) {
        profiler->steps[s] = (sl_profile_line){.n_steps = 1};
        write_label(profiler->plan, &profiler->plan->steps[s], profiler->steps[s].label,
                    sizeof(profiler->steps[s].label));
    }
}

sl_status sl_profiler_open(const sl_plan *plan, int n_threads, sl_profiler **out, sl_err *err)
{
    *out = NULL;
    sl_profiler *profiler = calloc(1, sizeof(*profiler));
    if (profiler == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a profile");
    profiler->plan = plan;
    profiler->n_threads = n_threads;
    profiler->hook = (sl_profile){
        .stride = ((size_t)plan->n_steps * 2 + 1 + 7) & ~(size_t)7,
        .on_run = on_run,
        .user = profiler,
    };
    profiler->hook.marks = calloc((size_t)n_threads * profiler->hook.stride, sizeof(*profiler->hook.marks));
    profiler->steps = calloc((size_t)plan->n_steps, sizeof(*profiler->steps));
    if (profiler->hook.marks == NULL || profiler->steps == NULL) {
        sl_profiler_close(profiler);
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a profile");
    }
    sl_profiler_reset(profiler);
    *out = profiler;
    return SL_OK;
}

void sl_profiler_close(sl_profiler *profiler)
{
    if (profiler == NULL)
        return;
    free(profiler->hook.marks);
    free(profiler->steps);
    free(profiler);
}

const sl_profile *sl_profiler_hook(const sl_profiler *profiler)
{
    return &profiler->hook;
}

uint32_t sl_profiler_n_runs(const sl_profiler *profiler)
{
    return profiler->n_runs;
}

/* ---- reporting ---- */

static int longest_first(const void *a, const void *b)
{
    const sl_profile_line *x = a, *y = b;
    double tx = x->work_us + x->wait_us, ty = y->work_us + y->wait_us;
    return (tx < ty) - (tx > ty);
}

size_t sl_profiler_lines(const sl_profiler *profiler, bool by_label, sl_profile_line *out)
{
    size_t n = 0;
    for (int s = 0; s < profiler->plan->n_steps; s++) {
        const sl_profile_line *step = &profiler->steps[s];
        size_t i = by_label ? 0 : n;
        while (i < n && strcmp(out[i].label, step->label) != 0)
            i++;
        if (i == n) {
            out[n++] = *step;
            continue;
        }
        out[i].n_steps++;
        out[i].work_us += step->work_us;
        out[i].slowest_us += step->slowest_us;
        out[i].wait_us += step->wait_us;
        out[i].ops += step->ops;
        out[i].bytes += step->bytes;
    }
    if (by_label)
        qsort(out, n, sizeof(*out), longest_first);
    return n;
}

double sl_profile_limit_us(const sl_profile_line *line, const sl_limits *limits)
{
    double giga = line->int8 ? limits->int8_gops : limits->fp32_gflops;
    double compute = line->ops / (giga * 1e3), memory = line->bytes / (limits->dram_gbps * 1e3);
    return SL_MAX(compute, memory);
}
