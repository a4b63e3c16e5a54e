/* GGUF v3 files: reader (memory-mapped, every field checked before it is used) and writer.
 * Source: the GGUF specification of ggml (docs/gguf.md). */
#ifndef SL_FILE_GGUF_H
#define SL_FILE_GGUF_H

#include "kernel/type.h"

/* Value types of metadata; the numbers are the file's. */
typedef enum sl_gguf_kind {
    SL_GGUF_U8 = 0,
    SL_GGUF_I8,
    SL_GGUF_U16,
    SL_GGUF_I16,
    SL_GGUF_U32,
    SL_GGUF_I32,
    SL_GGUF_F32,
    SL_GGUF_BOOL,
    SL_GGUF_STRING,
    SL_GGUF_ARRAY,
    SL_GGUF_U64,
    SL_GGUF_I64,
    SL_GGUF_F64,
} sl_gguf_kind;

/* Bytes inside the mapping; not NUL-terminated. */
typedef struct sl_gguf_string {
    const char *bytes;
    size_t n_bytes;
} sl_gguf_string;

typedef struct sl_gguf_value {
    sl_gguf_string key;
    sl_gguf_kind kind;      /* SL_GGUF_ARRAY for arrays */
    sl_gguf_kind elem_kind; /* of an array's elements (never ARRAY); equal to kind for a scalar */
    uint64_t count;         /* elements; 1 for a scalar */
    const void *data;       /* first element in the mapping, little endian, unaligned; for strings, their first length */
    const sl_gguf_string *strings; /* count strings when elem_kind is STRING, else NULL */
} sl_gguf_value;

typedef struct sl_gguf_tensor {
    const char *name; /* NUL-terminated, owned by the reader */
    uint32_t n_dims;  /* 1-4 (0-dimensional tensors read as 1) */
    uint64_t ne[4];   /* ne[0] innermost; unused ones are 1 */
    sl_type type;
    const sl_type_info *info; /* never NULL: unknown types are refused at open */
    uint64_t n_elems, n_bytes;
    uint64_t offset;  /* from the start of the file */
    const void *data; /* in the mapping, aligned to the file's alignment; NULL when opened with SL_GGUF_HEADER_ONLY */
} sl_gguf_tensor;

typedef struct sl_gguf sl_gguf;

enum {
    SL_GGUF_HEADER_ONLY = 1, /* tensor data may be missing (tokenizer-only tools, `info` on a truncated file) */
};

/* Maps and checks the file at path. Errors name what is wrong in one line and never the whole file:
 * SL_ERR_IO (missing, unreadable, a directory), SL_ERR_FORMAT (broken), SL_ERR_UNSUPPORTED (v1/v2, big endian, unknown
 * tensor type), SL_ERR_LIMIT. The caller closes it. */
SL_WARN_UNUSED sl_status sl_gguf_open(const char *path, uint32_t flags, sl_gguf **out, sl_err *err);

/* The same on n_bytes in memory, which stay the caller's and must outlive the reader. */
SL_WARN_UNUSED sl_status sl_gguf_open_memory(const void *bytes, size_t n_bytes, uint32_t flags, sl_gguf **out,
                                             sl_err *err);
void sl_gguf_close(sl_gguf *gguf);

uint64_t sl_gguf_file_bytes(const sl_gguf *gguf);

size_t sl_gguf_n_values(const sl_gguf *gguf);
const sl_gguf_value *sl_gguf_value_at(const sl_gguf *gguf, size_t index);
/* Value with that key (hashed look-up); NULL when absent. */
const sl_gguf_value *sl_gguf_find(const sl_gguf *gguf, const char *key);

size_t sl_gguf_n_tensors(const sl_gguf *gguf);
const sl_gguf_tensor *sl_gguf_tensor_at(const sl_gguf *gguf, size_t index);
const sl_gguf_tensor *sl_gguf_find_tensor(const sl_gguf *gguf, const char *name);

/* Element index of value as a number, whatever its width; false when it is no number, index is out of range, or it
 * does not fit (a negative number as u64, 3.5 as an integer). */
bool sl_gguf_as_u64(const sl_gguf_value *value, uint64_t index, uint64_t *out);
bool sl_gguf_as_i64(const sl_gguf_value *value, uint64_t index, int64_t *out);
bool sl_gguf_as_f64(const sl_gguf_value *value, uint64_t index, double *out);

/* Typed getters by key: *out keeps its value (the default) when the key is absent; SL_ERR_FORMAT when it has another
 * type or does not fit. Strings are copied nowhere: *out points into the mapping. */
SL_WARN_UNUSED sl_status sl_gguf_get_u32(const sl_gguf *gguf, const char *key, uint32_t *out, sl_err *err);
SL_WARN_UNUSED sl_status sl_gguf_get_f32(const sl_gguf *gguf, const char *key, float *out, sl_err *err);
SL_WARN_UNUSED sl_status sl_gguf_get_bool(const sl_gguf *gguf, const char *key, bool *out, sl_err *err);
SL_WARN_UNUSED sl_status sl_gguf_get_string(const sl_gguf *gguf, const char *key, sl_gguf_string *out, sl_err *err);

#endif
