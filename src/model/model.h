/* A model: an architecture's table turned into a step plan, with its weights bound. */
#ifndef SL_MODEL_MODEL_H
#define SL_MODEL_MODEL_H

#include "base/threads.h"
#include "file/gguf.h"
#include "graph/plan.h"
#include "model/weights.h"

enum {
    SL_MODEL_NO_WEIGHTS = 1, /* plan only: nothing is packed, the model cannot run (`sluice info`) */
};

typedef struct sl_model_options {
    sl_level level;
    sl_kv_type kv_type; /* forced to F32 at level exact */
    uint32_t flags;
    uint32_t disabled_passes; /* bits 1 << sl_pass, for tests */
    const char *const *taps;  /* names of values that must exist in the plan, see sl_tap_fn; n_taps of them */
    size_t n_taps;
    sl_pack_cache_options cache;      /* of packed weights; off unless enabled */
    sl_weights_progress_fn *progress; /* NULL: nobody looks */
    void *progress_user;
} sl_model_options;

sl_model_options sl_model_options_default(void); /* best level, F16 KV, no cache */

/* What the file says about the model. Strings are static or owned by the model. */
typedef struct sl_model_info {
    const char *arch;
    char name[64];
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab, context_length;
    uint32_t window;             /* sliding window of local layers; 0 = none */
    uint32_t n_window_layers;    /* how many layers use it */
    uint64_t n_params;           /* elements of all tensors */
    uint64_t weight_bytes;       /* of all tensors in the file */
    uint64_t packed_bytes;       /* memory that packed weights take (0 for what stays in the mapping) */
    uint64_t kv_bytes_per_token; /* all layers, K and V, with kv_type */
    bool tied_embeddings;
} sl_model_info;

typedef struct sl_model sl_model;

/* Builds the plan and packs the weights with the pool's workers. gguf must outlive the model. Errors name the key or
 * tensor that is missing or has a wrong shape; SL_ERR_UNSUPPORTED for an unknown architecture or weight type.
 * The caller closes it. */
SL_WARN_UNUSED sl_status sl_model_open(const sl_gguf *gguf, const sl_model_options *options, sl_threads *pool,
                                       sl_model **out, sl_err *err);
void sl_model_close(sl_model *model);

const sl_model_info *sl_model_get_info(const sl_model *model);
const sl_plan *sl_model_plan(const sl_model *model);

/* Text sink of the printers below. */
typedef void sl_print_fn(void *user, const char *text);

/* Prints the graph as it was built and after each pass, with what the pass changed (`sluice info --graph`). */
SL_WARN_UNUSED sl_status sl_model_print_passes(const sl_gguf *gguf, const sl_model_options *options, sl_print_fn *print,
                                               void *user, sl_err *err);

#endif
