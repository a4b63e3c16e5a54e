#include "model/arch.h"

#include <string.h>

/* A row says: role, name in the file, rows, columns, optional. */
static const sl_tensor_rule decoder_tensors[] = {
    {SL_ROLE_EMBED, "token_embd.weight", SL_DIM_VOCAB, SL_DIM_EMBD, false},
    {SL_ROLE_OUTPUT, "output.weight", SL_DIM_VOCAB, SL_DIM_EMBD, true},
    {SL_ROLE_OUTPUT_NORM, "output_norm.weight", SL_DIM_ONE, SL_DIM_EMBD, false},
    {SL_ROLE_ROPE_DIVISORS, "rope_freqs.weight", SL_DIM_ONE, SL_DIM_ROPE_HALF, true},
    {SL_ROLE_ATTN_NORM, "blk.%u.attn_norm.weight", SL_DIM_ONE, SL_DIM_EMBD, false},
    {SL_ROLE_Q, "blk.%u.attn_q.weight", SL_DIM_Q, SL_DIM_EMBD, false},
    {SL_ROLE_K, "blk.%u.attn_k.weight", SL_DIM_KV, SL_DIM_EMBD, false},
    {SL_ROLE_V, "blk.%u.attn_v.weight", SL_DIM_KV, SL_DIM_EMBD, false},
    {SL_ROLE_Q_BIAS, "blk.%u.attn_q.bias", SL_DIM_ONE, SL_DIM_Q, true},
    {SL_ROLE_K_BIAS, "blk.%u.attn_k.bias", SL_DIM_ONE, SL_DIM_KV, true},
    {SL_ROLE_V_BIAS, "blk.%u.attn_v.bias", SL_DIM_ONE, SL_DIM_KV, true},
    {SL_ROLE_ATTN_OUT, "blk.%u.attn_output.weight", SL_DIM_EMBD, SL_DIM_Q, false},
    {SL_ROLE_FFN_NORM, "blk.%u.ffn_norm.weight", SL_DIM_ONE, SL_DIM_EMBD, false},
    {SL_ROLE_GATE, "blk.%u.ffn_gate.weight", SL_DIM_FF, SL_DIM_EMBD, false},
    {SL_ROLE_UP, "blk.%u.ffn_up.weight", SL_DIM_FF, SL_DIM_EMBD, false},
    {SL_ROLE_DOWN, "blk.%u.ffn_down.weight", SL_DIM_EMBD, SL_DIM_FF, false},
};

static const sl_tensor_rule gemma3_tensors[] = {
    {SL_ROLE_EMBED, "token_embd.weight", SL_DIM_VOCAB, SL_DIM_EMBD, false},
    {SL_ROLE_OUTPUT, "output.weight", SL_DIM_VOCAB, SL_DIM_EMBD, true},
    {SL_ROLE_OUTPUT_NORM, "output_norm.weight", SL_DIM_ONE, SL_DIM_EMBD, false},
    {SL_ROLE_ATTN_NORM, "blk.%u.attn_norm.weight", SL_DIM_ONE, SL_DIM_EMBD, false},
    {SL_ROLE_Q, "blk.%u.attn_q.weight", SL_DIM_Q, SL_DIM_EMBD, false},
    {SL_ROLE_K, "blk.%u.attn_k.weight", SL_DIM_KV, SL_DIM_EMBD, false},
    {SL_ROLE_V, "blk.%u.attn_v.weight", SL_DIM_KV, SL_DIM_EMBD, false},
    {SL_ROLE_Q_NORM, "blk.%u.attn_q_norm.weight", SL_DIM_ONE, SL_DIM_HEAD, false},
    {SL_ROLE_K_NORM, "blk.%u.attn_k_norm.weight", SL_DIM_ONE, SL_DIM_HEAD, false},
    {SL_ROLE_ATTN_OUT, "blk.%u.attn_output.weight", SL_DIM_EMBD, SL_DIM_Q, false},
    {SL_ROLE_ATTN_POST_NORM, "blk.%u.post_attention_norm.weight", SL_DIM_ONE, SL_DIM_EMBD, false},
    {SL_ROLE_FFN_NORM, "blk.%u.ffn_norm.weight", SL_DIM_ONE, SL_DIM_EMBD, false},
    {SL_ROLE_GATE, "blk.%u.ffn_gate.weight", SL_DIM_FF, SL_DIM_EMBD, false},
    {SL_ROLE_UP, "blk.%u.ffn_up.weight", SL_DIM_FF, SL_DIM_EMBD, false},
    {SL_ROLE_DOWN, "blk.%u.ffn_down.weight", SL_DIM_EMBD, SL_DIM_FF, false},
    {SL_ROLE_FFN_POST_NORM, "blk.%u.post_ffw_norm.weight", SL_DIM_ONE, SL_DIM_EMBD, false},
};

static const sl_arch archs[] = {
    {
        .name = "llama", /* also Mistral and SmolLM2; the converter permuted Q and K for adjacent pairs */
        .rope_mode = SL_ROPE_NORM,
        .gate = SL_GATE_SILU,
        .tensors = decoder_tensors,
        .n_tensors = SL_COUNTOF(decoder_tensors),
    },
    {
        .name = "gemma3", /* Gemma 3 report, section 2: 5 local layers to 1 global, norms before and after */
        .rope_mode = SL_ROPE_NEOX,
        .gate = SL_GATE_GELU_TANH,
        .scale_embeddings = true,
        .window_period = 6,
        .local_rope_base = 10000.0f,
        .tensors = gemma3_tensors,
        .n_tensors = SL_COUNTOF(gemma3_tensors),
    },
};

const sl_arch *sl_arch_find(sl_gguf_string name)
{
    for (size_t i = 0; i < SL_COUNTOF(archs); i++)
        if (strlen(archs[i].name) == name.n_bytes && memcmp(archs[i].name, name.bytes, name.n_bytes) == 0)
            return &archs[i];
    return NULL;
}

const char *sl_arch_names(void)
{
    return "llama, gemma3";
}
