/* The store: the folder where pulled models lie, as NAME.gguf. */
#ifndef SL_FILE_STORE_H
#define SL_FILE_STORE_H

#include "base/status.h"

typedef struct sl_store_model {
    char *name; /* without .gguf */
    char *path;
    uint64_t n_bytes;
} sl_store_model;

/* Folder of the store: a copy of folder when that isn't NULL, else $XDG_DATA_HOME/sluice/models, or
 * ~/.local/share/sluice/models. It need not exist. *out is the caller's to free. SL_ERR_NOT_FOUND when neither
 * XDG_DATA_HOME nor HOME is an absolute path. In every function below folder has the same meaning. */
SL_WARN_UNUSED sl_status sl_store_folder(const char *folder, char **out, sl_err *err);

/* A model's name: letters, digits, '.', '_' and '-', up to 64, the first a letter or digit, no "..". */
bool sl_store_name_ok(const char *name);

/* Models in the store, sorted by name; none when the folder is missing. Only regular files count: what is reached
 * through a symbolic link is not listed, removed or resolved. *out is freed with sl_store_list_free. */
SL_WARN_UNUSED sl_status sl_store_list(const char *folder, sl_store_model **out, size_t *n_models, sl_err *err);
void sl_store_list_free(sl_store_model *models, size_t n_models);

/* Path of the pulled model of that name, the caller's to free; *out is NULL when there is none. */
SL_WARN_UNUSED sl_status sl_store_find(const char *folder, const char *name, char **out, sl_err *err);

/* Deletes a pulled model; SL_ERR_NOT_FOUND when there is none of that name. */
SL_WARN_UNUSED sl_status sl_store_remove(const char *folder, const char *name, sl_err *err);

/* Path of the model that argument means: itself when it has a '/' or is a file here, else the pulled model of that
 * name; *out is the caller's to free. SL_ERR_NOT_FOUND otherwise, with what to do about it. */
SL_WARN_UNUSED sl_status sl_store_resolve(const char *folder, const char *argument, char **out, sl_err *err);

#endif
