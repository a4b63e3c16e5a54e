/* What /metrics shows: Prometheus text with vLLM's names, so that dashboards made for it work. Loop thread only. */
#ifndef SL_SERVE_METRICS_H
#define SL_SERVE_METRICS_H

#include "app/service.h"
#include "serve/textbuf.h"

enum { SL_MAX_BUCKETS = 24, SL_MAX_STATUSES = 20 };

/* Counts of values in (edge[i-1], edge[i]]; the last one is above all edges. */
typedef struct sl_histogram {
    uint64_t counts[SL_MAX_BUCKETS + 1];
    double sum;
} sl_histogram;

typedef enum sl_metric {
    SL_METRIC_TTFT,  /* arrival to first token */
    SL_METRIC_ITL,   /* one token to the next */
    SL_METRIC_E2E,   /* arrival to end */
    SL_METRIC_QUEUE, /* submission to the engine until it began to run */
    SL_METRIC_PREFILL,
    SL_METRIC_DECODE,
    SL_METRIC_COUNT
} sl_metric;

/* How a request or choice ended, as label finished_reason. */
typedef enum sl_ending { SL_ENDED_STOP, SL_ENDED_LENGTH, SL_ENDED_ABORT, SL_ENDED_ERROR, SL_ENDED_COUNT } sl_ending;

typedef struct sl_metrics {
    sl_histogram histograms[SL_METRIC_COUNT];
    uint64_t prompt_tokens, generation_tokens;
    uint64_t endings[SL_ENDED_COUNT];
    uint64_t responses[SL_MAX_STATUSES + 1]; /* HTTP answers by status; the last one: others */
} sl_metrics;

/* Adds a duration. */
void sl_metrics_observe(sl_metrics *metrics, sl_metric which, int64_t duration_us);

/* Counts an HTTP answer. */
void sl_metrics_count(sl_metrics *metrics, int status);

/* Writes everything as Prometheus text, version 0.0.4. */
void sl_metrics_write(const sl_metrics *metrics, const sl_service_stats *stats, uint32_t n_connections,
                      const char *model, sl_textbuf *out);

#endif
