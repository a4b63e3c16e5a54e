/* Prefix tree: which KV blocks hold which tokens. A node is one full block of SL_KV_BLOCK tokens behind its parent's;
 * the roots stand for a tenant and an adapter, so nobody sees what another tenant cached. Nodes are found by a keyed
 * hash over all that leads to them, and their parent and tokens are compared as well: a collision changes nothing. A tree
 * belongs to one engine, so to one model.
 *
 * A node names a physical block of each layer group and counts as one holder of it. In groups without a window it always
 * has one, and goes when that is evicted, so only leaves are; blocks of windowed groups come and go singly. A block that
 * nobody else holds is idle and may be evicted, unless it is pinned. */
#ifndef SL_ENGINE_PREFIX_H
#define SL_ENGINE_PREFIX_H

#include "engine/blocks.h"
#include "engine/digest.h"
#include "engine/evict.h"
#include "engine/keep.h"
#include "graph/backend.h"

#define SL_NO_NODE UINT32_MAX

typedef struct sl_prefix_node {
    sl_digest digest;
    uint32_t tokens[SL_KV_BLOCK]; /* of a root: tenant and adapter */
    uint32_t parent;              /* SL_NO_NODE of a root */
    uint32_t next;                /* in its bucket, or among the unused */
    uint32_t depth;               /* blocks before this one */
    uint32_t n_children, n_users; /* users: sequences that stand here */
    uint32_t blocks[SL_MAX_KV_GROUPS], n_pins[SL_MAX_KV_GROUPS];
    bool in_use;
    bool
        is_end; /* a request's tokens ended or a hit ended less than a window behind it: its windowed blocks may serve again */
} sl_prefix_node;

typedef struct sl_prefix {
    sl_digester *digester;
    sl_prefix_node *nodes;
    uint32_t n_nodes, n_used, unused; /* unused: head of a list */
    uint32_t *buckets;
    uint32_t bucket_mask;
    int n_groups;
    sl_keep keep;
    bool has_full; /* group full_group has no window, and sequences keep all of it */
    int full_group;
    sl_blocks *pools;                    /* of each group; the owner's */
    uint32_t *node_of[SL_MAX_KV_GROUPS]; /* of each block; SL_NO_NODE */
    sl_evict evict[SL_MAX_KV_GROUPS];    /* items are nodes */
    uint32_t n_idle[SL_MAX_KV_GROUPS];   /* blocks that only the tree holds and nobody pinned */
    uint32_t n_pinned[SL_MAX_KV_GROUPS]; /* blocks pinned */
    uint32_t n_cached[SL_MAX_KV_GROUPS]; /* blocks in the tree */
} sl_prefix;

/* A tree for the plan's groups over pools (one a group, which outlive it) with room for n_nodes nodes. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_prefix_open(sl_prefix *tree, const sl_plan *plan, const sl_keep *keep, sl_blocks *pools,
                                        uint32_t n_nodes, const uint8_t key[SL_DIGEST_KEY_BYTES], sl_err *err);
void sl_prefix_close(sl_prefix *tree);

/* Digest of a root: of tenant, adapter, the plan's KV type and level and what is kept; and of SL_KV_BLOCK tokens behind a
 * parent. */
sl_digest sl_prefix_root_digest(const sl_prefix *tree, const sl_plan *plan, uint64_t tenant, uint32_t adapter);
sl_digest sl_prefix_digest(const sl_prefix *tree, const sl_digest *parent, const uint32_t *tokens);

/* The root, made when there is none; SL_NO_NODE when the tree is full. */
uint32_t sl_prefix_root(sl_prefix *tree, const sl_digest *digest, uint64_t tenant, uint32_t adapter);
/* The root, or the node of these tokens below parent; SL_NO_NODE when there is none. */
uint32_t sl_prefix_find_root(const sl_prefix *tree, const sl_digest *digest, uint64_t tenant, uint32_t adapter);
uint32_t sl_prefix_find(const sl_prefix *tree, uint32_t parent, const sl_digest *digest, const uint32_t *tokens);

/* A new node below parent with no blocks yet; SL_NO_NODE when the tree is full. A node of a full group's tree is given
 * its block before anything else happens. */
uint32_t sl_prefix_add(sl_prefix *tree, uint32_t parent, const sl_digest *digest, const uint32_t *tokens);

/* Makes the tree a holder of a block that a sequence holds, as the node's block of the group. */
void sl_prefix_give(sl_prefix *tree, uint32_t node, int group, uint32_t block);

/* One more or one less sequence stands at the node. Who leaves may be the last and take the node along. */
void sl_prefix_enter(sl_prefix *tree, uint32_t node);
void sl_prefix_leave(sl_prefix *tree, uint32_t node);

/* A block table takes a block that is held by the tree or others, or lets go of one. */
void sl_prefix_hold(sl_prefix *tree, int group, uint32_t block);
void sl_prefix_drop(sl_prefix *tree, int group, uint32_t block);

/* Frees the idle block of the group that is worth least; false when there is none. */
SL_WARN_UNUSED bool sl_prefix_evict(sl_prefix *tree, int group);

/* Keeps a node's block of the group from eviction; pins add up. */
void sl_prefix_pin(sl_prefix *tree, uint32_t node, int group);
void sl_prefix_unpin(sl_prefix *tree, uint32_t node, int group);

#endif
