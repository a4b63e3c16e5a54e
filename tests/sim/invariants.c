#include "invariants.h"

#include "base/checked.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t violation_seed;

void violation(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("seed %llu: ", (unsigned long long)violation_seed);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
    exit(1);
}

enum { MAX_BLOCKS = 4096 };

/* ---- sequences ---- */

/* The node that a sequence stands at belongs to its tenant, and the way there spells its tokens. */
static void check_place(const sl_engine *e, const sl_sequence *s)
{
    uint32_t at = s->node;
    const sl_prefix_node *nodes = e->kv.tree.nodes;
    for (uint32_t n = s->n_published; at != SL_NO_NODE && nodes[at].parent != SL_NO_NODE; at = nodes[at].parent, n--)
        if (n == 0 || memcmp(nodes[at].tokens, s->tokens + (size_t)(n - 1) * SL_KV_BLOCK, sizeof nodes[at].tokens) != 0)
            violation("request %llu stands at a node of other tokens", (unsigned long long)s->id);
    if (at != SL_NO_NODE && (nodes[at].tokens[0] != (uint32_t)s->request.tenant))
        violation("request %llu shares with another tenant", (unsigned long long)s->id);
}

static void check_sequence(const sl_engine *e, const sl_sequence *s, bool runs)
{
    check_place(e, s);
    for (int g = 0; g < e->model.plan->n_groups; g++) {
        uint32_t window = e->model.plan->groups[g].window;
        uint32_t end = (uint32_t)sl_ceil_div(s->n_done + s->n_layered, SL_KV_BLOCK);
        uint32_t seen = window && s->n_done >= window ? (s->n_done - window + 1) / SL_KV_BLOCK : 0;
        if (!runs && (s->n_taken[g] > 0 || s->n_done > 0 || s->n_layered > 0 || s->node != SL_NO_NODE))
            violation("request %llu waits and holds blocks", (unsigned long long)s->id);
        if (s->n_taken[g] != end)
            violation("request %llu: %u blocks of group %d for %u and %u positions", (unsigned long long)s->id,
                      s->n_taken[g], g, s->n_done, s->n_layered);
        if (s->n_freed[g] != SL_MIN(seen, end))
            violation("request %llu: blocks from %u on, but the window of group %d begins at %u",
                      (unsigned long long)s->id, s->n_freed[g], g, seen);
        for (uint32_t i = 0; i < end; i++)
            if ((s->blocks[g][i] == SL_NO_BLOCK) != (i < s->n_freed[g]))
                violation("request %llu: block %u of group %d is %s", (unsigned long long)s->id, i, g,
                          i < s->n_freed[g] ? "held still" : "missing");
    }
    if (s->n_published != s->n_done / SL_KV_BLOCK && e->kv.shares && e->kv.tree.has_full)
        violation("request %llu: %u blocks published of %u positions", (unsigned long long)s->id, s->n_published,
                  s->n_done);
}

enum { SPARED_AFTER = 4, AGEING_TURN = 8 }; /* the scheduler's defaults */
static const double ITL_FACTOR = 1.8;

/* Who keeps its blocks: told here once more, so that a mistake in the scheduler does not hide itself. */
static bool outranks(const sl_sequence *a, const sl_sequence *b)
{
    bool a_spared = a->n_preemptions >= SPARED_AFTER, b_spared = b->n_preemptions >= SPARED_AFTER;
    if (a_spared != b_spared)
        return a_spared;
    if (!a_spared && a->request.priority != b->request.priority)
        return a->request.priority > b->request.priority;
    return a->id != b->id ? a->id < b->id : a->choice < b->choice;
}

/* A step beside streams without ITL targets is, by the cost model as it was before the step, within the prompts' factor of
 * what a row for each running task takes and of twice what the model doubts that, but for the block, or the layered rows
 * that cost as much, that a prompt gets now and then. What waits after having run may have run until the blocks were given out: the limit with it or without. */
static void check_limit(const sl_engine *e, const before_step *before, uint32_t n_rows, uint32_t n_streams)
{
    const sl_tasks *t = &e->tasks;
    const sl_cost *cost = &before->cost;
    sl_step_work all = {0}, running = {0}, block = {0}; /* block: what has rows, and such a block where one was due */
    bool dry = false;
    uint32_t n_prompts = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        const sl_task *task = &t->tasks[i];
        const bool decodes = task->n_generated > 0 && task->n_left == 1;
        if (task->itl_target_us > 0)
            return;
        if (before->n_dry >= AGEING_TURN && task->n_layered > 0 && task->until_part > 0) {
            if (task->until_part == task->n_parts_done + 1)
                return;
            dry = true;
            sl_cost_add(cost, &block, task->n_done, SL_MIN(task->n_layered, (uint32_t)SL_KV_BLOCK), 0);
        }
        if (decodes && task->n_rows > 0)
            sl_cost_add(cost, &block, task->n_done, 1, 1);
        if (task->running)
            sl_cost_add(cost, &running, decodes ? task->n_done : 0, 1, 1);
        if (task->running || t->sequences[i]->preempted) {
            sl_cost_add(cost, &all, decodes ? task->n_done : 0, 1, 1);
            n_prompts += !decodes;
        }
    }
    double doubt = fmax(sl_cost_doubt(cost, &all), sl_cost_doubt(cost, &running));
    double limit_us = pow(ITL_FACTOR, n_prompts > 1 ? n_prompts : 1) * sl_cost_predict_us(cost, &all) * (1 + 2 * doubt);
    if (dry)
        limit_us = fmax(limit_us, sl_cost_predict_us(cost, &block));
    if (n_streams > 0 && n_rows > n_streams + SL_KV_BLOCK &&
        (double)e->statistics.last_predicted_us > 1.001 * limit_us + 1)
        violation("a step of %u rows beside %u streams, %u prompts: %.0f us, at most %.0f meant", n_rows, n_streams,
                  n_prompts, (double)e->statistics.last_predicted_us, limit_us);
}

/* The last step's order of tasks, and what it gave them. */
static void check_order(const sl_engine *e, const before_step *before)
{
    const sl_tasks *t = &e->tasks;
    const sl_task *last = NULL;
    uint32_t n_rows = 0, n_streams = 0, n_ageing = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        const sl_task *task = &t->tasks[t->order[i]];
        n_rows += task->n_rows;
        if (task->n_generated > 0 && task->n_left == 1) { /* it decodes, or did until it was pushed out just now */
            n_streams += task->n_rows;
            if (task->n_rows > 0 && !task->running)
                violation("request %llu was pushed out and has rows", (unsigned long long)task->id);
            continue;
        }
        if (task->n_rows > 0 && !task->running)
            violation("request %llu waits and has rows", (unsigned long long)task->id);
        if (task->ageing && (last || n_ageing++ > 0))
            violation("request %llu has the ageing turn and is not first", (unsigned long long)task->id);
        if (last && !last->ageing && last->priority < task->priority)
            violation("request %llu goes before %llu of higher priority", (unsigned long long)last->id,
                      (unsigned long long)task->id);
        if (last && !last->ageing && last->priority == task->priority && !last->feasible && task->feasible)
            violation("request %llu goes before %llu, which can be in time", (unsigned long long)last->id,
                      (unsigned long long)task->id);
        last = task;
    }
    check_limit(e, before, n_rows, n_streams);
    if (t->schedule.dry > AGEING_TURN + 1)
        violation("no prompt was offered rows for %u steps", t->schedule.dry);
}

/* Whether s ran when the last step was divided. */
static bool ran(const sl_engine *e, const sl_sequence *s)
{
    for (uint32_t i = 0; i < e->tasks.n; i++)
        if (e->tasks.sequences[i] == s && e->tasks.tasks[i].id == s->id && e->tasks.tasks[i].running)
            return true;
    return false;
}

/* Who was pre-empted in the last step ranks below all that were not. */
static void check_victims(const sl_engine *e)
{
    for (const sl_sequence *s = e->waiting; s; s = s->next)
        for (const sl_sequence *r = e->running; r && ran(e, s); r = r->next)
            if (ran(e, r) && outranks(s, r) && s->n_preemptions != SPARED_AFTER)
                violation("request %llu was pre-empted, and %llu was not", (unsigned long long)s->id,
                          (unsigned long long)r->id);
}

static void check_queues(const sl_engine *e)
{
    uint32_t n = 0, n_layered = 0;
    for (const sl_sequence *s = e->running; s; s = s->next) {
        n++;
        n_layered += s->n_layered > 0;
        check_sequence(e, s, true);
        for (const sl_sequence *t = s->siblings; t; t = t->next, n++)
            check_sequence(e, t, false);
        if (s->next && !outranks(s, s->next))
            violation("request %llu runs out of order", (unsigned long long)s->id);
    }
    if (n_layered > 1)
        violation("layered rows of %u sequences", n_layered);
    if (n != e->n_running || n > e->options.n_sequences)
        violation("%u sequences run, %u are counted, %u allowed", n, e->n_running, e->options.n_sequences);
    for (const sl_sequence *s = e->waiting; s; s = s->next)
        check_sequence(e, s, false);
}

/* ---- blocks ---- */

static void check_blocks(const sl_engine *e, int g)
{
    const sl_blocks *pool = &e->kv.pools[g];
    const sl_prefix *tree = &e->kv.tree;
    uint32_t holders[MAX_BLOCKS] = {0}, n_idle = 0, n_cached = 0, n_pinned = 0;
    bool is_free[MAX_BLOCKS] = {0};
    for (const sl_sequence *s = e->running; s; s = s->next)
        for (uint32_t i = s->n_freed[g]; i < s->n_taken[g]; i++)
            holders[s->blocks[g][i]]++;
    for (uint32_t i = 0; i < tree->n_nodes; i++) {
        const sl_prefix_node *n = &tree->nodes[i];
        if (!n->in_use || n->blocks[g] == SL_NO_BLOCK)
            continue;
        if (tree->node_of[g][n->blocks[g]] != i)
            violation("block %u of group %d: its node does not know it", n->blocks[g], g);
        n_cached++;
        n_pinned += n->n_pins[g] > 0;
        n_idle += holders[n->blocks[g]] == 0 && n->n_pins[g] == 0;
        holders[n->blocks[g]]++;
    }
    for (uint32_t i = 0; i < pool->n_free; i++) {
        if (is_free[pool->free[i]])
            violation("block %u of group %d is free twice", pool->free[i], g);
        is_free[pool->free[i]] = true;
    }
    for (uint32_t b = 0; b < pool->n_blocks; b++)
        if (pool->refs[b] != holders[b] || is_free[b] != (holders[b] == 0))
            violation("block %u of group %d: %u holders, %u counted, %s", b, g, holders[b], pool->refs[b],
                      is_free[b] ? "free" : "not free");
    if (n_idle != tree->n_idle[g] || n_cached != tree->n_cached[g] || n_pinned != tree->n_pinned[g])
        violation("group %d: %u idle, %u cached, %u pinned blocks; counted %u, %u, %u", g, n_idle, n_cached, n_pinned,
                  tree->n_idle[g], tree->n_cached[g], tree->n_pinned[g]);
}

/* ---- the tree ---- */

static void check_node(const sl_engine *e, uint32_t i)
{
    const sl_prefix *tree = &e->kv.tree;
    const sl_prefix_node *n = &tree->nodes[i];
    uint32_t n_children = 0, n_users = 0, n_blocks = 0;
    for (uint32_t j = 0; j < tree->n_nodes; j++)
        n_children += tree->nodes[j].in_use && tree->nodes[j].parent == i;
    for (const sl_sequence *s = e->running; s; s = s->next)
        n_users += s->node == i;
    for (int g = 0; g < tree->n_groups; g++) {
        n_blocks += n->blocks[g] != SL_NO_BLOCK;
        bool full = tree->has_full && g == tree->full_group, leaf = n_children == 0;
        bool idle = n->blocks[g] != SL_NO_BLOCK && e->kv.pools[g].refs[n->blocks[g]] == 1 && n->n_pins[g] == 0;
        if ((tree->evict[g].place[i] != UINT32_MAX) != (idle && (leaf || !full)))
            violation("node %u: its block of group %d is %s for eviction", i, g, idle ? "not offered" : "offered");
        if (full && n->parent != SL_NO_NODE && n->blocks[g] == SL_NO_BLOCK)
            violation("node %u has no block of the full group", i);
    }
    if (n_children != n->n_children || n_users != n->n_users)
        violation("node %u: %u children and %u users; counted %u and %u", i, n_children, n_users, n->n_children,
                  n->n_users);
    if (n_children + n_users + n_blocks == 0)
        violation("node %u serves nobody", i);
}

static void check_tree(const sl_engine *e)
{
    uint32_t n_used = 0;
    for (uint32_t i = 0; i < e->kv.tree.n_nodes; i++) {
        if (!e->kv.tree.nodes[i].in_use)
            continue;
        n_used++;
        check_node(e, i);
    }
    if (n_used != e->kv.tree.n_used)
        violation("%u nodes in use, %u counted", n_used, e->kv.tree.n_used);
}

static void check_statistics(const sl_engine *e)
{
    sl_engine_statistics s;
    uint32_t n_used = 0;
    sl_engine_stats(e, &s);
    for (int g = 0; g < e->model.plan->n_groups; g++)
        for (uint32_t b = 0; b < e->kv.pools[g].n_blocks; b++)
            n_used += e->kv.pools[g].refs[b] > (e->kv.tree.node_of[g][b] != SL_NO_NODE);
    uint64_t n_unused = 0;
    for (const sl_sequence *r = e->running; r; r = r->next)
        n_unused +=
            (uint64_t)e->model.plan->n_groups * (sl_align_up(r->n_done + r->n_layered, SL_KV_BLOCK) - r->n_done);
    uint32_t n_waiting = 0;
    for (const sl_sequence *w = e->waiting; w; w = w->next)
        n_waiting++;
    if (s.n_waiting != n_waiting)
        violation("%u requests wait, %u by the statistics", n_waiting, s.n_waiting);
    if (s.n_slots_unused != n_unused)
        violation("%llu slots unused, %llu by the statistics", (unsigned long long)n_unused,
                  (unsigned long long)s.n_slots_unused);
    if (s.n_blocks_used != n_used)
        violation("%u blocks used, %u by the statistics", n_used, s.n_blocks_used);
}

before_step remember(const sl_engine *e)
{
    return (before_step){e->tasks.cost, e->tasks.schedule.dry};
}

void check_engine(const sl_engine *e, const before_step *before)
{
    check_queues(e);
    check_statistics(e);
    check_order(e, before);
    check_victims(e);
    for (int g = 0; g < e->model.plan->n_groups; g++)
        check_blocks(e, g);
    /* The whole tree takes long: now and then. */
    if (e->statistics.n_steps % 16 == 0)
        check_tree(e);
}

void check_idle(const sl_engine *e)
{
    const before_step now = remember(e);
    check_engine(e, &now);
    check_tree(e);
    if (e->running || e->waiting || e->n_running)
        violation("work is left");
    for (int g = 0; g < e->model.plan->n_groups; g++)
        if (e->kv.pools[g].n_free + e->kv.tree.n_cached[g] != e->kv.pools[g].n_blocks)
            violation("group %d: %u blocks free and %u cached of %u", g, e->kv.pools[g].n_free, e->kv.tree.n_cached[g],
                      e->kv.pools[g].n_blocks);
}
