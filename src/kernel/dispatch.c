#include "kernel/kernels.h"
#include "kernel/peak.h"

#include <pthread.h>

static sl_kernels tables[SL_LEVEL_COUNT];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

/* The compile of a plain kernel for the features at hand. */
#if defined(__x86_64__)
#define PLAIN_FOR(features, name)                                                                                      \
    ((features)&SL_CPU_AVX512 ? name##_v4 : (features)&SL_CPU_AVX2 ? name##_v3 : name##_base)
#else
#define PLAIN_FOR(features, name) name##_base
#endif

static void fill(sl_kernels *table, sl_level level, uint32_t cpu)
{
    bool plain_only = level == SL_LEVEL_EXACT || level == SL_LEVEL_REF;
    uint32_t features = plain_only ? cpu : cpu & sl_level_features(level);
    table->level = level;
    table->unpack_row = sl_weight_unpack_row;
#define PLAIN(slot, name) table->slot = PLAIN_FOR(features, name);
#define TUNED(slot, name, isa)                                                                                         \
    if (!plain_only && (features & (isa)) == (isa))                                                                    \
        table->slot = name;
#include "kernel/kernels.inc"
#undef PLAIN
#undef TUNED
}

static void fill_all(void)
{
    uint32_t cpu = sl_cpu_features();
    for (int i = 0; i < SL_LEVEL_COUNT; i++)
        fill(&tables[i], (sl_level)i, cpu);
}

const sl_kernels *sl_kernels_get(sl_level level)
{
    pthread_once(&tables_once, fill_all);
    return &tables[level];
}

sl_peak sl_peak_get(void)
{
    uint32_t cpu = sl_cpu_features();
    sl_peak peak = {
        .fp32 = PLAIN_FOR(cpu, sl_peak_fp32),
        .int8 = PLAIN_FOR(cpu, sl_peak_int8),
        .read = PLAIN_FOR(cpu, sl_peak_read),
    };
#if defined(__x86_64__)
    if (cpu & SL_CPU_AVX512VNNI)
        peak.int8 = sl_peak_int8_avx512vnni;
#endif
    return peak;
}
