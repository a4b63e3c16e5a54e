/* Layered rows, which go through the plan in several runs, have the same bits as rows that go through it in one: on the
 * backend with every cut, and in the engine beside streams. What each part of the plan has of the work, by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/step.h"
#include "graph/backend.h"
#include "model_run.h"

static const char *const models[] = {SL_TEST_GOLDEN_DIR "/tiny_llama.gguf", SL_TEST_GOLDEN_DIR "/tiny_gemma3.gguf"};

static uint32_t draw(uint64_t *random, uint32_t below)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX generator */
    return (uint32_t)((*random >> 33) % below);
}

/* ---- on the backend ---- */

/* A stream decodes from position STREAM on, a step a run; a third sequence has CROWD rows in each run, the same ones, which
 * write into all buffers; a prompt has FIRST positions computed at once and the next N_ROWS as layered rows; then a row is
 * decoded behind it. */
enum { STREAM = 20, CROWD = 60, FIRST = 5, N_ROWS = 41, N_BLOCKS = 6, MOST_RUNS = 16 };

typedef struct scene {
    const sl_plan *plan;
    sl_context *context;
    uint32_t n_vocab;
    sl_row rows[128];
    sl_batch batch;
} scene;

static const uint32_t blocks[3][N_BLOCKS] = {{0, 2, 4, 6, 8, 10}, {11, 9, 7, 5, 3, 1}, {12, 13, 14, 15}};
static const sl_batch_seq seqs[] = {{.blocks = {blocks[0], blocks[0], blocks[0], blocks[0]}},
                                    {.blocks = {blocks[1], blocks[1], blocks[1], blocks[1]}},
                                    {.blocks = {blocks[2], blocks[2], blocks[2], blocks[2]}}};

static void begin(scene *s)
{
    s->batch = (sl_batch){.rows = s->rows, .seqs = seqs, .n_seqs = 3};
}

static void add_rows(scene *s, uint32_t seq, uint32_t position, uint32_t n, bool wanted)
{
    for (uint32_t i = 0; i < n; i++)
        s->rows[s->batch.n_rows++] = (sl_row){.seq = seq,
                                              .position = position + i,
                                              .parent = -1,
                                              .token = (seq * 131 + (position + i) * 37) % 200,
                                              .causal = true,
                                              .wanted = wanted && i + 1 == n};
}

static void run(const scene *s)
{
    sl_err err;
    run_require(sl_backend_cpu()->run(s->context, &s->batch, &err), &err);
}

static float *copy_logits(const scene *s, uint32_t index, float *to)
{
    memcpy(to, sl_backend_cpu()->logits(s->context, index), s->n_vocab * sizeof *to);
    return to + s->n_vocab;
}

static void open_scene(scene *s, const run_model *model)
{
    const sl_context_sizes sizes = {.max_rows = 128, .max_wanted = 4, .n_blocks = {16, 16, 16, 16}};
    sl_err err;
    s->plan = sl_model_plan(sl_bundle_model(model->bundle));
    s->n_vocab = model->n_vocab;
    run_require(sl_backend_cpu()->context_open(s->plan, &sizes, sl_bundle_threads(model->bundle), &s->context, &err),
                &err);
    begin(s);
    add_rows(s, 0, 0, STREAM, false);
    add_rows(s, 1, 0, FIRST, false);
    run(s);
}

/* Logits of the stream after each of n_runs runs, then those behind the prompt. cuts: the part that each run begins with, and
 * the end; NULL: the rows go through everything in the first run. */
static float *play(const run_model *model, const int *cuts, int n_runs)
{
    scene s;
    open_scene(&s, model);
    float *all = calloc((size_t)(MOST_RUNS + 1) * s.n_vocab, sizeof *all), *at = all;
    for (int i = 0; i < n_runs; i++) {
        begin(&s);
        add_rows(&s, 0, STREAM + (uint32_t)i, 1, true);
        add_rows(&s, 2, 0, CROWD, false);
        if (cuts || i == 0)
            add_rows(&s, 1, FIRST, N_ROWS, false);
        if (cuts) {
            s.batch.n_layered = N_ROWS;
            s.batch.part_begin = cuts[i];
            s.batch.part_end = cuts[i + 1];
        }
        run(&s);
        at = copy_logits(&s, 0, at);
    }
    begin(&s);
    add_rows(&s, 1, FIRST + N_ROWS, 1, true);
    run(&s);
    copy_logits(&s, 0, at);
    sl_backend_cpu()->context_close(s.context);
    return all;
}

static void check_cuts(const run_model *model, const int *cuts, int n_runs)
{
    float *whole = play(model, NULL, n_runs), *parts = play(model, cuts, n_runs);
    assert_memory_equal(whole, parts, (size_t)(n_runs + 1) * model->n_vocab * sizeof *whole);
    free(whole);
    free(parts);
}

static void test_cuts(void **state)
{
    (void)state;
    uint64_t random = 1;
    for (size_t m = 0; m < SL_COUNTOF(models); m++)
        for (int n_threads = 1; n_threads <= 2; n_threads++) {
            run_model model = run_open(&(run_setup){.path = models[m], .n_threads = n_threads});
            const int n_parts = sl_plan_parts(sl_model_plan(sl_bundle_model(model.bundle)));
            assert_in_range(n_parts, 3, MOST_RUNS);
            int cuts[MOST_RUNS + 1];
            for (int i = 0; i <= n_parts; i++)
                cuts[i] = i;
            check_cuts(&model, cuts, n_parts); /* a part a run */
            for (int trial = 0; trial < 4; trial++) {
                int n = 0;
                for (int part = 0; part < n_parts; part += 1 + (int)draw(&random, (uint32_t)n_parts / 2))
                    cuts[n++] = part;
                cuts[n] = n_parts;
                check_cuts(&model, cuts, n);
            }
            run_close(&model);
        }
}

static void test_refused(void **state)
{
    (void)state;
    run_model model = run_open(&(run_setup){.path = models[0]});
    scene s;
    open_scene(&s, &model);
    const struct {
        uint32_t n_layered;
        int begin, end;
    } wrong[] = {{N_ROWS + 1, 0, 1}, {SL_LAYERED_ROWS + 1, 0, 1}, {N_ROWS, 1, 1}, {N_ROWS, -1, 1}, {N_ROWS, 0, 99}};
    for (size_t i = 0; i < SL_COUNTOF(wrong); i++) {
        sl_err err;
        begin(&s);
        add_rows(&s, 1, FIRST, N_ROWS, false);
        s.batch.n_layered = wrong[i].n_layered;
        s.batch.part_begin = wrong[i].begin;
        s.batch.part_end = wrong[i].end;
        assert_int_equal(sl_backend_cpu()->run(s.context, &s.batch, &err), SL_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "parts"));
    }
    for (int last = 0; last < 2; last++) { /* rows with logits wanted, in the first part or the last one */
        const int n_parts = sl_plan_parts(s.plan);
        sl_err err;
        begin(&s);
        add_rows(&s, 1, FIRST, N_ROWS, true);
        s.batch.n_layered = N_ROWS;
        s.batch.part_begin = last ? n_parts - 1 : 0;
        s.batch.part_end = last ? n_parts : 1;
        assert_int_equal(sl_backend_cpu()->run(s.context, &s.batch, &err), SL_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "parts"));
    }
    sl_backend_cpu()->context_close(s.context);
    run_close(&model);
}

/* ---- what the parts have of the work ---- */

/* Matmuls, by the sizes of the matrices: a part begins with a layer's attention, so the first has Q, K and V of two layers,
 * and the last has none for rows that are not wanted. Attention, by the layers' windows. */
static void test_shares(void **state)
{
    (void)state;
    for (size_t m = 0; m < SL_COUNTOF(models); m++) {
        run_model model = run_open(&(run_setup){.path = models[m], .n_threads = 1});
        const sl_model_info *info = sl_model_get_info(sl_bundle_model(model.bundle));
        sl_cost cost;
        sl_cost_init(&cost, sl_model_plan(sl_bundle_model(model.bundle)), 1);
        double qkv = (double)info->n_embd * (info->n_heads + 2 * info->n_kv_heads) * info->head_dim;
        double rest = (double)info->n_embd * (info->n_heads * info->head_dim + 3 * info->n_ff);
        double all = info->n_layers * qkv + (info->n_layers - 1) * rest;
        assert_int_equal(cost.n_parts, info->n_layers);
        assert_true(fabs(cost.first_part - (2 * qkv + rest) / all) < 1e-9);
        assert_true(cost.last_part == 0);
        for (uint32_t p = 0; p < cost.n_parts; p++)
            assert_true((cost.window[cost.part_group[p]] > 0) ==
                        (m == 1 && p % 6 != 5)); /* every sixth of Gemma is full */
        run_close(&model);
    }
}

/* ---- in the engine ---- */

enum { N_STREAMS = 6, N_ANSWER = 40, LONG = 70 };

typedef struct answer {
    uint32_t tokens[N_ANSWER];
    float logprobs[N_ANSWER];
    uint32_t n;
} answer;

static void on_event(void *user, const sl_event *event)
{
    answer *a = user;
    if (event->kind == SL_EVENT_FINISHED)
        return;
    a->tokens[a->n] = event->sampled.token;
    a->logprobs[a->n++] = event->sampled.logprob;
}

static void submit(run_model *model, uint32_t index, answer *a)
{
    uint32_t prompt[LONG];
    for (uint32_t i = 0; i < LONG; i++)
        prompt[i] = (index * 57 + i * 13) % 200;
    sl_request request = {.prompt = prompt,
                          .n_prompt = index < N_STREAMS ? 6 : LONG,
                          .max_tokens = N_ANSWER,
                          .sampling = sl_sample_params_default(),
                          .on_event = on_event,
                          .user = a};
    sl_err err;
    request.sampling.seed = index;
    run_require(sl_engine_submit(model->engine, &request, NULL, &err), &err);
}

/* Makes the cost model say that rows are all that costs, and keeps it so: no step takes any time by this clock. */
static int64_t stopped_clock(void *user)
{
    (void)user;
    return 1000;
}

static void make_rows_dear(sl_engine *e)
{
    e->options.clock = stopped_clock;
    for (int i = 1; i < SL_COST_ROW_TERMS; i++)
        e->tasks.cost.m[i] *= 100;
}

static void test_beside_streams(void **state)
{
    (void)state;
    run_setup setup = {.path = models[1], .n_threads = 2, .n_sequences = N_STREAMS + 1, .no_prefix_cache = true};
    static answer alone[N_STREAMS + 1], together[N_STREAMS + 1];
    uint32_t n_layered = 0, most_parts = 0;
    run_model model = run_open(&setup);
    for (uint32_t i = 0; i <= N_STREAMS; i++) {
        submit(&model, i, &alone[i]);
        run_until_idle(&model);
    }
    make_rows_dear(model.engine);
    for (uint32_t i = 0; i < N_STREAMS; i++)
        submit(&model, i, &together[i]);
    bool busy = true;
    for (int step = 0; busy; step++) {
        sl_err err;
        if (step == 5)
            submit(&model, N_STREAMS, &together[N_STREAMS]);
        run_require(sl_engine_step(model.engine, 1000, &busy, &err), &err);
        for (const sl_sequence *s = model.engine->running; s; s = s->next) {
            n_layered += s->n_layered > 0;
            most_parts = SL_MAX(most_parts, s->n_parts_done);
        }
    }
    assert_true(n_layered > 1 && most_parts > 1); /* there were some on their way */
    assert_memory_equal(alone, together, sizeof alone);
    run_close(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_beside_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
