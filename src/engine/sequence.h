/* A sequence: one choice of a request, its tokens, its place in the work, and its KV block tables. */
#ifndef SL_ENGINE_SEQUENCE_H
#define SL_ENGINE_SEQUENCE_H

#include "engine/engine.h"
#include "engine/prefix.h"

typedef struct sl_sequence {
    struct sl_sequence *next; /* in its queue, or among its elder's siblings */
    uint64_t id;
    uint32_t choice;
    sl_request request; /* prompt and stop tokens point into this sequence's own memory */
    sl_sampler *sampler;
    sl_stop *stop;             /* NULL without token bytes */
    sl_pooled *pooled;         /* NULL unless an embedding is wanted */
    uint32_t *tokens;          /* prompt, then what was generated */
    uint32_t n_tokens, n_done; /* n_done: positions whose KV is there */
    uint32_t n_generated;
    uint32_t n_scored; /* prompt positions before this one need not be scored or pooled (any more) */
    uint32_t n_cached; /* prompt positions that the prefix tree had when the prompt was first computed */
    uint32_t n_preemptions;
    uint32_t tenant;              /* index in the scheduler's tenants */
    struct sl_sequence *siblings; /* other choices of the request, which share its prompt once that is computed */
    /* Held by kv.c: places [n_freed, n_taken) of a group's table hold blocks, the others SL_NO_BLOCK. The sequence's block i
     * has place i, but where n_dropped blocks are gone for good (engine/keep.h) those behind them moved up. */
    uint32_t *blocks[SL_MAX_KV_GROUPS]; /* capacity for the whole sequence */
    uint32_t n_taken[SL_MAX_KV_GROUPS], n_freed[SL_MAX_KV_GROUPS], n_dropped[SL_MAX_KV_GROUPS];
    /* Of each place: attention that its block has drawn (graph/backend.h), n_mass of them. NULL: nothing depends on it. */
    uint64_t *mass[SL_MAX_KV_GROUPS];
    uint32_t n_mass;
    sl_digest root_digest,
        *digests; /* digests[i]: of the tokens up to and with block i; the first n_digests are made */
    uint32_t n_digests;
    uint32_t node;        /* of the prefix tree: the last block that is published; SL_NO_NODE before the first */
    uint32_t n_published; /* blocks that stand in the tree, from the first on */
    uint32_t n_layered, n_parts_done; /* as in sl_task; their blocks are taken */
    /* The step in progress. */
    uint32_t until_part;                               /* likewise, of sl_task */
    uint32_t n_planned;                                /* rows it is to have */
    bool preempted;                                    /* since it last ran */
    int64_t submitted_us, began_us, first_us, last_us; /* 0 = not yet; began: first ran */
    bool cancelled, finished;
    sl_finish finish;
    sl_err error;
} sl_sequence;

/* Copies the request into a new sequence with a sampler that has seen the prompt. SL_ERR_NOMEM, and the errors of
 * sl_sampler_open and sl_stop_open. */
SL_WARN_UNUSED sl_status sl_sequence_open(const sl_request *request, uint32_t choice, const sl_token_bytes *token_bytes,
                                          uint32_t n_vocab, uint32_t context, int n_groups, sl_sequence **out,
                                          sl_err *err);
void sl_sequence_close(sl_sequence *sequence); /* with its siblings */

/* Most positions whose KV the sequence will ever need: the last token is not fed back. */
uint32_t sl_sequence_max_positions(const sl_sequence *sequence);

/* True while tokens before the last are not computed: the prompt, or all of it again after a pre-emption. */
static inline bool sl_sequence_prefills(const sl_sequence *sequence)
{
    return sequence->n_done + 1 < sequence->n_tokens || sequence->n_generated == 0;
}

#endif
