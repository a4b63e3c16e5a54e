#include "model/weights.h"

#include "base/arena.h"
#include "base/checked.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STAGE_BYTES = 1 << 20, /* what a worker packs at a time: fits its L2 cache */
    PREFIX_CHARS = 32,     /* of the file's identity, and of the key, in a cache file's name */
};

/* One binding in progress. */
typedef struct {
    sl_weights *weights;
    sl_graph *graph;
    const sl_plan *plan;
    const sl_gguf *gguf;
    const sl_pack_cache_options *cache;
    sl_threads *pool;
    sl_weights_progress_fn *progress;
    void *user;
    uint64_t done_bytes, total_bytes;
    sl_packfile file; /* a section for each packed weight, in order */
    char name[SL_PACK_NAME_BYTES];
    sl_pack_writer *writer; /* NULL: packed weights get memory of their own */
    char *stage;            /* stage_bytes for each worker */
    size_t stage_bytes;
} binding;

static bool report(binding *b, uint64_t n_bytes)
{
    b->done_bytes += n_bytes;
    return !b->progress || b->progress(b->user, b->done_bytes, b->total_bytes);
}

static sl_status cancelled(sl_err *err)
{
    SL_FAIL(err, SL_ERR_CANCELLED, "loading was cancelled");
}

/* ---- the cache's file: its name, key and sections ---- */

sl_status sl_weights_cache_prefix(const sl_gguf *gguf, char out[64], sl_err *err)
{
    char identity[SL_SHA256_HEX_BYTES];
    SL_TRY(sl_gguf_identity(gguf, identity, err));
    snprintf(out, 64, "%.*s%s", PREFIX_CHARS, identity, identity[0] ? "-" : "");
    return SL_OK;
}

/* Adds what a packed weight's bytes follow from, but for the numbers themselves. */
static sl_status hash_weight(sl_sha256 *sha, const sl_graph_weight *w, sl_err *err)
{
    const sl_weight *weight = &w->weight;
    uint64_t numbers[] = {(uint64_t)weight->type, (uint64_t)weight->layout, weight->n_rows,
                          weight->n_cols,         weight->n_panels,         weight->panel_bytes};
    SL_TRY(sl_sha256_update(sha, w->name, strlen(w->name) + 1, err));
    return sl_sha256_update(sha, numbers, sizeof numbers, err);
}

static sl_status hash_plan(const binding *b, sl_sha256 *sha, const char *prefix, sl_err *err)
{
    char numerics[64];
    snprintf(numerics, sizeof numerics, "%s kernels %d", sl_level_name(b->plan->level), SL_KERNEL_REVISION);
    SL_TRY(sl_sha256_update(sha, prefix, strlen(prefix) + 1, err));
    SL_TRY(sl_sha256_update(sha, numerics, strlen(numerics) + 1, err));
    for (int i = 0; i < b->graph->n_weights; i++)
        SL_TRY(hash_weight(sha, &b->graph->weights[i], err));
    return SL_OK;
}

static uint8_t hex_value(char digit)
{
    return (uint8_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

/* Fills file and name; name stays empty without a cache, an identity of the model file or anything packed. */
static sl_status describe_file(binding *b, sl_err *err)
{
    char prefix[64], hex[SL_SHA256_HEX_BYTES];
    b->file.sections = calloc((size_t)b->graph->n_weights + 1, sizeof *b->file.sections);
    if (!b->file.sections)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for the weights' table");
    for (int i = 0; i < b->graph->n_weights; i++) {
        size_t n_bytes = sl_weight_packed_bytes(&b->graph->weights[i].weight);
        if (n_bytes)
            b->file.sections[b->file.n_sections++].n_bytes = n_bytes;
    }
    SL_TRY(sl_packfile_place(&b->file, err));
    if (!b->cache->enabled || b->file.n_sections == 0)
        return SL_OK;
    SL_TRY(sl_weights_cache_prefix(b->gguf, prefix, err));
    if (!prefix[0])
        return SL_OK;
    sl_sha256 *sha;
    SL_TRY(sl_sha256_open(&sha, err));
    sl_status status = hash_plan(b, sha, prefix, err);
    if (status == SL_OK)
        status = sl_sha256_finish(sha, hex, err);
    sl_sha256_close(sha);
    SL_TRY(status);
    for (int i = 0; i < SL_PACKFILE_KEY_BYTES; i++)
        b->file.key[i] = (uint8_t)(hex_value(hex[2 * i]) << 4 | hex_value(hex[2 * i + 1]));
    snprintf(b->name, sizeof b->name, "%s%.*s.pack", prefix, PREFIX_CHARS, hex);
    return SL_OK;
}

/* Points every packed weight to its place behind base. */
static void bind_sections(binding *b, const char *base)
{
    const sl_packfile_section *section = b->file.sections;
    for (int i = 0; i < b->graph->n_weights; i++) {
        sl_weight *weight = &b->graph->weights[i].weight;
        if (sl_weight_packed_bytes(weight))
            weight->data = base + section++->offset;
    }
}

/* ---- packing ---- */

typedef struct {
    const binding *b;
    const sl_graph_weight *weight;
    char *packed;    /* of the whole weight, or NULL: to the writer, at offset */
    uint64_t offset; /* in the cache's file */
    uint64_t sum;    /* of its panels; workers add to it */
} pack_job;

/* Source rows of panels [begin, end) will not be read again. */
static void release_source(const pack_job *job, size_t begin, size_t end)
{
    const sl_weight *weight = &job->weight->weight;
    const sl_type_info *type = sl_type_get((uint32_t)weight->type);
    size_t row_bytes = weight->n_cols / type->block_elems * type->block_bytes;
    size_t first = begin * SL_PANEL_ROWS, last = SL_MIN(end * SL_PANEL_ROWS, weight->n_rows);
    sl_gguf_release(job->b->gguf, (const char *)job->weight->source + first * row_bytes, (last - first) * row_bytes);
}

/* Packs panels [begin, end) into the cache's file. */
static bool pack_to_writer(pack_job *job, char *stage, size_t begin, size_t end)
{
    const sl_weight *weight = &job->weight->weight;
    size_t n = weight->panel_bytes;
    uint64_t sum = 0;
    /* sl_weight_pack takes the place where the whole weight would begin. */
    sl_weight_pack(weight, job->weight->source, (void *)((uintptr_t)stage - begin * n), begin, end);
    for (size_t p = begin; p < end; p++)
        sum += sl_packfile_sum(stage + (p - begin) * n, n, p);
    __atomic_fetch_add(&job->sum, sum, __ATOMIC_RELAXED);
    return sl_pack_writer_write(job->b->writer, job->offset + begin * n, stage, (end - begin) * n);
}

static void pack_share(void *user, int index, int n_threads)
{
    pack_job *job = user;
    const sl_weight *weight = &job->weight->weight;
    char *stage = job->b->stage + (size_t)index * job->b->stage_bytes;
    size_t begin, end, piece = SL_MAX(STAGE_BYTES / weight->panel_bytes, (size_t)1);
    sl_threads_share(weight->n_panels, index, n_threads, &begin, &end);
    for (size_t p = begin; p < end; p += piece) {
        size_t next = SL_MIN(p + piece, end);
        if (job->packed)
            sl_weight_pack(weight, job->weight->source, job->packed, p, next);
        else if (!pack_to_writer(job, stage, p, next))
            return; /* the writer remembers */
        release_source(job, p, next);
    }
}

static sl_status pack_weight(binding *b, int index, sl_packfile_section *section, sl_err *err)
{
    SL_TRY(sl_gguf_check_file(b->gguf, err));
    pack_job job = {.b = b, .weight = &b->graph->weights[index], .offset = section->offset};
    if (!b->writer)
        job.packed = b->weights->pages + section->offset;
    sl_threads_run(b->pool, pack_share, &job);
    section->sum = job.sum;
    return report(b, section->n_bytes) ? SL_OK : cancelled(err);
}

static sl_status pack_all(binding *b, sl_err *err)
{
    sl_packfile_section *section = b->file.sections;
    b->done_bytes = 0;
    for (int i = 0; i < b->graph->n_weights; i++)
        if (sl_weight_packed_bytes(&b->graph->weights[i].weight))
            SL_TRY(pack_weight(b, i, section++, err));
    return SL_OK;
}

static sl_status pack_to_memory(binding *b, sl_err *err)
{
    sl_weights *weights = b->weights;
    weights->n_bytes = b->file.n_bytes;
    weights->pages = sl_pages_alloc(weights->n_bytes);
    if (!weights->pages)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for packed weights: %.1f MB wanted", (double)weights->n_bytes / 1e6);
    bind_sections(b, weights->pages);
    return pack_all(b, err);
}

/* Packs through the cache's file. *done is false when it could not be written and nothing was bound. */
static sl_status pack_through_cache(binding *b, bool *done, sl_err *err)
{
    *done = false;
    for (int i = 0; i < b->graph->n_weights; i++)
        b->stage_bytes = SL_MAX(b->stage_bytes, b->graph->weights[i].weight.panel_bytes);
    b->stage_bytes = sl_align_up(SL_MAX(b->stage_bytes, (size_t)STAGE_BYTES), SL_PACKFILE_PAGE);
    size_t n_bytes = b->stage_bytes * (size_t)sl_threads_count(b->pool);
    b->stage = sl_pages_alloc(n_bytes);
    if (!b->stage)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for packing weights: %.1f MB wanted", (double)n_bytes / 1e6);
    sl_status status = pack_all(b, err);
    sl_pages_free(b->stage, n_bytes);
    if (status != SL_OK) {
        sl_pack_writer_abandon(b->writer);
    } else {
        sl_err why;
        *done = sl_pack_writer_finish(b->writer, sl_gguf_is_unchanged(b->gguf), &b->weights->map, &why) == SL_OK;
        if (*done)
            bind_sections(b, b->weights->map.bytes);
        else
            sl_log(SL_LOG_WARN, "packed weights are not kept: %s", why.message);
    }
    b->writer = NULL;
    return status;
}

/* ---- a file of the cache ---- */

/* Packs the first panel of one weight of each layout and compares: a cheap look at whether the file still means what this
 * build would pack, whatever its key says. */
static bool spot_check(const binding *b, sl_err *err)
{
    bool seen[SL_LAYOUT_COUNT] = {false}, same = true;
    for (int i = 0; i < b->graph->n_weights && same; i++) {
        const sl_graph_weight *w = &b->graph->weights[i];
        if (!sl_weight_packed_bytes(&w->weight) || seen[w->weight.layout])
            continue;
        seen[w->weight.layout] = true;
        char *panel = malloc(w->weight.panel_bytes);
        if (!panel)
            break;
        sl_weight_pack(&w->weight, w->source, panel, 0, 1);
        same = memcmp(panel, w->weight.data, w->weight.panel_bytes) == 0;
        free(panel);
        if (!same)
            sl_err_set(err, SL_ERR_FORMAT, "tensor %s is not what this build packs", w->name);
    }
    return same;
}

static void sum_share(void *user, int index, int n_threads)
{
    pack_job *job = user;
    const sl_weight *weight = &job->weight->weight;
    size_t begin, end;
    uint64_t sum = 0;
    sl_threads_share(weight->n_panels, index, n_threads, &begin, &end);
    for (size_t p = begin; p < end; p++)
        sum += sl_packfile_sum((const char *)weight->data + p * weight->panel_bytes, weight->panel_bytes, p);
    __atomic_fetch_add(&job->sum, sum, __ATOMIC_RELAXED);
}

/* Sums up every tensor; SL_ERR_FORMAT names the first that is damaged. */
static sl_status verify_map(binding *b, sl_err *err)
{
    const sl_packfile_section *section = b->file.sections;
    b->done_bytes = 0;
    for (int i = 0; i < b->graph->n_weights; i++) {
        const sl_graph_weight *w = &b->graph->weights[i];
        if (!sl_weight_packed_bytes(&w->weight))
            continue;
        pack_job job = {.b = b, .weight = w};
        sl_threads_run(b->pool, sum_share, &job);
        if (job.sum != section->sum)
            SL_FAIL(err, SL_ERR_FORMAT, "tensor %s is damaged", w->name);
        if (!report(b, section++->n_bytes))
            return cancelled(err);
    }
    return SL_OK;
}

/* Binds the weights to the cache's file, if it has a good one. */
static sl_status bind_cached(binding *b, sl_err *err)
{
    SL_TRY(sl_pack_cache_find(b->cache, b->name, &b->file, &b->weights->map, err));
    bind_sections(b, b->weights->map.bytes);
    sl_status status = sl_gguf_check_file(b->gguf, err);
    if (status == SL_OK && !spot_check(b, err))
        status = SL_ERR_FORMAT;
    if (status == SL_OK && (b->cache->verify || b->weights->map.unproved))
        status = verify_map(b, err);
    if (status == SL_OK && b->weights->map.unproved)
        sl_pack_cache_mark(b->cache, b->name, &b->file);
    if (status != SL_OK)
        sl_pack_map_close(&b->weights->map);
    return status;
}

static sl_status bind_packed(binding *b, sl_err *err)
{
    bool done = false;
    sl_err why = {0};
    SL_TRY(describe_file(b, err));
    if (b->name[0]) {
        sl_status status = bind_cached(b, &why);
        if (status == SL_OK)
            return report(b, b->total_bytes - b->done_bytes) ? SL_OK : cancelled(err);
        if (status == SL_ERR_CANCELLED)
            return cancelled(err);
        if (status != SL_ERR_NOT_FOUND)
            sl_log(SL_LOG_WARN, "packing again, the cached weights can't be used: %s", why.message);
        if (sl_pack_writer_open(b->cache, b->name, &b->file, &b->writer, &why) == SL_OK)
            SL_TRY(pack_through_cache(b, &done, err));
        else
            sl_log(SL_LOG_WARN, "packed weights are not kept (--no-cache asks for that): %s", why.message);
    }
    return done ? SL_OK : pack_to_memory(b, err);
}

sl_status sl_weights_bind(sl_weights *out, sl_plan *plan, const sl_gguf *gguf, const sl_pack_cache_options *cache,
                          sl_threads *pool, sl_weights_progress_fn *progress, void *user, sl_err *err)
{
    sl_graph *graph = &plan->graph;
    *out = (sl_weights){0};
    binding b = {.weights = out,
                 .graph = graph,
                 .plan = plan,
                 .gguf = gguf,
                 .cache = cache,
                 .pool = pool,
                 .progress = progress,
                 .user = user};
    for (int i = 0; i < graph->n_weights; i++) {
        b.total_bytes += sl_weight_packed_bytes(&graph->weights[i].weight);
        graph->weights[i].weight.data = graph->weights[i].source;
    }
    sl_status status = bind_packed(&b, err);
    free(b.file.sections);
    return status;
}

void sl_weights_close(sl_weights *weights)
{
    sl_pages_free(weights->pages, weights->n_bytes);
    sl_pack_map_close(&weights->map);
    *weights = (sl_weights){0};
}
