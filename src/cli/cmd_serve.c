/* `sluice serve`: a model behind an HTTP API. */
#include "base/cpu.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/kv_args.h"
#include "cli/model_args.h"
#include "cli/output.h"
#include "serve/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CONTEXT = 4096, MAX_PARALLEL = 1024 };

/* What requests call the model: the name it was pulled by, or its file's name without the ending. */
static void model_name(const char *word, char *out, size_t n_out)
{
    const char *slash = strrchr(word, '/');
    snprintf(out, n_out, "%s", slash ? slash + 1 : word);
    char *dot = strrchr(out, '.');
    if (dot && dot != out && strcmp(dot, ".gguf") == 0)
        *dot = '\0';
}

static const char *const poolings[] = {"mean", "last", "cls", NULL}; /* from SL_POOLING_MEAN on */

/* So many that a body which takes long holds nobody else up; a quarter of the CPUs, as they compute only while bodies come in,
 * beside the kernels' threads. */
static uint32_t text_threads(const sl_args *args)
{
    uint32_t quarter = (uint32_t)sl_cpu_count() / 4;
    return sl_args_given(args, "text-threads") ? (uint32_t)sl_args_uint(args, "text-threads")
                                               : SL_MIN(SL_MAX(quarter, 2), 4);
}

static sl_status read_options(const sl_args *args, const sl_bundle *bundle, uint64_t free_bytes,
                              sl_server_options *options, sl_kv_choice *kv, sl_err *err)
{
    uint32_t longest = sl_model_get_info(sl_bundle_model(bundle))->context_length;
    const sl_option_value *aliases = sl_args_value(args, "alias");
    sl_engine_options *engine = &options->service.engine;
    *options = (sl_server_options){.host = sl_args_text(args, "host"),
                                   .port = (uint16_t)sl_args_uint(args, "port"),
                                   .aliases = aliases->items,
                                   .n_aliases = aliases->n_items,
                                   .no_auth = sl_args_flag(args, "no-auth"),
                                   .max_body = (size_t)sl_args_uint(args, "max-body") * 1000000,
                                   .max_answers = (size_t)sl_args_uint(args, "answer-memory") * 1000000,
                                   .n_text_threads = text_threads(args),
                                   .service = {.max_tickets = (uint32_t)sl_args_uint(args, "max-requests"),
                                               .event_bytes = (uint32_t)sl_args_uint(args, "client-buffer") * 1000,
                                               .pin = sl_args_flag(args, "pin")}};
    options->client_s = (uint32_t)sl_args_uint(args, "client-timeout");
    options->keep_alive_s = (uint32_t)sl_args_uint(args, "keep-alive");
    options->drain_s = (uint32_t)sl_args_uint(args, "drain-timeout");
    for (int i = 0; sl_args_given(args, "pooling") && poolings[i]; i++)
        if (strcmp(sl_args_text(args, "pooling"), poolings[i]) == 0)
            options->pooling = (sl_pooling)(SL_POOLING_MEAN + i);
    engine->n_sequences = (uint32_t)sl_args_uint(args, "parallel");
    engine->chunk = (uint32_t)sl_args_uint(args, "chunk");
    engine->context =
        sl_args_given(args, "ctx") ? (uint32_t)sl_args_uint(args, "ctx") : SL_MIN(DEFAULT_CONTEXT, longest);
    if (engine->context > longest)
        SL_FAIL(err, SL_ERR_LIMIT, "--ctx %u is more than the %u tokens that this model was made for", engine->context,
                longest);
    SL_TRY(sl_kv_args_choose(args, sl_bundle_model(bundle), sl_threads_count(sl_bundle_threads(bundle)), free_bytes,
                             engine, kv, err));
    return sl_service_fit_context(bundle, engine, err);
}

static sl_status serve(const sl_args *args, const sl_bundle *bundle, const sl_keys *keys, uint64_t free_bytes,
                       sl_err *err)
{
    char name[256], kv_text[SL_KV_CHOICE_TEXT];
    sl_kv_choice kv;
    sl_server_options options;
    sl_server *server = NULL;
    model_name(sl_args_text(args, "model"), name, sizeof name);
    SL_TRY(read_options(args, bundle, free_bytes, &options, &kv, err));
    options.model = name;
    options.keys = keys;
    SL_TRY(sl_server_open(bundle, &options, &server, err));
    sl_print_note("ready: http://%s/v1 serves %s, %u requests at a time, %u tokens each. %s", sl_server_address(server),
                  name, options.service.engine.n_sequences, options.service.engine.context,
                  sl_kv_choice_text(&kv, kv_text));
    sl_status status = sl_server_run(server, err);
    sl_server_close(server);
    return status;
}

/* --pin is left to the thread that will run the engine. */
static sl_status open_bundle(const sl_args *args, sl_bundle **out, sl_err *err)
{
    sl_bundle_options options;
    SL_TRY(sl_model_args_options(args, NULL, &options, err));
    options.pin = false;
    return sl_model_args_open_as(args, NULL, &options, out, err);
}

static sl_status run(const sl_args *args, sl_err *err)
{
    const char *key_file = sl_args_text(args, "api-key-file");
    sl_keys *keys = NULL;
    sl_bundle *bundle = NULL;
    uint64_t free_bytes = sl_memory_free();
    if (key_file && sl_args_flag(args, "no-auth"))
        SL_FAIL(err, SL_ERR_ARGUMENT, "serve takes --api-key-file or --no-auth, not both");
    sl_status status = key_file ? sl_keys_open(key_file, &keys, err) : SL_OK;
    if (status == SL_OK)
        status = open_bundle(args, &bundle, err);
    if (status == SL_OK)
        status = serve(args, bundle, keys, free_bytes, err);
    sl_bundle_close(bundle);
    sl_keys_close(keys);
    return status;
}

static const sl_option options[] = {
    SL_OPT_MODEL,
    {.name = "host",
     .kind = SL_OPTION_TEXT,
     .flags = SL_OPTION_SETTING,
     .argument = "ADDRESS",
     .fallback = "127.0.0.1",
     .help = "where to listen; one that other machines can reach needs --api-key-file or --no-auth"},
    {.name = "port",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "N",
     .max = 65535,
     .fallback = "8080",
     .help = "port to listen at; 0 = any free one"},
    {.name = "api-key-file",
     .kind = SL_OPTION_TEXT,
     .flags = SL_OPTION_SETTING,
     .argument = "FILE",
     .help = "keys that clients must give, one a line",
     .complete = SL_COMPLETE_FILE},
    {.name = "no-auth",
     .kind = SL_OPTION_FLAG,
     .flags = SL_OPTION_SETTING,
     .help = "let anybody who reaches the address use it"},
    {.name = "alias",
     .kind = SL_OPTION_TEXT,
     .flags = SL_OPTION_REPEATED,
     .argument = "NAME",
     .help = "a further name by which requests may call the model"},
    {.name = "ctx",
     .letter = 'c',
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "N",
     .min = 2,
     .max = 1 << 24,
     .help = "most tokens of a request, prompt and answer together; without it, 4096 or the model's own if less"},
    {.name = "parallel",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "N",
     .min = 1,
     .max = MAX_PARALLEL,
     .fallback = "16",
     .help = "most requests worked on at once"},
    SL_OPT_KV_MEMORY,
    {.name = "max-requests",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "N",
     .min = 1,
     .max = 65536,
     .fallback = "512",
     .help = "most requests there may be, those that wait included; further ones get 429"},
    {.name = "client-buffer",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "KB",
     .min = 1,
     .max = 1000000,
     .fallback = "64",
     .help = "kilobytes of an answer that may wait for a client that does not read; then it is cut off"},
    {.name = "client-timeout",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "S",
     .min = 1,
     .max = 86400,
     .fallback = "60",
     .help = "most seconds a client may take to send a request, or to take nothing of its answer"},
    {.name = "keep-alive",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "S",
     .min = 1,
     .max = 86400,
     .fallback = "10",
     .help = "seconds after which a stream that has nothing to say yet gets a comment line"},
    {.name = "drain-timeout",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "S",
     .min = 1,
     .max = 86400,
     .fallback = "30",
     .help = "most seconds for what still runs after SIGTERM or Ctrl-C; then it is cut off, and the exit code is 1"},
    {.name = "pooling",
     .kind = SL_OPTION_CHOICE,
     .flags = SL_OPTION_SETTING,
     .argument = "KIND",
     .choices = poolings,
     .help = "how embeddings are made of the tokens' states; without it, as the model's file says, else mean"},
    {.name = "max-body",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "MB",
     .min = 1,
     .max = 200,
     .fallback = "16",
     .help = "most megabytes of a request"},
    {.name = "answer-memory",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "MB",
     .min = 1,
     .max = 1000000,
     .fallback = "256",
     .help = "most megabytes of all answers that are not streamed, while they are made; beyond that, 503"},
    {.name = "text-threads",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "N",
     .min = 1,
     .max = 64,
     .help = "threads that read requests and make tokens of them; without it, a quarter of the CPUs, but 2 to 4"},
    SL_OPTS_THREADS,
    SL_OPT_LEVEL,
    SL_OPTS_CACHE,
    SL_OPT_KV_TYPE,
    SL_OPT_CHUNK,
};

const sl_command sl_cmd_serve = {
    .name = "serve",
    .summary = "answer over HTTP, as OpenAI's API does",
    .operands = "",
    .description =
        "Serves /v1/chat/completions, /v1/completions, /v1/embeddings and /v1/models as OpenAI's clients expect them, "
        "and /health and /metrics. Says in one line on standard error when it is ready.\n\n"
        "SIGTERM or Ctrl-C lets the requests that run end, for --drain-timeout at most, and refuses new ones; a second "
        "one ends at once.",
    .examples = "sluice serve -m smollm2\n"
                "sluice serve -m smollm2 --host 0.0.0.0 --api-key-file keys.txt --parallel 32\n"
                "curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 20}'",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .run = run,
};
