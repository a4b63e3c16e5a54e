#include "engine/sequence.h"

#include "base/checked.h"
#include "sample/philox.h"

#include <stdlib.h>
#include <string.h>

static bool copy_arrays(sl_sequence *s, const sl_request *request, uint32_t capacity)
{
    size_t n_stop = request->n_stop_tokens;
    uint32_t *stop = calloc(n_stop + 1, sizeof *stop);
    s->tokens = calloc((size_t)capacity + 1, sizeof *s->tokens);
    s->request.stop_tokens = stop;
    s->request.sampling.stop_tokens = (sl_token_list){stop, n_stop};
    if (!stop || !s->tokens)
        return false;
    if (n_stop)
        memcpy(stop, request->stop_tokens, n_stop * sizeof *stop);
    memcpy(s->tokens, request->prompt, request->n_prompt * sizeof *s->tokens);
    s->request.prompt = s->tokens;
    s->n_tokens = (uint32_t)request->n_prompt;
    return true;
}

static bool make_tables(sl_sequence *s, uint32_t capacity, int n_groups)
{
    size_t n = sl_ceil_div(capacity, SL_KV_BLOCK);
    s->digests = calloc(n + 1, sizeof *s->digests);
    for (int g = 0; g < n_groups; g++) {
        s->blocks[g] = malloc((n + 1) * sizeof *s->blocks[g]);
        if (!s->blocks[g])
            return false;
        memset(s->blocks[g], 0xff, (n + 1) * sizeof *s->blocks[g]);
    }
    return s->digests;
}

/* Each choice draws its own random numbers: a function of seed and choice, and of the position in the sampler. The
 * first has the request's own; positions stay far below 2^63, so no draw is used twice. */
static uint64_t choice_seed(uint64_t seed, uint32_t choice)
{
    return choice == 0 ? seed : sl_philox_u64(seed, (UINT64_C(1) << 63) + choice);
}

sl_status sl_sequence_open(const sl_request *request, uint32_t choice, const sl_token_bytes *token_bytes,
                           uint32_t n_vocab, uint32_t context, int n_groups, sl_sequence **out, sl_err *err)
{
    sl_sequence *s = calloc(1, sizeof *s);
    if (!s)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a request");
    s->request = *request;
    s->choice = choice;
    s->node = SL_NO_NODE;
    s->request.max_tokens = SL_MIN(request->max_tokens, context - (uint32_t)request->n_prompt);
    s->request.stop_tokens = NULL;
    s->request.stop_strings = (sl_bytes_list){0}; /* stop has its own copy */
    s->request.sampling.seed = choice_seed(request->sampling.seed, request->first_choice + choice);
    bool scores = request->on_logits || request->prompt_logprobs;
    s->n_scored = scores ? SL_MIN(request->score_from, (uint32_t)request->n_prompt) : UINT32_MAX;
    uint32_t capacity = (uint32_t)request->n_prompt + s->request.max_tokens;
    sl_status status = SL_OK;
    if (!copy_arrays(s, request, capacity) || !make_tables(s, capacity, n_groups))
        status = sl_err_set(err, SL_ERR_NOMEM, "no memory for a request of %u tokens", capacity);
    if (status == SL_OK)
        status = sl_sampler_open(&s->request.sampling, n_vocab, &s->sampler, err);
    if (status == SL_OK)
        status = sl_stop_open(&request->stop_strings, token_bytes, &s->stop, err);
    if (status != SL_OK) {
        sl_sequence_close(s);
        return status;
    }
    for (uint32_t i = 0; i < s->n_tokens; i++)
        sl_sampler_accept(s->sampler, s->tokens[i], false);
    *out = s;
    return SL_OK;
}

void sl_sequence_close(sl_sequence *s)
{
    if (!s)
        return;
    while (s->siblings) {
        sl_sequence *sibling = s->siblings;
        s->siblings = sibling->next;
        sl_sequence_close(sibling);
    }
    sl_sampler_close(s->sampler);
    sl_stop_close(s->stop);
    sl_pooled_close(s->pooled);
    free((void *)(uintptr_t)s->request.stop_tokens);
    free(s->tokens);
    free(s->digests);
    for (int g = 0; g < SL_MAX_KV_GROUPS; g++) {
        free(s->blocks[g]);
        free(s->mass[g]);
    }
    free(s);
}

uint32_t sl_sequence_max_positions(const sl_sequence *s)
{
    return (uint32_t)s->request.n_prompt + s->request.max_tokens - (s->request.max_tokens > 0);
}
