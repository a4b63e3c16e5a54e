#include "cli/kv_args.h"

#include "cli/output.h"

#include <stdio.h>
#include <string.h>

sl_status sl_kv_args_keep(const sl_args *args, sl_keep *out, sl_err *err)
{
    const char *text = sl_args_text(args, "kv-keep"), *at = text;
    uint64_t numbers[3] = {0};
    size_t n = 0;
    bool more = true, good = true;
    *out = (sl_keep){0};
    if (text == NULL)
        return SL_OK;
    for (; more && good && n < SL_COUNTOF(numbers); n++) {
        char number[16] = "";
        size_t length = strcspn(at, "+");
        if (length < sizeof(number))
            memcpy(number, at, length);
        good = sl_parse_uint(number, n == 1, 1 << 24, &numbers[n]);
        more = at[length] == '+';
        at += length + more;
    }
    if (!good || more || n < 2)
        SL_FAIL(err, SL_ERR_ARGUMENT,
                "--kv-keep takes S+W or S+W+M, numbers of tokens with W at least 1, as in 4+1020, not '%.40s'", text);
    *out = (sl_keep){(uint32_t)numbers[0], (uint32_t)numbers[1], (uint32_t)numbers[2]};
    return sl_keep_settle(out, err);
}

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
