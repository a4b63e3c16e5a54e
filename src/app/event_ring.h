/* Events of one ticket on their way from the engine to whoever reads them: a ring of bytes of fixed size. */
#ifndef SL_APP_EVENT_RING_H
#define SL_APP_EVENT_RING_H

#include "engine/engine.h"

/* Caller-owned; not thread-safe. */
typedef struct sl_event_ring {
    char *bytes;
    size_t capacity, first, used;
    char *text; /* of the event popped last */
    size_t max_text;
} sl_event_ring;

/* Bytes that an event takes in the ring. */
size_t sl_event_ring_event_bytes(uint32_t n_logprobs, size_t n_text);

/* A ring of capacity bytes for events with at most max_text bytes of text. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_event_ring_open(sl_event_ring *ring, size_t capacity, size_t max_text, sl_err *err);
void sl_event_ring_close(sl_event_ring *ring);

/* Adds an event that happened at time_us, without its embedding, finish and error; false, and nothing is added, when less
 * than n_spare bytes would be left. Allocates nothing. */
SL_WARN_UNUSED bool sl_event_ring_push(sl_event_ring *ring, const sl_event *event, int64_t time_us, size_t n_spare);

/* Takes the oldest event; false when there is none. Its bytes are valid until the next call. */
SL_WARN_UNUSED bool sl_event_ring_pop(sl_event_ring *ring, sl_event *event, int64_t *time_us);

#endif
