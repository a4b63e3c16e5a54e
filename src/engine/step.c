/* One step: admit -> batch -> forward -> sample -> emit. */
#include "engine/step.h"

#include "base/clock.h"

#include <math.h>
#include <string.h>

/* ---- admit: first come, first served, as long as the blocks a sequence may ever need are free ---- */

static bool reserve(sl_engine *e, sl_sequence *s)
{
    uint32_t n_positions = sl_sequence_max_positions(s);
    for (int g = 0; g < e->plan->n_groups; g++) {
        s->reserved[g] = sl_sequence_max_blocks(n_positions, e->plan->groups[g].window, e->options.chunk);
        if (s->reserved[g] > e->unreserved[g])
            return false;
    }
    for (int g = 0; g < e->plan->n_groups; g++)
        e->unreserved[g] -= s->reserved[g];
    return true;
}

static void admit(sl_engine *e, int64_t now_us)
{
    sl_sequence **tail = &e->running;
    while (*tail)
        tail = &(*tail)->next;
    for (sl_sequence *s = e->waiting; s; s = s->next)
        if (s->submitted_us < 0)
            s->submitted_us = now_us;
    while (e->waiting && e->n_running < e->options.n_sequences && reserve(e, e->waiting)) {
        sl_sequence *s = e->waiting;
        e->waiting = s->next;
        s->next = NULL;
        *tail = s;
        tail = &s->next;
        e->n_running++;
    }
}

/* ---- batch: a row for every sequence that decodes, the rest of the chunk for prompts ---- */

static bool is_scored(const sl_sequence *s, uint32_t position)
{
    return s->request.on_logits && position >= s->request.score_from && position < s->request.n_prompt;
}

/* Adds the sequence's next rows, at most `most`; each earlier member keeps one row and one logits row for later ones. */
static void add_rows(sl_engine *e, sl_sequence *s, uint32_t most)
{
    uint32_t index = e->n_seqs, first = s->n_done;
    uint32_t n = SL_MIN(s->n_tokens - s->n_done, most), added = 0;
    for (; added < n; added++) {
        uint32_t position = first + added;
        bool samples = position + 1 == s->n_tokens && s->request.max_tokens > 0;
        bool wanted = samples || is_scored(s, position);
        if (wanted && e->n_wanted == e->options.logit_rows)
            break;
        e->n_wanted += wanted;
        e->rows[e->n_rows++] = (sl_row){.seq = index,
                                        .position = position,
                                        .parent = -1,
                                        .token = s->tokens[position],
                                        .causal = true,
                                        .wanted = wanted};
    }
    if (added == 0)
        return;
    for (int g = 0; g < e->plan->n_groups; g++) {
        sl_sequence_extend(s, &e->pools[g], g, first + added);
        e->seqs[index].blocks[g] = s->blocks[g];
    }
    e->members[e->n_seqs++] = s;
}

static void batch(sl_engine *e)
{
    e->n_rows = e->n_seqs = e->n_wanted = 0;
    for (sl_sequence *s = e->running; s; s = s->next)
        if (!s->finished && s->n_generated > 0 && e->n_rows < e->options.chunk)
            add_rows(e, s, 1);
    for (sl_sequence *s = e->running; s; s = s->next)
        if (!s->finished && s->n_generated == 0 && e->n_rows < e->options.chunk)
            add_rows(e, s, e->options.chunk - e->n_rows);
}

/* ---- sample ---- */

static void finish(sl_sequence *s, sl_finish reason)
{
    s->finished = true;
    s->finish = reason;
}

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
                      .kind = SL_EVENT_TOKEN,
                      .sampled = *sampled,
                      .bytes = visible.bytes,
                      .n_bytes = (uint32_t)visible.n_bytes,
                      .n_prompt = (uint32_t)s->request.n_prompt,
                      .n_generated = s->n_generated};
    s->request.on_event(s->request.user, &event);
}

static void sample_row(sl_sequence *s, const float *logits, int64_t now_us)
{
    sl_sampled sampled;
    sl_err error;
    if (sl_sampler_sample(s->sampler, logits, s->n_tokens, &sampled, &error) != SL_OK) {
        s->error = error;
        finish(s, SL_FINISH_ERROR);
        return;
    }
    s->last_us = now_us;
    if (s->n_generated == 0)
        s->first_us = now_us;
    if (is_stop(s, sampled.token)) {
        finish(s, SL_FINISH_STOP);
        return;
    }
    sl_sampler_accept(s->sampler, sampled.token, true);
    s->tokens[s->n_tokens++] = sampled.token;
    s->n_generated++;
    sl_bytes visible;
    bool stopped = sl_stop_push(s->stop, sampled.token, true, &visible);
    emit_token(s, &sampled, visible);
    if (stopped)
        finish(s, SL_FINISH_STOP);
    else if (s->n_generated == s->request.max_tokens)
        finish(s, SL_FINISH_LENGTH);
}

/* Hands the wanted rows' logits to scoring callbacks and samplers; moves every member forward. */
static void sample(sl_engine *e)
{
    int64_t now_us = sl_clock_us();
    uint32_t wanted = 0;
    for (uint32_t r = 0; r < e->n_rows; r++) {
        const sl_row *row = &e->rows[r];
        sl_sequence *s = e->members[row->seq];
        s->n_done = row->position + 1;
        if (!row->wanted)
            continue;
        const float *logits = e->backend->logits(e->context, wanted++);
        if (is_scored(s, row->position))
            s->request.on_logits(s->request.user, row->position, logits);
        if (s->n_done == s->n_tokens && s->request.max_tokens > 0)
            sample_row(s, logits, now_us);
    }
    for (uint32_t i = 0; i < e->n_seqs; i++) {
        sl_sequence *s = e->members[i];
        if (s->request.max_tokens == 0 && s->n_done == s->n_tokens) {
            s->first_us = s->last_us = now_us;
            finish(s, SL_FINISH_LENGTH);
        }
        for (int g = 0; g < e->plan->n_groups; g++)
            sl_sequence_trim(s, &e->pools[g], g, e->plan->groups[g].window);
    }
}

/* ---- emit: tell of what ended and give its memory back ---- */

static void emit_finished(sl_sequence *s)
{
    if (!s->request.on_event)
        return;
    sl_bytes visible;
    sl_stop_finish(s->stop, &visible);
    sl_event event = {.request = s->id,
                      .kind = SL_EVENT_FINISHED,
                      .bytes = visible.bytes,
                      .n_bytes = (uint32_t)visible.n_bytes,
                      .finish = s->finish,
                      .stop_string = sl_stop_matched(s->stop),
                      .error = s->error,
                      .n_prompt = (uint32_t)s->request.n_prompt,
                      .n_generated = s->n_generated,
                      .prefill_us = s->first_us ? s->first_us - s->submitted_us : 0,
                      .decode_us = s->last_us - s->first_us};
    s->request.on_event(s->request.user, &event);
}

static void emit(sl_engine *e)
{
    for (sl_sequence **link = &e->running; *link;) {
        sl_sequence *s = *link;
        if (!s->finished) {
            link = &s->next;
            continue;
        }
        *link = s->next;
        e->n_running--;
        for (int g = 0; g < e->plan->n_groups; g++) {
            sl_sequence_release(s, &e->pools[g], g);
            e->unreserved[g] += s->reserved[g];
        }
        emit_finished(s);
        sl_sequence_close(s);
    }
}

static void drop_cancelled(sl_engine *e)
{
    for (sl_sequence *s = e->running; s; s = s->next)
        if (s->cancelled && !s->finished)
            finish(s, SL_FINISH_CANCELLED);
    for (sl_sequence **link = &e->waiting; *link;) {
        sl_sequence *s = *link;
        if (!s->cancelled) {
            link = &s->next;
            continue;
        }
        *link = s->next;
        finish(s, SL_FINISH_CANCELLED);
        emit_finished(s);
        sl_sequence_close(s);
    }
    emit(e);
}

sl_status sl_engine_step(sl_engine *e, int64_t now_us, bool *busy, sl_err *err)
{
    drop_cancelled(e);
    admit(e, now_us);
    batch(e);
    if (e->n_rows > 0) {
        sl_batch b = {.rows = e->rows, .n_rows = e->n_rows, .seqs = e->seqs, .n_seqs = e->n_seqs};
        SL_TRY(e->backend->run(e->context, &b, err));
        sample(e);
        emit(e);
    }
    *busy = e->running || e->waiting;
    return SL_OK;
}
