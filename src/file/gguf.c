#include "file/gguf.h"

#include "base/arena.h"
#include "base/checked.h"
#include "file/gguf_format.h"
#include "file/names.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAGIC_BYTES = 4 };

struct sl_gguf {
    const uint8_t *bytes;
    uint64_t n_bytes;
    int fd;                  /* of the mapping; -1 when the bytes are the caller's */
    struct timespec changed; /* the file's st_mtim */
    sl_arena arena;
    sl_gguf_value *values;
    size_t n_values;
    sl_gguf_tensor *tensors;
    size_t n_tensors;
    sl_names keys, tensor_names;
    uint32_t alignment;
    uint64_t data_start;
};

/* Reading position in the header; at <= end always. */
typedef struct cursor {
    const uint8_t *bytes;
    uint64_t at, end;
    bool limited; /* end is the limit of header bytes rather than the file's */
    sl_err *err;
} cursor;

/* Text from outside as it may stand in a message: cut (keeping the end when from_end), control characters as '?'. */
typedef struct printable {
    char text[104];
} printable;

static printable make_printable(const char *bytes, size_t n_bytes, bool from_end)
{
    printable out;
    size_t room = sizeof out.text - 4, n = 0;
    if (n_bytes > room && from_end) {
        memcpy(out.text, "...", n = 3);
        bytes += n_bytes - room;
    }
    for (size_t i = 0; i < SL_MIN(n_bytes, room); i++)
        out.text[n++] = (unsigned char)bytes[i] < 0x20 || bytes[i] == 0x7f ? '?' : bytes[i];
    if (n_bytes > room && !from_end) {
        memcpy(out.text + n, "...", 3);
        n += 3;
    }
    out.text[n] = 0;
    return out;
}

static sl_status need(cursor *c, uint64_t n_bytes)
{
    if (n_bytes <= c->end - c->at)
        return SL_OK;
    if (c->limited)
        SL_FAIL(c->err, SL_ERR_LIMIT, "the header is larger than %llu MiB",
                (unsigned long long)(SL_GGUF_MAX_HEADER_BYTES >> 20));
    SL_FAIL(c->err, SL_ERR_FORMAT,
            "the file is cut short or its header is damaged (byte %llu wants %llu more, %llu left)",
            (unsigned long long)c->at, (unsigned long long)n_bytes, (unsigned long long)(c->end - c->at));
}

static sl_status take_u32(cursor *c, uint32_t *out)
{
    SL_TRY(need(c, 4));
    memcpy(out, c->bytes + c->at, 4);
    c->at += 4;
    return SL_OK;
}

static sl_status take_u64(cursor *c, uint64_t *out)
{
    SL_TRY(need(c, 8));
    memcpy(out, c->bytes + c->at, 8);
    c->at += 8;
    return SL_OK;
}

static sl_status take_string(cursor *c, sl_gguf_string *out)
{
    uint64_t n_bytes;
    SL_TRY(take_u64(c, &n_bytes));
    SL_TRY(need(c, n_bytes));
    *out = (sl_gguf_string){(const char *)c->bytes + c->at, n_bytes};
    c->at += n_bytes;
    return SL_OK;
}

/* A count of things that take at least min_bytes each in the rest of the header. */
static sl_status take_count(cursor *c, const char *what, uint64_t min_bytes, uint64_t max, uint64_t *out)
{
    SL_TRY(take_u64(c, out));
    if (*out > (c->end - c->at) / min_bytes)
        SL_FAIL(c->err, SL_ERR_FORMAT, "%llu %s can't fit in the %llu bytes left: the file is cut short or damaged",
                (unsigned long long)*out, what, (unsigned long long)(c->end - c->at));
    if (*out > max)
        SL_FAIL(c->err, SL_ERR_LIMIT, "%llu %s, more than the limit of %llu", (unsigned long long)*out, what,
                (unsigned long long)max);
    return SL_OK;
}

static sl_status take_name(cursor *c, const char *what, size_t max_bytes, sl_gguf_string *out)
{
    SL_TRY(take_string(c, out));
    return sl_gguf_check_name(what, out->bytes, out->n_bytes, max_bytes, c->err);
}

static sl_status no_memory(sl_err *err)
{
    SL_FAIL(err, SL_ERR_NOMEM, "not enough memory for the header");
}

/* Adds a name to an index of those seen. */
static sl_status add_name(cursor *c, sl_names *names, const char *what, sl_gguf_string name)
{
    sl_status status = sl_names_add(names, name.bytes, (uint32_t)name.n_bytes);
    if (status == SL_ERR_STATE)
        SL_FAIL(c->err, SL_ERR_FORMAT, "%s '%s' appears twice", what,
                make_printable(name.bytes, name.n_bytes, false).text);
    return status == SL_OK ? SL_OK : no_memory(c->err);
}

static sl_status read_strings(cursor *c, sl_gguf *gguf, sl_gguf_value *value)
{
    sl_gguf_string *strings = sl_arena_array(&gguf->arena, SL_MAX(value->count, 1), sizeof *strings);
    if (!strings)
        return no_memory(c->err);
    for (uint64_t i = 0; i < value->count; i++)
        SL_TRY(take_string(c, &strings[i]));
    value->strings = strings;
    return SL_OK;
}

static sl_status read_value(cursor *c, sl_gguf *gguf, sl_gguf_value *value)
{
    uint32_t kind, elem_kind;
    SL_TRY(take_name(c, "key", SL_GGUF_MAX_KEY_BYTES, &value->key));
    SL_TRY(add_name(c, &gguf->keys, "key", value->key));
    printable key = make_printable(value->key.bytes, value->key.n_bytes, false);
    SL_TRY(take_u32(c, &kind));
    elem_kind = kind;
    value->count = 1;
    if (kind == SL_GGUF_ARRAY) {
        SL_TRY(take_u32(c, &elem_kind));
        if (elem_kind == SL_GGUF_ARRAY)
            SL_FAIL(c->err, SL_ERR_UNSUPPORTED, "key '%s' is an array of arrays", key.text);
    }
    uint32_t elem_bytes = sl_gguf_kind_bytes(elem_kind);
    if (!elem_bytes && elem_kind != SL_GGUF_STRING)
        SL_FAIL(c->err, SL_ERR_FORMAT, "key '%s' has the unknown value type %u", key.text, elem_kind);
    if (kind == SL_GGUF_ARRAY)
        SL_TRY(take_count(c, "array elements", elem_bytes ? elem_bytes : 8, UINT64_MAX, &value->count));
    value->kind = (sl_gguf_kind)kind;
    value->elem_kind = (sl_gguf_kind)elem_kind;
    value->data = c->bytes + c->at;
    if (elem_kind == SL_GGUF_STRING)
        return read_strings(c, gguf, value);
    uint64_t n_bytes;
    if (!sl_mul_u64(value->count, elem_bytes, &n_bytes))
        SL_FAIL(c->err, SL_ERR_FORMAT, "key '%s' is too long", key.text);
    SL_TRY(need(c, n_bytes));
    for (uint64_t i = 0; elem_kind == SL_GGUF_BOOL && i < n_bytes; i++)
        if (c->bytes[c->at + i] > 1)
            SL_FAIL(c->err, SL_ERR_FORMAT, "key '%s' has a bool that is neither 0 nor 1", key.text);
    c->at += n_bytes;
    return SL_OK;
}

static sl_status read_alignment(sl_gguf *gguf, sl_err *err)
{
    const sl_gguf_value *value = sl_gguf_find(gguf, "general.alignment");
    gguf->alignment = SL_GGUF_DEFAULT_ALIGNMENT;
    if (!value)
        return SL_OK;
    if (value->kind != SL_GGUF_U32)
        SL_FAIL(err, SL_ERR_FORMAT, "general.alignment is not a u32");
    memcpy(&gguf->alignment, value->data, 4);
    return sl_gguf_check_alignment(gguf->alignment, err);
}

static sl_status read_tensor(cursor *c, sl_gguf *gguf, sl_gguf_tensor *tensor)
{
    sl_gguf_string name;
    SL_TRY(take_name(c, "tensor name", SL_GGUF_MAX_NAME_BYTES, &name));
    tensor->name = sl_arena_strndup(&gguf->arena, name.bytes, name.n_bytes);
    if (!tensor->name)
        return no_memory(c->err);
    SL_TRY(add_name(c, &gguf->tensor_names, "tensor", (sl_gguf_string){tensor->name, name.n_bytes}));
    SL_TRY(take_u32(c, &tensor->n_dims));
    if (tensor->n_dims > 4)
        SL_FAIL(c->err, SL_ERR_FORMAT, "tensor '%s' has %u dimensions, more than 4", tensor->name, tensor->n_dims);
    for (uint32_t d = 0; d < 4; d++) {
        tensor->ne[d] = 1;
        if (d < tensor->n_dims)
            SL_TRY(take_u64(c, &tensor->ne[d]));
    }
    tensor->n_dims = SL_MAX(tensor->n_dims, 1u);
    uint32_t type;
    SL_TRY(take_u32(c, &type));
    tensor->info = sl_type_get(type);
    if (!tensor->info)
        SL_FAIL(c->err, SL_ERR_UNSUPPORTED, "tensor '%s' has the unknown type %u", tensor->name, type);
    tensor->type = (sl_type)type;
    SL_TRY(sl_gguf_size_tensor(tensor, c->err));
    SL_TRY(take_u64(c, &tensor->offset));
    if (tensor->offset & (gguf->alignment - 1))
        SL_FAIL(c->err, SL_ERR_FORMAT, "tensor '%s' starts at %llu, which is not aligned to %u", tensor->name,
                (unsigned long long)tensor->offset, gguf->alignment);
    return SL_OK;
}

/* Turns offsets into places in the file and checks them against its size. */
static sl_status place_tensors(sl_gguf *gguf, uint32_t flags, sl_err *err)
{
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        sl_gguf_tensor *tensor = &gguf->tensors[i];
        uint64_t end;
        if (!sl_add_u64(tensor->offset, gguf->data_start, &tensor->offset) ||
            !sl_add_u64(tensor->offset, tensor->n_bytes, &end) || end > INT64_MAX)
            SL_FAIL(err, SL_ERR_FORMAT, "tensor '%s' lies beyond what 63 bits can address", tensor->name);
        if (flags & SL_GGUF_HEADER_ONLY)
            continue;
        if (end > gguf->n_bytes)
            SL_FAIL(err, SL_ERR_FORMAT, "tensor '%s' ends at byte %llu, but the file has only %llu", tensor->name,
                    (unsigned long long)end, (unsigned long long)gguf->n_bytes);
        tensor->data = gguf->bytes + tensor->offset;
    }
    return SL_OK;
}

static int by_offset(const void *a, const void *b)
{
    const sl_gguf_tensor *x = *(const sl_gguf_tensor *const *)a, *y = *(const sl_gguf_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static sl_status check_overlap(const sl_gguf *gguf, sl_err *err)
{
    const sl_gguf_tensor **order = malloc(SL_MAX(gguf->n_tensors, 1) * sizeof *order);
    if (!order)
        return no_memory(err);
    bool sorted = true; /* as every known writer leaves them */
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        order[i] = &gguf->tensors[i];
        sorted = sorted && (!i || order[i - 1]->offset <= order[i]->offset);
    }
    if (!sorted)
        qsort(order, gguf->n_tensors, sizeof *order, by_offset);
    sl_status status = SL_OK;
    for (size_t i = 1; i < gguf->n_tensors && status == SL_OK; i++)
        if (order[i]->offset - order[i - 1]->offset < order[i - 1]->n_bytes)
            status =
                sl_err_set(err, SL_ERR_FORMAT, "tensors '%s' and '%s' overlap", order[i - 1]->name, order[i]->name);
    free(order);
    return status;
}

static sl_status read_magic(cursor *c)
{
    uint32_t version;
    if (c->end < MAGIC_BYTES || memcmp(c->bytes, "GGUF", MAGIC_BYTES))
        SL_FAIL(c->err, SL_ERR_FORMAT, "not a GGUF file (it doesn't begin with 'GGUF')");
    c->at = MAGIC_BYTES;
    SL_TRY(take_u32(c, &version));
    if (version && !(version & 0xffff))
        SL_FAIL(c->err, SL_ERR_UNSUPPORTED, "a big-endian GGUF file; convert it to little endian");
    if (version == 1 || version == 2)
        SL_FAIL(c->err, SL_ERR_UNSUPPORTED, "GGUF version %u is too old, only 3 can be read; convert the model again",
                version);
    if (version != SL_GGUF_VERSION)
        SL_FAIL(c->err, SL_ERR_UNSUPPORTED, "GGUF version %u is unknown, only 3 can be read", version);
    return SL_OK;
}

/* Reads the whole header of gguf->bytes. */
static sl_status read_header(sl_gguf *gguf, uint32_t flags, sl_err *err)
{
    bool limited = gguf->n_bytes > SL_GGUF_MAX_HEADER_BYTES;
    cursor c = {.bytes = gguf->bytes,
                .end = limited ? SL_GGUF_MAX_HEADER_BYTES : gguf->n_bytes,
                .limited = limited,
                .err = err};
    SL_TRY(read_magic(&c));
    uint64_t n_tensors, n_values;
    /* Least bytes of a tensor: name length and one byte, n_dims, type, offset; of a value: key likewise, kind, a byte.
     * The keys come first, so this bound on the tensors is loose but enough before allocating. */
    SL_TRY(take_count(&c, "tensors", 8 + 1 + 4 + 4 + 8, SL_GGUF_MAX_TENSORS, &n_tensors));
    SL_TRY(take_count(&c, "keys", 8 + 1 + 4 + 1, SL_GGUF_MAX_VALUES, &n_values));
    gguf->values = calloc(SL_MAX(n_values, 1), sizeof *gguf->values);
    gguf->tensors = calloc(SL_MAX(n_tensors, 1), sizeof *gguf->tensors);
    if (!gguf->values || !gguf->tensors)
        return no_memory(err);
    for (; gguf->n_values < n_values; gguf->n_values++)
        SL_TRY(read_value(&c, gguf, &gguf->values[gguf->n_values]));
    SL_TRY(read_alignment(gguf, err));
    for (; gguf->n_tensors < n_tensors; gguf->n_tensors++)
        SL_TRY(read_tensor(&c, gguf, &gguf->tensors[gguf->n_tensors]));
    gguf->data_start = (c.at + gguf->alignment - 1) & ~(uint64_t)(gguf->alignment - 1);
    SL_TRY(place_tensors(gguf, flags, err));
    return check_overlap(gguf, err);
}

/* A reader over bytes, or over the mapping of fd when that isn't -1; takes over both in that case. */
static sl_status open_bytes(const void *bytes, uint64_t n_bytes, int fd, uint32_t flags, sl_gguf **out, sl_err *err)
{
    sl_gguf *gguf = calloc(1, sizeof *gguf);
    if (!gguf) {
        if (fd >= 0) {
            munmap((void *)bytes, n_bytes);
            close(fd);
        }
        return no_memory(err);
    }
    gguf->bytes = bytes;
    gguf->n_bytes = n_bytes;
    gguf->fd = fd;
    struct stat st;
    if (fd >= 0 && !fstat(fd, &st))
        gguf->changed = st.st_mtim;
    sl_arena_init(&gguf->arena, 0);
    sl_names_init(&gguf->keys);
    sl_names_init(&gguf->tensor_names);
    sl_status status = read_header(gguf, flags, err);
    if (status != SL_OK) {
        sl_gguf_close(gguf);
        return status;
    }
    *out = gguf;
    return SL_OK;
}

sl_status sl_gguf_open_memory(const void *bytes, size_t n_bytes, uint32_t flags, sl_gguf **out, sl_err *err)
{
    *out = NULL;
    return open_bytes(bytes, n_bytes, -1, flags, out, err);
}

/* Opens a regular file that isn't empty. */
static sl_status open_file(const char *path, const char *shown, int *fd_out, uint64_t *n_bytes, sl_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not make us wait */
    if (fd < 0)
        SL_FAIL(err, SL_ERR_IO, "%s: %s", shown, strerror(errno));
    struct stat st;
    const char *why = NULL;
    if (fstat(fd, &st))
        why = strerror(errno);
    else if (S_ISDIR(st.st_mode))
        why = "is a directory, not a model file";
    else if (!S_ISREG(st.st_mode))
        why = "is not a regular file";
    else if (!st.st_size)
        why = "the file is empty";
    if (why) {
        close(fd);
        SL_FAIL(err, SL_ERR_IO, "%s: %s", shown, why);
    }
    *fd_out = fd;
    *n_bytes = (uint64_t)st.st_size;
    return SL_OK;
}

sl_status sl_gguf_open(const char *path, uint32_t flags, sl_gguf **out, sl_err *err)
{
    *out = NULL;
    printable shown = make_printable(path, strlen(path), true);
    int fd = -1;
    uint64_t n_bytes = 0;
    SL_TRY(open_file(path, shown.text, &fd, &n_bytes, err));
    void *bytes = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) {
        close(fd);
        SL_FAIL(err, SL_ERR_IO, "%s: can't map the file: %s", shown.text, strerror(errno));
    }
    sl_err inner = {0};
    sl_status status = open_bytes(bytes, n_bytes, fd, flags, out, &inner);
    if (status != SL_OK)
        SL_FAIL(err, status, "%s: %s", shown.text, inner.message);
    return SL_OK;
}

void sl_gguf_close(sl_gguf *gguf)
{
    if (!gguf)
        return;
    sl_names_reset(&gguf->keys);
    sl_names_reset(&gguf->tensor_names);
    sl_arena_reset(&gguf->arena);
    free(gguf->values);
    free(gguf->tensors);
    if (gguf->fd >= 0) {
        munmap((void *)gguf->bytes, gguf->n_bytes);
        close(gguf->fd);
    }
    free(gguf);
}

sl_status sl_gguf_check_file(const sl_gguf *gguf, sl_err *err)
{
    struct stat st;
    if (gguf->fd < 0)
        return SL_OK;
    if (fstat(gguf->fd, &st))
        SL_FAIL(err, SL_ERR_IO, "can't examine the model file: %s", strerror(errno));
    if ((uint64_t)st.st_size < gguf->n_bytes)
        SL_FAIL(err, SL_ERR_IO, "the model file was cut from %llu to %llu bytes while it was open",
                (unsigned long long)gguf->n_bytes, (unsigned long long)st.st_size);
    return SL_OK;
}

sl_status sl_gguf_identity(const sl_gguf *gguf, char hex[SL_SHA256_HEX_BYTES], sl_err *err)
{
    hex[0] = 0;
    if (gguf->fd < 0)
        return SL_OK;
    uint64_t numbers[] = {gguf->n_bytes, (uint64_t)gguf->changed.tv_sec, (uint64_t)gguf->changed.tv_nsec};
    sl_sha256 *sha;
    SL_TRY(sl_sha256_open(&sha, err));
    sl_status status = sl_sha256_update(sha, numbers, sizeof numbers, err);
    if (status == SL_OK)
        status = sl_sha256_update(sha, gguf->bytes, SL_MIN(gguf->data_start, gguf->n_bytes), err);
    if (status == SL_OK)
        status = sl_sha256_finish(sha, hex, err);
    sl_sha256_close(sha);
    return status;
}

bool sl_gguf_is_unchanged(const sl_gguf *gguf)
{
    struct stat st;
    return gguf->fd >= 0 && !fstat(gguf->fd, &st) && (uint64_t)st.st_size == gguf->n_bytes &&
           st.st_mtim.tv_sec == gguf->changed.tv_sec && st.st_mtim.tv_nsec == gguf->changed.tv_nsec;
}

void sl_gguf_release(const sl_gguf *gguf, const void *data, size_t n_bytes)
{
    const uintptr_t page = 4096; /* a multiple of it elsewhere: the system refuses then, and nothing is lost */
    uintptr_t begin = ((uintptr_t)data + page - 1) & ~(page - 1), end = ((uintptr_t)data + n_bytes) & ~(page - 1);
    if (gguf->fd >= 0 && begin < end)
        (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
}

uint64_t sl_gguf_file_bytes(const sl_gguf *gguf)
{
    return gguf->n_bytes;
}

uint32_t sl_gguf_alignment(const sl_gguf *gguf)
{
    return gguf->alignment;
}

uint64_t sl_gguf_data_start(const sl_gguf *gguf)
{
    return gguf->data_start;
}

size_t sl_gguf_n_values(const sl_gguf *gguf)
{
    return gguf->n_values;
}

const sl_gguf_value *sl_gguf_value_at(const sl_gguf *gguf, size_t index)
{
    return index < gguf->n_values ? &gguf->values[index] : NULL;
}

const sl_gguf_value *sl_gguf_find(const sl_gguf *gguf, const char *key)
{
    int64_t index = sl_names_find(&gguf->keys, key, strlen(key));
    return index < 0 ? NULL : &gguf->values[index];
}

size_t sl_gguf_n_tensors(const sl_gguf *gguf)
{
    return gguf->n_tensors;
}

const sl_gguf_tensor *sl_gguf_tensor_at(const sl_gguf *gguf, size_t index)
{
    return index < gguf->n_tensors ? &gguf->tensors[index] : NULL;
}

const sl_gguf_tensor *sl_gguf_find_tensor(const sl_gguf *gguf, const char *name)
{
    int64_t index = sl_names_find(&gguf->tensor_names, name, strlen(name));
    return index < 0 ? NULL : &gguf->tensors[index];
}

/* A number of any kind, kept exactly. */
typedef struct number {
    enum { UNSIGNED, SIGNED, REAL } as;
    uint64_t u;
    int64_t i;
    double f;
} number;

#define LOAD(type, field, tag)                                                                                         \
    do {                                                                                                               \
        type v_;                                                                                                       \
        memcpy(&v_, at, sizeof v_);                                                                                    \
        out->as = tag;                                                                                                 \
        out->field = v_;                                                                                               \
    } while (0)

static bool load_number(const sl_gguf_value *value, uint64_t index, number *out)
{
    uint32_t n_bytes = sl_gguf_kind_bytes(value->elem_kind);
    if (index >= value->count || !n_bytes)
        return false;
    const uint8_t *at = (const uint8_t *)value->data + index * n_bytes;
    switch (value->elem_kind) {
    case SL_GGUF_U8:
        LOAD(uint8_t, u, UNSIGNED);
        return true;
    case SL_GGUF_I8:
        LOAD(int8_t, i, SIGNED);
        return true;
    case SL_GGUF_U16:
        LOAD(uint16_t, u, UNSIGNED);
        return true;
    case SL_GGUF_I16:
        LOAD(int16_t, i, SIGNED);
        return true;
    case SL_GGUF_U32:
        LOAD(uint32_t, u, UNSIGNED);
        return true;
    case SL_GGUF_I32:
        LOAD(int32_t, i, SIGNED);
        return true;
    case SL_GGUF_U64:
        LOAD(uint64_t, u, UNSIGNED);
        return true;
    case SL_GGUF_I64:
        LOAD(int64_t, i, SIGNED);
        return true;
    case SL_GGUF_F32:
        LOAD(float, f, REAL);
        return true;
    case SL_GGUF_F64:
        LOAD(double, f, REAL);
        return true;
    default:
        return false;
    }
}

bool sl_gguf_as_u64(const sl_gguf_value *value, uint64_t index, uint64_t *out)
{
    number n;
    if (!load_number(value, index, &n))
        return false;
    if (n.as == UNSIGNED)
        *out = n.u;
    else if (n.as == SIGNED && n.i >= 0)
        *out = (uint64_t)n.i;
    else if (n.as == REAL && n.f >= 0 && n.f < 0x1p64 && n.f == trunc(n.f))
        *out = (uint64_t)n.f;
    else
        return false;
    return true;
}

bool sl_gguf_as_i64(const sl_gguf_value *value, uint64_t index, int64_t *out)
{
    number n;
    if (!load_number(value, index, &n))
        return false;
    if (n.as == UNSIGNED && n.u <= INT64_MAX)
        *out = (int64_t)n.u;
    else if (n.as == SIGNED)
        *out = n.i;
    else if (n.as == REAL && n.f >= -0x1p63 && n.f < 0x1p63 && n.f == trunc(n.f))
        *out = (int64_t)n.f;
    else
        return false;
    return true;
}

bool sl_gguf_as_f64(const sl_gguf_value *value, uint64_t index, double *out)
{
    number n;
    if (!load_number(value, index, &n))
        return false;
    *out = n.as == UNSIGNED ? (double)n.u : n.as == SIGNED ? (double)n.i : n.f;
    return true;
}

sl_status sl_gguf_get_u32(const sl_gguf *gguf, const char *key, uint32_t *out, sl_err *err)
{
    const sl_gguf_value *value = sl_gguf_find(gguf, key);
    uint64_t u;
    if (!value)
        return SL_OK;
    if (value->kind == SL_GGUF_ARRAY || !sl_gguf_as_u64(value, 0, &u) || u > UINT32_MAX)
        SL_FAIL(err, SL_ERR_FORMAT, "key '%s' is not a number from 0 to %u", key, UINT32_MAX);
    *out = (uint32_t)u;
    return SL_OK;
}

sl_status sl_gguf_get_f32(const sl_gguf *gguf, const char *key, float *out, sl_err *err)
{
    const sl_gguf_value *value = sl_gguf_find(gguf, key);
    double f;
    if (!value)
        return SL_OK;
    if (value->kind == SL_GGUF_ARRAY || !sl_gguf_as_f64(value, 0, &f) || !(fabs(f) <= FLT_MAX))
        SL_FAIL(err, SL_ERR_FORMAT, "key '%s' is not a finite number", key);
    *out = (float)f;
    return SL_OK;
}

sl_status sl_gguf_get_bool(const sl_gguf *gguf, const char *key, bool *out, sl_err *err)
{
    const sl_gguf_value *value = sl_gguf_find(gguf, key);
    if (!value)
        return SL_OK;
    if (value->kind != SL_GGUF_BOOL)
        SL_FAIL(err, SL_ERR_FORMAT, "key '%s' is not a bool", key);
    *out = *(const uint8_t *)value->data != 0;
    return SL_OK;
}

sl_status sl_gguf_get_string(const sl_gguf *gguf, const char *key, sl_gguf_string *out, sl_err *err)
{
    const sl_gguf_value *value = sl_gguf_find(gguf, key);
    if (!value)
        return SL_OK;
    if (value->kind != SL_GGUF_STRING)
        SL_FAIL(err, SL_ERR_FORMAT, "key '%s' is not a string", key);
    *out = value->strings[0];
    return SL_OK;
}
