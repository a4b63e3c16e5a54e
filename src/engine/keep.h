/* What a sequence keeps of its keys and values when not everything is kept: the first tokens, on which much attention
 * rests whatever they say (Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023), the recent
 * ones, and of those between the blocks that draw the most attention (Zhang et al., "H2O: Heavy-Hitter Oracle", 2023; Li
 * et al., "SnapKV", 2024). Only layers without a window take part; those with one have a rule already.
 *
 * Blocks go at fixed positions, the multiples of SL_KEEP_PERIOD, and there all at once. So what a row sees is a function
 * of its position and of the tokens before it, never of the batch, the chunks or what became of the sequence meanwhile:
 * with E the last multiple of the period up to the row's position p, blocks gone are those that were dropped at E or
 * before, and everything from E on is there. Without `heavy` a row sees the positions k <= p with
 *   k < sinks or k >= E - recent.
 * Positions stay what they were: keys are cached rotated. The paper numbers the kept tokens anew in each step. */
#ifndef SL_ENGINE_KEEP_H
#define SL_ENGINE_KEEP_H

#include "base/status.h"

/* In tokens; recent 0: everything is kept. */
typedef struct sl_keep {
    uint32_t sinks;  /* from the first on */
    uint32_t recent; /* the last ones before E */
    uint32_t heavy;  /* of those between, the ones with the most attention */
} sl_keep;

/* Positions between two evictions; rows before one of these whose attention is measured; most tokens kept by it. */
enum { SL_KEEP_PERIOD = 128, SL_KEEP_OBSERVED = 32, SL_KEEP_MOST_HEAVY = 1 << 15 };

/* Rounds up to whole blocks. SL_ERR_ARGUMENT where only recent is 0, or a number is too large. */
SL_WARN_UNUSED sl_status sl_keep_settle(sl_keep *keep, sl_err *err);

/* What follows is for settled ones. */

static inline bool sl_keep_on(const sl_keep *keep)
{
    return keep->recent > 0;
}

/* A number for each setting. */
uint64_t sl_keep_key(const sl_keep *keep);

/* Blocks that a row at the position does not see any more. */
uint32_t sl_keep_dropped(const sl_keep *keep, uint32_t position);

/* The next position behind this one at which blocks go; rows on both sides do not share a step. UINT32_MAX: none. */
uint32_t sl_keep_next(const sl_keep *keep, uint32_t position);

/* Most blocks that a sequence of n_blocks ever holds at once. */
uint32_t sl_keep_most(const sl_keep *keep, uint32_t n_blocks);

/* Blocks from the first on that sequences may share. With `heavy`, which blocks go is decided by what rows in front of an
 * eviction attend to: these must be computed by the sequence itself, and so must all that follows. */
uint32_t sl_keep_shared(const sl_keep *keep);

#endif
