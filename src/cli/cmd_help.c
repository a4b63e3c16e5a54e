#include "cli/commands.h"
#include "cli/output.h"

#include <string.h>

static sl_status run(const sl_args *args, sl_err *err)
{
    if (sl_args_flag(args, "man")) {
        sl_print_man_page();
    } else if (sl_args_given(args, "completion")) {
        sl_print_bash_completion();
    } else if (args->n_operands == 0) {
        sl_print_overview();
    } else {
        bool two = args->n_operands == 2;
        const sl_command *command =
            two ? sl_command_find_two(args->operands[0], args->operands[1]) : sl_command_find(args->operands[0]);
        if (command == NULL && two)
            SL_FAIL(err, SL_ERR_ARGUMENT, "no command '%.30s %.30s' ('sluice help' lists them)", args->operands[0],
                    args->operands[1]);
        if (command == NULL)
            return sl_command_unknown(args->operands[0], err);
        sl_print_command_help(command);
    }
    return SL_OK;
}

static const char *const shells[] = {"bash", NULL};

static const sl_option options[] = {
    {.name = "man",
     .kind = SL_OPTION_FLAG,
     .help = "print the man page as roff; 'sluice help --man | man -l -' shows it"},
    {.name = "completion",
     .kind = SL_OPTION_CHOICE,
     .argument = "SHELL",
     .choices = shells,
     .help = "print the completion script of a shell"},
};

const sl_command sl_cmd_help = {
    .name = "help",
    .summary = "explain sluice or one of its commands",
    .operands = "[COMMAND]",
    .description = "",
    .examples = "sluice help run\nsource <(sluice help --completion bash)",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .max_operands = 2,
    .complete = SL_COMPLETE_COMMAND,
    .run = run,
};
