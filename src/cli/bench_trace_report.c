/* The printing part of `sluice bench throughput`. */
#include "cli/bench_trace.h"
#include "cli/output.h"

#include <string.h>

/* What the replay adds up to. */
typedef struct summary {
    sl_replay_report report;
    const sl_bench_trace *bench;
    double bound; /* of continuous over static batching */
    const sl_err *first_error;
} summary;

static double per_second(const summary *s, double n)
{
    return s->report.seconds > 0 ? n / s->report.seconds : 0;
}

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

/* Whether any request has one: the command gave it to all, or the trace to some. */
static bool has_targets(const sl_bench_trace *bench)
{
    bool any = false;
    for (size_t i = 0; i < bench->replay->n_records; i++)
        any |= bench->replay->records[i].ttft_target_us > 0 || bench->replay->records[i].itl_target_us > 0;
    return any;
}

/* ---- JSON ---- */

static json_t *pack_percentiles(const sl_percentiles *p)
{
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f}", "n", (json_int_t)p->n, "mean", p->mean, "p50", p->p50, "p90",
                     p->p90, "p99", p->p99, "max", p->max);
}

static void put_latency(json_t *object, const sl_replay_latency *l)
{
    json_object_set_new(object, "requests", json_integer((json_int_t)l->n_requests));
    json_object_set_new(object, "failed", json_integer((json_int_t)l->n_failed));
    json_object_set_new(object, "ttft_ms", pack_percentiles(&l->ttft_ms));
    json_object_set_new(object, "itl_ms", pack_percentiles(&l->itl_ms));
    json_object_set_new(object, "tpot_ms", pack_percentiles(&l->tpot_ms));
    json_object_set_new(object, "e2e_ms", pack_percentiles(&l->e2e_ms));
}

static json_t *pack_tenants(const sl_bench_trace *bench, sl_status *status, sl_err *err)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < bench->trace->n_tenants && *status == SL_OK; i++) {
        sl_replay_latency latency;
        const char *name = bench->trace->tenants[i];
        *status = sl_replay_latency_of(bench->replay, i, &latency, err);
        json_t *tenant = json_pack("{s:s, s:I}", "tenant", name, "good", (json_int_t)latency.n_good);
        put_latency(tenant, &latency);
        json_array_append_new(list, tenant);
    }
    return list;
}

static json_t *pack_slices(const double *values)
{
    json_t *list = json_array();
    for (int i = 0; i < SL_REPLAY_SLICES; i++)
        json_array_append_new(list, json_real(values[i]));
    return list;
}

static json_t *pack_goodput(const summary *s)
{
    const sl_bench_trace *bench = s->bench;
    if (!has_targets(bench))
        return json_null();
    double n_good = (double)s->report.all.n_good;
    return json_pack("{s:f, s:f, s:I, s:f, s:f}", "ttft_target_ms", (double)bench->options.ttft_target_us / 1e3,
                     "itl_target_ms", (double)bench->options.itl_target_us / 1e3, "good",
                     (json_int_t)s->report.all.n_good, "share", share(n_good, (double)s->report.all.n_requests),
                     "requests_per_second", per_second(s, n_good));
}

static json_t *pack_kv(const summary *s)
{
    const sl_replay_report *r = &s->report;
    json_t *kv = json_pack("{s:I, s:i, s:i, s:I}", "bytes", (json_int_t)s->bench->memory.kv_bytes, "blocks",
                           (int)s->bench->replay->n_blocks, "most_blocks_used", (int)s->bench->replay->most_blocks_used,
                           "samples", (json_int_t)r->n_kv_samples);
    json_object_set_new(kv, "slots_per_token", r->n_kv_samples > 0 ? json_real(r->slots_per_token) : json_null());
    json_object_set_new(kv, "unused_slots_per_sequence",
                        r->n_kv_samples > 0 ? json_real(r->unused_slots) : json_null());
    return kv;
}

static sl_status print_json(const summary *s, sl_err *err)
{
    const sl_bench_trace *bench = s->bench;
    const sl_replay_report *r = &s->report;
    sl_status status = SL_OK;
    json_t *root =
        json_pack("{s:o, s:s, s:I, s:s, s:i, s:i}", "model", sl_json_text(bench->model, strlen(bench->model)), "trace",
                  bench->trace->name, "seed", (json_int_t)bench->trace->seed, "batching", bench->batching, "parallel",
                  (int)bench->engine.n_sequences, "chunk", (int)bench->engine.chunk);
    json_object_set_new(root, "machine", sl_machine_json(&bench->machine, bench->bundle));
    put_latency(root, &r->all);
    json_t *more = json_pack(
        "{s:I, s:f, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:o}", "cut", (json_int_t)bench->trace->n_cut, "seconds",
        r->seconds, "prompt_tokens", (json_int_t)r->n_prompt_tokens, "cached_tokens", (json_int_t)r->n_cached_tokens,
        "generated_tokens", (json_int_t)r->n_generated_tokens, "prompt_tps", per_second(s, (double)r->n_prompt_tokens),
        "generated_tps", per_second(s, (double)r->n_generated_tokens), "total_tps",
        per_second(s, (double)(r->n_prompt_tokens + r->n_generated_tokens)), "continuous_over_static_bound", s->bound,
        "goodput", pack_goodput(s));
    json_object_update(root, more);
    json_decref(more);
    json_object_set_new(root, "prefix_hit_rate",
                        json_real(share((double)bench->replay->prefix_hits, (double)bench->replay->prefix_queries)));
    json_object_set_new(root, "preemptions", json_integer((json_int_t)bench->replay->n_preemptions));
    json_object_set_new(root, "kv", pack_kv(s));
    json_object_set_new(root, "prediction_error", pack_percentiles(&r->prediction_error));
    json_object_set_new(root, "batch",
                        json_pack("{s:I, s:f, s:i, s:o, s:o}", "steps", (json_int_t)r->n_steps, "mean", r->batch_mean,
                                  "max", (int)r->batch_max, "over_time", pack_slices(r->batch_over_time),
                                  "in_flight_over_time", pack_slices(r->in_flight_over_time)));
    json_object_set_new(root, "tenants", pack_tenants(bench, &status, err));
    if (s->first_error != NULL)
        json_object_set_new(root, "first_error",
                            sl_json_text(s->first_error->message, strlen(s->first_error->message)));
    if (status != SL_OK) {
        json_decref(root);
        return status;
    }
    return sl_out_json(root, err);
}

/* ---- text ---- */

static void print_percentiles(const char *name, const sl_percentiles *p)
{
    if (p->n == 0)
        sl_out_printf("%-6s %10s\n", name, "-");
    else
        sl_out_printf("%-6s %10.1f %10.1f %10.1f %10.1f %10.1f\n", name, p->mean, p->p50, p->p90, p->p99, p->max);
}

static void print_course(const char *name, const double *values)
{
    sl_out_printf("%-28s", name);
    for (int i = 0; i < SL_REPLAY_SLICES; i++)
        sl_out_printf(" %.0f", values[i]);
    sl_out_text("\n");
}

static void print_head(const summary *s)
{
    const sl_bench_trace *bench = s->bench;
    const sl_replay_report *r = &s->report;
    char text[SL_KV_CHOICE_TEXT];
    sl_machine_print(&bench->machine, bench->bundle);
    sl_out_printf("trace %s, seed %llu: %zu requests (%zu failed", bench->trace->name,
                  (unsigned long long)bench->trace->seed, r->all.n_requests, r->all.n_failed);
    if (bench->trace->n_cut > 0)
        sl_out_printf(", %zu cut to the context", bench->trace->n_cut);
    sl_out_printf(") in %.2f s; %s batching of %u, chunks of %u\n%s\n\n", r->seconds, bench->batching,
                  bench->engine.n_sequences, bench->engine.chunk, sl_kv_choice_text(&bench->kv, text));
    sl_out_printf("%-28s %10s %10s\n", "", "tokens", "tokens/s");
    sl_out_printf("%-28s %10llu %10.1f\n", "prompts", (unsigned long long)r->n_prompt_tokens,
                  per_second(s, (double)r->n_prompt_tokens));
    sl_out_printf("%-28s %10llu %10.1f\n", "generated", (unsigned long long)r->n_generated_tokens,
                  per_second(s, (double)r->n_generated_tokens));
    sl_out_printf("%-28s %10llu %10.1f\n", "total", (unsigned long long)(r->n_prompt_tokens + r->n_generated_tokens),
                  per_second(s, (double)(r->n_prompt_tokens + r->n_generated_tokens)));
}

static sl_status print_tenants(const summary *s, sl_err *err)
{
    const sl_bench_trace *bench = s->bench;
    for (uint32_t i = 0; bench->trace->n_tenants > 1 && i < bench->trace->n_tenants; i++) {
        sl_replay_latency l;
        SL_TRY(sl_replay_latency_of(bench->replay, i, &l, err));
        sl_out_printf("tenant %.20s: %zu requests, TTFT p50 %.1f ms, p99 %.1f ms; ITL p99 %.1f ms\n",
                      bench->trace->tenants[i], l.n_requests, l.ttft_ms.p50, l.ttft_ms.p99, l.itl_ms.p99);
    }
    return SL_OK;
}

static void print_engine(const summary *s)
{
    const sl_replay_report *r = &s->report;
    const sl_replay *replay = s->bench->replay;
    sl_out_printf(
        "prefix hits: %.1f%% of tokens looked for, %llu of %llu prompt tokens not computed; %llu pre-emptions\n",
        100 * share((double)replay->prefix_hits, (double)replay->prefix_queries),
        (unsigned long long)r->n_cached_tokens, (unsigned long long)r->n_prompt_tokens,
        (unsigned long long)replay->n_preemptions);
    sl_out_printf("KV: %u of %u blocks used at most", replay->most_blocks_used, replay->n_blocks);
    if (r->n_kv_samples > 0)
        sl_out_printf("; %.3f slots held for a token kept, %.1f slots of a sequence without one", r->slots_per_token,
                      r->unused_slots);
    sl_out_text("\n");
    if (r->prediction_error.n > 0)
        sl_out_printf("predicted step times: median error %.1f%%, p99 %.1f%%\n", 100 * r->prediction_error.p50,
                      100 * r->prediction_error.p99);
}

static sl_status print_text(const summary *s, sl_err *err)
{
    const sl_bench_trace *bench = s->bench;
    const sl_replay_report *r = &s->report;
    print_head(s);
    sl_out_printf("\n%-6s %10s %10s %10s %10s %10s\n", "ms", "mean", "p50", "p90", "p99", "max");
    print_percentiles("TTFT", &r->all.ttft_ms);
    print_percentiles("ITL", &r->all.itl_ms);
    print_percentiles("TPOT", &r->all.tpot_ms);
    print_percentiles("e2e", &r->all.e2e_ms);
    sl_out_text("\n");
    if (has_targets(bench))
        sl_out_printf("goodput: %zu of %zu requests (%.1f%%), %.2f a second, with TTFT within %.0f ms and ITL within "
                      "%.0f ms (0 = any), or as the trace says\n",
                      r->all.n_good, r->all.n_requests, 100 * share((double)r->all.n_good, (double)r->all.n_requests),
                      per_second(s, (double)r->all.n_good), (double)bench->options.ttft_target_us / 1e3,
                      (double)bench->options.itl_target_us / 1e3);
    print_engine(s);
    sl_out_printf("%zu steps, %.2f tokens in one on average, %u at most\n", r->n_steps, r->batch_mean, r->batch_max);
    print_course("tokens a step over time:", r->batch_over_time);
    print_course("requests in flight:", r->in_flight_over_time);
    sl_out_printf(
        "continuous over static batching: at most %.2f times on this trace, were all requests there at once\n",
        s->bound);
    if (s->first_error != NULL)
        sl_out_printf("first failure: %s\n", s->first_error->message);
    return print_tenants(s, err);
}

sl_status sl_bench_trace_print(const sl_bench_trace *bench, bool json, sl_err *err)
{
    summary s = {.bench = bench, .bound = sl_trace_bound(bench->trace, bench->engine.n_sequences)};
    SL_TRY(sl_replay_summarise(bench->replay, &s.report, err));
    for (size_t i = 0; i < bench->replay->n_records && s.first_error == NULL; i++)
        if (bench->replay->records[i].failed)
            s.first_error = &bench->replay->records[i].error;
    if (s.report.all.n_failed == s.report.all.n_requests && s.first_error != NULL)
        SL_FAIL(err, s.first_error->code, "no request came through: %.200s", s.first_error->message);
    return json ? print_json(&s, err) : print_text(&s, err);
}
