/* The header of a file of packed tensors, written and checked.
 *
 *   offset  0  "SLPACKED"
 *           8  u32 version, u32 number of sections
 *          16  u64 bytes of the whole file
 *          24  32 bytes: key, a hash of everything that the contents depend on
 *          56  16 bytes: the boot during which it was written; zeros: known to be on the disk
 *          72  u64 sum of the header, itself read as 0
 *          80  for each section: u64 offset, u64 bytes, u64 sum
 *
 * All numbers little endian. Sections begin at multiples of 4096, in order, as close as that allows, and the header takes
 * whole pages. So the sizes alone fix everything but boot and sums: a reader who knows what it wants never uses a number
 * of the file as a place or a size, it only compares. */
#ifndef SL_FILE_PACKFILE_H
#define SL_FILE_PACKFILE_H

#include "base/status.h"

enum {
    SL_PACKFILE_VERSION = 1,
    SL_PACKFILE_PAGE = 4096,
    SL_PACKFILE_KEY_BYTES = 32,
    SL_PACKFILE_BOOT_BYTES = 16,
};

typedef struct sl_packfile_section {
    uint64_t offset, n_bytes;
    uint64_t sum; /* of its parts' sl_packfile_sum; what a part is, the writer decides */
} sl_packfile_section;

/* What a file holds, or should hold. */
typedef struct sl_packfile {
    uint8_t key[SL_PACKFILE_KEY_BYTES];
    uint8_t boot[SL_PACKFILE_BOOT_BYTES];
    sl_packfile_section *sections; /* the caller's */
    uint32_t n_sections;
    uint64_t header_bytes, n_bytes; /* of the header and of the whole file */
} sl_packfile;

/* Fills the sections' offsets, header_bytes and n_bytes from the sections' sizes. SL_ERR_LIMIT when they are too large. */
SL_WARN_UNUSED sl_status sl_packfile_place(sl_packfile *file, sl_err *err);

/* Writes header_bytes bytes. */
void sl_packfile_write_header(const sl_packfile *file, uint8_t *out);

/* Compares the n_bytes at bytes, the beginning of a file of file_bytes, with what a placed *file wants, and takes over
 * boot and the sections' sums. SL_ERR_FORMAT with what is wrong; *file is as it was then. */
SL_WARN_UNUSED sl_status sl_packfile_check_header(sl_packfile *file, const void *bytes, size_t n_bytes,
                                                  uint64_t file_bytes, sl_err *err);

/* 64-bit checksum, against damage and not against malice; parts of a section take their number as seed, so that two
 * that changed places are seen. Runs at the speed of memory. */
uint64_t sl_packfile_sum(const void *bytes, size_t n_bytes, uint64_t seed);

#endif
