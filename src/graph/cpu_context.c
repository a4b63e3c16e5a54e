/* Memory of the CPU backend: step buffers, scratch, partial results of attention, the KV pools and their layout. */
#include "graph/cpu_context.h"

#include "base/checked.h"

#include <stdlib.h>

static size_t scratch_stride(const sl_plan *plan)
{
    size_t most = SL_MATMUL_SCRATCH_BYTES;
    for (int i = 0; i < plan->graph.n_nodes; i++) {
        const sl_node *node = &plan->graph.nodes[i];
        if (node->op != SL_OP_ATTENTION)
            continue;
        const sl_graph_layer *layer = &plan->graph.layers[node->layer];
        size_t n = sl_attention_scratch_bytes(node->n_heads, layer->n_kv_heads, layer->head_dim);
        size_t mass =
            sl_attention_mass_scratch_bytes(node->n_heads, layer->n_kv_heads, layer->head_dim, 1, SL_MASS_BLOCKS) +
            sl_align_up(SL_MASS_BLOCKS * sizeof(uint64_t), 64);
        most = SL_MAX(most, SL_MAX(n, mass));
    }
    return sl_align_up(most, 4096);
}

/* Slots for partial results of attention: each as large as the largest layer's, for one row and one split. They suffice
 * for all positions of the pool seen by SPLIT_ROWS rows, and some more since splits begin and end anywhere. */
static void measure_slots(const sl_plan *plan, const sl_context_sizes *sizes, int n_threads, uint32_t *n_slots,
                          size_t *slot_bytes, uint32_t *slot_heads)
{
    enum { SPLIT_BLOCKS = SL_KV_SPLIT / SL_KV_BLOCK, SPARE = 64 };
    *n_slots = 0, *slot_bytes = 64, *slot_heads = 1;
    for (int g = 0; g < plan->n_groups && n_threads > 1; g++)
        *n_slots = SL_MAX(*n_slots, sizes->n_blocks[g] / SPLIT_BLOCKS * SPLIT_ROWS + SPARE);
    for (int i = 0; i < plan->graph.n_nodes; i++) {
        const sl_node *node = &plan->graph.nodes[i];
        if (node->op != SL_OP_ATTENTION)
            continue;
        const sl_graph_layer *layer = &plan->graph.layers[node->layer];
        sl_attention args = {.n_heads = node->n_heads,
                             .kv = sl_kv_layer_make(SL_KV_F32, layer->n_kv_heads, layer->head_dim)};
        size_t n_bytes = layer->n_kv_heads * sl_attention_partial_elems(&args, 1) * sizeof(float);
        *slot_bytes = SL_MAX(*slot_bytes, n_bytes);
        *slot_heads = SL_MAX(*slot_heads, layer->n_kv_heads);
    }
}

/* Most bytes that layered rows are between two parts; without memory to find out, more than can be had. */
static size_t measure_layered(const sl_plan *plan)
{
    size_t most = 0;
    int *live = calloc((size_t)plan->graph.n_values + 1, sizeof *live);
    if (!live)
        return PTRDIFF_MAX;
    for (int i = 1; i < sl_plan_parts(plan); i++) {
        size_t bytes = 0;
        for (int n = sl_plan_live(plan, sl_plan_part(plan, i), live); n > 0; n--)
            bytes += SL_LAYERED_ROWS * sl_value_row_bytes(&plan->graph.values[live[n - 1]]);
        most = SL_MAX(most, bytes);
    }
    free(live);
    return most;
}

void sl_cpu_context_bytes(const sl_plan *plan, const sl_context_sizes *sizes, int n_threads, uint64_t *step_bytes,
                          uint64_t *scratch_bytes, uint64_t *kv_bytes)
{
    *step_bytes = sl_plan_memory(plan, sizes->max_rows, sizes->max_wanted, NULL, NULL);
    uint32_t n_slots, slot_heads;
    size_t slot_bytes;
    measure_slots(plan, sizes, n_threads, &n_slots, &slot_bytes, &slot_heads);
    *scratch_bytes =
        (uint64_t)n_threads * scratch_stride(plan) + (uint64_t)n_slots * slot_bytes + measure_layered(plan);
    *kv_bytes = 0;
    for (int g = 0; g < plan->n_groups; g++) {
        uint64_t bytes;
        if (!sl_mul_u64(sizes->n_blocks[g], plan->groups[g].block_bytes, &bytes) ||
            !sl_add_u64(*kv_bytes, bytes, kv_bytes))
            *kv_bytes = UINT64_MAX;
    }
}

void sl_cpu_context_close(sl_context *context)
{
    if (!context)
        return;
    sl_pages_free(context->arena, context->arena_bytes);
    sl_pages_free(context->kv_pool, context->kv_bytes);
    sl_pages_free(context->scratch, (size_t)sl_threads_count(context->pool) * context->scratch_stride);
    sl_pages_free(context->partials, context->n_slots * context->slot_bytes);
    free(context->splits_done);
    for (int g = 0; g < SL_MAX_KV_GROUPS; g++) {
        free(context->tiles[g]);
        free(context->parts[g]);
    }
    free(context->wanted);
    free(context->live);
    free(context->layered);
    free(context->claims);
    free(context->offsets);
    free(context->kv);
    free(context);
}

/* Gives each layer its K and V. All that a group has of one block lies together, so that a short sequence touches little
 * memory and large pages serve a long one. */
static void place_kv(sl_context *context)
{
    const sl_plan *plan = context->plan;
    char *next = context->kv_pool;
    for (int g = 0; g < plan->n_groups; g++) {
        char *part = next;
        for (int i = 0; i < plan->graph.n_layers; i++) {
            if (plan->layer_group[i] != g)
                continue;
            const sl_graph_layer *layer = &plan->graph.layers[i];
            sl_kv_layer *kv = &context->kv[i];
            *kv = sl_kv_layer_make(plan->kv_type, layer->n_kv_heads, layer->head_dim);
            kv->k = part;
            kv->v = part += kv->k_stride_bytes;
            part += kv->v_stride_bytes;
            kv->k_stride_bytes = kv->v_stride_bytes = plan->groups[g].block_bytes;
        }
        next += plan->groups[g].block_bytes * context->sizes.n_blocks[g];
    }
}

static bool allocate(sl_context *context)
{
    const sl_plan *plan = context->plan;
    measure_slots(plan, &context->sizes, sl_threads_count(context->pool), &context->n_slots, &context->slot_bytes,
                  &context->slot_heads);
    context->offsets = calloc((size_t)plan->graph.n_values + 1, sizeof *context->offsets);
    context->kv = calloc((size_t)plan->graph.n_layers + 1, sizeof *context->kv);
    context->wanted = calloc((size_t)context->sizes.max_rows + 1, sizeof *context->wanted);
    context->live = calloc((size_t)plan->graph.n_values + 1, sizeof *context->live);
    context->layered_bytes = measure_layered(plan);
    context->layered = malloc(context->layered_bytes + 1);
    context->claims = aligned_alloc(_Alignof(claim), ((size_t)plan->n_steps + 1) * sizeof *context->claims);
    for (int g = 0; g < plan->n_groups; g++)
        if (!(context->tiles[g] = calloc(context->sizes.max_rows, sizeof *context->tiles[g])) ||
            !(context->parts[g] =
                  calloc((size_t)context->sizes.max_rows + context->n_slots, sizeof *context->parts[g])))
            return false;
    context->scratch_stride = scratch_stride(plan);
    context->arena = sl_pages_alloc(context->arena_bytes);
    context->kv_pool = sl_pages_alloc(context->kv_bytes);
    context->scratch = sl_pages_alloc((size_t)sl_threads_count(context->pool) * context->scratch_stride);
    context->splits_done = calloc((size_t)context->n_slots * context->slot_heads + 1, sizeof *context->splits_done);
    context->partials = sl_pages_alloc(context->n_slots * context->slot_bytes);
    return context->offsets && context->kv && context->wanted && context->live && context->layered && context->claims &&
           context->arena && context->kv_pool && context->scratch && context->splits_done && context->partials;
}

sl_status sl_cpu_context_open(const sl_plan *plan, const sl_context_sizes *sizes, sl_threads *pool, sl_context **out,
                              sl_err *err)
{
    uint64_t step_bytes, scratch_bytes, kv_bytes;
    sl_cpu_context_bytes(plan, sizes, sl_threads_count(pool), &step_bytes, &scratch_bytes, &kv_bytes);
    if (step_bytes == 0 || step_bytes > PTRDIFF_MAX || kv_bytes > PTRDIFF_MAX)
        SL_FAIL(err, SL_ERR_LIMIT, "the context asks for more memory than can be addressed");
    sl_context *context = calloc(1, sizeof *context);
    if (!context)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a context");
    *context =
        (sl_context){.plan = plan, .pool = pool, .sizes = *sizes, .arena_bytes = step_bytes, .kv_bytes = kv_bytes};
    if (!allocate(context)) {
        sl_cpu_context_close(context);
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a context: %.1f MB of KV cache and %.1f MB of buffers",
                (double)kv_bytes / 1e6, (double)(step_bytes + scratch_bytes) / 1e6);
    }
    sl_plan_memory(plan, sizes->max_rows, sizes->max_wanted, context->offsets, NULL);
    place_kv(context);
    *out = context;
    return SL_OK;
}
