/* A request of `sluice run --input`: one JSON object on a line. */
#ifndef SL_CLI_REQUEST_LINE_H
#define SL_CLI_REQUEST_LINE_H

#include "sample/sampler.h"
#include "text/template.h"

#include <jansson.h>

enum { SL_REQUEST_LINE_BYTES = 16 << 20, SL_REQUEST_MESSAGES = 4096, SL_REQUEST_BIASES = 1024, SL_REQUEST_STOPS = 16 };

typedef struct sl_request_line {
    json_t *object;   /* owns the texts */
    const json_t *id; /* a string or a whole number, echoed; NULL = none */
    sl_bytes prompt;  /* bytes is NULL where there are messages */
    sl_message *messages;
    size_t n_messages;
    sl_sample_params sampling; /* its bias array is the request's own, or the defaults' */
    sl_logit_bias *bias;
    uint32_t max_tokens;
    sl_bytes stop[SL_REQUEST_STOPS];
    size_t n_stop;
} sl_request_line;

/* Reads a line. Fields: "prompt" (text) or "messages" (a list of {"role", "content"}); optional "id", "max_tokens",
 * "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed",
 * "stop" (a text or a list of some, which end the answer and are not shown) and "logit_bias" ({"TOKEN": number}); what is absent is as in defaults. SL_ERR_FORMAT, SL_ERR_UNSUPPORTED or SL_ERR_LIMIT names
 * the field; ranges of sampling fields are the sampler's to check. *out is valid whatever the status (id stands where it
 * could be read); free it with sl_request_line_free. */
SL_WARN_UNUSED sl_status sl_request_line_read(const char *bytes, size_t n_bytes, const sl_request_line *defaults,
                                              sl_request_line *out, sl_err *err);
void sl_request_line_free(sl_request_line *request);

#endif
