/* A backend without a model, for simulations. What it writes into a KV slot says which tokens led there: position, token
 * and a digest of all tokens so far. Each row reads every slot that attention would, and checks that they form one chain,
 * the same in all layer groups: a block shared wrongly, freed too early or not copied is found when it is read. */
#ifndef SL_TESTS_FAKE_BACKEND_H
#define SL_TESTS_FAKE_BACKEND_H

#include "graph/backend.h"

/* Digest of the tokens up to position `position`, from that of the positions before it (0 before the first). */
uint64_t fake_chain(uint64_t before, uint32_t position, uint32_t token);

/* The logits behind a digest: n_vocab floats. */
void fake_logits(uint64_t chain, uint32_t n_vocab, float *logits);

typedef struct fake_counts {
    uint64_t n_runs, n_rows, n_copies, n_layered; /* n_layered: runs with layered rows */
    uint32_t n_wrong;                             /* rows that read something else than their own tokens */
    char first_wrong[160];
} fake_counts;

/* A virtual clock: each run takes fake_run_us(rows) of it. */
extern int64_t fake_now_us;
int64_t fake_run_us(uint32_t n_rows);
int64_t fake_clock(void *user);

enum { FAKE_VOCAB = 24 };

const sl_backend *fake_backend(void);
const fake_counts *fake_backend_counts(const sl_context *context);

#endif
