#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/output.h"
#include "file/store.h"

/* Removes a model, and what the cache keeps of it. */
static sl_status remove_model(const char *name, sl_err *err)
{
    sl_pack_cache_options cache = {.enabled = true};
    char prefix[64] = "", *path = NULL;
    sl_gguf *gguf = NULL;
    /* A model that can't be read has nothing in the cache that could be found. */
    if (sl_store_find(NULL, name, &path, NULL) == SL_OK && path != NULL &&
        sl_gguf_open(path, SL_GGUF_HEADER_ONLY, &gguf, NULL) == SL_OK &&
        sl_weights_cache_prefix(gguf, prefix, NULL) != SL_OK)
        prefix[0] = 0;
    sl_gguf_close(gguf);
    free(path);
    SL_TRY(sl_store_remove(NULL, name, err));
    if (prefix[0])
        sl_pack_cache_remove(&cache, prefix);
    return SL_OK;
}

static sl_status run(const sl_args *args, sl_err *err)
{
    json_t *list = json_array();
    sl_status status = SL_OK;
    for (int i = 0; i < args->n_operands && status == SL_OK; i++) {
        status = remove_model(args->operands[i], err);
        if (status == SL_OK)
            json_array_append_new(list, json_string(args->operands[i]));
    }
    if (sl_args_flag(args, "json")) {
        sl_status printed = sl_out_json(json_pack("{s:o}", "removed", list), status == SL_OK ? err : NULL);
        return status != SL_OK ? status : printed;
    }
    json_decref(list);
    return status;
}

static const sl_option options[] = {SL_OPT_JSON};

const sl_command sl_cmd_rm = {
    .name = "rm",
    .summary = "remove pulled models",
    .operands = "NAME...",
    .description = "Their packed weights leave the cache as well.",
    .examples = "sluice rm gemma3-270m",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .min_operands = 1,
    .max_operands = 64,
    .complete = SL_COMPLETE_PULLED,
    .run = run,
};
