/* `sluice run`: one answer, or a chat. */
#include "cli/answer_file.h"
#include "cli/chat.h"
#include "cli/commands.h"
#include "cli/generate.h"
#include "cli/input.h"
#include "cli/kv_args.h"
#include "cli/model_args.h"
#include "cli/output.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { DEFAULT_CONTEXT = 4096 };

/* "ID:VALUE" of --logit-bias, each into bias[i]. */
static sl_status parse_bias(const sl_option_value *value, sl_logit_bias *bias, sl_err *err)
{
    for (size_t i = 0; i < value->n_items; i++) {
        char id[16] = "";
        const char *item = value->items[i], *colon = strchr(item, ':');
        uint64_t token = 0;
        double amount = 0;
        if (colon != NULL && (size_t)(colon - item) < sizeof(id))
            memcpy(id, item, (size_t)(colon - item));
        if (!sl_parse_uint(id, 0, UINT32_MAX, &token) || !sl_parse_real(colon + 1, -100, 100, &amount))
            SL_FAIL(err, SL_ERR_ARGUMENT,
                    "--logit-bias takes ID:VALUE, a token id and a number from -100 to 100, not '%.40s'", item);
        bias[i] = (sl_logit_bias){.token = (uint32_t)token, .bias = (float)amount};
    }
    return SL_OK;
}

/* *bias is the caller's to free; options point to it. */
static sl_status read_options(const sl_args *args, sl_generate_options *options, sl_logit_bias **bias, sl_err *err)
{
    sl_sample_params *sampling = &options->sampling;
    *sampling = sl_sample_params_default();
    sampling->temperature = (float)sl_args_real(args, "temp");
    sampling->top_k = (uint32_t)sl_args_uint(args, "top-k");
    sampling->top_p = (float)sl_args_real(args, "top-p");
    sampling->min_p = (float)sl_args_real(args, "min-p");
    sampling->repetition_penalty = (float)sl_args_real(args, "repeat-penalty");
    sampling->presence_penalty = (float)sl_args_real(args, "presence-penalty");
    sampling->frequency_penalty = (float)sl_args_real(args, "frequency-penalty");
    sampling->seed = sl_args_uint(args, "seed");
    if (!sl_args_given(args, "seed") && getrandom(&sampling->seed, sizeof(sampling->seed), 0) < 0)
        sampling->seed = (uint64_t)sl_clock_ns();
    sampling->n_logprobs = (uint32_t)sl_args_uint(args, "logprobs");
    sampling->want_logprob = sl_args_given(args, "logprobs");
    const sl_option_value *value = sl_args_value(args, "logit-bias");
    *bias = calloc(value->n_items + 1, sizeof(**bias));
    if (*bias == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    sampling->bias = *bias;
    sampling->n_bias = value->n_items;
    options->max_tokens = sl_args_given(args, "n-predict") ? (uint32_t)sl_args_uint(args, "n-predict") : UINT32_MAX;
    options->raw = sl_args_flag(args, "raw");
    options->stream = !sl_args_flag(args, "json");
    return parse_bias(value, *bias, err);
}

/* The same for a file of requests, which has its own prompts and its own form of output. */
static sl_status check_input_usage(const sl_args *args, sl_err *err)
{
    static const char *const others[] = {"prompt", "file", "logprobs", "json", "timings"};
    for (size_t i = 0; i < SL_COUNTOF(others); i++)
        if (sl_args_given(args, others[i]))
            SL_FAIL(err, SL_ERR_ARGUMENT, "--input does not go with --%s", others[i]);
    return SL_OK;
}

/* Wrong combinations that the option table can't express. */
static sl_status check_usage(const sl_args *args, bool chat, sl_err *err)
{
    bool json = sl_args_flag(args, "json"), raw = sl_args_flag(args, "raw");
    if (sl_args_given(args, "prompt") && sl_args_given(args, "file"))
        SL_FAIL(err, SL_ERR_ARGUMENT, "run takes its prompt from --prompt or from --file, not both");
    if (sl_args_given(args, "input"))
        return check_input_usage(args, err);
    if (raw && sl_args_value(args, "system")->on_command_line)
        SL_FAIL(err, SL_ERR_ARGUMENT, "--raw has no system prompt: put it into the prompt");
    if (sl_args_given(args, "logprobs") && !json)
        SL_FAIL(err, SL_ERR_ARGUMENT, "--logprobs needs --json");
    if (chat && (json || raw || !sl_is_terminal(STDOUT_FILENO)))
        SL_FAIL(err, SL_ERR_ARGUMENT, "no prompt: give -p TEXT, -f FILE or standard input");
    return SL_OK;
}

/* Tokens of the prompt: the plain text, or a conversation of system prompt and text in the model's template. */
static sl_status prompt_tokens(const sl_args *args, const sl_bundle *bundle, sl_bytes text, sl_tokens *out, sl_err *err)
{
    if (sl_args_flag(args, "raw"))
        return sl_bundle_text_tokens(bundle, text.bytes, text.n_bytes, out, err);
    if (text.n_bytes > 0 && text.bytes[text.n_bytes - 1] == '\n')
        text.n_bytes--; /* the end of a line, not part of what is said */
    if (text.n_bytes == 0)
        SL_FAIL(err, SL_ERR_LIMIT, "the prompt is empty: give some text");
    sl_message messages[2];
    size_t n = 0;
    const char *system = sl_args_text(args, "system");
    if (system != NULL)
        messages[n++] = (sl_message){.role = "system", .content = {system, strlen(system)}};
    messages[n++] = (sl_message){.role = "user", .content = text};
    return sl_bundle_chat_tokens(bundle, messages, n, out, err);
}

static json_t *logprobs_to_json(const sl_answer *answer)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < answer->n_generated; i++) {
        const sl_sampled *sampled = &answer->sampled[i];
        json_t *top = json_array();
        for (uint32_t k = 0; k < sampled->n_top; k++)
            json_array_append_new(top, json_pack("{s:I, s:o}", "id", (json_int_t)sampled->top[k].token, "logprob",
                                                 sl_json_logprob(sampled->top[k].logprob)));
        json_array_append_new(list, json_pack("{s:I, s:o, s:o}", "id", (json_int_t)sampled->token, "logprob",
                                              sl_json_logprob(sampled->logprob), "top", top));
    }
    return list;
}

static sl_status print_json(const sl_args *args, const sl_answer *answer, double load_ms, sl_err *err)
{
    json_t *tokens = json_array();
    for (uint32_t i = 0; i < answer->n_generated; i++)
        json_array_append_new(tokens, json_integer(answer->sampled[i].token));
    json_t *timings =
        json_pack("{s:f, s:f, s:f, s:f, s:f}", "load_ms", load_ms, "prefill_ms", (double)answer->prefill_us / 1e3,
                  "prefill_tps", sl_answer_prefill_tps(answer), "decode_ms", (double)answer->decode_us / 1e3,
                  "decode_tps", sl_answer_decode_tps(answer));
    json_t *root = json_pack("{s:o, s:I, s:I, s:s, s:o, s:o}", "text",
                             sl_json_text(answer->n_bytes > 0 ? answer->text : "", answer->n_bytes), "prompt_tokens",
                             (json_int_t)answer->n_prompt, "completion_tokens", (json_int_t)answer->n_generated,
                             "finish_reason", sl_finish_name(answer->finish), "tokens", tokens, "timings", timings);
    if (sl_args_given(args, "logprobs"))
        json_object_set_new(root, "logprobs", logprobs_to_json(answer));
    return sl_out_json(root, err);
}

/* One prompt, one answer. */
static sl_status answer_once(const sl_args *args, const sl_bundle *bundle, sl_engine *engine,
                             const sl_generate_options *options, sl_bytes text, double load_ms, sl_err *err)
{
    sl_tokens prompt = {0};
    sl_answer answer = {0};
    sl_status status = prompt_tokens(args, bundle, text, &prompt, err);
    if (status == SL_OK)
        status = sl_generate(bundle, engine, &prompt, options, &answer, err);
    if (options->stream && answer.n_bytes > 0)
        sl_out_text("\n");
    sl_out_flush();
    if (status == SL_OK && !options->stream)
        status = print_json(args, &answer, load_ms, err);
    if (status == SL_OK && sl_args_flag(args, "timings"))
        sl_print_timings(&answer);
    if (status == SL_OK && answer.finish == SL_FINISH_CANCELLED && !sl_out_failed())
        status = sl_err_set(err, SL_ERR_CANCELLED, "interrupted");
    sl_answer_free(&answer);
    sl_tokens_free(&prompt);
    return status;
}

/* Most tokens of a request, prompt and answer. */
static sl_status read_context(const sl_args *args, const sl_bundle *bundle, uint32_t *out, sl_err *err)
{
    uint32_t longest = sl_model_get_info(sl_bundle_model(bundle))->context_length;
    *out = sl_args_given(args, "ctx") ? (uint32_t)sl_args_uint(args, "ctx") : SL_MIN(DEFAULT_CONTEXT, longest);
    if (*out > longest)
        SL_FAIL(err, SL_ERR_LIMIT, "--ctx %u is more than the %u tokens that this model was made for", *out, longest);
    return SL_OK;
}

static sl_status open_engine(const sl_args *args, const sl_bundle *bundle, sl_keep keep, sl_engine **out, sl_err *err)
{
    sl_engine_options options = {.chunk = (uint32_t)sl_args_uint(args, "chunk"), .n_sequences = 1, .keep = keep};
    SL_TRY(read_context(args, bundle, &options.context, err));
    return sl_bundle_open_engine(bundle, &options, out, err);
}

/* Opens model and engine and answers text, or chats when text.bytes is NULL. */
static sl_status run_model(const sl_args *args, const sl_generate_options *options, sl_keep keep, sl_bytes text,
                           sl_err *err)
{
    sl_bundle *bundle = NULL;
    sl_engine *engine = NULL;
    int64_t start_us = sl_clock_us();
    sl_status status = sl_model_args_open(args, NULL, &bundle, err);
    if (status == SL_OK)
        status = open_engine(args, bundle, keep, &engine, err);
    double load_ms = (double)(sl_clock_us() - start_us) / 1e3;
    if (status == SL_OK && text.bytes != NULL)
        status = answer_once(args, bundle, engine, options, text, load_ms, err);
    else if (status == SL_OK)
        status = sl_chat(bundle, engine, sl_args_text(args, "system"), sl_args_flag(args, "timings"), options, err);
    sl_bundle_close_engine(bundle, engine);
    sl_bundle_close(bundle);
    return status;
}

/* Answers a file of requests. */
static sl_status run_input(const sl_args *args, const sl_generate_options *defaults, sl_keep keep, sl_err *err)
{
    sl_bundle *bundle = NULL;
    sl_input input = {0};
    sl_answer_file_options options = {.defaults = defaults,
                                      .system = sl_args_text(args, "system"),
                                      .keep = keep,
                                      .chunk = (uint32_t)sl_args_uint(args, "chunk"),
                                      .n_parallel = (uint32_t)sl_args_uint(args, "parallel")};
    sl_status status = sl_input_read(sl_args_text(args, "input"), &input, err);
    if (status == SL_OK)
        status = sl_model_args_open(args, NULL, &bundle, err);
    if (status == SL_OK)
        status = read_context(args, bundle, &options.context, err);
    if (status == SL_OK)
        status = sl_answer_file(bundle, &input, &options, err);
    sl_bundle_close(bundle);
    sl_input_free(&input);
    return status;
}

static sl_status run(const sl_args *args, sl_err *err)
{
    const char *prompt = sl_args_text(args, "prompt"), *file = sl_args_text(args, "file");
    bool batch = sl_args_given(args, "input");
    bool chat = prompt == NULL && file == NULL && !batch && sl_is_terminal(STDIN_FILENO);
    sl_generate_options options = {0};
    sl_logit_bias *bias = NULL;
    sl_input input = {0};
    sl_keep keep;
    SL_TRY(check_usage(args, chat, err));
    SL_TRY(sl_kv_args_keep(args, &keep, err));
    sl_status status = read_options(args, &options, &bias, err);
    if (status == SL_OK && prompt == NULL && !chat && !batch)
        status = sl_input_read(file != NULL ? file : "-", &input, err);
    sl_bytes text = {input.bytes, input.n_bytes};
    if (prompt != NULL)
        text = (sl_bytes){prompt, strlen(prompt)};
    if (status == SL_OK)
        status = batch ? run_input(args, &options, keep, err) : run_model(args, &options, keep, text, err);
    sl_input_free(&input);
    free(bias);
    return status;
}

#define SAMPLING(option, low_, high_, default_, text)                                                                  \
    {                                                                                                                  \
        .name = option, .kind = SL_OPTION_REAL, .flags = SL_OPTION_SETTING, .argument = "X", .low = low_,              \
        .high = high_, .fallback = default_, .help = text                                                              \
    }

static const sl_option options[] = {
    SL_OPT_MODEL,
    {.name = "prompt", .letter = 'p', .kind = SL_OPTION_TEXT, .argument = "TEXT", .help = "answer this and end"},
    {.name = "file",
     .letter = 'f',
     .kind = SL_OPTION_TEXT,
     .argument = "FILE",
     .help = "answer the text in FILE and end; - is standard input",
     .complete = SL_COMPLETE_FILE},
    {.name = "input",
     .kind = SL_OPTION_TEXT,
     .argument = "FILE",
     .help = "answer a file of requests together, one JSON object a line; - is standard input",
     .complete = SL_COMPLETE_FILE},
    {.name = "parallel",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "N",
     .min = 1,
     .max = 1024,
     .fallback = "8",
     .help = "with --input: most requests worked on at once"},
    {.name = "system",
     .kind = SL_OPTION_TEXT,
     .flags = SL_OPTION_SETTING,
     .argument = "TEXT",
     .help = "system prompt: what the model is told before the conversation"},
    {.name = "raw", .kind = SL_OPTION_FLAG, .help = "continue the prompt as plain text, without the chat template"},
    {.name = "n-predict",
     .letter = 'n',
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "N",
     .min = 1,
     .max = 1 << 24,
     .help = "most tokens of an answer; without it, until the model ends or the context is full"},
    {.name = "ctx",
     .letter = 'c',
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "N",
     .min = 1,
     .max = 1 << 24,
     .help = "context, prompt and answer together, in tokens; without it, 4096 or the model's own if that is less"},
    SAMPLING("temp", 0, 100, "0.7", "temperature: 0 always takes the likeliest token, higher is more varied"),
    {.name = "top-k",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "N",
     .max = 1 << 24,
     .fallback = "40",
     .help = "choose among the N likeliest tokens; 0 = all"},
    SAMPLING("top-p", 0, 1, "0.95", "choose among the likeliest tokens that together have this probability; 1 = all"),
    SAMPLING("min-p", 0, 1, "0.05", "leave out tokens less likely than this part of the likeliest; 0 = none"),
    SAMPLING("repeat-penalty", 0.01, 100, "1", "make every token of the context less likely; 1 = off"),
    SAMPLING("presence-penalty", -2, 2, "0", "subtract from the logit of tokens in the answer, once; 0 = off"),
    SAMPLING("frequency-penalty", -2, 2, "0", "subtract from the logit of tokens in the answer, each time; 0 = off"),
    {.name = "logit-bias",
     .kind = SL_OPTION_TEXT,
     .flags = SL_OPTION_REPEATED,
     .argument = "ID:VALUE",
     .help = "add VALUE, -100 to 100, to the logit of the token ID"},
    {.name = "seed",
     .kind = SL_OPTION_UINT,
     .flags = SL_OPTION_SETTING,
     .argument = "N",
     .max = UINT64_MAX,
     .help = "seed of the random choices; the same seed gives the same answer; without it, a new one each time"},
    {.name = "logprobs",
     .kind = SL_OPTION_UINT,
     .argument = "K",
     .max = SL_MAX_LOGPROBS,
     .help = "with --json: log-probabilities of each token and of the K likeliest"},
    SL_OPTS_THREADS,
    SL_OPT_LEVEL,
    SL_OPTS_CACHE,
    SL_OPT_KV_TYPE,
    SL_OPT_KV_KEEP,
    SL_OPT_CHUNK,
    {.name = "timings", .kind = SL_OPTION_FLAG, .help = "print speeds on standard error after each answer"},
    SL_OPT_JSON,
};

const sl_command sl_cmd_run = {
    .name = "run",
    .summary = "answer a prompt, or chat",
    .operands = "",
    .description =
        "With --prompt, --file or something on standard input, prints one answer as it comes and ends. On a terminal "
        "without any of these, chats: /help lists its commands, Ctrl-C stops an answer, Ctrl-D quits.\n\n"
        "--raw takes the bytes of the prompt as they are; otherwise the prompt is a message in the model's chat "
        "template, "
        "and one line end behind it is dropped.\n\n"
        "--input takes a file with a JSON object on each line: prompt (a text, used like --prompt) or messages (a list "
        "of "
        "role and content), and optionally id, max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, "
        "presence_penalty, frequency_penalty, seed, stop, logit_bias; what a line leaves out is as the options say. "
        "Each "
        "line "
        "gives one line of output, in order: id, line, text, prompt_tokens, completion_tokens, finish_reason. A bad "
        "line "
        "gives its id and an error instead, the others are answered, and the exit code is 1 at the end.",
    .examples = "sluice run -m smollm2\nsluice run -m smollm2 -p 'Why is the sky blue?'\n"
                "sluice run -m smollm2 --raw --temp 0 -n 20 -p 'Once upon a time'\n"
                "git diff | sluice run -m smollm2 --system 'Summarise this change.' --json\n"
                "sluice run -m smollm2 --input requests.jsonl --temp 0 > answers.jsonl",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .run = run,
};
