#include "fake_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct slot {
    uint64_t chain;
    uint32_t position, token;
} slot;

struct sl_context {
    const sl_plan *plan;
    sl_context_sizes sizes;
    slot *slots[SL_MAX_KV_GROUPS];
    float *logits; /* max_wanted rows */
    /* Layered rows on their way: the part they have come to, 0 = none; how many, and the first one's position and block. */
    int part;
    uint32_t n_layered, position, block;
    fake_counts counts;
};

int64_t fake_now_us;

int64_t fake_clock(void *user)
{
    (void)user;
    return fake_now_us;
}

int64_t fake_run_us(uint32_t n_rows)
{
    return 200 + 50 * (int64_t)n_rows;
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t fake_chain(uint64_t before, uint32_t position, uint32_t token)
{
    return mix(before * 3 + ((uint64_t)position << 32 | token) + UINT64_C(0x9e3779b97f4a7c15));
}

void fake_logits(uint64_t chain, uint32_t n_vocab, float *logits)
{
    for (uint32_t i = 0; i < n_vocab; i++)
        logits[i] = (float)(mix(chain + i) >> 44) / 262144.0f; /* 0 to 4 */
}

static void complain(sl_context *c, const sl_row *row, int g, uint32_t position, const char *what)
{
    if (c->counts.n_wrong++ == 0)
        snprintf(c->counts.first_wrong, sizeof c->counts.first_wrong,
                 "run %llu: row of sequence %u at position %u, group %d: %s at position %u",
                 (unsigned long long)c->counts.n_runs, row->seq, row->position, g, what, position);
}

/* The slot of a position, by the row's block table; NULL where the table names no block. */
static slot *find_slot(sl_context *c, const sl_batch *batch, const sl_row *row, int g, uint32_t position)
{
    uint32_t block = batch->seqs[row->seq].blocks[g][position / SL_KV_BLOCK];
    if (block >= c->sizes.n_blocks[g]) {
        complain(c, row, g, position, "no block");
        return NULL;
    }
    return &c->slots[g][(size_t)block * SL_KV_BLOCK + position % SL_KV_BLOCK];
}

/* What the slot before the row's says of all tokens so far. */
static uint64_t chain_before(sl_context *c, const sl_batch *batch, const sl_row *row)
{
    if (row->position == 0)
        return 0;
    const slot *before = find_slot(c, batch, row, 0, row->position - 1);
    return before ? before->chain : 0;
}

/* Everything that attention of this group would read for the row: one chain of tokens, each where it belongs. */
static void check_reads(sl_context *c, const sl_batch *batch, const sl_row *row, int g)
{
    uint32_t window = c->plan->groups[g].window;
    uint32_t begin = window && row->position >= window ? row->position - window + 1 : 0;
    uint64_t before = 0;
    for (uint32_t p = begin; p <= row->position; p++) {
        const slot *s = find_slot(c, batch, row, g, p);
        const slot *first = c->plan->groups[0].window == 0 ? find_slot(c, batch, row, 0, p) : s;
        if (!s || !first)
            return;
        if (s->position != p)
            complain(c, row, g, p, "another position");
        else if ((p > begin || p == 0) && s->chain != fake_chain(before, p, s->token))
            complain(c, row, g, p, "other tokens");
        else if (s->chain != first->chain)
            complain(c, row, g, p, "tokens unlike the first group's");
        before = s->chain;
    }
}

/* Layered rows go on from where they were, with the same blocks, and give nothing before they are through. */
static void check_layered(sl_context *c, const sl_batch *batch)
{
    const sl_row *first = &batch->rows[batch->n_rows - batch->n_layered];
    const uint32_t block = batch->seqs[first->seq].blocks[0][first->position / SL_KV_BLOCK];
    const int n_parts = sl_plan_parts(c->plan);
    if (batch->n_layered > SL_LAYERED_ROWS || batch->part_begin >= batch->part_end || batch->part_end > n_parts)
        complain(c, first, 0, first->position, "layered rows outside of what there is");
    if (batch->part_begin > 0 && (batch->part_begin != c->part || batch->n_layered != c->n_layered ||
                                  first->position != c->position || block != c->block))
        complain(c, first, 0, first->position, "other layered rows than before");
    for (uint32_t i = 0; i < batch->n_layered; i++)
        if (first[i].seq != first->seq || first[i].wanted || first[i].hidden)
            complain(c, &first[i], 0, first[i].position, "a layered row of two sequences, or wanted");
    c->part = batch->part_end % n_parts;
    c->n_layered = batch->n_layered;
    c->position = first->position;
    c->block = block;
    c->counts.n_layered++;
}

static sl_status fake_run(sl_context *c, const sl_batch *batch, sl_err *err)
{
    uint32_t n_wanted = 0;
    if (batch->n_rows == 0 || batch->n_rows > c->sizes.max_rows)
        SL_FAIL(err, SL_ERR_ARGUMENT, "a batch of %u rows", batch->n_rows);
    c->counts.n_runs++;
    if (batch->n_layered > 0)
        check_layered(c, batch);
    /* Layered rows are written and read when they are through: nobody may need them before. */
    const uint32_t n_rows = batch->n_rows - (c->part > 0 ? batch->n_layered : 0);
    for (uint32_t r = 0; r < n_rows; r++) {
        const sl_row *row = &batch->rows[r];
        uint64_t chain = fake_chain(chain_before(c, batch, row), row->position, row->token);
        for (int g = 0; g < c->plan->n_groups; g++) {
            slot *s = find_slot(c, batch, row, g, row->position);
            if (s)
                *s = (slot){.chain = chain, .position = row->position, .token = row->token};
        }
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        const sl_row *row = &batch->rows[r];
        bool last = r + 1 == batch->n_rows || batch->rows[r + 1].seq != row->seq;
        /* A row's reads are nearly those of the row before: the last of each sequence and, at random, some others. */
        for (int g = 0; g < c->plan->n_groups && (last || (row->position + c->counts.n_runs) % 8 == 0); g++)
            check_reads(c, batch, row, g);
        const slot *own = find_slot(c, batch, row, 0, row->position);
        if (!row->wanted || !own)
            continue;
        if (n_wanted == c->sizes.max_wanted)
            SL_FAIL(err, SL_ERR_ARGUMENT, "logits of more than %u rows", c->sizes.max_wanted);
        fake_logits(own->chain, FAKE_VOCAB, c->logits + (size_t)n_wanted++ * FAKE_VOCAB);
    }
    c->counts.n_rows += batch->n_rows;
    fake_now_us += fake_run_us(batch->n_rows - batch->n_layered) + (fake_run_us(batch->n_layered) - fake_run_us(0)) *
                                                                       (batch->part_end - batch->part_begin) /
                                                                       sl_plan_parts(c->plan);
    return SL_OK;
}

static float *fake_logits_row(sl_context *c, uint32_t index)
{
    return c->logits + (size_t)index * FAKE_VOCAB;
}

static void fake_copy_block(sl_context *c, int g, uint32_t from, uint32_t to)
{
    c->counts.n_copies++;
    memcpy(&c->slots[g][(size_t)to * SL_KV_BLOCK], &c->slots[g][(size_t)from * SL_KV_BLOCK],
           SL_KV_BLOCK * sizeof(slot));
}

static void fake_context_bytes(const sl_plan *plan, const sl_context_sizes *sizes, int n_threads, uint64_t *step_bytes,
                               uint64_t *scratch_bytes, uint64_t *kv_bytes)
{
    (void)n_threads;
    *step_bytes = *scratch_bytes = *kv_bytes = 0;
    for (int g = 0; g < plan->n_groups; g++)
        *kv_bytes += sizes->n_blocks[g] * plan->groups[g].block_bytes;
}

static void fake_context_close(sl_context *c)
{
    for (int g = 0; g < SL_MAX_KV_GROUPS; g++)
        free(c->slots[g]);
    free(c->logits);
    free(c);
}

static sl_status fake_context_open(const sl_plan *plan, const sl_context_sizes *sizes, sl_threads *pool,
                                   sl_context **out, sl_err *err)
{
    (void)pool;
    sl_context *c = calloc(1, sizeof *c);
    if (!c)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory");
    c->plan = plan;
    c->sizes = *sizes;
    c->logits = calloc((size_t)sizes->max_wanted * FAKE_VOCAB, sizeof *c->logits);
    for (int g = 0; g < plan->n_groups; g++)
        c->slots[g] = calloc((size_t)sizes->n_blocks[g] * SL_KV_BLOCK, sizeof *c->slots[g]);
    *out = c;
    return SL_OK;
}

static void fake_synchronise(sl_context *c)
{
    (void)c;
}

const sl_backend *fake_backend(void)
{
    static const sl_backend fake = {.name = "fake",
                                    .context_bytes = fake_context_bytes,
                                    .context_open = fake_context_open,
                                    .context_close = fake_context_close,
                                    .run = fake_run,
                                    .logits = fake_logits_row,
                                    .copy_block = fake_copy_block,
                                    .synchronise = fake_synchronise};
    return &fake;
}

const fake_counts *fake_backend_counts(const sl_context *context)
{
    return &context->counts;
}
