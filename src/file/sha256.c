#include "file/sha256.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

struct sl_sha256 {
    EVP_MD_CTX *context;
};

static sl_status failed(sl_err *err)
{
    SL_FAIL(err, SL_ERR_INTERNAL, "libcrypto can't compute SHA-256");
}

sl_status sl_sha256_open(sl_sha256 **out, sl_err *err)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    *out = malloc(sizeof **out);
    if (!context || !*out) {
        EVP_MD_CTX_free(context);
        free(*out);
        *out = NULL;
        SL_FAIL(err, SL_ERR_NOMEM, "not enough memory for a checksum");
    }
    (*out)->context = context;
    if (!EVP_DigestInit_ex(context, EVP_sha256(), NULL)) {
        sl_sha256_close(*out);
        *out = NULL;
        return failed(err);
    }
    return SL_OK;
}

void sl_sha256_close(sl_sha256 *sha)
{
    if (!sha)
        return;
    EVP_MD_CTX_free(sha->context);
    free(sha);
}

sl_status sl_sha256_update(sl_sha256 *sha, const void *bytes, size_t n_bytes, sl_err *err)
{
    return EVP_DigestUpdate(sha->context, bytes, n_bytes) ? SL_OK : failed(err);
}

sl_status sl_sha256_finish(sl_sha256 *sha, char hex[SL_SHA256_HEX_BYTES], sl_err *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (!EVP_DigestFinal_ex(sha->context, digest, &n) || n != 32)
        return failed(err);
    for (unsigned i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return SL_OK;
}
