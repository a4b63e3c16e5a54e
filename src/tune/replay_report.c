/* What a replay's records add up to. */
#include "tune/replay.h"

#include <math.h>
#include <stdlib.h>

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Nearest rank: the ceil(share * n)-th smallest. */
static double rank(const double *sorted, size_t n, double share)
{
    size_t at = (size_t)ceil(share * (double)n);
    return sorted[at > 0 ? at - 1 : 0];
}

sl_percentiles sl_percentiles_of(double *values, size_t n)
{
    double sum = 0;
    if (n == 0)
        return (sl_percentiles){0};
    qsort(values, n, sizeof *values, compare_doubles);
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    return (sl_percentiles){.n = n,
                            .mean = sum / (double)n,
                            .p50 = rank(values, n, 0.5),
                            .p90 = rank(values, n, 0.9),
                            .p99 = rank(values, n, 0.99),
                            .max = values[n - 1]};
}

/* Values of the requests that a report is about, each array with room for all of them. */
typedef struct collection {
    double *ttft, *itl, *tpot, *e2e;
    size_t n, n_gaps, n_tpot;
} collection;

/* Adds a request that has tokens; true when it met both targets. */
static bool collect(collection *c, const sl_replay *replay, const sl_replay_record *record)
{
    const int64_t *times = replay->times_us + record->first;
    size_t n_gaps = record->n_generated - 1;
    double *gaps = c->itl + c->n_gaps;
    c->ttft[c->n] = (double)(record->first_us - record->arrival_us) / 1e3;
    c->e2e[c->n++] = (double)(record->last_us - record->arrival_us) / 1e3;
    for (size_t i = 0; i < n_gaps; i++)
        gaps[i] = (double)(times[i + 1] - times[i]) / 1e3;
    c->n_gaps += n_gaps;
    if (n_gaps > 0)
        c->tpot[c->n_tpot++] = (double)(record->last_us - record->first_us) / 1e3 / (double)n_gaps;
    int64_t ttft_us = record->ttft_target_us, itl_us = record->itl_target_us;
    bool first = ttft_us == 0 || record->first_us - record->arrival_us <= ttft_us;
    bool smooth = itl_us == 0 || sl_percentiles_of(gaps, n_gaps).p99 * 1e3 <= (double)itl_us;
    return first && smooth;
}

/* tenant UINT32_MAX: all. */
static sl_status find_latency(const sl_replay *replay, uint32_t tenant, sl_replay_latency *out, sl_err *err)
{
    size_t n = replay->n_records + 1;
    collection c = {.ttft = calloc(n, sizeof(double)),
                    .tpot = calloc(n, sizeof(double)),
                    .e2e = calloc(n, sizeof(double)),
                    .itl = calloc(replay->n_tokens + 1, sizeof(double))};
    bool good = c.ttft && c.tpot && c.e2e && c.itl;
    *out = (sl_replay_latency){0};
    for (size_t i = 0; i < replay->n_records && good; i++) {
        const sl_replay_record *record = &replay->records[i];
        if (tenant != UINT32_MAX && record->tenant != tenant)
            continue;
        out->n_requests++;
        out->n_failed += record->failed;
        if (!record->failed)
            out->n_good += collect(&c, replay, record);
    }
    if (good) {
        out->ttft_ms = sl_percentiles_of(c.ttft, c.n);
        out->itl_ms = sl_percentiles_of(c.itl, c.n_gaps);
        out->tpot_ms = sl_percentiles_of(c.tpot, c.n_tpot);
        out->e2e_ms = sl_percentiles_of(c.e2e, c.n);
    }
    free(c.ttft);
    free(c.tpot);
    free(c.e2e);
    free(c.itl);
    return good ? SL_OK : sl_err_set(err, SL_ERR_NOMEM, "no memory for a replay's report");
}

sl_status sl_replay_latency_of(const sl_replay *replay, uint32_t tenant, sl_replay_latency *out, sl_err *err)
{
    return find_latency(replay, tenant, out, err);
}

/* Spreads each step over the slices of the time that it lies in. */
static void find_course(const sl_replay *replay, int64_t begin_us, sl_replay_report *out)
{
    double slice_us = (double)(replay->end_us - begin_us) / SL_REPLAY_SLICES;
    double weights[SL_REPLAY_SLICES] = {0};
    size_t n_generating = 0;
    for (size_t i = 0; i < replay->n_samples; i++) {
        const sl_replay_sample *s = &replay->samples[i];
        double start = (double)(s->start_us - begin_us), end = (double)(s->end_us - begin_us);
        n_generating += s->n_tokens > 0;
        out->batch_mean += s->n_tokens;
        out->batch_max = SL_MAX(out->batch_max, s->n_tokens);
        for (int k = 0; k < SL_REPLAY_SLICES && slice_us > 0; k++) {
            double overlap = fmin(end, (k + 1) * slice_us) - fmax(start, k * slice_us);
            if (overlap <= 0)
                continue;
            weights[k] += overlap;
            out->batch_over_time[k] += overlap * s->n_tokens;
            out->in_flight_over_time[k] += overlap * s->n_in_flight;
        }
    }
    out->batch_mean = n_generating > 0 ? out->batch_mean / (double)n_generating : 0;
    for (int k = 0; k < SL_REPLAY_SLICES; k++) {
        out->batch_over_time[k] = weights[k] > 0 ? out->batch_over_time[k] / weights[k] : 0;
        /* A slice with idle time counts it as nothing in flight. */
        out->in_flight_over_time[k] = slice_us > 0 ? out->in_flight_over_time[k] / slice_us : 0;
    }
}

static void find_kv(const sl_replay *replay, sl_replay_report *out)
{
    double slots = 0, positions = 0, unused = 0, sequences = 0;
    for (size_t i = 0; i < replay->n_samples; i++) {
        const sl_replay_sample *s = &replay->samples[i];
        out->n_kv_samples += s->n_running > 0;
        slots += (double)s->n_slots;
        positions += (double)s->n_positions;
        unused += (double)s->n_unused;
        sequences += s->n_running;
    }
    if (sequences > 0 && positions > 0) {
        out->slots_per_token = slots / positions;
        out->unused_slots = unused / sequences;
    }
}

static sl_status find_prediction(const sl_replay *replay, sl_replay_report *out, sl_err *err)
{
    size_t n = 0;
    double *errors = calloc(replay->n_samples + 1, sizeof *errors);
    if (!errors)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a replay's report");
    for (size_t i = 0; i < replay->n_samples; i++) {
        double predicted = (double)replay->samples[i].predicted_us, measured = (double)replay->samples[i].measured_us;
        if (predicted > 0 && measured > 0)
            errors[n++] = fabs(predicted - measured) / measured;
    }
    out->prediction_error = sl_percentiles_of(errors, n);
    free(errors);
    return SL_OK;
}

sl_status sl_replay_summarise(const sl_replay *replay, sl_replay_report *out, sl_err *err)
{
    int64_t begin_us = INT64_MAX;
    *out = (sl_replay_report){.n_steps = replay->n_samples};
    SL_TRY(find_latency(replay, UINT32_MAX, &out->all, err));
    for (size_t i = 0; i < replay->n_records; i++) {
        const sl_replay_record *record = &replay->records[i];
        if (record->failed)
            continue;
        begin_us = SL_MIN(begin_us, record->arrival_us);
        out->n_prompt_tokens += record->n_prompt;
        out->n_cached_tokens += record->n_cached;
        out->n_generated_tokens += record->n_generated;
    }
    if (begin_us == INT64_MAX)
        return SL_OK;
    out->seconds = (double)SL_MAX(replay->end_us - begin_us, 1) / 1e6;
    find_course(replay, begin_us, out);
    find_kv(replay, out);
    return find_prediction(replay, out, err);
}
