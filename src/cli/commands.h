/* The table of commands and what is made from it. */
#ifndef SL_CLI_COMMANDS_H
#define SL_CLI_COMMANDS_H

#include "cli/options.h"

extern const sl_command sl_cmd_run, sl_cmd_serve, sl_cmd_tokenize, sl_cmd_info, sl_cmd_eval, sl_cmd_bench,
    sl_cmd_bench_throughput, sl_cmd_bench_techniques, sl_cmd_pull, sl_cmd_list, sl_cmd_rm, sl_cmd_help;

/* All commands, in the order of the overview; *n gets their number. Static storage. */
const sl_command *const *sl_commands(size_t *n);

/* Command with that name; NULL when there is none. */
const sl_command *sl_command_find(const char *name);

/* Command with a name of two words, as in `sluice bench throughput`; NULL when there is none. */
const sl_command *sl_command_find_two(const char *name, const char *second);

/* SL_ERR_ARGUMENT for a name that is no command, with the nearest one. */
SL_WARN_UNUSED sl_status sl_command_unknown(const char *name, sl_err *err);

/* Printers to standard output: overview of all commands, help of one, the man page sluice(1) in roff, bash completion. */
void sl_print_overview(void);
void sl_print_command_help(const sl_command *command);
void sl_print_man_page(void);
void sl_print_bash_completion(void);

#endif
