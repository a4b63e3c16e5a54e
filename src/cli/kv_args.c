#include "cli/kv_args.h"

#include "cli/output.h"

#include <stdio.h>

sl_status sl_kv_args_choose(const sl_args *args, const sl_model *model, int n_threads, uint64_t free_bytes,
                            sl_engine_options *options, sl_kv_choice *out, sl_err *err)
{
    sl_engine_model engine_model = sl_engine_model_of(model);
    uint64_t weights = sl_model_get_info(model)->packed_bytes;
    options->kv_bytes = sl_args_uint(args, "kv-memory") * 1000000;
    return sl_engine_choose_kv(&engine_model, options, n_threads, free_bytes - SL_MIN(free_bytes, weights), out, err);
}

const char *sl_kv_choice_text(const sl_kv_choice *choice, char out[SL_KV_CHOICE_TEXT])
{
    char chosen[32], needed[32], left[32];
    sl_format_bytes(choice->kv_bytes, chosen);
    sl_format_bytes(choice->needed_bytes, needed);
    sl_format_bytes(choice->free_bytes, left);
    if (choice->given)
        snprintf(out, SL_KV_CHOICE_TEXT, "KV memory: %s, as --kv-memory says", chosen);
    else if (choice->kv_bytes == choice->needed_bytes)
        snprintf(out, SL_KV_CHOICE_TEXT, "KV memory: %s, all that %u x %u tokens need; %s were free", chosen,
                 choice->n_sequences, choice->context, left);
    else
        snprintf(out, SL_KV_CHOICE_TEXT, "KV memory: %s of %s that were free; %u x %u tokens would need %s", chosen,
                 left, choice->n_sequences, choice->context, needed);
    return out;
}
