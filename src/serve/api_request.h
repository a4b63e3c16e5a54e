/* What a client asks for: the body of /v1/chat/completions, /v1/completions or /v1/embeddings, read and checked, then
 * turned into tokens. Fields, their ranges and defaults: docs/SERVER.md. */
#ifndef SL_SERVE_API_REQUEST_H
#define SL_SERVE_API_REQUEST_H

#include "app/bundle.h"

#include <jansson.h>

typedef enum sl_api_kind { SL_API_CHAT, SL_API_COMPLETION, SL_API_EMBEDDING, SL_API_COUNT } sl_api_kind;

enum {
    SL_API_MAX_CHOICES = 128,      /* answers to one request: prompts times n */
    SL_API_MAX_TOKENS = 4096,      /* of a list in a field */
    SL_API_MAX_LOGPROBS = 1 << 20, /* in an answer that is not streamed, some 80 bytes each */
    SL_API_MAX_INPUTS = 2048,      /* to embed */
    SL_API_MAX_BAD_WORDS = 512,    /* each may take two of SL_MAX_BAD_WORDS */
    SL_API_MAX_BAD_BYTES = 1024,
    SL_API_MAX_VALUES = 1 << 20, /* of a body's JSON, names of members counted with them */
    SL_API_MAX_CONTAINERS = 1 << 16 /* objects and arrays among them */,
};

/* An error as OpenAI's API words it. */
typedef struct sl_api_error {
    int status;       /* HTTP */
    const char *code; /* static; NULL = none */
    char param[64];   /* field it is about; "" = none */
    char message[320];
} sl_api_error;

/* Fills *error and returns code. */
sl_status sl_api_fail(sl_api_error *error, sl_status code, int status, const char *param, const char *format, ...)
    SL_PRINTF(5, 6);

typedef struct sl_api_request {
    sl_api_kind kind;
    char model[256]; /* "" = not given */
    bool stream, include_usage, logprobs, ignore_eos, seeded, echo, base64;
    uint32_t n;          /* choices of each prompt */
    uint32_t max_tokens; /* UINT32_MAX = up to the context; 0 with echo only, and for embeddings */
    uint32_t dimensions; /* 0 = not given */
    int32_t priority;
    int64_t ttft_target_us, itl_target_us;
    sl_sample_params sampling;
    sl_logit_bias *bias;
    sl_tokens stop_tokens; /* given ones; behind them, after sl_api_tokenize, those that end the model's turns */
    sl_tokens allowed_tokens;
    sl_bytes *stop_strings; /* with their bytes behind them */
    size_t n_stop_strings;
    char ignored[160]; /* names of unknown fields, comma-separated */

    /* Filled by sl_api_tokenize. */
    sl_tokens *prompts;
    sl_bytes *echoes; /* with echo: their texts */
    size_t n_prompts;
    sl_tokens *bad_words;
    sl_token_list *bad_lists; /* of sampling */
    size_t n_bad_words;

    json_t *root;           /* the body; what follows points into it */
    const json_t *messages; /* chat */
    const json_t *prompt;   /* completion; an embedding's input */
    const json_t *bad_texts;
} sl_api_request;

/* Reads a body of any n_bytes. *request must be freed in any case. Not SL_OK: *error says what to answer. */
SL_WARN_UNUSED sl_status sl_api_parse(sl_api_kind kind, const char *body, size_t n_bytes, sl_api_request *request,
                                      sl_api_error *error);

/* Makes the tokens of a parsed request's prompts and bad words with the bundle's template and vocabulary. Prompts of more
 * than context tokens are refused. May take long: never on the event loop. */
SL_WARN_UNUSED sl_status sl_api_tokenize(const sl_bundle *bundle, uint32_t context, sl_api_request *request,
                                         sl_api_error *error);

/* Name of the field that holds the prompts. */
const char *sl_api_prompt_field(sl_api_kind kind);

/* Frees the parsed body once sl_api_tokenize has read it. A large one may take long: never on the event loop. */
void sl_api_request_drop_body(sl_api_request *request);
/* Frees what nobody needs once the engine has it: body, prompts and stop strings. */
void sl_api_request_drop_input(sl_api_request *request);
void sl_api_request_free(sl_api_request *request);

#endif
