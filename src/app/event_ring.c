#include "app/event_ring.h"

#include <stdlib.h>
#include <string.h>

/* A token's record in the ring: this, n_top of sl_logprob, n_bytes of text. An sl_event has room for all that may ever be reported;
 * most tokens need little of it. */
typedef struct {
    int64_t time_us;
    uint64_t request;
    uint32_t n_prompt, n_generated;
    uint32_t token, n_top, n_bytes;
    float logprob;
} record;

size_t sl_event_ring_token_bytes(uint32_t n_logprobs, size_t n_text)
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
    ring->first = (ring->first + n) % ring->capacity;
    ring->used -= n;
}

bool sl_event_ring_push(sl_event_ring *ring, const sl_event *event, int64_t time_us)
{
    const sl_sampled *sampled = &event->sampled;
    size_t n_bytes = SL_MIN(event->n_bytes, ring->max_text);
    if (ring->capacity - ring->used < sl_event_ring_token_bytes(sampled->n_top, n_bytes))
        return false;
    record r = {.time_us = time_us,
                .request = event->request,
                .n_prompt = event->n_prompt,
                .n_generated = event->n_generated,
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
                        .kind = SL_EVENT_TOKEN,
                        .bytes = ring->text,
                        .n_bytes = r.n_bytes,
                        .stop_string = -1,
                        .n_prompt = r.n_prompt,
                        .n_generated = r.n_generated,
                        .sampled = {.token = r.token, .logprob = r.logprob, .n_top = r.n_top}};
    *time_us = r.time_us;
    take(ring, event->sampled.top, r.n_top * sizeof *event->sampled.top);
    take(ring, ring->text, r.n_bytes);
    return true;
}
