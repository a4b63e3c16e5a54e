/* Simulates the engine with virtual time, a seed and a fake backend, and checks what must hold after every step:
 *   simulate [-v] [FIRST_SEED [N_SEEDS [N_REQUESTS]]]
 * Exits with 1 and the seed at the first violation. What is simulated: random arrivals, lengths, cancellations, tenants,
 * choices, pins, warm and scored prompts, shared prefixes, windows, tiny pools. */
#include "fake_backend.h"
#include "invariants.h"
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct totals {
    uint64_t n_requests, n_refused, n_steps, n_preemptions, n_hits, n_copies, n_cancelled, n_layered;
} totals;

/* One world from its seed. Returns the digest of its trace. */
static uint64_t simulate(uint64_t seed, uint32_t n_requests, totals *sum)
{
    workload *w = workload_open(seed, n_requests);
    for (;;) {
        const before_step before = remember(workload_engine(w));
        if (!workload_step(w))
            break;
        check_engine(workload_engine(w), &before);
    }
    sl_engine_statistics s;
    sl_engine_stats(workload_engine(w), &s);
    const fake_counts *counts = fake_backend_counts(workload_engine(w)->context);
    sum->n_requests += n_requests;
    sum->n_refused += workload_refused(w);
    sum->n_steps += s.n_steps;
    sum->n_preemptions += s.n_preemptions;
    sum->n_hits += s.cached_tokens;
    sum->n_copies += counts->n_copies;
    sum->n_layered += counts->n_layered;
    sum->n_cancelled += s.n_finished[SL_FINISH_CANCELLED];
    return workload_close(w);
}

int main(int argc, char **argv)
{
    enum { REPEAT_EVERY = 50 };
    bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
    char **arguments = argv + verbose;
    int n_arguments = argc - verbose;
    uint64_t first = n_arguments > 1 ? strtoull(arguments[1], NULL, 10) : 1;
    uint64_t n_seeds = n_arguments > 2 ? strtoull(arguments[2], NULL, 10) : 2000;
    uint32_t n_requests = n_arguments > 3 ? (uint32_t)strtoul(arguments[3], NULL, 10) : 200;
    totals sum = {0};
    for (uint64_t seed = first; seed < first + n_seeds; seed++) {
        violation_seed = seed;
        totals ignored = {0};
        uint64_t trace = simulate(seed, n_requests, &sum);
        if (seed % REPEAT_EVERY == 0 && simulate(seed, n_requests, &ignored) != trace)
            violation("the same seed gave another trace");
        if (verbose)
            printf("seed %llu: trace %016llx\n", (unsigned long long)seed, (unsigned long long)trace);
    }
    printf("%llu worlds, %llu requests (%llu refused, %llu sequences cancelled), %llu steps, %llu pre-emptions, %llu "
           "prompt "
           "tokens from the cache, %llu blocks copied, %llu steps with layered rows: no violation\n",
           (unsigned long long)n_seeds, (unsigned long long)sum.n_requests, (unsigned long long)sum.n_refused,
           (unsigned long long)sum.n_cancelled, (unsigned long long)sum.n_steps, (unsigned long long)sum.n_preemptions,
           (unsigned long long)sum.n_hits, (unsigned long long)sum.n_copies, (unsigned long long)sum.n_layered);
    return 0;
}
