/* sluice: run large language models fast and dependably.
 *
 * The only public header. Everything here starts with sl_ or SL_. Unless a function says otherwise it may be
 * called from any thread, never exits the process and never prints. docs/API.md tells how the parts go together:
 *
 *   sl_llm     a model file, opened; counted references, any number at once
 *   sl_runner  an engine on threads of its own that answers queries to one model, many at a time
 *   sl_query   what is asked: prompt, limits, sampling, what is to be reported
 *   sl_output  a piece of the answer, told to a callback (sl_runner_submit) or pulled from an sl_stream
 *
 * Pointers to handles, results and arrays must be valid; NULL gives SL_ERR_ARGUMENT where nothing else is said.
 * Functions that close take NULL and do nothing. What is passed in is copied, never kept. */
#ifndef SLUICE_SLUICE_H
#define SLUICE_SLUICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SL_VERSION_STRING "0.1.0"

/* Number that changes whenever the binary interface does; compare with sl_abi_version() after linking. */
#define SL_ABI_VERSION 1

#if defined(__GNUC__)
#define SL_API               __attribute__((visibility("default")))
#define SL_WARN_UNUSED       __attribute__((warn_unused_result))
#define SL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define SL_API
#define SL_WARN_UNUSED
#define SL_PRINTF(fmt, args)
#endif

/* Result of every function that can fail. */
typedef enum sl_status {
    SL_OK = 0,
    SL_ERR_ARGUMENT,    /* the caller passed something that can never work */
    SL_ERR_NOMEM,       /* memory could not be had */
    SL_ERR_IO,          /* the system refused: open, read, write, map */
    SL_ERR_FORMAT,      /* bytes of a file or message break their format's rules */
    SL_ERR_UNSUPPORTED, /* well formed, but not something this build can do */
    SL_ERR_LIMIT,       /* larger than a stated limit */
    SL_ERR_NOT_FOUND,   /* no such name */
    SL_ERR_STATE,       /* not now: the object is in a state that forbids it */
    SL_ERR_CANCELLED,   /* the caller asked to stop */
    SL_ERR_NUMERIC,     /* a NaN or infinity where a finite number was due */
    SL_ERR_INTERNAL     /* our own mistake */
} sl_status;

/* Error with its reason: one line, no newline at the end, no heap. Owned by the caller. */
typedef struct sl_err {
    sl_status code;
    char message[256];
} sl_err;

/* Version of the library, "major.minor.patch". Static storage. */
SL_API const char *sl_version(void);

/* ABI number the library was built with. */
SL_API uint32_t sl_abi_version(void);

/* Short English name of a status ("format error"). Static storage, never NULL. */
SL_API const char *sl_status_name(sl_status status);

/* ---- values ---- */

/* Bytes with a length; any byte may occur, and what the text is said to be is UTF-8. */
typedef struct sl_bytes {
    const char *bytes;
    size_t n_bytes;
} sl_bytes;

/* The bytes of a NUL-terminated string, which stays the caller's. */
static inline sl_bytes sl_bytes_of(const char *text)
{
    sl_bytes out;
    out.bytes = text;
    out.n_bytes = text ? strlen(text) : 0;
    return out;
}

/* One turn of a conversation. */
typedef struct sl_message {
    const char *role; /* "system", "user", "assistant" */
    sl_bytes content; /* never forms control tokens, whatever it says */
} sl_message;

typedef struct sl_logit_bias {
    uint32_t token;
    float bias; /* added to the logit */
} sl_logit_bias;

typedef struct sl_token_list {
    const uint32_t *tokens;
    size_t n;
} sl_token_list;

enum { SL_MAX_LOGPROBS = 20 }; /* most alternatives reported for a token */

typedef struct sl_logprob {
    uint32_t token;
    float logprob; /* natural logarithm, of the model's own distribution (before penalties, bias and temperature) */
} sl_logprob;

/* What becomes of a prompt's hidden states in an embedding. */
typedef enum sl_pooling {
    SL_POOLING_NONE, /* no embedding */
    SL_POOLING_MEAN, /* of all positions */
    SL_POOLING_LAST, /* the last position's */
    SL_POOLING_CLS,  /* the first position's */
    SL_POOLING_COUNT
} sl_pooling;

/* Why an answer ended. */
typedef enum sl_finish {
    SL_FINISH_STOP,      /* a stop token or a token that ends a turn, neither of which is reported, or a stop string */
    SL_FINISH_LENGTH,    /* max_tokens or the context is used up */
    SL_FINISH_CANCELLED, /* the caller asked to stop */
    SL_FINISH_ERROR,     /* it failed alone; the others go on */
    SL_FINISH_COUNT
} sl_finish;

/* "stop", "length", "cancelled", "error". Static storage, never NULL. */
SL_API const char *sl_finish_name(sl_finish finish);

/* ---- log ---- */

typedef enum sl_log_level { SL_LOG_ERROR, SL_LOG_WARN, SL_LOG_INFO, SL_LOG_DEBUG } sl_log_level;

/* Called from any thread of the library or of the caller with one line, no newline at its end. It must not call the
 * library. */
typedef void sl_log_fn(void *user, sl_log_level level, const char *line);

/* Sets the hook of the whole process that gets messages up to max_level; NULL, as at the beginning, is silence. Call it
 * before other threads use the library. */
SL_API void sl_log_set(sl_log_fn *fn, void *user, sl_log_level max_level);

/* ---- options ----
 *
 * A struct of options, a query or a result begins with its size in bytes, by which a library of another version knows
 * which members it has. sl_*_default() sets it and every default; NULL options mean all defaults. A size that no version
 * ever had is refused with SL_ERR_ARGUMENT, one that is larger than this library's with SL_ERR_UNSUPPORTED unless all
 * that it does not know is zero. sl_*_init(out, size) is what sl_*_default() calls. */

/* ---- models ---- */

typedef struct sl_llm sl_llm;

/* Bytes of the weights that are packed, and of all, on the opening thread; false ends the opening. */
typedef bool sl_llm_progress_fn(void *user, uint64_t n_done, uint64_t n_total);

typedef struct sl_llm_options {
    size_t size;
    int n_threads;            /* that pack the weights and compute; 0 = the CPUs that the process may use */
    bool cache;               /* keep the packed weights in a file, which later starts map (default) */
    bool verify;              /* sum up that file before it is used */
    const char *cache_folder; /* NULL = $XDG_CACHE_HOME/sluice or ~/.cache/sluice, which the program uses as well */
    uint64_t cache_bytes;     /* of all such files; 0 = 20 GB, but at most a quarter of the disk */
    const char *kv_type;      /* of keys and values: "f16" (NULL), "f32", "bf16", "q8", "k8v4" */
    const char *level;        /* instructions: "exact", "ref", "avx2", ...; NULL = SLUICE_CPU, or the best there are */
    sl_llm_progress_fn *on_progress;
    void *user; /* of on_progress */
} sl_llm_options;

SL_API void sl_llm_options_init(sl_llm_options *out, size_t size);
static inline sl_llm_options sl_llm_options_default(void)
{
    sl_llm_options out;
    sl_llm_options_init(&out, sizeof out);
    return out;
}

/* Opens a GGUF file, given by its path or by the name under which `sluice pull` has stored it, and packs its weights. The
 * caller closes *out. SL_ERR_NOT_FOUND, SL_ERR_IO, SL_ERR_FORMAT and SL_ERR_UNSUPPORTED say what is wrong with the file;
 * SL_ERR_CANCELLED: on_progress said so. */
SL_API SL_WARN_UNUSED sl_status sl_llm_open(const char *path, const sl_llm_options *options, sl_llm **out, sl_err *err);

/* One more reference to the model, which is returned; each needs a close of its own. NULL: NULL. */
SL_API sl_llm *sl_llm_retain(sl_llm *llm);

/* Gives a reference back; the last one closes the model. A runner holds one. */
SL_API void sl_llm_close(sl_llm *llm);

typedef struct sl_llm_info {
    size_t size;
    const char *architecture, *name; /* the model's */
    uint32_t n_layers, n_embedding;  /* n_embedding: floats of an embedding */
    uint32_t n_vocab;                /* token ids are smaller than this */
    uint32_t context;                /* most tokens of a sequence that it was made for */
    uint64_t n_params;
    uint64_t kv_bytes_per_token;
} sl_llm_info;

/* Fills *out, whose size the caller has set. */
SL_API SL_WARN_UNUSED sl_status sl_llm_get_info(const sl_llm *llm, sl_llm_info *out, sl_err *err);

/* Tokens of a text, with the BOS that the model wants; the text never forms control tokens. *n_tokens = how many there
 * are; at most capacity of them are written (tokens may be NULL when that is 0). */
SL_API SL_WARN_UNUSED sl_status sl_llm_tokenize(const sl_llm *llm, sl_bytes text, uint32_t *tokens, size_t capacity,
                                                size_t *n_tokens, sl_err *err);

/* The same of a conversation, as the file's chat template writes it, with the header of the assistant's turn at its end.
 * SL_ERR_UNSUPPORTED when the model has no template that can be used. */
SL_API SL_WARN_UNUSED sl_status sl_llm_tokenize_chat(const sl_llm *llm, const sl_message *messages, size_t n_messages,
                                                     uint32_t *tokens, size_t capacity, size_t *n_tokens, sl_err *err);

/* What a token adds to a text; it may be part of a character. Control tokens, ids out of range and a NULL model: nothing.
 * The model's. */
SL_API sl_bytes sl_llm_token_bytes(const sl_llm *llm, uint32_t token);

/* ---- outputs ---- */

typedef enum sl_output_kind {
    SL_OUTPUT_TOKEN,     /* a token of the answer */
    SL_OUTPUT_PROMPT,    /* log-probability of a token of the prompt (prompt_logprobs) */
    SL_OUTPUT_EMBEDDING, /* the prompt's (pooling) */
    SL_OUTPUT_END,       /* of one choice; the only output when a query is refused late */
} sl_output_kind;

/* A piece of an answer. All pointers are valid until the callback returns or the stream's next output is pulled. */
typedef struct sl_output {
    size_t size;
    uint64_t id; /* of the query, see sl_runner_submit */
    void *user;  /* the query's */
    sl_output_kind kind;
    uint32_t choice;   /* from 0 on */
    bool last;         /* nothing comes after this one */
    int64_t time_us;   /* CLOCK_MONOTONIC, when the engine made it */
    sl_bytes text;     /* TOKEN, END: what to append to the answer: whole characters of UTF-8, may be empty */
    uint32_t token;    /* TOKEN, PROMPT */
    uint32_t position; /* PROMPT: of the token in the prompt */
    float logprob;     /* TOKEN, PROMPT; NAN when not asked for */
    uint32_t n_top;
    const sl_logprob *top; /* n_top likeliest tokens there, likeliest first */
    uint32_t n_embedding;
    const float *embedding; /* EMBEDDING: n_embedding floats */
    sl_finish finish;       /* END, and what follows */
    int32_t stop_string;    /* index of the stop string that ended the answer; -1: none did */
    const sl_err *error;    /* with SL_FINISH_ERROR: why; else NULL */
    uint32_t n_prompt, n_generated;
    uint32_t n_cached;  /* tokens of the prompt that were computed already, by other queries */
    int64_t prefill_us; /* submit to first token */
    int64_t decode_us;  /* first token to last */
} sl_output;

/* Called on the runner's callback thread, which does nothing else: the callbacks of a runner never overlap, and a slow one
 * delays the others' but never the engine (see sl_runner_options.event_bytes). It may come before sl_runner_submit has
 * returned. It may call everything, with two exceptions that are refused with SL_ERR_STATE: sl_runner_close, and
 * sl_runner_drain with a timeout, of its own runner. */
typedef void sl_output_fn(void *user, const sl_output *output);

/* ---- queries ---- */

#define SL_UNLIMITED UINT32_MAX /* as many as fit into the context */

typedef struct sl_query {
    size_t size;

    /* The prompt: exactly one of these. */
    sl_bytes prompt; /* text; bytes NULL = none. BOS is added as the model wants it */
    const sl_message *messages;
    size_t n_messages;
    const uint32_t *tokens; /* taken as they are */
    size_t n_tokens;

    /* How much, and where it ends. */
    uint32_t
        max_tokens; /* default SL_UNLIMITED; 0 = only compute the prompt: for its log-probabilities or, so that later
                            queries that begin with it find it cached, without them */
    uint32_t min_tokens;         /* before so many nothing but max_tokens ends the answer */
    uint32_t n_choices;          /* answers to the one prompt, each with random numbers of its own; default 1 */
    bool ignore_end;             /* tokens that end a turn do not end the answer */
    const uint32_t *stop_tokens; /* further tokens that do */
    size_t n_stop_tokens;
    const sl_bytes *stop_strings; /* at most 16 of at most 1,024 bytes; never shown, wherever tokens begin and end */
    size_t n_stop_strings;

    /* Sampling, in the order of the members; greedy by default. The same seed gives the same answer, whatever else runs. */
    const sl_logit_bias *bias; /* -100 to 100 */
    size_t n_bias;
    float repetition_penalty;                  /* 0.01 to 100; 1 = off */
    float frequency_penalty, presence_penalty; /* -2 to 2; 0 = off */
    const sl_token_list *bad_words;            /* sequences that are never completed */
    size_t n_bad_words;
    sl_token_list allowed_tokens; /* all others are ruled out; none = all are allowed */
    float temperature;            /* 0 to 100; 0 = greedy */
    uint32_t top_k;               /* 0 = off */
    float top_p;                  /* 0 to 1; 1 = off */
    float min_p;                  /* 0 to 1; 0 = off */
    uint64_t seed;

    /* What is reported beside text and tokens. */
    bool logprobs;                  /* of the chosen tokens */
    uint32_t n_top_logprobs;        /* and of so many likeliest ones, at most SL_MAX_LOGPROBS */
    bool prompt_logprobs;           /* of each token of the prompt but the first */
    uint32_t n_prompt_top_logprobs; /* and of so many likeliest ones */

    /* An embedding of the prompt, and nothing else. */
    sl_pooling pooling;
    bool normalise; /* to length 1; default true */

    /* Who comes first. */
    int32_t priority;       /* higher first */
    int64_t ttft_target_us; /* from submit to the first token; 0 = none */
    int64_t itl_target_us;  /* from one token to the next; 0 = none */
    uint64_t tenant;        /* tenants get fair shares of the time and share no cached prefixes */
    double tenant_weight;   /* how large a share, at most 1,000,000; default 1 */

    sl_output_fn *on_output; /* for sl_runner_submit; NULL for sl_stream_open */
    void *user;              /* in every output */
} sl_query;

SL_API void sl_query_init(sl_query *out, size_t size);
static inline sl_query sl_query_default(void)
{
    sl_query out;
    sl_query_init(&out, sizeof out);
    return out;
}

/* ---- runners ---- */

typedef struct sl_runner sl_runner;

typedef struct sl_runner_options {
    size_t size;
    bool pin; /* each of the model's threads on a CPU of its own */
    uint32_t
        context; /* most tokens of a query, prompt and answer; 0 = 4096, or the model's own if less; see kv_bytes */
    uint32_t n_sequences; /* most choices that are worked on at once; 0 = 16 */
    /* Memory for keys and values, which all share; 0 = room for n_sequences full contexts. Bytes that do not hold one full
     * context shorten it to what they do hold, with a warning in the log: sl_runner_context tells. */
    uint64_t kv_bytes;
    uint32_t chunk;       /* most tokens computed in a step; 0 = 512 */
    bool no_prefix_cache; /* nothing computed for one query is used for another */
    uint32_t max_queries; /* most that run or wait, and streams that are not closed; each choice counts; 0 = 512 */
    /* Most bytes of outputs of one choice that wait for its callback or its reader; 0 = 64 KiB, about 1,000 tokens without
     * alternatives. The engine never waits: a query whose next output finds no room ends with SL_FINISH_ERROR and
     * SL_ERR_LIMIT, after all that did; no other query is touched. Room is made when the query is submitted, no more than
     * its max_tokens can fill. */
    uint32_t event_bytes;
    int64_t hang_us; /* a step that takes longer is a hung engine for sl_runner_health; 0 = a minute */
} sl_runner_options;

SL_API void sl_runner_options_init(sl_runner_options *out, size_t size);
static inline sl_runner_options sl_runner_options_default(void)
{
    sl_runner_options out;
    sl_runner_options_init(&out, sizeof out);
    return out;
}

/* Starts an engine for a model, of which it takes a reference. SL_ERR_STATE: the model has a runner already (one more needs
 * one more sl_llm_open); SL_ERR_ARGUMENT: a number out of its range; SL_ERR_LIMIT: a context beyond the model's, or
 * kv_bytes that do not hold one block for each layer; SL_ERR_NOMEM says how much was wanted. The caller closes *out. */
SL_API SL_WARN_UNUSED sl_status sl_runner_open(sl_llm *llm, const sl_runner_options *options, sl_runner **out,
                                               sl_err *err);

/* Ends all queries (SL_FINISH_CANCELLED; callbacks get their last output before this returns) and the engine. Streams
 * that are open can still be read to their end and closed; the last of them takes the engine's memory and its hold on the
 * model with it. Nobody may use the runner itself any more. SL_ERR_STATE, and nothing is done, in a callback of the same
 * runner. */
SL_API sl_status sl_runner_close(sl_runner *runner);

/* Most tokens of a query, prompt and answer: what the options say, or less where kv_bytes hold less. 0 for NULL. */
SL_API uint32_t sl_runner_context(const sl_runner *runner);

/* Submits a query whose outputs go to its on_output, the END of the last choice included. *id (may be NULL) is its number,
 * never 0 and never used twice by a runner. The prompt is tokenized here, on the calling thread; nothing waits for the
 * engine. When this fails, on_output is never called. SL_ERR_ARGUMENT: what can never work, with the member's name;
 * SL_ERR_LIMIT: a prompt that does not fit into the context, more choices than n_sequences, or max_queries are there
 * already; SL_ERR_STATE: the runner drains or its engine has failed. What only the engine can judge comes as an END with
 * SL_FINISH_ERROR. Nothing of that touches other queries. */
SL_API SL_WARN_UNUSED sl_status sl_runner_submit(sl_runner *runner, const sl_query *query, uint64_t *id, sl_err *err);

/* Ends a query by its number before the engine's next step; its END comes as ever. SL_ERR_NOT_FOUND when no such query
 * runs, because it never did or has ended. */
SL_API SL_WARN_UNUSED sl_status sl_runner_cancel(sl_runner *runner, uint64_t id, sl_err *err);

/* From now on no query is taken. Waits until the engine has ended all that there are and their callbacks have returned,
 * at most timeout_us (negative: without end, 0: not at all). SL_ERR_STATE when some were left. Outputs of streams stay to
 * be read. Any number of times. */
SL_API SL_WARN_UNUSED sl_status sl_runner_drain(sl_runner *runner, int64_t timeout_us, sl_err *err);

/* What a runner holds and has done since it was opened. */
typedef struct sl_runner_statistics {
    size_t size;
    uint32_t n_queries;                       /* choices that run or wait, and those of streams that are not closed */
    uint32_t n_waiting, n_running;            /* of which the engine has not begun, and has */
    uint64_t n_refused;                       /* for want of max_queries */
    uint64_t n_overflow;                      /* ended because their outputs found no room */
    uint64_t n_finished[8];                   /* by sl_finish; those of n_overflow were cancelled by the engine */
    uint64_t prompt_tokens, generated_tokens; /* done, cached_tokens among the first */
    uint64_t cached_tokens;
    uint64_t n_steps, n_preemptions;
    uint32_t n_blocks, n_blocks_used,
        n_blocks_cached; /* of 16 tokens' keys and values: all, of running queries, cached */
} sl_runner_statistics;

/* Fills *out, whose size the caller has set, as it was after the last step, with the ends that the engine has told since:
 * a query whose last output was read is counted, unless it ended before the engine took it (cancelled at once, refused). */
SL_API SL_WARN_UNUSED sl_status sl_runner_get_statistics(sl_runner *runner, sl_runner_statistics *out, sl_err *err);

/* SL_OK while the engine does its work; SL_ERR_STATE, with the reason, when it has failed or no step has ended for
 * hang_us although there is work. */
SL_API SL_WARN_UNUSED sl_status sl_runner_health(sl_runner *runner, sl_err *err);

/* ---- streams ---- */

/* A query whose outputs are pulled. One thread at a time pulls; cancel may come from any. */
typedef struct sl_stream sl_stream;

#define SL_FOREVER INT64_C(-1)

/* Submits a query as sl_runner_submit does, with the same errors; it has no on_output. The caller closes *out, before or
 * after the runner. */
SL_API SL_WARN_UNUSED sl_status sl_stream_open(sl_runner *runner, const sl_query *query, sl_stream **out, sl_err *err);

/* The next output, after waiting for it for at most timeout_us (negative: without end). NULL when none came in that time,
 * when the last one has been read, and for NULL. What it points to is the stream's, until the next call. */
SL_API const sl_output *sl_stream_next(sl_stream *stream, int64_t timeout_us);

/* Ends the query before the engine's next step; its END comes as ever. No effect on one that has ended, or NULL. */
SL_API void sl_stream_cancel(sl_stream *stream);

/* Gives the stream back, read to its end or not; a query that still runs is cancelled. */
SL_API void sl_stream_close(sl_stream *stream);

#ifdef __cplusplus
}
#endif
#endif
