#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/output.h"
#include "file/store.h"

static sl_status run(const sl_args *args, sl_err *err)
{
    json_t *list = json_array();
    sl_status status = SL_OK;
    for (int i = 0; i < args->n_operands && status == SL_OK; i++) {
        status = sl_store_remove(NULL, args->operands[i], err);
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
    .description = "",
    .examples = "sluice rm gemma3-270m",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .min_operands = 1,
    .max_operands = 64,
    .complete = SL_COMPLETE_PULLED,
    .run = run,
};
