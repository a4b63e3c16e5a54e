/* --kv-memory, and what is chosen without it; --kv-keep. */
#ifndef SL_CLI_KV_ARGS_H
#define SL_CLI_KV_ARGS_H

#include "app/bundle.h"
#include "cli/options.h"
#include "engine/engine.h"

#define SL_OPT_KV_MEMORY                                                                                               \
    {                                                                                                                  \
        .name = "kv-memory", .kind = SL_OPTION_UINT, .flags = SL_OPTION_SETTING, .argument = "MB", .min = 1,           \
        .max = 1000000000,                                                                                             \
        .help = "megabytes for keys and values, which all requests share, else what they can need, but at most "       \
                "three quarters of the free memory"                                                                    \
    }

#define SL_OPT_KV_KEEP                                                                                                 \
    {                                                                                                                  \
        .name = "kv-keep", .kind = SL_OPTION_TEXT, .flags = SL_OPTION_SETTING, .argument = "S+W[+M]",                  \
        .help =                                                                                                        \
            "of a text keep only the keys and values of the first S tokens, the last W and, of those between, the "    \
            "M with the most attention, for bounded memory at some cost in quality; whole blocks of 16, given up "     \
            "every 128 tokens"                                                                                         \
    }

/* What --kv-keep says; all 0 without it. SL_ERR_ARGUMENT, with the form that is wanted. */
SL_WARN_UNUSED sl_status sl_kv_args_keep(const sl_args *args, sl_keep *out, sl_err *err);

/* Sets options->kv_bytes, and says in *out how it was chosen: as --kv-memory says, else by sl_engine_choose_kv.
 * free_bytes: sl_memory_free() before the model's weights were opened; the weights are taken off here, since those that
 * are mapped count as free. */
SL_WARN_UNUSED sl_status sl_kv_args_choose(const sl_args *args, const sl_model *model, int n_threads,
                                           uint64_t free_bytes, sl_engine_options *options, sl_kv_choice *out,
                                           sl_err *err);

enum { SL_KV_CHOICE_TEXT = 192 };

/* The choice in one line. Returns out. */
const char *sl_kv_choice_text(const sl_kv_choice *choice, char out[SL_KV_CHOICE_TEXT]);

#endif
