/* An architecture is data: which tensors a layer has, their symbolic shapes, and the few choices that differ. */
#ifndef SL_MODEL_ARCH_H
#define SL_MODEL_ARCH_H

#include "file/gguf.h"
#include "kernel/ops.h"

/* What a tensor is for. The builder reads the roles that a model's file has: an optional norm or bias that is there
 * becomes a node, one that is absent does not. */
typedef enum sl_role {
    SL_ROLE_EMBED,
    SL_ROLE_OUTPUT, /* absent: tied to EMBED */
    SL_ROLE_OUTPUT_NORM,
    SL_ROLE_ROPE_DIVISORS,
    SL_ROLE_ATTN_NORM, /* from here on one a layer */
    SL_ROLE_Q,
    SL_ROLE_K,
    SL_ROLE_V,
    SL_ROLE_Q_BIAS,
    SL_ROLE_K_BIAS,
    SL_ROLE_V_BIAS,
    SL_ROLE_Q_NORM,
    SL_ROLE_K_NORM,
    SL_ROLE_ATTN_OUT,
    SL_ROLE_ATTN_POST_NORM,
    SL_ROLE_FFN_NORM,
    SL_ROLE_GATE,
    SL_ROLE_UP,
    SL_ROLE_DOWN,
    SL_ROLE_FFN_POST_NORM,
    SL_ROLE_COUNT
} sl_role;

/* Symbolic sizes. */
typedef enum sl_dim {
    SL_DIM_ONE,
    SL_DIM_EMBD,
    SL_DIM_FF,
    SL_DIM_VOCAB,
    SL_DIM_Q,        /* n_heads * head_dim */
    SL_DIM_KV,       /* n_kv_heads * head_dim */
    SL_DIM_HEAD,     /* head_dim */
    SL_DIM_ROPE_HALF /* rotated pairs of a head */
} sl_dim;

typedef struct sl_tensor_rule {
    sl_role role;
    const char *name;  /* with %u for the layer */
    sl_dim rows, cols; /* GGUF ne = {cols, rows}; vectors have rows ONE */
    bool optional;
} sl_tensor_rule;

typedef struct sl_arch {
    const char *name; /* general.architecture */
    sl_rope_mode rope_mode;
    sl_gate gate;
    bool scale_embeddings;  /* embeddings * sqrt(n_embd) */
    uint32_t window_period; /* layer i is local unless (i + 1) is a multiple of it; 0 = no local layers */
    float local_rope_base;  /* of local layers, when the file names none */
    const sl_tensor_rule *tensors;
    size_t n_tensors;
} sl_arch;

/* Architecture of that name; NULL when there is none. */
const sl_arch *sl_arch_find(sl_gguf_string name);

/* Comma-separated names of all architectures. Static storage. */
const char *sl_arch_names(void);

/* Numbers that the file gives. */
typedef struct sl_hparams {
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab, context_length, n_rot;
    uint32_t window;                        /* 0 = none */
    float norm_eps, rope_base, rope_factor; /* factor multiplies every frequency: 1 / linear scaling */
    float local_rope_base;
    float attention_scale;
} sl_hparams;

/* Reads and checks `{arch}.*`. SL_ERR_FORMAT names the key that is missing or senseless, SL_ERR_UNSUPPORTED the feature. */
SL_WARN_UNUSED sl_status sl_hparams_read(const sl_gguf *gguf, const sl_arch *arch, sl_hparams *out, sl_err *err);

/* Value of a symbolic size. */
uint32_t sl_hparams_dim(const sl_hparams *hparams, sl_dim dim);

/* True when layer attends within a window only. */
bool sl_hparams_is_local(const sl_hparams *hparams, const sl_arch *arch, uint32_t layer);

#endif
