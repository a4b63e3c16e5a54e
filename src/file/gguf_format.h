/* Rules of the GGUF format that reader and writer share. */
#ifndef SL_FILE_GGUF_FORMAT_H
#define SL_FILE_GGUF_FORMAT_H

#include "file/gguf.h"

enum {
    SL_GGUF_VERSION = 3,
    SL_GGUF_DEFAULT_ALIGNMENT = 32,
};

/* Bytes of one element of a fixed-size kind; 0 for strings, arrays and unknown kinds. */
uint32_t sl_gguf_kind_bytes(uint32_t kind);

/* A key or tensor name (`what` it is, for the message): 1 to max_bytes of UTF-8 without control characters.
 * SL_ERR_FORMAT. */
SL_WARN_UNUSED sl_status sl_gguf_check_name(const char *what, const char *bytes, size_t n_bytes, size_t max_bytes,
                                            sl_err *err);

/* A power of two from SL_GGUF_MIN_ALIGNMENT to SL_GGUF_MAX_ALIGNMENT, else SL_ERR_FORMAT. */
SL_WARN_UNUSED sl_status sl_gguf_check_alignment(uint32_t alignment, sl_err *err);

/* Fills n_elems and n_bytes from name, info and all four ne; SL_ERR_FORMAT for an empty tensor, a row that isn't whole
 * blocks, or more than 63 bits of either. */
SL_WARN_UNUSED sl_status sl_gguf_size_tensor(sl_gguf_tensor *tensor, sl_err *err);

#endif
