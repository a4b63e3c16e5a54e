/* Options that several commands share, and the model they name. */
#ifndef SL_CLI_MODEL_ARGS_H
#define SL_CLI_MODEL_ARGS_H

#include "app/bundle.h"
#include "cli/options.h"

extern const char *const sl_level_choices[];   /* names of sl_level, NULL-terminated */
extern const char *const sl_kv_type_choices[]; /* names of sl_kv_type, NULL-terminated */

/* Rows of the option tables. */
#define SL_OPT_MODEL                                                                                                   \
    {                                                                                                                  \
        .name = "model", .letter = 'm', .kind = SL_OPTION_TEXT, .flags = SL_OPTION_SETTING, .argument = "MODEL",       \
        .help = "path of a GGUF file, or the name of a pulled model", .complete = SL_COMPLETE_MODEL                    \
    }
/* Two rows: the workers. */
#define SL_OPTS_THREADS                                                                                                \
    {.name = "threads",                                                                                                \
     .letter = 't',                                                                                                    \
     .kind = SL_OPTION_UINT,                                                                                           \
     .flags = SL_OPTION_SETTING,                                                                                       \
     .argument = "N",                                                                                                  \
     .min = 0,                                                                                                         \
     .max = 1024,                                                                                                      \
     .fallback = "0",                                                                                                  \
     .help = "worker threads; 0 = as many as the CPUs this process may use"},                                          \
    {                                                                                                                  \
        .name = "pin", .kind = SL_OPTION_FLAG, .flags = SL_OPTION_SETTING,                                             \
        .help = "keep each worker on a CPU of its own; only for a machine that does nothing else"                      \
    }
#define SL_OPT_LEVEL                                                                                                   \
    {                                                                                                                  \
        .name = "level", .kind = SL_OPTION_CHOICE, .flags = SL_OPTION_SETTING, .env = "SLUICE_CPU",                    \
        .argument = "LEVEL", .choices = sl_level_choices,                                                              \
        .help = "instructions to use at most, else the best this CPU has; exact and ref are slow yardsticks"           \
    }
#define SL_OPT_KV_TYPE                                                                                                 \
    {                                                                                                                  \
        .name = "kv-type", .kind = SL_OPTION_CHOICE, .flags = SL_OPTION_SETTING, .argument = "TYPE",                   \
        .choices = sl_kv_type_choices, .fallback = "f16", .help = "number format of the attention's keys and values"   \
    }
#define SL_OPT_CHUNK                                                                                                   \
    {                                                                                                                  \
        .name = "chunk", .kind = SL_OPTION_UINT, .flags = SL_OPTION_SETTING, .argument = "N", .min = 1, .max = 4096,   \
        .fallback = "512", .help = "most prompt tokens worked on in one step"                                          \
    }
/* Three rows: the cache of packed weights. */
#define SL_OPTS_CACHE                                                                                                  \
    {.name = "no-cache",                                                                                               \
     .kind = SL_OPTION_FLAG,                                                                                           \
     .flags = SL_OPTION_SETTING,                                                                                       \
     .help = "pack the weights anew and keep nothing, instead of mapping them from the cache"},                        \
        {.name = "cache-size",                                                                                         \
         .kind = SL_OPTION_UINT,                                                                                       \
         .flags = SL_OPTION_SETTING,                                                                                   \
         .argument = "MB",                                                                                             \
         .min = 1,                                                                                                     \
         .max = 1000000000,                                                                                            \
         .help = "most megabytes of packed weights to keep, else 20000 but at most a quarter of "                      \
                 "the disk; those used longest ago go first"},                                                         \
    {                                                                                                                  \
        .name = "verify", .kind = SL_OPTION_FLAG, .help = "check all cached weights against their checksums"           \
    }
#define SL_OPT_JSON                                                                                                    \
    {                                                                                                                  \
        .name = "json", .kind = SL_OPTION_FLAG, .help = "print the result as one JSON object"                          \
    }

/* Path of the model that word (a path or a pulled name) or, when word is NULL, --model stands for; *out is the caller's
 * to free. SL_ERR_ARGUMENT when none is given, SL_ERR_NOT_FOUND when there is neither file nor pulled model of that name. */
SL_WARN_UNUSED sl_status sl_model_args_path(const sl_args *args, const char *word, char **out, sl_err *err);

/* Bundle options from --threads, --pin, --level and --kv-type; level, when not NULL, is taken instead of --level. */
SL_WARN_UNUSED sl_status sl_model_args_options(const sl_args *args, const char *level, sl_bundle_options *out,
                                               sl_err *err);

/* Opens the model of --model with a progress bar. Ctrl-C ends with SL_ERR_CANCELLED. The caller closes it. */
SL_WARN_UNUSED sl_status sl_model_args_open(const sl_args *args, const char *level, sl_bundle **out, sl_err *err);

/* The same for the model that word stands for (NULL: --model) and for options that sl_model_args_options filled and the
 * caller has changed; only the cache is taken from args. */
SL_WARN_UNUSED sl_status sl_model_args_open_as(const sl_args *args, const char *word, const sl_bundle_options *options,
                                               sl_bundle **out, sl_err *err);

/* Vocabulary and template of --model only. The caller closes it. */
SL_WARN_UNUSED sl_status sl_model_args_open_text(const sl_args *args, sl_bundle **out, sl_err *err);

#endif
