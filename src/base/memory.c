#include "base/memory.h"

#include "base/status.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 4096 };

/* Where a version of cgroups says what. */
typedef struct cgroups {
    const char *mount, *limits[2], *usage, *reclaimable;
} cgroups;

static const cgroups v2 = {"/sys/fs/cgroup", {"memory.max", "memory.high"}, "memory.current", "inactive_file"};
static const cgroups v1 = {
    "/sys/fs/cgroup/memory", {"memory.limit_in_bytes"}, "memory.usage_in_bytes", "total_inactive_file"};

/* The number that stands behind key in a file with a key and a number on each line; key NULL: the file's only number. */
static bool read_number(const char *folder, const char *name, const char *key, uint64_t *out)
{
    char path[PATH_BYTES + 64], line[256], word[128];
    unsigned long long number;
    bool found = false;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof line, file))
        found = key ? sscanf(line, "%127s %llu", word, &number) == 2 && strcmp(word, key) == 0
                    : sscanf(line, "%llu", &number) == 1;
    if (file)
        fclose(file);
    if (found)
        *out = number;
    return found;
}

/* What one cgroup leaves. */
static uint64_t left_in(const cgroups *kind, const char *folder)
{
    uint64_t limit = UINT64_MAX, used = 0, reclaimable = 0, number;
    for (size_t i = 0; i < SL_COUNTOF(kind->limits); i++)
        if (kind->limits[i] && read_number(folder, kind->limits[i], NULL, &number))
            limit = SL_MIN(limit, number);
    if (limit == UINT64_MAX || !read_number(folder, kind->usage, NULL, &used))
        return limit;
    (void)read_number(folder, "memory.stat", kind->reclaimable, &reclaimable);
    used -= SL_MIN(used, reclaimable);
    return limit - SL_MIN(limit, used);
}

/* The least of a cgroup and all above it. What is not there is no limit: inside a container the outer part of a path
 * may not be, and its own cgroup then is the mount itself. */
static uint64_t left_on_path(const cgroups *kind, const char *root, const char *path)
{
    char folder[PATH_BYTES];
    int n_mount = snprintf(folder, sizeof folder, "%s%s", root, kind->mount);
    int n = snprintf(folder, sizeof folder, "%s%s%s", root, kind->mount, path);
    if (n < 0 || n >= (int)sizeof folder)
        return UINT64_MAX;
    uint64_t least = left_in(kind, folder);
    for (char *slash; (slash = strrchr(folder + n_mount, '/')) != NULL;) {
        *slash = '\0';
        least = SL_MIN(least, left_in(kind, folder));
    }
    return least;
}

/* True when word is one of a list with commas between. */
static bool is_listed(const char *word, const char *list)
{
    size_t n = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == '\0'))
            return true;
    return false;
}

/* Lines of /proc/self/cgroup are NUMBER:CONTROLLERS:PATH, with no controllers for v2 (cgroups(7)). */
static uint64_t left_in_cgroups(const char *root)
{
    char name[PATH_BYTES], line[PATH_BYTES];
    uint64_t least = UINT64_MAX;
    snprintf(name, sizeof name, "%s/proc/self/cgroup", root);
    FILE *file = fopen(name, "re");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        controllers++;
        if (*controllers == '\0')
            least = SL_MIN(least, left_on_path(&v2, root, path));
        else if (is_listed("memory", controllers))
            least = SL_MIN(least, left_on_path(&v1, root, path));
    }
    if (file)
        fclose(file);
    return least;
}

uint64_t sl_memory_free_at(const char *root)
{
    char folder[PATH_BYTES];
    uint64_t available = 0;
    snprintf(folder, sizeof folder, "%s/proc", root);
    bool told = read_number(folder, "meminfo", "MemAvailable:", &available);
    return SL_MIN(told ? available * 1024 : UINT64_MAX, left_in_cgroups(root));
}

uint64_t sl_memory_free(void)
{
    return sl_memory_free_at("");
}
