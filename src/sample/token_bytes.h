/* What each token writes, for those who match text below the layer that knows vocabularies. */
#ifndef SL_SAMPLE_TOKEN_BYTES_H
#define SL_SAMPLE_TOKEN_BYTES_H

#include "base/bytes.h"

#include <stdint.h>

/* Token i writes bytes[offsets[i] .. offsets[i + 1]), nothing for i >= n_tokens. The table is read only and belongs to
 * whoever made it; see sl_bundle_token_bytes. */
typedef struct sl_token_bytes {
    uint32_t n_tokens;
    uint32_t longest; /* bytes of the longest token */
    const uint32_t *offsets;
    const char *bytes;
} sl_token_bytes;

static inline sl_bytes sl_token_bytes_at(const sl_token_bytes *table, uint32_t token)
{
    if (token >= table->n_tokens)
        return (sl_bytes){"", 0};
    return (sl_bytes){table->bytes + table->offsets[token], table->offsets[token + 1] - table->offsets[token]};
}

#endif
