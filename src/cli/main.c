/* The program `sluice`: finds the command, parses its options, runs it, and turns its status into an exit code:
 * 0 done, 1 failed, 2 wrong usage, 130 interrupted. */
#include "base/log.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

static const sl_command *const commands[] = {
    &sl_cmd_run,
    &sl_cmd_serve,
    &sl_cmd_pull,
    &sl_cmd_list,
    &sl_cmd_rm,
    &sl_cmd_info,
    &sl_cmd_tokenize,
    &sl_cmd_eval,
    &sl_cmd_bench,
    &sl_cmd_bench_throughput,
    &sl_cmd_bench_techniques,
    &sl_cmd_help,
};

const sl_command *const *sl_commands(size_t *n)
{
    *n = SL_COUNTOF(commands);
    return commands;
}

const sl_command *sl_command_find(const char *name)
{
    for (size_t i = 0; i < SL_COUNTOF(commands); i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

const sl_command *sl_command_find_two(const char *name, const char *second)
{
    char both[64];
    snprintf(both, sizeof(both), "%.30s %.30s", name, second);
    return sl_command_find(both);
}

sl_status sl_command_unknown(const char *name, sl_err *err)
{
    const char *names[SL_COUNTOF(commands)];
    for (size_t i = 0; i < SL_COUNTOF(commands); i++)
        names[i] = commands[i]->name;
    const char *near = sl_nearest_name(name, names, SL_COUNTOF(commands));
    if (near != NULL)
        SL_FAIL(err, SL_ERR_ARGUMENT, "no command '%.60s': did you mean '%s'?", name, near);
    SL_FAIL(err, SL_ERR_ARGUMENT, "no command '%.60s' ('sluice help' lists them)", name);
}

static sl_status run_command(const sl_command *command, int argc, char **argv, sl_err *err)
{
    sl_args args;
    sl_status status = sl_args_parse(command, commands, SL_COUNTOF(commands), argc, argv, &args, err);
    if (status == SL_OK && args.help)
        sl_print_command_help(command);
    else if (status == SL_OK)
        status = command->run(&args, err);
    sl_args_free(&args);
    return status;
}

/* Options in front of the command, then the command. */
static sl_status dispatch(int argc, char **argv, sl_err *err)
{
    if (argc < 2)
        SL_FAIL(err, SL_ERR_ARGUMENT, "no command given: 'sluice run' chats, 'sluice help' lists all commands");
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        sl_out_printf("sluice %s\n", sl_version());
        return SL_OK;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        sl_print_overview();
        return SL_OK;
    }
    if (word[0] == '-')
        SL_FAIL(err, SL_ERR_ARGUMENT, "'%.60s' must come after a command ('sluice help' lists them)", word);
    const sl_command *command = argc > 2 ? sl_command_find_two(word, argv[2]) : NULL;
    if (command != NULL)
        return run_command(command, argc - 2, argv + 2, err);
    command = sl_command_find(word);
    if (command == NULL)
        return sl_command_unknown(word, err);
    return run_command(command, argc - 1, argv + 1, err);
}

static int exit_code(sl_status status)
{
    switch (status) {
    case SL_OK:
        return EXIT_DONE;
    case SL_ERR_ARGUMENT:
        return EXIT_USAGE;
    case SL_ERR_CANCELLED:
        return EXIT_INTERRUPTED;
    default:
        return EXIT_FAILED;
    }
}

/* The library's own warnings: it goes on, but somebody should know. */
static void show_warning(void *user, sl_log_level level, const char *line)
{
    (void)user;
    (void)level;
    sl_print_note("%s", line);
}

int main(int argc, char **argv)
{
    sl_err err = {0}, out_err = {0};
    /* Characters only: numbers are read and written with a point everywhere. */
    if (setlocale(LC_CTYPE, "") == NULL || MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is seen by sl_out_failed */
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is a failed write like another */
    sl_interrupt_install();
    sl_log_set(show_warning, NULL, SL_LOG_WARN);
    sl_status status = dispatch(argc, argv, &err);
    if (status != SL_OK && status != SL_ERR_CANCELLED && !sl_out_failed())
        sl_print_error(err.message);
    sl_status out_status = sl_out_finish(&out_err);
    if (out_status != SL_OK) {
        sl_print_error(out_err.message);
        return EXIT_FAILED;
    }
    return exit_code(status);
}
