/* The man page sluice(1), from the tables of options.h. */
#include "cli/commands.h"
#include "cli/output.h"

#include <string.h>

/* Prints text with roff's own characters escaped; at_line_start guards a leading control character. */
static void print_roff(const char *text, bool at_line_start)
{
    for (const char *c = text; *c != '\0'; c++) {
        if (at_line_start && (*c == '.' || *c == '\''))
            sl_out_text("\\&");
        at_line_start = *c == '\n';
        if (*c == '\\')
            sl_out_text("\\e");
        else if (*c == '-')
            sl_out_text("\\-");
        else if (*c == '\n' && c[1] == '\n')
            sl_out_text("\n.PP");
        else
            sl_out_bytes(c, 1);
    }
}

static void print_option(const sl_option *option)
{
    sl_out_text(".TP\n.B ");
    if (option->letter != 0)
        sl_out_printf("\\-%c, ", option->letter);
    sl_out_text("\\-\\-");
    print_roff(option->name, false);
    if (option->argument != NULL)
        sl_out_printf(" \\fI%s\\fP", option->argument);
    sl_out_text("\n");
    print_roff(option->help, true);
    if (option->kind == SL_OPTION_CHOICE)
        for (size_t i = 0; option->choices[i] != NULL; i++)
            sl_out_printf("%s%s", i > 0 ? ", " : ": ", option->choices[i]);
    if (option->kind == SL_OPTION_UINT)
        sl_out_printf("; %llu to %llu", (unsigned long long)option->min, (unsigned long long)option->max);
    if (option->kind == SL_OPTION_REAL)
        sl_out_printf("; %g to %g", option->low, option->high);
    if (option->flags & SL_OPTION_REPEATED)
        sl_out_text("; may be given several times");
    sl_out_text(".\n");
    if (option->fallback != NULL) {
        sl_out_text("Default: ");
        print_roff(option->fallback, false);
        sl_out_text(".\n");
    }
    if (option->flags & SL_OPTION_SETTING) {
        char env[64];
        sl_option_env_name(option, env);
        sl_out_printf("Environment: \\fB%s\\fP.\n", env);
    }
}

static void print_command(const sl_command *command)
{
    sl_out_printf(".SS \"sluice %s%s%s\"\n", command->name, command->operands[0] != '\0' ? " " : "", command->operands);
    print_roff(command->summary, true);
    sl_out_text(".\n");
    if (command->description[0] != '\0') {
        sl_out_text(".PP\n");
        print_roff(command->description, true);
        sl_out_text("\n");
    }
    for (size_t i = 0; i < command->n_options; i++)
        print_option(&command->options[i]);
    if (command->examples[0] != '\0') {
        sl_out_text(".PP\nExamples:\n.PP\n.nf\n.RS\n");
        print_roff(command->examples, true);
        sl_out_text("\n.RE\n.fi\n");
    }
}

static const char head[] =
    ".SH NAME\nsluice \\- run large language models on this machine\n"
    ".SH SYNOPSIS\n.B sluice\n.I command\n.RI [ option ]...\n.RI [ argument ]...\n.br\n"
    ".B sluice \\-\\-help\n.br\n.B sluice \\-\\-version\n"
    ".SH DESCRIPTION\nsluice opens language models in GGUF files, answers prompts, and measures how fast and how true it "
    "does so.\nA model is named by the path of its file or by the name it was pulled under.\n";

static const char tail[] =
    ".SH SETTINGS\nAn option that has an environment variable is looked up in this order: command line, environment, "
    "config file, default.\nThe config file has lines of the form\n.PP\n.nf\n.RS\nkey = value\n.RE\n.fi\n.PP\n"
    "where the key is an option's long name; lines that begin with # are comments.\n"
    ".SH ENVIRONMENT\n.TP\n.B NO_COLOR\nNot empty: no colours.\n"
    ".TP\n.B XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_STATE_HOME\n"
    "Where the config file, pulled models and the history of prompts are kept.\n"
    ".SH FILES\n.TP\n.I ~/.config/sluice/config\nSettings.\n"
    ".TP\n.I ~/.local/share/sluice/\nPulled models.\n"
    ".TP\n.I ~/.local/state/sluice/history\nPrompts typed in a chat; readable by their owner only.\n"
    ".SH EXIT STATUS\n.TP\n.B 0\nDone.\n.TP\n.B 1\nFailed; one line on standard error says why.\n"
    ".TP\n.B 2\nWrong usage.\n.TP\n.B 130\nInterrupted with Ctrl\\-C.\n";

void sl_print_man_page(void)
{
    size_t n;
    const sl_command *const *commands = sl_commands(&n);
    sl_out_printf(".TH SLUICE 1 \"\" \"sluice %s\" \"User Commands\"\n", sl_version());
    sl_out_text(head);
    sl_out_text(".SH COMMANDS\nEvery command takes\n.B \\-\\-help\nbesides the options listed here.\n");
    for (size_t i = 0; i < n; i++)
        print_command(commands[i]);
    sl_out_text(tail);
}
