/* Help texts for the terminal, from the tables of options.h. */
#include "cli/commands.h"
#include "cli/output.h"

#include <stdio.h>
#include <string.h>

enum { WIDTH = 80, HELP_COLUMN = 28, OPTION_INDENT = 2 };

/* Prints text in lines of at most WIDTH columns; the first line goes on at column, the others begin at indent. A line
 * end in text begins a new line. */
static void print_wrapped(const char *text, size_t column, size_t indent)
{
    bool first_word = true;
    while (*text != '\0') {
        size_t n = strcspn(text, " \n");
        if (!first_word && column + 1 + n > WIDTH) {
            sl_out_printf("\n%*s", (int)indent, "");
            column = indent;
            first_word = true;
        }
        sl_out_printf("%s%.*s", first_word ? "" : " ", (int)n, text);
        column += n + !first_word;
        first_word = false;
        text += n;
        if (*text == '\n') {
            sl_out_printf("\n%*s", text[1] != '\n' ? (int)indent : 0, "");
            column = indent;
            first_word = true;
        }
        text += *text != '\0';
    }
    sl_out_text("\n");
}

/* Appends the default and the environment variable to the help sentence. */
static void print_option(const sl_option *option)
{
    char left[96], right[512], env[64];
    int n = snprintf(left, sizeof(left), "%*s", OPTION_INDENT, "");
    if (option->letter != 0)
        n += snprintf(left + n, sizeof(left) - (size_t)n, "-%c, ", option->letter);
    else
        n += snprintf(left + n, sizeof(left) - (size_t)n, "    ");
    n += snprintf(left + n, sizeof(left) - (size_t)n, "--%s", option->name);
    if (option->argument != NULL)
        n += snprintf(left + n, sizeof(left) - (size_t)n, " %s", option->argument);
    int r = snprintf(right, sizeof(right), "%s", option->help);
    if (option->kind == SL_OPTION_CHOICE)
        for (size_t i = 0; option->choices[i] != NULL; i++)
            r += snprintf(right + r, sizeof(right) - (size_t)r, "%s%s", i > 0 ? ", " : ": ", option->choices[i]);
    if (option->fallback != NULL)
        r += snprintf(right + r, sizeof(right) - (size_t)r, " (default %s)", option->fallback);
    if (option->flags & SL_OPTION_SETTING) {
        sl_option_env_name(option, env);
        snprintf(right + r, sizeof(right) - (size_t)r, " [%s]", env);
    }
    if (n > HELP_COLUMN - 2)
        sl_out_printf("%s\n%*s", left, HELP_COLUMN, "");
    else
        sl_out_printf("%-*s", HELP_COLUMN, left);
    print_wrapped(right, HELP_COLUMN, HELP_COLUMN);
}

void sl_print_overview(void)
{
    size_t n;
    const sl_command *const *commands = sl_commands(&n);
    sl_out_text("sluice runs large language models on this machine.\n\n");
    sl_out_heading("Usage:");
    sl_out_text("  sluice COMMAND [OPTION]... [ARGUMENT]...\n\n");
    sl_out_heading("Commands:");
    for (size_t i = 0; i < n; i++)
        sl_out_printf("  %-17s %s\n", commands[i]->name, commands[i]->summary);
    sl_out_text("\n");
    sl_out_heading("Options:");
    sl_out_text("  -h, --help     this overview; after a command, its help\n"
                "  -V, --version  the version\n\n");
    sl_out_heading("First steps:");
    sl_out_text("  sluice pull smollm2\n"
                "  sluice run -m smollm2\n");
}

void sl_print_command_help(const sl_command *command)
{
    sl_out_printf("sluice %s: %s.\n\n", command->name, command->summary);
    sl_out_heading("Usage:");
    sl_out_printf("  sluice %s [OPTION]...%s%s\n\n", command->name, command->operands[0] != '\0' ? " " : "",
                  command->operands);
    if (command->description[0] != '\0') {
        print_wrapped(command->description, 0, 0);
        sl_out_text("\n");
    }
    sl_out_heading("Options:");
    for (size_t i = 0; i < command->n_options; i++)
        print_option(&command->options[i]);
    print_option(&(sl_option){.name = "help", .letter = 'h', .help = "print this help"});
    if (command->examples[0] != '\0') {
        sl_out_text("\n");
        sl_out_heading("Examples:");
        sl_out_text("  ");
        print_wrapped(command->examples, 2, 2);
    }
}
