/* `sluice bench throughput`: replays a trace of requests against the engine. */
#include "base/memory.h"
#include "cli/bench_trace.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/interrupt.h"
#include "cli/model_args.h"
#include "cli/output.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const batchings[] = {"continuous", "static", "dynamic", NULL};    /* sl_batching */
static const char *const arrivals[] = {"own", "at-once", "poisson", "bursty", NULL}; /* sl_arrivals */

static int choice_index(const sl_args *args, const char *name, const char *const *choices)
{
    int i = 0;
    while (strcmp(choices[i], sl_args_text(args, name)) != 0)
        i++;
    return i;
}

static bool is_builtin(const char *word)
{
    const char *name;
    for (size_t i = 0; (name = sl_trace_builtin(i, NULL)) != NULL; i++)
        if (strcmp(name, word) == 0)
            return true;
    return false;
}

static sl_status read_file(const sl_args *args, const char *path, sl_trace **out, sl_err *err)
{
    sl_input input;
    sl_err inner = {0};
    static const char *const builtin_only[] = {"rate", "arrivals", "burst"};
    for (size_t i = 0; i < SL_COUNTOF(builtin_only); i++)
        if (sl_args_value(args, builtin_only[i])->on_command_line)
            SL_FAIL(err, SL_ERR_ARGUMENT, "--%s changes built-in traces only: a file says itself when requests arrive",
                    builtin_only[i]);
    if (access(path, F_OK) != 0 && strcmp(path, "-") != 0)
        return sl_trace_make(path, &(sl_trace_options){0}, out, err); /* says which traces there are */
    const char *slash = strrchr(path, '/');
    SL_TRY(sl_input_read(path, &input, err));
    sl_status status =
        sl_trace_read(input.bytes, input.n_bytes, slash ? slash + 1 : path, sl_args_uint(args, "seed"), out, &inner);
    sl_input_free(&input);
    if (status != SL_OK)
        SL_FAIL(err, status, "%.80s: %.160s", path, inner.message);
    if (sl_args_given(args, "requests"))
        (*out)->n_requests = SL_MIN((*out)->n_requests, sl_args_uint(args, "requests"));
    return SL_OK;
}

static sl_status make_trace(const sl_args *args, uint32_t context, sl_trace **out, sl_err *err)
{
    sl_trace_options options = {
        .seed = sl_args_uint(args, "seed"),
        .n_requests = sl_args_uint(args, "requests"),
        .rate = sl_args_real(args, "rate"),
        .arrivals = (sl_arrivals)choice_index(args, "arrivals", arrivals),
        .burst = (uint32_t)sl_args_uint(args, "burst"),
        .max_tokens = context,
    };
    return sl_trace_make(sl_args_text(args, "trace"), &options, out, err);
}

/* Sized for the trace's longest request; one that the model cannot hold is refused when its turn comes. */
static sl_status open_engine(const sl_args *args, sl_bench_trace *bench, sl_engine **out, sl_err *err)
{
    const sl_model *model = sl_bundle_model(bench->bundle);
    sl_engine_options *options = &bench->engine;
    options->context = 2;
    for (size_t i = 0; i < bench->trace->n_requests; i++) {
        const sl_trace_request *r = &bench->trace->requests[i];
        options->context = SL_MAX(options->context, r->n_prompt + r->n_output + r->n_padding);
    }
    options->context = SL_MIN(options->context, sl_model_get_info(model)->context_length);
    sl_threads *threads = sl_bundle_threads(bench->bundle);
    sl_engine_model engine_model = sl_engine_model_of(model);
    SL_TRY(sl_kv_args_choose(args, model, sl_threads_count(threads), bench->free_bytes, options, &bench->kv, err));
    SL_TRY(sl_engine_measure(&engine_model, options, sl_threads_count(threads), &bench->memory, err));
    return sl_bundle_open_engine(bench->bundle, options, out, err);
}

static bool interrupted(void *user)
{
    (void)user;
    return sl_interrupts() > 0;
}

/* A few tokens, so that no worker sleeps and the weights are in memory when the clock starts: a full batch, for which no
 * way of batching waits. */
static sl_status warm_up(sl_bench_trace *bench, sl_err *err)
{
    sl_replay replay;
    sl_replay_options options = bench->options;
    sl_trace trace = {.n_requests = bench->engine.n_sequences};
    trace.requests = calloc(trace.n_requests, sizeof(*trace.requests));
    if (trace.requests == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < trace.n_requests; i++)
        trace.requests[i] = (sl_trace_request){.n_prompt = 1, .n_output = 1};
    options.trace = &trace;
    sl_status status = sl_replay_run(&options, &replay, err);
    sl_replay_free(&replay);
    free(trace.requests);
    return status;
}

static sl_status replay_trace(const sl_args *args, sl_bench_trace *bench, sl_err *err)
{
    sl_engine *engine = NULL;
    sl_replay replay = {0};
    bench->machine = sl_machine_look();
    sl_status status = open_engine(args, bench, &engine, err);
    bench->options.engine = engine;
    bench->options.trace = bench->trace;
    if (status == SL_OK)
        status = warm_up(bench, err);
    if (status == SL_OK)
        status = sl_replay_run(&bench->options, &replay, err);
    bench->replay = &replay;
    if (status == SL_OK)
        status = sl_bench_trace_print(bench, sl_args_flag(args, "json"), err);
    sl_replay_free(&replay);
    sl_bundle_close_engine(bench->bundle, engine);
    return status;
}

static sl_status print_traces(void)
{
    const char *summary, *name;
    for (size_t i = 0; (name = sl_trace_builtin(i, &summary)) != NULL; i++)
        sl_out_printf("%-14s %s\n", name, summary);
    return SL_OK;
}

static sl_status run(const sl_args *args, sl_err *err)
{
    sl_bundle *bundle = NULL;
    sl_trace *trace = NULL;
    if (sl_args_flag(args, "traces"))
        return print_traces();
    int batching = choice_index(args, "batching", batchings);
    if (sl_args_flag(args, "padding") && batching != SL_BATCHING_STATIC)
        SL_FAIL(err, SL_ERR_ARGUMENT, "--padding goes with --batching static");
    sl_bench_trace bench = {
        .batching = sl_args_flag(args, "padding") ? "padded static" : batchings[batching],
        .engine = {.batching = (sl_batching)batching,
                   .max_wait_us = (int64_t)(sl_args_real(args, "max-wait") * 1000),
                   .chunk = (uint32_t)sl_args_uint(args, "chunk"),
                   .n_sequences = (uint32_t)sl_args_uint(args, "parallel"),
                   .full_chunks = sl_args_flag(args, "first-come"),
                   .no_prefix_cache = sl_args_flag(args, "no-prefix-cache")},
        .options = {.ttft_target_us = (int64_t)(sl_args_real(args, "ttft-target") * 1000),
                    .itl_target_us = (int64_t)(sl_args_real(args, "itl-target") * 1000),
                    .hide_targets = sl_args_flag(args, "hide-targets") || sl_args_flag(args, "first-come"),
                    .stop = interrupted},
    };
    const char *word = sl_args_text(args, "trace");
    SL_TRY(sl_kv_args_keep(args, &bench.engine.keep, err));
    bench.free_bytes = sl_memory_free();
    sl_status status = is_builtin(word) ? SL_OK : read_file(args, word, &trace, err);
    if (status == SL_OK)
        status = sl_model_args_open(args, NULL, &bundle, err);
    if (status == SL_OK) {
        const sl_model_info *info = sl_model_get_info(sl_bundle_model(bundle));
        bench.bundle = bundle;
        bench.model = sl_args_text(args, "model");
        bench.options.n_vocab = info->n_vocab;
        bench.options.n_kv_groups = (uint32_t)sl_model_plan(sl_bundle_model(bundle))->n_groups;
        if (trace == NULL)
            status = make_trace(args, info->context_length, &trace, err);
        bench.trace = trace;
    }
    if (status == SL_OK && sl_args_flag(args, "padding"))
        status = sl_trace_pad(trace, bench.engine.n_sequences, err);
    if (status == SL_OK)
        status = replay_trace(args, &bench, err);
    sl_trace_close(trace);
    sl_bundle_close(bundle);
    return status;
}

#define TARGET(option, text)                                                                                           \
    {                                                                                                                  \
        .name = option, .kind = SL_OPTION_REAL, .argument = "MS", .low = 0, .high = 1e9, .help = text                  \
    }

static const sl_option options[] = {
    SL_OPT_MODEL,
    {.name = "trace",
     .kind = SL_OPTION_TEXT,
     .argument = "NAME|FILE",
     .fallback = "lognormal",
     .help = "a built-in trace, or a JSONL file with one request a line; - is standard input",
     .complete = SL_COMPLETE_FILE},
    {.name = "traces", .kind = SL_OPTION_FLAG, .help = "list the built-in traces and end"},
    {.name = "requests",
     .letter = 'n',
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 1,
     .max = SL_TRACE_MAX_REQUESTS,
     .help = "requests to make; of a file, the first N"},
    {.name = "rate",
     .kind = SL_OPTION_REAL,
     .argument = "X",
     .low = 0.001,
     .high = 1e6,
     .help = "requests a second; a trace whose requests come all at once becomes a Poisson stream"},
    {.name = "arrivals",
     .kind = SL_OPTION_CHOICE,
     .argument = "KIND",
     .choices = arrivals,
     .fallback = "own",
     .help = "when requests come"},
    {.name = "burst",
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 1,
     .max = SL_TRACE_MAX_REQUESTS,
     .help = "bursty arrivals: N requests come at once on average, instead of 8"},
    {.name = "seed",
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .max = INT64_MAX,
     .fallback = "1",
     .help = "seed of lengths, arrivals and tokens: the same seed is the same trace"},
    {.name = "batching",
     .kind = SL_OPTION_CHOICE,
     .argument = "KIND",
     .choices = batchings,
     .fallback = "continuous",
     .help = "how requests are put together"},
    {.name = "parallel",
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 1,
     .max = 1024,
     .fallback = "16",
     .help = "most requests worked on at once"},
    {.name = "padding",
     .kind = SL_OPTION_FLAG,
     .help = "static batching: go on computing for answers that have ended until the last one of their batch has"},
    {.name = "max-wait",
     .kind = SL_OPTION_REAL,
     .argument = "MS",
     .low = 0,
     .high = 1e9,
     .fallback = "50",
     .help = "dynamic batching: longest wait of a request for its batch to fill"},
    SL_OPT_KV_MEMORY,
    SL_OPT_KV_KEEP,
    {.name = "no-prefix-cache", .kind = SL_OPTION_FLAG, .help = "compute every prompt, whatever it shares with others"},
    TARGET("ttft-target", "what the engine aims at and goodput counts: a request's first token within MS"),
    TARGET("itl-target", "the same: 99% of the gaps between a request's tokens within MS"),
    {.name = "hide-targets",
     .kind = SL_OPTION_FLAG,
     .help =
         "count goodput by the targets without telling the engine, which then serves who comes first but still keeps "
         "prompts from holding up streams"},
    {.name = "first-come",
     .kind = SL_OPTION_FLAG,
     .help = "as --hide-targets, and prompts are computed in full chunks (--chunk): first come, first served as other "
             "engines have it"},
    SL_OPTS_THREADS,
    SL_OPT_LEVEL,
    SL_OPTS_CACHE,
    SL_OPT_KV_TYPE,
    SL_OPT_CHUNK,
    SL_OPT_JSON,
};

const sl_command sl_cmd_bench_throughput = {
    .name = "bench throughput",
    .summary = "replay a trace of requests and measure it",
    .operands = "",
    .description =
        "Replays a trace against the engine in this process, by the real clock: requests arrive when the trace says "
        "so, "
        "however busy the engine is, and their times count from then. Prompts are random tokens, answers run to their "
        "full length.\n\n"
        "TTFT is arrival to first token, ITL every gap between two tokens, TPOT a request's mean gap, e2e arrival to "
        "last token. Goodput counts the requests that met the targets. Static batching takes what waits, up to "
        "--parallel requests, dynamic batching waits until so many are there, at most --max-wait; both run a batch to "
        "the end of its longest answer before the next begins. Ended answers leave the batch, unless --padding has "
        "them "
        "computed on, as engines do that hold a batch in one tensor.\n\n"
        "A file has a JSON object a line: prompt_tokens or prompt (a list of token ids), output_tokens; optional "
        "arrival_ms, tenant, tenant_weight, priority, ttft_target_ms, itl_target_ms, prefix_group with prefix_tokens, "
        "and conversation: each further line of the same conversation is its next turn, whose prompt is what is new "
        "and whose arrival_ms counts from the end of the turn before.",
    .examples = "sluice bench throughput -m smollm2\n"
                "sluice bench throughput -m smollm2 --batching static\n"
                "sluice bench throughput -m smollm2 --trace bursty --rate 6 --ttft-target 500 --itl-target 50\n"
                "sluice bench throughput -m smollm2 --trace requests.jsonl --json",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .run = run,
};
