#include "serve/metrics.h"

#include <string.h>

typedef struct {
    const char *name, *help;
    const double *edges; /* seconds, ascending */
    size_t n_edges;
} histogram_kind;

/* vLLM's edges (vllm/v1/metrics/loggers.py), with finer ones at the lower end: small models on CPUs are that fast. */
static const double ttft_edges[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                    1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
static const double itl_edges[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
                                   0.4,   0.5,    0.75,  1,    2.5,   5,    7.5,   10,  20,   40,  80};
static const double request_edges[] = {0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1,   1.5, 2,   2.5, 5,    10,
                                       15,   20,  30,  40,  50,  60,  120, 240, 480, 960, 1920, 7680};

#define KIND(name, help, edges)                                                                                        \
    {                                                                                                                  \
        name, help, edges, SL_COUNTOF(edges)                                                                           \
    }
static const histogram_kind kinds[SL_METRIC_COUNT] = {
    [SL_METRIC_TTFT] = KIND("time_to_first_token_seconds", "Arrival of a request to its first token", ttft_edges),
    [SL_METRIC_ITL] = KIND("inter_token_latency_seconds", "One token of an answer to the next", itl_edges),
    [SL_METRIC_E2E] = KIND("e2e_request_latency_seconds", "Arrival of a request to its end", request_edges),
    [SL_METRIC_QUEUE] = KIND("request_queue_time_seconds", "Submission to the engine until it ran", request_edges),
    [SL_METRIC_PREFILL] = KIND("request_prefill_time_seconds", "First running to the first token", request_edges),
    [SL_METRIC_DECODE] = KIND("request_decode_time_seconds", "First token to last", request_edges),
};

void sl_metrics_observe(sl_metrics *metrics, sl_metric which, int64_t duration_us)
{
    sl_histogram *h = &metrics->histograms[which];
    double seconds = (double)duration_us / 1e6;
    size_t i = 0;
    while (i < kinds[which].n_edges && seconds > kinds[which].edges[i])
        i++;
    h->counts[i]++;
    h->sum += seconds;
}

/* What this server answers with. */
static const int statuses[] = {200, 400, 401, 403, 404, 405, 408, 413, 414,
                               415, 417, 422, 429, 431, 500, 501, 503, 505};
_Static_assert(SL_COUNTOF(statuses) <= SL_MAX_STATUSES, "room for a count of each");

void sl_metrics_count(sl_metrics *metrics, int status)
{
    size_t i = 0;
    while (i < SL_COUNTOF(statuses) && statuses[i] != status)
        i++;
    metrics->responses[i]++;
}

typedef struct {
    sl_textbuf *out;
    const char *model; /* label value, escaped */
} writer;

static void write_head(const writer *w, const char *name, const char *type, const char *help)
{
    sl_textbuf_format(w->out, "# HELP vllm:%s %s\n# TYPE vllm:%s %s\n", name, help, name, type);
}

static void write_number(const writer *w, const char *name, const char *type, const char *help, double value)
{
    write_head(w, name, type, help);
    sl_textbuf_format(w->out, "vllm:%s{model_name=\"%s\"} %.17g\n", name, w->model, value);
}

static void write_histogram(const writer *w, const histogram_kind *kind, const sl_histogram *h)
{
    uint64_t n = 0;
    write_head(w, kind->name, "histogram", kind->help);
    for (size_t i = 0; i < kind->n_edges; i++) {
        n += h->counts[i];
        sl_textbuf_format(w->out, "vllm:%s_bucket{model_name=\"%s\",le=\"%g\"} %llu\n", kind->name, w->model,
                          kind->edges[i], (unsigned long long)n);
    }
    n += h->counts[kind->n_edges];
    sl_textbuf_format(w->out,
                      "vllm:%s_bucket{model_name=\"%s\",le=\"+Inf\"} %llu\nvllm:%s_sum{model_name=\"%s\"} %.9g\n"
                      "vllm:%s_count{model_name=\"%s\"} %llu\n",
                      kind->name, w->model, (unsigned long long)n, kind->name, w->model, h->sum, kind->name, w->model,
                      (unsigned long long)n);
}

static void write_endings(const writer *w, const sl_metrics *metrics)
{
    static const char *const names[SL_ENDED_COUNT] = {"stop", "length", "abort", "error"};
    write_head(w, "request_success_total", "counter", "Answers by how they ended");
    for (size_t i = 0; i < SL_ENDED_COUNT; i++)
        sl_textbuf_format(w->out, "vllm:request_success_total{model_name=\"%s\",finished_reason=\"%s\"} %llu\n",
                          w->model, names[i], (unsigned long long)metrics->endings[i]);
}

/* What vLLM has no name for. */
static void write_own(const writer *w, const sl_metrics *metrics, const sl_service_stats *stats, uint32_t n_connections)
{
    sl_textbuf_text(w->out, "# HELP sluice:http_responses_total HTTP answers by status\n"
                            "# TYPE sluice:http_responses_total counter\n");
    for (size_t i = 0; i < SL_COUNTOF(statuses); i++)
        sl_textbuf_format(w->out, "sluice:http_responses_total{code=\"%d\"} %llu\n", statuses[i],
                          (unsigned long long)metrics->responses[i]);
    sl_textbuf_format(w->out, "sluice:http_responses_total{code=\"other\"} %llu\n",
                      (unsigned long long)metrics->responses[SL_COUNTOF(statuses)]);
    sl_textbuf_format(w->out,
                      "# HELP sluice:connections Open connections\n# TYPE sluice:connections gauge\n"
                      "sluice:connections %u\n"
                      "# HELP sluice:steps_total Steps of the engine\n# TYPE sluice:steps_total counter\n"
                      "sluice:steps_total %llu\n"
                      "# HELP sluice:refused_total Requests refused because too many were there\n"
                      "# TYPE sluice:refused_total counter\nsluice:refused_total %llu\n"
                      "# HELP sluice:slow_readers_total Answers ended because they were not read\n"
                      "# TYPE sluice:slow_readers_total counter\nsluice:slow_readers_total %llu\n",
                      n_connections, (unsigned long long)stats->engine.n_steps, (unsigned long long)stats->n_refused,
                      (unsigned long long)stats->n_overflow);
}

void sl_metrics_write(const sl_metrics *metrics, const sl_service_stats *stats, uint32_t n_connections,
                      const char *model, sl_textbuf *out)
{
    sl_textbuf label = {0};
    sl_textbuf_json_part(&label, model, strlen(model));
    writer w = {out, label.bytes ? label.bytes : ""};
    write_number(&w, "num_requests_running", "gauge", "Requests in the running batch", stats->n_running);
    write_number(&w, "num_requests_waiting", "gauge", "Requests that wait for their turn", stats->n_waiting);
    const sl_engine_statistics *engine = &stats->engine;
    double usage = engine->n_blocks ? (double)engine->n_blocks_used / engine->n_blocks : 0;
    write_number(&w, "kv_cache_usage_perc", "gauge", "Part of the KV blocks that running requests hold, 0 to 1", usage);
    write_number(&w, "prefix_cache_queries_total", "counter", "Prompt tokens looked for in the prefix cache",
                 (double)engine->prefix_queries);
    write_number(&w, "prefix_cache_hits_total", "counter", "Prompt tokens found there", (double)engine->prefix_hits);
    write_number(&w, "num_preemptions_total", "counter", "Requests that had to give back their KV blocks",
                 (double)engine->n_preemptions);
    write_number(&w, "prompt_tokens_total", "counter", "Prompt tokens of answered requests",
                 (double)metrics->prompt_tokens);
    write_number(&w, "generation_tokens_total", "counter", "Generated tokens", (double)metrics->generation_tokens);
    write_endings(&w, metrics);
    for (size_t i = 0; i < SL_METRIC_COUNT; i++)
        write_histogram(&w, &kinds[i], &metrics->histograms[i]);
    write_own(&w, metrics, stats, n_connections);
    sl_textbuf_free(&label);
}
