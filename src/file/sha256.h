/* SHA-256 as lower-case hex, through libcrypto. */
#ifndef SL_FILE_SHA256_H
#define SL_FILE_SHA256_H

#include "base/status.h"

typedef struct sl_sha256 sl_sha256;

enum { SL_SHA256_HEX_BYTES = 65 }; /* with the NUL */

/* A running hash; ends with sl_sha256_close. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_sha256_open(sl_sha256 **out, sl_err *err);
void sl_sha256_close(sl_sha256 *sha);

SL_WARN_UNUSED sl_status sl_sha256_update(sl_sha256 *sha, const void *bytes, size_t n_bytes, sl_err *err);

/* The hash of all bytes so far; only sl_sha256_close may follow. */
SL_WARN_UNUSED sl_status sl_sha256_finish(sl_sha256 *sha, char hex[SL_SHA256_HEX_BYTES], sl_err *err);

#endif
