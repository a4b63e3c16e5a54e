/* Who stands behind a request to a server that only programs of this machine can reach. A page in a local browser can
 * reach it too, from anywhere in the world: by sending without reading the answer, or by a name of its own that it makes
 * point to 127.0.0.1 (DNS rebinding), and then it reads as well. Browsers say so in Host and Origin, which pages cannot
 * change. */
#ifndef SL_SERVE_ORIGIN_H
#define SL_SERVE_ORIGIN_H

#include "base/status.h"

/* Whether a Host header, "name", "name:port" or "[address]:port", names this machine: localhost, a name below it, an address
 * of the loopback, or own (the name the server listens at). */
SL_WARN_UNUSED bool sl_host_is_local(const char *host, const char *own);

/* Whether an Origin header is that of a page of this machine or no page at all: http or https from a local host, or another
 * scheme, which only installed programs have (browser extensions, desktop applications). "null" is any page's. */
SL_WARN_UNUSED bool sl_origin_is_local(const char *origin, const char *own);

#endif
