/* The weights of a plan in memory: mapped from the cache of packed files, or packed here. */
#ifndef SL_MODEL_WEIGHTS_H
#define SL_MODEL_WEIGHTS_H

#include "base/threads.h"
#include "file/gguf.h"
#include "file/pack_cache.h"
#include "graph/plan.h"

/* Bytes done and in all, on the opening thread; false cancels. */
typedef bool sl_weights_progress_fn(void *user, uint64_t done_bytes, uint64_t total_bytes);

typedef struct sl_weights {
    sl_pack_map map; /* the cache's file, or */
    char *pages;     /* memory of our own, laid out in the same way; NULL: none */
    size_t n_bytes;
} sl_weights;

/* Binds every weight of plan's graph: sets weight.data. What has no packed form stays where it lies in gguf, which must
 * outlive *out. With a cache, packed weights are written to its file piece by piece as they are packed, and the file is
 * mapped then as it is at every later start: there is one copy in memory, and it is the system's page cache. Without one
 * (or when the cache can't be used, which is logged) they are packed into memory of their own. Either way the source's
 * pages are given back as packing advances. SL_ERR_NOMEM, SL_ERR_CANCELLED, SL_ERR_IO (the model file got shorter). The
 * caller closes *out, whatever the status. */
SL_WARN_UNUSED sl_status sl_weights_bind(sl_weights *out, sl_plan *plan, const sl_gguf *gguf,
                                         const sl_pack_cache_options *cache, sl_threads *pool,
                                         sl_weights_progress_fn *progress, void *user, sl_err *err);
void sl_weights_close(sl_weights *weights);

/* Prefix of the names of all cache files made from this model file; empty when it has no identity. out has room for 64
 * bytes. */
SL_WARN_UNUSED sl_status sl_weights_cache_prefix(const sl_gguf *gguf, char out[64], sl_err *err);

#endif
