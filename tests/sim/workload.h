/* A random world for the engine, made from a seed, with an oracle: each answer is compared token by token with what its
 * request gives alone. */
#ifndef SL_TESTS_WORKLOAD_H
#define SL_TESTS_WORKLOAD_H

#include "engine/step.h"

typedef struct workload workload;

workload *workload_open(uint64_t seed, uint32_t n_requests);

/* Lets time pass: arrivals, cancellations, one step of the engine. False when all requests are over. */
bool workload_step(workload *w);

sl_engine *workload_engine(workload *w);
uint32_t workload_refused(const workload *w);

/* Checks that everything ended as it must. Returns the digest of all events. */
uint64_t workload_close(workload *w);

#endif
