/* What a step costs: a prediction of its time from its rows, its wanted rows and the KV positions it attends.
 *
 * The time is a sum of non-negative terms, so it never falls when work is added:
 *
 *     T = sum over terms i of m[i] * prior_us[i] * f[i](work)
 *
 * - Rows and wanted rows enter piecewise linearly (the f are the parts of [0, n] that lie between two knots): few rows wait
 *   for the weights to come from memory, many for the arithmetic, and kernels change in between.
 * - Attention has a term for the positions each row attends (arithmetic) and one for the positions each tile of
 *   SL_ATTENTION_ROWS rows of a sequence reads (memory, conversion to float32); decode is a tile of one row.
 *
 * prior_us follows from the model's bytes and operations and from rough figures for a machine of its level, so nothing
 * is measured before a start. The multipliers m are corrected by each measured step with a Kalman filter (Kalman 1960)
 * on the relative error. Errors beyond a few times the usual noise are clipped (Huber 1964), so one step that a
 * neighbour disturbed changes little; a machine that stays slower is followed within some steps, because part of the
 * process noise is common to all terms.
 *
 * Everything here is a plain struct: no memory, no clock, no files. sl_cost_write and sl_cost_read turn it into text. */
#ifndef SL_ENGINE_COST_H
#define SL_ENGINE_COST_H

#include "graph/plan.h"

enum { SL_COST_ROW_TERMS = 12, SL_COST_WANTED_TERMS = 6, SL_COST_TERMS = SL_COST_ROW_TERMS + SL_COST_WANTED_TERMS + 2 };

/* What a step does. Positions are sums over the step, each KV group weighted by its share of the KV bytes. */
typedef struct sl_step_work {
    uint32_t n_rows, n_wanted;
    double row_positions;  /* over rows: positions the row attends */
    double tile_positions; /* over tiles of a sequence's rows: positions that one of them attends */
    /* Besides, rows that go through parts of the plan alone (graph/backend.h): these have that share of a row's matmuls.
     * What the rows attend in these parts is in the sums above. */
    uint32_t n_layered;
    double layered_share;
} sl_step_work;

typedef struct sl_cost {
    double prior_us[SL_COST_TERMS]; /* of one unit of each term */
    double m[SL_COST_TERMS];
    double p[SL_COST_TERMS][SL_COST_TERMS]; /* covariance of m */
    double spread;                          /* median of the absolute relative error, as a running estimate */
    uint64_t n_observed;
    uint64_t key; /* of machine and model: a saved state is used only where it is the same */
    uint32_t n_groups;
    uint32_t window[SL_MAX_KV_GROUPS]; /* 0 = full */
    double share[SL_MAX_KV_GROUPS];    /* of the KV bytes of a position; they sum to 1 */
    /* Parts of the plan that rows can go through in several steps (sl_plan_parts). Of a row's matmuls, the first begins with
     * what in other layers stands before the cut, the last ends with those for wanted rows alone, those between are alike.
     * Each has one layer's attention. */
    uint32_t n_parts;
    double first_part, last_part;           /* shares of a row's matmuls */
    uint8_t part_group[SL_MAX_LAYERS];      /* KV group of the part's layer */
    uint32_t group_parts[SL_MAX_KV_GROUPS]; /* how many there are of each */
} sl_cost;

/* The prior for a plan on n_threads workers of this machine. Fills all of *cost; can't fail. */
void sl_cost_init(sl_cost *cost, const sl_plan *plan, int n_threads);

/* Adds n_rows rows of one sequence at [position, position + n_rows), of which n_wanted have their logits computed. */
void sl_cost_add(const sl_cost *cost, sl_step_work *work, uint32_t position, uint32_t n_rows, uint32_t n_wanted);

/* The share of a row's matmuls that parts [begin, end) have, where it is not wanted; 0 to 1. */
double sl_cost_parts_share(const sl_cost *cost, uint32_t begin, uint32_t end);

/* Adds n_rows rows of one sequence, none of them wanted, that go through parts [begin, end); once for a step at most. */
void sl_cost_add_layered(const sl_cost *cost, sl_step_work *work, uint32_t position, uint32_t n_rows, uint32_t begin,
                         uint32_t end);

/* The same as in the mean of n_steps steps that take the rows through all parts. */
void sl_cost_add_mean_layered(const sl_cost *cost, sl_step_work *work, uint32_t position, uint32_t n_rows,
                              uint32_t n_steps);

/* Predicted time of a step in microseconds; more than 0 and finite, 0 for a step without rows. */
double sl_cost_predict_us(const sl_cost *cost, const sl_step_work *work);

/* Learns from a step that took measured_us. Steps without rows and times that are not positive are ignored. */
void sl_cost_observe(sl_cost *cost, const sl_step_work *work, double measured_us);

/* How far the time of a step is unknown because nothing like it was observed: the relative standard deviation of the
 * prediction, less twice the usual error. */
double sl_cost_doubt(const sl_cost *cost, const sl_step_work *work);

/* Time that a prediction may come to when limit_us must hold in 99 of 100 cases and more, as for a request's gaps between
 * tokens: three times the usual error less, and a quarter of that for what other programs and the memory do to one step in
 * a hundred, where the usual error tells nothing (measured: median error 2 %, 99th percentile 43 %). */
double sl_cost_with_margin(const sl_cost *cost, double limit_us);

/* Of the first n of a prompt's n_left rows those whose logits are computed, which are its last n_wanted: all of them for
 * its log-probabilities, else 1 or, with the same meaning, 0. */
static inline uint32_t sl_cost_wanted(uint32_t n, uint32_t n_left, uint32_t n_wanted)
{
    uint32_t n_before = n_left - SL_MIN(SL_MAX(n_wanted, 1), n_left);
    return n > n_before ? n - n_before : 0;
}

/* Most rows n <= most of a prompt at position that can be added to *work with the step within limit_us; n_wanted of its
 * n_left rows as above. 0 when not even one fits. */
uint32_t sl_cost_rows_within(const sl_cost *cost, const sl_step_work *work, uint32_t position, uint32_t n_left,
                             uint32_t n_wanted, uint32_t most, double limit_us);

/* How many parts from begin on n_rows rows of a prompt at position can go through with the step within limit_us. */
uint32_t sl_cost_parts_within(const sl_cost *cost, const sl_step_work *work, uint32_t position, uint32_t n_rows,
                              uint32_t begin, double limit_us);

/* Time to compute the prompt rows [position, position + n_rows) alone, the last n_wanted with logits (0 as 1), in steps of
 * chunk rows. */
double sl_cost_prefill_us(const sl_cost *cost, uint32_t position, uint32_t n_rows, uint32_t n_wanted, uint32_t chunk);

enum { SL_COST_TEXT_BYTES = 2048 };

/* What was learned, as text with a sum at its end; returns its length without the NUL. */
size_t sl_cost_write(const sl_cost *cost, char text[SL_COST_TEXT_BYTES]);

/* Takes over what was learned when text is whole and of the same machine and model (*cost has been initialised for
 * them); otherwise returns false and leaves *cost alone. Any bytes are allowed. */
SL_WARN_UNUSED bool sl_cost_read(sl_cost *cost, const char *text, size_t n_bytes);

#endif
