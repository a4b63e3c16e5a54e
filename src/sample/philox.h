/* Counter-based random numbers: a function of key and counter alone, without state. */
#ifndef SL_SAMPLE_PHILOX_H
#define SL_SAMPLE_PHILOX_H

#include <stdint.h>

/* First 64-bit word of Philox4x64-10 with key (seed, 0) and counter (position, 0, 0, 0).
 * Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011, section 4.3. */
uint64_t sl_philox_u64(uint64_t seed, uint64_t position);

/* The upper 53 bits of sl_philox_u64 as a double in [0, 1). */
double sl_philox_uniform(uint64_t seed, uint64_t position);

#endif
