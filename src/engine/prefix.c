#include "engine/prefix.h"

#include <stdlib.h>
#include <string.h>

/* A token at position p costs 1 + p / COST_DEPTH times as much as the first: attention's work grows with the positions
 * before it. It reaches that of the matmuls, counted in multiplications, at 3,100 of them in SmolLM2 and at 14,800 in
 * Llama 3.2 1B, but it runs at a lower rate. Only the order of evictions depends on this. */
enum { COST_DEPTH = 4096 };

/* ---- nodes ---- */

static void find_groups(sl_prefix *t, const sl_plan *plan)
{
    t->n_groups = plan->n_groups;
    for (int g = 0; g < plan->n_groups; g++) {
        if (plan->groups[g].window || sl_keep_on(&t->keep))
            continue;
        t->has_full = true;
        t->full_group = g;
    }
}

static sl_status allocate(sl_prefix *t, uint32_t n_nodes, sl_err *err)
{
    uint32_t n_buckets = 16;
    while (n_buckets < n_nodes)
        n_buckets *= 2;
    t->nodes = calloc((size_t)n_nodes + 1, sizeof *t->nodes);
    t->buckets = malloc(n_buckets * sizeof *t->buckets);
    if (!t->nodes || !t->buckets)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a prefix tree of %u nodes", n_nodes);
    memset(t->buckets, 0xff, n_buckets * sizeof *t->buckets);
    t->bucket_mask = n_buckets - 1;
    t->n_nodes = n_nodes;
    t->unused = SL_NO_NODE;
    for (uint32_t i = n_nodes; i-- > 0;) {
        t->nodes[i].next = t->unused;
        t->unused = i;
    }
    for (int g = 0; g < t->n_groups; g++) {
        size_t n_bytes = ((size_t)t->pools[g].n_blocks + 1) * sizeof *t->node_of[g];
        t->node_of[g] = malloc(n_bytes);
        if (!t->node_of[g])
            SL_FAIL(err, SL_ERR_NOMEM, "no memory for a prefix tree of %u nodes", n_nodes);
        memset(t->node_of[g], 0xff, n_bytes);
        SL_TRY(sl_evict_open(&t->evict[g], n_nodes, err));
    }
    return SL_OK;
}

sl_status sl_prefix_open(sl_prefix *t, const sl_plan *plan, const sl_keep *keep, sl_blocks *pools, uint32_t n_nodes,
                         const uint8_t key[SL_DIGEST_KEY_BYTES], sl_err *err)
{
    *t = (sl_prefix){.pools = pools, .keep = *keep};
    find_groups(t, plan);
    sl_status status = sl_digester_open(key, &t->digester, err);
    if (status == SL_OK)
        status = allocate(t, n_nodes, err);
    if (status != SL_OK)
        sl_prefix_close(t);
    return status;
}

void sl_prefix_close(sl_prefix *t)
{
    sl_digester_close(t->digester);
    free(t->nodes);
    free(t->buckets);
    for (int g = 0; g < SL_MAX_KV_GROUPS; g++) {
        free(t->node_of[g]);
        sl_evict_close(&t->evict[g]);
    }
    *t = (sl_prefix){0};
}

static void root_tokens(uint64_t tenant, uint32_t adapter, uint32_t tokens[SL_KV_BLOCK])
{
    memset(tokens, 0, SL_KV_BLOCK * sizeof *tokens);
    tokens[0] = (uint32_t)tenant;
    tokens[1] = (uint32_t)(tenant >> 32);
    tokens[2] = adapter;
}

sl_digest sl_prefix_root_digest(const sl_prefix *t, const sl_plan *plan, uint64_t tenant, uint32_t adapter)
{
    uint64_t words[] = {tenant, adapter, (uint64_t)plan->kv_type, (uint64_t)plan->level, sl_keep_key(&t->keep)};
    return sl_digest_of(t->digester, words, sizeof words);
}

sl_digest sl_prefix_digest(const sl_prefix *t, const sl_digest *parent, const uint32_t *tokens)
{
    struct {
        sl_digest parent;
        uint32_t tokens[SL_KV_BLOCK];
    } message = {.parent = *parent};
    memcpy(message.tokens, tokens, sizeof message.tokens);
    return sl_digest_of(t->digester, &message, sizeof message);
}

static uint32_t *bucket(const sl_prefix *t, const sl_digest *digest)
{
    return &t->buckets[digest->word[0] & t->bucket_mask];
}

uint32_t sl_prefix_find(const sl_prefix *t, uint32_t parent, const sl_digest *digest, const uint32_t *tokens)
{
    for (uint32_t i = *bucket(t, digest); i != SL_NO_NODE; i = t->nodes[i].next) {
        const sl_prefix_node *n = &t->nodes[i];
        if (n->parent == parent && memcmp(&n->digest, digest, sizeof *digest) == 0 &&
            memcmp(n->tokens, tokens, sizeof n->tokens) == 0)
            return i;
    }
    return SL_NO_NODE;
}

uint32_t sl_prefix_find_root(const sl_prefix *t, const sl_digest *digest, uint64_t tenant, uint32_t adapter)
{
    uint32_t tokens[SL_KV_BLOCK];
    root_tokens(tenant, adapter, tokens);
    return sl_prefix_find(t, SL_NO_NODE, digest, tokens);
}

uint32_t sl_prefix_add(sl_prefix *t, uint32_t parent, const sl_digest *digest, const uint32_t *tokens)
{
    uint32_t node = t->unused;
    if (node == SL_NO_NODE)
        return SL_NO_NODE;
    sl_prefix_node *n = &t->nodes[node];
    t->unused = n->next;
    t->n_used++;
    *n = (sl_prefix_node){.digest = *digest, .parent = parent, .next = *bucket(t, digest), .in_use = true};
    memcpy(n->tokens, tokens, sizeof n->tokens);
    memset(n->blocks, 0xff, sizeof n->blocks);
    *bucket(t, digest) = node;
    if (parent != SL_NO_NODE) {
        sl_prefix_node *p = &t->nodes[parent];
        p->n_children++;
        n->depth = p->parent == SL_NO_NODE ? 0 : p->depth + 1;
        if (t->has_full)
            sl_evict_withdraw(&t->evict[t->full_group], parent);
    }
    return node;
}

uint32_t sl_prefix_root(sl_prefix *t, const sl_digest *digest, uint64_t tenant, uint32_t adapter)
{
    uint32_t tokens[SL_KV_BLOCK], root = sl_prefix_find_root(t, digest, tenant, adapter);
    root_tokens(tenant, adapter, tokens);
    return root != SL_NO_NODE ? root : sl_prefix_add(t, SL_NO_NODE, digest, tokens);
}

static void remove_node(sl_prefix *t, uint32_t node)
{
    sl_prefix_node *n = &t->nodes[node];
    uint32_t *link = bucket(t, &n->digest);
    while (*link != node)
        link = &t->nodes[*link].next;
    *link = n->next;
    n->in_use = false;
    n->next = t->unused;
    t->unused = node;
    t->n_used--;
}

/* ---- idle blocks ---- */

static bool is_idle(const sl_prefix *t, int g, uint32_t node)
{
    const sl_prefix_node *n = &t->nodes[node];
    return n->blocks[g] != SL_NO_BLOCK && t->pools[g].refs[n->blocks[g]] == 1 && n->n_pins[g] == 0;
}

/* Of a group without a window only leaves are evicted: what lies behind a missing block is of no use. */
static void offer(sl_prefix *t, int g, uint32_t node)
{
    bool is_full = t->has_full && g == t->full_group;
    if (is_idle(t, g, node) && !(is_full && t->nodes[node].n_children > 0))
        sl_evict_offer(&t->evict[g], node);
}

static void become_idle(sl_prefix *t, int g, uint32_t node)
{
    const sl_prefix_node *n = &t->nodes[node];
    bool is_full = t->has_full && g == t->full_group;
    t->n_idle[g]++;
    /* Of what is not kept whole, all blocks that a hit needs are worth the same, so that of those idle together the deepest,
     * which gave itself up first, goes first: without the sinks the others are of no use. */
    uint64_t depth = sl_keep_on(&t->keep) ? 0 : n->depth;
    sl_evict_value(&t->evict[g], node, is_full || n->is_end ? COST_DEPTH + depth * SL_KV_BLOCK : 0);
    offer(t, g, node);
}

static void leave_idle(sl_prefix *t, int g, uint32_t node)
{
    t->n_idle[g]--;
    sl_evict_withdraw(&t->evict[g], node);
}

/* The tree lets go of a node's block, which is idle. */
static void forget_block(sl_prefix *t, int g, uint32_t node)
{
    sl_prefix_node *n = &t->nodes[node];
    uint32_t block = n->blocks[g];
    SL_ASSERT(is_idle(t, g, node));
    leave_idle(t, g, node);
    n->blocks[g] = SL_NO_BLOCK;
    t->node_of[g][block] = SL_NO_NODE;
    t->n_cached[g]--;
    sl_blocks_drop(&t->pools[g], block);
}

/* Removes the node if nothing needs it any more, then its parents likewise. */
static void prune(sl_prefix *t, uint32_t node)
{
    while (node != SL_NO_NODE) {
        sl_prefix_node *n = &t->nodes[node];
        bool is_root = n->parent == SL_NO_NODE;
        if (n->n_children > 0 || n->n_users > 0 || (t->has_full && !is_root && n->blocks[t->full_group] != SL_NO_BLOCK))
            break;
        bool has_block = false;
        for (int g = 0; g < t->n_groups; g++)
            has_block |= n->blocks[g] != SL_NO_BLOCK;
        if (has_block && !t->has_full)
            break;
        for (int g = 0; g < t->n_groups; g++)
            if (n->blocks[g] != SL_NO_BLOCK)
                forget_block(t, g, node);
        uint32_t parent = n->parent;
        remove_node(t, node);
        if (parent != SL_NO_NODE && --t->nodes[parent].n_children == 0 && t->has_full)
            offer(t, t->full_group, parent);
        node = parent;
    }
}

void sl_prefix_give(sl_prefix *t, uint32_t node, int g, uint32_t block)
{
    SL_ASSERT(t->nodes[node].blocks[g] == SL_NO_BLOCK && t->node_of[g][block] == SL_NO_NODE);
    sl_blocks_share(&t->pools[g], block);
    t->nodes[node].blocks[g] = block;
    t->node_of[g][block] = node;
    t->n_cached[g]++;
}

void sl_prefix_enter(sl_prefix *t, uint32_t node)
{
    t->nodes[node].n_users++;
}

void sl_prefix_leave(sl_prefix *t, uint32_t node)
{
    t->nodes[node].n_users--;
    prune(t, node);
}

void sl_prefix_hold(sl_prefix *t, int g, uint32_t block)
{
    uint32_t node = t->node_of[g][block];
    if (node != SL_NO_NODE && is_idle(t, g, node))
        leave_idle(t, g, node);
    sl_blocks_share(&t->pools[g], block);
}

void sl_prefix_drop(sl_prefix *t, int g, uint32_t block)
{
    uint32_t node = t->node_of[g][block];
    sl_blocks_drop(&t->pools[g], block);
    if (node != SL_NO_NODE && is_idle(t, g, node))
        become_idle(t, g, node);
}

bool sl_prefix_evict(sl_prefix *t, int g)
{
    uint32_t node;
    if (!sl_evict_pop(&t->evict[g], &node))
        return false;
    forget_block(t, g, node);
    prune(t, node);
    return true;
}

void sl_prefix_pin(sl_prefix *t, uint32_t node, int g)
{
    sl_prefix_node *n = &t->nodes[node];
    if (is_idle(t, g, node))
        leave_idle(t, g, node);
    t->n_pinned[g] += n->n_pins[g]++ == 0;
}

void sl_prefix_unpin(sl_prefix *t, uint32_t node, int g)
{
    sl_prefix_node *n = &t->nodes[node];
    SL_ASSERT(n->n_pins[g] > 0);
    t->n_pinned[g] -= --n->n_pins[g] == 0;
    if (is_idle(t, g, node))
        become_idle(t, g, node);
}
