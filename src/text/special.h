/* Finds control and user-defined tokens in a text: a trie, longest match first. */
#ifndef SL_TEXT_SPECIAL_H
#define SL_TEXT_SPECIAL_H

#include "base/status.h"

typedef struct sl_special_node {
    uint32_t child;   /* first child, 0 = none (node 0 is the root and nobody's child) */
    uint32_t sibling; /* next child of the same parent, 0 = none */
    uint32_t control; /* control token that ends here, UINT32_MAX = none */
    uint32_t user;    /* user-defined token that ends here, UINT32_MAX = none */
    unsigned char byte;
} sl_special_node;

typedef struct sl_special {
    sl_special_node *nodes;
    uint32_t n_nodes, capacity;
    uint32_t first[256]; /* root's child by byte, 0 = none */
    bool starts[2][256]; /* bytes that begin a token, in untrusted [0] and trusted [1] text */
} sl_special;

/* Adds a token of n_bytes > 0 to a zero-initialised matcher; of equal texts the first one stays. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_special_add(sl_special *special, const char *bytes, size_t n_bytes, uint32_t id,
                                        bool is_control, sl_err *err);
void sl_special_free(sl_special *special);

/* Leftmost, then longest match in n_bytes. Untrusted text matches user-defined tokens only. False: no match. */
bool sl_special_find(const sl_special *special, const char *bytes, size_t n_bytes, bool trusted, size_t *at,
                     size_t *n_match, uint32_t *id);

#endif
