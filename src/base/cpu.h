/* CPU features and the ISA level that kernels are chosen for. */
#ifndef SL_BASE_CPU_H
#define SL_BASE_CPU_H

#include "base/status.h"

/* Feature bits; a kernel in kernels.inc names those it needs. */
enum {
    SL_CPU_AVX2 = 1 << 0, /* with FMA, F16C and BMI2 (x86-64-v3) */
    SL_CPU_AVXVNNI = 1 << 1,
    SL_CPU_AVX512 = 1 << 2, /* F, BW, DQ, VL, CD (x86-64-v4) */
    SL_CPU_AVX512VNNI = 1 << 3,
    SL_CPU_AVX512BF16 = 1 << 4,
};

/* Levels that SLUICE_CPU may name, lowest first. `exact` and `ref` are the two yardsticks of contract 1. */
typedef enum sl_level {
    SL_LEVEL_EXACT, /* weights dequantized, fp32 activations, F32 KV */
    SL_LEVEL_REF,   /* plain C that does the fast kernels' own arithmetic */
    SL_LEVEL_AVX2,
    SL_LEVEL_AVXVNNI,
    SL_LEVEL_AVX512,
    SL_LEVEL_AVX512VNNI,
    SL_LEVEL_COUNT
} sl_level;

/* Features of this CPU that the operating system has enabled. */
uint32_t sl_cpu_features(void);

/* Whether AMD made this CPU. Asks it anew each time, which in a virtual machine takes a call of the hypervisor. */
bool sl_cpu_is_amd(void);

/* Feature bits that kernels of a level may use. */
uint32_t sl_level_features(sl_level level);

/* "exact", "ref", "avx2", … Static storage. */
const char *sl_level_name(sl_level level);

/* Level for a name; false when there is none. */
bool sl_level_parse(const char *name, sl_level *out);

/* Highest level this CPU supports. */
sl_level sl_level_best(void);

/* Level to use: name when not NULL, else SLUICE_CPU, else the best one. A level above the CPU's is capped to it.
 * SL_ERR_ARGUMENT for an unknown name. */
SL_WARN_UNUSED sl_status sl_level_choose(const char *name, sl_level *out, sl_err *err);

/* CPUs this process may use: the smaller of its affinity mask and its cgroup quota (rounded up), at least 1. */
int sl_cpu_count(void);

#endif
