#include "engine/pooling.h"

#include <math.h>
#include <stdlib.h>

struct sl_pooled {
    sl_pooling pooling;
    bool normalise;
    uint32_t n_prompt, n_embd;
    uint32_t next;
    float *embedding;
    double sum[]; /* n_embd; of the states added so far */
};

sl_status sl_pooled_open(sl_pooling pooling, bool normalise, uint32_t n_prompt, uint32_t n_embd, sl_pooled **out,
                         sl_err *err)
{
    *out = NULL;
    if (pooling == SL_POOLING_NONE)
        return SL_OK;
    sl_pooled *p = calloc(1, sizeof *p + (size_t)n_embd * (sizeof(double) + sizeof(float)));
    if (!p)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for an embedding of %u numbers", n_embd);
    p->pooling = pooling;
    p->normalise = normalise;
    p->n_prompt = n_prompt;
    p->n_embd = n_embd;
    p->next = pooling == SL_POOLING_LAST ? n_prompt - 1 : 0;
    p->embedding = (float *)(p->sum + n_embd);
    *out = p;
    return SL_OK;
}

void sl_pooled_close(sl_pooled *pooled)
{
    free(pooled);
}

uint32_t sl_pooled_next(const sl_pooled *pooled)
{
    return pooled ? pooled->next : UINT32_MAX;
}

bool sl_pooled_wants(const sl_pooled *p, uint32_t position)
{
    if (!p || position < p->next || position >= p->n_prompt)
        return false;
    return p->pooling != SL_POOLING_CLS || position == 0;
}

void sl_pooled_add(sl_pooled *p, const float *hidden)
{
    SL_ASSERT(p->next < p->n_prompt);
    for (uint32_t i = 0; i < p->n_embd; i++)
        p->sum[i] += (double)hidden[i];
    p->next = p->pooling == SL_POOLING_CLS ? p->n_prompt : p->next + 1;
}

sl_status sl_pooled_finish(sl_pooled *p, const float **embedding, uint32_t *n, sl_err *err)
{
    SL_ASSERT(p->next == p->n_prompt);
    double squares = 0, divisor = p->pooling == SL_POOLING_MEAN ? p->n_prompt : 1;
    for (uint32_t i = 0; i < p->n_embd; i++) {
        p->sum[i] /= divisor;
        squares += p->sum[i] * p->sum[i];
    }
    if (!isfinite(squares))
        SL_FAIL(err, SL_ERR_NUMERIC, "the prompt's hidden states hold a NaN or infinity");
    double length = p->normalise && squares > 0 ? sqrt(squares) : 1;
    for (uint32_t i = 0; i < p->n_embd; i++)
        p->embedding[i] = (float)(p->sum[i] / length);
    *embedding = p->embedding;
    *n = p->n_embd;
    return SL_OK;
}
