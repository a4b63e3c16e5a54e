/* A request of `sluice run --input`: one JSON object on a line. */
#ifndef SL_CLI_REQUEST_LINE_H
#define SL_CLI_REQUEST_LINE_H

#include "app/json_fields.h"
#include "sample/sampler.h"

enum { SL_REQUEST_LINE_BYTES = 16 << 20 };

typedef struct sl_request_line {
    json_t *object;   /* owns the texts */
    const json_t *id; /* a string or a whole number, echoed; NULL = none */
    sl_bytes prompt;  /* bytes is NULL where there are messages */
    sl_json_messages messages;
    sl_sample_params sampling; /* its bias array is the request's own, or the defaults' */
    sl_logit_bias *bias;
    uint32_t max_tokens;
    sl_bytes stop[SL_MAX_STOP_STRINGS];
    size_t n_stop;
} sl_request_line;

/* Reads a line. Fields: "prompt" (text) or "messages"; optional "id", "max_tokens", "temperature", "top_k", "top_p", "min_p",
 * "repetition_penalty", "presence_penalty", "frequency_penalty", "seed", "stop" and "logit_bias", which mean what they mean
 * to the server (app/json_fields.h, docs/SERVER.md); what is absent or null is as in defaults. Any other field that is not
 * null is refused. SL_ERR_FORMAT, SL_ERR_ARGUMENT, SL_ERR_UNSUPPORTED or SL_ERR_LIMIT names the field; ranges of sampling
 * fields are the sampler's to check. *out is valid whatever the status (id stands where it could be read); free it with
 * sl_request_line_free. */
SL_WARN_UNUSED sl_status sl_request_line_read(const char *bytes, size_t n_bytes, const sl_request_line *defaults,
                                              sl_request_line *out, sl_err *err);
void sl_request_line_free(sl_request_line *request);

#endif
