/* API keys: who may use /v1. */
#ifndef SL_SERVE_KEYS_H
#define SL_SERVE_KEYS_H

#include "base/status.h"

enum { SL_MAX_KEY = 255, SL_MAX_KEYS = 1024 };

typedef struct sl_keys sl_keys;

/* Reads a file of keys, one a line, of 1 to SL_MAX_KEY printable characters without spaces; empty lines and lines that
 * begin with # do not count. SL_ERR_FORMAT names the line, SL_ERR_LIMIT above SL_MAX_KEYS; a file without a key is
 * SL_ERR_FORMAT, because it would lock everybody out. The caller closes it. */
SL_WARN_UNUSED sl_status sl_keys_open(const char *path, sl_keys **out, sl_err *err);
void sl_keys_close(sl_keys *keys);

/* Number of the key, from 1 on, when authorization is "Bearer KEY" with one of the keys; 0 otherwise. The time this
 * takes depends on how many keys there are, not on what they or the given one hold (CVE-2025-59425). */
SL_WARN_UNUSED uint32_t sl_keys_find(const sl_keys *keys, const char *authorization);

#endif
