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

static bool is_plain(sl_level level)
{
    return level == SL_LEVEL_EXACT || level == SL_LEVEL_REF;
}

/* What a level's kernels may use on a CPU. */
static uint32_t level_features(sl_level level, uint32_t cpu)
{
    return is_plain(level) ? cpu : cpu & sl_level_features(level);
}

/* What lies ahead of all runs together should be what a core has under way to DRAM: its rate times the latency. On Zen 5
 * (39 GB/s) 8 KB in one run; 16 KB in four cost Q4_K 13 %, and two runs up to 18 % where rows share a panel. */
static sl_reading best_reading(void)
{
    return sl_cpu_is_amd() ? (sl_reading){1, 1, 8192} : (sl_reading){4, 2, 4096};
}

static void fill(sl_kernels *table, sl_level level, uint32_t cpu, sl_reading reading)
{
    bool plain_only = is_plain(level);
    uint32_t features = level_features(level, cpu);
    table->level = level;
    table->reading = reading;
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
    const uint32_t cpu = sl_cpu_features();
    const sl_reading reading = best_reading();
    for (int i = 0; i < SL_LEVEL_COUNT; i++)
        fill(&tables[i], (sl_level)i, cpu, reading);
}

const sl_kernels *sl_kernels_get(sl_level level)
{
    pthread_once(&tables_once, fill_all);
    return &tables[level];
}

sl_peak sl_peak_get(sl_level level)
{
    uint32_t cpu = sl_cpu_features(), features = level_features(level, cpu);
    sl_peak peak = {
        .fp32 = PLAIN_FOR(features, sl_peak_fp32),
        .int8 = PLAIN_FOR(features, sl_peak_int8),
        .read = PLAIN_FOR(cpu, sl_peak_read),
    };
#if defined(__x86_64__)
    static const struct {
        uint32_t isa;
        sl_peak_fn *int8;
    } tuned[] = {
        {SL_CPU_AVX2, sl_peak_int8_avx2},
        {SL_CPU_AVXVNNI, sl_peak_int8_avxvnni},
        {SL_CPU_AVX512, sl_peak_int8_avx512},
        {SL_CPU_AVX512VNNI, sl_peak_int8_avx512vnni},
    };
    for (size_t i = 0; i < SL_COUNTOF(tuned); i++)
        if (features & tuned[i].isa)
            peak.int8 = tuned[i].int8;
#endif
    return peak;
}
