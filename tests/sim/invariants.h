/* What must hold between two steps of any engine. */
#ifndef SL_TESTS_INVARIANTS_H
#define SL_TESTS_INVARIANTS_H

#include "engine/step.h"

/* Ends the program: prints the seed and what went wrong. */
extern uint64_t violation_seed;
void violation(const char *format, ...) SL_PRINTF(1, 2) __attribute__((noreturn));

/* Blocks are conserved (free, cached or held, by exact counts), no sequence holds more than it needs, the tree is whole,
 * and the last step went by the scheduler's rules; before: the cost model as it was before that step. */
void check_engine(const sl_engine *engine, const sl_cost *before);

/* Additionally: nothing runs or waits, and no block is held but by the tree. */
void check_idle(const sl_engine *engine);

#endif
