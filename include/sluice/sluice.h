/* sluice: run large language models fast and dependably.
 *
 * The only public header. Everything here starts with sl_ or SL_. Unless a function says otherwise it may be
 * called from any thread, never exits the process and never prints. */
#ifndef SLUICE_SLUICE_H
#define SLUICE_SLUICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SL_VERSION_STRING "0.1.0"

/* Number that changes whenever the binary interface does; compare with sl_abi_version() after linking. */
#define SL_ABI_VERSION 1

#if defined(__GNUC__)
#define SL_API               __attribute__((visibility("default")))
#define SL_WARN_UNUSED       __attribute__((warn_unused_result))
#define SL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define SL_API
#define SL_WARN_UNUSED
#define SL_PRINTF(fmt, args)
#endif

/* Result of every function that can fail. */
typedef enum sl_status {
    SL_OK = 0,
    SL_ERR_ARGUMENT,    /* the caller passed something that can never work */
    SL_ERR_NOMEM,       /* memory could not be had */
    SL_ERR_IO,          /* the system refused: open, read, write, map */
    SL_ERR_FORMAT,      /* bytes of a file or message break their format's rules */
    SL_ERR_UNSUPPORTED, /* well formed, but not something this build can do */
    SL_ERR_LIMIT,       /* larger than a stated limit */
    SL_ERR_NOT_FOUND,   /* no such name */
    SL_ERR_STATE,       /* not now: the object is in a state that forbids it */
    SL_ERR_CANCELLED,   /* the caller asked to stop */
    SL_ERR_NUMERIC,     /* a NaN or infinity where a finite number was due */
    SL_ERR_INTERNAL     /* our own mistake */
} sl_status;

/* Error with its reason: one line, no newline at the end, no heap. Owned by the caller. */
typedef struct sl_err {
    sl_status code;
    char message[256];
} sl_err;

/* Version of the library, "major.minor.patch". Static storage. */
SL_API const char *sl_version(void);

/* ABI number the library was built with. */
SL_API uint32_t sl_abi_version(void);

/* Short English name of a status ("format error"). Static storage, never NULL. */
SL_API const char *sl_status_name(sl_status status);

#ifdef __cplusplus
}
#endif
#endif
