/* GGUF v3 files: reader (memory-mapped, every field checked before it is used) and writer.
 * Source: the GGUF specification of ggml (docs/gguf.md). */
#ifndef SL_FILE_GGUF_H
#define SL_FILE_GGUF_H

#include "file/sha256.h"
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
    const void *data; /* first element in the mapping, little endian, unaligned; for strings, their first length */
    const sl_gguf_string *strings; /* count strings when elem_kind is STRING, else NULL */
} sl_gguf_value;

typedef struct sl_gguf_tensor {
    const char *name; /* NUL-terminated, owned by the reader */
    uint32_t n_dims;  /* 1-4 (0-dimensional tensors read as 1) */
    uint64_t ne[4];   /* ne[0] innermost; unused ones are 1 */
    sl_type type;
    const sl_type_info *info; /* never NULL: unknown types are refused at open */
    uint64_t n_elems, n_bytes;
    uint64_t offset; /* from the start of the file */
    const void
        *data; /* in the mapping, aligned as in the file (up to a page); NULL when opened with SL_GGUF_HEADER_ONLY */
} sl_gguf_tensor;

typedef struct sl_gguf sl_gguf;

enum {
    SL_GGUF_HEADER_ONLY = 1, /* tensor data may be missing (tokenizer-only tools, `info` on a truncated file) */
};

/* Limits, each far above any real file: a hostile header can't cost more than these allow. */
#define SL_GGUF_MAX_HEADER_BYTES (UINT64_C(512) << 20)
#define SL_GGUF_MAX_VALUES       (UINT64_C(1) << 20)
#define SL_GGUF_MAX_TENSORS      (UINT64_C(1) << 20)
#define SL_GGUF_MAX_NAME_BYTES   63    /* of a tensor's name */
#define SL_GGUF_MAX_KEY_BYTES    65535 /* of a key */
#define SL_GGUF_MIN_ALIGNMENT    8
#define SL_GGUF_MAX_ALIGNMENT    65536

/* Maps and checks the file at path. Errors are one line with the path and what is wrong:
 * SL_ERR_IO (missing, unreadable, empty, a directory), SL_ERR_FORMAT (broken), SL_ERR_UNSUPPORTED (v1/v2, big endian,
 * unknown tensor type), SL_ERR_LIMIT. The caller closes it.
 *
 * Every field is read once and checked before use; refused besides what the specification forbids: nested arrays,
 * duplicate keys and tensors, overlapping or empty tensors, control characters or bad UTF-8 in keys and names. Time and
 * memory are linear in the header's bytes (names are hashed with a random key). Nothing can guard a mapping against a
 * file that is made shorter later: touching the lost pages raises SIGBUS. Replace models by rename, never in place, and
 * see sl_gguf_check_file. */
SL_WARN_UNUSED sl_status sl_gguf_open(const char *path, uint32_t flags, sl_gguf **out, sl_err *err);

/* The same on n_bytes in memory, which stay the caller's and must outlive the reader. */
SL_WARN_UNUSED sl_status sl_gguf_open_memory(const void *bytes, size_t n_bytes, uint32_t flags, sl_gguf **out,
                                             sl_err *err);
void sl_gguf_close(sl_gguf *gguf);

/* SL_ERR_IO when the file behind the mapping has been made shorter since it was opened, so that reading tensor data
 * would raise SIGBUS; one fstat, so cheap enough to call before each tensor is read. SL_OK for one in memory. */
SL_WARN_UNUSED sl_status sl_gguf_check_file(const sl_gguf *gguf, sl_err *err);

/* What tells this file from others, wherever it lies: SHA-256 of its size, its time of change and its header (metadata and
 * tensor table). Empty for bytes in memory. */
SL_WARN_UNUSED sl_status sl_gguf_identity(const sl_gguf *gguf, char hex[SL_SHA256_HEX_BYTES], sl_err *err);

/* Whether the file still has the size and time of change that it was opened with. */
bool sl_gguf_is_unchanged(const sl_gguf *gguf);

/* Takes the pages that lie wholly inside n_bytes at data, a piece of the mapping, out of this process's memory; the
 * system keeps them as long as it likes, and reading them again brings them back. Any thread. */
void sl_gguf_release(const sl_gguf *gguf, const void *data, size_t n_bytes);

uint64_t sl_gguf_file_bytes(const sl_gguf *gguf);
/* The file's alignment of tensor data (general.alignment or 32), and where that data starts in the file. */
uint32_t sl_gguf_alignment(const sl_gguf *gguf);
uint64_t sl_gguf_data_start(const sl_gguf *gguf);

size_t sl_gguf_n_values(const sl_gguf *gguf);
const sl_gguf_value *sl_gguf_value_at(const sl_gguf *gguf, size_t index);
/* Value with that key (hashed look-up); NULL when absent. */
const sl_gguf_value *sl_gguf_find(const sl_gguf *gguf, const char *key);

size_t sl_gguf_n_tensors(const sl_gguf *gguf);
const sl_gguf_tensor *sl_gguf_tensor_at(const sl_gguf *gguf, size_t index);
const sl_gguf_tensor *sl_gguf_find_tensor(const sl_gguf *gguf, const char *name);

/* Element index of value as a number, whatever its width; false when it is no number (a bool isn't one), index
 * is out of range, or it does not fit (a negative number as u64, 3.5 as an integer). */
bool sl_gguf_as_u64(const sl_gguf_value *value, uint64_t index, uint64_t *out);
bool sl_gguf_as_i64(const sl_gguf_value *value, uint64_t index, int64_t *out);
bool sl_gguf_as_f64(const sl_gguf_value *value, uint64_t index, double *out);

/* Typed getters by key: *out keeps its value (the default) when the key is absent; SL_ERR_FORMAT when it has another
 * type, does not fit, or is no finite number. Strings are copied nowhere: *out points into the mapping. */
SL_WARN_UNUSED sl_status sl_gguf_get_u32(const sl_gguf *gguf, const char *key, uint32_t *out, sl_err *err);
SL_WARN_UNUSED sl_status sl_gguf_get_f32(const sl_gguf *gguf, const char *key, float *out, sl_err *err);
SL_WARN_UNUSED sl_status sl_gguf_get_bool(const sl_gguf *gguf, const char *key, bool *out, sl_err *err);
SL_WARN_UNUSED sl_status sl_gguf_get_string(const sl_gguf *gguf, const char *key, sl_gguf_string *out, sl_err *err);

#endif
