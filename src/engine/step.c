/* One step: admit -> batch -> forward -> sample -> emit. */
#include "engine/step.h"

#include <math.h>
#include <string.h>

void sl_queue_insert(const sl_engine *e, sl_sequence **queue, sl_sequence *s)
{
    while (*queue && !sl_tasks_outranks(&e->tasks, s, *queue))
        queue = &(*queue)->next;
    s->next = *queue;
    *queue = s;
}

static uint32_t count_choices(const sl_sequence *s)
{
    uint32_t n = 1;
    for (const sl_sequence *t = s->siblings; t; t = t->next)
        n++;
    return n;
}

/* ---- which rows have logits ---- */

static bool is_scored(const sl_sequence *s, uint32_t position)
{
    /* the log-probability of a prompt's token needs one before it, a scoring callback also wants the last logits */
    return !s->pooled && position >= s->n_scored && position + !s->request.on_logits < s->request.n_prompt;
}

static bool is_wanted(const sl_sequence *s, uint32_t position)
{
    return is_scored(s, position) || (position + 1 == s->n_tokens && s->request.max_tokens > 0);
}

/* Leaves the sequence n of its planned rows; others may have the logits of the rest. */
static void cut_plan(sl_engine *e, sl_sequence *s, uint32_t n)
{
    while (s->n_planned > n)
        e->n_wanted -= is_wanted(s, s->n_done + --s->n_planned);
}

/* ---- admit: in the scheduler's order, as long as there is memory for all the tokens that are known ---- */

/* Blocks of each group that the running sequences before `out` still need for the tokens they have, and one more for each. */
static void sum_needs(sl_engine *e, const sl_sequence *out, uint64_t sum[SL_MAX_KV_GROUPS])
{
    for (sl_sequence *s = e->running; s != out; s = s->next) {
        for (int g = 0; g < e->model.plan->n_groups; g++) {
            uint32_t need = sl_kv_group_blocks(&e->kv, g, s->n_tokens);
            uint32_t have = s->n_taken[g] - s->n_freed[g];
            sum[g] += (uint64_t)count_choices(s) + (need > have ? need - have : 0);
        }
    }
}

/* Whether there are slots and memory for s, if the running sequences from `out` on (NULL: none) were not there. Alone, a
 * sequence always fits: submit has made sure. Beside others it waits until it needs to take nothing from them. */
static bool has_room(sl_engine *e, sl_sequence *s, const sl_sequence *out)
{
    uint32_t need[SL_MAX_KV_GROUPS], n_slots = e->n_running + count_choices(s);
    uint64_t promised[SL_MAX_KV_GROUPS] = {0}, freed[SL_MAX_KV_GROUPS] = {0};
    for (const sl_sequence *r = out; r; r = r->next) {
        n_slots -= count_choices(r);
        sl_kv_add_sole(&e->kv, r, freed);
    }
    if (n_slots > e->options.n_sequences)
        return false;
    if (e->running == out)
        return true;
    sum_needs(e, out, promised);
    sl_kv_need(&e->kv, s, need);
    for (int g = 0; g < e->model.plan->n_groups; g++)
        if (promised[g] + need[g] + count_choices(s) > sl_kv_available(&e->kv, g) + freed[g])
            return false;
    return true;
}

static void begin_running(sl_engine *e, sl_sequence *s)
{
    e->n_running += count_choices(s);
    s->preempted = false;
    s->began_us = s->began_us ? s->began_us : sl_engine_now(e);
    sl_queue_insert(e, &e->running, s);
    uint32_t n_found = sl_kv_match(&e->kv, s);
    e->statistics.prefix_queries += s->n_tokens;
    e->statistics.prefix_hits += n_found;
    if (s->n_preemptions == 0)
        s->n_cached += n_found;
}

static void take_out(sl_sequence **queue, const sl_sequence *s)
{
    while (*queue != s)
        queue = &(*queue)->next;
    *queue = s->next;
}

/* Drops a running sequence to the prefix tree. It waits and computes again what is not there any more. */
static void preempt(sl_engine *e, sl_sequence *s)
{
    take_out(&e->running, s);
    e->n_running -= count_choices(s);
    e->n_waiting++;
    cut_plan(e, s, 0);
    s->preempted = true;
    if (s->n_done > 0 || s->n_parts_done > 0) { /* else it has only waited so far */
        s->n_preemptions++;
        e->statistics.n_preemptions++;
    }
    s->n_layered = s->n_parts_done = 0;
    sl_kv_release(&e->kv, s);
    sl_queue_insert(e, &e->waiting, s);
}

static bool may_start(sl_engine *e, const sl_task *task, sl_sequence *s)
{
    const sl_tasks *t = &e->tasks;
    return sl_schedule_may_start(&t->schedule, &t->cost, t->tasks, t->n, task) && has_room(e, s, NULL);
}

/* The first of the running sequences that s may push out, behind which all may be; NULL: there are none. */
static sl_sequence *find_pushable(sl_engine *e, const sl_task *task)
{
    sl_sequence *first = NULL;
    for (sl_sequence *r = e->running; r; r = r->next) {
        bool may = task->priority > r->request.priority && /* mostly not; the rest takes a search */
                   sl_schedule_may_push_out(&e->tasks.schedule, task, sl_tasks_of(&e->tasks, r));
        first = !may ? NULL : first ? first : r;
    }
    return first;
}

/* Pre-empts running sequences that s may push out, from the last in rank on, until it can start; none when all of them
 * would not do. */
static bool push_out(sl_engine *e, const sl_task *task, sl_sequence *s)
{
    sl_tasks *t = &e->tasks;
    sl_sequence *first = find_pushable(e, task);
    if (!first)
        return false;
    for (sl_sequence *r = first; r; r = r->next)
        sl_tasks_of(t, r)->running = false;
    bool would_do = sl_schedule_may_start(&t->schedule, &t->cost, t->tasks, t->n, task) && has_room(e, s, first);
    for (sl_sequence *r = first; r; r = r->next)
        sl_tasks_of(t, r)->running = true;
    for (bool more = would_do; more && !may_start(e, task, s);) {
        sl_sequence *last = first;
        while (last->next)
            last = last->next;
        more = last != first;
        sl_tasks_of(t, last)->running = false;
        preempt(e, last);
    }
    return would_do && may_start(e, task, s);
}

static void admit(sl_engine *e, int64_t now_us)
{
    sl_tasks *t = &e->tasks;
    sl_tasks_gather(t, e->running, e->waiting, NULL, now_us);
    if (!sl_schedule_opens_batch(&t->schedule, t->tasks, t->n, now_us))
        return;
    for (uint32_t i = 0; i < t->n; i++) {
        sl_task *task = &t->tasks[t->order[i]];
        sl_sequence *s = t->sequences[t->order[i]];
        if (task->running)
            continue;
        if (!may_start(e, task, s) && !push_out(e, task, s))
            break;
        take_out(&e->waiting, s);
        e->n_waiting--;
        begin_running(e, s);
        task->running = true;
        /* What the prefix tree has of it is done; it may have been pushed out just now. */
        sl_tasks_update(t, t->order[i]);
    }
}

/* ---- batch: which rows ---- */

/* Plans the sequence's next rows: at most `most`, none behind the next position at which blocks are given up, and no more
 * logits than the backend has room for. */
static void plan_rows(sl_engine *e, sl_sequence *s, uint32_t most)
{
    uint32_t until = sl_keep_next(&e->options.keep, s->n_done);
    uint32_t n = SL_MIN(SL_MIN(s->n_tokens, until) - s->n_done, most);
    for (s->n_planned = 0; s->n_planned < n; s->n_planned++) {
        bool wanted = is_wanted(s, s->n_done + s->n_planned);
        if (wanted && e->n_wanted == e->options.logit_rows)
            break;
        e->n_wanted += wanted;
    }
    if (s->n_planned > 0)
        e->members[e->n_seqs++] = s;
}

/* Prompts that run go on over what others have cached meanwhile. */
static void find_cached(sl_engine *e)
{
    sl_tasks *t = &e->tasks;
    for (uint32_t i = 0; i < t->n; i++) {
        sl_sequence *s = t->sequences[i];
        if (!t->tasks[i].running || !sl_sequence_prefills(s) || s->n_layered > 0)
            continue;
        uint32_t n_found = sl_kv_match(&e->kv, s);
        if (s->n_preemptions == 0)
            s->n_cached += n_found;
        if (n_found > 0)
            sl_tasks_update(t, i);
    }
}

/* False when it is better to wait a step for what one of this step's members is about to compute. */
static bool needs_rows(sl_engine *e, const sl_sequence *s)
{
    for (uint32_t i = 0; i < e->n_seqs; i++)
        if (e->members[i]->n_planned > 0 && sl_kv_makes_next(&e->kv, e->members[i], s))
            return false;
    return true;
}

/* The one that all others outrank; NULL when that is s. */
static sl_sequence *find_victim(sl_sequence *s)
{
    sl_sequence *last = s->next;
    while (last && last->next)
        last = last->next;
    return last;
}

/* Gets the blocks for the planned rows. Where there are none left, those that s outranks are pre-empted; when there are no
 * such either, the sequence has fewer rows. So the first by rank can always go on, and in the end so can everyone: whoever
 * is pre-empted makes way for one that outranks it. */
static void take_blocks(sl_engine *e, sl_sequence *s)
{
    uint32_t end = s->n_done + s->n_planned, got = sl_kv_extend(&e->kv, s, end);
    for (sl_sequence *victim; got < end && (victim = find_victim(s)); got = sl_kv_extend(&e->kv, s, end))
        preempt(e, victim);
    cut_plan(e, s, got - s->n_done);
}

/* The scheduler offers rows: as many are planned as there is use and memory for. */
static uint32_t grant(void *user, uint32_t index, uint32_t n_rows)
{
    sl_engine *e = user;
    sl_sequence *s = e->tasks.sequences[index];
    if (s->preempted) /* in this step */
        return 0;
    s->until_part = e->tasks.tasks[index].until_part;
    if (s->n_layered > 0) { /* on their way, with blocks */
        s->n_planned = s->n_layered;
        e->members[e->n_seqs++] = s;
        return s->n_planned;
    }
    if (sl_sequence_prefills(s) && !needs_rows(e, s))
        return 0;
    plan_rows(e, s, n_rows);
    if (s->n_planned > 0)
        take_blocks(e, s);
    s->n_layered = s->until_part > 0 ? s->n_planned : 0;
    return s->n_planned;
}

static void lay_rows(sl_engine *e)
{
    uint32_t n_members = 0;
    e->n_rows = 0;
    for (uint32_t i = 0; i < e->n_seqs; i++) {
        sl_sequence *s = e->members[i];
        if (s->n_planned == 0)
            continue;
        for (uint32_t j = 0; j < s->n_planned; j++) {
            uint32_t position = s->n_done + j;
            e->rows[e->n_rows++] = (sl_row){.seq = n_members,
                                            .position = position,
                                            .parent = -1,
                                            .token = s->tokens[position],
                                            .causal = true,
                                            .wanted = is_wanted(s, position),
                                            .hidden = sl_pooled_wants(s->pooled, position)};
        }
        sl_kv_show(&e->kv, s, &e->seqs[n_members]);
        e->members[n_members++] = s;
    }
    e->n_seqs = n_members;
}

static void batch(sl_engine *e, int64_t now_us)
{
    sl_tasks *t = &e->tasks;
    e->n_seqs = e->n_wanted = 0;
    find_cached(e);
    sl_schedule_share(&t->schedule, &t->cost, t->tasks, t->n, t->order, now_us, grant, e);
    lay_rows(e);
}

/* ---- forward ---- */

static sl_status forward(sl_engine *e, sl_err *err)
{
    sl_batch b = {.rows = e->rows, .n_rows = e->n_rows, .seqs = e->seqs, .n_seqs = e->n_seqs};
    const sl_sequence *last = e->members[e->n_seqs - 1]; /* prompts come behind the streams, layered rows alone */
    if (last->n_layered > 0) {
        b.n_layered = last->n_layered;
        b.part_begin = (int)last->n_parts_done;
        b.part_end = (int)last->until_part;
    }
    SL_TRY(e->model.backend->run(e->context, &b, err));
    e->statistics.n_steps++;
    e->statistics.last_rows = e->n_rows;
    return SL_OK;
}

/* What the batch is to the cost model; charges the tenants for it. */
static sl_step_work weigh(sl_engine *e)
{
    sl_step_work work = {0};
    for (uint32_t i = 0; i < e->n_seqs; i++) {
        const sl_sequence *s = e->members[i];
        uint32_t n_wanted = 0;
        for (uint32_t j = 0; j < s->n_planned; j++)
            n_wanted += is_wanted(s, s->n_done + j);
        uint32_t n_unseen = sl_keep_dropped(&e->options.keep, s->n_done) * SL_KV_BLOCK;
        if (s->n_layered > 0) {
            const sl_cost *cost = &e->tasks.cost;
            sl_cost_add_layered(cost, &work, s->n_done - n_unseen, s->n_planned, s->n_parts_done, s->until_part);
            if (s->until_part == cost->n_parts)
                sl_tenants_charge(&e->tasks.tenants, s->tenant, s->n_planned);
            continue;
        }
        sl_cost_add(&e->tasks.cost, &work, s->n_done - n_unseen, s->n_planned, n_wanted);
        sl_tenants_charge(&e->tasks.tenants, s->tenant, s->n_planned);
    }
    return work;
}

static void learn(sl_engine *e, const sl_step_work *work, int64_t took_us)
{
    sl_cost *cost = &e->tasks.cost;
    e->statistics.last_predicted_us = llround(sl_cost_predict_us(cost, work));
    e->statistics.last_measured_us = took_us;
    sl_cost_observe(cost, work, (double)took_us);
}

/* ---- sample ---- */

static void finish(sl_sequence *s, sl_finish reason)
{
    s->finished = true;
    s->finish = reason;
}

static void add_draw(sl_engine *e, sl_sequence *s, float *logits)
{
    e->drawers[e->n_draws] = s;
    e->draws[e->n_draws++] = (sl_sample_row){.sampler = s->sampler, .logits = logits, .position = s->n_tokens};
}

/* What a prompt position's logits say of the next token: the callback sees them now, the workers score them later. */
static void score(sl_engine *e, sl_sequence *s, uint32_t position, float *logits)
{
    const sl_request *r = &s->request;
    if (r->on_logits)
        r->on_logits(r->user, position, logits);
    s->n_scored = position + 1;
    if (!r->prompt_logprobs || position + 1 == r->n_prompt)
        return;
    e->drawers[e->n_draws] = s;
    e->draws[e->n_draws++] = (sl_sample_row){
        .logits = logits, .position = position + 1, .token = s->tokens[position + 1], .n_top = r->n_prompt_logprobs};
}

/* The prompt is computed: the other choices go on from here with the same blocks and draw from the same logits. */
static void fork_siblings(sl_engine *e, sl_sequence *s, float *logits)
{
    while (s->siblings) {
        sl_sequence *sibling = s->siblings;
        s->siblings = sibling->next;
        sibling->n_cached = s->n_cached;
        sibling->began_us = s->began_us;
        sibling->n_scored = s->n_scored;
        sl_kv_fork(&e->kv, s, sibling);
        sl_queue_insert(e, &e->running, sibling);
        add_draw(e, sibling, logits);
    }
}

/* Moves a member forward over its rows, whose KV is written now; scores or pools those of the prompt and notes what is to
 * be drawn. *wanted and *hidden count the rows before whose logits or hidden states are wanted. */
static void advance(sl_engine *e, sl_sequence *s, uint32_t *wanted, uint32_t *hidden)
{
    uint32_t begin = s->n_done, n_parts = e->tasks.cost.n_parts;
    if (s->n_layered > 0) {
        s->n_parts_done = s->until_part % n_parts;
        if (s->n_parts_done > 0) {
            s->n_planned = 0;
            return;
        }
        s->n_layered = 0;
    }
    s->n_done += s->n_planned;
    s->n_planned = 0;
    sl_kv_publish(&e->kv, s);
    for (uint32_t position = begin; position < s->n_done; position++) {
        if (sl_pooled_wants(s->pooled, position)) {
            sl_pooled_add(s->pooled, e->model.backend->hidden(e->context, (*hidden)++));
            s->n_scored = sl_pooled_next(s->pooled);
        }
        if (!is_wanted(s, position))
            continue;
        float *logits = e->model.backend->logits(e->context, (*wanted)++);
        if (is_scored(s, position))
            score(e, s, position, logits);
        if (position + 1 == s->n_tokens && s->request.max_tokens > 0) {
            add_draw(e, s, logits);
            fork_siblings(e, s, logits);
        }
    }
}

/* Moves every member forward, draws a token for each whose tokens are all computed, and scores prompts. */
static void sample(sl_engine *e)
{
    uint32_t wanted = 0, hidden = 0;
    e->n_draws = 0;
    for (uint32_t i = 0; i < e->n_seqs; i++)
        advance(e, e->members[i], &wanted, &hidden);
    sl_sample_rows(e->team, e->draws, e->n_draws);
}

/* ---- emit: tell of tokens and of what ended, and give its memory back ---- */

static bool is_stop(const sl_sequence *s, uint32_t token)
{
    for (size_t i = 0; i < s->request.n_stop_tokens; i++)
        if (s->request.stop_tokens[i] == token)
            return true;
    return false;
}

static void emit_token(sl_sequence *s, const sl_sampled *sampled, sl_bytes visible)
{
    if (!s->request.on_event)
        return;
    sl_event event = {.request = s->id,
                      .choice = s->choice,
                      .kind = SL_EVENT_TOKEN,
                      .sampled = *sampled,
                      .bytes = visible.bytes,
                      .n_bytes = (uint32_t)visible.n_bytes,
                      .n_prompt = (uint32_t)s->request.n_prompt,
                      .n_generated = s->n_generated,
                      .n_cached = s->n_cached};
    s->request.on_event(s->request.user, &event);
}

static void emit_prompt_logprob(sl_sequence *s, const sl_sample_row *draw)
{
    if (!s->request.on_event)
        return;
    sl_event event = {.request = s->id,
                      .choice = s->choice,
                      .kind = SL_EVENT_PROMPT,
                      .sampled = draw->sampled,
                      .position = (uint32_t)draw->position,
                      .n_prompt = (uint32_t)s->request.n_prompt,
                      .n_cached = s->n_cached};
    s->request.on_event(s->request.user, &event);
}

static void prompt_is_done(sl_engine *e, sl_sequence *s, int64_t now_us)
{
    s->first_us = now_us;
    if (s->choice > 0)
        return;
    e->statistics.prompt_tokens += s->request.n_prompt;
    e->statistics.cached_tokens += s->n_cached;
}

static void accept_token(sl_engine *e, sl_sequence *s, const sl_sampled *sampled, int64_t now_us)
{
    s->last_us = now_us;
    if (s->n_generated == 0)
        prompt_is_done(e, s, now_us);
    if (is_stop(s, sampled->token)) {
        finish(s, SL_FINISH_STOP);
        return;
    }
    sl_sampler_accept(s->sampler, sampled->token, true);
    s->tokens[s->n_tokens++] = sampled->token;
    s->n_generated++;
    e->statistics.generated_tokens++;
    sl_bytes visible;
    bool stopped = sl_stop_push(s->stop, sampled->token, s->n_generated >= s->request.sampling.min_tokens, &visible);
    emit_token(s, sampled, visible);
    if (stopped)
        finish(s, SL_FINISH_STOP);
    else if (s->n_generated == s->request.max_tokens)
        finish(s, SL_FINISH_LENGTH);
}

static void accept_draw(sl_engine *e, sl_sequence *s, const sl_sample_row *draw, int64_t now_us)
{
    if (s->finished) /* an earlier draw of this step failed */
        return;
    if (draw->status != SL_OK) {
        s->error = draw->error;
        finish(s, SL_FINISH_ERROR);
    } else if (draw->sampler) {
        accept_token(e, s, &draw->sampled, now_us);
    } else {
        emit_prompt_logprob(s, draw);
    }
}

static void emit_embedding(sl_sequence *s)
{
    sl_event event = {.request = s->id,
                      .kind = SL_EVENT_EMBEDDING,
                      .n_prompt = (uint32_t)s->request.n_prompt,
                      .n_cached = s->n_cached};
    if (sl_pooled_finish(s->pooled, &event.embedding, &event.n_embedding, &s->error) != SL_OK)
        finish(s, SL_FINISH_ERROR);
    else if (s->request.on_event)
        s->request.on_event(s->request.user, &event);
}

static void emit_finished(sl_sequence *s)
{
    if (!s->request.on_event)
        return;
    sl_bytes visible;
    sl_stop_finish(s->stop, &visible);
    sl_event event = {.request = s->id,
                      .choice = s->choice,
                      .kind = SL_EVENT_FINISHED,
                      .bytes = visible.bytes,
                      .n_bytes = (uint32_t)visible.n_bytes,
                      .finish = s->finish,
                      .stop_string = sl_stop_matched(s->stop),
                      .error = s->error,
                      .n_prompt = (uint32_t)s->request.n_prompt,
                      .n_generated = s->n_generated,
                      .n_cached = s->n_cached,
                      .queue_us = s->began_us ? s->began_us - s->submitted_us : 0,
                      .prefill_us = s->first_us ? s->first_us - s->submitted_us : 0,
                      .decode_us = s->last_us - s->first_us};
    s->request.on_event(s->request.user, &event);
}

/* Tells of a sequence's end, and of its siblings' if it ends before they began; then it is gone. */
static void retire(sl_engine *e, sl_sequence *s)
{
    e->statistics.n_finished[s->finish]++;
    emit_finished(s);
    for (sl_sequence *sibling = s->siblings; sibling; sibling = sibling->next) {
        sibling->error = s->error;
        finish(sibling, s->finish);
        e->statistics.n_finished[sibling->finish]++;
        emit_finished(sibling);
        sl_tasks_leave(&e->tasks, sibling);
    }
    sl_tasks_leave(&e->tasks, s);
    sl_sequence_close(s);
}

/* Takes what has finished out of the running ones. */
static void retire_running(sl_engine *e)
{
    for (sl_sequence **link = &e->running; *link;) {
        sl_sequence *s = *link;
        if (!s->finished) {
            link = &s->next;
            continue;
        }
        *link = s->next;
        e->n_running -= count_choices(s);
        sl_kv_release(&e->kv, s);
        retire(e, s);
    }
}

static void emit(sl_engine *e)
{
    int64_t now_us = sl_engine_now(e);
    for (uint32_t i = 0; i < e->n_draws; i++)
        accept_draw(e, e->drawers[i], &e->draws[i], now_us);
    for (uint32_t i = 0; i < e->n_seqs; i++) {
        sl_sequence *s = e->members[i];
        if (s->finished || s->request.max_tokens > 0 || s->n_done < s->n_tokens)
            continue;
        prompt_is_done(e, s, now_us);
        s->last_us = now_us;
        finish(s, SL_FINISH_LENGTH);
        if (s->pooled)
            emit_embedding(s);
    }
    retire_running(e);
}

/* Ends what was cancelled since the last step. */
static void drop_cancelled(sl_engine *e)
{
    for (sl_sequence *s = e->running; s; s = s->next)
        if (s->cancelled && !s->finished)
            finish(s, SL_FINISH_CANCELLED);
    retire_running(e);
    for (sl_sequence **link = &e->waiting; *link;) {
        sl_sequence *s = *link;
        if (!s->cancelled) {
            link = &s->next;
            continue;
        }
        *link = s->next;
        e->n_waiting--;
        finish(s, SL_FINISH_CANCELLED);
        retire(e, s);
    }
}

sl_status sl_engine_step(sl_engine *e, int64_t now_us, bool *busy, sl_err *err)
{
    drop_cancelled(e);
    admit(e, now_us);
    batch(e, now_us);
    if (e->n_rows > 0) {
        sl_step_work work = weigh(e);
        int64_t begin_us = sl_engine_now(e);
        SL_TRY(forward(e, err));
        sample(e);
        learn(e, &work, sl_engine_now(e) - begin_us);
        emit(e);
    }
    *busy = e->running || e->waiting;
    return SL_OK;
}
