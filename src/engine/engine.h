/* The engine: sequences, their KV blocks, and the step loop admit -> batch -> forward -> sample -> emit.
 * It sees token ids, never text. One thread at a time may call into an engine. */
#ifndef SL_ENGINE_ENGINE_H
#define SL_ENGINE_ENGINE_H

#include "base/clock.h"
#include "engine/keep.h"
#include "engine/pooling.h"
#include "engine/schedule.h"
#include "engine/stop.h"
#include "graph/backend.h"
#include "model/model.h"
#include "sample/rows.h"

typedef struct sl_engine sl_engine;

/* What an engine runs: a plan, on a backend. What it points to must outlive the engine. */
typedef struct sl_engine_model {
    const sl_plan *plan;
    const sl_backend *backend;
    uint32_t n_vocab, context_length;
} sl_engine_model;
sl_engine_model sl_engine_model_of(const sl_model *model); /* on this machine's CPU */

typedef struct sl_engine_options {
    uint32_t context; /* most tokens of one sequence, prompt and answer; 0 = the model's own, as far as memory goes */
    uint32_t chunk;   /* most rows of a step (prefill goes in chunks of this); 0 = 512 */
    uint32_t n_sequences;  /* most that run at once; 0 = 1 */
    uint64_t kv_bytes;     /* memory for keys and values, which they share; 0 = room for each to fill its context */
    uint32_t logit_rows;   /* most rows a step computes logits for; 0 = 32 */
    uint64_t shuffle_seed; /* not 0: physical KV blocks are handed out in a random order (tests) */
    sl_keep keep;          /* what a sequence keeps of its keys and values; all 0 = everything */
    bool no_prefix_cache;  /* nothing is shared between requests */
    uint8_t cache_key[16]; /* of the prefix tree's hash: a secret one keeps users from making it slow */
    sl_clock_fn *clock;    /* NULL = sl_clock_us */
    void *clock_user;
    /* NULL: no stop strings, and events without bytes. It must outlive the engine. */
    const sl_token_bytes *token_bytes;
    sl_batching batching;
    int64_t max_wait_us; /* SL_BATCHING_DYNAMIC: a batch that is not full begins after so long */
    int64_t ageing_us;   /* who has waited longer gets turns before all others (engine/schedule.h); 0 = 30 s */
    bool
        full_chunks; /* prompts are computed in full chunks whatever decodes beside them: how others do it, to compare */
    const sl_cost *cost; /* what was learned before of this machine and model, copied; NULL or of another = the prior */
} sl_engine_options;

/* Memory an engine takes, by the arithmetic that also sizes it (`sluice info` prints it). */
typedef struct sl_engine_memory {
    uint64_t kv_bytes, step_bytes, logits_bytes, scratch_bytes, total_bytes;
    uint32_t context, n_blocks; /* after defaults; blocks in each layer group's pool, for all groups */
} sl_engine_memory;
SL_WARN_UNUSED sl_status sl_engine_measure(const sl_engine_model *model, const sl_engine_options *options,
                                           int n_threads, sl_engine_memory *out, sl_err *err);

/* How much memory for keys and values was chosen, and by what. */
typedef struct sl_kv_choice {
    bool given;            /* options said how much */
    uint64_t kv_bytes;     /* chosen */
    uint64_t needed_bytes; /* of all sequences with their context filled: never more is chosen unless given */
    uint64_t free_bytes;   /* as the caller said */
    uint32_t n_sequences, context;
} sl_kv_choice;

/* Sets options->kv_bytes where it is 0: to what n_sequences sequences of the context (the model's own where that is 0)
 * need, or if that is less to three quarters of free_bytes, less the engine's other memory. free_bytes: what may still be
 * taken (base/memory.h) when the weights are in memory. SL_ERR_NOMEM when that leaves nothing; errors of
 * sl_engine_measure. */
SL_WARN_UNUSED sl_status sl_engine_choose_kv(const sl_engine_model *model, sl_engine_options *options, int n_threads,
                                             uint64_t free_bytes, sl_kv_choice *out, sl_err *err);

/* Copies model; what it points to and pool must outlive the engine. SL_ERR_NOMEM says how much was wanted; SL_ERR_LIMIT
 * when kv_bytes do not hold one block for each layer. */
SL_WARN_UNUSED sl_status sl_engine_open(const sl_engine_model *model, const sl_engine_options *options,
                                        sl_threads *pool, sl_engine **out, sl_err *err);
void sl_engine_close(sl_engine *engine);

/* Sets the backend's profile (it must stay until the next one is set); NULL ends it. */
void sl_engine_set_profile(sl_engine *engine, const sl_profile *profile);

/* Context after defaults. */
uint32_t sl_engine_context(const sl_engine *engine);

typedef enum sl_event_kind {
    SL_EVENT_TOKEN,
    SL_EVENT_FINISHED,
    SL_EVENT_PROMPT,    /* log-probability of a prompt token, see sl_request.prompt_logprobs */
    SL_EVENT_EMBEDDING, /* see sl_request.pooling; FINISHED follows */
} sl_event_kind;

typedef struct sl_event {
    uint64_t request;
    uint32_t choice; /* of the request, from 0 on; each has a FINISHED of its own */
    sl_event_kind kind;
    sl_sampled sampled;     /* TOKEN, PROMPT */
    uint32_t position;      /* PROMPT: of the token in the prompt */
    const float *embedding; /* EMBEDDING: n_embedding floats, valid during the call */
    uint32_t n_embedding;
    /* Bytes to show from now on, valid during the call: TOKEN as far as no stop string may still take them in, FINISHED
     * the rest. Not cut at characters. All of a choice's events together give the answer without its stop string. */
    const char *bytes;
    uint32_t n_bytes;
    sl_finish finish;    /* FINISHED, and what follows */
    int32_t stop_string; /* FINISHED: index of the stop string that ended the answer; -1: none did */
    sl_err error;
    uint32_t n_prompt, n_generated;
    uint32_t n_cached;  /* prompt tokens whose KV was there already, or was made by another request meanwhile */
    int64_t queue_us;   /* submit to the step in which it began to run */
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
    uint32_t max_tokens;         /* to generate; 0 = score the prompt only, or warm the prefix tree */
    uint32_t n_choices;          /* answers to the prompt, each with random numbers of its own; 0 = 1 */
    uint32_t first_choice;       /* draws are those of the choices from this number on, of a request that has all */
    uint64_t tenant;             /* requests of different tenants share nothing; each gets a fair part of the time */
    double tenant_weight;        /* how large a part; 0 = 1. The last request's counts */
    int32_t priority;            /* higher is served first, and may push out running requests of lower priority */
    int64_t ttft_target_us;      /* from submit to the first token; 0 = none. engine/schedule.h says what targets do */
    int64_t itl_target_us;       /* from one token to the next; 0 = none */
    bool warm;                   /* with max_tokens 0: compute the prompt so that later requests find it cached */
    const uint32_t *stop_tokens; /* copied; none = generate until max_tokens */
    size_t n_stop_tokens;
    sl_bytes_list stop_strings; /* copied; see engine/stop.h. Needs the engine's token_bytes */
    /* Its arrays are copied; its stop_tokens are set to those above. Before min_tokens no stop string ends the answer. */
    sl_sample_params sampling;
    sl_event_fn *on_event;
    sl_logits_fn *on_logits; /* not NULL: called for every prompt position from score_from on, in order */
    /* An event PROMPT for each prompt token after position score_from, in order: its log-probability given those before
     * it, and the n_prompt_logprobs likeliest tokens there (at most SL_MAX_LOGPROBS). Nothing is kept of past ones. */
    bool prompt_logprobs;
    uint32_t n_prompt_logprobs;
    uint32_t score_from;
    /* Not NONE: the prompt's embedding, of its hidden states after the last layer's norm, is all that is wanted (no tokens,
     * no logits). Any prompt that the context holds; computed in chunks beside other requests as any prompt. */
    sl_pooling pooling;
    bool normalise; /* the embedding to length 1 */
    void *user;
} sl_request;

/* Queues a request. Refused at once, with the reason: an empty prompt, a token id outside the vocabulary, a prompt that
 * leaves no room in the context or, with its answer, in the KV memory beside what is pinned, more choices than sequences
 * (SL_ERR_LIMIT), bad sampling parameters or stop strings, wishes that do not go together (SL_ERR_ARGUMENT). */
SL_WARN_UNUSED sl_status sl_engine_submit(sl_engine *engine, const sl_request *request, uint64_t *id, sl_err *err);

/* Time from now to the request's first token if nothing else arrives (engine/forecast.h; answers with stop tokens are
 * expected to be as long as others have been), without queueing it. The errors of sl_engine_submit: SL_ERR_LIMIT when it
 * can never fit. */
SL_WARN_UNUSED sl_status sl_engine_predict(sl_engine *engine, const sl_request *request, int64_t *wait_us, sl_err *err);

/* What the engine has learned of the time that steps take, to be saved (sl_cost_write); valid until the next step. */
const sl_cost *sl_engine_cost(const sl_engine *engine);

/* Ends a request before the next step; its FINISHED event comes from that step. Unknown ids are ignored. */
void sl_engine_cancel(sl_engine *engine, uint64_t id);

/* Runs one step at time now_us (CLOCK_MONOTONIC or simulated). *busy = work is left. A request's own failure ends that
 * request with an event; a status other than SL_OK means that the engine itself cannot go on. */
SL_WARN_UNUSED sl_status sl_engine_step(sl_engine *engine, int64_t now_us, bool *busy, sl_err *err);

/* After a step that left work: until when further steps would do nothing unless a request comes or is cancelled, because
 * a batch is still being collected (SL_BATCHING_DYNAMIC). 0: there is something to do. */
int64_t sl_engine_idle_until(const sl_engine *engine);

/* Keeps what is cached of a tenant's tokens (whole blocks of 16) from eviction; *n_pinned = how many of the tokens that
 * covers. Pins add up. SL_ERR_NOT_FOUND when nothing of it is cached (warm it first); SL_ERR_LIMIT when a request that was
 * accepted would no longer fit beside it. */
SL_WARN_UNUSED sl_status sl_engine_pin_prefix(sl_engine *engine, uint64_t tenant, const uint32_t *tokens,
                                              uint32_t n_tokens, uint32_t *n_pinned, sl_err *err);
/* Takes such a pin away: the same tokens, n_pinned of them. SL_ERR_NOT_FOUND when they are not pinned. */
SL_WARN_UNUSED sl_status sl_engine_unpin_prefix(sl_engine *engine, uint64_t tenant, const uint32_t *tokens,
                                                uint32_t n_tokens, sl_err *err);

/* What the engine holds and has done since it was opened. Blocks are those of all layer groups. */
typedef struct sl_engine_statistics {
    uint32_t n_waiting, n_running;    /* sequences; choices that have not begun count in n_running alone */
    uint32_t n_blocks, n_blocks_used; /* used: held by running sequences */
    uint32_t n_blocks_cached;         /* in the prefix tree, held by sequences or not */
    uint64_t n_slots_unused;          /* of the blocks of running sequences, without a token; each sequence by itself */
    uint64_t prompt_tokens;           /* of requests whose prompt is done, cached_tokens among them */
    uint64_t generated_tokens, cached_tokens;
    uint64_t prefix_queries, prefix_hits; /* tokens looked for in the prefix tree when a sequence began, and found */
    uint64_t n_preemptions;
    uint64_t n_finished[SL_FINISH_COUNT]; /* by sl_finish */
    uint64_t n_steps;
    uint32_t last_rows;        /* rows of the last step */
    int64_t last_predicted_us; /* its forward pass by the cost model; 0 = none */
    int64_t last_measured_us;  /* and by the clock */
} sl_engine_statistics;
/* In a FINISHED event what it tells of is counted and its blocks are given back; others that end in the same step follow.
 * Takes a look at the running sequences for each layer group, and at all blocks where any is pinned. */
void sl_engine_stats(const sl_engine *engine, sl_engine_statistics *out);

#endif
