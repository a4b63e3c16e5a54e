/* Strings of bytes with a length; any byte may occur. */
#ifndef SL_BASE_BYTES_H
#define SL_BASE_BYTES_H

#include <sluice/sluice.h> /* sl_bytes */

typedef struct sl_bytes_list {
    const sl_bytes *items;
    size_t n;
} sl_bytes_list;

#endif
