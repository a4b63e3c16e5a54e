/* Fields of OpenAI's JSON that the server's requests and the lines of `sluice run --input` share, read by the same rules
 * (docs/SERVER.md). What is read points into the JSON. Errors name the field: SL_ERR_ARGUMENT, SL_ERR_UNSUPPORTED, and
 * SL_ERR_NOMEM. A null is no value: the caller takes it for an absent field. */
#ifndef SL_APP_JSON_FIELDS_H
#define SL_APP_JSON_FIELDS_H

#include "engine/stop.h"
#include "text/template.h"

#include <jansson.h>

enum { SL_JSON_MAX_MESSAGES = 4096, SL_JSON_MAX_BIAS = 1024 };

/* Zero-initialise; free with sl_json_messages_free, whatever the status was. */
typedef struct sl_json_messages {
    sl_message *items; /* n */
    size_t n;
    char **joined; /* n: the texts of contents that came in parts, or NULL */
} sl_json_messages;

/* "messages": 1 to SL_JSON_MAX_MESSAGES objects. "role" is system, developer (as system), user or assistant; "content" a
 * string or an array of parts of type "text". What asks for more than text is refused, other members are ignored. */
SL_WARN_UNUSED sl_status sl_json_read_messages(const json_t *value, sl_json_messages *out, sl_err *err);
void sl_json_messages_free(sl_json_messages *messages);

/* "stop": a string, or an array of at most SL_MAX_STOP_STRINGS, each of 1 to SL_MAX_STOP_BYTES bytes. */
SL_WARN_UNUSED sl_status sl_json_read_stop(const json_t *value, sl_bytes out[SL_MAX_STOP_STRINGS], size_t *n,
                                           sl_err *err);

/* "logit_bias": an object of at most SL_JSON_MAX_BIAS token ids with numbers from -100 to 100. *out (also after an error)
 * is the caller's to free. */
SL_WARN_UNUSED sl_status sl_json_read_bias(const json_t *value, sl_logit_bias **out, size_t *n, sl_err *err);

#endif
