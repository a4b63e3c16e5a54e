/* `sluice run --input`: a file of requests, answered together. */
#ifndef SL_CLI_ANSWER_FILE_H
#define SL_CLI_ANSWER_FILE_H

#include "cli/generate.h"
#include "cli/input.h"

typedef struct sl_answer_file_options {
    const sl_generate_options *defaults; /* what a line leaves out; raw: a prompt is continued as plain text */
    const char *system;                  /* system prompt in front of a line's "prompt"; NULL = none */
    uint32_t context;                    /* most tokens of one request, prompt and answer */
    uint32_t chunk, n_parallel;
    sl_keep keep;
} sl_answer_file_options;

/* Answers every line of input (see cli/request_line.h) and prints one JSON object for each, in the lines' order and as soon
 * as it is their turn: "id", "line", "text", "prompt_tokens", "completion_tokens", "finish_reason"; or "id", "line", "error"
 * with "type" and "message" for a line that could not be answered, which disturbs no other. SL_ERR_FORMAT at the end when
 * there were such lines; SL_ERR_CANCELLED after Ctrl-C, with what was complete by then printed. */
SL_WARN_UNUSED sl_status sl_answer_file(const sl_bundle *bundle, const sl_input *input,
                                        const sl_answer_file_options *options, sl_err *err);

#endif
