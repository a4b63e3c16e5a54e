/* The CPU backend: every worker walks the steps of the plan, a barrier between them. */
#include "graph/cpu_context.h"

#include "base/checked.h"
#include "base/clock.h"
#include "graph/matmul_step.h"
#include "graph/row_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t domain_rows(const sl_context *context, sl_domain domain)
{
    const uint32_t n[] = {[SL_DOMAIN_ONE] = 1,
                          [SL_DOMAIN_ROWS] = context->n_rows,
                          [SL_DOMAIN_WANTED] = context->n_wanted,
                          [SL_DOMAIN_LOGITS] = context->n_logits};
    return n[domain];
}

/* Address of a row of a value; constants and values of domain ONE have one row only. */
static void *value_row(const sl_context *context, int value, size_t row)
{
    const sl_value *v = &context->plan->graph.values[value];
    if (v->data)
        return (void *)(uintptr_t)v->data;
    return context->arena + context->offsets[value] + (v->domain == SL_DOMAIN_ONE ? 0 : row * sl_value_row_bytes(v));
}

static void *worker_scratch(const sl_context *context, int index)
{
    return context->scratch + (size_t)index * context->scratch_stride;
}

/* A piece of the step that is this worker's now; the first is 0. */
static size_t take_piece(sl_context *context, const sl_step *step)
{
    claim *c = &context->claims[step - context->plan->steps];
    return atomic_fetch_add_explicit(&c->next, 1, memory_order_relaxed);
}

/* ---- row-wise steps ---- */

static void rope_table_row(const sl_context *context, const sl_node *node, uint32_t position, float *out)
{
    const float *freqs = value_row(context, node->inputs[0], 0);
    uint32_t n = context->plan->graph.values[node->inputs[0]].width;
    for (uint32_t i = 0; i < n; i++) {
        /* The product is float32 as in the models' training code; the angle's functions are then as exact as libm. */
        double angle = (double)((float)position * freqs[i]);
        out[i] = (float)cos(angle);
        out[n + i] = (float)sin(angle);
    }
}

static void kv_write_row(const sl_context *context, const sl_node *node, size_t row_index)
{
    const sl_row *row = &context->batch->rows[row_index];
    const sl_batch_seq *seq = &context->batch->seqs[row->seq];
    const int group = context->plan->layer_group[node->layer];
    const uint32_t place = row->position / SL_KV_BLOCK - seq->n_dropped[group];
    context->plan->kernels->kv_write(&context->kv[node->layer], seq->blocks[group][place], row->position % SL_KV_BLOCK,
                                     value_row(context, node->inputs[0], row_index),
                                     value_row(context, node->inputs[1], row_index));
}

static void embed_row(const sl_context *context, const sl_node *node, size_t row_index, float *out)
{
    const sl_row *row = &context->batch->rows[row_index];
    if (row->embedding)
        memcpy(out, row->embedding, context->plan->graph.values[node->output].width * sizeof *out);
    else
        context->plan->kernels->unpack_row(&context->plan->graph.weights[node->weight].weight, row->token, out);
}

static void run_row(const sl_context *context, const sl_node *node, size_t row)
{
    const sl_graph *graph = &context->plan->graph;
    void *out = node->output == SL_NONE ? NULL : value_row(context, node->output, row);
    const void *in[SL_MAX_INPUTS];
    switch (node->op) {
    case SL_OP_EMBED:
        embed_row(context, node, row, out);
        break;
    case SL_OP_ROPE_TABLE:
        rope_table_row(context, node, context->batch->rows[row].position, out);
        break;
    case SL_OP_KV_WRITE:
        kv_write_row(context, node, row);
        break;
    case SL_OP_SELECT:
        memcpy(out, value_row(context, node->inputs[0], context->wanted[row]),
               sl_value_row_bytes(&graph->values[node->output]));
        break;
    default:
        for (int j = 0; j < SL_MAX_INPUTS; j++)
            in[j] = node->inputs[j] == SL_NONE ? NULL : value_row(context, node->inputs[j], row);
        sl_row_eval(context->plan->kernels, graph, node, in, out);
    }
}

static void run_rows(const sl_context *context, const sl_step *step, int index, int n_threads)
{
    size_t begin, end;
    sl_threads_share(domain_rows(context, step->domain), index, n_threads, &begin, &end);
    for (size_t row = begin; row < end; row++)
        for (int i = step->begin; i < step->end; i++)
            run_row(context, &context->plan->graph.nodes[i], row);
}

/* ---- matmul steps ---- */

static void matmul_panels(const sl_context *context, const sl_node *node, size_t row, size_t row_end,
                          size_t panel_begin, size_t panel_end, void *scratch)
{
    const sl_graph *graph = &context->plan->graph;
    const sl_weight *weight = &graph->weights[node->weight].weight;
    sl_matmul args = {
        .weight = weight,
        .x = value_row(context, node->inputs[0], 0),
        .x_stride_bytes = sl_value_row_bytes(&graph->values[node->inputs[0]]),
        .y = value_row(context, node->output, 0),
        .y_stride_elems = sl_value_row_bytes(&graph->values[node->output]) / sizeof(float),
        .bias = node->inputs[1] == SL_NONE ? NULL : value_row(context, node->inputs[1], 0),
        .scratch = scratch,
        .reading = context->plan->kernels->reading,
    };
    context->plan->kernels->matmul[weight->layout](&args, row, row_end, panel_begin, panel_end);
}

static void run_piece(const sl_context *context, const sl_step *step, const sl_matmul_piece *piece, void *scratch)
{
    const sl_graph *graph = &context->plan->graph;
    size_t first = 0;
    for (int i = step->begin; i < step->end; i++) {
        const sl_node *node = &graph->nodes[i];
        size_t n = graph->weights[node->weight].weight.n_panels;
        size_t from = SL_MAX(piece->panel, first), to = SL_MIN(piece->panel_end, first + n);
        if (from < to)
            matmul_panels(context, node, piece->row, piece->row_end, from - first, to - first, scratch);
        first += n;
    }
}

static bool cut_piece(const sl_context *context, const sl_step *step, size_t i, sl_matmul_piece *piece)
{
    return sl_matmul_cut(&context->plan->graph, step, domain_rows(context, step->domain),
                         sl_threads_count(context->pool), i, piece);
}

/* A worker's first piece of the next matmul step, taken at a barrier before it: while the worker waits there, it reads
 * the weights ahead. */
typedef struct early_piece {
    const sl_step *step; /* NULL: none taken */
    bool exists;
    sl_matmul_piece piece;
    sl_read_ahead ahead;
} early_piece;

static void take_early(sl_context *context, int s, early_piece *early)
{
    const sl_plan *plan = context->plan;
    while (s < context->end && plan->steps[s].kind != SL_STEP_MATMUL)
        s++;
    if (early->step || s == context->end)
        return;
    early->step = &plan->steps[s];
    early->exists = cut_piece(context, early->step, take_piece(context, early->step), &early->piece);
    early->ahead = early->exists ? sl_read_ahead_of(plan, early->step, &early->piece) : (sl_read_ahead){0};
}

static void run_matmul(sl_context *context, const sl_step *step, int index, early_piece *early)
{
    void *scratch = worker_scratch(context, index);
    if (early->step == step) {
        if (early->exists)
            run_piece(context, step, &early->piece, scratch);
        early->step = NULL;
    }
    for (sl_matmul_piece piece; cut_piece(context, step, take_piece(context, step), &piece);)
        run_piece(context, step, &piece, scratch);
}

/* ---- attention steps ---- */

/* Adds the attention that rows of the tile give to their sequence's blocks, as far as that is measured, a part of the rows
 * at a time where the scratch holds no more. */
static void add_mass(sl_context *context, const sl_attention *args, int group, const sl_attention_tile *tile,
                     uint32_t kv_head, char *scratch)
{
    const sl_row *first = &context->batch->rows[tile->row];
    const sl_batch_seq *seq = &context->batch->seqs[first->seq];
    const uint32_t n_blocks = (tile->position + tile->n_rows - 1) / SL_KV_BLOCK + 1;
    const size_t sum_bytes = sl_align_up(n_blocks * sizeof(uint64_t), 64);
    uint32_t row = seq->mass_from > first->position ? seq->mass_from - first->position : 0, n = tile->n_rows;
    if (!seq->mass[group] || row >= tile->n_rows)
        return;
    SL_ASSERT(n_blocks <= SL_MASS_BLOCKS);
    uint64_t *sums = memset(scratch, 0, sum_bytes);
    while (n > 1 && sum_bytes + sl_attention_mass_scratch_bytes(args->n_heads, args->kv.n_kv_heads, args->kv.head_dim,
                                                                n, n_blocks) >
                        context->scratch_stride)
        n = (n + 1) / 2;
    for (; row < tile->n_rows; row += n) {
        const sl_attention_tile part = {.blocks = tile->blocks,
                                        .row = tile->row + row,
                                        .n_rows = SL_MIN(n, tile->n_rows - row),
                                        .position = tile->position + row};
        context->plan->kernels->attention_mass(args, &part, kv_head, scratch + sum_bytes, sums);
    }
    for (uint32_t b = 0; b < n_blocks; b++)
        __atomic_fetch_add(&seq->mass[group][b], sums[b], __ATOMIC_RELAXED);
}

/* One part of one KV head. Whoever ends the last split of a tile merges them. */
static void attention_task(sl_context *context, const sl_attention *args, int group, const attention_part *part,
                           uint32_t kv_head, void *scratch)
{
    const sl_attention_tile *tile = &context->tiles[group][part->tile];
    if (part->slot == NO_SLOT || part->split == 0) /* windows apart, each tile has a split 0 */
        add_mass(context, args, group, tile, kv_head, scratch);
    if (part->slot == NO_SLOT) {
        context->plan->kernels->attention(args, tile, kv_head, scratch, 0, NULL);
        return;
    }
    uint32_t begin, end;
    sl_attention_splits(tile, args->window, &begin, &end);
    size_t n = sl_attention_partial_elems(args, tile->n_rows);
    float *partials =
        (float *)(void *)(context->partials + part->slot * context->slot_bytes) + kv_head * (end - begin) * n;
    context->plan->kernels->attention(args, tile, kv_head, scratch, part->split, partials + (part->split - begin) * n);
    atomic_uint *done = &context->splits_done[(size_t)part->slot * context->slot_heads + kv_head];
    if (atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 < end - begin)
        return;
    atomic_store_explicit(done, 0, memory_order_relaxed);
    context->plan->kernels->attention_merge(args, tile, kv_head, partials);
}

static void run_attention(sl_context *context, const sl_step *step, int index)
{
    const sl_graph *graph = &context->plan->graph;
    const sl_node *node = &graph->nodes[step->begin];
    const sl_graph_layer *layer = &graph->layers[node->layer];
    const int group = context->plan->layer_group[node->layer];
    sl_attention args = {
        .q = value_row(context, node->inputs[0], 0),
        .q_stride_elems = sl_value_row_bytes(&graph->values[node->inputs[0]]) / sizeof(float),
        .out = value_row(context, node->output, 0),
        .out_stride_elems = sl_value_row_bytes(&graph->values[node->output]) / sizeof(float),
        .n_heads = node->n_heads,
        .window = layer->window,
        .scale = node->factor,
        .kv = context->kv[node->layer],
    };
    /* A task is a part's heads one by one, or, where there are parts enough, all of them: they lie side by side, so what
     * the CPU reads ahead of one is the next one's. From the last tile, which sees most, to the first. */
    const size_t n_parts = context->n_parts[group], n_threads = (size_t)sl_threads_count(context->pool);
    const size_t n_heads = n_parts >= MANY_PARTS * n_threads ? layer->n_kv_heads : 1,
                 per_part = layer->n_kv_heads / n_heads;
    for (size_t task; (task = take_piece(context, step)) < n_parts * per_part;)
        for (size_t h = 0; h < n_heads; h++)
            attention_task(context, &args, group, &context->parts[group][n_parts - 1 - task / per_part],
                           (uint32_t)(task % per_part * n_heads + h), worker_scratch(context, index));
}

/* ---- a run ---- */

static bool step_has_tap(const sl_context *context, const sl_step *step)
{
    const sl_graph *graph = &context->plan->graph;
    for (int i = step->begin; i < step->end; i++)
        if (graph->nodes[i].output != SL_NONE && graph->values[graph->nodes[i].output].tapped)
            return true;
    return false;
}

static void call_taps(const sl_context *context, const sl_step *step)
{
    const sl_graph *graph = &context->plan->graph;
    for (int i = step->begin; i < step->end; i++) {
        int output = graph->nodes[i].output;
        if (output == SL_NONE || !graph->values[output].tapped)
            continue;
        const sl_value *v = &graph->values[output];
        context->tap(context->tap_user, v->name, value_row(context, output, 0), domain_rows(context, v->domain),
                     v->width, sl_value_row_bytes(v) / sizeof(float));
    }
}

static void run_step(sl_context *context, const sl_step *step, int index, int n_threads, early_piece *early)
{
    switch (step->kind) {
    case SL_STEP_ROWS:
        run_rows(context, step, index, n_threads);
        break;
    case SL_STEP_MATMUL:
        run_matmul(context, step, index, early);
        break;
    case SL_STEP_ATTENTION:
        run_attention(context, step, index);
        break;
    }
}

static void show_taps(const sl_context *context, const sl_step *step)
{
    if (context->tap && step_has_tap(context, step))
        call_taps(context, step);
}

/* Row-wise work on a single row is too short to be shared. */
static bool is_serial(const sl_context *context, int s)
{
    const sl_step *step = &context->plan->steps[s];
    return s < context->end && step->kind == SL_STEP_ROWS && domain_rows(context, step->domain) == 1;
}

/* A worker's notes on step s of a profiled run. */
static void note(int64_t *marks, int s, int64_t done, int64_t passed)
{
    marks[1 + 2 * s] = done;
    marks[2 + 2 * s] = passed;
}

/* The barrier before step s. Whoever comes last shows the taps of the step before and does the serial steps that
 * follow, so that they need no barrier of their own. Returns the next step for all workers. */
static int pass_barrier(sl_context *context, int s, early_piece *early, int64_t *marks)
{
    int next = s;
    int64_t done = marks ? sl_clock_ns() : 0;
    take_early(context, s, early);
    bool last = sl_threads_arrive(context->pool, sl_read_ahead_some, &early->ahead);
    if (marks && s > context->begin)
        note(marks, s - 1, done, sl_clock_ns());
    if (last && s > context->begin)
        show_taps(context, &context->plan->steps[s - 1]);
    for (; is_serial(context, next); next++) {
        if (last) {
            run_step(context, &context->plan->steps[next], 0, 1, early);
            show_taps(context, &context->plan->steps[next]);
        }
        if (marks)
            note(marks, next, last ? sl_clock_ns() : marks[2 * next], sl_clock_ns());
    }
    if (last)
        sl_threads_release(context->pool);
    return next;
}

static void worker(void *user, int index, int n_threads)
{
    sl_context *context = user;
    int64_t *marks = context->profile ? context->profile->marks + (size_t)index * context->profile->stride : NULL;
    if (marks && context->begin == 0)
        marks[0] = sl_clock_ns();
    early_piece early = {0};
    int s = is_serial(context, context->begin) ? pass_barrier(context, context->begin, &early, marks) : context->begin;
    while (s < context->end) {
        run_step(context, &context->plan->steps[s], index, n_threads, &early);
        s = pass_barrier(context, s + 1, &early, marks);
    }
}

/* Tiles of few rows are divided further, by splits, as far as there are slots for what they come to. */
static void make_parts(sl_context *context, int group)
{
    attention_part *part = context->parts[group];
    for (uint32_t t = 0, slot = 0; t < context->n_tiles; t++) {
        const sl_attention_tile *tile = &context->tiles[group][t];
        uint32_t begin, end;
        sl_attention_splits(tile, context->plan->groups[group].window, &begin, &end);
        uint64_t n_slots = (uint64_t)tile->n_rows * (end - begin);
        if (end - begin == 1 || tile->n_rows > SPLIT_ROWS || n_slots > context->n_slots - slot) {
            *part++ = (attention_part){.tile = t, .slot = NO_SLOT};
            continue;
        }
        for (uint32_t s = begin; s < end; s++)
            *part++ = (attention_part){.tile = t, .split = s, .slot = slot};
        slot += (uint32_t)n_slots;
    }
    context->n_parts[group] = (uint32_t)(part - context->parts[group]);
}

/* How many rows from r on are one sequence's at consecutive positions. */
static uint32_t count_run(const sl_context *context, uint32_t r)
{
    const sl_row *first = &context->batch->rows[r];
    uint32_t n = 1;
    while (r + n < context->n_rows && first[n].seq == first->seq && first[n].position == first->position + n)
        n++;
    return n;
}

/* The tile of rows [r, r + n), in every group with the group's own blocks. */
static void add_tile(sl_context *context, uint32_t r, uint32_t n)
{
    const sl_row *first = &context->batch->rows[r];
    const sl_batch_seq *seq = &context->batch->seqs[first->seq];
    for (int g = 0; g < context->plan->n_groups; g++)
        context->tiles[g][context->n_tiles] =
            (sl_attention_tile){.blocks = seq->blocks[g],
                                .row = r,
                                .n_rows = n,
                                .position = first->position - SL_KV_BLOCK * seq->n_dropped[g]};
    context->n_tiles++;
}

/* Rows of one sequence at consecutive positions form tiles. What would be one tile, and too large to be cut by splits, is
 * one for each worker: there may be fewer KV heads than workers, or one more. */
static void make_tiles(sl_context *context)
{
    const uint32_t n_threads = (uint32_t)sl_threads_count(context->pool);
    context->n_tiles = 0;
    for (uint32_t r = 0; r < context->n_rows;) {
        const uint32_t n = count_run(context, r), each = SL_MAX((n + n_threads - 1) / n_threads, (uint32_t)SPLIT_ROWS);
        const uint32_t most = n > SL_ATTENTION_ROWS ? SL_ATTENTION_ROWS : each;
        for (uint32_t end = r + n; r < end; r += SL_MIN(most, end - r))
            add_tile(context, r, SL_MIN(most, end - r));
    }
    for (int g = 0; g < context->plan->n_groups; g++)
        make_parts(context, g);
}

/* Rows of the embedding matrix: token ids must be below it. */
static size_t embedding_rows(const sl_graph *graph)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].op == SL_OP_EMBED)
            return graph->weights[graph->nodes[i].weight].n_rows;
    return 0;
}

/* Lists the rows whose logits are wanted, and behind them those whose hidden states are. */
static sl_status list_wanted(sl_context *context, const sl_batch *batch, sl_err *err)
{
    context->n_wanted = 0;
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        if (!batch->rows[r].wanted)
            continue;
        if (context->n_wanted == context->sizes.max_wanted)
            SL_FAIL(err, SL_ERR_ARGUMENT, "logits of more than %u rows wanted", context->sizes.max_wanted);
        context->wanted[context->n_wanted++] = r;
    }
    context->n_logits = context->n_wanted;
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        if (!batch->rows[r].hidden)
            continue;
        if (batch->rows[r].wanted)
            SL_FAIL(err, SL_ERR_ARGUMENT, "both logits and hidden state of row %u wanted", r);
        context->wanted[context->n_wanted++] = r;
    }
    return SL_OK;
}

static sl_status check_batch(sl_context *context, const sl_batch *batch, sl_err *err)
{
    if (batch->n_rows == 0 || batch->n_rows > context->sizes.max_rows)
        SL_FAIL(err, SL_ERR_ARGUMENT, "a batch of %u rows: this context takes 1 to %u", batch->n_rows,
                context->sizes.max_rows);
    size_t n_vocab = embedding_rows(&context->plan->graph);
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        const sl_row *row = &batch->rows[r];
        if (row->seq >= batch->n_seqs || (!row->embedding && row->token >= n_vocab))
            SL_FAIL(err, SL_ERR_ARGUMENT, "row %u names sequence %u and token %u, which do not exist", r, row->seq,
                    row->token);
        if (row->parent >= 0 || row->adapter || !row->causal)
            SL_FAIL(err, SL_ERR_UNSUPPORTED, "the CPU backend has no draft trees, adapters or bidirectional rows yet");
    }
    const int n_parts = sl_plan_parts(context->plan);
    if (batch->n_layered > 0 &&
        (batch->n_layered > SL_MIN(batch->n_rows, (uint32_t)SL_LAYERED_ROWS) || batch->part_begin < 0 ||
         batch->part_begin >= batch->part_end || batch->part_end > n_parts))
        SL_FAIL(err, SL_ERR_ARGUMENT, "%u of %u rows through parts %d to %d of %d", batch->n_layered, batch->n_rows,
                batch->part_begin, batch->part_end, n_parts);
    for (uint32_t r = batch->n_rows - batch->n_layered; r < batch->n_rows; r++)
        if (batch->rows[r].wanted || batch->rows[r].hidden)
            SL_FAIL(err, SL_ERR_ARGUMENT, "logits or hidden state of row %u wanted, which goes through parts", r);
    return list_wanted(context, batch, err);
}

/* A profiled run goes on behind steps [begin, end), which had nothing to do. */
static void pass_over(const sl_context *context, int begin, int end)
{
    if (!context->profile)
        return;
    const int64_t now = sl_clock_ns();
    for (int w = 0; w < sl_threads_count(context->pool); w++) {
        int64_t *marks = context->profile->marks + (size_t)w * context->profile->stride;
        if (begin == 0)
            marks[0] = now;
        for (int s = begin; s < end; s++)
            note(marks, s, now, now);
    }
}

/* Steps [begin, end) on the first n_rows rows. */
static void run_stretch(sl_context *context, int begin, int end, uint32_t n_rows)
{
    if (begin == end || n_rows == 0) {
        pass_over(context, begin, end);
        return;
    }
    context->begin = begin;
    context->end = end;
    context->n_rows = n_rows;
    make_tiles(context);
    for (int i = begin; i < end; i++)
        atomic_store_explicit(&context->claims[i].next, 0, memory_order_relaxed);
    sl_threads_run(context->pool, worker, context);
}

/* Copies what the layered rows are at a step from the buffers, or to them. */
static void keep_layered(sl_context *context, int step, bool back)
{
    const uint32_t n = context->batch->n_layered, first = context->batch->n_rows - n;
    int n_live = sl_plan_live(context->plan, step, context->live);
    char *kept = context->layered;
    for (int i = 0; i < n_live; i++) {
        const size_t bytes = n * sl_value_row_bytes(&context->plan->graph.values[context->live[i]]);
        char *value = value_row(context, context->live[i], first);
        memcpy(back ? value : kept, back ? kept : value, bytes);
        kept += bytes;
    }
    SL_ASSERT((size_t)(kept - context->layered) <= context->layered_bytes);
}

static sl_status cpu_run(sl_context *context, const sl_batch *batch, sl_err *err)
{
    const int n_steps = context->plan->n_steps;
    SL_TRY(check_batch(context, batch, err));
    context->batch = batch;
    if (batch->n_layered == 0) {
        run_stretch(context, 0, n_steps, batch->n_rows);
    } else {
        const uint32_t n_others = batch->n_rows - batch->n_layered;
        const int begin = sl_plan_part(context->plan, batch->part_begin),
                  end = sl_plan_part(context->plan, batch->part_end);
        run_stretch(context, 0, begin, n_others);
        keep_layered(context, begin, true);
        run_stretch(context, begin, end, batch->n_rows);
        keep_layered(context, end, false);
        run_stretch(context, end, n_steps, n_others);
    }
    if (context->profile)
        context->profile->on_run(context->profile->user, batch, context->n_wanted);
    context->batch = NULL;
    return SL_OK;
}

/* ---- what else a backend does ---- */

static float *cpu_logits(sl_context *context, uint32_t index)
{
    return value_row(context, context->plan->graph.logits, index);
}

static const float *cpu_hidden(sl_context *context, uint32_t index)
{
    return value_row(context, context->plan->graph.hidden, context->n_logits + index);
}

static void cpu_copy_block(sl_context *context, int group, uint32_t from, uint32_t to)
{
    for (int i = 0; i < context->plan->graph.n_layers; i++) {
        if (context->plan->layer_group[i] != group)
            continue;
        /* The group's first layer begins each block. */
        char *first = context->kv[i].k;
        size_t n_bytes = context->plan->groups[group].block_bytes;
        memcpy(first + to * n_bytes, first + from * n_bytes, n_bytes);
        return;
    }
}

static void cpu_synchronise(sl_context *context)
{
    (void)context; /* a run returns when it is done */
}

static void cpu_set_tap(sl_context *context, sl_tap_fn *fn, void *user)
{
    context->tap = fn;
    context->tap_user = user;
}

static void cpu_set_profile(sl_context *context, const sl_profile *profile)
{
    context->profile = profile;
}

const sl_backend *sl_backend_cpu(void)
{
    static const sl_backend cpu = {
        .name = "cpu",
        .context_bytes = sl_cpu_context_bytes,
        .context_open = sl_cpu_context_open,
        .context_close = sl_cpu_context_close,
        .run = cpu_run,
        .logits = cpu_logits,
        .hidden = cpu_hidden,
        .copy_block = cpu_copy_block,
        .synchronise = cpu_synchronise,
        .set_tap = cpu_set_tap,
        .set_profile = cpu_set_profile,
    };
    return &cpu;
}
