/* `sluice bench techniques`: what each technique brings, on this model and machine. */
#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/output.h"
#include "cli/techniques.h"

#include <stdlib.h>

static sl_status read_models(sl_techniques *t, sl_err *err)
{
    const sl_option_value *value = sl_args_value(t->args, "model");
    if (value->n_items > SL_TECHNIQUE_MAX_MODELS)
        SL_FAIL(err, SL_ERR_ARGUMENT, "at most %d models can be compared", SL_TECHNIQUE_MAX_MODELS);
    for (size_t i = 0; i < value->n_items; i++)
        t->models[t->n_models++] = value->items[i];
    if (t->n_models == 0) /* from the environment or the config file */
        t->models[t->n_models++] = value->text;
    for (size_t i = 0; i < t->n_models; i++) { /* a missing file is told of before minutes have passed */
        char *path = NULL;
        SL_TRY(sl_model_args_path(t->args, t->models[i], &path, err));
        free(path);
    }
    return SL_OK;
}

static sl_status run(const sl_args *args, sl_err *err)
{
    sl_bundle *bundle = NULL;
    sl_bundle_options options;
    sl_techniques *t = calloc(1, sizeof(*t));
    if (t == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    t->args = args;
    t->machine = sl_machine_look();
    t->n_rounds = sl_args_uint(args, "rounds");
    t->seed = sl_args_uint(args, "seed");
    t->kv_type = sl_args_text(args, "kv-type");
    sl_status status = read_models(t, err);
    if (status == SL_OK)
        status = sl_model_args_options(args, NULL, &options, err);
    if (status == SL_OK)
        status = sl_model_args_open_as(args, t->models[0], &options, &bundle, err);
    if (status == SL_OK) {
        const sl_model_info *info = sl_model_get_info(sl_bundle_model(bundle));
        t->context = info->context_length;
        t->n_vocab = info->n_vocab;
        t->n_threads = sl_threads_count(sl_bundle_threads(bundle));
        sl_techniques_list(t);
        const sl_option_value *only = sl_args_value(args, "only");
        status = sl_techniques_keep(t, only->items, only->n_items, err);
    }
    if (status == SL_OK)
        status = sl_techniques_measure(t, err);
    if (status == SL_OK)
        status = sl_techniques_print(t, bundle, sl_args_flag(args, "json"), err);
    sl_bundle_close(bundle);
    free(t);
    return status;
}

static const sl_option options[] = {
    {.name = "model",
     .letter = 'm',
     .kind = SL_OPTION_TEXT,
     .flags = SL_OPTION_SETTING | SL_OPTION_REPEATED,
     .argument = "MODEL",
     .help = "path of a GGUF file, or the name of a pulled model; further ones are compared with the first",
     .complete = SL_COMPLETE_MODEL},
    {.name = "only",
     .kind = SL_OPTION_TEXT,
     .flags = SL_OPTION_REPEATED,
     .argument = "NAME",
     .help = "compare this technique only, as the table names it"},
    {.name = "rounds",
     .letter = 'r',
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 1,
     .max = SL_TECHNIQUE_MAX_ROUNDS,
     .fallback = "3",
     .help = "how often each comparison is made, off and on by turns"},
    {.name = "seed",
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .max = INT64_MAX,
     .fallback = "1",
     .help = "seed of prompts and traces"},
    SL_OPTS_THREADS,
    SL_OPT_LEVEL,
    SL_OPTS_CACHE,
    SL_OPT_KV_TYPE,
    SL_OPT_JSON,
};

const sl_command sl_cmd_bench_techniques = {
    .name = "bench techniques",
    .summary = "measure what each technique brings here",
    .operands = "",
    .description =
        "Measures each technique off and on with this model on this machine: speed, memory, and what it does to the "
        "answers. The two sides of a comparison run by turns, and the speed-up is the median of the rounds' ratios, "
        "with "
        "the least and the most beside it. Quality is the mean KL divergence and the perplexity on a built-in text, on "
        "against off, or how many generated tokens differ.\n\n"
        "KV cache off computes the whole sequence again for every token. Contiguous KV is played by reserving the "
        "whole "
        "context for each of two sequences, whose memory eight then share block by block. Operator fusion off switches "
        "off the passes fuse and share. The Poisson rows run at half the rate that static batching reached before (1 a "
        "second "
        "where that was left out). "
        "Weight types are compared when several models are given.",
    .examples = "sluice bench techniques -m smollm2\n"
                "sluice bench techniques -m model-q8_0.gguf -m model-q4_0.gguf -r 5 --json",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .run = run,
};
