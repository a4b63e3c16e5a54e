#include "graph/graph.h"
#include "model/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Limits far above any published model; they keep every later product of two within 64 bits. */
enum { MAX_WIDTH = 1 << 20, MAX_HEADS = 1 << 12, MAX_CONTEXT = 1 << 24 };

typedef struct {
    const sl_gguf *gguf;
    const char *arch;
    sl_err *err;
} reader;

static void key_of(const reader *r, const char *suffix, char *key, size_t n_bytes)
{
    snprintf(key, n_bytes, "%s.%s", r->arch, suffix);
}

/* Number in [1, most]; required = a missing key is an error, otherwise *out keeps its default. */
static sl_status read_count(const reader *r, const char *suffix, uint32_t most, bool required, uint32_t *out)
{
    char key[128];
    key_of(r, suffix, key, sizeof key);
    const sl_gguf_value *value = sl_gguf_find(r->gguf, key);
    if (!value) {
        if (required)
            SL_FAIL(r->err, SL_ERR_FORMAT, "the file has no %s", key);
        return SL_OK;
    }
    uint64_t n = 0;
    for (uint64_t i = 0; i < value->count; i++) {
        uint64_t each;
        if (!sl_gguf_as_u64(value, i, &each))
            SL_FAIL(r->err, SL_ERR_FORMAT, "%s is no positive number", key);
        if (i > 0 && each != n)
            SL_FAIL(r->err, SL_ERR_UNSUPPORTED, "%s differs from layer to layer, which is not supported yet", key);
        n = each;
    }
    if (n < 1 || n > most)
        SL_FAIL(r->err, SL_ERR_FORMAT, "%s is %llu: 1 to %u makes sense", key, (unsigned long long)n, most);
    *out = (uint32_t)n;
    return SL_OK;
}

static sl_status read_float(const reader *r, const char *suffix, float low, float high, float *out)
{
    char key[128];
    key_of(r, suffix, key, sizeof key);
    SL_TRY(sl_gguf_get_f32(r->gguf, key, out, r->err));
    if (!(*out >= low && *out <= high))
        SL_FAIL(r->err, SL_ERR_FORMAT, "%s is %g: %g to %g makes sense", key, (double)*out, (double)low, (double)high);
    return SL_OK;
}

static sl_status read_rope_scaling(const reader *r, sl_hparams *h)
{
    char key[128];
    sl_gguf_string type = {"none", 4};
    key_of(r, "rope.scaling.type", key, sizeof key);
    SL_TRY(sl_gguf_get_string(r->gguf, key, &type, r->err));
    float factor = 1.0f;
    if (type.n_bytes == 6 && memcmp(type.bytes, "linear", 6) == 0)
        SL_TRY(read_float(r, "rope.scaling.factor", 1e-3f, 1e6f, &factor));
    else if (type.n_bytes != 4 || memcmp(type.bytes, "none", 4) != 0)
        SL_FAIL(r->err, SL_ERR_UNSUPPORTED, "RoPE scaling '%.*s' is not supported yet", (int)SL_MIN(type.n_bytes, 32),
                type.bytes);
    h->rope_factor = 1.0f / factor;
    return SL_OK;
}

static sl_status read_heads(const reader *r, sl_hparams *h)
{
    SL_TRY(read_count(r, "attention.head_count", MAX_HEADS, true, &h->n_heads));
    h->n_kv_heads = h->n_heads;
    SL_TRY(read_count(r, "attention.head_count_kv", MAX_HEADS, false, &h->n_kv_heads));
    h->head_dim = h->n_embd / h->n_heads;
    SL_TRY(read_count(r, "attention.key_length", 1024, false, &h->head_dim));
    uint32_t value_length = h->head_dim;
    SL_TRY(read_count(r, "attention.value_length", 1024, false, &value_length));
    if (h->n_heads % h->n_kv_heads || h->head_dim < 2 || h->head_dim > 1024 || h->head_dim % 2)
        SL_FAIL(r->err, SL_ERR_FORMAT, "%u heads of %u over %u key-value heads make no sense", h->n_heads, h->head_dim,
                h->n_kv_heads);
    if (value_length != h->head_dim)
        SL_FAIL(r->err, SL_ERR_UNSUPPORTED, "keys of %u and values of %u a head: different sizes are not supported",
                h->head_dim, value_length);
    h->n_rot = h->head_dim;
    SL_TRY(read_count(r, "rope.dimension_count", h->head_dim, false, &h->n_rot));
    if (h->n_rot % 2)
        SL_FAIL(r->err, SL_ERR_FORMAT, "%u rotated dimensions: an even number makes sense", h->n_rot);
    h->attention_scale = 1.0f / sqrtf((float)h->head_dim);
    return SL_OK;
}

sl_status sl_hparams_read(const sl_gguf *gguf, const sl_arch *arch, sl_hparams *out, sl_err *err)
{
    reader r = {gguf, arch->name, err};
    sl_hparams *h = out;
    *h = (sl_hparams){.norm_eps = 1e-5f, .rope_base = 10000.0f, .local_rope_base = arch->local_rope_base};
    SL_TRY(read_count(&r, "block_count", SL_MAX_LAYERS, true, &h->n_layers));
    SL_TRY(read_count(&r, "embedding_length", MAX_WIDTH, true, &h->n_embd));
    SL_TRY(read_count(&r, "feed_forward_length", MAX_WIDTH, true, &h->n_ff));
    SL_TRY(read_count(&r, "context_length", MAX_CONTEXT, true, &h->context_length));
    SL_TRY(read_heads(&r, h));
    SL_TRY(read_float(&r, "attention.layer_norm_rms_epsilon", 0.0f, 1.0f, &h->norm_eps));
    SL_TRY(read_float(&r, "rope.freq_base", 1.0f, 1e12f, &h->rope_base));
    SL_TRY(read_rope_scaling(&r, h));
    if (arch->window_period) {
        SL_TRY(read_count(&r, "attention.sliding_window", MAX_CONTEXT, true, &h->window));
        SL_TRY(read_float(&r, "rope.freq_base_swa", 1.0f, 1e12f, &h->local_rope_base));
    }
    uint32_t n_experts = 0;
    char key[128];
    key_of(&r, "expert_count", key, sizeof key);
    SL_TRY(sl_gguf_get_u32(gguf, key, &n_experts, err));
    if (n_experts)
        SL_FAIL(err, SL_ERR_UNSUPPORTED, "%s is %u: mixtures of experts are not supported yet", key, n_experts);
    const sl_gguf_tensor *embed = sl_gguf_find_tensor(gguf, "token_embd.weight");
    if (!embed || embed->ne[1] < 1 || embed->ne[1] > UINT32_C(1) << 24)
        SL_FAIL(err, SL_ERR_FORMAT, "tensor token_embd.weight is missing or has no sensible number of rows");
    h->n_vocab = (uint32_t)embed->ne[1];
    return SL_OK;
}

uint32_t sl_hparams_dim(const sl_hparams *h, sl_dim dim)
{
    switch (dim) {
    case SL_DIM_ONE:
        return 1;
    case SL_DIM_EMBD:
        return h->n_embd;
    case SL_DIM_FF:
        return h->n_ff;
    case SL_DIM_VOCAB:
        return h->n_vocab;
    case SL_DIM_Q:
        return h->n_heads * h->head_dim;
    case SL_DIM_KV:
        return h->n_kv_heads * h->head_dim;
    case SL_DIM_HEAD:
        return h->head_dim;
    case SL_DIM_ROPE_HALF:
        return h->n_rot / 2;
    }
    return 0;
}

bool sl_hparams_is_local(const sl_hparams *h, const sl_arch *arch, uint32_t layer)
{
    return arch->window_period && h->window && (layer + 1) % arch->window_period != 0;
}
