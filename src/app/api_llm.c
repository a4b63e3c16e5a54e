/* Models of the public API: a bundle with a count of references. */
#include "app/api.h"

#include "file/store.h"

#include <stdlib.h>
#include <string.h>

static sl_status bundle_options(const sl_llm_options *o, sl_bundle_options *out, sl_err *err)
{
    *out = sl_bundle_options_default();
    out->n_threads = o->n_threads;
    out->model.cache = (sl_pack_cache_options){
        .enabled = o->cache, .verify = o->verify, .folder = o->cache_folder, .max_bytes = o->cache_bytes};
    out->model.progress = o->on_progress;
    out->model.progress_user = o->user;
    if (o->kv_type && !sl_kv_type_parse(o->kv_type, &out->model.kv_type))
        SL_FAIL(err, SL_ERR_ARGUMENT, "kv_type: there is no type '%.40s' of keys and values", o->kv_type);
    return sl_level_choose(o->level, &out->model.level, err);
}

sl_status sl_llm_open(const char *path, const sl_llm_options *options, sl_llm **out, sl_err *err)
{
    sl_llm_options o = sl_llm_options_default();
    sl_bundle_options with;
    char *file = NULL;
    if (out)
        *out = NULL;
    if (!path || !out)
        SL_FAIL(err, SL_ERR_ARGUMENT, "sl_llm_open: no path or no place for the model");
    SL_TRY(sl_sized_read(options, &o, sizeof o, "sl_llm_options", err));
    SL_TRY(bundle_options(&o, &with, err));
    sl_llm *llm = calloc(1, sizeof *llm);
    if (!llm)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a model");
    sl_status status = sl_store_resolve(NULL, path, &file, err);
    if (status == SL_OK)
        status = sl_bundle_open(file, &with, &llm->bundle, err);
    free(file);
    if (status != SL_OK) {
        free(llm);
        return status;
    }
    atomic_init(&llm->n_refs, 1);
    *out = llm;
    return SL_OK;
}

sl_llm *sl_llm_retain(sl_llm *llm)
{
    if (llm)
        atomic_fetch_add(&llm->n_refs, 1);
    return llm;
}

void sl_llm_close(sl_llm *llm)
{
    if (!llm || atomic_fetch_sub(&llm->n_refs, 1) > 1)
        return;
    sl_bundle_close(llm->bundle);
    free(llm);
}

sl_status sl_llm_get_info(const sl_llm *llm, sl_llm_info *out, sl_err *err)
{
    if (!llm || !out)
        SL_FAIL(err, SL_ERR_ARGUMENT, "sl_llm_get_info: no model or no place for what is known of it");
    const sl_model_info *info = sl_model_get_info(sl_bundle_model(llm->bundle));
    sl_llm_info own = {.architecture = info->arch,
                       .name = info->name,
                       .n_layers = info->n_layers,
                       .n_embedding = info->n_embd,
                       .n_vocab = info->n_vocab,
                       .context = info->context_length,
                       .n_params = info->n_params,
                       .kv_bytes_per_token = info->kv_bytes_per_token};
    return sl_sized_write(out, &own, sizeof own, "sl_llm_info", err);
}

/* Hands tokens to the caller as far as they have room, and frees them. */
static void give_tokens(sl_tokens *from, uint32_t *tokens, size_t capacity, size_t *n_tokens)
{
    *n_tokens = from->n;
    if (from->n > 0 && capacity > 0)
        memcpy(tokens, from->ids, SL_MIN(from->n, capacity) * sizeof *tokens);
    sl_tokens_free(from);
}

sl_status sl_llm_tokenize(const sl_llm *llm, sl_bytes text, uint32_t *tokens, size_t capacity, size_t *n_tokens,
                          sl_err *err)
{
    sl_tokens found = {0};
    if (!llm || !n_tokens || (!tokens && capacity > 0) || (!text.bytes && text.n_bytes > 0))
        SL_FAIL(err, SL_ERR_ARGUMENT, "sl_llm_tokenize: no model, no text or no place for its tokens");
    sl_status status = sl_bundle_text_tokens(llm->bundle, text.bytes ? text.bytes : "", text.n_bytes, &found, err);
    if (status == SL_OK)
        give_tokens(&found, tokens, capacity, n_tokens);
    else
        sl_tokens_free(&found);
    return status;
}

sl_status sl_llm_tokenize_chat(const sl_llm *llm, const sl_message *messages, size_t n_messages, uint32_t *tokens,
                               size_t capacity, size_t *n_tokens, sl_err *err)
{
    sl_tokens found = {0};
    if (!llm || !n_tokens || (!tokens && capacity > 0))
        SL_FAIL(err, SL_ERR_ARGUMENT, "sl_llm_tokenize_chat: no model or no place for the tokens");
    sl_status status = sl_messages_tokens(llm->bundle, messages, n_messages, &found, err);
    if (status == SL_OK)
        give_tokens(&found, tokens, capacity, n_tokens);
    else
        sl_tokens_free(&found);
    return status;
}

sl_bytes sl_llm_token_bytes(const sl_llm *llm, uint32_t token)
{
    return llm ? sl_token_bytes_at(sl_bundle_token_bytes(llm->bundle), token) : (sl_bytes){"", 0};
}
