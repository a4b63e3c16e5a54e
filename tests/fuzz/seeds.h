/* What programs that write a fuzz target's seeds share. */
#ifndef SL_TESTS_FUZZ_SEEDS_H
#define SL_TESTS_FUZZ_SEEDS_H

#include <stdio.h>
#include <string.h>

/* Writes each text to a file of its number in the folder that argv names; the program's exit status. */
static inline int seeds_write(int argc, char **argv, const char *const *texts, size_t n)
{
    for (size_t i = 0; argc == 2 && i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%zu", argv[1], i);
        FILE *file = fopen(path, "wb");
        if (!file)
            return 1;
        fwrite(texts[i], 1, strlen(texts[i]), file);
        if (fclose(file) != 0)
            return 1;
    }
    return argc != 2;
}

#endif
