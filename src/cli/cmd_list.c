#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/output.h"
#include "file/pull.h"
#include "file/store.h"

#include <string.h>

/* Models that are here. */
static sl_status list_pulled(bool json, bool names, sl_err *err)
{
    sl_store_model *models = NULL;
    size_t n_models = 0;
    char bytes[32];
    SL_TRY(sl_store_list(NULL, &models, &n_models, err));
    json_t *list = json ? json_array() : NULL;
    for (size_t i = 0; i < n_models; i++) {
        const sl_store_model *model = &models[i];
        if (json)
            json_array_append_new(list, json_pack("{s:s, s:o, s:I}", "name", model->name, "path",
                                                  sl_json_text(model->path, strlen(model->path)), "bytes",
                                                  (json_int_t)model->n_bytes));
        else if (names)
            sl_out_printf("%s\n", model->name);
        else
            sl_out_printf("%-24s %10s  %s\n", model->name, sl_format_bytes(model->n_bytes, bytes), model->path);
    }
    if (n_models == 0 && !json && !names)
        sl_print_note("no models yet: 'sluice pull smollm2' brings one");
    sl_store_list_free(models, n_models);
    return json ? sl_out_json(list, err) : SL_OK;
}

/* Models that can be pulled. */
static sl_status list_available(bool json, bool names, sl_err *err)
{
    size_t n_specs;
    const sl_pull_spec *specs = sl_pull_specs(&n_specs);
    char bytes[32];
    json_t *list = json ? json_array() : NULL;
    for (size_t i = 0; i < n_specs; i++) {
        const sl_pull_spec *spec = &specs[i];
        if (json)
            json_array_append_new(list, json_pack("{s:s, s:I, s:s}", "name", spec->name, "bytes",
                                                  (json_int_t)spec->n_bytes, "licence", spec->licence));
        else if (names)
            sl_out_printf("%s\n", spec->name);
        else
            sl_out_printf("%-24s %10s  %s\n", spec->name, sl_format_bytes(spec->n_bytes, bytes), spec->licence);
    }
    return json ? sl_out_json(list, err) : SL_OK;
}

static sl_status run(const sl_args *args, sl_err *err)
{
    bool json = sl_args_flag(args, "json"), names = sl_args_flag(args, "names");
    if (json && names)
        SL_FAIL(err, SL_ERR_ARGUMENT, "list takes --json or --names, not both");
    return sl_args_flag(args, "available") ? list_available(json, names, err) : list_pulled(json, names, err);
}

static const sl_option options[] = {
    {.name = "available", .kind = SL_OPTION_FLAG, .help = "the models that can be pulled instead"},
    {.name = "names", .kind = SL_OPTION_FLAG, .help = "names only, one a line"},
    SL_OPT_JSON,
};

const sl_command sl_cmd_list = {
    .name = "list",
    .summary = "list the models that were pulled",
    .operands = "",
    .description = "",
    .examples = "sluice list\nsluice list --available",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .run = run,
};
