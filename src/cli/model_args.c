#include "cli/model_args.h"

#include "base/cpu.h"
#include "cli/progress.h"
#include "file/store.h"

#include <stdlib.h>
#include <string.h>

const char *const sl_level_choices[] = {"exact", "ref", "avx2", "avxvnni", "avx512", "avx512vnni", NULL};
const char *const sl_kv_type_choices[] = {"f16", "f32", "bf16", "q8", "int8", "k8v4", NULL};

sl_status sl_model_args_path(const sl_args *args, const char *word, char **out, sl_err *err)
{
    if (word == NULL)
        word = sl_args_text(args, "model");
    if (word == NULL)
        SL_FAIL(err, SL_ERR_ARGUMENT,
                "no model given: 'sluice pull smollm2' brings one, then 'sluice %s -m smollm2' uses it",
                args->command->name);
    return sl_store_resolve(NULL, word, out, err);
}

sl_status sl_model_args_options(const sl_args *args, const char *level, sl_bundle_options *out, sl_err *err)
{
    *out = sl_bundle_options_default();
    out->n_threads = (int)sl_args_uint(args, "threads");
    out->pin = sl_args_flag(args, "pin");
    if (!sl_kv_type_parse(sl_args_text(args, "kv-type"), &out->model.kv_type))
        SL_FAIL(err, SL_ERR_ARGUMENT, "unknown KV type '%s'", sl_args_text(args, "kv-type"));
    return sl_level_choose(level != NULL ? level : sl_args_text(args, "level"), &out->model.level, err);
}

/* The cache of packed weights, as the command's options want it. */
static sl_pack_cache_options cache_options(const sl_args *args)
{
    return (sl_pack_cache_options){.enabled = !sl_args_flag(args, "no-cache"),
                                   .verify = sl_args_flag(args, "verify"),
                                   .max_bytes = sl_args_uint(args, "cache-size") * 1000000};
}

/* Opens the model of word with options; progress is drawn while weights are packed. */
static sl_status open_bundle(const sl_args *args, const char *word, sl_bundle_options *options, sl_bundle **out,
                             sl_err *err)
{
    char *path = NULL;
    sl_progress progress;
    SL_TRY(sl_model_args_path(args, word, &path, err));
    options->model.progress = sl_progress_update;
    options->model.progress_user = &progress;
    sl_progress_start(&progress, "loading");
    sl_status status = sl_bundle_open(path, options, out, err);
    sl_progress_finish(&progress);
    free(path);
    return status;
}

sl_status sl_model_args_open_as(const sl_args *args, const char *word, const sl_bundle_options *options,
                                sl_bundle **out, sl_err *err)
{
    sl_bundle_options with_cache = *options;
    with_cache.model.cache = cache_options(args);
    return open_bundle(args, word, &with_cache, out, err);
}

sl_status sl_model_args_open(const sl_args *args, const char *level, sl_bundle **out, sl_err *err)
{
    sl_bundle_options options;
    SL_TRY(sl_model_args_options(args, level, &options, err));
    return sl_model_args_open_as(args, NULL, &options, out, err);
}

sl_status sl_model_args_open_text(const sl_args *args, sl_bundle **out, sl_err *err)
{
    sl_bundle_options options = sl_bundle_options_default();
    options.flags = SL_BUNDLE_TEXT_ONLY;
    return open_bundle(args, NULL, &options, out, err);
}
