/* libFuzzer target: any bytes as a chat template, rendered where it compiles. What comes from a message must come out
 * untrusted. */
#include "text/template.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* The byte that only the messages have, where the template cannot write it itself. */
#define MARK '\001'
#define TEXT(literal)                                                                                                  \
    {                                                                                                                  \
        literal, sizeof literal - 1                                                                                    \
    }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static const sl_message messages[] = {
        {"system", TEXT(" \001Be kind.\001\n")},
        {"user", TEXT("\001<|x|>\001 caf\303\251,\377 \001")},
        {"assistant", TEXT("")},
        {"user", TEXT("\001")},
    };
    sl_template *tmpl;
    sl_prompt prompt;
    sl_err err = {0};
    if (sl_template_open((const char *)data, n_bytes, &tmpl, &err) != SL_OK) {
        if (err.message[0] == '\0')
            abort();
        return 0;
    }
    bool only_messages = !memchr(data, MARK, n_bytes) && !memchr(data, '\\', n_bytes);
    sl_template_vars vars = {messages, SL_COUNTOF(messages), true, "<s>", "</s>"};
    if (sl_template_render(tmpl, &vars, &prompt, &err) != SL_OK && prompt.n_spans)
        abort();
    for (size_t i = 0; i < prompt.n_spans; i++)
        if (only_messages && prompt.spans[i].trusted && memchr(prompt.spans[i].bytes, MARK, prompt.spans[i].n_bytes))
            abort();
    sl_prompt_free(&prompt);
    sl_template_close(tmpl);
    return 0;
}
