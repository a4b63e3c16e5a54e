/* What must hold between two steps of any engine. */
#ifndef SL_TESTS_INVARIANTS_H
#define SL_TESTS_INVARIANTS_H

#include "engine/step.h"

/* Ends the program: prints the seed and what went wrong. */
extern uint64_t violation_seed;
void violation(const char *format, ...) SL_PRINTF(1, 2) __attribute__((noreturn));

/* The scheduler's state before a step. */
typedef struct before_step {
    sl_cost cost;
    uint32_t n_dry; /* steps in which no prompt had rows */
} before_step;
before_step remember(const sl_engine *engine);

/* Blocks are conserved (free, cached or held, by exact counts), no sequence holds more than it needs, the tree is whole,
 * and the last step went by the scheduler's rules; before: as it was before that step. */
void check_engine(const sl_engine *engine, const before_step *before);

/* Additionally: nothing runs or waits, and no block is held but by the tree. */
void check_idle(const sl_engine *engine);

#endif
