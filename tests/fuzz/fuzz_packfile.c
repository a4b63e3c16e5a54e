/* libFuzzer target: any bytes as the header of a file of packed tensors. The first bytes say what the reader wants; what it
 * accepts must be what the writer would have written. */
#include "file/packfile.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum { MAX_SECTIONS = 512 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    /* u16 sections, u32 bytes of the first one (the next are a little larger each), u8: the sum is made right */
    sl_packfile_section sections[MAX_SECTIONS] = {0};
    sl_packfile file = {.sections = sections};
    uint32_t first;
    if (n_bytes < 7)
        return 0;
    file.n_sections = (uint32_t)(data[0] | data[1] << 8) % (MAX_SECTIONS + 1);
    memcpy(&first, data + 2, sizeof first);
    bool mend = data[6] & 1;
    data += 7;
    n_bytes -= 7;
    for (uint32_t i = 0; i < file.n_sections; i++)
        sections[i].n_bytes = (uint64_t)first + i;
    if (sl_packfile_place(&file, NULL) != SL_OK)
        abort();
    uint8_t *wanted = malloc(file.header_bytes), *given = malloc(n_bytes + 1);
    if (!wanted || !given)
        abort();
    sl_packfile_write_header(&file, wanted);
    memcpy(given, data, n_bytes);
    /* Random bytes never have the right sum: take a good header and put the data over its boot and sums. */
    if (mend && n_bytes >= SL_PACKFILE_BOOT_BYTES && n_bytes <= file.header_bytes) {
        memcpy(file.boot, data, sizeof file.boot);
        for (uint32_t i = 0; i < file.n_sections && (i + 1) * 8 <= n_bytes; i++)
            memcpy(&sections[i].sum, data + (size_t)i * 8, 8);
        sl_packfile_write_header(&file, wanted);
        if (sl_packfile_check_header(&file, wanted, file.header_bytes, file.n_bytes, NULL) != SL_OK)
            abort();
        wanted[data[0] % file.header_bytes] ^= data[1];
        if (data[1] && sl_packfile_check_header(&file, wanted, file.header_bytes, file.n_bytes, NULL) == SL_OK)
            abort();
    }
    if (sl_packfile_check_header(&file, given, n_bytes, file.n_bytes, NULL) == SL_OK) {
        sl_packfile_write_header(&file, wanted);
        if (n_bytes < file.header_bytes || memcmp(wanted, given, file.header_bytes))
            abort();
    }
    free(wanted);
    free(given);
    return 0;
}
