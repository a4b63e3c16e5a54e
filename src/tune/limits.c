#define _GNU_SOURCE
#include "tune/limits.h"

#include "base/arena.h"
#include "base/clock.h"
#include "kernel/peak.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_STEP = 1 << 20 };

struct sl_limits_probe {
    sl_threads *pool;
    sl_peak peak;
    char *bytes;
    size_t n_bytes;
    /* Of the slice that runs: */
    sl_peak_fn *loop; /* NULL: the read loop */
    int64_t end_ns;
    _Atomic uint64_t work; /* operations or bytes */
    _Atomic int64_t busy_ns;
};

/* Fills a worker's share: an untouched page would be the shared zero page, in cache. */
static void fill(void *user, int index, int n_threads)
{
    sl_limits_probe *probe = user;
    size_t begin, end;
    sl_threads_share(probe->n_bytes / READ_STEP, index, n_threads, &begin, &end);
    memset(probe->bytes + begin * READ_STEP, 1 + index, (end - begin) * READ_STEP);
}

sl_status sl_limits_open(sl_threads *pool, sl_level level, sl_limits_probe **out, sl_err *err)
{
    const uint64_t most = 768ull << 20, least = 64ull << 20;
    *out = NULL;
    long pages = sysconf(_SC_AVPHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t free_bytes = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
    uint64_t n_bytes = SL_MIN(free_bytes / 4, most) / READ_STEP * READ_STEP;
    if (n_bytes < least)
        SL_FAIL(err, SL_ERR_NOMEM, "too little free memory to measure its bandwidth");
    sl_limits_probe *probe = calloc(1, sizeof *probe);
    char *bytes = sl_pages_alloc((size_t)n_bytes);
    if (!probe || !bytes) {
        free(probe);
        if (bytes)
            sl_pages_free(bytes, (size_t)n_bytes);
        SL_FAIL(err, SL_ERR_NOMEM, "no memory to measure the memory's bandwidth");
    }
    probe->pool = pool;
    probe->peak = sl_peak_get(level);
    probe->bytes = bytes;
    probe->n_bytes = (size_t)n_bytes;
    sl_threads_run(pool, fill, probe);
    *out = probe;
    return SL_OK;
}

void sl_limits_close(sl_limits_probe *probe)
{
    if (!probe)
        return;
    sl_pages_free(probe->bytes, probe->n_bytes);
    free(probe);
}

/* Each worker reads its own share round and round until the time is over. */
static uint64_t read_until(const sl_limits_probe *probe, int index, int n_threads, float *sink)
{
    size_t begin, end;
    uint64_t n_bytes = 0;
    sl_threads_share(probe->n_bytes / READ_STEP, index, n_threads, &begin, &end);
    for (size_t step = begin; begin < end; step = step + 1 < end ? step + 1 : begin) {
        probe->peak.read(probe->bytes + step * READ_STEP, READ_STEP, sink);
        n_bytes += READ_STEP;
        if (sl_clock_ns() >= probe->end_ns)
            break;
    }
    return n_bytes;
}

static void run_slice(void *user, int index, int n_threads)
{
    sl_limits_probe *probe = user;
    float sink = 1.0f;
    uint64_t work = 0;
    int64_t start_ns = sl_clock_ns();
    if (!probe->loop)
        work = read_until(probe, index, n_threads, &sink);
    else
        while (sl_clock_ns() < probe->end_ns)
            work += probe->loop(5000, &sink);
    /* The sum must be used, or the loops could be left out; it is never this value. */
    atomic_fetch_add(&probe->work, sink == -12345.0f ? 0 : work);
    atomic_fetch_add(&probe->busy_ns, sl_clock_ns() - start_ns);
}

/* Billions a second, all workers together; loop NULL reads memory. */
static double measure(sl_limits_probe *probe, sl_peak_fn *loop, double seconds)
{
    probe->loop = loop;
    atomic_store(&probe->work, 0);
    atomic_store(&probe->busy_ns, 0);
    probe->end_ns = sl_clock_ns() + (int64_t)(seconds * 1e9);
    sl_threads_run(probe->pool, run_slice, probe);
    double per_worker_ns = (double)atomic_load(&probe->busy_ns) / sl_threads_count(probe->pool);
    return per_worker_ns > 0 ? (double)atomic_load(&probe->work) / per_worker_ns : 0;
}

double sl_limits_dram_gbps(sl_limits_probe *probe, double seconds)
{
    return measure(probe, NULL, seconds);
}

void sl_limits_slice(sl_limits_probe *probe, double seconds, sl_limits *out)
{
    out->dram_gbps = measure(probe, NULL, seconds);
    out->int8_gops = measure(probe, probe->peak.int8, seconds);
    out->fp32_gflops = measure(probe, probe->peak.fp32, seconds);
}

sl_status sl_limits_measure(sl_threads *pool, sl_level level, double seconds_per_figure, sl_limits *out, sl_err *err)
{
    sl_limits_probe *probe;
    SL_TRY(sl_limits_open(pool, level, &probe, err));
    sl_limits_slice(probe, seconds_per_figure, out);
    sl_limits_close(probe);
    return SL_OK;
}
