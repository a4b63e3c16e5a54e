/* `sluice bench`: speed of prefill and decode, beside what the machine could do at the same time. */
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/model_args.h"
#include "cli/output.h"

#include "base/clock.h"
#include "tune/limits.h"

#include <stdlib.h>
#include <unistd.h>

enum { MAX_REPETITIONS = 1000 };

static const double slice_seconds = 0.1; /* for each of the machine's figures, between repetitions */

/* Figures of one repetition, or the smallest, middle and largest of all. */
typedef struct {
    double prefill_tps, decode_tps;
    double prefill_of_limit, decode_of_limit;
} speeds;

typedef struct {
    const sl_bundle *bundle;
    sl_engine *engine;
    uint32_t n_prompt, n_decode; /* tokens */
    uint32_t *prompt;            /* n_prompt */
    uint64_t random;             /* state of the generator of prompts */
    double prefill_ops;          /* multiplications and additions of a prompt token */
    double decode_bytes;         /* read for a generated token */
    bool fp32;                   /* level exact computes in floats */
    sl_event finished;
} bench_state;

static void on_event(void *user, const sl_event *event)
{
    if (event->kind == SL_EVENT_FINISHED)
        *(sl_event *)user = *event;
}

/* Runs one request to its end; state->finished is its last event. */
static sl_status run_request(bench_state *state, uint32_t n_prompt, uint32_t max_tokens, sl_err *err)
{
    uint32_t n_vocab = sl_model_get_info(sl_bundle_model(state->bundle))->n_vocab;
    for (uint32_t i = 0; i < n_prompt; i++) {
        state->random = state->random * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
        state->prompt[i] = (uint32_t)((state->random >> 33) % n_vocab);
    }
    sl_request request = {
        .prompt = state->prompt,
        .n_prompt = n_prompt,
        .max_tokens = max_tokens, /* no stop tokens: the work is always the same */
        .sampling = sl_sample_params_default(),
        .on_event = on_event,
        .user = &state->finished,
    };
    uint64_t id;
    SL_TRY(sl_engine_submit(state->engine, &request, &id, err));
    for (bool busy = true; busy;) {
        if (sl_interrupts() > 0)
            sl_engine_cancel(state->engine, id);
        SL_TRY(sl_engine_step(state->engine, sl_clock_us(), &busy, err));
    }
    if (sl_interrupts() > 0)
        SL_FAIL(err, SL_ERR_CANCELLED, "interrupted");
    if (state->finished.finish == SL_FINISH_ERROR)
        SL_FAIL(err, state->finished.error.code, "%s", state->finished.error.message);
    return SL_OK;
}

/* Prefill and decode are requests of their own, so that one does not depend on the other's length. */
static sl_status repeat_once(bench_state *state, speeds *out, sl_err *err)
{
    SL_TRY(run_request(state, state->n_prompt, 1, err));
    out->prefill_tps = state->n_prompt * 1e6 / (double)SL_MAX(state->finished.prefill_us, 1);
    SL_TRY(run_request(state, 1, state->n_decode + 1, err));
    out->decode_tps = state->n_decode * 1e6 / (double)SL_MAX(state->finished.decode_us, 1);
    return SL_OK;
}

/* What the model's work is: every weight of a matmul takes a multiplication and an addition per prompt token (the
 * vocabulary's matrix not, it is needed for the last token only); decode reads all weights but the rows of the embedding
 * it does not look up, and the keys and values so far, half of them on average. */
static void reckon_work(bench_state *state)
{
    const sl_model_info *info = sl_model_get_info(sl_bundle_model(state->bundle));
    const sl_gguf_tensor *embedding = sl_gguf_find_tensor(sl_bundle_gguf(state->bundle), "token_embd.weight");
    double n_embedding = embedding != NULL ? (double)embedding->n_elems : 0;
    double n_matmul = (double)info->n_params - n_embedding * (info->tied_embeddings ? 1 : 2);
    state->prefill_ops = 2 * n_matmul;
    state->decode_bytes = (double)info->weight_bytes + (double)info->kv_bytes_per_token * state->n_decode / 2;
    if (!info->tied_embeddings && embedding != NULL)
        state->decode_bytes -= (double)embedding->n_bytes;
}

/* Shares of the limits that were measured right before and right after the repetition. */
static void relate(const bench_state *state, const sl_limits *before, const sl_limits *after, speeds *run)
{
    double gops =
        state->fp32 ? (before->fp32_gflops + after->fp32_gflops) / 2 : (before->int8_gops + after->int8_gops) / 2;
    double gbps = (before->dram_gbps + after->dram_gbps) / 2;
    run->prefill_of_limit = state->prefill_ops * run->prefill_tps / (gops * 1e9);
    run->decode_of_limit = state->decode_bytes * run->decode_tps / (gbps * 1e9);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Smallest, middle and largest of the n doubles that lie stride bytes apart from first on; n <= MAX_REPETITIONS + 1. */
static void find_spread(const void *first, size_t stride, size_t n, double out[3])
{
    double sorted[MAX_REPETITIONS + 1];
    for (size_t i = 0; i < n; i++)
        sorted[i] = *(const double *)((const char *)first + i * stride);
    qsort(sorted, n, sizeof(*sorted), compare_doubles);
    out[0] = sorted[0];
    out[1] = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
    out[2] = sorted[n - 1];
}

static sl_status print_result(const sl_args *args, const speeds *runs, const sl_limits *limits, size_t n, sl_err *err)
{
    double prefill[3], decode[3], prefill_share[3], decode_share[3], dram[3], int8[3], fp32[3];
    find_spread(&runs->prefill_tps, sizeof(*runs), n, prefill);
    find_spread(&runs->decode_tps, sizeof(*runs), n, decode);
    find_spread(&runs->prefill_of_limit, sizeof(*runs), n, prefill_share);
    find_spread(&runs->decode_of_limit, sizeof(*runs), n, decode_share);
    find_spread(&limits->dram_gbps, sizeof(*limits), n + 1, dram);
    find_spread(&limits->int8_gops, sizeof(*limits), n + 1, int8);
    find_spread(&limits->fp32_gflops, sizeof(*limits), n + 1, fp32);
    if (sl_args_flag(args, "json"))
        return sl_out_json(json_pack("{s:{s:f, s:f, s:f}, s:{s:f, s:f, s:f}, s:{s:f, s:f, s:f}, s:{s:f, s:f}}",
                                     "prefill_tps", "min", prefill[0], "median", prefill[1], "max", prefill[2],
                                     "decode_tps", "min", decode[0], "median", decode[1], "max", decode[2], "machine",
                                     "dram_gbps", dram[1], "int8_gops", int8[1], "fp32_gflops", fp32[1], "of_limit",
                                     "prefill", prefill_share[1], "decode", decode_share[1]),
                           err);
    sl_out_printf("%-10s %10s %10s %10s   of the machine's limit\n", "tokens/s", "min", "median", "max");
    sl_out_printf("%-10s %10.1f %10.1f %10.1f   %5.1f%%\n", "prefill", prefill[0], prefill[1], prefill[2],
                  100 * prefill_share[1]);
    sl_out_printf("%-10s %10.1f %10.1f %10.1f   %5.1f%%\n", "decode", decode[0], decode[1], decode[2],
                  100 * decode_share[1]);
    sl_out_printf("machine: memory %.1f GB/s, int8 %.0f Gop/s, fp32 %.0f Gflop/s\n", dram[1], int8[1], fp32[1]);
    return SL_OK;
}

static sl_status measure(const sl_args *args, bench_state *state, sl_limits_probe *probe, speeds *runs,
                         sl_limits *limits, sl_err *err)
{
    size_t n = sl_args_uint(args, "repetitions");
    SL_TRY(repeat_once(state, &runs[0], err)); /* warm-up, written over below */
    sl_limits_slice(probe, slice_seconds, &limits[0]);
    for (size_t i = 0; i < n; i++) {
        SL_TRY(repeat_once(state, &runs[i], err));
        sl_limits_slice(probe, slice_seconds, &limits[i + 1]);
        relate(state, &limits[i], &limits[i + 1], &runs[i]);
        if (sl_is_terminal(STDERR_FILENO))
            sl_print_note("%zu of %zu: prefill %.1f, decode %.1f tokens/s", i + 1, n, runs[i].prefill_tps,
                          runs[i].decode_tps);
    }
    return print_result(args, runs, limits, n, err);
}

static sl_status open_engine(const sl_args *args, bench_state *state, sl_err *err)
{
    const sl_model *model = sl_bundle_model(state->bundle);
    uint32_t longest = sl_model_get_info(model)->context_length;
    sl_engine_options options = {.n_sequences = 1, .chunk = (uint32_t)sl_args_uint(args, "chunk")};
    state->n_prompt = (uint32_t)sl_args_uint(args, "n-prompt");
    state->n_decode = (uint32_t)sl_args_uint(args, "n-decode");
    options.context = SL_MAX(state->n_prompt + 1, state->n_decode + 2);
    if (options.context > longest)
        SL_FAIL(err, SL_ERR_LIMIT, "-p %u and -n %u do not fit into the %u tokens that this model was made for",
                state->n_prompt, state->n_decode, longest);
    state->fp32 = sl_model_plan(model)->level == SL_LEVEL_EXACT;
    state->prompt = calloc(state->n_prompt, sizeof(*state->prompt));
    if (state->prompt == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    return sl_engine_open(model, &options, sl_bundle_threads(state->bundle), &state->engine, err);
}

static sl_status run(const sl_args *args, sl_err *err)
{
    sl_bundle *bundle = NULL;
    bench_state state = {0};
    speeds *runs = calloc(MAX_REPETITIONS, sizeof(*runs));
    sl_limits *limits = calloc(MAX_REPETITIONS + 1, sizeof(*limits));
    sl_limits_probe *probe = NULL;
    sl_status status = runs != NULL && limits != NULL ? SL_OK : sl_err_set(err, SL_ERR_NOMEM, "out of memory");
    if (status == SL_OK)
        status = sl_model_args_open(args, NULL, &bundle, err);
    state.bundle = bundle;
    if (status == SL_OK)
        status = open_engine(args, &state, err);
    if (status == SL_OK)
        status = sl_limits_open(sl_bundle_threads(bundle), &probe, err);
    if (status == SL_OK) {
        reckon_work(&state);
        status = measure(args, &state, probe, runs, limits, err);
    }
    sl_limits_close(probe);
    sl_engine_close(state.engine);
    sl_bundle_close(bundle);
    free(state.prompt);
    free(runs);
    free(limits);
    return status;
}

static const sl_option options[] = {
    SL_OPT_MODEL,
    {.name = "n-prompt",
     .letter = 'p',
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 1,
     .max = 1 << 20,
     .fallback = "512",
     .help = "tokens of the prompt that prefill is measured with"},
    {.name = "n-decode",
     .letter = 'n',
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 1,
     .max = 1 << 20,
     .fallback = "128",
     .help = "tokens that decode is measured with"},
    {.name = "repetitions",
     .letter = 'r',
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 1,
     .max = MAX_REPETITIONS,
     .fallback = "3",
     .help = "repetitions, after one to warm up"},
    SL_OPT_THREADS,
    SL_OPT_CPU,
    SL_OPT_KV_TYPE,
    SL_OPT_CHUNK,
    SL_OPT_JSON,
};

const sl_command sl_cmd_bench = {
    .name = "bench",
    .summary = "measure how fast a model runs here",
    .operands = "",
    .description =
        "Prefill reads a prompt of random tokens; decode generates from one token and does not stop at the end of an "
        "answer. The machine's own limits are measured in between: prefill is compared with its arithmetic, decode "
        "with "
        "its memory bandwidth.",
    .examples = "sluice bench -m smollm2\nsluice bench -m smollm2 -p 512 -n 128 -r 3 -t 2 --json",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .run = run,
};
