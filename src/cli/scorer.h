/* A model that scores windows of text: the logits of one step at a time, copied out of the engine. */
#ifndef SL_CLI_SCORER_H
#define SL_CLI_SCORER_H

#include "app/bundle.h"
#include "cli/perplexity.h"

typedef struct sl_scorer {
    const sl_bundle *bundle; /* NULL: there is none */
    sl_engine *engine;
    float *rows; /* logits of n_rows positions from first_position on, n_vocab each */
    uint32_t first_position;
    size_t n_rows, n_used, n_vocab; /* n_used: of the rows, the first, which are scored */
    bool busy;
    sl_status status; /* of the window */
    sl_err *err;
} sl_scorer;

/* For windows of at most context tokens, of which keep is kept. The bundle must outlive the scorer; sl_scorer_close in any case. SL_ERR_LIMIT when
 * the model was made for less. */
SL_WARN_UNUSED sl_status sl_scorer_open(sl_scorer *scorer, const sl_bundle *bundle, uint32_t context, sl_keep keep,
                                        sl_err *err);
void sl_scorer_close(sl_scorer *scorer);

/* Scores one window of n tokens: positions from to n - 2 each predict the next token; scores gets one for each, *n_scores
 * is raised. base is another model to compare with, or NULL; both are scored side by side, so that only a
 * step's logits are in memory. *n_different (may be NULL) is raised by the positions whose logits are not the same bits.
 * SL_ERR_CANCELLED after Ctrl-C. */
SL_WARN_UNUSED sl_status sl_score_window(sl_scorer *tested, sl_scorer *base, const uint32_t *window, uint32_t n,
                                         uint32_t from, sl_position_score *scores, size_t *n_scores,
                                         size_t *n_different, sl_err *err);

#endif
