/* Keyed hash by which the prefix tree finds its nodes: SipHash-2-4 with 128 bits of result, from libcrypto. */
#ifndef SL_ENGINE_DIGEST_H
#define SL_ENGINE_DIGEST_H

#include "base/status.h"

enum { SL_DIGEST_KEY_BYTES = 16 };

typedef struct sl_digest {
    uint64_t word[2];
} sl_digest;

typedef struct sl_digester sl_digester;

/* Copies the key. SL_ERR_UNSUPPORTED when libcrypto has no SipHash. The caller closes it. */
SL_WARN_UNUSED sl_status sl_digester_open(const uint8_t key[SL_DIGEST_KEY_BYTES], sl_digester **out, sl_err *err);
void sl_digester_close(sl_digester *digester);

/* Digest of n_bytes. Allocates nothing. Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; the
 * vectors in tests/sim/test_memory.c are those of its reference code. */
sl_digest sl_digest_of(sl_digester *digester, const void *bytes, size_t n_bytes);

#endif
