/* How much memory there is to be had. */
#ifndef SL_BASE_MEMORY_H
#define SL_BASE_MEMORY_H

#include <stdint.h>

/* Bytes that this process can still take: the least of MemAvailable (Linux: proc(5)) and, for its memory cgroup and all
 * above that, the limit less what is in use and can't be given back at once. Both versions of cgroups are looked at: v2's
 * memory.max and memory.high, v1's memory.limit_in_bytes; file pages that nobody has used lately count as free, as they do
 * in MemAvailable. UINT64_MAX where the system tells nothing. */
uint64_t sl_memory_free(void);

/* The same by the files below another root than "/" (tests): ROOT/proc/meminfo, ROOT/proc/self/cgroup, ROOT/sys/fs/cgroup. */
uint64_t sl_memory_free_at(const char *root);

#endif
