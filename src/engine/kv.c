#include "engine/kv.h"

#include "base/checked.h"

#include <string.h>

/* ---- sizes ---- */

uint32_t sl_kv_blocks_for(uint32_t n_positions, uint32_t window)
{
    uint32_t all = (uint32_t)sl_ceil_div(n_positions, SL_KV_BLOCK);
    /* A row sees window positions, itself among them, which begin anywhere in a block. */
    uint64_t seen = window ? sl_ceil_div(window - 1, SL_KV_BLOCK) + 1 : all;
    return (uint32_t)SL_MIN(all, seen);
}

uint32_t sl_kv_longest(const sl_plan *plan, const uint32_t n_blocks[SL_MAX_KV_GROUPS], uint32_t most)
{
    uint64_t longest = most;
    for (int g = 0; g < plan->n_groups; g++)
        if (sl_kv_blocks_for(most, plan->groups[g].window) > n_blocks[g])
            longest = SL_MIN(longest, (uint64_t)n_blocks[g] * SL_KV_BLOCK);
    return (uint32_t)longest;
}

/* Blocks of a group that a sequence of n_blocks blocks holds at most when chunk rows are done in a step. */
static uint64_t held_blocks(uint64_t n_blocks, uint32_t window, uint32_t chunk)
{
    uint64_t most = sl_ceil_div((uint64_t)window + chunk + SL_KV_BLOCK, SL_KV_BLOCK);
    return window ? SL_MIN(n_blocks, most) : n_blocks;
}

/* Bytes of n_sequences sequences of n_blocks blocks; UINT64_MAX when that overflows. */
static uint64_t sequence_bytes(const sl_plan *plan, uint32_t n_sequences, uint64_t n_blocks, uint32_t chunk)
{
    uint64_t sum = 0, bytes;
    for (int g = 0; g < plan->n_groups; g++) {
        uint64_t held = n_sequences * held_blocks(n_blocks, plan->groups[g].window, chunk);
        if (!sl_mul_u64(held, plan->groups[g].block_bytes, &bytes) || !sl_add_u64(sum, bytes, &sum))
            return UINT64_MAX;
    }
    return sum;
}

sl_status sl_kv_divide(const sl_plan *plan, uint64_t kv_bytes, uint32_t n_sequences, uint32_t context, uint32_t chunk,
                       uint32_t n_blocks[SL_MAX_KV_GROUPS], sl_err *err)
{
    uint64_t most = sl_ceil_div(context, SL_KV_BLOCK), low = 0, high = most;
    memset(n_blocks, 0, SL_MAX_KV_GROUPS * sizeof *n_blocks);
    while (kv_bytes && low < high) { /* the longest that fits */
        uint64_t middle = (low + high + 1) / 2;
        if (sequence_bytes(plan, n_sequences, middle, chunk) <= kv_bytes)
            low = middle;
        else
            high = middle - 1;
    }
    uint64_t full = sequence_bytes(plan, n_sequences, most, chunk), row = 0;
    /* What the next block of all sequences would take, were there room for it; the rest of the bytes buys part of that. */
    for (int g = 0; g < plan->n_groups; g++)
        if (held_blocks(high + 1, plan->groups[g].window, chunk) > held_blocks(high, plan->groups[g].window, chunk))
            row += plan->groups[g].block_bytes;
    for (int g = 0; g < plan->n_groups; g++) {
        uint64_t held = held_blocks(high, plan->groups[g].window, chunk), n = n_sequences * held;
        if (kv_bytes > full && full > 0)
            n = (uint64_t)((double)n * ((double)kv_bytes / (double)full));
        else if (kv_bytes && row > 0 && held_blocks(high + 1, plan->groups[g].window, chunk) > held && high < most)
            n += (kv_bytes - sequence_bytes(plan, n_sequences, high, chunk)) / row;
        if (n == 0)
            SL_FAIL(err, SL_ERR_LIMIT, "%llu bytes of KV memory do not hold one block of %d tokens for each layer",
                    (unsigned long long)kv_bytes, SL_KV_BLOCK);
        if (n >= SL_NO_BLOCK)
            SL_FAIL(err, SL_ERR_LIMIT, "%u sequences of %u tokens: more KV blocks than can be counted", n_sequences,
                    context);
        n_blocks[g] = (uint32_t)n;
    }
    return SL_OK;
}

sl_status sl_kv_open(sl_kv *kv, const sl_plan *plan, const sl_backend *backend, sl_context *context,
                     const uint32_t n_blocks[SL_MAX_KV_GROUPS], const sl_engine_options *options, sl_err *err)
{
    *kv = (sl_kv){.plan = plan, .backend = backend, .context = context, .shares = !options->no_prefix_cache};
    /* Roots, and nodes: where a group has no window, one for each of its blocks at most. Else there are also nodes whose
     * own blocks are gone, but not those behind them; without room for these the tree takes nothing new for a while. */
    uint64_t n_nodes = 0;
    bool has_full = false;
    for (int g = 0; g < plan->n_groups; g++) {
        SL_TRY(sl_blocks_open(&kv->pools[g], n_blocks[g], options->shuffle_seed, err));
        n_nodes = SL_MAX(n_nodes, n_blocks[g]);
        has_full |= plan->groups[g].window == 0;
    }
    n_nodes = n_nodes * (has_full ? 1 : 4) + 2 * (uint64_t)options->n_sequences + 16;
    n_nodes = kv->shares ? SL_MIN(n_nodes, SL_NO_NODE - 1) : 0;
    return sl_prefix_open(&kv->tree, plan, kv->pools, (uint32_t)n_nodes, options->cache_key, err);
}

void sl_kv_close(sl_kv *kv)
{
    sl_prefix_close(&kv->tree);
    for (int g = 0; g < SL_MAX_KV_GROUPS; g++)
        sl_blocks_close(&kv->pools[g]);
}

uint32_t sl_kv_available(const sl_kv *kv, int group)
{
    return kv->pools[group].n_free + kv->tree.n_idle[group];
}

sl_status sl_kv_check(const sl_kv *kv, uint32_t n_positions, sl_err *err)
{
    for (int g = 0; g < kv->plan->n_groups; g++) {
        uint32_t need = sl_kv_blocks_for(n_positions, kv->plan->groups[g].window);
        uint32_t pinned = kv->tree.n_pinned[g], have = kv->pools[g].n_blocks;
        if (need > have - pinned)
            SL_FAIL(err, SL_ERR_LIMIT,
                    "%u tokens need %u KV blocks, but the memory holds %u, %u of them pinned: ask for fewer tokens or "
                    "give more KV memory",
                    n_positions, need, have, pinned);
    }
    return SL_OK;
}

/* ---- the prefix tree's part ---- */

/* First block that a row at position 16 n_blocks still sees. */
static uint32_t first_seen(uint32_t n_positions, uint32_t window)
{
    return window && n_positions >= window ? (n_positions - window + 1) / SL_KV_BLOCK : 0;
}

static const sl_digest *digest_before(const sl_sequence *s, uint32_t block)
{
    return block == 0 ? &s->root_digest : &s->digests[block - 1];
}

/* Makes the digests of the first n_blocks blocks, whose tokens are known. */
static void make_digests(const sl_kv *kv, sl_sequence *s, uint32_t n_blocks)
{
    for (; s->n_digests < n_blocks; s->n_digests++)
        s->digests[s->n_digests] =
            sl_prefix_digest(&kv->tree, digest_before(s, s->n_digests), s->tokens + (size_t)s->n_digests * SL_KV_BLOCK);
}

void sl_kv_enter(sl_kv *kv, sl_sequence *s)
{
    if (!kv->shares)
        return;
    s->root_digest = sl_prefix_root_digest(&kv->tree, kv->plan, s->request.tenant, 0);
    make_digests(kv, s, s->n_tokens / SL_KV_BLOCK);
}

/* Blocks that a hit may cover: the last token's logits are needed, and those of positions to be scored. */
static uint32_t matchable_blocks(const sl_sequence *s)
{
    return SL_MIN(s->n_tokens - 1, s->n_scored) / SL_KV_BLOCK;
}

static uint32_t find_node(const sl_kv *kv, const sl_sequence *s, uint32_t parent, uint32_t block)
{
    return sl_prefix_find(&kv->tree, parent, &s->digests[block], s->tokens + (size_t)block * SL_KV_BLOCK);
}

/* Most blocks, from the first on, that the sequence can have once the tree's are added to its own; *node = the last. */
static uint32_t find_hit(const sl_kv *kv, sl_sequence *s, uint32_t *node)
{
    uint32_t n = s->n_done / SL_KV_BLOCK, best = n, most = matchable_blocks(s), run[SL_MAX_KV_GROUPS];
    uint32_t at =
        s->node != SL_NO_NODE ? s->node : sl_prefix_find_root(&kv->tree, &s->root_digest, s->request.tenant, 0);
    *node = at;
    if (at == SL_NO_NODE || s->n_done % SL_KV_BLOCK != 0 || s->n_published != n)
        return best;
    make_digests(kv, s, most);
    for (int g = 0; g < kv->plan->n_groups; g++)
        run[g] = n; /* its own blocks, as far as windows reach */
    while (n < most && (at = find_node(kv, s, at, n)) != SL_NO_NODE) {
        n++;
        bool reaches = true;
        for (int g = 0; g < kv->plan->n_groups; g++) {
            run[g] = kv->tree.nodes[at].blocks[g] != SL_NO_BLOCK ? run[g] + 1 : 0;
            reaches &= run[g] >= n - first_seen(n * SL_KV_BLOCK, kv->plan->groups[g].window);
        }
        if (reaches) {
            best = n;
            *node = at;
        }
    }
    return best;
}

/* Lets go of the sequence's blocks of a group below block `end`. */
static void drop_until(sl_kv *kv, sl_sequence *s, int g, uint32_t end)
{
    while (s->n_freed[g] < SL_MIN(end, s->n_taken[g])) {
        uint32_t *slot = &s->blocks[g][s->n_freed[g]++];
        sl_prefix_drop(&kv->tree, g, *slot);
        *slot = SL_NO_BLOCK;
    }
}

/* Lets go of those from block `begin` on. */
static void drop_from(sl_kv *kv, sl_sequence *s, int g, uint32_t begin)
{
    while (s->n_taken[g] > SL_MAX(begin, s->n_freed[g])) {
        uint32_t *slot = &s->blocks[g][--s->n_taken[g]];
        sl_prefix_drop(&kv->tree, g, *slot);
        *slot = SL_NO_BLOCK;
    }
}

static void move_to_node(sl_kv *kv, sl_sequence *s, uint32_t node)
{
    if (node != SL_NO_NODE)
        sl_prefix_enter(&kv->tree, node);
    if (s->node != SL_NO_NODE)
        sl_prefix_leave(&kv->tree, s->node);
    s->node = node;
}

void sl_kv_need(sl_kv *kv, sl_sequence *s, uint32_t n_blocks[SL_MAX_KV_GROUPS])
{
    uint32_t node = SL_NO_NODE, begin = s->n_done / SL_KV_BLOCK;
    uint32_t hit = kv->shares ? find_hit(kv, s, &node) : begin;
    for (int g = 0; g < kv->plan->n_groups; g++) {
        uint32_t have = s->n_taken[g] - s->n_freed[g], window = kv->plan->groups[g].window;
        uint32_t at = node, seen = first_seen(hit * SL_KV_BLOCK, window);
        for (uint32_t n = hit; n > SL_MAX(begin, seen); n--, at = kv->tree.nodes[at].parent)
            have += kv->pools[g].refs[kv->tree.nodes[at].blocks[g]] > 1;
        uint32_t need = sl_kv_blocks_for(s->n_tokens, window);
        n_blocks[g] = need > have ? need - have : 0;
    }
}

void sl_kv_add_sole(const sl_kv *kv, const sl_sequence *s, uint64_t n_blocks[SL_MAX_KV_GROUPS])
{
    const sl_prefix *tree = &kv->tree;
    for (int g = 0; g < kv->plan->n_groups; g++)
        for (uint32_t i = s->n_freed[g]; i < s->n_taken[g]; i++) {
            uint32_t block = s->blocks[g][i], node = tree->node_of[g][block];
            bool cached = node != SL_NO_NODE, pinned = cached && tree->nodes[node].n_pins[g] > 0;
            n_blocks[g] += !pinned && kv->pools[g].refs[block] == 1u + cached;
        }
}

uint32_t sl_kv_match(sl_kv *kv, sl_sequence *s)
{
    uint32_t node, before = s->n_done;
    if (!kv->shares)
        return 0;
    uint32_t begin = before / SL_KV_BLOCK, hit = find_hit(kv, s, &node);
    if (hit == begin)
        return 0;
    for (int g = 0; g < kv->plan->n_groups; g++) {
        uint32_t window = kv->plan->groups[g].window, seen = first_seen(hit * SL_KV_BLOCK, window), at = node;
        SL_ASSERT(s->n_taken[g] == begin);
        for (uint32_t n = hit; n > SL_MAX(begin, seen); n--, at = kv->tree.nodes[at].parent) {
            s->blocks[g][n - 1] = kv->tree.nodes[at].blocks[g];
            sl_prefix_hold(&kv->tree, g, s->blocks[g][n - 1]);
            kv->tree.nodes[at].is_end |= window > 0;
        }
        drop_until(kv, s, g, seen);
        s->n_freed[g] = SL_MAX(s->n_freed[g], seen);
        s->n_taken[g] = hit;
    }
    move_to_node(kv, s, node);
    s->n_done = hit * SL_KV_BLOCK;
    s->n_published = hit;
    return s->n_done - before;
}

bool sl_kv_makes_next(const sl_kv *kv, const sl_sequence *other, const sl_sequence *s)
{
    uint32_t block = s->n_done / SL_KV_BLOCK, end = (block + 1) * SL_KV_BLOCK;
    return kv->shares && s->n_done % SL_KV_BLOCK == 0 && block < matchable_blocks(s) && block < other->n_digests &&
           other->n_done < end && memcmp(&other->digests[block], &s->digests[block], sizeof(sl_digest)) == 0 &&
           other->request.tenant == s->request.tenant && memcmp(other->tokens, s->tokens, end * sizeof *s->tokens) == 0;
}

/* ---- blocks of a sequence ---- */

static bool take_block(sl_kv *kv, int g, uint32_t *block)
{
    if (kv->pools[g].n_free == 0 && !sl_prefix_evict(&kv->tree, g))
        return false;
    *block = sl_blocks_take(&kv->pools[g]);
    return true;
}

/* Gives the sequence a copy of its partly filled last block if others hold that as well; false without memory. */
static bool own_last_block(sl_kv *kv, sl_sequence *s, int g)
{
    if (s->n_done % SL_KV_BLOCK == 0)
        return true;
    uint32_t *slot = &s->blocks[g][s->n_done / SL_KV_BLOCK], shared = *slot;
    if (kv->pools[g].refs[shared] == 1)
        return true;
    if (!take_block(kv, g, slot))
        return false;
    kv->backend->copy_block(kv->context, g, shared, *slot);
    sl_blocks_drop(&kv->pools[g], shared);
    return true;
}

uint32_t sl_kv_extend(sl_kv *kv, sl_sequence *s, uint32_t end)
{
    for (int g = 0; g < kv->plan->n_groups; g++) {
        if (!own_last_block(kv, s, g))
            end = s->n_done;
        while ((uint64_t)s->n_taken[g] * SL_KV_BLOCK < end && take_block(kv, g, &s->blocks[g][s->n_taken[g]]))
            s->n_taken[g]++;
        end = SL_MIN(end, s->n_taken[g] * SL_KV_BLOCK);
    }
    for (int g = 0; g < kv->plan->n_groups; g++)
        drop_from(kv, s, g, (uint32_t)sl_ceil_div(end, SL_KV_BLOCK));
    return end;
}

/* Puts block i of the sequence into the tree; false when that is full. Where the tree has one with the same tokens
 * already (two sequences computed them at once), its blocks hold the same bits and replace the sequence's own. */
static bool publish_block(sl_kv *kv, sl_sequence *s, uint32_t i)
{
    sl_prefix *t = &kv->tree;
    const uint32_t *tokens = s->tokens + (size_t)i * SL_KV_BLOCK;
    make_digests(kv, s, i + 1);
    if (s->node == SL_NO_NODE) {
        uint32_t root = sl_prefix_root(t, &s->root_digest, s->request.tenant, 0);
        if (root == SL_NO_NODE)
            return false;
        move_to_node(kv, s, root);
    }
    uint32_t node = find_node(kv, s, s->node, i);
    if (node == SL_NO_NODE)
        node = sl_prefix_add(t, s->node, &s->digests[i], tokens);
    if (node == SL_NO_NODE)
        return false;
    for (int g = 0; g < kv->plan->n_groups; g++) {
        uint32_t *slot = &s->blocks[g][i], cached = t->nodes[node].blocks[g];
        if (*slot == SL_NO_BLOCK || *slot == cached)
            continue;
        if (cached == SL_NO_BLOCK) {
            sl_prefix_give(t, node, g, *slot);
            continue;
        }
        sl_prefix_hold(t, g, cached);
        sl_prefix_drop(t, g, *slot);
        *slot = cached;
    }
    move_to_node(kv, s, node);
    return true;
}

void sl_kv_publish(sl_kv *kv, sl_sequence *s)
{
    while (kv->shares && s->n_published < s->n_done / SL_KV_BLOCK && publish_block(kv, s, s->n_published))
        s->n_published++;
    for (int g = 0; g < kv->plan->n_groups; g++)
        drop_until(kv, s, g, first_seen(s->n_done, kv->plan->groups[g].window));
}

void sl_kv_fork(sl_kv *kv, const sl_sequence *elder, sl_sequence *s)
{
    for (int g = 0; g < kv->plan->n_groups; g++) {
        s->n_freed[g] = elder->n_freed[g];
        s->n_taken[g] = elder->n_taken[g];
        for (uint32_t i = s->n_freed[g]; i < s->n_taken[g]; i++) {
            s->blocks[g][i] = elder->blocks[g][i];
            sl_prefix_hold(&kv->tree, g, s->blocks[g][i]);
        }
    }
    s->n_done = elder->n_done;
    s->n_published = elder->n_published;
    move_to_node(kv, s, elder->node);
}

/* The sequence's tokens end here, and others may go on from there: the blocks in reach of its window may serve again. */
static void mark_end(sl_kv *kv, const sl_sequence *s)
{
    uint32_t node = s->node, widest = 0;
    for (int g = 0; g < kv->plan->n_groups; g++)
        widest = SL_MAX(widest, kv->plan->groups[g].window);
    uint32_t n = widest ? (uint32_t)sl_ceil_div(widest, SL_KV_BLOCK) : 0;
    for (; n > 0 && node != SL_NO_NODE; n--, node = kv->tree.nodes[node].parent)
        kv->tree.nodes[node].is_end = true;
}

void sl_kv_release(sl_kv *kv, sl_sequence *s)
{
    mark_end(kv, s);
    /* From the last block on, so that of equal worth the deeper goes first. */
    for (int g = 0; g < kv->plan->n_groups; g++) {
        drop_from(kv, s, g, 0);
        s->n_freed[g] = s->n_taken[g] = 0;
    }
    move_to_node(kv, s, SL_NO_NODE);
    s->n_done = s->n_published = 0;
}

/* ---- pins ---- */

/* Walks the tree along the tokens. Returns the number of whole blocks found, *node = the last one's. */
static uint32_t walk(const sl_kv *kv, uint64_t tenant, const uint32_t *tokens, uint32_t n_tokens, uint32_t *node)
{
    sl_digest digest = sl_prefix_root_digest(&kv->tree, kv->plan, tenant, 0);
    uint32_t n = 0, at = sl_prefix_find_root(&kv->tree, &digest, tenant, 0);
    while (at != SL_NO_NODE) {
        *node = at;
        if ((n + 1) * SL_KV_BLOCK > n_tokens)
            break;
        digest = sl_prefix_digest(&kv->tree, &digest, tokens + (size_t)n * SL_KV_BLOCK);
        at = sl_prefix_find(&kv->tree, at, &digest, tokens + (size_t)n * SL_KV_BLOCK);
        n += at != SL_NO_NODE;
    }
    return n;
}

/* True when a row behind n_blocks blocks, the last one node's, would find all that it sees of a group (with a pin, if
 * that is asked for). */
static bool is_covered(const sl_kv *kv, uint32_t node, uint32_t n_blocks, int g, bool pinned)
{
    uint32_t seen = first_seen(n_blocks * SL_KV_BLOCK, kv->plan->groups[g].window);
    for (; n_blocks > seen; n_blocks--, node = kv->tree.nodes[node].parent)
        if (kv->tree.nodes[node].blocks[g] == SL_NO_BLOCK || (pinned && kv->tree.nodes[node].n_pins[g] == 0))
            return false;
    return true;
}

static bool is_covered_by_all(const sl_kv *kv, uint32_t node, uint32_t n_blocks, bool pinned)
{
    bool all = true;
    for (int g = 0; g < kv->plan->n_groups; g++)
        all &= is_covered(kv, node, n_blocks, g, pinned);
    return all;
}

static void change_pins(sl_kv *kv, uint32_t end, uint32_t n_blocks, void (*change)(sl_prefix *, uint32_t, int))
{
    for (int g = 0; g < kv->plan->n_groups; g++) {
        uint32_t seen = first_seen(n_blocks * SL_KV_BLOCK, kv->plan->groups[g].window), node = end;
        for (uint32_t n = n_blocks; n > seen; n--, node = kv->tree.nodes[node].parent)
            change(&kv->tree, node, g);
    }
}

sl_status sl_kv_pin(sl_kv *kv, uint64_t tenant, const uint32_t *tokens, uint32_t n_tokens, uint32_t *n_pinned,
                    sl_err *err)
{
    uint32_t node = SL_NO_NODE, n = kv->shares ? walk(kv, tenant, tokens, n_tokens, &node) : 0;
    for (; n > 0 && !is_covered_by_all(kv, node, n, false); n--)
        node = kv->tree.nodes[node].parent;
    if (n == 0)
        SL_FAIL(err, SL_ERR_NOT_FOUND, "nothing is cached of the %u tokens to be pinned", n_tokens);
    change_pins(kv, node, n, sl_prefix_pin);
    *n_pinned = n * SL_KV_BLOCK;
    return SL_OK;
}

sl_status sl_kv_unpin(sl_kv *kv, uint64_t tenant, const uint32_t *tokens, uint32_t n_tokens, sl_err *err)
{
    uint32_t node = SL_NO_NODE, n = kv->shares ? walk(kv, tenant, tokens, n_tokens, &node) : 0;
    if (n == 0 || n != n_tokens / SL_KV_BLOCK || !is_covered_by_all(kv, node, n, true))
        SL_FAIL(err, SL_ERR_NOT_FOUND, "the %u tokens are not pinned", n_tokens);
    change_pins(kv, node, n, sl_prefix_unpin);
    return SL_OK;
}
