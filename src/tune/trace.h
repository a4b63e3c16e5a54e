/* Request traces: who asks for how much, and when. A trace is the same on every machine: it is a function of its name and
 * seed, or it comes from a JSONL file. */
#ifndef SL_TUNE_TRACE_H
#define SL_TUNE_TRACE_H

#include "base/arena.h"
#include "base/status.h"

enum {
    SL_TRACE_MAX_REQUESTS = 1 << 20,
    SL_TRACE_MAX_TOKENS = 1 << 24,      /* of a request, prompt and output */
    SL_TRACE_MAX_LINE_BYTES = 16 << 20, /* of a file */
    SL_TRACE_MAX_NAMES = 4096,          /* tenants of a file */
};

/* One request. Its prompt is, in this order: what its conversation said before (the prompt and the output of the turn that it
 * follows), or the first n_prefix tokens of its prefix group; then tokens of its own. */
typedef struct sl_trace_request {
    int64_t arrival_us; /* after the begin; of a turn that follows another, after that one's end */
    uint32_t n_prompt;  /* of the whole prompt */
    uint32_t n_output;  /* at least 1; generation does not stop before */
    uint32_t n_padding; /* tokens to compute behind the output, which nobody asked for */
    uint32_t n_prefix;
    uint32_t prefix_group;                 /* 0 = none */
    uint32_t follows;                      /* 1 + index of the turn before it in its conversation; 0 = none */
    uint32_t tenant;                       /* index into the trace's names */
    int32_t priority;                      /* higher goes first */
    double tenant_weight;                  /* of the tenant from now on; 0 = 1 */
    int64_t ttft_target_us, itl_target_us; /* 0 = none */
    const uint32_t
        *prompt; /* token ids that a file gave (n_prompt of them, less what the conversation said before), or NULL */
} sl_trace_request;

typedef struct sl_trace {
    char name[64];
    uint64_t seed;              /* also of the tokens that no file gave */
    sl_trace_request *requests; /* by arrival; a turn stands behind the one it follows */
    size_t n_requests;
    const char **tenants; /* n_tenants names */
    uint32_t n_tenants;
    size_t n_cut; /* requests that sl_trace_options.max_tokens made shorter */
    sl_arena arena;
} sl_trace;

typedef enum sl_arrivals {
    SL_ARRIVALS_OWN,     /* as the trace's table says */
    SL_ARRIVALS_AT_ONCE, /* all at the begin */
    SL_ARRIVALS_POISSON, /* exponential gaps */
    SL_ARRIVALS_BURSTY,  /* Poisson bursts of a geometric number of requests */
} sl_arrivals;

typedef struct sl_trace_options {
    uint64_t seed;
    size_t n_requests;    /* 0 = as the trace's table says */
    double rate;          /* requests a second; 0 = as the table says */
    sl_arrivals arrivals; /* where the table says at once, a rate alone makes them Poisson */
    uint32_t burst;       /* mean requests of a burst, for bursty arrivals only; 0 = 8. Larger ones are fewer */
    uint32_t max_tokens;  /* prompt and output together are cut to it, output last; 0 = never */
} sl_trace_options;

/* Name and one line about the index-th built-in trace; NULL behind the last. Static storage. */
const char *sl_trace_builtin(size_t index, const char **summary);

/* Makes the built-in trace of that name. The caller closes it. SL_ERR_NOT_FOUND names those that there are;
 * SL_ERR_ARGUMENT for more than SL_TRACE_MAX_REQUESTS requests, or a burst's size where none come. */
SL_WARN_UNUSED sl_status sl_trace_make(const char *name, const sl_trace_options *options, sl_trace **out, sl_err *err);

/* Reads a trace from n_bytes of JSONL, one request a line; empty lines are skipped. Fields: "prompt_tokens" or "prompt" (a
 * list of token ids), "output_tokens"; optional "arrival_ms", "tenant" (a name), "tenant_weight", "priority", "ttft_target_ms",
 * "itl_target_ms", "prefix_group" (a name) with "prefix_tokens", "conversation" (a name: each further line of the same one is its next turn, whose prompt fields count the new
 * tokens only and whose arrival_ms counts from the end of the turn before). Anything else is an error, which names line
 * and field (SL_ERR_FORMAT, SL_ERR_LIMIT). name is for the report. The caller closes it. */
SL_WARN_UNUSED sl_status sl_trace_read(const char *bytes, size_t n_bytes, const char *name, uint64_t seed,
                                       sl_trace **out, sl_err *err);
void sl_trace_close(sl_trace *trace);

/* Token at position of a request's prompt, below n_vocab unless a file gave it. What the conversation said before is not
 * the trace's to know: position is then at least that many. */
uint32_t sl_trace_token(const sl_trace *trace, size_t request, uint32_t position, uint32_t n_vocab);

/* Tokens of the conversation that stand in front of the request's own. */
uint32_t sl_trace_n_history(const sl_trace *trace, size_t request);

/* How much faster continuous batching of n_parallel sequences can generate this trace than static batching at most, were all
 * requests there at once: decode steps of batches of n_parallel in the trace's order, each as long as its longest output,
 * over the least number of steps, max(ceil(sum of steps / n_parallel), longest output). It is a bound on time where a step
 * with more sequences takes no less than one with fewer, since the prompts' work is the same in both. */
double sl_trace_bound(const sl_trace *trace, uint32_t n_parallel);

/* Gives every request the padding that it has in static batches of n_parallel in the trace's order, as engines compute them
 * that cannot take a sequence out of a batch: each goes on to the end of its batch's longest output. SL_ERR_ARGUMENT unless
 * all requests come at the begin, with equal priorities and one tenant, so that these are the engine's batches. */
SL_WARN_UNUSED sl_status sl_trace_pad(sl_trace *trace, uint32_t n_parallel, sl_err *err);

#endif
