/* The table of comparisons. */
#include "cli/techniques.h"
#include "cli/model_args.h"

#include "graph/pass.h"

#include <stdio.h>
#include <string.h>

enum {
    PROMPT = 512, /* prefill */
    OUTPUT = 64,  /* decode */
    FAR = 1024,   /* decode at a long context */
    CHUNK = 512,  /* the engine's own default */
    SMALL_CHUNK = 128,
    STREAMS = 8,         /* sequences at once */
    TRACE_CONTEXT = 256, /* a request of the traces is cut to so many tokens, so that the table does not take all day */
    PREFIX_CONTEXT = 640,  /* shared prefixes are longer */
    REQUESTS = 24,         /* of a trace */
    WAITING_REQUESTS = 16, /* of one that takes its time */
};

static sl_technique *add(sl_techniques *t, const char *name, const char *measured, sl_scene scene)
{
    static sl_technique spare; /* more models than rows: the last ones are not shown */
    static const char *const units[] = {"tokens/s", "tokens/s", "tokens/s", "tokens/s", "ms", "ms", "ms"};
    sl_technique *row = t->n_rows < SL_COUNTOF(t->rows) ? &t->rows[t->n_rows++] : &spare;
    *row = (sl_technique){.name = name,
                          .measured = measured,
                          .unit = units[scene],
                          .scene = scene,
                          .n_requests = scene == SL_SCENE_TTFT ? WAITING_REQUESTS : REQUESTS,
                          .lower_is_better = scene >= SL_SCENE_TTFT};
    for (int i = 0; i < 2; i++)
        row->sides[i] = (sl_side){.chunk = CHUNK, .n_sequences = 1};
    return row;
}

/* Sizes of a scene with one sequence, cut to the context. */
static void set_sizes(const sl_techniques *t, sl_technique *row, uint32_t n_prompt, uint32_t n_output)
{
    row->n_output = SL_MIN(n_output, t->context / 4);
    row->n_prompt = SL_MIN(n_prompt, t->context - row->n_output - 1);
    for (int i = 0; i < 2; i++)
        row->sides[i].context = row->n_prompt + row->n_output;
}

static void label(sl_technique *row, const char *off, const char *on)
{
    snprintf(row->sides[0].label, sizeof(row->sides[0].label), "%s", off);
    snprintf(row->sides[1].label, sizeof(row->sides[1].label), "%s", on);
}

static void add_cache(sl_techniques *t)
{
    sl_technique *row = add(t, "KV cache", "an answer", SL_SCENE_ANSWER);
    set_sizes(t, row, 64, 32);
    label(row, "recompute", "keep");
    row->sides[0].recompute = true;
    row->memory = SL_MEMORY_KV;
}

static void add_paging(sl_techniques *t)
{
    uint32_t whole = SL_MIN(4 * TRACE_CONTEXT, t->context);
    sl_technique *row = add(t, "KV paging", "trace uniform", SL_SCENE_TRACE);
    row->trace = "uniform";
    row->trace_context = SL_MIN(TRACE_CONTEXT, whole);
    row->memory = SL_MEMORY_KV;
    row->sides[0].n_sequences = 2;
    row->sides[1].n_sequences = STREAMS;
    row->sides[1].same_kv = true;
    row->sides[0].context = row->sides[1].context = whole;
    snprintf(row->sides[0].label, sizeof(row->sides[0].label), "2 reserve %u tokens each", whole);
    snprintf(row->sides[1].label, sizeof(row->sides[1].label), "8 share the same memory");
}

static void add_kv_types(sl_techniques *t)
{
    sl_kv_type type, base = SL_KV_F16;
    uint32_t seen = 0; /* bits 1 << sl_kv_type: some have two names */
    if (sl_kv_type_parse(t->kv_type, &base))
        seen |= 1u << base;
    for (size_t i = 0; sl_kv_type_choices[i] != NULL; i++) {
        if (!sl_kv_type_parse(sl_kv_type_choices[i], &type) || (seen & 1u << type))
            continue;
        seen |= 1u << type;
        sl_technique *row = add(t, "KV type", "decode at a long context", SL_SCENE_DECODE);
        set_sizes(t, row, FAR, 32);
        label(row, t->kv_type, sl_kv_type_choices[i]);
        row->sides[1].kv_type = sl_kv_type_choices[i];
        row->memory = SL_MEMORY_KV;
        row->by_text = true;
    }
}

static sl_technique *add_trace(sl_techniques *t, const char *name, const char *measured, sl_scene scene,
                               sl_batching off, sl_batching on)
{
    sl_technique *row = add(t, name, measured, scene);
    row->trace = "lognormal";
    row->trace_context = SL_MIN(TRACE_CONTEXT, t->context);
    for (int i = 0; i < 2; i++) {
        row->sides[i].n_sequences = STREAMS;
        row->sides[i].context = row->trace_context;
    }
    row->sides[0].batching = off;
    row->sides[1].batching = on;
    return row;
}

static void add_batching(sl_techniques *t)
{
    sl_technique *row =
        add_trace(t, "batching", "trace lognormal", SL_SCENE_TRACE, SL_BATCHING_CONTINUOUS, SL_BATCHING_STATIC);
    row->sides[0].n_sequences = 1;
    label(row, "one at a time", "static, 8");
    row->memory = SL_MEMORY_KV;
    row = add_trace(t, "continuous batching", "trace lognormal", SL_SCENE_TRACE, SL_BATCHING_STATIC,
                    SL_BATCHING_CONTINUOUS);
    label(row, "static, 8", "continuous, 8");
    row = add_trace(t, "dynamic batching", "TTFT p50, Poisson", SL_SCENE_TTFT, SL_BATCHING_STATIC, SL_BATCHING_DYNAMIC);
    label(row, "static, 8", "dynamic, 8, 50 ms");
    row = add_trace(t, "continuous batching", "TTFT p50, Poisson", SL_SCENE_TTFT, SL_BATCHING_DYNAMIC,
                    SL_BATCHING_CONTINUOUS);
    label(row, "dynamic, 8, 50 ms", "continuous, 8");
}

static void add_prefixes(sl_techniques *t)
{
    sl_technique *row = add_trace(t, "prefix sharing", "trace shared-prefix", SL_SCENE_TRACE, SL_BATCHING_CONTINUOUS,
                                  SL_BATCHING_CONTINUOUS);
    row->trace = "shared-prefix";
    row->trace_context = SL_MIN(PREFIX_CONTEXT, t->context);
    row->sides[0].context = row->sides[1].context = row->trace_context;
    row->sides[1].prefix_cache = true;
    row->n_requests = WAITING_REQUESTS;
    label(row, "off", "on");
}

static void add_chunks(sl_techniques *t)
{
    static const char *const measured[] = {"8 streams' longest gap", "long prompt's TTFT"};
    for (int i = 0; i < 2; i++) {
        sl_technique *row = add(t, "chunked prefill", measured[i], i == 0 ? SL_SCENE_STALL : SL_SCENE_LONG_TTFT);
        set_sizes(t, row, FAR, OUTPUT);
        uint32_t chunk = SL_MIN(SMALL_CHUNK, SL_MAX(row->n_prompt / 4, 16));
        row->memory = SL_MEMORY_STEP;
        for (int s = 0; s < 2; s++)
            row->sides[s].n_sequences = STREAMS + 1;
        row->sides[0].chunk = row->n_prompt + STREAMS;
        row->sides[1].chunk = chunk;
        snprintf(row->sides[0].label, sizeof(row->sides[0].label), "%u tokens at once", row->n_prompt);
        snprintf(row->sides[1].label, sizeof(row->sides[1].label), "chunks of %u", chunk);
    }
}

/* A comparison that is measured on both phases of one sequence. */
static void add_both_phases(sl_techniques *t, const char *name, const sl_side *off, const sl_side *on,
                            sl_memory_kind memory)
{
    for (int i = 0; i < 2; i++) {
        sl_technique *row = add(t, name, i == 0 ? "prefill" : "decode", i == 0 ? SL_SCENE_PREFILL : SL_SCENE_DECODE);
        row->sides[0] = *off;
        row->sides[1] = *on;
        set_sizes(t, row, i == 0 ? PROMPT : 16, i == 0 ? 1 : OUTPUT);
        row->memory = memory;
        row->by_text = true;
    }
}

static void add_weight_types(sl_techniques *t)
{
    for (size_t i = 1; i < t->n_models; i++) {
        sl_side off = {.chunk = CHUNK, .n_sequences = 1}, on = off;
        const char *names[] = {t->models[0], t->models[i]};
        for (int s = 0; s < 2; s++) {
            const char *slash = strrchr(names[s], '/');
            snprintf(s == 0 ? off.label : on.label, sizeof(off.label), "%s", slash != NULL ? slash + 1 : names[s]);
        }
        on.model = i;
        add_both_phases(t, "weight type", &off, &on, SL_MEMORY_WEIGHTS);
    }
}

void sl_techniques_list(sl_techniques *t)
{
    add_cache(t);
    add_paging(t);
    add_kv_types(t);
    add_batching(t);
    add_prefixes(t);
    add_chunks(t);
    add_weight_types(t);
    if (t->n_threads > 1) {
        sl_side off = {.chunk = CHUNK, .n_sequences = 1, .label = "1", .n_threads = 1}, on = off;
        on.n_threads = t->n_threads;
        snprintf(on.label, sizeof(on.label), "%d", t->n_threads);
        add_both_phases(t, "threads", &off, &on, SL_MEMORY_NONE);
    }
    sl_side off = {.chunk = CHUNK, .n_sequences = 1, .label = "off"}, on = off;
    snprintf(on.label, sizeof(on.label), "on");
    off.disabled_passes = 1u << SL_PASS_FUSE | 1u << SL_PASS_SHARE;
    add_both_phases(t, "operator fusion", &off, &on, SL_MEMORY_STEP);
}

static bool is_among(const char *name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

sl_status sl_techniques_keep(sl_techniques *t, const char *const *names, size_t n, sl_err *err)
{
    char known[160] = "";
    size_t n_kept = 0, used = 0;
    for (size_t i = 0; i < n; i++) {
        bool found = false;
        for (size_t r = 0; r < t->n_rows; r++)
            found |= strcmp(names[i], t->rows[r].name) == 0;
        for (size_t r = 0; r < t->n_rows && !found; r++)
            if ((r == 0 || strcmp(t->rows[r].name, t->rows[r - 1].name) != 0) && used < sizeof(known))
                used +=
                    (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", used > 0 ? ", " : "", t->rows[r].name);
        if (!found)
            SL_FAIL(err, SL_ERR_ARGUMENT, "nothing to compare as '%.40s' here: there is %s", names[i], known);
    }
    for (size_t r = 0; r < t->n_rows && n > 0; r++)
        if (is_among(t->rows[r].name, names, n))
            t->rows[n_kept++] = t->rows[r];
    t->n_rows = n > 0 ? n_kept : t->n_rows;
    return SL_OK;
}
