#include "engine/cost.h"

#include "kernel/type.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- terms ---- */

/* Ends of the pieces; the last has none. Powers of two, as SL_MATMUL_MANY_ROWS and the tiles of the kernels are, and the
 * first row of a second and a third tile, which costs as much as the others of its tile together. */
static const double row_knots[SL_COST_ROW_TERMS - 1] = {1, 4, 5, 8, 9, 16, 32, 64, 128, 256, 512};
static const double wanted_knots[SL_COST_WANTED_TERMS - 1] = {1, 4, 8, 16, 32};
enum { WANTED = SL_COST_ROW_TERMS, ROW_POSITIONS = WANTED + SL_COST_WANTED_TERMS, TILE_POSITIONS };

/* The smaller one; fmin, which also knows NaN, is a call. */
static inline double least(double a, double b)
{
    return a < b ? a : b;
}

static void split_at(double n, const double *knots, int n_knots, double *out)
{
    double begin = 0;
    for (int i = 0; i < n_knots; i++) {
        double part = least(n, knots[i]) - begin;
        out[i] = part > 0 ? part : 0;
        begin = knots[i];
    }
    out[n_knots] = n > begin ? n - begin : 0;
}

/* a[i]: time of each term by the prior. */
static void prior_times(const sl_cost *cost, const sl_step_work *work, double a[SL_COST_TERMS])
{
    split_at(work->n_rows, row_knots, SL_COST_ROW_TERMS - 1, a);
    split_at(work->n_wanted, wanted_knots, SL_COST_WANTED_TERMS - 1, a + WANTED);
    a[ROW_POSITIONS] = work->row_positions;
    a[TILE_POSITIONS] = work->tile_positions;
    if (work->n_layered > 0) { /* some layers with the layered rows, the others without */
        double with[SL_COST_ROW_TERMS];
        split_at(work->n_rows + work->n_layered, row_knots, SL_COST_ROW_TERMS - 1, with);
        for (int i = 0; i < SL_COST_ROW_TERMS; i++)
            a[i] += work->layered_share * (with[i] - a[i]);
    }
    for (int i = 0; i < SL_COST_TERMS; i++)
        a[i] *= cost->prior_us[i];
}

/* How much of [0, most] lies below x. */
static inline double clip(double x, double most)
{
    return x < 0 ? 0 : x < most ? x : most;
}

/* Positions that rows [position, position + n) attend behind a window, summed over the rows. */
static double attended(double position, double n, double window)
{
    if (window == 0)
        return n * position + n * (n + 1) / 2;
    double growing = clip(window - position, n); /* rows that see less than the window */
    return growing * position + growing * (growing + 1) / 2 + (n - growing) * window;
}

/* Positions that tiles of the rows [position, position + n) read behind a window, summed over the tiles: one that ends at
 * position e reads min(e, window + its rows - 1). In one go, since a long prompt has hundreds. */
static double tile_reads(double position, uint32_t n, double window)
{
    const double rows = SL_ATTENTION_ROWS, most = window + rows - 1;
    double n_whole = n / SL_ATTENTION_ROWS, n_rest = n % SL_ATTENTION_ROWS, growing = n_whole;
    if (window > 0)
        growing = (uint32_t)clip((most - position) / rows, n_whole); /* whole tiles that see less than that */
    double sum = growing * position + rows * growing * (growing + 1) / 2 + (n_whole - growing) * most;
    if (n_rest > 0)
        sum += window > 0 ? least(position + n, window + n_rest - 1) : position + n;
    return sum;
}

/* Adds what the rows attend in shares[group] of the group's layers. */
static void add_positions(const sl_cost *cost, sl_step_work *work, uint32_t position, uint32_t n_rows,
                          const double *shares)
{
    for (uint32_t g = 0; g < cost->n_groups; g++) {
        const double share = shares[g] * cost->share[g];
        work->row_positions += share * attended(position, n_rows, cost->window[g]);
        work->tile_positions += share * tile_reads(position, n_rows, cost->window[g]);
    }
}

void sl_cost_add(const sl_cost *cost, sl_step_work *work, uint32_t position, uint32_t n_rows, uint32_t n_wanted)
{
    static const double all[SL_MAX_KV_GROUPS] = {1, 1, 1, 1};
    work->n_rows += n_rows;
    work->n_wanted += n_wanted;
    add_positions(cost, work, position, n_rows, all);
}

double sl_cost_parts_share(const sl_cost *cost, uint32_t begin, uint32_t end)
{
    const bool first = begin == 0 && end > 0, last = end == cost->n_parts && begin < end;
    const double middle = cost->n_parts > 2 ? (1 - cost->first_part - cost->last_part) / (cost->n_parts - 2) : 0;
    if (cost->n_parts == 1)
        return end - begin;
    return first * cost->first_part + last * cost->last_part + (double)(end - begin - first - last) * middle;
}

void sl_cost_add_layered(const sl_cost *cost, sl_step_work *work, uint32_t position, uint32_t n_rows, uint32_t begin,
                         uint32_t end)
{
    double shares[SL_MAX_KV_GROUPS] = {0};
    for (uint32_t i = begin; i < end; i++)
        shares[cost->part_group[i]] += 1.0 / cost->group_parts[cost->part_group[i]];
    add_positions(cost, work, position, n_rows, shares);
    work->n_layered = n_rows;
    work->layered_share = sl_cost_parts_share(cost, begin, end);
}

void sl_cost_add_mean_layered(const sl_cost *cost, sl_step_work *work, uint32_t position, uint32_t n_rows,
                              uint32_t n_steps)
{
    sl_step_work all = {0};
    sl_cost_add(cost, &all, position, n_rows, 0);
    work->row_positions += all.row_positions / n_steps;
    work->tile_positions += all.tile_positions / n_steps;
    work->n_layered = n_rows;
    work->layered_share = 1.0 / n_steps;
}

/* ---- the prior ---- */

/* Rough figures of one worker; bandwidth is shared by all. What is wrong about them the first steps put right. */
static double level_gops(sl_level level)
{
    static const double gops[SL_LEVEL_COUNT] = {
        [SL_LEVEL_EXACT] = 2,     [SL_LEVEL_REF] = 2,      [SL_LEVEL_AVX2] = 60,
        [SL_LEVEL_AVXVNNI] = 120, [SL_LEVEL_AVX512] = 100, [SL_LEVEL_AVX512VNNI] = 300};
    return gops[level];
}
static const double prior_gbps = 12, step_us = 2, sample_us = 20;

typedef struct {
    double row_ops, row_bytes, wanted_ops, wanted_bytes, position_ops, position_bytes;
    double first_part_ops, last_part_ops; /* of row_ops */
} plan_work;

static plan_work weigh(const sl_plan *plan)
{
    plan_work w = {0};
    const sl_graph *graph = &plan->graph;
    const int n_parts = sl_plan_parts(plan), second = sl_plan_part(plan, 1), last = sl_plan_part(plan, n_parts - 1);
    const int first_end = second < plan->n_steps ? plan->steps[second].begin : graph->n_nodes;
    const int last_begin = last > 0 ? plan->steps[last].begin : 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        const sl_node *node = &graph->nodes[i];
        if (node->op == SL_OP_ATTENTION)
            w.position_ops += 4.0 * node->n_heads * node->head_dim;
        if (node->op != SL_OP_MATMUL)
            continue;
        const sl_graph_weight *weight = &graph->weights[node->weight];
        double elems = (double)weight->n_rows * (double)weight->n_cols;
        const sl_type_info *type = sl_type_get((uint32_t)weight->type);
        double bytes = elems * type->block_bytes / type->block_elems;
        bool each_row = graph->values[node->output].domain == SL_DOMAIN_ROWS; /* not the wanted ones alone */
        *(each_row ? &w.row_ops : &w.wanted_ops) += 2 * elems;
        *(each_row ? &w.row_bytes : &w.wanted_bytes) += bytes;
        w.first_part_ops += each_row && i < first_end ? 2 * elems : 0;
        w.last_part_ops += each_row && i >= last_begin ? 2 * elems : 0;
    }
    for (int g = 0; g < plan->n_groups; g++)
        w.position_bytes += (double)plan->groups[g].block_bytes / SL_KV_BLOCK;
    return w;
}

static void fill_pieces(double *prior, int n, double bytes, double ops, double overhead_us, double gops)
{
    double compute = ops / gops / 1e3;
    prior[0] = overhead_us + fmax(bytes / prior_gbps / 1e3, compute);
    for (int i = 1; i < n; i++)
        prior[i] = compute + 1; /* work besides the matmuls */
}

/* FNV-1a (Fowler, Noll, Vo): a name for a description, no protection. */
static uint64_t fnv(uint64_t hash, const void *bytes, size_t n)
{
    const unsigned char *b = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ b[i]) * UINT64_C(0x100000001b3);
    return hash;
}
static const uint64_t fnv_start = UINT64_C(0xcbf29ce484222325);

/* Adds the processor's name, where the system tells one. */
static uint64_t hash_machine(uint64_t hash)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "model name", 10) == 0 || strncmp(line, "CPU part", 8) == 0) {
            hash = fnv(hash, line, strlen(line));
            break;
        }
    if (file)
        fclose(file);
    long n_cpus = sysconf(_SC_NPROCESSORS_CONF);
    return fnv(hash, &n_cpus, sizeof n_cpus);
}

/* Two models of the same shapes and types cost the same, so the plan says all about the model. */
static uint64_t hash_plan(uint64_t hash, const sl_plan *plan, int n_threads)
{
    const char *level = sl_level_name(plan->level);
    int numbers[] = {n_threads, SL_KERNEL_REVISION, (int)plan->kv_type, plan->n_steps, SL_COST_TERMS};
    hash = fnv(hash, level, strlen(level));
    hash = fnv(hash, numbers, sizeof numbers);
    for (int i = 0; i < plan->graph.n_weights; i++) {
        const sl_graph_weight *w = &plan->graph.weights[i];
        uint64_t shape[] = {(uint64_t)w->type, w->n_rows, w->n_cols};
        hash = fnv(hash, shape, sizeof shape);
    }
    for (int g = 0; g < plan->n_groups; g++) {
        uint64_t group[] = {plan->groups[g].window, plan->groups[g].n_layers, plan->groups[g].block_bytes};
        hash = fnv(hash, group, sizeof group);
    }
    return hash;
}

/* Standard deviations of a multiplier: common to all terms; of each piece, neighbours being alike; what each step adds,
 * for each, and common to all in shares of the usual error: a machine whose speed swings is also the one that is noisy. */
static const double common_sd = 1.0, own_sd = 0.5, own_step_sd = 0.008, common_step_share = 0.8;
static const double reload_sd = 0.3; /* common again, after a load: the machine may be busier than it was */
static const double first_spread = 0.05, least_spread = 0.005, most_spread = 0.25;
static const double least_m = 0.01, most_m = 1000;

static int family(int term)
{
    return term < WANTED ? 0 : term < ROW_POSITIONS ? 1 : term;
}

static void reset_covariance(sl_cost *cost)
{
    for (int i = 0; i < SL_COST_TERMS; i++)
        for (int j = 0; j < SL_COST_TERMS; j++) {
            double alike = family(i) == family(j) ? exp(-fabs((double)(i - j)) / 2) : 0;
            cost->p[i][j] = common_sd * common_sd + own_sd * own_sd * alike;
        }
}

static void set_parts(sl_cost *cost, const sl_plan *plan, const plan_work *w)
{
    cost->n_parts = (uint32_t)sl_plan_parts(plan);
    SL_ASSERT(cost->n_parts <= SL_MAX_LAYERS);
    cost->first_part = w->row_ops > 0 ? w->first_part_ops / w->row_ops : 1.0 / cost->n_parts;
    cost->last_part = w->row_ops > 0 ? w->last_part_ops / w->row_ops : 1.0 / cost->n_parts;
    for (uint32_t i = 0; i < cost->n_parts; i++) {
        cost->part_group[i] = (uint8_t)(plan->layer_group ? plan->layer_group[i] : 0);
        cost->group_parts[cost->part_group[i]]++;
    }
}

void sl_cost_init(sl_cost *cost, const sl_plan *plan, int n_threads)
{
    *cost = (sl_cost){.spread = first_spread, .n_groups = (uint32_t)plan->n_groups};
    plan_work w = weigh(plan);
    double gops = level_gops(plan->level) * n_threads;
    fill_pieces(cost->prior_us, SL_COST_ROW_TERMS, w.row_bytes, w.row_ops, step_us * plan->n_steps, gops);
    fill_pieces(cost->prior_us + WANTED, SL_COST_WANTED_TERMS, w.wanted_bytes, w.wanted_ops, sample_us, gops);
    for (int i = 1; i < SL_COST_WANTED_TERMS; i++)
        cost->prior_us[WANTED + i] += sample_us;
    cost->prior_us[ROW_POSITIONS] = w.position_ops / (gops / 8) / 1e3 + 1e-4; /* attention is float32 */
    cost->prior_us[TILE_POSITIONS] = w.position_bytes / prior_gbps / 1e3 + 1e-4;
    for (int g = 0; g < plan->n_groups; g++) {
        cost->window[g] = plan->groups[g].window;
        cost->share[g] = (double)plan->groups[g].block_bytes / SL_KV_BLOCK / w.position_bytes;
    }
    set_parts(cost, plan, &w);
    for (int i = 0; i < SL_COST_TERMS; i++)
        cost->m[i] = 1;
    reset_covariance(cost);
    cost->key = hash_plan(hash_machine(fnv_start), plan, n_threads);
}

/* ---- predicting and learning ---- */

double sl_cost_predict_us(const sl_cost *cost, const sl_step_work *work)
{
    double a[SL_COST_TERMS], sum = 0;
    if (work->n_rows + work->n_layered == 0)
        return 0;
    prior_times(cost, work, a);
    for (int i = 0; i < SL_COST_TERMS; i++)
        sum += a[i] * cost->m[i];
    return sum;
}

/* P grows by what may have changed since the last step. */
static void drift(sl_cost *cost)
{
    double common = common_step_share * cost->spread;
    for (int i = 0; i < SL_COST_TERMS; i++) {
        for (int j = 0; j < SL_COST_TERMS; j++)
            cost->p[i][j] += common * common * cost->m[i] * cost->m[j];
        cost->p[i][i] += own_step_sd * own_step_sd * cost->m[i] * cost->m[i];
    }
}

/* Follows the median of |error|: up and down by the same factor. */
static void follow_spread(sl_cost *cost, double error)
{
    cost->spread *= fabs(error) > cost->spread ? 1.03 : 1 / 1.03;
    cost->spread = fmin(fmax(cost->spread, least_spread), most_spread);
}

/* The first step says how far off the prior is as a whole. */
static void rescale(sl_cost *cost, double ratio)
{
    ratio = fmin(fmax(ratio, least_m), most_m);
    for (int i = 0; i < SL_COST_TERMS; i++) {
        cost->m[i] *= ratio;
        for (int j = 0; j < SL_COST_TERMS; j++)
            cost->p[i][j] *= ratio * ratio;
    }
}

void sl_cost_observe(sl_cost *cost, const sl_step_work *work, double measured_us)
{
    double h[SL_COST_TERMS], ph[SL_COST_TERMS], predicted = sl_cost_predict_us(cost, work);
    if (!(predicted > 0) || !(measured_us > 0) || !isfinite(measured_us))
        return;
    if (cost->n_observed == 0) {
        rescale(cost, measured_us / predicted);
        predicted = sl_cost_predict_us(cost, work);
    }
    drift(cost);
    prior_times(cost, work, h);
    double model_variance = 0;
    for (int i = 0; i < SL_COST_TERMS; i++)
        h[i] /= predicted;
    for (int i = 0; i < SL_COST_TERMS; i++) {
        ph[i] = 0;
        for (int j = 0; j < SL_COST_TERMS; j++)
            ph[i] += cost->p[i][j] * h[j];
        model_variance += h[i] * ph[i];
    }
    /* In logarithms, so that ten times too long weighs no more than ten times too short; 1.4826 medians of the absolute
     * error are a standard deviation of normal noise. */
    double error = log(measured_us / predicted), noise = 1.4826 * cost->spread;
    double most = 2 * sqrt(model_variance + noise * noise), clipped = fmin(fmax(error, -most), most);
    double weight = fabs(error) > most ? most / fabs(error) : 1;
    double variance = model_variance + noise * noise / weight;
    for (int i = 0; i < SL_COST_TERMS; i++) {
        cost->m[i] = fmin(fmax(cost->m[i] + ph[i] / variance * expm1(clipped), least_m), most_m);
        for (int j = 0; j < SL_COST_TERMS; j++)
            cost->p[i][j] -= ph[i] * ph[j] / variance;
    }
    if (cost->n_observed++ >= SL_COST_TERMS) /* before, the errors are the prior's, not the machine's */
        follow_spread(cost, error);
}

/* ---- questions of the scheduler ---- */

double sl_cost_doubt(const sl_cost *cost, const sl_step_work *work)
{
    double h[SL_COST_TERMS], variance = 0, us = sl_cost_predict_us(cost, work);
    prior_times(cost, work, h);
    for (int i = 0; i < SL_COST_TERMS && us > 0; i++)
        for (int j = 0; j < SL_COST_TERMS; j++)
            variance += cost->p[i][j] * h[i] * h[j] / (us * us);
    double sd = sqrt(fmax(variance, 0));
    return fmax(0, sd - 2 * cost->spread);
}

static const double RARELY = 4.0 / 3; /* times longer than predicted a step is once in a hundred */

double sl_cost_with_margin(const sl_cost *cost, double limit_us)
{
    return limit_us / (RARELY * (1 + 3 * cost->spread));
}

uint32_t sl_cost_rows_within(const sl_cost *cost, const sl_step_work *work, uint32_t position, uint32_t n_left,
                             uint32_t n_wanted, uint32_t most, double limit_us)
{
    uint32_t low = 0, high = SL_MIN(n_left, most);
    while (low < high) {
        uint32_t n = low + (high - low + 1) / 2;
        sl_step_work with = *work;
        sl_cost_add(cost, &with, position, n, sl_cost_wanted(n, n_left, n_wanted));
        if (sl_cost_predict_us(cost, &with) <= limit_us)
            low = n;
        else
            high = n - 1;
    }
    return low;
}

uint32_t sl_cost_parts_within(const sl_cost *cost, const sl_step_work *work, uint32_t position, uint32_t n_rows,
                              uint32_t begin, double limit_us)
{
    uint32_t low = begin, high = cost->n_parts;
    while (low < high) {
        uint32_t end = low + (high - low + 1) / 2;
        sl_step_work with = *work;
        sl_cost_add_layered(cost, &with, position, n_rows, begin, end);
        if (sl_cost_predict_us(cost, &with) <= limit_us)
            low = end;
        else
            high = end - 1;
    }
    return low - begin;
}

double sl_cost_prefill_us(const sl_cost *cost, uint32_t position, uint32_t n_rows, uint32_t n_wanted, uint32_t chunk)
{
    if (n_rows == 0)
        return 0;
    /* All chunks but the last are summed in one go: all terms but attention are the same, and that is linear in the sums. */
    uint32_t n_whole = (n_rows - 1) / chunk, rest = n_rows - n_whole * chunk;
    double us = 0;
    if (n_whole > 0) {
        sl_step_work all = {0}, one = {.n_rows = chunk};
        sl_cost_add(cost, &all, position, n_whole * chunk, sl_cost_wanted(n_whole * chunk, n_rows, n_wanted));
        one.n_wanted = all.n_wanted / n_whole;
        one.row_positions = all.row_positions / n_whole;
        one.tile_positions = all.tile_positions / n_whole;
        us = n_whole * sl_cost_predict_us(cost, &one);
    }
    sl_step_work last = {0};
    sl_cost_add(cost, &last, position + n_whole * chunk, rest, sl_cost_wanted(rest, rest, n_wanted));
    return us + sl_cost_predict_us(cost, &last);
}

/* ---- text ---- */

static const char first_line[] = "sluice cost model 1";

size_t sl_cost_write(const sl_cost *cost, char text[SL_COST_TEXT_BYTES])
{
    size_t n = (size_t)snprintf(text, SL_COST_TEXT_BYTES, "%s\nkey %016" PRIx64 "\nsteps %" PRIu64 "\nspread %.6g\n",
                                first_line, cost->key, cost->n_observed, cost->spread);
    for (int i = 0; i < SL_COST_TERMS; i++)
        n += (size_t)snprintf(text + n, SL_COST_TEXT_BYTES - n, "term %d %.6g %.6g\n", i, cost->m[i],
                              sqrt(fmax(cost->p[i][i], 0)));
    n += (size_t)snprintf(text + n, SL_COST_TEXT_BYTES - n, "sum %016" PRIx64 "\n", fnv(fnv_start, text, n));
    return n;
}

/* Values within what the filter itself keeps to; NaN fails as well. */
static bool within(double x, double low, double high)
{
    return x >= low && x <= high;
}

bool sl_cost_read(sl_cost *cost, const char *text, size_t n_bytes)
{
    char copy[SL_COST_TEXT_BYTES], again[SL_COST_TEXT_BYTES], *at = copy;
    sl_cost c = *cost;
    int used = 0;
    if (n_bytes >= sizeof copy)
        return false;
    memcpy(copy, text, n_bytes);
    copy[n_bytes] = 0;
    size_t n_first = sizeof first_line - 1;
    if (strncmp(copy, first_line, n_first) != 0 ||
        sscanf(at += n_first, " key %" SCNx64 " steps %" SCNu64 " spread %lf %n", &c.key, &c.n_observed, &c.spread,
               &used) < 3)
        return false;
    at += used;
    if (c.key != cost->key || !within(c.spread, least_spread, most_spread))
        return false;
    for (int i = 0; i < SL_COST_TERMS; i++) {
        int index = -1;
        double sd = -1;
        if (sscanf(at, "term %d %lf %lf %n", &index, &c.m[i], &sd, &used) < 3 || index != i ||
            !within(c.m[i], least_m, most_m) || !within(sd, 0, most_m))
            return false;
        at += used;
        for (int j = 0; j < SL_COST_TERMS; j++)
            c.p[i][j] = c.p[j][i] = 0;
        c.p[i][i] = sd * sd;
    }
    /* Writing what was read must give the same bytes: that covers the sum and everything in between. */
    if (sl_cost_write(&c, again) != n_bytes || memcmp(again, copy, n_bytes) != 0)
        return false;
    for (int i = 0; i < SL_COST_TERMS; i++)
        for (int j = 0; j < SL_COST_TERMS; j++)
            c.p[i][j] += reload_sd * reload_sd * c.m[i] * c.m[j];
    *cost = c;
    return true;
}
