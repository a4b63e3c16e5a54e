/* Scenes of the engine's KV memory on the fake backend: what is computed, shared, pinned, copied, refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_backend.h"
#include "invariants.h"

#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 2200, PREFIX = 2000 };

static sl_plan full_plan = {.groups = {{.n_layers = 1, .block_bytes = 1000}}, .n_groups = 1};
static sl_plan mixed_plan = {
    .groups = {{.n_layers = 1, .block_bytes = 1000}, {.window = 100, .n_layers = 3, .block_bytes = 3000}},
    .n_groups = 2};

static void require(sl_status status, const sl_err *err)
{
    if (status != SL_OK)
        fail_msg("%s: %s", sl_status_name(status), err->message);
}

static sl_engine *open_with(const sl_plan *plan, sl_engine_options options)
{
    sl_engine_model model = {.plan = plan, .backend = fake_backend(), .n_vocab = FAKE_VOCAB, .context_length = CONTEXT};
    sl_engine *e;
    sl_err err;
    options.clock = fake_clock;
    require(sl_engine_open(&model, &options, NULL, &e, &err), &err);
    return e;
}

static sl_engine *open_engine(const sl_plan *plan, uint32_t n_sequences, uint64_t kv_bytes)
{
    return open_with(plan, (sl_engine_options){.n_sequences = n_sequences, .kv_bytes = kv_bytes, .chunk = 256});
}

/* One step. Twice in a row none does nothing as long as there is work. */
static bool step(sl_engine *e)
{
    static uint32_t n_idle;
    bool busy;
    sl_err err;
    const before_step before = remember(e);
    require(sl_engine_step(e, fake_now_us, &busy, &err), &err);
    check_engine(e, &before);
    const fake_counts *counts = fake_backend_counts(e->context);
    if (counts->n_wrong > 0)
        fail_msg("%s", counts->first_wrong);
    n_idle = busy && e->n_rows == 0 ? n_idle + 1 : 0;
    if (n_idle == 2) {
        n_idle = 0; /* for the scene that follows */
        fail_msg("nothing was done in two steps");
    }
    return busy;
}

static void run_until_idle(sl_engine *e)
{
    uint32_t n_steps = 0;
    while (step(e))
        if (++n_steps == 1000)
            fail_msg("no end after %u steps", n_steps);
    check_idle(e);
}

/* Steps until a count is there. */
static void run_until(sl_engine *e, const uint32_t *count, uint32_t least)
{
    for (uint32_t n_steps = 0; *count < least; n_steps++) {
        if (n_steps == 1000)
            fail_msg("no end after %u steps", n_steps);
        step(e);
    }
}

static uint64_t rows_so_far(const sl_engine *e)
{
    return fake_backend_counts(e->context)->n_rows;
}

typedef struct {
    uint32_t n_tokens, n_finished, n_cached;
} outcome;

static void on_event(void *user, const sl_event *event)
{
    outcome *o = user;
    o->n_tokens += event->kind == SL_EVENT_TOKEN;
    o->n_finished += event->kind == SL_EVENT_FINISHED;
    o->n_cached = event->n_cached;
}

/* The first PREFIX tokens of every prompt are the same; tail tells the others apart. */
static void make_prompt(uint32_t *prompt, uint32_t n, uint32_t tail)
{
    for (uint32_t i = 0; i < n; i++)
        prompt[i] = i < PREFIX ? (i * 7 + i / 24) % FAKE_VOCAB : (i * 5 + tail * (i - PREFIX + 1)) % FAKE_VOCAB;
}

static sl_request make_request(uint32_t *prompt, uint32_t n_prompt, uint32_t tail, uint32_t max_tokens, outcome *o)
{
    make_prompt(prompt, n_prompt, tail);
    return (sl_request){.prompt = prompt,
                        .n_prompt = n_prompt,
                        .max_tokens = max_tokens,
                        .warm = max_tokens == 0,
                        .sampling = sl_sample_params_default(),
                        .on_event = on_event,
                        .user = o};
}

static sl_status submit(sl_engine *e, uint32_t n_prompt, uint32_t tail, uint32_t max_tokens, outcome *o, sl_err *err)
{
    uint32_t prompt[CONTEXT];
    sl_request r = make_request(prompt, n_prompt, tail, max_tokens, o);
    return sl_engine_submit(e, &r, NULL, err);
}

/* Sixteen prompts with a common prefix of 2,000 tokens and 16 of their own compute the prefix once: when they arrive
 * together, and when they arrive while another one with it is still decoding. */
static void test_prefix_is_computed_once(void **state)
{
    (void)state;
    enum { N = 16, OWN = 16, ANSWER = 20 };
    for (int p = 0; p < 2; p++) {
        for (int late = 0; late < 2; late++) {
            sl_engine *e = open_engine(p ? &mixed_plan : &full_plan, N + 1, 0);
            outcome o[N + 1] = {0};
            sl_err err;
            if (late) {
                require(submit(e, PREFIX, 0, 100, &o[N], &err), &err);
                run_until(e, &o[N].n_tokens, 50);
                assert_int_equal(rows_so_far(e), PREFIX + 49);
            }
            for (uint32_t i = 0; i < N; i++)
                require(submit(e, PREFIX + OWN, i, ANSWER, &o[i], &err), &err);
            run_until_idle(e);
            uint64_t prefix_rows = late ? PREFIX + 99 : PREFIX;
            assert_int_equal(rows_so_far(e), prefix_rows + N * (OWN + ANSWER - 1));
            uint32_t n_first = 0; /* requests that computed the prefix */
            for (uint32_t i = 0; i < N; i++) {
                assert_int_equal(o[i].n_tokens, ANSWER);
                assert_true(o[i].n_cached == PREFIX || o[i].n_cached == 0);
                n_first += o[i].n_cached == 0;
            }
            assert_int_equal(n_first, late ? 0 : 1);
            sl_engine_close(e);
        }
    }
}

/* The same with memory for little more than the prefix: what others hold counts as had, so several run together all the
 * same. Whoever is pre-empted computes again what is its own at most, never the prefix. */
static void test_prefix_is_shared_in_tight_memory(void **state)
{
    (void)state;
    enum { N = 16, OWN = 16, ANSWER = 20, BLOCKS = PREFIX / SL_KV_BLOCK + 3 * N / 2 };
    sl_engine *e = open_engine(&full_plan, N, BLOCKS * 1000);
    outcome o[N] = {0};
    sl_err err;
    sl_engine_statistics s;
    uint32_t most_running = 0, n_steps = 0;
    for (uint32_t i = 0; i < N; i++)
        require(submit(e, PREFIX + OWN, i, ANSWER, &o[i], &err), &err);
    while (step(e)) {
        assert_true(++n_steps < 1000);
        sl_engine_stats(e, &s);
        most_running = SL_MAX(most_running, s.n_running);
    }
    check_idle(e);
    sl_engine_stats(e, &s);
    uint64_t least = PREFIX + N * (OWN + ANSWER - 1);
    assert_in_range(rows_so_far(e), least, least + s.n_preemptions * (OWN + ANSWER));
    assert_in_range(s.n_preemptions, 0, 4);
    assert_in_range(most_running, 6, N - 1);
    sl_engine_close(e);
}

/* Four choices: the prompt once, full blocks shared, the partly filled one copied for all but the last to write. */
static void test_choices_copy_on_write(void **state)
{
    (void)state;
    sl_engine *e = open_engine(&full_plan, 4, 0);
    outcome o = {0};
    sl_err err;
    uint32_t prompt[CONTEXT];
    make_prompt(prompt, 100, 0);
    sl_request r = {.prompt = prompt,
                    .n_prompt = 100,
                    .max_tokens = 10,
                    .n_choices = 4,
                    .sampling = sl_sample_params_default(),
                    .on_event = on_event,
                    .user = &o};
    r.sampling.temperature = 1;
    require(sl_engine_submit(e, &r, NULL, &err), &err);
    step(e);
    assert_int_equal(o.n_tokens, 4);
    assert_int_equal(e->kv.pools[0].n_blocks - e->kv.pools[0].n_free, 7);
    step(e);
    assert_int_equal(fake_backend_counts(e->context)->n_copies, 3);
    assert_int_equal(e->kv.pools[0].n_blocks - e->kv.pools[0].n_free, 10);
    run_until_idle(e);
    assert_int_equal(o.n_tokens, 40);
    assert_int_equal(o.n_finished, 4);
    assert_int_equal(rows_so_far(e), 100 + 4 * 9);
    r.n_choices = 5;
    assert_int_equal(sl_engine_submit(e, &r, NULL, &err), SL_ERR_LIMIT);
    sl_engine_close(e);
}

/* A warmed prefix serves a request; pinned, it outlives a flood that evicts everything else. */
static void test_warm_and_pin(void **state)
{
    (void)state;
    sl_engine *e = open_engine(&full_plan, 1, 300 * 1000); /* 300 blocks, 4,800 tokens */
    outcome o = {0};
    sl_err err;
    uint32_t prompt[CONTEXT], n_pinned = 0;
    make_prompt(prompt, CONTEXT, 0);
    assert_int_equal(sl_engine_pin_prefix(e, 0, prompt, PREFIX, &n_pinned, &err), SL_ERR_NOT_FOUND);
    require(submit(e, 1000, 0, 0, &o, &err), &err);
    run_until_idle(e);
    require(sl_engine_pin_prefix(e, 0, prompt, PREFIX, &n_pinned, &err), &err);
    assert_int_equal(n_pinned, 992);
    for (uint32_t i = 0; i < 10; i++) { /* others, of another tenant */
        sl_request r = {.prompt = prompt + i,
                        .n_prompt = 1000,
                        .max_tokens = 1,
                        .tenant = 7,
                        .sampling = sl_sample_params_default(),
                        .on_event = on_event,
                        .user = &o};
        require(sl_engine_submit(e, &r, NULL, &err), &err);
        run_until_idle(e);
        assert_int_equal(o.n_cached, 0);
    }
    require(submit(e, PREFIX, 0, 1, &o, &err), &err);
    run_until_idle(e);
    assert_int_equal(o.n_cached, 992);
    /* 300 blocks, 62 of them pinned */
    sl_engine_close(e);
    e = open_engine(&full_plan, 1, 130 * 1000);
    require(submit(e, 1000, 0, 0, &o, &err), &err);
    run_until_idle(e);
    require(submit(e, PREFIX, 0, 80, &o, &err), &err); /* 130 blocks: all */
    assert_int_equal(sl_engine_pin_prefix(e, 0, prompt, 100, &n_pinned, &err), SL_ERR_LIMIT);
    run_until_idle(e);
    require(sl_engine_pin_prefix(e, 0, prompt, 100, &n_pinned, &err), &err);
    assert_int_equal(submit(e, PREFIX, 0, 80, &o, &err), SL_ERR_LIMIT);
    assert_non_null(strstr(err.message, "pinned"));
    require(sl_engine_unpin_prefix(e, 0, prompt, n_pinned, &err), &err);
    assert_int_equal(sl_engine_unpin_prefix(e, 0, prompt, n_pinned, &err), SL_ERR_NOT_FOUND);
    require(submit(e, PREFIX, 0, 80, &o, &err), &err);
    run_until_idle(e);
    sl_engine_close(e);
}

/* Two that do not fit together: the later one makes way, both get their whole answers, and the memory is used up. */
static void test_preemption(void **state)
{
    (void)state;
    sl_engine *e = open_engine(&full_plan, 2, 20 * 1000);
    outcome o[2] = {0};
    sl_err err;
    sl_engine_statistics s;
    assert_int_equal(sl_engine_context(e), 320);
    require(submit(e, 32, 0, 200, &o[0], &err), &err);
    uint32_t prompt[40];
    for (uint32_t i = 0; i < 40; i++)
        prompt[i] = i % 5;
    sl_request r = {.prompt = prompt,
                    .n_prompt = 40,
                    .max_tokens = 200,
                    .sampling = sl_sample_params_default(),
                    .on_event = on_event,
                    .user = &o[1]};
    require(sl_engine_submit(e, &r, NULL, &err), &err);
    uint32_t most_used = 0;
    while (o[0].n_finished == 0) {
        uint32_t before = o[0].n_tokens;
        step(e);
        assert_true(o[0].n_tokens > before || o[0].n_finished > 0);
        sl_engine_stats(e, &s);
        most_used = SL_MAX(most_used, s.n_blocks_used);
    }
    assert_int_equal(o[1].n_finished, 0);
    run_until_idle(e);
    sl_engine_stats(e, &s);
    assert_true(s.n_preemptions >= 1);
    assert_int_equal(most_used, 20);
    assert_int_equal(o[0].n_tokens, 200);
    assert_int_equal(o[1].n_tokens, 200);
    r.max_tokens = 300;
    assert_int_equal(sl_engine_submit(e, &r, NULL, &err), SL_OK); /* cut to the context, which the memory decides */
    run_until_idle(e);
    sl_engine_close(e);
}

static void test_bytes_are_divided(void **state)
{
    (void)state;
    uint32_t n[SL_MAX_KV_GROUPS];
    const sl_keep everything = {0}, some = {32, 64, 0};
    sl_err err;
    /* Four sequences of 50 blocks; the window and a chunk of 64 take at most ceil((100 + 64 + 16) / 16) = 12. */
    require(sl_kv_divide(&mixed_plan, &everything, 0, 4, 800, 64, n, &err), &err);
    assert_int_equal(n[0], 200);
    assert_int_equal(n[1], 48);
    /* Room for 10 blocks of each group a sequence: both grow alike while sequences are shorter than the window. */
    require(sl_kv_divide(&mixed_plan, &everything, 160000, 4, 800, 64, n, &err), &err);
    assert_int_equal(n[0], 40);
    assert_int_equal(n[1], 40);
    /* Beyond the window only the first grows. */
    require(sl_kv_divide(&mixed_plan, &everything, 48 * 3000 + 4 * 20 * 1000 + 2500, 4, 800, 64, n, &err), &err);
    assert_int_equal(n[0], 82);
    assert_int_equal(n[1], 48);
    /* More than all of it: in proportion. */
    require(sl_kv_divide(&mixed_plan, &everything, 3 * (48 * 3000 + 200 * 1000), 4, 800, 64, n, &err), &err);
    assert_int_equal(n[0], 600);
    assert_int_equal(n[1], 144);
    require(sl_kv_divide(&mixed_plan, &everything, 4000, 4, 800, 64, n, &err), &err);
    assert_int_equal(n[0], 1);
    assert_int_equal(n[1], 1);
    assert_int_equal(sl_kv_divide(&mixed_plan, &everything, 3999, 4, 800, 64, n, &err), SL_ERR_LIMIT);
    assert_int_equal(sl_kv_divide(&full_plan, &everything, UINT64_MAX, 4, 800, 64, n, &err), SL_ERR_LIMIT);
    /* A sequence that keeps 6 blocks holds at most 8 more, until the next are given up. */
    require(sl_kv_divide(&mixed_plan, &some, 0, 4, 800, 64, n, &err), &err);
    assert_int_equal(n[0], 56);
    assert_int_equal(n[1], 48);
}

/* The vectors of the reference code's vectors.h: key 00 01 .. 0f, messages 00 01 .. of 0 and 15 bytes. */
static void test_digest(void **state)
{
    (void)state;
    static const uint8_t expected[2][16] = {
        {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93},
        {0x54, 0x93, 0xe9, 0x99, 0x33, 0xb0, 0xa8, 0x11, 0x7e, 0x08, 0xec, 0x0f, 0x97, 0xcf, 0xc3, 0xd9}};
    uint8_t bytes[16];
    for (uint8_t i = 0; i < 16; i++)
        bytes[i] = i;
    sl_digester *digester;
    sl_err err;
    require(sl_digester_open(bytes, &digester, &err), &err);
    for (int i = 0; i < 2; i++) {
        sl_digest digest = sl_digest_of(digester, bytes, i ? 15 : 0);
        assert_memory_equal(&digest, expected[i], sizeof digest);
    }
    sl_digester_close(digester);
}

/* Dear blocks stay longer, but not for ever; of equals the older goes. */
static void test_eviction_order(void **state)
{
    (void)state;
    sl_evict e;
    sl_err err;
    uint32_t item;
    require(sl_evict_open(&e, 8, &err), &err);
    static const uint64_t costs[] = {10, 30, 10};
    for (uint32_t i = 0; i < 3; i++) {
        sl_evict_value(&e, i, costs[i]);
        sl_evict_offer(&e, i);
    }
    assert_true(sl_evict_pop(&e, &item) && item == 0);
    sl_evict_value(&e, 3, 10); /* on a floor of 10 now */
    sl_evict_offer(&e, 3);
    sl_evict_withdraw(&e, 2);
    sl_evict_withdraw(&e, 2);
    assert_true(sl_evict_pop(&e, &item) && item == 3);
    sl_evict_value(&e, 4, 15); /* 35: item 1 has had its time */
    sl_evict_offer(&e, 4);
    assert_true(sl_evict_pop(&e, &item) && item == 1);
    assert_true(sl_evict_pop(&e, &item) && item == 4);
    assert_false(sl_evict_pop(&e, &item));
    sl_evict_close(&e);
}

/* ---- blocks that nobody uses ---- */

/* Each tenant shares with itself only. */
static void submit_with(sl_engine *e, int32_t priority, uint64_t tenant, uint32_t n_prompt, uint32_t max_tokens,
                        outcome *o)
{
    uint32_t prompt[CONTEXT];
    sl_err err;
    sl_request r = make_request(prompt, n_prompt, 0, max_tokens, o);
    r.priority = priority;
    r.tenant = tenant;
    require(sl_engine_submit(e, &r, NULL, &err), &err);
}

/* A pool full of what a request has left in the tree: the next one gets blocks of it in its first step, as many as it has
 * rows, and goes on to its end. */
static void test_cached_blocks_are_given_up(void **state)
{
    (void)state;
    enum { BLOCKS = 20 };
    sl_engine *e = open_engine(&full_plan, 1, BLOCKS * 1000);
    outcome first = {0}, second = {0};
    sl_engine_statistics s;
    submit_with(e, 0, 1, 300, 20, &first);
    run_until_idle(e);
    sl_engine_stats(e, &s);
    assert_int_equal(s.n_blocks_cached, 319 / SL_KV_BLOCK);
    submit_with(e, 0, 2, 200, 20, &second);
    step(e);
    assert_int_equal(e->n_rows, 200);
    run_until_idle(e);
    assert_int_equal(second.n_tokens, 20);
    assert_int_equal(rows_so_far(e), 300 + 19 + 200 + 19);
    sl_engine_close(e);
}

/* ---- pushing out ---- */

/* Slots are full: the last of lower priority makes way within a step; of equal priority nobody does. */
static void test_push_out_of_a_slot(void **state)
{
    (void)state;
    for (int32_t priority = 0; priority < 2; priority++) {
        sl_engine *e = open_engine(&full_plan, 2, 0);
        outcome low[2] = {0}, high = {0};
        submit_with(e, 0, 1, 40, 50, &low[0]);
        submit_with(e, 0, 2, 40, 50, &low[1]);
        run_until(e, &low[1].n_tokens, 5);
        submit_with(e, priority, 3, 40, 5, &high);
        step(e);
        assert_int_equal(e->statistics.n_preemptions, priority);
        assert_int_equal(e->running->request.tenant, priority ? 3 : 1);
        uint32_t n_tokens = low[0].n_tokens;
        step(e);
        assert_int_equal(low[0].n_tokens, n_tokens + 1); /* the first goes on */
        run_until(e, &high.n_finished, 1);
        assert_int_equal(low[1].n_finished, !priority);
        run_until_idle(e);
        assert_true(low[0].n_tokens == 50 && low[1].n_tokens == 50 && high.n_tokens == 5);
        sl_engine_close(e);
    }
}

/* One slot and ever new requests of higher priority: after four times nobody pushes the first one out any more. */
static void test_push_out_ends(void **state)
{
    (void)state;
    enum { N = 10, SPARED_AFTER = 4 };
    sl_engine *e = open_engine(&full_plan, 1, 0);
    outcome low = {0}, high[N] = {0};
    submit_with(e, -1, 1, 40, 60, &low);
    for (uint32_t i = 0; i < N; i++) {
        run_until(e, &low.n_tokens, low.n_tokens + 1);
        submit_with(e, 1, 2, 40, 1, &high[i]);
        step(e);
        assert_int_equal(high[i].n_tokens, i < SPARED_AFTER);
    }
    assert_int_equal(e->statistics.n_preemptions, SPARED_AFTER);
    run_until(e, &low.n_finished, 1);
    assert_int_equal(high[N - 1].n_tokens, 0);
    run_until_idle(e);
    assert_true(low.n_tokens == 60 && high[N - 1].n_tokens == 1);
    sl_engine_close(e);
}

/* Memory is full: those of lower priority make way if that is enough, and go on if it is not. */
static void test_push_out_of_memory(void **state)
{
    (void)state;
    enum { BLOCKS = 40 };
    for (int enough = 0; enough < 2; enough++) {
        sl_engine *e = open_engine(&full_plan, 8, BLOCKS * 1000);
        outcome first = {0}, low = {0}, high = {0};
        submit_with(e, 1, 1, 320, 100, &first); /* 21 blocks, and more with time */
        submit_with(e, 0, 2, 240, 100, &low);   /* 16 */
        run_until(e, &low.n_tokens, 2);
        submit_with(e, 1, 3, enough ? 200 : 320, 5, &high); /* 13 or 20 */
        step(e);
        assert_int_equal(e->statistics.n_preemptions, enough);
        assert_int_equal(e->n_running, 2);
        assert_int_equal(e->running->next->request.tenant, enough ? 3 : 2);
        run_until_idle(e);
        assert_true(first.n_tokens == 100 && low.n_tokens == 100 && high.n_tokens == 5);
        sl_engine_close(e);
    }
}

/* Two prompts with log-probabilities, and no blocks left. The second one has a deadline and is served first, but the first
 * one outranks it: it gets the logits that the second one has no blocks for, and then its blocks. */
static void test_logits_without_blocks(void **state)
{
    (void)state;
    enum { BLOCKS = 12, PINNED = 6, PROMPT = 64 };
    sl_engine *e =
        open_with(&full_plan, (sl_engine_options){.n_sequences = 2, .kv_bytes = BLOCKS * 1000, .logit_rows = 2});
    outcome warm = {0}, o[2] = {0};
    uint32_t prompt[CONTEXT], n_pinned;
    sl_err err;
    submit_with(e, 0, 0, PINNED * SL_KV_BLOCK, 1, &warm); /* stays in the tree */
    run_until_idle(e);
    for (uint32_t i = 0; i < 2; i++) {
        sl_request r = make_request(prompt, PROMPT, 0, 4, &o[i]);
        r.tenant = 1 + i;
        r.prompt_logprobs = true;
        r.ttft_target_us = i ? 1000000000 : 0;
        require(sl_engine_submit(e, &r, NULL, &err), &err);
        while (e->waiting || e->running->n_done < PROMPT / 4 * 3)
            step(e);
    }
    assert_int_equal(e->running->next->request.tenant, 2);
    /* The pin takes what was there for the second one. */
    make_prompt(prompt, CONTEXT, 0);
    require(sl_engine_pin_prefix(e, 0, prompt, PINNED * SL_KV_BLOCK, &n_pinned, &err), &err);
    assert_int_equal(n_pinned, PINNED * SL_KV_BLOCK);
    run_until_idle(e);
    assert_true(o[0].n_tokens == 4 && o[1].n_tokens == 4);
    assert_int_equal(e->statistics.n_preemptions, 1);
    sl_engine_close(e);
}

/* ---- how much memory ---- */

static void test_memory_is_chosen(void **state)
{
    (void)state;
    sl_engine_model model = {
        .plan = &full_plan, .backend = fake_backend(), .n_vocab = FAKE_VOCAB, .context_length = CONTEXT};
    sl_engine_options options = {.n_sequences = 3};
    sl_engine_memory memory;
    sl_kv_choice choice;
    sl_err err;
    require(sl_engine_measure(&model, &options, 1, &memory, &err), &err);
    uint64_t others = memory.total_bytes - memory.kv_bytes, blocks = 3 * ((CONTEXT + 15) / 16);
    assert_int_equal(memory.kv_bytes, blocks * 1000);
    /* Plenty: what three full contexts need, and no byte more. */
    require(sl_engine_choose_kv(&model, &options, 1, UINT64_MAX, &choice, &err), &err);
    assert_true(!choice.given && choice.kv_bytes == memory.kv_bytes && options.kv_bytes == memory.kv_bytes);
    assert_true(choice.needed_bytes == memory.kv_bytes && choice.context == CONTEXT && choice.n_sequences == 3);
    sl_engine_memory again;
    require(sl_engine_measure(&model, &options, 1, &again, &err), &err);
    assert_memory_equal(&again, &memory, sizeof memory);
    /* Less: three quarters of what the rest of the engine leaves; the context follows. */
    options.kv_bytes = 0;
    require(sl_engine_choose_kv(&model, &options, 1, others + 80000, &choice, &err), &err);
    assert_int_equal(options.kv_bytes, 60000);
    require(sl_engine_measure(&model, &options, 1, &again, &err), &err);
    assert_true(again.kv_bytes <= 60000 && again.context < CONTEXT && again.context >= 20 * 16);
    /* Nothing. */
    options.kv_bytes = 0;
    assert_int_equal(sl_engine_choose_kv(&model, &options, 1, others, &choice, &err), SL_ERR_NOMEM);
    assert_non_null(strstr(err.message, "free"));
    /* Who says how much gets it. */
    options.kv_bytes = 5000000;
    require(sl_engine_choose_kv(&model, &options, 1, others, &choice, &err), &err);
    assert_true(choice.given && options.kv_bytes == 5000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cached_blocks_are_given_up),
        cmocka_unit_test(test_prefix_is_computed_once),
        cmocka_unit_test(test_prefix_is_shared_in_tight_memory),
        cmocka_unit_test(test_choices_copy_on_write),
        cmocka_unit_test(test_warm_and_pin),
        cmocka_unit_test(test_preemption),
        cmocka_unit_test(test_push_out_of_a_slot),
        cmocka_unit_test(test_push_out_ends),
        cmocka_unit_test(test_push_out_of_memory),
        cmocka_unit_test(test_logits_without_blocks),
        cmocka_unit_test(test_memory_is_chosen),
        cmocka_unit_test(test_bytes_are_divided),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_eviction_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
