/* Commands and their options: one table per command, from which parsing, `--help`, the man page and the shell completion
 * are made. A setting comes from the command line, else from the environment (SLUICE_ and usually the option's name in capitals),
 * else from the config file, else from the table's default. */
#ifndef SL_CLI_OPTIONS_H
#define SL_CLI_OPTIONS_H

#include "base/arena.h"
#include "base/status.h"

typedef enum sl_option_kind {
    SL_OPTION_FLAG,   /* no value */
    SL_OPTION_TEXT,   /* any bytes */
    SL_OPTION_UINT,   /* a whole number in [min, max] */
    SL_OPTION_REAL,   /* a finite number in [low, high] */
    SL_OPTION_CHOICE, /* one of choices */
} sl_option_kind;

enum {
    SL_OPTION_SETTING = 1,  /* may also come from the environment and the config file */
    SL_OPTION_REPEATED = 2, /* may be given several times (TEXT only) */
};

/* What the shell completes a value or an operand with. */
typedef enum sl_complete {
    SL_COMPLETE_NONE,
    SL_COMPLETE_FILE,
    SL_COMPLETE_MODEL,   /* names of pulled models, and files */
    SL_COMPLETE_PULLED,  /* names of pulled models */
    SL_COMPLETE_CATALOG, /* names that can be pulled */
    SL_COMPLETE_COMMAND,
} sl_complete;

typedef struct sl_option {
    const char *name; /* long name */
    char letter;      /* short name; 0 = none */
    sl_option_kind kind;
    uint32_t flags;
    const char *env;            /* environment variable of a SETTING; NULL = SLUICE_ and the name in capitals */
    const char *argument;       /* name of the value in help texts; NULL for flags */
    const char *help;           /* one sentence, no full stop */
    const char *fallback;       /* default, parsed like a given value; NULL = absent */
    uint64_t min, max;          /* UINT */
    double low, high;           /* REAL */
    const char *const *choices; /* CHOICE; NULL-terminated */
    sl_complete complete;
} sl_option;

typedef struct sl_args sl_args;

typedef struct sl_command {
    const char *name;
    const char *summary;     /* one line, no full stop */
    const char *operands;    /* usage of what is no option: "MODEL"; "" = none */
    const char *description; /* paragraphs separated by an empty line; may be "" */
    const char *examples;    /* command lines, one a line; may be "" */
    const sl_option *options;
    size_t n_options;
    int min_operands, max_operands;
    sl_complete complete; /* of operands */
    /* Does the work. SL_ERR_ARGUMENT is a wrong usage (exit code 2), SL_ERR_CANCELLED an interrupt (130). */
    sl_status (*run)(const sl_args *args, sl_err *err);
} sl_command;

/* A value of an option; text is NULL when it is absent. */
typedef struct sl_option_value {
    const char *text;
    uint64_t number;
    double real;
    const char **items; /* REPEATED: all n_items values in order */
    size_t n_items;
    bool on_command_line; /* rather than a setting from elsewhere or a default */
} sl_option_value;

struct sl_args {
    const sl_command *command;
    sl_option_value *values; /* one per option of the command */
    char **operands;
    int n_operands;
    bool help; /* --help was given: nothing else is checked */
    sl_arena arena;
};

/* Parses argv[1..argc) (argv[0] is the command's name) for command. Known config keys are the settings of all n_commands
 * commands. SL_ERR_ARGUMENT with one line that names the option and what it takes. Strings of args point into argv, the
 * environment and args' own arena. sl_args_free in any case. */
SL_WARN_UNUSED sl_status sl_args_parse(const sl_command *command, const sl_command *const *commands, size_t n_commands,
                                       int argc, char **argv, sl_args *args, sl_err *err);
void sl_args_free(sl_args *args);

/* Values by the option's long name, which the command's table must have. */
bool sl_args_given(const sl_args *args, const char *name); /* present from any source, defaults included */
bool sl_args_flag(const sl_args *args, const char *name);
const char *sl_args_text(const sl_args *args, const char *name); /* NULL when absent */
uint64_t sl_args_uint(const sl_args *args, const char *name);    /* 0 when absent */
double sl_args_real(const sl_args *args, const char *name);      /* 0 when absent */
const sl_option_value *sl_args_value(const sl_args *args, const char *name);

/* Strict numbers: the whole text, no sign or space in front of whole numbers, finite reals, within the bounds. */
bool sl_parse_uint(const char *text, uint64_t min, uint64_t max, uint64_t *out);
bool sl_parse_real(const char *text, double low, double high, double *out);

/* Name of the environment variable of an option: "SLUICE_TOP_K". out has room for 64 bytes. */
void sl_option_env_name(const sl_option *option, char out[64]);

/* The name among n names nearest to word by edit distance, for "did you mean"; NULL when none is near. */
const char *sl_nearest_name(const char *word, const char *const *names, size_t n);

#endif
