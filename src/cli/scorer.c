#include "cli/scorer.h"

#include "base/clock.h"
#include "cli/interrupt.h"

#include <stdlib.h>
#include <string.h>

enum { LOGIT_ROWS = 64 }; /* positions scored in one step */

static void on_logits(void *user, uint32_t position, const float *logits)
{
    sl_scorer *scorer = user;
    SL_ASSERT(scorer->n_rows < LOGIT_ROWS);
    if (scorer->n_rows == 0)
        scorer->first_position = position;
    memcpy(scorer->rows + scorer->n_rows * scorer->n_vocab, logits, scorer->n_vocab * sizeof(*logits));
    scorer->n_rows++;
}

static void on_event(void *user, const sl_event *event)
{
    sl_scorer *scorer = user;
    if (event->kind == SL_EVENT_FINISHED && event->finish == SL_FINISH_ERROR)
        scorer->status = sl_err_set(scorer->err, event->error.code, "%s", event->error.message);
}

sl_status sl_scorer_open(sl_scorer *scorer, const sl_bundle *bundle, uint32_t context, sl_keep keep, sl_err *err)
{
    const sl_model *model = sl_bundle_model(bundle);
    uint32_t longest = sl_model_get_info(model)->context_length;
    *scorer = (sl_scorer){.bundle = bundle, .err = err, .n_vocab = sl_model_get_info(model)->n_vocab};
    if (context > longest)
        SL_FAIL(err, SL_ERR_LIMIT, "--ctx %u is more than the %u tokens that this model was made for", context,
                longest);
    sl_engine_options options = {.context = context, .n_sequences = 1, .logit_rows = LOGIT_ROWS, .keep = keep};
    sl_engine_model engine_model = sl_engine_model_of(model);
    SL_TRY(sl_engine_open(&engine_model, &options, sl_bundle_threads(bundle), &scorer->engine, err));
    scorer->rows = malloc(LOGIT_ROWS * scorer->n_vocab * sizeof(*scorer->rows));
    if (scorer->rows == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory for logits");
    return SL_OK;
}

void sl_scorer_close(sl_scorer *scorer)
{
    sl_engine_close(scorer->engine);
    free(scorer->rows);
    *scorer = (sl_scorer){0};
}

static sl_status submit_window(sl_scorer *scorer, const uint32_t *window, uint32_t n, uint32_t from, sl_err *err)
{
    sl_request request = {
        .prompt = window,
        .n_prompt = n - 1, /* the last token is only predicted */
        .sampling = sl_sample_params_default(),
        .on_event = on_event,
        .on_logits = on_logits,
        .score_from = from,
        .user = scorer,
    };
    scorer->busy = true;
    scorer->status = SL_OK;
    scorer->err = err;
    return sl_engine_submit(scorer->engine, &request, NULL, err);
}

/* Steps until there are rows that were not scored yet, or the window ends. */
static sl_status next_rows(sl_scorer *scorer, sl_err *err)
{
    if (scorer->n_used < scorer->n_rows)
        return SL_OK;
    scorer->n_rows = scorer->n_used = 0;
    while (scorer->busy && scorer->n_rows == 0 && sl_interrupts() == 0) {
        SL_TRY(sl_engine_step(scorer->engine, sl_clock_us(), &scorer->busy, err));
        SL_TRY(scorer->status);
    }
    return SL_OK;
}

/* Logits of the first row that was not scored yet. */
static const float *unused_rows(const sl_scorer *scorer)
{
    return scorer->rows + scorer->n_used * scorer->n_vocab;
}

static size_t count_different(const sl_scorer *a, const sl_scorer *b, size_t n_rows)
{
    size_t n = 0;
    for (size_t i = 0; i < n_rows; i++)
        n += memcmp(unused_rows(a) + i * a->n_vocab, unused_rows(b) + i * b->n_vocab, a->n_vocab * sizeof(*a->rows)) !=
             0;
    return n;
}

/* Rows that both have. SL_ERR_INTERNAL when they are not of the same positions. */
static sl_status match_rows(const sl_scorer *tested, const sl_scorer *base, size_t *n, sl_err *err)
{
    *n = tested->n_rows - tested->n_used;
    if (base == NULL)
        return SL_OK;
    size_t n_base = base->n_rows - base->n_used;
    if ((*n == 0) != (n_base == 0) ||
        (*n > 0 && tested->first_position + tested->n_used != base->first_position + base->n_used))
        SL_FAIL(err, SL_ERR_INTERNAL, "the two models do not score the same positions");
    *n = SL_MIN(*n, n_base);
    return SL_OK;
}

sl_status sl_score_window(sl_scorer *tested, sl_scorer *base, const uint32_t *window, uint32_t n, uint32_t from,
                          sl_position_score *scores, size_t *n_scores, size_t *n_different, sl_err *err)
{
    SL_TRY(submit_window(tested, window, n, from, err));
    if (base != NULL)
        SL_TRY(submit_window(base, window, n, from, err));
    for (;;) {
        size_t n_rows;
        SL_TRY(next_rows(tested, err));
        if (base != NULL)
            SL_TRY(next_rows(base, err));
        if (sl_interrupts() > 0)
            SL_FAIL(err, SL_ERR_CANCELLED, "interrupted");
        SL_TRY(match_rows(tested, base, &n_rows, err));
        if (n_rows == 0)
            return SL_OK;
        SL_TRY(sl_score_rows(sl_bundle_threads(tested->bundle), unused_rows(tested),
                             base != NULL ? unused_rows(base) : NULL, n_rows, tested->n_vocab,
                             window + tested->first_position + tested->n_used + 1, scores + *n_scores, err));
        *n_scores += n_rows;
        if (base != NULL && n_different != NULL)
            *n_different += count_different(tested, base, n_rows);
        tested->n_used += n_rows;
        if (base != NULL)
            base->n_used += n_rows;
    }
}
