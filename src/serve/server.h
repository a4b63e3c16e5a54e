/* The HTTP server: one model behind the API that OpenAI's clients speak. docs/SERVER.md is its description. */
#ifndef SL_SERVE_SERVER_H
#define SL_SERVE_SERVER_H

#include "app/service.h"
#include "serve/keys.h"

typedef struct sl_server sl_server;

typedef struct sl_server_options {
    const char *host;     /* name or numeric address */
    uint16_t port;        /* 0 = any free one */
    const char *model;    /* what /v1/models calls the model */
    const char **aliases; /* further names that requests may use; n_aliases of them */
    size_t n_aliases;
    const sl_keys *keys;      /* NULL: everybody may */
    bool no_auth;             /* without keys, listen on other addresses than loopback too */
    uint32_t max_connections; /* 0 = 4096, or less where descriptors are short */
    size_t max_body;          /* bytes; 0 = 16 MiB */
    size_t max_answers;       /* bytes of all answers that are not streamed, while they are made; 0 = 256 MiB */
    uint32_t n_text_threads;  /* 0 = 1 */
    uint32_t client_s;        /* most seconds for sending a body, or for taking none of an answer; 0 = 60 */
    uint32_t keep_alive_s;    /* a stream that has nothing to say gets a comment so often; 0 = 10 */
    uint32_t drain_s;         /* after the first signal, most seconds for what runs; 0 = 30 */
    sl_pooling pooling;       /* of embeddings; NONE = as the model wants */
    sl_service_options service;
} sl_server_options;

/* Opens service and socket; strings and keys must outlive the server. SL_ERR_ARGUMENT for an address other than
 * loopback without keys or no_auth, SL_ERR_IO for one that cannot be had. The caller closes it. */
SL_WARN_UNUSED sl_status sl_server_open(const sl_bundle *bundle, const sl_server_options *options, sl_server **out,
                                        sl_err *err);
void sl_server_close(sl_server *server);

/* "127.0.0.1:8080", "[::1]:8080": where it listens. Owned by the server. */
const char *sl_server_address(const sl_server *server);

/* Serves until SIGTERM or SIGINT comes; then new requests get 503, those that run go on to their end, and SL_OK is
 * returned. A second signal ends them: SL_ERR_CANCELLED; so do drain_s: SL_ERR_LIMIT, which says how many they were. */
SL_WARN_UNUSED sl_status sl_server_run(sl_server *server, sl_err *err);

#endif
