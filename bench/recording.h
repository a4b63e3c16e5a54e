/* Batches that an engine gave its backend, kept to be run again: the same rows, positions, sequences and KV blocks. */
#ifndef SL_BENCH_RECORDING_H
#define SL_BENCH_RECORDING_H

#include "graph/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct recording {
    int n_groups; /* of the plan; set by the owner, all else 0 in the beginning */
    sl_batch *batches;
    size_t n, capacity;
} recording;

static inline void *recording_copy(const void *from, size_t n_bytes)
{
    void *to = malloc(n_bytes);
    if (!to) {
        fprintf(stderr, "no memory for a copy of a batch\n");
        exit(1);
    }
    return memcpy(to, from, n_bytes);
}

/* Copies a batch with its block tables, as far as its rows reach; ends the program when there is no memory. */
static inline void recording_keep(recording *to, const sl_batch *batch)
{
    if (to->n == to->capacity) {
        to->capacity = to->capacity ? 2 * to->capacity : 1024;
        to->batches = realloc(to->batches, to->capacity * sizeof *to->batches);
        if (!to->batches) {
            fprintf(stderr, "no memory for %zu batches\n", to->capacity);
            exit(1);
        }
    }
    sl_batch_seq *seqs = recording_copy(batch->seqs, batch->n_seqs * sizeof *seqs);
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        const sl_row *row = &batch->rows[r];
        if (r + 1 < batch->n_rows && row[1].seq == row->seq)
            continue; /* the last row of a sequence reaches farthest */
        for (int g = 0; g < to->n_groups; g++)
            seqs[row->seq].blocks[g] = recording_copy(batch->seqs[row->seq].blocks[g],
                                                      (row->position / SL_KV_BLOCK + 1) * sizeof *seqs->blocks[g]);
    }
    sl_batch copy = *batch;
    copy.rows = recording_copy(batch->rows, batch->n_rows * sizeof *batch->rows);
    copy.seqs = seqs;
    to->batches[to->n++] = copy;
}

static inline void recording_forget(recording *r)
{
    for (size_t i = 0; i < r->n; i++) {
        const sl_batch *b = &r->batches[i];
        for (uint32_t s = 0; s < b->n_seqs; s++)
            for (int g = 0; g < r->n_groups; g++)
                free((void *)(uintptr_t)b->seqs[s].blocks[g]);
        free((void *)(uintptr_t)b->rows);
        free((void *)(uintptr_t)b->seqs);
    }
    r->n = 0;
}

#endif
