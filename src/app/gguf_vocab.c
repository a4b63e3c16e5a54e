#include "app/gguf_vocab.h"

#include <stdlib.h>
#include <string.h>

static bool equals(sl_gguf_string s, const char *text)
{
    return s.n_bytes == strlen(text) && memcmp(s.bytes, text, s.n_bytes) == 0;
}

/* Array of the given key and element kind; NULL with a status when it is there but of another type. */
static sl_status find_array(const sl_gguf *gguf, const char *key, sl_gguf_kind kind, uint64_t count,
                            const sl_gguf_value **out, sl_err *err)
{
    const sl_gguf_value *value = sl_gguf_find(gguf, key);
    *out = value;
    if (!value)
        return SL_OK;
    if (value->kind != SL_GGUF_ARRAY || value->elem_kind != kind)
        SL_FAIL(err, SL_ERR_FORMAT, "%s is not an array of the right type", key);
    if (count && value->count != count)
        SL_FAIL(err, SL_ERR_FORMAT, "%s has %llu elements, but there are %llu tokens", key,
                (unsigned long long)value->count, (unsigned long long)count);
    return SL_OK;
}

static sl_status find_id(const sl_gguf *gguf, const char *key, uint64_t n_tokens, int64_t *out, sl_err *err)
{
    *out = -1;
    const sl_gguf_value *value = sl_gguf_find(gguf, key);
    uint64_t id;
    if (!value)
        return SL_OK;
    if (value->kind == SL_GGUF_ARRAY || !sl_gguf_as_u64(value, 0, &id))
        SL_FAIL(err, SL_ERR_FORMAT, "%s is no token id", key);
    if (id < n_tokens) /* some files carry an id that means "none" */
        *out = (int64_t)id;
    return SL_OK;
}

static sl_status find_kind(const sl_gguf *gguf, sl_vocab_desc *desc, sl_err *err)
{
    sl_gguf_string model = {"", 0}, pre = {"default", 7};
    SL_TRY(sl_gguf_get_string(gguf, "tokenizer.ggml.model", &model, err));
    SL_TRY(sl_gguf_get_string(gguf, "tokenizer.ggml.pre", &pre, err));
    if (model.n_bytes == 0)
        SL_FAIL(err, SL_ERR_FORMAT, "the file has no tokenizer (tokenizer.ggml.model)");
    if (!equals(model, "gpt2") && !equals(model, "llama"))
        SL_FAIL(err, SL_ERR_UNSUPPORTED, "tokenizer '%.*s' is not supported: this build has gpt2 and llama",
                (int)SL_MIN(model.n_bytes, 40), model.bytes);
    desc->kind = equals(model, "gpt2") ? SL_VOCAB_BPE : SL_VOCAB_SPM;
    desc->pre = (sl_bytes){pre.bytes, pre.n_bytes};
    /* What the family does unless the file says otherwise. */
    desc->add_bos = sl_vocab_default_add_bos(desc->kind, desc->pre);
    desc->add_space_prefix = desc->kind == SL_VOCAB_SPM;
    SL_TRY(sl_gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", &desc->add_bos, err));
    SL_TRY(sl_gguf_get_bool(gguf, "tokenizer.ggml.add_eos_token", &desc->add_eos, err));
    return sl_gguf_get_bool(gguf, "tokenizer.ggml.add_space_prefix", &desc->add_space_prefix, err);
}

static sl_status find_ids(const sl_gguf *gguf, sl_vocab_desc *desc, sl_err *err)
{
    SL_TRY(find_id(gguf, "tokenizer.ggml.bos_token_id", desc->n_tokens, &desc->bos, err));
    SL_TRY(find_id(gguf, "tokenizer.ggml.eos_token_id", desc->n_tokens, &desc->eos, err));
    SL_TRY(find_id(gguf, "tokenizer.ggml.eot_token_id", desc->n_tokens, &desc->eot, err));
    SL_TRY(find_id(gguf, "tokenizer.ggml.unknown_token_id", desc->n_tokens, &desc->unk, err));
    return find_id(gguf, "tokenizer.ggml.padding_token_id", desc->n_tokens, &desc->pad, err);
}

/* Strings of an array as the text folder's own type. */
static sl_bytes *copy_strings(const sl_gguf_value *value)
{
    sl_bytes *out = calloc((size_t)value->count + 1, sizeof *out);
    for (uint64_t i = 0; out && i < value->count; i++)
        out[i] = (sl_bytes){value->strings[i].bytes, value->strings[i].n_bytes};
    return out;
}

/* Numbers lie unaligned in the file: copied before use. */
static void *copy_words(const sl_gguf_value *value)
{
    uint32_t *out = calloc((size_t)value->count + 1, sizeof *out);
    if (out)
        memcpy(out, value->data, (size_t)value->count * sizeof *out);
    return out;
}

sl_status sl_gguf_vocab_open(const sl_gguf *gguf, sl_vocab **out, sl_err *err)
{
    sl_vocab_desc desc = {0};
    const sl_gguf_value *tokens, *merges, *scores, *types;
    *out = NULL;
    SL_TRY(find_kind(gguf, &desc, err));
    SL_TRY(find_array(gguf, "tokenizer.ggml.tokens", SL_GGUF_STRING, 0, &tokens, err));
    if (!tokens || tokens->count == 0 || tokens->count > UINT32_C(1) << 22)
        SL_FAIL(err, SL_ERR_FORMAT, "tokenizer.ggml.tokens is missing or has no sensible length");
    SL_TRY(find_array(gguf, "tokenizer.ggml.merges", SL_GGUF_STRING, 0, &merges, err));
    SL_TRY(find_array(gguf, "tokenizer.ggml.scores", SL_GGUF_F32, tokens->count, &scores, err));
    SL_TRY(find_array(gguf, "tokenizer.ggml.token_type", SL_GGUF_I32, tokens->count, &types, err));
    if (merges && merges->count > UINT32_C(1) << 24)
        SL_FAIL(err, SL_ERR_LIMIT, "tokenizer.ggml.merges has %llu elements", (unsigned long long)merges->count);
    desc.n_tokens = (uint32_t)tokens->count;
    desc.n_merges = merges ? (uint32_t)merges->count : 0;
    SL_TRY(find_ids(gguf, &desc, err));
    sl_bytes *token_copy = copy_strings(tokens), *merge_copy = merges ? copy_strings(merges) : NULL;
    float *score_copy = scores ? copy_words(scores) : NULL;
    int32_t *type_copy = types ? copy_words(types) : NULL;
    desc.tokens = token_copy;
    desc.merges = merge_copy;
    desc.scores = score_copy;
    desc.types = type_copy;
    sl_status status;
    if (!token_copy || (merges && !merge_copy) || (scores && !score_copy) || (types && !type_copy))
        status = sl_err_set(err, SL_ERR_NOMEM, "no memory for a vocabulary of %u tokens", desc.n_tokens);
    else
        status = sl_vocab_open(&desc, out, err);
    free(token_copy);
    free(merge_copy);
    free(score_copy);
    free(type_copy);
    return status;
}
