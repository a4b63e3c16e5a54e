/* The built-in traces, and what all traces have in common. */
#include "tune/trace.h"

#include "base/checked.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- random numbers: a function of seed, stream and counter ---- */

/* What a number is for. Tokens of a prefix group or a request have streams from TOKENS on. */
enum { DRAW_GAP, DRAW_BURST, DRAW_PROMPT, DRAW_OUTPUT, DRAW_GROUP, DRAW_TURNS, DRAW_THINK, DRAW_TENANT, DRAW_TOKENS };

/* The output function of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t draw(uint64_t seed, uint64_t stream, uint64_t counter)
{
    const uint64_t golden = 0x9e3779b97f4a7c15u;
    uint64_t key = mix(seed + golden) ^ mix(stream * golden + 1);
    return mix(mix(key) + (counter + 1) * golden);
}

/* In (0, 1). */
static double draw_uniform(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return ((double)(draw(seed, stream, counter) >> 11) + 0.5) * 0x1p-53;
}

static double draw_exponential(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return -log(draw_uniform(seed, stream, counter));
}

/* Box and Muller's transform, its cosine half. */
static double draw_normal(uint64_t seed, uint64_t stream, uint64_t counter)
{
    double radius = sqrt(-2 * log(draw_uniform(seed, stream, 2 * counter)));
    return radius * cos(2 * 3.14159265358979323846 * draw_uniform(seed, stream, 2 * counter + 1));
}

/* ---- the table ---- */

/* Lengths in tokens: low where sigma is 0 and high is low; uniform in [low, high]; or lognormal with this median, cut to
 * [low, high]. */
typedef struct lengths {
    uint32_t low, high, median;
    double sigma;
} lengths;

typedef struct spec {
    const char *name, *summary;
    size_t n_requests;
    sl_arrivals arrivals;
    double rate;
    lengths prompt, output;      /* prompt: without the prefix, and of a turn alone */
    uint32_t n_groups, n_prefix; /* prefixes that requests share by chance, each of n_prefix tokens */
    uint32_t max_turns;          /* conversations have 2 to so many turns; 0 = there are none */
    double think_seconds;        /* mean of the time between an answer and the next turn */
    uint32_t flood;              /* not 0: two tenants, the first with so many times the other's requests */
} spec;

#define FIXED(n)                                                                                                       \
    {                                                                                                                  \
        .low = (n), .high = (n)                                                                                        \
    }
#define UNIFORM(low_, high_)                                                                                           \
    {                                                                                                                  \
        .low = (low_), .high = (high_)                                                                                 \
    }
#define LOGNORMAL(median_, sigma_, low_, high_)                                                                        \
    {                                                                                                                  \
        .low = (low_), .high = (high_), .median = (median_), .sigma = (sigma_)                                         \
    }
#define HEAVY_PROMPT LOGNORMAL(64, 0.8, 8, 1024)
#define HEAVY_OUTPUT LOGNORMAL(48, 1.2, 4, 1024)

static const spec specs[] = {
    {.name = "fixed",
     .summary = "prompts of 128 tokens, outputs of 64, all at once",
     .n_requests = 64,
     .arrivals = SL_ARRIVALS_AT_ONCE,
     .prompt = FIXED(128),
     .output = FIXED(64)},
    {.name = "uniform",
     .summary = "prompts of 16 to 256 tokens, outputs of 16 to 128, all at once",
     .n_requests = 64,
     .arrivals = SL_ARRIVALS_AT_ONCE,
     .prompt = UNIFORM(16, 256),
     .output = UNIFORM(16, 128)},
    {.name = "lognormal",
     .summary = "heavy-tailed: prompts of median 64, outputs of median 48 and up to 1024, all at once",
     .n_requests = 128,
     .arrivals = SL_ARRIVALS_AT_ONCE,
     .prompt = HEAVY_PROMPT,
     .output = HEAVY_OUTPUT},
    {.name = "poisson",
     .summary = "the lengths of lognormal, Poisson arrivals, 4 a second",
     .n_requests = 128,
     .arrivals = SL_ARRIVALS_POISSON,
     .rate = 4,
     .prompt = HEAVY_PROMPT,
     .output = HEAVY_OUTPUT},
    {.name = "bursty",
     .summary = "the lengths of lognormal, bursts of 8 on average, 4 requests a second",
     .n_requests = 128,
     .arrivals = SL_ARRIVALS_BURSTY,
     .rate = 4,
     .prompt = HEAVY_PROMPT,
     .output = HEAVY_OUTPUT},
    {.name = "shared-prefix",
     .summary = "four prefixes of 512 tokens, suffixes of 16 to 64, outputs of 32, all at once",
     .n_requests = 64,
     .arrivals = SL_ARRIVALS_AT_ONCE,
     .prompt = UNIFORM(16, 64),
     .output = FIXED(32),
     .n_groups = 4,
     .n_prefix = 512},
    {.name = "long-prefix",
     .summary = "one prefix of 2000 tokens, suffixes of 16, outputs of 64, all at once",
     .n_requests = 16,
     .arrivals = SL_ARRIVALS_AT_ONCE,
     .prompt = FIXED(16),
     .output = FIXED(64),
     .n_groups = 1,
     .n_prefix = 2000},
    {.name = "chat",
     .summary = "conversations of 2 to 6 turns behind a system prompt of 64 tokens, 1 a second; 2 s to think",
     .n_requests = 96,
     .arrivals = SL_ARRIVALS_POISSON,
     .rate = 1,
     .prompt = LOGNORMAL(24, 0.7, 4, 256),
     .output = LOGNORMAL(48, 0.9, 4, 384),
     .n_groups = 1,
     .n_prefix = 64,
     .max_turns = 6,
     .think_seconds = 2},
    {.name = "two-tenants",
     .summary = "the lengths of uniform, Poisson, 4 a second; tenant a sends 20 times as much as tenant b",
     .n_requests = 525,
     .arrivals = SL_ARRIVALS_POISSON,
     .rate = 4,
     .prompt = UNIFORM(16, 256),
     .output = UNIFORM(16, 128),
     .flood = 20},
    {.name = "equal-tenants",
     .summary = "the same, but both tenants send as much",
     .n_requests = 525,
     .arrivals = SL_ARRIVALS_POISSON,
     .rate = 4,
     .prompt = UNIFORM(16, 256),
     .output = UNIFORM(16, 128),
     .flood = 1},
};

enum { DEFAULT_BURST = 8 };

const char *sl_trace_builtin(size_t index, const char **summary)
{
    if (index >= SL_COUNTOF(specs))
        return NULL;
    if (summary)
        *summary = specs[index].summary;
    return specs[index].name;
}

/* ---- making one ---- */

static uint32_t draw_length(const lengths *l, uint64_t seed, uint64_t stream, uint64_t counter)
{
    if (l->sigma > 0) {
        double n = l->median * exp(l->sigma * draw_normal(seed, stream, counter));
        return n <= l->low ? l->low : n >= l->high ? l->high : (uint32_t)(n + 0.5);
    }
    return l->low + (uint32_t)(draw_uniform(seed, stream, counter) * (l->high - l->low + 1));
}

/* Arrival times, one call after the other. */
typedef struct arrival_clock {
    sl_arrivals arrivals;
    double rate, now; /* seconds */
    double burst;     /* mean requests of one */
    size_t left;      /* requests of the present burst that are still to come */
    uint64_t seed, counter;
} arrival_clock;

static int64_t next_arrival(arrival_clock *c)
{
    uint64_t i = c->counter++;
    if (c->arrivals == SL_ARRIVALS_POISSON)
        c->now += draw_exponential(c->seed, DRAW_GAP, i) / c->rate;
    if (c->arrivals == SL_ARRIVALS_BURSTY && c->left-- == 0) {
        c->now += draw_exponential(c->seed, DRAW_GAP, i) * c->burst / c->rate;
        /* Geometric from 1 on. */
        c->left = (size_t)(log(draw_uniform(c->seed, DRAW_BURST, i)) / log1p(-1 / c->burst));
    }
    return (int64_t)(c->now * 1e6 + 0.5);
}

/* Output gives way first, down to one token, then the prompt. */
static bool cut(sl_trace_request *r, uint32_t max_tokens)
{
    if (max_tokens == 0 || (uint64_t)r->n_prompt + r->n_output <= max_tokens)
        return false;
    r->n_prompt = SL_MIN(r->n_prompt, max_tokens - 1);
    r->n_output = SL_MIN(r->n_output, max_tokens - r->n_prompt);
    r->n_prefix = SL_MIN(r->n_prefix, r->n_prompt);
    return true;
}

/* Turns of the conversation that begins with request `first`; returns how many requests there are then. A turn that would
 * not fit is left out, and the conversation ends. */
static size_t add_turns(sl_trace *trace, const spec *s, const sl_trace_options *o, size_t first, size_t n)
{
    uint64_t seed = o->seed;
    uint32_t n_turns = 2 + (uint32_t)(draw_uniform(seed, DRAW_TURNS, first) * (s->max_turns - 1));
    size_t at = first + 1;
    for (; at < first + n_turns && at < n; at++) {
        const sl_trace_request *before = &trace->requests[at - 1];
        sl_trace_request turn = *before;
        turn.follows = (uint32_t)at;
        turn.n_prompt = before->n_prompt + before->n_output + draw_length(&s->prompt, seed, DRAW_PROMPT, at);
        turn.n_output = draw_length(&s->output, seed, DRAW_OUTPUT, at);
        turn.arrival_us = (int64_t)(s->think_seconds * 1e6 * draw_exponential(seed, DRAW_THINK, at));
        if (o->max_tokens > 0 && turn.n_prompt + turn.n_output > o->max_tokens) {
            trace->n_cut++;
            break;
        }
        trace->requests[at] = turn;
    }
    return at;
}

static void fill(sl_trace *trace, const spec *s, const sl_trace_options *o, arrival_clock *clock)
{
    uint64_t seed = o->seed;
    for (size_t i = 0; i < trace->n_requests;) {
        sl_trace_request *r = &trace->requests[i];
        r->arrival_us = next_arrival(clock);
        r->n_prefix = s->n_prefix;
        if (s->n_groups > 0)
            r->prefix_group = 1 + (uint32_t)(draw_uniform(seed, DRAW_GROUP, i) * s->n_groups);
        r->n_prompt = s->n_prefix + draw_length(&s->prompt, seed, DRAW_PROMPT, i);
        r->n_output = draw_length(&s->output, seed, DRAW_OUTPUT, i);
        if (s->flood > 0)
            r->tenant = draw_uniform(seed, DRAW_TENANT, i) * (s->flood + 1) >= s->flood;
        trace->n_cut += cut(r, o->max_tokens);
        i = s->max_turns > 0 ? add_turns(trace, s, o, i, trace->n_requests) : i + 1;
    }
}

static const spec *find_spec(const char *name, sl_err *err)
{
    char names[192] = "";
    for (size_t i = 0, used = 0; i < SL_COUNTOF(specs); i++) {
        if (strcmp(specs[i].name, name) == 0)
            return &specs[i];
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", specs[i].name);
    }
    sl_err_set(err, SL_ERR_NOT_FOUND, "no trace '%.40s': take a file or one of %s", name, names);
    return NULL;
}

sl_status sl_trace_make(const char *name, const sl_trace_options *options, sl_trace **out, sl_err *err)
{
    static const char *const names[] = {"a", "b"};
    *out = NULL;
    const spec *s = find_spec(name, err);
    if (!s)
        return SL_ERR_NOT_FOUND;
    size_t n = options->n_requests > 0 ? options->n_requests : s->n_requests;
    if (n > SL_TRACE_MAX_REQUESTS || options->rate < 0 || options->max_tokens == 1)
        SL_FAIL(err, SL_ERR_ARGUMENT, "a trace has at most %d requests of at least two tokens, and a positive rate",
                SL_TRACE_MAX_REQUESTS);
    arrival_clock clock = {.seed = options->seed, .rate = options->rate > 0 ? options->rate : s->rate};
    clock.arrivals = options->arrivals != SL_ARRIVALS_OWN ? options->arrivals : s->arrivals;
    if (options->arrivals == SL_ARRIVALS_OWN && clock.arrivals == SL_ARRIVALS_AT_ONCE && options->rate > 0)
        clock.arrivals = SL_ARRIVALS_POISSON;
    if (clock.rate <= 0)
        clock.rate = 4;
    if (options->burst > 0 && clock.arrivals != SL_ARRIVALS_BURSTY)
        SL_FAIL(err, SL_ERR_ARGUMENT,
                "requests of trace '%s' don't come in bursts: take --arrivals bursty with --burst", name);
    clock.burst = options->burst > 0 ? options->burst : DEFAULT_BURST;
    sl_trace *trace = calloc(1, sizeof *trace);
    if (!trace)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a trace");
    sl_arena_init(&trace->arena, 0);
    trace->seed = options->seed;
    trace->n_requests = n;
    trace->n_tenants = s->flood > 0 ? 2 : 1;
    trace->requests = sl_arena_array(&trace->arena, n, sizeof *trace->requests);
    trace->tenants = sl_arena_array(&trace->arena, trace->n_tenants, sizeof *trace->tenants);
    if (!trace->requests || !trace->tenants) {
        sl_trace_close(trace);
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a trace of %zu requests", n);
    }
    memcpy(trace->tenants, names, trace->n_tenants * sizeof *names);
    snprintf(trace->name, sizeof trace->name, "%s", name);
    fill(trace, s, options, &clock);
    *out = trace;
    return SL_OK;
}

void sl_trace_close(sl_trace *trace)
{
    if (!trace)
        return;
    sl_arena_reset(&trace->arena);
    free(trace);
}

/* ---- what all traces have in common ---- */

uint32_t sl_trace_n_history(const sl_trace *trace, size_t request)
{
    uint32_t follows = trace->requests[request].follows;
    if (follows == 0)
        return 0;
    const sl_trace_request *before = &trace->requests[follows - 1];
    return before->n_prompt + before->n_output;
}

uint32_t sl_trace_token(const sl_trace *trace, size_t request, uint32_t position, uint32_t n_vocab)
{
    const sl_trace_request *r = &trace->requests[request];
    if (r->prompt)
        return r->prompt[position - sl_trace_n_history(trace, request)];
    /* Groups have odd streams, requests even ones. */
    uint64_t stream = position < r->n_prefix ? 2 * (uint64_t)r->prefix_group + 1 : 2 * (uint64_t)request;
    return (uint32_t)(draw(trace->seed, DRAW_TOKENS + stream, position) % n_vocab);
}

double sl_trace_bound(const sl_trace *trace, uint32_t n_parallel)
{
    uint64_t in_batches = 0, sum = 0, longest = 0, batch_longest = 0;
    for (size_t i = 0; i < trace->n_requests; i++) {
        uint64_t n_steps = trace->requests[i].n_output - 1; /* the first token comes from the prompt's step */
        if (i % n_parallel == 0)
            batch_longest = 0;
        in_batches += SL_MAX(batch_longest, n_steps) - batch_longest;
        batch_longest = SL_MAX(batch_longest, n_steps);
        longest = SL_MAX(longest, n_steps);
        sum += n_steps;
    }
    uint64_t least = SL_MAX(sl_ceil_div(sum, n_parallel), longest);
    return least > 0 ? (double)in_batches / (double)least : 1;
}

sl_status sl_trace_pad(sl_trace *trace, uint32_t n_parallel, sl_err *err)
{
    for (size_t i = 0; i < trace->n_requests; i++) {
        const sl_trace_request *r = &trace->requests[i], *first = &trace->requests[0];
        if (r->arrival_us > 0 || r->follows || r->priority != first->priority || r->tenant != first->tenant)
            SL_FAIL(err, SL_ERR_ARGUMENT,
                    "padding needs a trace whose requests come all at once, of one tenant and priority; request %zu "
                    "differs",
                    i + 1);
    }
    for (size_t begin = 0; begin < trace->n_requests; begin += n_parallel) {
        size_t end = SL_MIN(begin + n_parallel, trace->n_requests);
        uint32_t longest = 0;
        for (size_t i = begin; i < end; i++)
            longest = SL_MAX(longest, trace->requests[i].n_output);
        for (size_t i = begin; i < end; i++)
            trace->requests[i].n_padding = longest - trace->requests[i].n_output;
    }
    return SL_OK;
}
