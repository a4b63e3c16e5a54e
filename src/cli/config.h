/* The config file: lines of `key = value`, where a key is the long name of an option; `#` begins a comment line. */
#ifndef SL_CLI_CONFIG_H
#define SL_CLI_CONFIG_H

#include "cli/options.h"

typedef struct sl_config_entry {
    const char *key, *value;
    unsigned line;
} sl_config_entry;

typedef struct sl_config {
    const char *path; /* NULL when there is no home directory to look in */
    sl_config_entry *entries;
    size_t n_entries;
} sl_config;

/* Reads $XDG_CONFIG_HOME/sluice/config (or ~/.config/sluice/config); a missing file is an empty one. All memory is
 * arena's. SL_ERR_ARGUMENT with the line for a line without '=' or a key that is no setting of any command,
 * SL_ERR_IO when the file can't be read. */
SL_WARN_UNUSED sl_status sl_config_load(sl_config *out, sl_arena *arena, const sl_command *const *commands,
                                        size_t n_commands, sl_err *err);

/* Entry of key, the last one when there are several; NULL when absent. */
const sl_config_entry *sl_config_find(const sl_config *config, const char *key);

/* Path of name under the XDG base directory: $variable/sluice/name, or ~/fallback/sluice/name. NULL when neither
 * variable nor HOME is an absolute path, or memory is short. */
const char *sl_xdg_path(sl_arena *arena, const char *variable, const char *fallback, const char *name);

#endif
