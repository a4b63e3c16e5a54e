#include "engine/keep.h"

#include "base/checked.h"
#include "kernel/ops.h"

enum { PERIOD_BLOCKS = SL_KEEP_PERIOD / SL_KV_BLOCK, MOST_TOKENS = 1 << 24 };

_Static_assert(SL_KEEP_PERIOD % SL_KV_BLOCK == 0 && SL_KEEP_OBSERVED <= SL_KEEP_PERIOD, "whole blocks");
_Static_assert(SL_KEEP_MOST_HEAVY / SL_KV_BLOCK + PERIOD_BLOCKS <= SL_MASS_BLOCKS, "what the kernel takes");

static uint32_t whole_blocks(uint32_t n_tokens)
{
    return (uint32_t)sl_ceil_div(n_tokens, SL_KV_BLOCK) * SL_KV_BLOCK;
}

sl_status sl_keep_settle(sl_keep *keep, sl_err *err)
{
    if (keep->sinks > MOST_TOKENS || keep->recent > MOST_TOKENS || keep->heavy > MOST_TOKENS)
        SL_FAIL(err, SL_ERR_ARGUMENT, "more than %d tokens to be kept", MOST_TOKENS);
    if (keep->recent == 0 && (keep->sinks > 0 || keep->heavy > 0))
        SL_FAIL(err, SL_ERR_ARGUMENT, "of a sequence's tokens the recent ones must be kept, at least one");
    *keep = (sl_keep){whole_blocks(keep->sinks), whole_blocks(keep->recent), whole_blocks(keep->heavy)};
    uint32_t all = keep->sinks + keep->recent + keep->heavy;
    if (keep->heavy > 0 && all > SL_KEEP_MOST_HEAVY)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%u tokens to be kept, at most %d where some are chosen by attention", all,
                SL_KEEP_MOST_HEAVY);
    return SL_OK;
}

static uint32_t kept_blocks(const sl_keep *keep)
{
    return (keep->sinks + keep->recent + keep->heavy) / SL_KV_BLOCK;
}

/* The first multiple of the period with more blocks before it than are kept. */
static uint32_t first_eviction(const sl_keep *keep)
{
    return (kept_blocks(keep) / PERIOD_BLOCKS + 1) * SL_KEEP_PERIOD;
}

uint32_t sl_keep_dropped(const sl_keep *keep, uint32_t position)
{
    uint32_t n_blocks = position / SL_KEEP_PERIOD * PERIOD_BLOCKS, kept = kept_blocks(keep);
    return sl_keep_on(keep) && n_blocks > kept ? n_blocks - kept : 0;
}

uint32_t sl_keep_next(const sl_keep *keep, uint32_t position)
{
    if (!sl_keep_on(keep))
        return UINT32_MAX;
    return SL_MAX(first_eviction(keep), (position / SL_KEEP_PERIOD + 1) * SL_KEEP_PERIOD);
}

uint32_t sl_keep_most(const sl_keep *keep, uint32_t n_blocks)
{
    return sl_keep_on(keep) ? SL_MIN(n_blocks, kept_blocks(keep) + PERIOD_BLOCKS) : n_blocks;
}

uint32_t sl_keep_shared(const sl_keep *keep)
{
    return keep->heavy > 0 ? first_eviction(keep) / SL_KV_BLOCK - PERIOD_BLOCKS : UINT32_MAX;
}

uint64_t sl_keep_key(const sl_keep *keep)
{
    const uint64_t sinks = keep->sinks / SL_KV_BLOCK, recent = keep->recent / SL_KV_BLOCK;
    return sinks | recent << 21 | (uint64_t)keep->heavy / SL_KV_BLOCK << 42; /* each at most 2^20 */
}
