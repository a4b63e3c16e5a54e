/* The measuring part of `sluice bench techniques`: each comparison's two sides by turns. */
#include "cli/model_args.h"
#include "cli/output.h"
#include "cli/scorer.h"
#include "cli/techniques.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_TOKENS = 512, SCORE_FROM = 16, MAX_WAIT_US = 50000 };

static const char *kv_type_of(const sl_techniques *t, const sl_side *side)
{
    return side->kv_type != NULL ? side->kv_type : t->kv_type;
}

static bool same_bundle(const sl_techniques *t, const sl_side *a, const sl_side *b)
{
    return a->model == b->model && a->n_threads == b->n_threads && a->disabled_passes == b->disabled_passes &&
           strcmp(kv_type_of(t, a), kv_type_of(t, b)) == 0;
}

static sl_status open_bundle(const sl_techniques *t, const sl_side *side, sl_bundle **out, sl_err *err)
{
    sl_bundle_options options;
    SL_TRY(sl_model_args_options(t->args, NULL, &options, err));
    options.n_threads = side->n_threads > 0 ? side->n_threads : t->n_threads;
    options.model.disabled_passes = side->disabled_passes;
    if (!sl_kv_type_parse(kv_type_of(t, side), &options.model.kv_type))
        SL_FAIL(err, SL_ERR_ARGUMENT, "unknown KV type '%s'", kv_type_of(t, side));
    return sl_model_args_open_as(t->args, t->models[side->model], &options, out, err);
}

static sl_status open_engine(sl_setup *setup, uint64_t kv_bytes, sl_err *err)
{
    const sl_side *side = setup->side;
    sl_engine_model model = sl_engine_model_of(sl_bundle_model(setup->bundle));
    sl_threads *threads = sl_bundle_threads(setup->bundle);
    setup->options = (sl_engine_options){.chunk = side->chunk,
                                         .n_sequences = side->n_sequences,
                                         .context = side->context,
                                         .kv_bytes = kv_bytes,
                                         .batching = side->batching,
                                         .max_wait_us = MAX_WAIT_US,
                                         .no_prefix_cache = !side->prefix_cache};
    SL_TRY(sl_engine_measure(&model, &setup->options, sl_threads_count(threads), &setup->memory, err));
    return sl_bundle_open_engine(setup->bundle, &setup->options, &setup->engine, err);
}

static uint64_t memory_of(const sl_technique *row, const sl_setup *setup)
{
    switch (row->memory) {
    case SL_MEMORY_KV:
        return setup->side->recompute ? 0 : setup->memory.kv_bytes;
    case SL_MEMORY_STEP:
        return setup->memory.step_bytes + setup->memory.scratch_bytes;
    case SL_MEMORY_WEIGHTS:
        return sl_model_get_info(sl_bundle_model(setup->bundle))->packed_bytes;
    default:
        return 0;
    }
}

static sl_status open_setups(const sl_techniques *t, sl_technique *row, sl_setup setups[2], sl_err *err)
{
    bool shared = same_bundle(t, &row->sides[0], &row->sides[1]);
    for (int i = 0; i < 2; i++) {
        sl_setup *setup = &setups[i];
        setup->side = &row->sides[i];
        if (i == 1 && shared)
            setup->bundle = setups[0].bundle;
        else
            SL_TRY(open_bundle(t, setup->side, &setup->bundle, err));
        SL_TRY(open_engine(setup, setup->side->same_kv ? setups[0].memory.kv_bytes : 0, err));
        row->bytes[i] = memory_of(row, setup);
    }
    return SL_OK;
}

static void close_setups(sl_setup setups[2])
{
    for (int i = 0; i < 2; i++) {
        sl_bundle_close_engine(setups[i].bundle, setups[i].engine);
        free(setups[i].tokens);
    }
    if (setups[1].bundle != setups[0].bundle)
        sl_bundle_close(setups[1].bundle);
    sl_bundle_close(setups[0].bundle);
}

/* An engine that shares prefixes starts every run with an empty tree. */
static sl_status run_side(sl_techniques *t, const sl_technique *row, sl_setup *setup, double *value, sl_err *err)
{
    if (setup->side->prefix_cache) {
        sl_bundle_close_engine(setup->bundle, setup->engine);
        setup->engine = NULL;
        SL_TRY(open_engine(setup, setup->options.kv_bytes, err));
    }
    return sl_scene_run(t, row, setup, value, err);
}

/* By turns, and every round the other one first, so that a machine that gets faster or slower favours none. */
static sl_status run_rounds(sl_techniques *t, sl_technique *row, sl_setup setups[2], sl_err *err)
{
    double ignored;
    for (int i = 0; i < 2 && row->trace == NULL;
         i++) /* memory that is touched for the first time, workers that sleep */
        SL_TRY(run_side(t, row, &setups[i], &ignored, err));
    for (size_t r = 0; r < t->n_rounds; r++)
        for (size_t turn = 0; turn < 2; turn++) {
            size_t i = (turn + r) % 2;
            SL_TRY(run_side(t, row, &setups[i], &row->values[i][r], err));
        }
    return SL_OK;
}

/* ---- quality ---- */

static void compare_tokens(sl_technique *row, const sl_setup setups[2])
{
    sl_quality *q = &row->quality;
    if (setups[0].n_tokens != setups[1].n_tokens)
        return;
    q->kind = SL_QUALITY_TOKENS;
    q->n = setups[0].n_tokens;
    for (size_t i = 0; i < q->n; i++)
        q->n_different += setups[0].tokens[i] != setups[1].tokens[i];
}

static sl_status score_text(sl_techniques *t, sl_technique *row, sl_scorer scorers[2], const sl_tokens *text,
                            sl_err *err)
{
    sl_quality *q = &row->quality;
    sl_score_summary summary;
    sl_position_score *scores = calloc(text->n, sizeof(*scores));
    if (scores == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory for scores");
    sl_status status = sl_score_window(&scorers[1], &scorers[0], text->ids, (uint32_t)text->n, SCORE_FROM, scores,
                                       &q->n, &q->n_different, err);
    if (status == SL_OK)
        status = sl_score_summarise(scores, q->n, true, &summary, err);
    free(scores);
    SL_TRY(status);
    q->kind = SL_QUALITY_LOGITS;
    q->kld_mean = summary.kld_mean;
    q->ppl[0] = summary.ppl_base;
    q->ppl[1] = summary.ppl;
    t->n_text_tokens = text->n;
    return SL_OK;
}

static sl_status compare_logits(sl_techniques *t, sl_technique *row, const sl_setup setups[2], sl_err *err)
{
    sl_tokens text = {0};
    sl_scorer scorers[2] = {0};
    if (sl_model_get_info(sl_bundle_model(setups[0].bundle))->n_vocab !=
        sl_model_get_info(sl_bundle_model(setups[1].bundle))->n_vocab)
        return SL_OK; /* two families of models: nothing to compare */
    sl_status status =
        sl_bundle_text_tokens(setups[0].bundle, sl_techniques_text, strlen(sl_techniques_text), &text, err);
    text.n = SL_MIN(text.n, SL_MIN(TEXT_TOKENS, t->context));
    for (int i = 0; i < 2 && status == SL_OK; i++)
        status = sl_scorer_open(&scorers[i], setups[i].bundle, (uint32_t)text.n, (sl_keep){0}, err);
    if (status == SL_OK)
        status = score_text(t, row, scorers, &text, err);
    sl_scorer_close(&scorers[0]);
    sl_scorer_close(&scorers[1]);
    sl_tokens_free(&text);
    return status;
}

static sl_status measure_row(sl_techniques *t, sl_technique *row, sl_err *err)
{
    sl_setup setups[2] = {0};
    sl_status status = open_setups(t, row, setups, err);
    if (status == SL_OK)
        status = run_rounds(t, row, setups, err);
    if (status == SL_OK && row->by_text)
        status = compare_logits(t, row, setups, err);
    else if (status == SL_OK)
        compare_tokens(row, setups);
    close_setups(setups);
    return status;
}

sl_status sl_techniques_measure(sl_techniques *t, sl_err *err)
{
    for (size_t i = 0; i < t->n_rows; i++) {
        sl_technique *row = &t->rows[i];
        if (sl_is_terminal(STDERR_FILENO))
            sl_print_note("%zu of %zu: %s, %s", i + 1, t->n_rows, row->name, row->measured);
        SL_TRY(measure_row(t, row, err));
    }
    return SL_OK;
}
