/* The cache of packed weights: files in $XDG_CACHE_HOME/sluice that the next start maps instead of packing again.
 *
 * The folder is the user's alone (mode 0700) and so is what is read from it; anything else is left alone. A file is
 * written under another name, locked, and renamed when it is whole; what a killed process left is removed by the next
 * writer, because nobody holds its lock. Processes may race: each writes its own file and the last rename stays. A file
 * that is mapped may be deleted or replaced at any time, the mapping keeps it.
 *
 * Nobody waits for the disk: a file is trusted unread while the machine that wrote it has not been started anew. After
 * that it might not have reached the disk, so its first reader sums it up once and then marks it (sl_pack_map). */
#ifndef SL_FILE_PACK_CACHE_H
#define SL_FILE_PACK_CACHE_H

#include "file/packfile.h"

typedef struct sl_pack_cache_options {
    bool enabled;
    bool verify;        /* sum up every tensor before it is used */
    const char *folder; /* NULL: $XDG_CACHE_HOME/sluice or ~/.cache/sluice */
    uint64_t max_bytes; /* of all files together; 0 = 20 GB, but at most a quarter of the disk */
} sl_pack_cache_options;

/* A whole file, mapped for reading. */
typedef struct sl_pack_map {
    const char *bytes;
    uint64_t n_bytes;
    bool unproved; /* written before the machine was started anew: sum it up, then sl_pack_cache_mark */
} sl_pack_map;

enum { SL_PACK_NAME_BYTES = 112 }; /* longest name of a file, with the NUL */

/* Maps the file name of the cache when it holds what *file (placed, with its key) wants, and fills its sums. Counts as
 * its last use. SL_ERR_NOT_FOUND: there is none; SL_ERR_FORMAT, SL_ERR_IO: there is, but it can't be used, and why. */
SL_WARN_UNUSED sl_status sl_pack_cache_find(const sl_pack_cache_options *options, const char *name, sl_packfile *file,
                                            sl_pack_map *out, sl_err *err);
void sl_pack_map_close(sl_pack_map *map);

/* Notes that the file's contents were found right after a restart. Failing does no harm. */
void sl_pack_cache_mark(const sl_pack_cache_options *options, const char *name, const sl_packfile *file);

typedef struct sl_pack_writer sl_pack_writer;

/* Begins the file that *file (placed) describes; both must live until the writer ends. Ends with exactly one of finish and
 * abandon. SL_ERR_IO (no folder of ours, no space) and SL_ERR_LIMIT (larger than the cache may be) say why there can be
 * none. */
SL_WARN_UNUSED sl_status sl_pack_writer_open(const sl_pack_cache_options *options, const char *name, sl_packfile *file,
                                             sl_pack_writer **out, sl_err *err);

/* Writes n_bytes at offset of the file; any number of threads at once, on different ranges. False when it failed. */
bool sl_pack_writer_write(sl_pack_writer *writer, uint64_t offset, const void *bytes, size_t n_bytes);

/* Writes the header with file's sums, maps the file, and with keep puts it in place and deletes those used longest ago
 * until the cache is within its size. SL_ERR_IO when a write failed; nothing is left behind then. A file that can't be
 * put in place is still mapped. Frees writer. */
SL_WARN_UNUSED sl_status sl_pack_writer_finish(sl_pack_writer *writer, bool keep, sl_pack_map *out, sl_err *err);
void sl_pack_writer_abandon(sl_pack_writer *writer); /* NULL is allowed */

/* Small texts beside the packed weights. Read: bytes of the file name that went into text (capacity of them at most), 0 when
 * there is none that this user alone can write, or a longer one. Write: replaces it as a whole; false when that failed,
 * which does no harm. Neither syncs: a reader checks what it gets. */
size_t sl_pack_cache_read_text(const sl_pack_cache_options *options, const char *name, char *text, size_t capacity);
bool sl_pack_cache_write_text(const sl_pack_cache_options *options, const char *name, const char *text, size_t n_bytes);

/* Deletes the files of the cache whose names begin with prefix. Missing folders and files are no error. */
void sl_pack_cache_remove(const sl_pack_cache_options *options, const char *prefix);

#endif
