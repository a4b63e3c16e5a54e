#define _GNU_SOURCE
#include "file/gguf_writer.h"

#include "base/arena.h"
#include "base/checked.h"
#include "file/gguf_format.h"
#include "file/names.h"
#include "file/outfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* A key and its value as they stand in the file. */
typedef struct entry {
    const uint8_t *bytes;
    size_t n_bytes;
} entry;

typedef struct out_tensor {
    sl_gguf_tensor tensor; /* offset counts from the start of the data */
    sl_gguf_data_fn *produce;
    void *user;
} out_tensor;

struct sl_gguf_writer {
    sl_arena arena;
    sl_names keys, tensor_names; /* an index into entries and tensors */
    entry *entries;
    out_tensor *tensors;
    size_t entries_room, tensors_room;
    uint32_t alignment;
    sl_outfile *file;  /* while writing */
    uint64_t n_wanted; /* bytes that the tensor being produced still needs */
    bool producing;
};

static sl_status no_memory(sl_err *err)
{
    SL_FAIL(err, SL_ERR_NOMEM, "not enough memory to write a GGUF file");
}

sl_status sl_gguf_writer_open(sl_gguf_writer **out, sl_err *err)
{
    sl_gguf_writer *writer = *out = calloc(1, sizeof *writer);
    if (!writer)
        return no_memory(err);
    sl_arena_init(&writer->arena, 0);
    sl_names_init(&writer->keys);
    sl_names_init(&writer->tensor_names);
    writer->alignment = SL_GGUF_DEFAULT_ALIGNMENT;
    return SL_OK;
}

void sl_gguf_writer_close(sl_gguf_writer *writer)
{
    if (!writer)
        return;
    sl_names_reset(&writer->keys);
    sl_names_reset(&writer->tensor_names);
    sl_arena_reset(&writer->arena);
    free(writer->entries);
    free(writer->tensors);
    free(writer);
}

/* Room for one more element of elem_bytes in *array, which holds n. */
static sl_status make_room(void **array, size_t *room, size_t n, size_t elem_bytes, sl_err *err)
{
    if (n < *room)
        return SL_OK;
    size_t wider = *room ? *room * 2 : 64;
    void *grown = reallocarray(*array, wider, elem_bytes);
    if (!grown)
        return no_memory(err);
    *array = grown;
    *room = wider;
    return SL_OK;
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t n_bytes)
{
    if (n_bytes)
        memcpy(at, bytes, n_bytes);
    return at + n_bytes;
}

static uint8_t *put_u32(uint8_t *at, uint32_t value)
{
    return put(at, &value, sizeof value);
}

static uint8_t *put_string(uint8_t *at, sl_gguf_string string)
{
    uint64_t n_bytes = string.n_bytes;
    return put(put(at, &n_bytes, sizeof n_bytes), string.bytes, string.n_bytes);
}

/* Bytes that count elements take in the file; SL_ERR_FORMAT for a bool that is none. */
static sl_status payload_bytes(sl_gguf_kind kind, const void *data, uint64_t count, uint64_t *out, sl_err *err)
{
    const sl_gguf_string *strings = data;
    const uint8_t *bools = data;
    bool fits = sl_mul_u64(count, kind == SL_GGUF_STRING ? 8 : sl_gguf_kind_bytes(kind), out);
    for (uint64_t i = 0; fits && kind == SL_GGUF_STRING && i < count; i++)
        fits = sl_add_u64(*out, strings[i].n_bytes, out);
    if (!fits || *out > SL_GGUF_MAX_HEADER_BYTES)
        SL_FAIL(err, SL_ERR_LIMIT, "a value of more than %llu MiB",
                (unsigned long long)(SL_GGUF_MAX_HEADER_BYTES >> 20));
    for (uint64_t i = 0; kind == SL_GGUF_BOOL && i < count; i++)
        if (bools[i] > 1)
            SL_FAIL(err, SL_ERR_FORMAT, "a bool that is neither 0 nor 1");
    return SL_OK;
}

/* Serialises a key and value; is_array says whether count is written. */
static sl_status make_entry(sl_gguf_writer *writer, sl_gguf_string key, sl_gguf_kind elem_kind, const void *data,
                            uint64_t count, bool is_array, entry *out, sl_err *err)
{
    uint64_t n_payload = 0;
    SL_TRY(payload_bytes(elem_kind, data, count, &n_payload, err));
    out->n_bytes = 8 + key.n_bytes + 4 + (is_array ? 12 : 0) + n_payload;
    uint8_t *at = sl_arena_alloc(&writer->arena, out->n_bytes);
    if (!at)
        return no_memory(err);
    out->bytes = at;
    at = put_string(at, key);
    if (is_array) {
        at = put_u32(put_u32(at, SL_GGUF_ARRAY), elem_kind);
        at = put(at, &count, sizeof count);
    } else {
        at = put_u32(at, elem_kind);
    }
    if (elem_kind != SL_GGUF_STRING)
        at = put(at, data, n_payload);
    for (uint64_t i = 0; elem_kind == SL_GGUF_STRING && i < count; i++)
        at = put_string(at, ((const sl_gguf_string *)data)[i]);
    return SL_OK;
}

static sl_status set_value(sl_gguf_writer *writer, sl_gguf_string key, sl_gguf_kind elem_kind, const void *data,
                           uint64_t count, bool is_array, sl_err *err)
{
    if (elem_kind != SL_GGUF_STRING && !sl_gguf_kind_bytes(elem_kind))
        SL_FAIL(err, SL_ERR_ARGUMENT, "%d is no kind of value", (int)elem_kind);
    SL_TRY(sl_gguf_check_name("key", key.bytes, key.n_bytes, SL_GGUF_MAX_KEY_BYTES, err));
    const char *alignment_key = "general.alignment";
    uint32_t alignment = writer->alignment;
    if (key.n_bytes == strlen(alignment_key) && !memcmp(key.bytes, alignment_key, key.n_bytes)) {
        if (elem_kind != SL_GGUF_U32 || is_array)
            SL_FAIL(err, SL_ERR_FORMAT, "general.alignment is not a u32");
        memcpy(&alignment, data, sizeof alignment);
        SL_TRY(sl_gguf_check_alignment(alignment, err));
    }
    entry made;
    SL_TRY(make_entry(writer, key, elem_kind, data, count, is_array, &made, err));
    int64_t index = sl_names_find(&writer->keys, key.bytes, key.n_bytes);
    if (index < 0) {
        size_t n = writer->keys.n_names;
        SL_TRY(make_room((void **)&writer->entries, &writer->entries_room, n, sizeof *writer->entries, err));
        /* the index keeps the key's bytes where the entry holds them */
        if (sl_names_add(&writer->keys, (const char *)made.bytes + 8, (uint32_t)key.n_bytes) != SL_OK)
            return no_memory(err);
        index = (int64_t)n;
    }
    writer->entries[index] = made;
    writer->alignment = alignment;
    return SL_OK;
}

sl_status sl_gguf_writer_set(sl_gguf_writer *writer, const char *key, sl_gguf_kind kind, const void *data, sl_err *err)
{
    return set_value(writer, (sl_gguf_string){key, strlen(key)}, kind, data, 1, false, err);
}

sl_status sl_gguf_writer_set_array(sl_gguf_writer *writer, const char *key, sl_gguf_kind elem_kind, const void *data,
                                   uint64_t count, sl_err *err)
{
    return set_value(writer, (sl_gguf_string){key, strlen(key)}, elem_kind, data, count, true, err);
}

sl_status sl_gguf_writer_set_u32(sl_gguf_writer *writer, const char *key, uint32_t value, sl_err *err)
{
    return sl_gguf_writer_set(writer, key, SL_GGUF_U32, &value, err);
}

sl_status sl_gguf_writer_set_f32(sl_gguf_writer *writer, const char *key, float value, sl_err *err)
{
    return sl_gguf_writer_set(writer, key, SL_GGUF_F32, &value, err);
}

sl_status sl_gguf_writer_set_bool(sl_gguf_writer *writer, const char *key, bool value, sl_err *err)
{
    uint8_t byte = value;
    return sl_gguf_writer_set(writer, key, SL_GGUF_BOOL, &byte, err);
}

sl_status sl_gguf_writer_set_string(sl_gguf_writer *writer, const char *key, const char *string, sl_err *err)
{
    return sl_gguf_writer_set(writer, key, SL_GGUF_STRING, &(sl_gguf_string){string, strlen(string)}, err);
}

sl_status sl_gguf_writer_copy_value(sl_gguf_writer *writer, const sl_gguf_value *value, sl_err *err)
{
    const void *data = value->elem_kind == SL_GGUF_STRING ? (const void *)value->strings : value->data;
    return set_value(writer, value->key, value->elem_kind, data, value->count, value->kind == SL_GGUF_ARRAY, err);
}

static sl_status add_tensor(sl_gguf_writer *writer, const char *name, sl_type type, uint32_t n_dims, const uint64_t *ne,
                            const out_tensor *source, sl_err *err)
{
    size_t n = writer->tensor_names.n_names, n_name = strlen(name);
    SL_TRY(sl_gguf_check_name("tensor name", name, n_name, SL_GGUF_MAX_NAME_BYTES, err));
    if (n_dims < 1 || n_dims > 4)
        SL_FAIL(err, SL_ERR_FORMAT, "tensor '%s' has %u dimensions, not 1 to 4", name, n_dims);
    if (!source->tensor.data && !source->produce)
        SL_FAIL(err, SL_ERR_ARGUMENT, "tensor '%s' has no data", name);
    out_tensor out = *source;
    out.tensor.info = sl_type_get(type);
    out.tensor.type = type;
    out.tensor.n_dims = n_dims;
    if (!out.tensor.info)
        SL_FAIL(err, SL_ERR_FORMAT, "tensor '%s' has the unknown type %u", name, (unsigned)type);
    for (uint32_t d = 0; d < 4; d++)
        out.tensor.ne[d] = d < n_dims ? ne[d] : 1;
    out.tensor.name = sl_arena_strndup(&writer->arena, name, n_name);
    if (!out.tensor.name)
        return no_memory(err);
    SL_TRY(sl_gguf_size_tensor(&out.tensor, err));
    SL_TRY(make_room((void **)&writer->tensors, &writer->tensors_room, n, sizeof *writer->tensors, err));
    sl_status status = sl_names_add(&writer->tensor_names, out.tensor.name, (uint32_t)n_name);
    if (status == SL_ERR_STATE)
        SL_FAIL(err, SL_ERR_FORMAT, "tensor '%s' appears twice", name);
    if (status != SL_OK)
        return no_memory(err);
    writer->tensors[n] = out;
    return SL_OK;
}

sl_status sl_gguf_writer_add_tensor(sl_gguf_writer *writer, const char *name, sl_type type, uint32_t n_dims,
                                    const uint64_t *ne, const void *data, sl_err *err)
{
    return add_tensor(writer, name, type, n_dims, ne, &(out_tensor){.tensor.data = data}, err);
}

sl_status sl_gguf_writer_stream_tensor(sl_gguf_writer *writer, const char *name, sl_type type, uint32_t n_dims,
                                       const uint64_t *ne, sl_gguf_data_fn *produce, void *user, sl_err *err)
{
    return add_tensor(writer, name, type, n_dims, ne, &(out_tensor){.produce = produce, .user = user}, err);
}

sl_status sl_gguf_writer_append(sl_gguf_writer *writer, const void *bytes, size_t n_bytes, sl_err *err)
{
    if (!writer->producing)
        SL_FAIL(err, SL_ERR_STATE, "no tensor is being produced");
    if (n_bytes > writer->n_wanted)
        SL_FAIL(err, SL_ERR_ARGUMENT, "%zu bytes for a tensor that needs only %llu more", n_bytes,
                (unsigned long long)writer->n_wanted);
    SL_TRY(sl_outfile_write(writer->file, bytes, n_bytes, err));
    writer->n_wanted -= n_bytes;
    return SL_OK;
}

/* Zeros up to the next multiple of the alignment. */
static sl_status pad(sl_gguf_writer *writer, sl_err *err)
{
    static const uint8_t zeros[SL_GGUF_MAX_ALIGNMENT];
    uint64_t past = sl_outfile_n_bytes(writer->file) & (writer->alignment - 1);
    return past ? sl_outfile_write(writer->file, zeros, writer->alignment - past, err) : SL_OK;
}

static sl_status write_tensor_info(sl_gguf_writer *writer, const sl_gguf_tensor *tensor, sl_err *err)
{
    uint8_t bytes[8 + SL_GGUF_MAX_NAME_BYTES + 4 + 4 * 8 + 4 + 8], *at = bytes;
    at = put_string(at, (sl_gguf_string){tensor->name, strlen(tensor->name)});
    at = put_u32(at, tensor->n_dims);
    at = put(at, tensor->ne, tensor->n_dims * sizeof *tensor->ne);
    at = put_u32(at, tensor->type);
    at = put(at, &tensor->offset, sizeof tensor->offset);
    return sl_outfile_write(writer->file, bytes, (size_t)(at - bytes), err);
}

static sl_status write_header(sl_gguf_writer *writer, sl_err *err)
{
    uint8_t fixed[24], *at = put(fixed, "GGUF", 4);
    uint64_t n_tensors = writer->tensor_names.n_names, n_values = writer->keys.n_names, offset = 0;
    at = put_u32(at, SL_GGUF_VERSION);
    at = put(at, &n_tensors, sizeof n_tensors);
    put(at, &n_values, sizeof n_values);
    SL_TRY(sl_outfile_write(writer->file, fixed, sizeof fixed, err));
    for (size_t i = 0; i < n_values; i++)
        SL_TRY(sl_outfile_write(writer->file, writer->entries[i].bytes, writer->entries[i].n_bytes, err));
    for (size_t i = 0; i < n_tensors; i++) {
        sl_gguf_tensor *tensor = &writer->tensors[i].tensor;
        tensor->offset = offset;
        if (!sl_add_u64(offset, tensor->n_bytes, &offset) || !sl_align_up_u64(offset, writer->alignment, &offset) ||
            offset > INT64_MAX)
            SL_FAIL(err, SL_ERR_LIMIT, "the tensors are larger than a file can be");
        SL_TRY(write_tensor_info(writer, tensor, err));
    }
    if (sl_outfile_n_bytes(writer->file) > SL_GGUF_MAX_HEADER_BYTES)
        SL_FAIL(err, SL_ERR_LIMIT, "the header is larger than %llu MiB",
                (unsigned long long)(SL_GGUF_MAX_HEADER_BYTES >> 20));
    return pad(writer, err);
}

static sl_status write_tensors(sl_gguf_writer *writer, sl_err *err)
{
    for (size_t i = 0; i < writer->tensor_names.n_names; i++) {
        const out_tensor *out = &writer->tensors[i];
        if (out->produce) {
            writer->n_wanted = out->tensor.n_bytes;
            writer->producing = true;
            sl_status status = out->produce(out->user, writer, i, err);
            writer->producing = false;
            SL_TRY(status);
            if (writer->n_wanted)
                SL_FAIL(err, SL_ERR_ARGUMENT, "tensor '%s' lacks %llu of its %llu bytes", out->tensor.name,
                        (unsigned long long)writer->n_wanted, (unsigned long long)out->tensor.n_bytes);
        } else {
            SL_TRY(sl_outfile_write(writer->file, out->tensor.data, out->tensor.n_bytes, err));
        }
        SL_TRY(pad(writer, err));
    }
    return SL_OK;
}

sl_status sl_gguf_writer_write(sl_gguf_writer *writer, const char *path, sl_err *err)
{
    if (writer->file)
        SL_FAIL(err, SL_ERR_STATE, "the file is being written already");
    uint64_t salt = 0;
    if (getrandom(&salt, sizeof salt, GRND_NONBLOCK) < 0)
        salt = (uintptr_t)writer;
    char *temp_path = NULL;
    if (asprintf(&temp_path, "%s.%016llx.tmp", path, (unsigned long long)salt) < 0)
        return no_memory(err);
    sl_status status = sl_outfile_open(temp_path, &writer->file, err);
    free(temp_path);
    SL_TRY(status);
    status = write_header(writer, err);
    if (status == SL_OK)
        status = write_tensors(writer, err);
    if (status == SL_OK)
        status = sl_outfile_commit(writer->file, path, err);
    else
        sl_outfile_discard(writer->file);
    writer->file = NULL;
    return status;
}
