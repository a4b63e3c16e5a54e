/* Whole files and standard input. */
#ifndef SL_CLI_INPUT_H
#define SL_CLI_INPUT_H

#include "base/status.h"

typedef struct sl_input {
    char *bytes; /* NUL-terminated beyond n_bytes; malloc'd */
    size_t n_bytes;
} sl_input;

/* Reads the file at path, "-" being standard input. SL_ERR_IO with the reason, SL_ERR_LIMIT above 256 MiB,
 * SL_ERR_CANCELLED on Ctrl-C. Free with sl_input_free. */
SL_WARN_UNUSED sl_status sl_input_read(const char *path, sl_input *out, sl_err *err);
void sl_input_free(sl_input *input);

#endif
