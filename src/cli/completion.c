/* Bash completion, from the tables of options.h. */
#include "cli/commands.h"
#include "cli/output.h"

#include <string.h>

/* Shell code that fills COMPREPLY for a value. */
static const char *completer(sl_complete complete)
{
    switch (complete) {
    case SL_COMPLETE_FILE:
        return "COMPREPLY=($(compgen -f -- \"$cur\"))";
    case SL_COMPLETE_MODEL:
        return "COMPREPLY=($(compgen -W \"$(sluice list --names 2>/dev/null)\" -- \"$cur\") $(compgen -f -- \"$cur\"))";
    case SL_COMPLETE_PULLED:
        return "COMPREPLY=($(compgen -W \"$(sluice list --names 2>/dev/null)\" -- \"$cur\"))";
    case SL_COMPLETE_CATALOG:
        return "COMPREPLY=($(compgen -W \"$(sluice list --available --names 2>/dev/null)\" -- \"$cur\"))";
    case SL_COMPLETE_COMMAND:
        return "COMPREPLY=($(compgen -W \"$commands\" -- \"$cur\"))";
    default:
        return "COMPREPLY=()";
    }
}

static void print_option_case(const sl_command *command, const sl_option *option)
{
    sl_out_printf("    '%s:--%s'", command->name, option->name);
    if (option->letter != 0)
        sl_out_printf("|'%s:-%c'", command->name, option->letter);
    sl_out_text(") ");
    if (option->kind == SL_OPTION_CHOICE) {
        sl_out_text("COMPREPLY=($(compgen -W \"");
        for (size_t i = 0; option->choices[i] != NULL; i++)
            sl_out_printf("%s%s", i > 0 ? " " : "", option->choices[i]);
        sl_out_text("\" -- \"$cur\"))");
    } else {
        sl_out_text(completer(option->complete));
    }
    sl_out_text("; return ;;\n");
}

/* Second words of the commands that begin with this one: `bench` has `bench throughput`. Returns how many. */
static size_t print_second_words(const sl_command *command)
{
    size_t n, n_bytes = strlen(command->name), n_printed = 0;
    const sl_command *const *commands = sl_commands(&n);
    for (size_t i = 0; i < n; i++)
        if (strncmp(commands[i]->name, command->name, n_bytes) == 0 && commands[i]->name[n_bytes] == ' ')
            sl_out_printf("%s%s", n_printed++ > 0 ? " " : "COMPREPLY=($(compgen -W \"",
                          commands[i]->name + n_bytes + 1);
    if (n_printed > 0)
        sl_out_text("\" -- \"$cur\"))");
    return n_printed;
}

static void print_command_case(const sl_command *command)
{
    sl_out_printf("    '%s')\n      options='", command->name);
    for (size_t i = 0; i < command->n_options; i++)
        sl_out_printf("--%s ", command->options[i].name);
    sl_out_text("--help'\n      [[ $cur == -* ]] || { ");
    if (print_second_words(command) == 0)
        sl_out_text(completer(command->complete));
    sl_out_text("; return; } ;;\n");
}

void sl_print_bash_completion(void)
{
    size_t n;
    const sl_command *const *commands = sl_commands(&n);
    sl_out_text("# bash completion for sluice; load it with: source <(sluice help --completion bash)\n"
                "_sluice() {\n"
                "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}\n"
                "  local options='' commands='");
    for (size_t i = 0; i < n; i++)
        if (strchr(commands[i]->name, ' ') == NULL)
            sl_out_printf("%s%s", i > 0 ? " " : "", commands[i]->name);
    sl_out_text("'\n"
                "  if ((COMP_CWORD == 1)); then\n"
                "    COMPREPLY=($(compgen -W \"$commands --help --version\" -- \"$cur\"))\n"
                "    return\n"
                "  fi\n"
                "  ((COMP_CWORD == 2)) || case \"$command ${COMP_WORDS[2]}\" in\n");
    for (size_t i = 0; i < n; i++)
        if (strchr(commands[i]->name, ' ') != NULL)
            sl_out_printf("    '%s') command='%s' ;;\n", commands[i]->name, commands[i]->name);
    sl_out_text("  esac\n  case $command:$prev in\n");
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < commands[i]->n_options; j++)
            if (commands[i]->options[j].kind != SL_OPTION_FLAG)
                print_option_case(commands[i], &commands[i]->options[j]);
    sl_out_text("  esac\n  case $command in\n");
    for (size_t i = 0; i < n; i++)
        print_command_case(commands[i]);
    sl_out_text("  esac\n"
                "  COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
                "}\n"
                "complete -o filenames -F _sluice sluice\n");
}
