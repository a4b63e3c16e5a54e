/* All rows of a step at once: sampled or scored on all workers. */
#ifndef SL_SAMPLE_ROWS_H
#define SL_SAMPLE_ROWS_H

#include "base/threads.h"
#include "sample/sampler.h"

typedef struct sl_sample_row {
    sl_sampler *sampler; /* NULL: token is scored, nothing sampled */
    float
        *logits; /* n_vocab; as before on return. Rows with the same logits (n answers to one prompt) stand together */
    uint64_t position;
    uint32_t token, n_top; /* to score: see sl_score_token */
    sl_sampled sampled;    /* result, where status is SL_OK */
    sl_status status;
    sl_err error;
} sl_sample_row;

/* Scratch for each worker of a pool; pool NULL stands for the calling thread alone. */
typedef struct sl_sample_team sl_sample_team;
SL_WARN_UNUSED sl_status sl_sample_team_open(sl_threads *pool, uint32_t n_vocab, sl_sample_team **out, sl_err *err);
/* Memory it takes. */
uint64_t sl_sample_team_bytes(int n_workers, uint32_t n_vocab);
void sl_sample_team_close(sl_sample_team *team);

/* sl_sampler_sample or sl_score_token for each of n rows, divided among the pool's workers; on the calling thread when
 * there is a single set of logits. No two rows share a sampler. A row depends on nothing but itself, so the results are
 * the same bits whatever the number of workers. Allocates nothing. */
void sl_sample_rows(sl_sample_team *team, sl_sample_row *rows, size_t n);

#endif
