/* One prompt through the engine: tokens in, text out. */
#ifndef SL_CLI_GENERATE_H
#define SL_CLI_GENERATE_H

#include "app/bundle.h"
#include "cli/options.h"

#include <jansson.h>

/* What a run needs besides the model; filled from the options of `sluice run`. */
typedef struct sl_generate_options {
    sl_sample_params sampling; /* its bias array lies in the arena of the arguments */
    uint32_t max_tokens;       /* UINT32_MAX = until the context is full */
    sl_bytes_list stop;        /* texts that end the answer and are not shown; the engine then needs token_bytes */
    bool raw;                  /* the text goes on where the prompt ended: no space is dropped in front of it */
    bool stream;               /* text appears on standard output as it comes */
} sl_generate_options;

/* An answer; all arrays are its own. */
typedef struct sl_answer {
    char *text; /* n_bytes, not terminated */
    size_t n_bytes, text_capacity;
    sl_sampled *sampled; /* n_generated */
    size_t sampled_capacity;
    uint32_t n_prompt, n_generated, n_cached;
    sl_finish finish;
    int64_t prefill_us, decode_us;
} sl_answer;
void sl_answer_free(sl_answer *answer);

/* A request under way. It stays where it is until sl_generation_finish. */
typedef struct sl_generation {
    const sl_generate_options *options;
    sl_answer *answer;
    sl_detok detok;
    uint64_t id;      /* the engine's */
    bool ended;       /* the engine is done with it */
    sl_status status; /* of what the event handler did, or of the request */
    sl_err *err;
} sl_generation;

/* Gives a request to the engine, whose steps then bring the answer. Errors as of sl_generate; then there is nothing to
 * finish. options, answer and err must stay as well. */
SL_WARN_UNUSED sl_status sl_generation_begin(const sl_bundle *bundle, sl_engine *engine, const sl_tokens *prompt,
                                             const sl_generate_options *options, sl_answer *answer,
                                             sl_generation *generation, sl_err *err);

/* Completes the text once the engine is done with the request, or can't go on, and returns what became of it. */
SL_WARN_UNUSED sl_status sl_generation_finish(sl_generation *generation);

/* Generates until a stop token, max_tokens, the end of the context, or Ctrl-C (finish is SL_FINISH_CANCELLED, which is
 * no error here). SL_ERR_LIMIT, with both numbers, for a prompt that leaves no room in the context. *answer is valid
 * whatever the status; free it with sl_answer_free. */
SL_WARN_UNUSED sl_status sl_generate(const sl_bundle *bundle, sl_engine *engine, const sl_tokens *prompt,
                                     const sl_generate_options *options, sl_answer *answer, sl_err *err);

/* Speeds in tokens per second; 0 when nothing was measured. The first token counts as prefill. */
double sl_answer_prefill_tps(const sl_answer *answer);
double sl_answer_decode_tps(const sl_answer *answer);

#endif
