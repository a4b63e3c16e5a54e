/* The KV memory of an engine: a pool of blocks for each layer group, the prefix tree over them, and what sequences do
 * with both. A sequence takes blocks as its rows need them, never ahead, and shares every full block through the tree as
 * soon as it is written. */
#ifndef SL_ENGINE_KV_H
#define SL_ENGINE_KV_H

#include "engine/sequence.h"

typedef struct sl_kv {
    const sl_plan *plan;
    const sl_backend *backend;
    sl_context *context; /* whose blocks these are */
    sl_blocks pools[SL_MAX_KV_GROUPS];
    sl_prefix tree;
    sl_keep keep;
    bool shares; /* the tree is used */
} sl_kv;

/* How kv_bytes are divided among the groups: as n_sequences of equal length, which take at most context tokens each and
 * are computed in steps of chunk rows, fill them; beyond that length all groups grow in proportion. kv_bytes 0 = as much
 * as these sequences need. SL_ERR_LIMIT when there is not one block for each group, or more than can be counted. */
SL_WARN_UNUSED sl_status sl_kv_divide(const sl_plan *plan, const sl_keep *keep, uint64_t kv_bytes, uint32_t n_sequences,
                                      uint32_t context, uint32_t chunk, uint32_t n_blocks[SL_MAX_KV_GROUPS],
                                      sl_err *err);

/* Fewest blocks of a group in which n_positions can be computed one after the other, if all are kept that are seen. */
uint32_t sl_kv_blocks_for(uint32_t n_positions, uint32_t window);

/* Most positions that a lone sequence can have in pools of these sizes, at most `most`; 0 when a window does not fit. */
uint32_t sl_kv_longest(const sl_plan *plan, const sl_keep *keep, const uint32_t n_blocks[SL_MAX_KV_GROUPS],
                       uint32_t most);

/* Opens pools and tree for a context that was opened with these sizes; n_sequences run at most. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_kv_open(sl_kv *kv, const sl_plan *plan, const sl_backend *backend, sl_context *context,
                                    const uint32_t n_blocks[SL_MAX_KV_GROUPS], const sl_engine_options *options,
                                    sl_err *err);
void sl_kv_close(sl_kv *kv);

/* Blocks of the group that can be had without taking any from a sequence. */
uint32_t sl_kv_available(const sl_kv *kv, int group);

/* Most blocks of the group that n_positions of one sequence take at once, computed one after the other. */
uint32_t sl_kv_group_blocks(const sl_kv *kv, int group, uint32_t n_positions);

/* SL_ERR_LIMIT, with the numbers, when n_positions of one sequence cannot fit even alone beside what is pinned. */
SL_WARN_UNUSED sl_status sl_kv_check(const sl_kv *kv, uint32_t n_positions, sl_err *err);

/* Makes room for what a new sequence is to know of its blocks. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_kv_prepare(const sl_kv *kv, sl_sequence *sequence, sl_err *err);

/* Makes the digests that a waiting sequence is compared by; once, before anything below. */
void sl_kv_enter(sl_kv *kv, sl_sequence *sequence);

/* Blocks of the group that the sequence still needs for all its tokens, those apart that others hold already. */
void sl_kv_need(sl_kv *kv, sl_sequence *sequence, uint32_t n_blocks[SL_MAX_KV_GROUPS]);

/* Adds to each group the blocks that nobody but the sequence and the tree holds: they can be had once it is released. */
void sl_kv_add_sole(const sl_kv *kv, const sl_sequence *sequence, uint64_t n_blocks[SL_MAX_KV_GROUPS]);

/* Moves the sequence forward over what the tree holds of its tokens, as far as a hit is of use: all blocks of full
 * groups and those that windows still reach. Never over its last token, nor over a position whose logits are asked for.
 * Returns the number of positions gained. */
uint32_t sl_kv_match(sl_kv *kv, sl_sequence *sequence);

/* True when other, which computes in this step, is about to make the block that sequence needs next. */
bool sl_kv_makes_next(const sl_kv *kv, const sl_sequence *other, const sl_sequence *sequence);

/* Takes blocks, evicting idle ones, so that positions [n_done, end) can be written; a block shared with a sibling is
 * copied first. Returns the end that there was memory for; blocks beyond it are given back. */
uint32_t sl_kv_extend(sl_kv *kv, sl_sequence *sequence, uint32_t end);

/* After a step: n_done positions are written. Full blocks go into the tree (of two with the same tokens one stays), and
 * what windows have passed is let go, and what is not to be kept (engine/keep.h). */
void sl_kv_publish(sl_kv *kv, sl_sequence *sequence);

/* The sequence's tables for a step. */
void sl_kv_show(const sl_kv *kv, const sl_sequence *sequence, sl_batch_seq *out);

/* Gives a new sequence all that its elder has: same tokens, same blocks. */
void sl_kv_fork(sl_kv *kv, const sl_sequence *elder, sl_sequence *sequence);

/* Lets go of all blocks; those in the tree stay cached there. n_done is 0 afterwards. */
void sl_kv_release(sl_kv *kv, sl_sequence *sequence);

/* Pins what is cached of the tokens, or takes such a pin away. *n_pinned = tokens covered, whole blocks. */
SL_WARN_UNUSED sl_status sl_kv_pin(sl_kv *kv, uint64_t tenant, const uint32_t *tokens, uint32_t n_tokens,
                                   uint32_t *n_pinned, sl_err *err);
SL_WARN_UNUSED sl_status sl_kv_unpin(sl_kv *kv, uint64_t tenant, const uint32_t *tokens, uint32_t n_tokens,
                                     sl_err *err);

#endif
