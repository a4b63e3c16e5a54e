#include "engine/kv.h"

#include "base/checked.h"

#include <stdlib.h>
#include <string.h>

/* ---- sizes ---- */

uint32_t sl_kv_blocks_for(uint32_t n_positions, uint32_t window)
{
    uint32_t all = (uint32_t)sl_ceil_div(n_positions, SL_KV_BLOCK);
    /* A row sees window positions, itself among them, which begin anywhere in a block. */
    uint64_t seen = window ? sl_ceil_div(window - 1, SL_KV_BLOCK) + 1 : all;
    return (uint32_t)SL_MIN(all, seen);
}

/* Blocks of a group that n_positions of one sequence take at most at once, computed one after the other. */
static uint32_t group_blocks(const sl_plan *plan, const sl_keep *keep, int g, uint32_t n_positions)
{
    uint32_t window = plan->groups[g].window, n = sl_kv_blocks_for(n_positions, window);
    return window ? n : sl_keep_most(keep, n);
}

uint32_t sl_kv_longest(const sl_plan *plan, const sl_keep *keep, const uint32_t n_blocks[SL_MAX_KV_GROUPS],
                       uint32_t most)
{
    uint64_t longest = most;
    for (int g = 0; g < plan->n_groups; g++)
        if (group_blocks(plan, keep, g, most) > n_blocks[g])
            longest = SL_MIN(longest, (uint64_t)n_blocks[g] * SL_KV_BLOCK);
    return (uint32_t)longest;
}

/* Blocks of a group that a sequence of n_blocks blocks holds at most when chunk rows are done in a step. */
static uint64_t held_blocks(const sl_plan *plan, const sl_keep *keep, int g, uint64_t n_blocks, uint32_t chunk)
{
    uint32_t window = plan->groups[g].window;
    uint64_t most = sl_ceil_div((uint64_t)window + chunk + SL_KV_BLOCK, SL_KV_BLOCK);
    return window ? SL_MIN(n_blocks, most) : sl_keep_most(keep, (uint32_t)n_blocks);
}

/* Bytes of n_sequences sequences of n_blocks blocks; UINT64_MAX when that overflows. */
static uint64_t sequence_bytes(const sl_plan *plan, const sl_keep *keep, uint32_t n_sequences, uint64_t n_blocks,
                               uint32_t chunk)
{
    uint64_t sum = 0, bytes;
    for (int g = 0; g < plan->n_groups; g++) {
        uint64_t held = n_sequences * held_blocks(plan, keep, g, n_blocks, chunk);
        if (!sl_mul_u64(held, plan->groups[g].block_bytes, &bytes) || !sl_add_u64(sum, bytes, &sum))
            return UINT64_MAX;
    }
    return sum;
}

sl_status sl_kv_divide(const sl_plan *plan, const sl_keep *keep, uint64_t kv_bytes, uint32_t n_sequences,
                       uint32_t context, uint32_t chunk, uint32_t n_blocks[SL_MAX_KV_GROUPS], sl_err *err)
{
    uint64_t most = sl_ceil_div(context, SL_KV_BLOCK), low = 0, high = most;
    memset(n_blocks, 0, SL_MAX_KV_GROUPS * sizeof *n_blocks);
    while (kv_bytes && low < high) { /* the longest that fits */
        uint64_t middle = (low + high + 1) / 2;
        if (sequence_bytes(plan, keep, n_sequences, middle, chunk) <= kv_bytes)
            low = middle;
        else
            high = middle - 1;
    }
    uint64_t full = sequence_bytes(plan, keep, n_sequences, most, chunk), row = 0;
    /* What the next block of all sequences would take, were there room for it; the rest of the bytes buys part of that. */
    for (int g = 0; g < plan->n_groups; g++)
        if (held_blocks(plan, keep, g, high + 1, chunk) > held_blocks(plan, keep, g, high, chunk))
            row += plan->groups[g].block_bytes;
    for (int g = 0; g < plan->n_groups; g++) {
        uint64_t held = held_blocks(plan, keep, g, high, chunk), n = n_sequences * held;
        if (kv_bytes > full && full > 0)
            n = (uint64_t)((double)n * ((double)kv_bytes / (double)full));
        else if (kv_bytes && row > 0 && held_blocks(plan, keep, g, high + 1, chunk) > held && high < most)
            n += (kv_bytes - sequence_bytes(plan, keep, n_sequences, high, chunk)) / row;
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
    enum { MOST_PASSED = 1 << 18 };
    *kv = (sl_kv){.plan = plan,
                  .backend = backend,
                  .context = context,
                  .keep = options->keep,
                  .shares = !options->no_prefix_cache};
    /* Roots, and nodes: where a group has no window, one for each of its blocks at most. Else there are also nodes whose
     * own blocks are gone, but not those behind them; without room for these the tree takes nothing new for a while. */
    uint64_t n_nodes = 0, passed = options->n_sequences * sl_ceil_div(options->context, SL_KV_BLOCK);
    bool has_full = false, keeps = sl_keep_on(&kv->keep);
    for (int g = 0; g < plan->n_groups; g++) {
        SL_TRY(sl_blocks_open(&kv->pools[g], n_blocks[g], options->shuffle_seed, err));
        n_nodes = SL_MAX(n_nodes, n_blocks[g]);
        has_full |= plan->groups[g].window == 0 && !keeps;
    }
    n_nodes = n_nodes * (has_full ? 1 : 4) + 2 * (uint64_t)options->n_sequences + 16;
    n_nodes += keeps ? SL_MIN(passed, (uint64_t)MOST_PASSED) : 0;
    n_nodes = kv->shares ? SL_MIN(n_nodes, SL_NO_NODE - 1) : 0;
    return sl_prefix_open(&kv->tree, plan, &kv->keep, kv->pools, (uint32_t)n_nodes, options->cache_key, err);
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

uint32_t sl_kv_group_blocks(const sl_kv *kv, int group, uint32_t n_positions)
{
    return group_blocks(kv->plan, &kv->keep, group, n_positions);
}

sl_status sl_kv_check(const sl_kv *kv, uint32_t n_positions, sl_err *err)
{
    for (int g = 0; g < kv->plan->n_groups; g++) {
        uint32_t need = sl_kv_group_blocks(kv, g, n_positions);
        uint32_t pinned = kv->tree.n_pinned[g], have = kv->pools[g].n_blocks;
        if (need > have - pinned)
            SL_FAIL(err, SL_ERR_LIMIT,
                    "%u tokens need %u KV blocks, but the memory holds %u, %u of them pinned: ask for fewer tokens or "
                    "give more KV memory",
                    n_positions, need, have, pinned);
    }
    return SL_OK;
}

sl_status sl_kv_prepare(const sl_kv *kv, sl_sequence *s, sl_err *err)
{
    if (kv->keep.heavy == 0)
        return SL_OK;
    s->n_mass = sl_keep_most(&kv->keep, sl_sequence_max_positions(s) / SL_KV_BLOCK + 1);
    for (int g = 0; g < kv->plan->n_groups; g++)
        if (kv->plan->groups[g].window == 0 && !(s->mass[g] = calloc(s->n_mass, sizeof *s->mass[g])))
            SL_FAIL(err, SL_ERR_NOMEM, "no memory for the attention of %u KV blocks", s->n_mass);
    return SL_OK;
}

/* ---- what is seen ---- */

/* First block that a row at position 16 n_blocks still sees. */
static uint32_t first_seen(uint32_t n_positions, uint32_t window)
{
    return window && n_positions >= window ? (n_positions - window + 1) / SL_KV_BLOCK : 0;
}

/* Of the blocks before a row those below front and those from back on. */
typedef struct view {
    uint32_t front, back;
} view;

/* What a row at position 16 n_blocks sees of a group; not asked where attention decides it. */
static view view_behind(const sl_kv *kv, int g, uint32_t n_blocks)
{
    uint32_t window = kv->plan->groups[g].window, position = n_blocks * SL_KV_BLOCK;
    uint32_t n_dropped = window ? 0 : sl_keep_dropped(&kv->keep, position), sinks = kv->keep.sinks / SL_KV_BLOCK;
    SL_ASSERT(n_dropped == 0 || kv->keep.heavy == 0);
    return n_dropped > 0 ? (view){sinks, sinks + n_dropped} : (view){0, first_seen(position, window)};
}

static bool is_seen(view v, uint32_t block)
{
    return block < v.front || block >= v.back;
}

/* No block before this one is seen. */
static uint32_t view_begin(view v)
{
    return v.front > 0 ? 0 : v.back;
}

/* Where block i of the sequence, which is held, stands in the table. */
static uint32_t *place_of(const sl_kv *kv, const sl_sequence *s, int g, uint32_t i)
{
    return &s->blocks[g][i < kv->keep.sinks / SL_KV_BLOCK ? i : i - s->n_dropped[g]];
}

/* ---- the prefix tree's part ---- */

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
static uint32_t matchable_blocks(const sl_kv *kv, const sl_sequence *s)
{
    return SL_MIN(SL_MIN(s->n_tokens - 1, s->n_scored) / SL_KV_BLOCK, sl_keep_shared(&kv->keep));
}

static uint32_t find_node(const sl_kv *kv, const sl_sequence *s, uint32_t parent, uint32_t block)
{
    return sl_prefix_find(&kv->tree, parent, &s->digests[block], s->tokens + (size_t)block * SL_KV_BLOCK);
}

/* Most blocks, from the first on, that the sequence can have once the tree's are added to its own; *node = the last. */
static uint32_t find_hit(const sl_kv *kv, sl_sequence *s, uint32_t *node)
{
    uint32_t n = s->n_done / SL_KV_BLOCK, best = n, most = matchable_blocks(kv, s);
    uint32_t run[SL_MAX_KV_GROUPS], lead[SL_MAX_KV_GROUPS]; /* blocks that are there up to n, and from the first on */
    uint32_t at =
        s->node != SL_NO_NODE ? s->node : sl_prefix_find_root(&kv->tree, &s->root_digest, s->request.tenant, 0);
    *node = at;
    if (at == SL_NO_NODE || s->n_done % SL_KV_BLOCK != 0 || s->n_published != n)
        return best;
    make_digests(kv, s, most);
    for (int g = 0; g < kv->plan->n_groups; g++)
        run[g] = lead[g] = n; /* its own blocks, as far as they are seen */
    while (n < most && (at = find_node(kv, s, at, n)) != SL_NO_NODE) {
        n++;
        bool reaches = true;
        for (int g = 0; g < kv->plan->n_groups; g++) {
            view v = view_behind(kv, g, n);
            bool has = kv->tree.nodes[at].blocks[g] != SL_NO_BLOCK;
            run[g] = has ? run[g] + 1 : 0;
            lead[g] += has && lead[g] == n - 1;
            reaches &= run[g] >= n - v.back && lead[g] >= v.front;
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
        uint32_t *place = &s->blocks[g][s->n_freed[g]++];
        sl_prefix_drop(&kv->tree, g, *place);
        *place = SL_NO_BLOCK;
    }
}

/* Lets go of those from block `begin` on. */
static void drop_from(sl_kv *kv, sl_sequence *s, int g, uint32_t begin)
{
    uint32_t first = begin > s->n_dropped[g] ? begin - s->n_dropped[g] : 0;
    while (s->n_taken[g] > SL_MAX(first, s->n_freed[g])) {
        uint32_t *place = &s->blocks[g][--s->n_taken[g]];
        sl_prefix_drop(&kv->tree, g, *place);
        *place = SL_NO_BLOCK;
    }
}

/* Lets go of the n blocks from a place of the table on for good; those behind them move up. */
static void cut_out(sl_kv *kv, sl_sequence *s, int g, uint32_t first, uint32_t n)
{
    uint32_t *places = s->blocks[g] + first, n_behind = s->n_taken[g] - first - n;
    for (uint32_t i = 0; i < n; i++)
        sl_prefix_drop(&kv->tree, g, places[i]);
    memmove(places, places + n, n_behind * sizeof *places);
    memset(places + n_behind, 0xff, n * sizeof *places);
    s->n_taken[g] -= n;
    if (!s->mass[g])
        return;
    uint64_t *mass = s->mass[g] + first;
    memmove(mass, mass + n, n_behind * sizeof *mass);
    memset(mass + n_behind, 0, n * sizeof *mass);
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
        view v = view_behind(kv, g, hit);
        uint32_t have = s->n_taken[g] - s->n_freed[g], first = SL_MAX(begin, view_begin(v)), at = node;
        for (uint32_t n = hit; n > first; n--, at = kv->tree.nodes[at].parent)
            have += is_seen(v, n - 1) && kv->pools[g].refs[kv->tree.nodes[at].blocks[g]] > 1;
        uint32_t need = sl_kv_group_blocks(kv, g, s->n_tokens);
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

/* Gives the sequence the blocks of a group that are seen behind a hit, the last of them node's, and lets go of the others. */
static void adopt(sl_kv *kv, sl_sequence *s, int g, uint32_t hit, uint32_t node)
{
    const view v = view_behind(kv, g, hit);
    const bool windowed = kv->plan->groups[g].window > 0;
    uint32_t begin = s->n_done / SL_KV_BLOCK, n_dropped = windowed ? 0 : v.back - v.front;
    SL_ASSERT(s->n_taken[g] + s->n_dropped[g] == begin && n_dropped >= s->n_dropped[g]);
    if (n_dropped > s->n_dropped[g]) {
        uint32_t behind = s->n_taken[g] - SL_MIN(v.front, s->n_taken[g]);
        cut_out(kv, s, g, s->n_taken[g] - behind, SL_MIN(behind, n_dropped - s->n_dropped[g]));
        s->n_dropped[g] = n_dropped;
    }
    for (uint32_t n = hit; n > SL_MAX(begin, view_begin(v)); n--, node = kv->tree.nodes[node].parent) {
        if (!is_seen(v, n - 1))
            continue;
        uint32_t *place = place_of(kv, s, g, n - 1);
        *place = kv->tree.nodes[node].blocks[g];
        sl_prefix_hold(&kv->tree, g, *place);
        kv->tree.nodes[node].is_end |= windowed || sl_keep_on(&kv->keep);
    }
    if (windowed) {
        drop_until(kv, s, g, v.back);
        s->n_freed[g] = SL_MAX(s->n_freed[g], v.back);
    }
    s->n_taken[g] = hit - n_dropped;
}

uint32_t sl_kv_match(sl_kv *kv, sl_sequence *s)
{
    uint32_t node, before = s->n_done;
    if (!kv->shares)
        return 0;
    uint32_t hit = find_hit(kv, s, &node);
    if (hit == before / SL_KV_BLOCK)
        return 0;
    for (int g = 0; g < kv->plan->n_groups; g++)
        adopt(kv, s, g, hit, node);
    move_to_node(kv, s, node);
    s->n_done = hit * SL_KV_BLOCK;
    s->n_published = hit;
    return s->n_done - before;
}

bool sl_kv_makes_next(const sl_kv *kv, const sl_sequence *other, const sl_sequence *s)
{
    uint32_t block = s->n_done / SL_KV_BLOCK, end = (block + 1) * SL_KV_BLOCK;
    return kv->shares && s->n_done % SL_KV_BLOCK == 0 && block < matchable_blocks(kv, s) && block < other->n_digests &&
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
    uint32_t *slot = place_of(kv, s, g, s->n_done / SL_KV_BLOCK), shared = *slot;
    if (kv->pools[g].refs[shared] == 1)
        return true;
    if (!take_block(kv, g, slot))
        return false;
    kv->backend->copy_block(kv->context, g, shared, *slot);
    sl_blocks_drop(&kv->pools[g], shared);
    return true;
}

/* Takes blocks for the first `end` positions of a group's table; returns the end that there was memory for. */
static uint32_t take_until(sl_kv *kv, sl_sequence *s, int g, uint32_t end)
{
    while ((uint64_t)s->n_taken[g] * SL_KV_BLOCK < end && take_block(kv, g, &s->blocks[g][s->n_taken[g]]))
        s->n_taken[g]++;
    return SL_MIN(end, s->n_taken[g] * SL_KV_BLOCK);
}

uint32_t sl_kv_extend(sl_kv *kv, sl_sequence *s, uint32_t end)
{
    for (int g = 0; g < kv->plan->n_groups; g++) {
        uint32_t gone = s->n_dropped[g] * SL_KV_BLOCK;
        if (!own_last_block(kv, s, g))
            end = s->n_done;
        end = gone + take_until(kv, s, g, end - gone);
    }
    for (int g = 0; g < kv->plan->n_groups; g++)
        drop_from(kv, s, g, (uint32_t)sl_ceil_div(end, SL_KV_BLOCK));
    return end;
}

/* What the tree is to have of the sequence's block i: SL_NO_BLOCK where that was passed meanwhile. */
static uint32_t *publishable(const sl_kv *kv, const sl_sequence *s, int g, uint32_t i)
{
    uint32_t sinks = kv->keep.sinks / SL_KV_BLOCK;
    bool gone = i >= sinks && i < sinks + s->n_dropped[g];
    uint32_t *place = gone ? NULL : place_of(kv, s, g, i);
    return place && *place != SL_NO_BLOCK ? place : NULL;
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
        uint32_t *place = publishable(kv, s, g, i), cached = t->nodes[node].blocks[g];
        if (!place || *place == cached)
            continue;
        if (cached == SL_NO_BLOCK) {
            sl_prefix_give(t, node, g, *place);
            continue;
        }
        sl_prefix_hold(t, g, cached);
        sl_prefix_drop(t, g, *place);
        *place = cached;
    }
    move_to_node(kv, s, node);
    return true;
}

/* Of the blocks between the first and the recent ones, lets go of the n that drew the least attention, of equal ones the
 * earlier; the others keep half of theirs, so that what was heavy long ago does not stay for ever. */
static void drop_lightest(sl_kv *kv, sl_sequence *s, int g, uint32_t n)
{
    const uint32_t sinks = kv->keep.sinks / SL_KV_BLOCK, recent = kv->keep.recent / SL_KV_BLOCK;
    uint64_t *mass = s->mass[g];
    for (; n > 0; n--) {
        uint32_t lightest = sinks;
        for (uint32_t i = sinks + 1; i < s->n_taken[g] - recent; i++)
            lightest = mass[i] < mass[lightest] ? i : lightest;
        cut_out(kv, s, g, lightest, 1);
    }
    for (uint32_t i = 0; i < s->n_taken[g]; i++)
        mass[i] /= 2;
}

/* Lets go of what rows from n_done on do not see. */
static void drop_unseen(sl_kv *kv, sl_sequence *s, int g)
{
    uint32_t window = kv->plan->groups[g].window;
    if (window) {
        drop_until(kv, s, g, first_seen(s->n_done, window));
        return;
    }
    uint32_t n = sl_keep_dropped(&kv->keep, s->n_done) - s->n_dropped[g];
    if (n > 0 && s->mass[g])
        drop_lightest(kv, s, g, n);
    else if (n > 0)
        cut_out(kv, s, g, kv->keep.sinks / SL_KV_BLOCK, n);
    s->n_dropped[g] += n;
}

void sl_kv_publish(sl_kv *kv, sl_sequence *s)
{
    const uint32_t most = SL_MIN(s->n_done / SL_KV_BLOCK, sl_keep_shared(&kv->keep));
    while (kv->shares && s->n_published < most && publish_block(kv, s, s->n_published))
        s->n_published++;
    for (int g = 0; g < kv->plan->n_groups; g++)
        drop_unseen(kv, s, g);
}

void sl_kv_fork(sl_kv *kv, const sl_sequence *elder, sl_sequence *s)
{
    for (int g = 0; g < kv->plan->n_groups; g++) {
        s->n_freed[g] = elder->n_freed[g];
        s->n_taken[g] = elder->n_taken[g];
        s->n_dropped[g] = elder->n_dropped[g];
        for (uint32_t i = s->n_freed[g]; i < s->n_taken[g]; i++) {
            s->blocks[g][i] = elder->blocks[g][i];
            sl_prefix_hold(&kv->tree, g, s->blocks[g][i]);
        }
        if (s->mass[g])
            memcpy(s->mass[g], elder->mass[g], SL_MIN(s->n_mass, elder->n_mass) * sizeof *s->mass[g]);
    }
    s->n_done = elder->n_done;
    s->n_published = elder->n_published;
    move_to_node(kv, s, elder->node);
}

/* The sequence's tokens end here, and others may go on from there: the blocks in reach of its window may serve again, and
 * where not everything is kept, any may. */
static void mark_end(sl_kv *kv, const sl_sequence *s)
{
    uint32_t node = s->node, widest = 0;
    for (int g = 0; g < kv->plan->n_groups; g++)
        widest = SL_MAX(widest, kv->plan->groups[g].window);
    uint32_t n = widest ? (uint32_t)sl_ceil_div(widest, SL_KV_BLOCK) : 0;
    n = sl_keep_on(&kv->keep) ? UINT32_MAX : n;
    for (; n > 0 && node != SL_NO_NODE; n--, node = kv->tree.nodes[node].parent)
        kv->tree.nodes[node].is_end = true;
}

void sl_kv_release(sl_kv *kv, sl_sequence *s)
{
    mark_end(kv, s);
    /* From the last block on, so that of equal worth the deeper goes first. */
    for (int g = 0; g < kv->plan->n_groups; g++) {
        drop_from(kv, s, g, 0);
        s->n_freed[g] = s->n_taken[g] = s->n_dropped[g] = 0;
        if (s->mass[g])
            memset(s->mass[g], 0, s->n_mass * sizeof *s->mass[g]);
    }
    move_to_node(kv, s, SL_NO_NODE);
    s->n_done = s->n_published = 0;
}

void sl_kv_show(const sl_kv *kv, const sl_sequence *s, sl_batch_seq *out)
{
    *out = (sl_batch_seq){.mass_from = sl_keep_next(&kv->keep, s->n_done) - SL_KEEP_OBSERVED};
    for (int g = 0; g < kv->plan->n_groups; g++) {
        out->blocks[g] = s->blocks[g];
        out->n_dropped[g] = s->n_dropped[g];
        out->mass[g] = s->mass[g];
    }
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
    const view v = view_behind(kv, g, n_blocks);
    for (; n_blocks > view_begin(v); n_blocks--, node = kv->tree.nodes[node].parent) {
        const sl_prefix_node *n = &kv->tree.nodes[node];
        if (is_seen(v, n_blocks - 1) && (n->blocks[g] == SL_NO_BLOCK || (pinned && n->n_pins[g] == 0)))
            return false;
    }
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
        const view v = view_behind(kv, g, n_blocks);
        uint32_t node = end;
        for (uint32_t n = n_blocks; n > view_begin(v); n--, node = kv->tree.nodes[node].parent)
            if (is_seen(v, n - 1))
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
