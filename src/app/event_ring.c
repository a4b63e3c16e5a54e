#include "app/event_ring.h"

#include <stdlib.h>
#include <string.h>

/* An event's record in the ring: this, n_top of sl_logprob, n_bytes of text. An sl_event has room for all that may ever be
 * reported; most events need little of it. */
typedef struct {
    int64_t time_us;
    uint64_t request;
    uint32_t kind, choice, position;
    uint32_t n_prompt, n_generated, n_cached;
    uint32_t token, n_top, n_bytes;
    float logprob;
} record;

size_t sl_event_ring_event_bytes(uint32_t n_logprobs, size_t n_text)
{
    return sizeof(record) + n_logprobs * sizeof(sl_logprob) + n_text;
}

sl_status sl_event_ring_open(sl_event_ring *ring, size_t capacity, size_t max_text, sl_err *err)
{
    *ring = (sl_event_ring){.bytes = malloc(SL_MAX(capacity, 1)),
                            .capacity = SL_MAX(capacity, 1),
                            .text = malloc(max_text + 1),
                            .max_text = max_text};
    if (ring->bytes && ring->text)
        return SL_OK;
    sl_event_ring_close(ring);
    SL_FAIL(err, SL_ERR_NOMEM, "no memory for %zu bytes of events", capacity);
}

void sl_event_ring_close(sl_event_ring *ring)
{
    free(ring->bytes);
    free(ring->text);
    *ring = (sl_event_ring){0};
}

static void put(sl_event_ring *ring, const void *bytes, size_t n)
{
    if (n == 0)
        return;
    size_t at = (ring->first + ring->used) % ring->capacity, head = SL_MIN(n, ring->capacity - at);
    memcpy(ring->bytes + at, bytes, head);
    memcpy(ring->bytes, (const char *)bytes + head, n - head);
    ring->used += n;
}

static void take(sl_event_ring *ring, void *bytes, size_t n)
{
    size_t head = SL_MIN(n, ring->capacity - ring->first);
    memcpy(bytes, ring->bytes + ring->first, head);
    memcpy((char *)bytes + head, ring->bytes, n - head);
    ring->used -= n;
    /* An empty ring begins anew, so that one which is read in time never touches most of its memory. */
    ring->first = ring->used ? (ring->first + n) % ring->capacity : 0;
}

bool sl_event_ring_push(sl_event_ring *ring, const sl_event *event, int64_t time_us, size_t n_spare)
{
    const sl_sampled *sampled = &event->sampled;
    size_t n_bytes = SL_MIN(event->n_bytes, ring->max_text);
    if (ring->capacity - ring->used < sl_event_ring_event_bytes(sampled->n_top, n_bytes) + n_spare)
        return false;
    record r = {.time_us = time_us,
                .request = event->request,
                .kind = event->kind,
                .choice = event->choice,
                .position = event->position,
                .n_prompt = event->n_prompt,
                .n_generated = event->n_generated,
                .n_cached = event->n_cached,
                .token = sampled->token,
                .n_top = sampled->n_top,
                .n_bytes = (uint32_t)n_bytes,
                .logprob = sampled->logprob};
    put(ring, &r, sizeof r);
    put(ring, sampled->top, sampled->n_top * sizeof *sampled->top);
    put(ring, event->bytes, n_bytes);
    return true;
}

bool sl_event_ring_pop(sl_event_ring *ring, sl_event *event, int64_t *time_us)
{
    if (ring->used == 0)
        return false;
    record r;
    take(ring, &r, sizeof r);
    *event = (sl_event){.request = r.request,
                        .kind = (sl_event_kind)r.kind,
                        .choice = r.choice,
                        .position = r.position,
                        .bytes = ring->text,
                        .n_bytes = r.n_bytes,
                        .stop_string = -1,
                        .n_prompt = r.n_prompt,
                        .n_generated = r.n_generated,
                        .n_cached = r.n_cached,
                        .sampled = {.token = r.token, .logprob = r.logprob, .n_top = r.n_top}};
    *time_us = r.time_us;
    take(ring, event->sampled.top, r.n_top * sizeof *event->sampled.top);
    take(ring, ring->text, r.n_bytes);
    return true;
}
