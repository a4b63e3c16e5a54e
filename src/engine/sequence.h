/* A sequence: one request's tokens, its place in the work, and its KV block tables. */
#ifndef SL_ENGINE_SEQUENCE_H
#define SL_ENGINE_SEQUENCE_H

#include "engine/blocks.h"
#include "engine/engine.h"
#include "graph/backend.h"

typedef struct sl_sequence {
    struct sl_sequence *next; /* in its queue */
    uint64_t id;
    sl_request request; /* prompt, stop tokens and bias point into this sequence's own memory */
    sl_sampler *sampler;
    sl_stop *stop;             /* NULL without token bytes */
    uint32_t *tokens;          /* prompt, then what was generated */
    uint32_t n_tokens, n_done; /* n_done: positions whose KV is written */
    uint32_t n_generated;
    uint32_t *blocks[SL_MAX_KV_GROUPS]; /* capacity for the whole sequence; SL_NO_BLOCK where freed or not yet taken */
    uint32_t n_taken[SL_MAX_KV_GROUPS], n_freed[SL_MAX_KV_GROUPS]; /* logical blocks [n_freed, n_taken) are held */
    uint32_t reserved[SL_MAX_KV_GROUPS];                           /* blocks that admission set aside for it */
    int64_t submitted_us, first_us, last_us;
    bool cancelled, finished;
    sl_finish finish;
    sl_err error;
} sl_sequence;

#define SL_NO_BLOCK UINT32_MAX

/* Copies the request into a new sequence with a sampler that has seen the prompt. SL_ERR_NOMEM, and the errors of
 * sl_sampler_open and sl_stop_open. */
SL_WARN_UNUSED sl_status sl_sequence_open(const sl_request *request, const sl_token_bytes *token_bytes,
                                          uint32_t n_vocab, uint32_t context, int n_groups, sl_sequence **out,
                                          sl_err *err);
void sl_sequence_close(sl_sequence *sequence);

/* Most positions the sequence will ever hold. */
uint32_t sl_sequence_max_positions(const sl_sequence *sequence);

/* Most blocks of a group it holds at once when at most chunk rows are done in a step. */
uint32_t sl_sequence_max_blocks(uint32_t n_positions, uint32_t window, uint32_t chunk);

/* Takes blocks so that positions [0, end) have one; gives back those that lie before a window's reach. */
void sl_sequence_extend(sl_sequence *sequence, sl_blocks *pool, int group, uint32_t end);
void sl_sequence_trim(sl_sequence *sequence, sl_blocks *pool, int group, uint32_t window);
void sl_sequence_release(sl_sequence *sequence, sl_blocks *pool, int group);

#endif
