#include "file/packfile.h"

#include "base/checked.h"

#include <string.h>

enum { FIXED_BYTES = 80, SECTION_BYTES = 24, SUM_AT = 72, MAX_SECTIONS = 1 << 20 };

static const char magic[8] = {'S', 'L', 'P', 'A', 'C', 'K', 'E', 'D'};

sl_status sl_packfile_place(sl_packfile *file, sl_err *err)
{
    uint64_t at = sl_align_up(FIXED_BYTES + (size_t)file->n_sections * SECTION_BYTES, SL_PACKFILE_PAGE);
    if (file->n_sections > MAX_SECTIONS)
        SL_FAIL(err, SL_ERR_LIMIT, "%u packed tensors are more than a cache file holds", file->n_sections);
    file->header_bytes = at;
    for (uint32_t i = 0; i < file->n_sections; i++) {
        sl_packfile_section *section = &file->sections[i];
        section->offset = at;
        if (!sl_add_u64(at, section->n_bytes, &at) || !sl_align_up_u64(at, SL_PACKFILE_PAGE, &at) || at > INT64_MAX)
            SL_FAIL(err, SL_ERR_LIMIT, "the packed tensors are too large for a file");
    }
    file->n_bytes = at;
    return SL_OK;
}

static void put_u32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

static void put_u64(uint8_t *at, uint64_t value)
{
    memcpy(at, &value, sizeof value);
}

static uint64_t get_u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* The sum of a header page by page, with its own field read as 0. */
static uint64_t header_sum(const uint8_t *bytes, uint64_t n_bytes)
{
    uint8_t first[SL_PACKFILE_PAGE];
    memcpy(first, bytes, sizeof first);
    put_u64(first + SUM_AT, 0);
    uint64_t sum = sl_packfile_sum(first, sizeof first, 0);
    for (uint64_t at = sizeof first; at < n_bytes; at += SL_PACKFILE_PAGE)
        sum += sl_packfile_sum(bytes + at, SL_PACKFILE_PAGE, at);
    return sum;
}

void sl_packfile_write_header(const sl_packfile *file, uint8_t *out)
{
    memset(out, 0, file->header_bytes);
    memcpy(out, magic, sizeof magic);
    put_u32(out + 8, SL_PACKFILE_VERSION);
    put_u32(out + 12, file->n_sections);
    put_u64(out + 16, file->n_bytes);
    memcpy(out + 24, file->key, sizeof file->key);
    memcpy(out + 56, file->boot, sizeof file->boot);
    for (uint32_t i = 0; i < file->n_sections; i++) {
        uint8_t *at = out + FIXED_BYTES + (size_t)i * SECTION_BYTES;
        put_u64(at, file->sections[i].offset);
        put_u64(at + 8, file->sections[i].n_bytes);
        put_u64(at + 16, file->sections[i].sum);
    }
    put_u64(out + SUM_AT, header_sum(out, file->header_bytes));
}

/* Whether everything but boot and sums is what file wants, zeros behind the last section included. */
static bool fields_match(const sl_packfile *file, const uint8_t *in)
{
    if (get_u64(in + 16) != file->n_bytes || memcmp(in + 24, file->key, sizeof file->key))
        return false;
    for (uint32_t i = 0; i < file->n_sections; i++) {
        const uint8_t *at = in + FIXED_BYTES + (size_t)i * SECTION_BYTES;
        if (get_u64(at) != file->sections[i].offset || get_u64(at + 8) != file->sections[i].n_bytes)
            return false;
    }
    for (uint64_t i = FIXED_BYTES + (uint64_t)file->n_sections * SECTION_BYTES; i < file->header_bytes; i++)
        if (in[i] != 0)
            return false;
    return true;
}

sl_status sl_packfile_check_header(sl_packfile *file, const void *bytes, size_t n_bytes, uint64_t file_bytes,
                                   sl_err *err)
{
    const uint8_t *in = bytes;
    if (file_bytes != file->n_bytes || n_bytes < file->header_bytes)
        SL_FAIL(err, SL_ERR_FORMAT, "it has %llu bytes, not %llu", (unsigned long long)file_bytes,
                (unsigned long long)file->n_bytes);
    uint32_t version, n_sections;
    memcpy(&version, in + 8, sizeof version);
    memcpy(&n_sections, in + 12, sizeof n_sections);
    if (memcmp(in, magic, sizeof magic) || version != SL_PACKFILE_VERSION)
        SL_FAIL(err, SL_ERR_FORMAT, "it is no file of packed tensors of version %d", SL_PACKFILE_VERSION);
    if (n_sections != file->n_sections || !fields_match(file, in))
        SL_FAIL(err, SL_ERR_FORMAT, "it was made for something else");
    if (get_u64(in + SUM_AT) != header_sum(in, file->header_bytes))
        SL_FAIL(err, SL_ERR_FORMAT, "its header is damaged");
    memcpy(file->boot, in + 56, sizeof file->boot);
    for (uint32_t i = 0; i < file->n_sections; i++)
        file->sections[i].sum = get_u64(in + FIXED_BYTES + (size_t)i * SECTION_BYTES + 16);
    return SL_OK;
}

/* Multiplies to 128 bits and folds: every bit of both words reaches the result. */
static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product =
        (unsigned __int128)(a ^ UINT64_C(0x9e3779b97f4a7c15)) * (b ^ UINT64_C(0xe7037ed1a0b428db));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t sl_packfile_sum(const void *bytes, size_t n_bytes, uint64_t seed)
{
    enum { LANES = 4, STEP = LANES * 16 };
    const uint8_t *at = bytes;
    uint64_t lane[LANES] = {seed, seed + 1, seed + 2, seed + 3}, left = n_bytes;
    for (; left >= STEP; at += STEP, left -= STEP)
        for (int i = 0; i < LANES; i++) /* in separate chains, so that multiplications overlap */
            lane[i] = mix(lane[i] + get_u64(at + 16 * i), get_u64(at + 16 * i + 8)) + lane[i] * 5;
    uint8_t rest[STEP] = {0};
    memcpy(rest, at, left);
    for (int i = 0; i < LANES; i++)
        lane[i] = mix(lane[i] + get_u64(rest + 16 * i), get_u64(rest + 16 * i + 8)) + lane[i] * 5;
    return mix(mix(lane[0], lane[1]) + n_bytes, mix(lane[2], lane[3]));
}
