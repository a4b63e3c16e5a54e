/* The engine: sequences, their KV blocks, and the step loop admit -> batch -> forward -> sample -> emit.
 * It sees token ids, never text. One thread at a time may call into an engine. */
#ifndef SL_ENGINE_ENGINE_H
#define SL_ENGINE_ENGINE_H

#include "engine/stop.h"
#include "graph/backend.h"
#include "model/model.h"
#include "sample/sampler.h"

typedef struct sl_engine sl_engine;

typedef struct sl_engine_options {
    uint32_t context;      /* most tokens of one sequence, prompt and answer; 0 = the model's own */
    uint32_t chunk;        /* most rows of a step (prefill goes in chunks of this); 0 = 512 */
    uint32_t n_sequences;  /* KV memory is sized for this many sequences of `context` tokens; 0 = 1 */
    uint32_t logit_rows;   /* most rows a step computes logits for; 0 = 32 */
    uint64_t shuffle_seed; /* not 0: physical KV blocks are handed out in a random order (tests) */
    /* NULL: no stop strings, and events without bytes. It must outlive the engine. */
    const sl_token_bytes *token_bytes;
} sl_engine_options;

/* Memory an engine takes, by the arithmetic that also sizes it (`sluice info` prints it). */
typedef struct sl_engine_memory {
    uint64_t kv_bytes, step_bytes, logits_bytes, scratch_bytes, total_bytes;
    uint32_t context, n_blocks; /* after defaults; blocks in each layer group's pool, for all groups */
} sl_engine_memory;
SL_WARN_UNUSED sl_status sl_engine_measure(const sl_model *model, const sl_engine_options *options, int n_threads,
                                           sl_engine_memory *out, sl_err *err);

/* model and pool must outlive the engine. SL_ERR_NOMEM says how much was wanted. */
SL_WARN_UNUSED sl_status sl_engine_open(const sl_model *model, const sl_engine_options *options, sl_threads *pool,
                                        sl_engine **out, sl_err *err);
void sl_engine_close(sl_engine *engine);

/* Sets the backend's profile (it must stay until the next one is set); NULL ends it. */
void sl_engine_set_profile(sl_engine *engine, const sl_profile *profile);

/* Context after defaults. */
uint32_t sl_engine_context(const sl_engine *engine);

typedef enum sl_finish {
    SL_FINISH_STOP,   /* a stop token, which is not among the emitted tokens, or a stop string, whose last token is */
    SL_FINISH_LENGTH, /* max_tokens or the context is used up */
    SL_FINISH_CANCELLED, /* sl_engine_cancel */
    SL_FINISH_ERROR,     /* see the event's error; the other sequences go on */
} sl_finish;
const char *sl_finish_name(sl_finish finish); /* "stop", "length", "cancelled", "error" */

typedef enum sl_event_kind { SL_EVENT_TOKEN, SL_EVENT_FINISHED } sl_event_kind;

typedef struct sl_event {
    uint64_t request;
    sl_event_kind kind;
    sl_sampled sampled; /* TOKEN */
    /* Bytes to show from now on, valid during the call: TOKEN as far as no stop string may still take them in, FINISHED
     * the rest. Not cut at characters. All of a request's events together give the answer without its stop string. */
    const char *bytes;
    uint32_t n_bytes;
    sl_finish finish;    /* FINISHED, and what follows */
    int32_t stop_string; /* FINISHED: index of the stop string that ended the answer; -1: none did */
    sl_err error;
    uint32_t n_prompt, n_generated;
    uint32_t n_cached;  /* prompt tokens whose KV was there already */
    int64_t prefill_us; /* submit to first token */
    int64_t decode_us;  /* first token to last */
} sl_event;

/* Called from sl_engine_step on the calling thread; may call submit and cancel, nothing else. */
typedef void sl_event_fn(void *user, const sl_event *event);

/* Logits of a scored position: n_vocab floats that predict the token at position + 1; valid during the call. */
typedef void sl_logits_fn(void *user, uint32_t position, const float *logits);

typedef struct sl_request {
    const uint32_t *prompt;      /* copied */
    size_t n_prompt;             /* at least 1 */
    uint32_t max_tokens;         /* to generate; 0 = score the prompt only */
    const uint32_t *stop_tokens; /* copied; none = generate until max_tokens */
    size_t n_stop_tokens;
    sl_bytes_list stop_strings; /* copied; see engine/stop.h. Needs the engine's token_bytes */
    sl_sample_params sampling;  /* its bias array is copied */
    sl_event_fn *on_event;
    sl_logits_fn *on_logits; /* not NULL: called for every prompt position from score_from on, in order */
    uint32_t score_from;
    void *user;
} sl_request;

/* Queues a request. Refused at once, with the reason: an empty prompt, a token id outside the vocabulary, a prompt that
 * leaves no room in the context (SL_ERR_LIMIT), bad sampling parameters (SL_ERR_ARGUMENT). */
SL_WARN_UNUSED sl_status sl_engine_submit(sl_engine *engine, const sl_request *request, uint64_t *id, sl_err *err);

/* Ends a request before the next step; its FINISHED event comes from that step. Unknown ids are ignored. */
void sl_engine_cancel(sl_engine *engine, uint64_t id);

/* Runs one step at time now_us (CLOCK_MONOTONIC or simulated). *busy = work is left. A request's own failure ends that
 * request with an event; a status other than SL_OK means that the engine itself cannot go on. */
SL_WARN_UNUSED sl_status sl_engine_step(sl_engine *engine, int64_t now_us, bool *busy, sl_err *err);

#endif
