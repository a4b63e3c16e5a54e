#include "cli/options.h"

#include "cli/config.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_OPTIONS = 64, /* of one command */
    LONG_BASE = 256,  /* getopt_long's value of option i is LONG_BASE + i */
    MAX_WORD = 32,    /* longest name that is compared for a suggestion */
};

bool sl_parse_uint(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || value < min || value > max)
        return false;
    *out = value;
    return true;
}

bool sl_parse_real(const char *text, double low, double high, double *out)
{
    if (text[0] == '\0' || strspn(text, "+-.0123456789eE") != strlen(text))
        return false;
    char *end;
    double value = strtod(text, &end);
    if (*end != '\0' || !isfinite(value) || value < low || value > high)
        return false;
    *out = value;
    return true;
}

void sl_option_env_name(const sl_option *option, char out[64])
{
    if (option->env != NULL) {
        snprintf(out, 64, "%s", option->env);
        return;
    }
    snprintf(out, 64, "SLUICE_%s", option->name);
    for (char *c = out; *c != '\0'; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

static size_t edit_distance(const char *a, const char *b)
{
    size_t n_a = strlen(a), n_b = strlen(b), row[MAX_WORD + 1];
    for (size_t j = 0; j <= n_b; j++)
        row[j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = SL_MIN(change, SL_MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[n_b];
}

const char *sl_nearest_name(const char *word, const char *const *names, size_t n)
{
    const char *nearest = NULL;
    size_t least = 3; /* more than two edits is another word */
    for (size_t i = 0; i < n; i++) {
        if (strlen(word) > MAX_WORD || strlen(names[i]) > MAX_WORD)
            continue;
        size_t distance = edit_distance(word, names[i]), n_name = strlen(names[i]);
        if (n_name > 2 && strncmp(word, names[i], n_name) == 0)
            distance = SL_MIN(distance, 2); /* --temperature for --temp */
        if (distance < least && distance < n_name) {
            least = distance;
            nearest = names[i];
        }
    }
    return nearest;
}

/* Writes what option takes: "a whole number from 1 to 1024". */
static void describe_values(const sl_option *option, char *out, size_t n_out)
{
    if (option->kind == SL_OPTION_UINT) {
        snprintf(out, n_out, "a whole number from %llu to %llu", (unsigned long long)option->min,
                 (unsigned long long)option->max);
    } else if (option->kind == SL_OPTION_REAL) {
        snprintf(out, n_out, "a number from %g to %g", option->low, option->high);
    } else {
        size_t used = (size_t)snprintf(out, n_out, "one of");
        for (size_t i = 0; option->choices[i] != NULL && used < n_out; i++)
            used += (size_t)snprintf(out + used, n_out - used, "%s %s", i > 0 ? "," : "", option->choices[i]);
    }
}

/* Stores text as the value of option; source ("--threads", "SLUICE_THREADS", "FILE: threads") is named in errors. */
static sl_status set_value(const sl_option *option, const char *source, const char *text, sl_option_value *value,
                           sl_err *err)
{
    bool good = true;
    switch (option->kind) {
    case SL_OPTION_FLAG:
    case SL_OPTION_TEXT:
        break;
    case SL_OPTION_UINT:
        good = sl_parse_uint(text, option->min, option->max, &value->number);
        break;
    case SL_OPTION_REAL:
        good = sl_parse_real(text, option->low, option->high, &value->real);
        break;
    case SL_OPTION_CHOICE:
        good = false;
        for (size_t i = 0; option->choices[i] != NULL; i++)
            good |= strcmp(text, option->choices[i]) == 0;
        break;
    }
    if (!good) {
        char wanted[160];
        describe_values(option, wanted, sizeof(wanted));
        SL_FAIL(err, SL_ERR_ARGUMENT, "%s takes %s, not '%.40s'", source, wanted, text);
    }
    value->text = text;
    return SL_OK;
}

static sl_status add_item(sl_args *args, sl_option_value *value, const char *text, sl_err *err)
{
    const char **items = sl_arena_array(&args->arena, value->n_items + 1, sizeof(*items));
    if (items == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    if (value->n_items > 0)
        memcpy(items, value->items, value->n_items * sizeof(*items));
    items[value->n_items++] = text;
    value->items = items;
    return SL_OK;
}

/* getopt's tables for the command: ":" first (missing values are told apart), "h" and "help" always there. */
static void build_getopt(const sl_command *command, struct option *longs, char *shorts)
{
    size_t n = 0;
    shorts[n++] = ':';
    shorts[n++] = 'h';
    for (size_t i = 0; i < command->n_options; i++) {
        const sl_option *option = &command->options[i];
        bool takes = option->kind != SL_OPTION_FLAG;
        longs[i] = (struct option){option->name, takes ? required_argument : no_argument, NULL, LONG_BASE + (int)i};
        if (option->letter != 0) {
            shorts[n++] = option->letter;
            if (takes)
                shorts[n++] = ':';
        }
    }
    shorts[n] = '\0';
    longs[command->n_options] = (struct option){"help", no_argument, NULL, 'h'};
    longs[command->n_options + 1] = (struct option){0};
}

static sl_status fail_missing_value(const sl_command *command, const char *word, sl_err *err)
{
    SL_FAIL(err, SL_ERR_ARGUMENT, "%.60s needs a value (see 'sluice help %s')", word, command->name);
}

static sl_status fail_unknown(const sl_command *command, const char *word, sl_err *err)
{
    const char *names[MAX_OPTIONS + 1] = {"help"};
    for (size_t i = 0; i < command->n_options; i++)
        names[i + 1] = command->options[i].name;
    char bare[MAX_WORD + 2];
    snprintf(bare, sizeof(bare), "%s", word + strspn(word, "-"));
    bare[strcspn(bare, "=")] = '\0';
    for (size_t i = 0; strncmp(word, "--", 2) == 0 && i < command->n_options; i++)
        if (strcmp(bare, names[i + 1]) == 0)
            SL_FAIL(err, SL_ERR_ARGUMENT, "--%s takes no value", bare);
    const char *near = strncmp(word, "--", 2) == 0 ? sl_nearest_name(bare, names, command->n_options + 1) : NULL;
    if (near != NULL)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%s has no option '%.60s': did you mean --%s?", command->name, word, near);
    SL_FAIL(err, SL_ERR_ARGUMENT, "%s has no option '%.60s' (see 'sluice help %s')", command->name, word,
            command->name);
}

static const sl_option *find_letter(const sl_command *command, int letter, size_t *index)
{
    for (size_t i = 0; i < command->n_options; i++)
        if (command->options[i].letter == letter) {
            *index = i;
            return &command->options[i];
        }
    return NULL;
}

static sl_status parse_command_line(const sl_command *command, int argc, char **argv, sl_args *args, sl_err *err)
{
    struct option longs[MAX_OPTIONS + 2];
    char shorts[2 * MAX_OPTIONS + 3];
    SL_ASSERT(command->n_options <= MAX_OPTIONS);
    build_getopt(command, longs, shorts);
    opterr = 0;
    optind = 0; /* starts afresh */
    for (;;) {
        int at = SL_MAX(optind, 1), c = getopt_long(argc, argv, shorts, longs, NULL);
        char letter_word[3] = {'-', (char)optopt, '\0'};
        if (c == -1)
            break;
        if (c == 'h') {
            args->help = true;
            return SL_OK;
        }
        const char *word = optopt > 0 && optopt < LONG_BASE ? letter_word : argv[SL_MAX(at, optind - 1)];
        if (c == ':')
            return fail_missing_value(command, word, err);
        if (c == '?')
            return fail_unknown(command, word, err);
        size_t index = (size_t)(c - LONG_BASE);
        const sl_option *option = c >= LONG_BASE ? &command->options[index] : find_letter(command, c, &index);
        char source[72];
        snprintf(source, sizeof(source), "--%s", option->name);
        const char *text = option->kind == SL_OPTION_FLAG ? "" : optarg;
        SL_TRY(set_value(option, source, text, &args->values[index], err));
        args->values[index].on_command_line = true;
        if (option->flags & SL_OPTION_REPEATED)
            SL_TRY(add_item(args, &args->values[index], text, err));
    }
    args->operands = argv + optind;
    args->n_operands = argc - optind;
    return SL_OK;
}

static sl_status check_operands(const sl_args *args, sl_err *err)
{
    const sl_command *command = args->command;
    if (args->n_operands < command->min_operands)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%s needs %s (see 'sluice help %s')", command->name, command->operands,
                command->name);
    if (args->n_operands > command->max_operands)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%s does not take '%.60s' (see 'sluice help %s')", command->name,
                args->operands[command->max_operands], command->name);
    return SL_OK;
}

static bool has_settings(const sl_command *command)
{
    for (size_t i = 0; i < command->n_options; i++)
        if (command->options[i].flags & SL_OPTION_SETTING)
            return true;
    return false;
}

/* A setting from elsewhere than the command line: there a flag has a value too. */
static sl_status set_setting(const sl_option *option, const char *source, const char *text, sl_option_value *value,
                             sl_err *err)
{
    static const char *const on[] = {"1", "yes", "true", "on"}, *const off[] = {"0", "no", "false", "off"};
    if (option->kind != SL_OPTION_FLAG)
        return set_value(option, source, text, value, err);
    for (size_t i = 0; i < SL_COUNTOF(on); i++) {
        if (strcmp(text, on[i]) == 0)
            return set_value(option, source, "", value, err);
        if (strcmp(text, off[i]) == 0)
            return SL_OK;
    }
    SL_FAIL(err, SL_ERR_ARGUMENT, "%s takes yes or no, not '%.40s'", source, text);
}

/* Fills the settings that the command line left out from the environment, then from the config file. */
static sl_status fill_settings(sl_args *args, const sl_command *const *commands, size_t n_commands, sl_err *err)
{
    const sl_command *command = args->command;
    sl_config config;
    if (!has_settings(command))
        return SL_OK;
    SL_TRY(sl_config_load(&config, &args->arena, commands, n_commands, err));
    for (size_t i = 0; i < command->n_options; i++) {
        const sl_option *option = &command->options[i];
        if (!(option->flags & SL_OPTION_SETTING) || args->values[i].text != NULL)
            continue;
        char name[64];
        sl_option_env_name(option, name);
        const char *text = getenv(name);
        if (text != NULL && text[0] != '\0') {
            SL_TRY(set_setting(option, name, text, &args->values[i], err));
            continue;
        }
        const sl_config_entry *entry = sl_config_find(&config, option->name);
        if (entry != NULL) {
            char source[128];
            snprintf(source, sizeof(source), "%.90s:%u: %s", config.path, entry->line, option->name);
            SL_TRY(set_setting(option, source, entry->value, &args->values[i], err));
        }
    }
    return SL_OK;
}

sl_status sl_args_parse(const sl_command *command, const sl_command *const *commands, size_t n_commands, int argc,
                        char **argv, sl_args *args, sl_err *err)
{
    *args = (sl_args){.command = command};
    sl_arena_init(&args->arena, 0);
    args->values = sl_arena_array(&args->arena, command->n_options + 1, sizeof(*args->values));
    if (args->values == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    SL_TRY(parse_command_line(command, argc, argv, args, err));
    if (args->help)
        return SL_OK;
    SL_TRY(check_operands(args, err));
    SL_TRY(fill_settings(args, commands, n_commands, err));
    for (size_t i = 0; i < command->n_options; i++) {
        const sl_option *option = &command->options[i];
        if (args->values[i].text == NULL && option->fallback != NULL)
            SL_TRY(set_value(option, option->name, option->fallback, &args->values[i], err));
    }
    return SL_OK;
}

void sl_args_free(sl_args *args)
{
    sl_arena_reset(&args->arena);
}

const sl_option_value *sl_args_value(const sl_args *args, const char *name)
{
    const sl_option_value *value = NULL;
    for (size_t i = 0; i < args->command->n_options && value == NULL; i++)
        if (strcmp(args->command->options[i].name, name) == 0)
            value = &args->values[i];
    SL_ASSERT(value != NULL);
    return value;
}

bool sl_args_given(const sl_args *args, const char *name)
{
    return sl_args_value(args, name)->text != NULL;
}

bool sl_args_flag(const sl_args *args, const char *name)
{
    return sl_args_given(args, name);
}

const char *sl_args_text(const sl_args *args, const char *name)
{
    return sl_args_value(args, name)->text;
}

uint64_t sl_args_uint(const sl_args *args, const char *name)
{
    return sl_args_value(args, name)->number;
}

double sl_args_real(const sl_args *args, const char *name)
{
    return sl_args_value(args, name)->real;
}
