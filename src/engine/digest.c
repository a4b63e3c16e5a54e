#include "engine/digest.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>
#include <string.h>

struct sl_digester {
    EVP_MAC *mac;
    EVP_MAC_CTX *context;
    uint8_t key[SL_DIGEST_KEY_BYTES];
};

sl_status sl_digester_open(const uint8_t key[SL_DIGEST_KEY_BYTES], sl_digester **out, sl_err *err)
{
    *out = NULL;
    sl_digester *d = calloc(1, sizeof *d);
    if (!d)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a hash");
    memcpy(d->key, key, sizeof d->key);
    d->mac = EVP_MAC_fetch(NULL, "SIPHASH", NULL);
    d->context = d->mac ? EVP_MAC_CTX_new(d->mac) : NULL;
    size_t n_bytes = sizeof(sl_digest);
    OSSL_PARAM size[] = {OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &n_bytes), OSSL_PARAM_construct_end()};
    if (!d->context || !EVP_MAC_CTX_set_params(d->context, size) ||
        !EVP_MAC_init(d->context, d->key, sizeof d->key, NULL)) {
        sl_digester_close(d);
        SL_FAIL(err, SL_ERR_UNSUPPORTED, "libcrypto offers no SipHash of 128 bits");
    }
    *out = d;
    return SL_OK;
}

void sl_digester_close(sl_digester *digester)
{
    if (!digester)
        return;
    EVP_MAC_CTX_free(digester->context);
    EVP_MAC_free(digester->mac);
    free(digester);
}

sl_digest sl_digest_of(sl_digester *d, const void *bytes, size_t n_bytes)
{
    sl_digest digest;
    size_t n = 0;
    bool done = EVP_MAC_init(d->context, d->key, sizeof d->key, NULL) && EVP_MAC_update(d->context, bytes, n_bytes) &&
                EVP_MAC_final(d->context, (unsigned char *)&digest, &n, sizeof digest);
    SL_ASSERT(done && n == sizeof digest);
    return digest;
}
