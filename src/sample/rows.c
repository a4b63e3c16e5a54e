#include "sample/rows.h"

#include "sample/sampler_internal.h"

#include <stdatomic.h>
#include <stdlib.h>

struct sl_sample_team {
    sl_threads *pool;
    sl_sample_row *rows; /* of the call in progress */
    size_t n_rows;
    _Alignas(64) atomic_size_t next; /* first row that nobody has taken yet */
    int n_workers;
    sl_sample_scratch *scratch[]; /* one for each worker */
};

sl_status sl_sample_team_open(sl_threads *pool, uint32_t n_vocab, sl_sample_team **out, sl_err *err)
{
    *out = NULL;
    int n = pool ? sl_threads_count(pool) : 1;
    size_t n_bytes = sizeof(sl_sample_team) + (size_t)n * sizeof(sl_sample_scratch *);
    sl_sample_team *team = aligned_alloc(_Alignof(sl_sample_team), (n_bytes + 63) / 64 * 64);
    if (!team)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for sampling");
    *team = (sl_sample_team){.pool = pool};
    for (sl_status status; team->n_workers < n; team->n_workers++) {
        status = sl_sample_scratch_open(n_vocab, &team->scratch[team->n_workers], err);
        if (status != SL_OK) {
            sl_sample_team_close(team);
            return status;
        }
    }
    *out = team;
    return SL_OK;
}

uint64_t sl_sample_team_bytes(int n_workers, uint32_t n_vocab)
{
    return sizeof(sl_sample_team) +
           (uint64_t)n_workers * (sizeof(sl_sample_scratch *) + sl_sample_scratch_bytes(n_vocab));
}

void sl_sample_team_close(sl_sample_team *team)
{
    if (!team)
        return;
    for (int i = 0; i < team->n_workers; i++)
        sl_sample_scratch_close(team->scratch[i]);
    free(team);
}

/* Rows after `row` that have the same logits as it, and itself. */
static size_t count_together(const sl_sample_team *team, size_t row)
{
    size_t n = 1;
    while (row + n < team->n_rows && team->rows[row + n].logits == team->rows[row].logits)
        n++;
    return n;
}

/* Takes the next rows of the same logits, which are one worker's since sampling changes them for a while. */
static bool take(sl_sample_team *team, size_t *begin, size_t *end)
{
    size_t row = atomic_load_explicit(&team->next, memory_order_relaxed);
    do {
        if (row == team->n_rows)
            return false;
        *begin = row;
        *end = row + count_together(team, row);
    } while (
        !atomic_compare_exchange_weak_explicit(&team->next, &row, *end, memory_order_relaxed, memory_order_relaxed));
    return true;
}

static void do_row(sl_sample_row *row, sl_sample_scratch *scratch)
{
    row->status = row->sampler
                      ? sl_sampler_sample(row->sampler, scratch, row->logits, row->position, &row->sampled, &row->error)
                      : sl_score_token(scratch, row->logits, row->token, row->n_top, &row->sampled, &row->error);
}

static void worker(void *user, int index, int n_workers)
{
    (void)n_workers;
    sl_sample_team *team = user;
    for (size_t begin, end; take(team, &begin, &end);)
        for (size_t i = begin; i < end; i++)
            do_row(&team->rows[i], team->scratch[index]);
}

void sl_sample_rows(sl_sample_team *team, sl_sample_row *rows, size_t n)
{
    if (n == 0)
        return;
    team->rows = rows;
    team->n_rows = n;
    atomic_store_explicit(&team->next, 0, memory_order_relaxed);
    if (!team->pool || count_together(team, 0) == n)
        worker(team, 0, 1);
    else
        sl_threads_run(team->pool, worker, team);
}
