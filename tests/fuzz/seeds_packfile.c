/* Writes the seeds of fuzz_packfile into a folder: seeds_packfile FOLDER */
#include "file/packfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the reader wants, as fuzz_packfile.c reads it, then the header that has it. */
static bool write_seed(const char *folder, uint32_t n_sections, uint32_t first, uint8_t mend)
{
    char path[4096];
    sl_packfile_section *sections = calloc(n_sections + 1, sizeof *sections);
    sl_packfile file = {.sections = sections, .n_sections = n_sections};
    uint8_t front[7] = {(uint8_t)n_sections, (uint8_t)(n_sections >> 8)}, *header = NULL;
    memcpy(front + 2, &first, sizeof first);
    front[6] = mend;
    for (uint32_t i = 0; sections && i < n_sections; i++)
        sections[i].n_bytes = (uint64_t)first + i;
    snprintf(path, sizeof path, "%s/n%u-b%u-%u", folder, n_sections, first, mend);
    FILE *out = fopen(path, "wb");
    bool good = sections && out && sl_packfile_place(&file, NULL) == SL_OK && (header = malloc(file.header_bytes));
    if (good) {
        sl_packfile_write_header(&file, header);
        good = fwrite(front, sizeof front, 1, out) == 1 && fwrite(header, file.header_bytes, 1, out) == 1;
    }
    if (out && fclose(out))
        good = false;
    free(sections);
    free(header);
    return good;
}

int main(int argc, char **argv)
{
    static const uint32_t counts[] = {0, 1, 22, 200};
    for (size_t i = 0; argc == 2 && i < SL_COUNTOF(counts); i++) {
        for (uint8_t mend = 0; mend < 2; mend++) {
            if (!write_seed(argv[1], counts[i], 5760 * 36, mend)) {
                fprintf(stderr, "seeds_packfile: cannot write to %s\n", argv[1]);
                return 1;
            }
        }
    }
    if (argc != 2)
        fprintf(stderr, "usage: seeds_packfile FOLDER\n");
    return argc != 2;
}
