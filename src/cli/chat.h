/* The interactive chat of `sluice run`. */
#ifndef SL_CLI_CHAT_H
#define SL_CLI_CHAT_H

#include "cli/generate.h"

/* Reads prompts from the terminal and answers them until Ctrl-D, /exit, or Ctrl-C at the prompt. The conversation is
 * kept; a prompt that does not fit is refused with what to do. system may be NULL. timings: print speeds after each
 * answer. */
SL_WARN_UNUSED sl_status sl_chat(const sl_bundle *bundle, sl_engine *engine, const char *system, bool timings,
                                 const sl_generate_options *options, sl_err *err);

/* "prompt 34 tokens, 512.0 tok/s; answer 120 tokens, 61.2 tok/s" on standard error. */
void sl_print_timings(const sl_answer *answer);

#endif
