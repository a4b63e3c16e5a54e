#include "serve/origin.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

enum { MAX_HOST = 255 };

/* Copies the name of host without brackets and port; *bracketed says whether it had some. False when it is no host. */
static bool cut_port(const char *host, char name[MAX_HOST + 1], bool *bracketed)
{
    *bracketed = host[0] == '[';
    host += *bracketed;
    size_t n = strcspn(host, *bracketed ? "]" : ":");
    const char *rest = host + n + *bracketed;
    if (n == 0 || n > MAX_HOST || (*bracketed && host[n] != ']'))
        return false;
    if (rest[0] != '\0' && (rest[0] != ':' || rest[1 + strspn(rest + 1, "0123456789")] != '\0'))
        return false;
    memcpy(name, host, n);
    name[n] = '\0';
    return true;
}

static bool is_loopback(const char *name, bool v6)
{
    struct in_addr v4_address;
    struct in6_addr v6_address;
    if (v6)
        return inet_pton(AF_INET6, name, &v6_address) == 1 && IN6_IS_ADDR_LOOPBACK(&v6_address);
    return inet_pton(AF_INET, name, &v4_address) == 1 && ntohl(v4_address.s_addr) >> 24 == 127;
}

bool sl_host_is_local(const char *host, const char *own)
{
    static const char domain[] = ".localhost"; /* RFC 6761 6.3: the loopback, whatever stands before it */
    char name[MAX_HOST + 1];
    bool bracketed;
    if (!cut_port(host, name, &bracketed))
        return false;
    size_t n = strlen(name), n_domain = sizeof domain - 1;
    if (is_loopback(name, bracketed) || strcasecmp(name, own) == 0)
        return true;
    return strcasecmp(name, domain + 1) == 0 || (n > n_domain && strcasecmp(name + n - n_domain, domain) == 0);
}

bool sl_origin_is_local(const char *origin, const char *own)
{
    const char *host = strstr(origin, "://");
    if (!host)
        return false;
    size_t n_scheme = (size_t)(host - origin);
    bool web = (n_scheme == 4 && strncasecmp(origin, "http", 4) == 0) ||
               (n_scheme == 5 && strncasecmp(origin, "https", 5) == 0);
    return n_scheme > 0 && (!web || sl_host_is_local(host + 3, own));
}
