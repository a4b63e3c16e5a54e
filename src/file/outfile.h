/* Files that appear whole or not at all: written under another name, synced, then renamed. */
#ifndef SL_FILE_OUTFILE_H
#define SL_FILE_OUTFILE_H

#include "base/status.h"

typedef struct sl_outfile sl_outfile;

/* Creates the new file temp_path (SL_ERR_IO when it exists or can't be made), mode 0666 less the umask. Ends with
 * exactly one of sl_outfile_commit and sl_outfile_discard. */
SL_WARN_UNUSED sl_status sl_outfile_open(const char *temp_path, sl_outfile **out, sl_err *err);

/* Appends bytes (buffered). After an error only sl_outfile_discard makes sense. */
SL_WARN_UNUSED sl_status sl_outfile_write(sl_outfile *file, const void *bytes, size_t n_bytes, sl_err *err);

/* Bytes written so far. */
uint64_t sl_outfile_n_bytes(const sl_outfile *file);

/* Writes what is buffered, syncs, and renames the file to path, replacing what is there. On failure nothing is left
 * behind and path is as it was. Frees file in both cases. */
SL_WARN_UNUSED sl_status sl_outfile_commit(sl_outfile *file, const char *path, sl_err *err);

/* Removes the file and frees it; NULL is allowed. */
void sl_outfile_discard(sl_outfile *file);

#endif
