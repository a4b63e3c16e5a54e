/* GGUF v3 writer: the same calls in the same order give the same bytes. */
#ifndef SL_FILE_GGUF_WRITER_H
#define SL_FILE_GGUF_WRITER_H

#include "file/gguf.h"

typedef struct sl_gguf_writer sl_gguf_writer;

/* An empty file in the making; the caller closes it. */
SL_WARN_UNUSED sl_status sl_gguf_writer_open(sl_gguf_writer **out, sl_err *err);
void sl_gguf_writer_close(sl_gguf_writer *writer);

/* Set a key to a scalar, or to an array of count elements. data is one element or count of them, packed: the C type of
 * that width for numbers, uint8_t of 0 or 1 for BOOL, sl_gguf_string for STRING. Everything is copied. Setting a key
 * again replaces its value and keeps its place. `general.alignment` (U32) also sets the alignment of tensor data.
 * SL_ERR_ARGUMENT for a kind that is none or ARRAY, SL_ERR_FORMAT for a bad key or value, SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_gguf_writer_set(sl_gguf_writer *writer, const char *key, sl_gguf_kind kind,
                                            const void *data, sl_err *err);
SL_WARN_UNUSED sl_status sl_gguf_writer_set_array(sl_gguf_writer *writer, const char *key, sl_gguf_kind elem_kind,
                                                  const void *data, uint64_t count, sl_err *err);

/* The common kinds; string is NUL-terminated. */
SL_WARN_UNUSED sl_status sl_gguf_writer_set_u32(sl_gguf_writer *writer, const char *key, uint32_t value, sl_err *err);
SL_WARN_UNUSED sl_status sl_gguf_writer_set_f32(sl_gguf_writer *writer, const char *key, float value, sl_err *err);
SL_WARN_UNUSED sl_status sl_gguf_writer_set_bool(sl_gguf_writer *writer, const char *key, bool value, sl_err *err);
SL_WARN_UNUSED sl_status sl_gguf_writer_set_string(sl_gguf_writer *writer, const char *key, const char *string,
                                                   sl_err *err);

/* Copies a key and its value as a reader gave it. */
SL_WARN_UNUSED sl_status sl_gguf_writer_copy_value(sl_gguf_writer *writer, const sl_gguf_value *value, sl_err *err);

/* Makes the bytes of tensor index while the file is written: calls sl_gguf_writer_append until all are there. */
typedef sl_status sl_gguf_data_fn(void *user, sl_gguf_writer *writer, size_t index, sl_err *err);

/* Adds a tensor of n_dims (1-4) dimensions, ne[0] innermost, at the end. Its packed bytes come from data, which must stay
 * until the file is written, or from produce. SL_ERR_FORMAT for a bad or repeated name, a bad shape, or an unknown
 * type. */
SL_WARN_UNUSED sl_status sl_gguf_writer_add_tensor(sl_gguf_writer *writer, const char *name, sl_type type,
                                                   uint32_t n_dims, const uint64_t *ne, const void *data, sl_err *err);
SL_WARN_UNUSED sl_status sl_gguf_writer_stream_tensor(sl_gguf_writer *writer, const char *name, sl_type type,
                                                      uint32_t n_dims, const uint64_t *ne, sl_gguf_data_fn *produce,
                                                      void *user, sl_err *err);

/* Appends bytes to the tensor being produced; SL_ERR_ARGUMENT beyond its size, SL_ERR_STATE outside of a produce
 * callback. */
SL_WARN_UNUSED sl_status sl_gguf_writer_append(sl_gguf_writer *writer, const void *bytes, size_t n_bytes, sl_err *err);

/* Writes the file: beside path under a temporary name, synced, then renamed over it. On failure nothing is left behind
 * and path is as it was. SL_ERR_ARGUMENT when a callback produced too little; a callback's own status otherwise. */
SL_WARN_UNUSED sl_status sl_gguf_writer_write(sl_gguf_writer *writer, const char *path, sl_err *err);

#endif
