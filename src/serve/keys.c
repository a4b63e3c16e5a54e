#include "serve/keys.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Padded with zeros, so that comparing two takes the same time whatever their lengths. */
typedef struct {
    char bytes[SL_MAX_KEY + 1];
} key;

struct sl_keys {
    size_t n;
    key keys[SL_MAX_KEYS];
};

/* Takes one line; its end is cut off. */
static sl_status add_line(sl_keys *keys, char *line, const char *path, int number, sl_err *err)
{
    line[strcspn(line, "\r\n")] = '\0';
    size_t n = strlen(line);
    if (n == 0 || line[0] == '#')
        return SL_OK;
    bool good = n <= SL_MAX_KEY;
    for (size_t i = 0; i < n; i++)
        good &= line[i] > ' ' && line[i] <= '~';
    if (!good)
        SL_FAIL(err, SL_ERR_FORMAT, "%s:%d: a key has 1 to %d printable characters and no spaces", path, number,
                SL_MAX_KEY);
    if (keys->n == SL_MAX_KEYS)
        SL_FAIL(err, SL_ERR_LIMIT, "%s has more than %d keys", path, SL_MAX_KEYS);
    key one = {{0}};
    memcpy(one.bytes, line, n);
    for (size_t i = 0; i < keys->n; i++)
        if (memcmp(keys->keys[i].bytes, one.bytes, sizeof one) == 0)
            SL_FAIL(err, SL_ERR_FORMAT, "%s:%d: this key stands there twice", path, number);
    keys->keys[keys->n++] = one;
    return SL_OK;
}

static sl_status read_lines(sl_keys *keys, FILE *file, const char *path, sl_err *err)
{
    char *line = NULL;
    size_t capacity = 0;
    sl_status status = SL_OK;
    for (int number = 1; status == SL_OK && getline(&line, &capacity, file) >= 0; number++)
        status = add_line(keys, line, path, number, err);
    if (line)
        OPENSSL_cleanse(line, capacity);
    free(line);
    if (status == SL_OK && ferror(file))
        SL_FAIL(err, SL_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    if (status == SL_OK && keys->n == 0)
        SL_FAIL(err, SL_ERR_FORMAT, "%s holds no key", path);
    return status;
}

sl_status sl_keys_open(const char *path, sl_keys **out, sl_err *err)
{
    *out = NULL;
    FILE *file = fopen(path, "re");
    if (!file)
        SL_FAIL(err, SL_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    sl_keys *keys = calloc(1, sizeof *keys);
    sl_status status = keys ? read_lines(keys, file, path, err) : sl_err_set(err, SL_ERR_NOMEM, "no memory for keys");
    fclose(file);
    if (status != SL_OK) {
        sl_keys_close(keys);
        return status;
    }
    *out = keys;
    return SL_OK;
}

void sl_keys_close(sl_keys *keys)
{
    if (keys)
        OPENSSL_cleanse(keys, sizeof *keys);
    free(keys);
}

uint32_t sl_keys_find(const sl_keys *keys, const char *authorization)
{
    static const char scheme[] = "Bearer ";
    key given = {{0}};
    size_t n_scheme = sizeof scheme - 1;
    if (strncasecmp(authorization, scheme, n_scheme) != 0)
        return 0;
    size_t n = strnlen(authorization + n_scheme, SL_MAX_KEY + 1);
    if (n == 0 || n > SL_MAX_KEY)
        return 0;
    memcpy(given.bytes, authorization + n_scheme, n);
    uint32_t found = 0;
    for (size_t i = 0; i < keys->n; i++) {
        uint32_t equal = CRYPTO_memcmp(keys->keys[i].bytes, given.bytes, sizeof given) == 0;
        found |= (0 - equal) & (uint32_t)(i + 1);
    }
    return found;
}
