/* Chat templates: a subset of Jinja2 as transformers configures it (trim_blocks, lstrip_blocks), interpreted with limits.
 * The output is a list of spans: bytes that come from the template are trusted, bytes that come from a message are not,
 * so that nobody can write a control token into a prompt. */
#ifndef SL_TEXT_TEMPLATE_H
#define SL_TEXT_TEMPLATE_H

#include "text/vocab.h"

typedef struct sl_template sl_template;

/* Compiles n_bytes of Jinja source (at most 1 MiB). SL_ERR_FORMAT with the line for a syntax error, SL_ERR_UNSUPPORTED
 * naming the construct for what this subset lacks. The caller closes it. Immutable afterwards. */
SL_WARN_UNUSED sl_status sl_template_open(const char *source, size_t n_bytes, sl_template **out, sl_err *err);
void sl_template_close(sl_template *tmpl);

/* Rendered prompt: spans point into storage owned by this object. */
typedef struct sl_prompt {
    sl_span *spans;
    size_t n_spans;
    char *storage;
} sl_prompt;
void sl_prompt_free(sl_prompt *prompt);

typedef struct sl_template_vars {
    const sl_message *messages;
    size_t n_messages;
    bool add_generation_prompt;
    const char *bos_token, *eos_token; /* stored text; NULL = empty */
} sl_template_vars;

/* Renders. SL_ERR_LIMIT when the fuel (operations), the depth or 64 MiB of output run out; SL_ERR_ARGUMENT with the
 * template's own words for raise_exception. */
SL_WARN_UNUSED sl_status sl_template_render(const sl_template *tmpl, const sl_template_vars *vars, sl_prompt *out,
                                            sl_err *err);

#endif
