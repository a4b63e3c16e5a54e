#define _GNU_SOURCE
#include "base/cpu.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t read_xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static uint32_t detect(void)
{
    uint32_t a, b, c, d, features = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    uint64_t xcr0 = read_xcr0();
    bool v3_leaf1 = (c & bit_AVX) && (c & bit_FMA) && (c & bit_F16C) && (c & bit_MOVBE);
    if ((xcr0 & 0x6) != 0x6 || !v3_leaf1 || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    if (!(b & bit_AVX2) || !(b & bit_BMI2) || !(b & bit_BMI))
        return 0;
    features |= SL_CPU_AVX2;
    uint32_t a1 = 0, b1, c1, d1;
    __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1);
    if (a1 & 1u << 4)
        features |= SL_CPU_AVXVNNI;
    uint32_t v4 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL | bit_AVX512CD;
    if ((xcr0 & 0xe6) != 0xe6 || (b & v4) != v4)
        return features;
    features |= SL_CPU_AVX512;
    if (c & bit_AVX512VNNI)
        features |= SL_CPU_AVX512VNNI;
    if (a1 & 1u << 5)
        features |= SL_CPU_AVX512BF16;
    return features;
}

bool sl_cpu_is_amd(void)
{
    uint32_t a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && c == signature_AMD_ecx;
}
#else
static uint32_t detect(void)
{
    return 0;
}

bool sl_cpu_is_amd(void)
{
    return false;
}
#endif

uint32_t sl_cpu_features(void)
{
    /* Asked once: in a virtual machine each cpuid instruction is a call of the hypervisor. */
    enum { KNOWN = 1u << 30 };
    static atomic_uint known;
    uint32_t features = atomic_load_explicit(&known, memory_order_relaxed);
    if (!features) {
        features = detect() | KNOWN;
        atomic_store_explicit(&known, features, memory_order_relaxed);
    }
    return features & ~(uint32_t)KNOWN;
}

static const struct {
    const char *name;
    uint32_t features;
} levels[SL_LEVEL_COUNT] = {
    [SL_LEVEL_EXACT] = {"exact", 0},
    [SL_LEVEL_REF] = {"ref", 0},
    [SL_LEVEL_AVX2] = {"avx2", SL_CPU_AVX2},
    [SL_LEVEL_AVXVNNI] = {"avxvnni", SL_CPU_AVX2 | SL_CPU_AVXVNNI},
    [SL_LEVEL_AVX512] = {"avx512", SL_CPU_AVX2 | SL_CPU_AVX512},
    [SL_LEVEL_AVX512VNNI] = {"avx512vnni", SL_CPU_AVX2 | SL_CPU_AVX512 | SL_CPU_AVX512VNNI | SL_CPU_AVX512BF16},
};

uint32_t sl_level_features(sl_level level)
{
    return levels[level].features;
}

const char *sl_level_name(sl_level level)
{
    return levels[level].name;
}

bool sl_level_parse(const char *name, sl_level *out)
{
    for (int i = 0; i < SL_LEVEL_COUNT; i++) {
        if (strcmp(name, levels[i].name) == 0) {
            *out = (sl_level)i;
            return true;
        }
    }
    return false;
}

sl_level sl_level_best(void)
{
    uint32_t have = sl_cpu_features();
    sl_level best = SL_LEVEL_REF;
    for (int i = SL_LEVEL_AVX2; i < SL_LEVEL_COUNT; i++) {
        /* BF16 is an extra of the top level, not a condition for it. */
        uint32_t need = levels[i].features & ~(uint32_t)SL_CPU_AVX512BF16;
        if ((have & need) == need)
            best = (sl_level)i;
    }
    return best;
}

sl_status sl_level_choose(const char *name, sl_level *out, sl_err *err)
{
    sl_level best = sl_level_best();
    if (!name)
        name = getenv("SLUICE_CPU");
    if (!name || !*name) {
        *out = best;
        return SL_OK;
    }
    if (!sl_level_parse(name, out))
        SL_FAIL(err, SL_ERR_ARGUMENT, "unknown CPU level '%s': use exact, ref, avx2, avxvnni, avx512 or avx512vnni",
                name);
    uint32_t need = levels[*out].features & ~(uint32_t)SL_CPU_AVX512BF16;
    if ((sl_cpu_features() & need) != need)
        *out = best;
    return SL_OK;
}

/* CPUs granted by a cgroup v2 quota, rounded up; 0 when there is none. */
static int cgroup_cpus(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!f)
        return 0;
    long quota = 0, period = 0;
    int n = fscanf(f, "%ld %ld", &quota, &period);
    fclose(f);
    return n == 2 && quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

int sl_cpu_count(void)
{
    cpu_set_t set;
    int n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
    int quota = cgroup_cpus();
    if (quota > 0 && quota < n)
        n = quota;
    return n > 0 ? n : 1;
}
