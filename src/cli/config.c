#include "cli/config.h"

#include "cli/input.h"

#include <errno.h>
#include <string.h>
#include <stdlib.h>
#include <unistd.h>

const char *sl_xdg_path(sl_arena *arena, const char *variable, const char *fallback, const char *name)
{
    const char *base = getenv(variable), *home = getenv("HOME");
    if (base != NULL && base[0] == '/')
        return sl_arena_printf(arena, "%s/sluice/%s", base, name);
    if (home != NULL && home[0] == '/')
        return sl_arena_printf(arena, "%s/%s/sluice/%s", home, fallback, name);
    return NULL;
}

/* Cuts blanks at both ends of the line [begin, end) and terminates it. */
static char *trim(char *begin, char *end)
{
    while (end > begin && strchr(" \t\r", end[-1]) != NULL)
        end--;
    *end = '\0';
    return begin + strspn(begin, " \t");
}

static bool is_setting(const char *key, const sl_command *const *commands, size_t n_commands)
{
    for (size_t c = 0; c < n_commands; c++)
        for (size_t i = 0; i < commands[c]->n_options; i++)
            if ((commands[c]->options[i].flags & SL_OPTION_SETTING) && strcmp(commands[c]->options[i].name, key) == 0)
                return true;
    return false;
}

/* Parses text, which stays alive as long as config, into config->entries (room for one a line). */
static sl_status parse_lines(sl_config *config, char *text, const sl_command *const *commands, size_t n_commands,
                             sl_err *err)
{
    unsigned line = 0;
    for (char *next, *at = text; at != NULL && *at != '\0'; at = next) {
        char *end = strchr(at, '\n');
        next = end != NULL ? end + 1 : NULL;
        line++;
        char *begin = trim(at, end != NULL ? end : at + strlen(at));
        if (begin[0] == '\0' || begin[0] == '#')
            continue;
        char *equals = strchr(begin, '=');
        if (equals == NULL)
            SL_FAIL(err, SL_ERR_ARGUMENT, "%.120s:%u: expected 'key = value'", config->path, line);
        char *value = trim(equals + 1, equals + 1 + strlen(equals + 1)), *key = trim(begin, equals);
        if (!is_setting(key, commands, n_commands))
            SL_FAIL(err, SL_ERR_ARGUMENT, "%.120s:%u: '%.40s' is no setting", config->path, line, key);
        config->entries[config->n_entries++] = (sl_config_entry){key, value, line};
    }
    return SL_OK;
}

sl_status sl_config_load(sl_config *out, sl_arena *arena, const sl_command *const *commands, size_t n_commands,
                         sl_err *err)
{
    *out = (sl_config){.path = sl_xdg_path(arena, "XDG_CONFIG_HOME", ".config", "config")};
    if (out->path == NULL || (access(out->path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR)))
        return SL_OK;
    sl_input input;
    SL_TRY(sl_input_read(out->path, &input, err));
    size_t n_lines = 1;
    for (size_t i = 0; i < input.n_bytes; i++)
        n_lines += input.bytes[i] == '\n';
    char *text = sl_arena_strndup(arena, input.bytes, input.n_bytes);
    out->entries = sl_arena_array(arena, n_lines, sizeof(*out->entries));
    sl_input_free(&input);
    if (text == NULL || out->entries == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    return parse_lines(out, text, commands, n_commands, err);
}

const sl_config_entry *sl_config_find(const sl_config *config, const char *key)
{
    for (size_t i = config->n_entries; i > 0; i--)
        if (strcmp(config->entries[i - 1].key, key) == 0)
            return &config->entries[i - 1];
    return NULL;
}
