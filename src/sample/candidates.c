#include "sample/candidates.h"

#include "base/status.h"
#include "sample/exp.h"

#include <float.h>
#include <math.h>

/* Digits of the radix selection, most significant first: 11 + 11 + 10 bits. */
enum { RADIX_BITS = 11, RADIX_SIZE = 1 << RADIX_BITS };

bool sl_logits_scan(const float *logits, uint32_t n, int32_t *block_max, int32_t *max)
{
    int32_t highest = INT32_MIN, lowest = sl_kernels_get(sl_level_best())->block_max(block_max, logits, n);
    for (uint32_t b = 0; b < (n + SL_KEY_BLOCK - 1) / SL_KEY_BLOCK; b++)
        highest = SL_MAX(highest, block_max[b]);
    *max = highest;
    /* a NaN's key lies outside the two infinities' */
    return lowest >= sl_float_key(-INFINITY) && highest < sl_float_key(INFINITY) && highest > sl_float_key(-INFINITY);
}

uint32_t sl_logits_argmax(const float *logits, uint32_t n, const int32_t *block_max, int32_t max)
{
    uint32_t block = 0;
    while (block_max[block] != max)
        block++;
    uint32_t i = block * SL_KEY_BLOCK;
    while (sl_float_key(logits[i]) != max)
        i++;
    SL_ASSERT(i < n);
    return i;
}

/* Lower bound of the k-th largest of n keys: it shares the upper two thirds of its bits or is below them. */
static int32_t kth_bound(const int32_t *keys, uint32_t n, uint32_t k)
{
    uint32_t prefix = 0, above = 0;
    for (int shift = 32 - RADIX_BITS; shift > 0; shift -= RADIX_BITS) {
        uint32_t count[RADIX_SIZE] = {0};
        for (uint32_t i = 0; i < n; i++) {
            uint32_t u = (uint32_t)keys[i] ^ UINT32_C(0x80000000);
            if (((uint64_t)(u ^ prefix) >> (shift + RADIX_BITS)) == 0)
                count[(u >> shift) & (RADIX_SIZE - 1)]++;
        }
        uint32_t digit = RADIX_SIZE - 1;
        while (digit > 0 && above + count[digit] < k)
            above += count[digit--];
        prefix |= digit << shift;
    }
    return (int32_t)(prefix ^ UINT32_C(0x80000000));
}

static void keep(sl_candidates *c, uint32_t *n, uint32_t i, bool condition)
{
    c->id[*n] = c->id[i];
    c->logit[*n] = c->logit[i];
    c->weight[*n] = c->weight[i];
    *n += condition;
}

/* The most likely candidates whose measure (weight, or 1 each where by_weight is false) first reaches limit; all when
 * none does. Radix selection: three histograms of the keys' digits narrow the crossing point to equal logits. */
static void keep_top(sl_candidates *c, bool by_weight, double limit)
{
    uint32_t prefix = 0;
    double above = 0;
    for (int shift = 32 - RADIX_BITS, bits = RADIX_BITS;; shift -= bits) {
        double mass[RADIX_SIZE] = {0};
        uint32_t lowest = RADIX_SIZE;
        for (uint32_t i = 0; i < c->n; i++) {
            uint32_t u = (uint32_t)sl_float_key(c->logit[i]) ^ UINT32_C(0x80000000);
            if (((uint64_t)(u ^ prefix) >> (shift + bits)) != 0)
                continue;
            uint32_t digit = (u >> shift) & ((1u << bits) - 1);
            mass[digit] += by_weight ? (double)c->weight[i] : 1.0;
            lowest = SL_MIN(lowest, digit);
        }
        uint32_t digit = (1u << bits) - 1;
        while (digit > lowest && above + mass[digit] < limit)
            above += mass[digit--];
        prefix |= digit << shift;
        if (shift == 0)
            break;
        if (shift < RADIX_BITS)
            bits = shift;
    }
    int32_t threshold = (int32_t)(prefix ^ UINT32_C(0x80000000));
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        int32_t key = sl_float_key(c->logit[i]);
        bool kept = key > threshold || (key == threshold && above < limit);
        if (kept && key == threshold)
            above += by_weight ? (double)c->weight[i] : 1.0;
        keep(c, &n, i, kept);
    }
    c->n = n;
}

/* Adds the tokens [begin, end), one block at most, whose keys are at least bound. */
static void gather_block(sl_candidates *c, const float *logits, uint32_t begin, uint32_t end, int32_t bound)
{
    uint32_t n_above = 0, n = end - begin;
    uint32_t *restrict id = c->id + c->n;
    float *restrict logit = c->logit + c->n;
    logits += begin;
    for (uint32_t i = 0; i < n; i++)
        n_above += sl_float_key(logits[i]) >= bound;
    if (n_above == n) {
        for (uint32_t i = 0; i < n; i++) {
            id[i] = begin + i;
            logit[i] = logits[i];
        }
    } else {
        for (uint32_t i = 0, kept = 0; i < n; i++) {
            id[kept] = begin + i;
            logit[kept] = logits[i];
            kept += sl_float_key(logits[i]) >= bound;
        }
    }
    c->n += n_above;
}

void sl_candidates_gather(sl_candidates *c, const float *logits, uint32_t n_logits, const int32_t *block_max,
                          float bound, uint32_t top_k)
{
    uint32_t n_blocks = (n_logits + SL_KEY_BLOCK - 1) / SL_KEY_BLOCK;
    int32_t lowest = SL_MAX(sl_float_key(bound), sl_float_key(-INFINITY) + 1);
    /* top_k blocks have a maximum of at least the top_k-th largest maximum, so the top_k-th largest logit has, too */
    if (top_k != 0 && top_k <= n_blocks)
        lowest = SL_MAX(lowest, kth_bound(block_max, n_blocks, top_k));
    c->n = 0;
    for (uint32_t block = 0; block < n_blocks; block++)
        if (block_max[block] >= lowest)
            gather_block(c, logits, block * SL_KEY_BLOCK, SL_MIN(n_logits, (block + 1) * SL_KEY_BLOCK), lowest);
    if (top_k != 0 && top_k < c->n)
        keep_top(c, false, top_k);
}

/* Weights of at most 2^-125 count as nothing. */
static float weight_floor(void)
{
    return sl_exp_negative(SL_EXP_RANGE);
}

double sl_logits_total(const float *logits, uint32_t n, float max_logit, float temperature)
{
    float scale = 1.0f / temperature, floor = weight_floor(), weight[SL_KEY_BLOCK];
    double sum = 0;
    for (uint32_t begin = 0; begin < n; begin += SL_KEY_BLOCK) {
        uint32_t n_block = SL_MIN(n - begin, (uint32_t)SL_KEY_BLOCK);
        for (uint32_t i = 0; i < n_block; i++) {
            float w = sl_exp_negative((max_logit - logits[begin + i]) * scale);
            weight[i] = w > floor ? w : 0;
        }
        sum += sl_sum_weights(weight, n_block);
    }
    return sum;
}

void sl_candidates_weigh(sl_candidates *c, float max_logit, float temperature)
{
    const float *restrict logit = c->logit;
    float *restrict weight = c->weight;
    float scale = 1.0f / temperature, floor = weight_floor();
    uint32_t n = c->n, n_kept = 0;
    for (uint32_t i = 0; i < n; i++)
        weight[i] = sl_exp_negative((max_logit - logit[i]) * scale);
    for (uint32_t i = 0; i < n; i++)
        n_kept += weight[i] > floor;
    if (n_kept == n)
        return;
    n_kept = 0;
    for (uint32_t i = 0; i < n; i++)
        keep(c, &n_kept, i, weight[i] > floor);
    c->n = n_kept;
}

double sl_candidates_sum(const sl_candidates *c)
{
    double sum = 0;
    for (uint32_t i = 0; i < c->n; i += SL_KEY_BLOCK)
        sum += sl_sum_weights(c->weight + i, SL_MIN(c->n - i, (uint32_t)SL_KEY_BLOCK));
    return sum;
}

void sl_candidates_top_p(sl_candidates *c, float top_p, double total)
{
    keep_top(c, true, SL_MAX((double)top_p * total, DBL_MIN));
}

void sl_candidates_min_p(sl_candidates *c, float min_p)
{
    /* the most likely candidate's weight is exp(0) = 1 and no filter removes it */
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n; i++)
        keep(c, &n, i, c->weight[i] >= min_p);
    c->n = n;
}

uint32_t sl_candidates_draw(const sl_candidates *c, double uniform)
{
    double target = uniform * sl_candidates_sum(c), sum = 0;
    uint32_t begin = 0;
    for (; c->n - begin > SL_KEY_BLOCK; begin += SL_KEY_BLOCK) {
        double next = sum + sl_sum_weights(c->weight + begin, SL_KEY_BLOCK);
        if (next > target)
            break;
        sum = next;
    }
    uint32_t last = SL_MIN(c->n, begin + SL_KEY_BLOCK) - 1;
    for (uint32_t i = begin; i < last; i++) {
        sum += (double)c->weight[i];
        if (sum > target)
            return c->id[i];
    }
    return c->id[last];
}
