/* Writes the seeds of fuzz_gguf into a folder: seeds_gguf FOLDER */
#include "file/gguf_writer.h"

#include <stdio.h>
#include <string.h>

/* One key of each kind and an array of each, as far as n_keys goes. */
static sl_status set_keys(sl_gguf_writer *writer, int n_keys, sl_err *err)
{
    static const uint64_t numbers[3] = {1, 0, 1};
    static const sl_gguf_string strings[3] = {{"one", 3}, {"", 0}, {"three", 5}};
    for (int kind = 0, n = 0; kind <= SL_GGUF_F64; kind++) {
        char key[32];
        const void *data = kind == SL_GGUF_STRING ? (const void *)strings : numbers;
        if (kind == SL_GGUF_ARRAY)
            continue;
        snprintf(key, sizeof key, "scalar.%d", kind);
        if (n++ < n_keys)
            SL_TRY(sl_gguf_writer_set(writer, key, (sl_gguf_kind)kind, data, err));
        snprintf(key, sizeof key, "array.%d", kind);
        if (n++ < n_keys)
            SL_TRY(sl_gguf_writer_set_array(writer, key, (sl_gguf_kind)kind, data, 3, err));
    }
    return SL_OK;
}

/* Tensors of every type that has one, one block each, as far as n_tensors goes. */
static sl_status add_tensors(sl_gguf_writer *writer, int n_tensors, sl_err *err)
{
    static const uint8_t data[1024];
    for (uint32_t type = 0; type < 64 && n_tensors; type++) {
        const sl_type_info *info = sl_type_get(type);
        if (!info)
            continue;
        uint64_t ne[4] = {info->block_elems, 1, 1, 1};
        SL_TRY(sl_gguf_writer_add_tensor(writer, info->name, (sl_type)type, type % 4 + 1, ne, data, err));
        n_tensors--;
    }
    return SL_OK;
}

static sl_status write_seed(const char *folder, int n_keys, int n_tensors, uint32_t alignment, sl_err *err)
{
    char path[4096];
    sl_gguf_writer *writer = NULL;
    snprintf(path, sizeof path, "%s/k%d-t%d-a%u.gguf", folder, n_keys, n_tensors, alignment);
    SL_TRY(sl_gguf_writer_open(&writer, err));
    sl_status status = alignment == 32 ? SL_OK : sl_gguf_writer_set_u32(writer, "general.alignment", alignment, err);
    if (status == SL_OK)
        status = set_keys(writer, n_keys, err);
    if (status == SL_OK)
        status = add_tensors(writer, n_tensors, err);
    if (status == SL_OK)
        status = sl_gguf_writer_write(writer, path, err);
    sl_gguf_writer_close(writer);
    return status;
}

int main(int argc, char **argv)
{
    static const struct {
        int n_keys, n_tensors;
        uint32_t alignment;
    } seeds[] = {{0, 0, 32}, {2, 0, 32}, {24, 0, 32}, {0, 1, 32}, {1, 2, 8}, {4, 4, 64}, {24, 64, 32}};
    sl_err err = {0};
    for (size_t i = 0; argc == 2 && i < SL_COUNTOF(seeds); i++) {
        if (write_seed(argv[1], seeds[i].n_keys, seeds[i].n_tensors, seeds[i].alignment, &err) != SL_OK) {
            fprintf(stderr, "seeds_gguf: %s\n", err.message);
            return 1;
        }
    }
    if (argc != 2)
        fprintf(stderr, "usage: seeds_gguf FOLDER\n");
    return argc != 2;
}
