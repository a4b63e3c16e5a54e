/* file/gguf and file/gguf_writer: round trip, equality with gguf-py's bytes, and hostile files. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "file/gguf_writer.h"

static char folder[] = "/tmp/sluice-gguf-XXXXXX";
static char path_buffer[4096];

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static const char *in_folder(const char *name)
{
    snprintf(path_buffer, sizeof path_buffer, "%s/%s", folder, name);
    return path_buffer;
}

static size_t n_files(void)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2;
}

static uint8_t *slurp(const char *path, size_t *n_bytes)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint8_t *bytes = malloc(1 << 20);
    assert_non_null(bytes);
    *n_bytes = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    return bytes;
}

static void ok(sl_status status, const sl_err *err)
{
    if (status != SL_OK)
        fail_msg("%s: %s", sl_status_name(status), err->message);
}

/* ---- a file as gguf-py writes it (tools/golden_gguf.py) ---- */

#define SET(kind, type, key, value) ok(sl_gguf_writer_set(w, key, kind, &(type){value}, &err), &err)

static const uint64_t ne_a[] = {3, 2}, ne_b[] = {64, 2}, ne_c[] = {4, 3, 2, 1};
static uint8_t data_a[24], data_b[72], data_c[48];

static void fill_data(void)
{
    for (int i = 0; i < 6; i++)
        memcpy(data_a + 4 * i, &(float){(float)i}, 4);
    for (int i = 0; i < 72; i++)
        data_b[i] = (uint8_t)i;
    for (int i = 0; i < 24; i++)
        memcpy(data_c + 2 * i, &(uint16_t){sl_f32_to_f16((float)i)}, 2);
}

/* In pieces of 10 bytes. */
static sl_status produce_b(void *user, sl_gguf_writer *w, size_t index, sl_err *err)
{
    int *calls = user;
    ++*calls;
    assert_int_equal(index, 1);
    for (size_t at = 0; at < sizeof data_b; at += 10)
        SL_TRY(sl_gguf_writer_append(w, data_b + at, SL_MIN(sizeof data_b - at, (size_t)10), err));
    return SL_OK;
}

static sl_gguf_writer *golden_writer(int *calls)
{
    sl_gguf_writer *w;
    sl_err err = {0};
    fill_data();
    ok(sl_gguf_writer_open(&w, &err), &err);
    ok(sl_gguf_writer_set_string(w, "general.architecture", "will be replaced", &err), &err);
    ok(sl_gguf_writer_set_u32(w, "general.alignment", 64, &err), &err);
    SET(SL_GGUF_U8, uint8_t, "k.u8", 200);
    SET(SL_GGUF_I8, int8_t, "k.i8", -100);
    SET(SL_GGUF_U16, uint16_t, "k.u16", 60000);
    SET(SL_GGUF_I16, int16_t, "k.i16", -30000);
    SET(SL_GGUF_U32, uint32_t, "k.u32", 4000000000u);
    SET(SL_GGUF_I32, int32_t, "k.i32", -2000000000);
    ok(sl_gguf_writer_set_f32(w, "k.f32", 1.5f, &err), &err);
    ok(sl_gguf_writer_set_bool(w, "k.bool", true, &err), &err);
    ok(sl_gguf_writer_set_string(w, "k.string", "grüße\n🙂", &err), &err);
    SET(SL_GGUF_U64, uint64_t, "k.u64", UINT64_C(1) << 63);
    SET(SL_GGUF_I64, int64_t, "k.i64", -(INT64_C(1) << 62));
    SET(SL_GGUF_F64, double, "k.f64", 0.1);
    const sl_gguf_string strings[] = {{"", 0}, {"a", 1}, {"bc", 2}};
    ok(sl_gguf_writer_set_array(w, "k.strings", SL_GGUF_STRING, strings, 3, &err), &err);
    ok(sl_gguf_writer_set_array(w, "k.ints", SL_GGUF_I32, (int32_t[]){1, -2, 3}, 3, &err), &err);
    ok(sl_gguf_writer_set_array(w, "k.bools", SL_GGUF_BOOL, (uint8_t[]){1, 0}, 2, &err), &err);
    ok(sl_gguf_writer_set_string(w, "general.architecture", "golden", &err), &err);
    ok(sl_gguf_writer_add_tensor(w, "a", SL_TYPE_F32, 2, ne_a, data_a, &err), &err);
    ok(sl_gguf_writer_stream_tensor(w, "b", SL_TYPE_Q4_0, 2, ne_b, produce_b, calls, &err), &err);
    ok(sl_gguf_writer_add_tensor(w, "c", SL_TYPE_F16, 4, ne_c, data_c, &err), &err);
    return w;
}

static void test_writer_matches_gguf_py(void **state)
{
    (void)state;
    int calls = 0;
    sl_err err = {0};
    size_t n_want, n_got;
    uint8_t *want = slurp(SL_TEST_GOLDEN_DIR "/small.gguf", &n_want);
    sl_gguf_writer *w = golden_writer(&calls);
    for (int round = 1; round <= 2; round++) { /* the second time over the first file */
        ok(sl_gguf_writer_write(w, in_folder("out.gguf"), &err), &err);
        assert_int_equal(calls, round);
        uint8_t *got = slurp(in_folder("out.gguf"), &n_got);
        assert_int_equal(n_got, n_want);
        assert_memory_equal(got, want, n_want);
        free(got);
        assert_int_equal(n_files(), 1);
    }
    sl_gguf_writer_close(w);
    free(want);
    assert_int_equal(unlink(in_folder("out.gguf")), 0);
}

static void check_string(sl_gguf_string string, const char *want)
{
    assert_int_equal(string.n_bytes, strlen(want));
    assert_memory_equal(string.bytes, want, string.n_bytes);
}

static void check_tensor(const sl_gguf *g, const char *name, sl_type type, uint32_t n_dims, const uint64_t *ne,
                         const void *data, size_t n_bytes)
{
    const sl_gguf_tensor *t = sl_gguf_find_tensor(g, name);
    assert_non_null(t);
    assert_string_equal(t->name, name);
    assert_int_equal(t->type, type);
    assert_ptr_equal(t->info, sl_type_get(type));
    assert_int_equal(t->n_dims, n_dims);
    uint64_t n_elems = 1;
    for (uint32_t d = 0; d < 4; d++) {
        assert_int_equal(t->ne[d], d < n_dims ? ne[d] : 1);
        n_elems *= t->ne[d];
    }
    assert_int_equal(t->n_elems, n_elems);
    assert_int_equal(t->n_bytes, n_bytes);
    assert_int_equal(t->offset % 64, 0);
    assert_int_equal((uintptr_t)t->data % 64, 0);
    assert_memory_equal(t->data, data, n_bytes);
}

static void check_numbers(const sl_gguf *g)
{
    static const struct {
        const char *key;
        bool u_ok, i_ok;
        uint64_t u;
        int64_t i;
        double f;
    } cases[] = {
        {"k.u8", true, true, 200, 200, 200},
        {"k.i8", false, true, 0, -100, -100},
        {"k.u16", true, true, 60000, 60000, 60000},
        {"k.i16", false, true, 0, -30000, -30000},
        {"k.u32", true, true, 4000000000u, 4000000000, 4e9},
        {"k.i32", false, true, 0, -2000000000, -2e9},
        {"k.f32", false, false, 0, 0, 1.5},
        {"k.u64", true, false, UINT64_C(1) << 63, 0, 0x1p63},
        {"k.i64", false, true, 0, -(INT64_C(1) << 62), -0x1p62},
        {"k.f64", false, false, 0, 0, 0.1},
    };
    for (size_t c = 0; c < SL_COUNTOF(cases); c++) {
        const sl_gguf_value *v = sl_gguf_find(g, cases[c].key);
        assert_non_null(v);
        uint64_t u = 0;
        int64_t i = 0;
        double f = 0;
        assert_int_equal(v->count, 1);
        assert_int_equal(v->kind, v->elem_kind);
        assert_int_equal(sl_gguf_as_u64(v, 0, &u), cases[c].u_ok);
        assert_int_equal(sl_gguf_as_i64(v, 0, &i), cases[c].i_ok);
        assert_true(sl_gguf_as_f64(v, 0, &f));
        assert_true(u == cases[c].u && i == cases[c].i && f == cases[c].f);
        assert_false(sl_gguf_as_u64(v, 1, &u) || sl_gguf_as_i64(v, 1, &i) || sl_gguf_as_f64(v, 1, &f));
    }
    double f;
    assert_false(sl_gguf_as_f64(sl_gguf_find(g, "k.bool"), 0, &f));
    assert_false(sl_gguf_as_f64(sl_gguf_find(g, "k.string"), 0, &f));
}

static void check_getters(const sl_gguf *g)
{
    sl_err err = {0};
    uint32_t u = 7;
    float f = 7;
    bool b = false;
    sl_gguf_string s = {"def", 3};
    ok(sl_gguf_get_u32(g, "none", &u, &err), &err);
    ok(sl_gguf_get_string(g, "none", &s, &err), &err);
    assert_int_equal(u, 7);
    check_string(s, "def");
    ok(sl_gguf_get_u32(g, "k.u32", &u, &err), &err);
    assert_int_equal(u, 4000000000u);
    ok(sl_gguf_get_f32(g, "k.f64", &f, &err), &err);
    assert_true(f == 0.1f);
    ok(sl_gguf_get_bool(g, "k.bool", &b, &err), &err);
    assert_true(b);
    ok(sl_gguf_get_string(g, "k.string", &s, &err), &err);
    check_string(s, "grüße\n🙂");
    assert_int_equal(sl_gguf_get_u32(g, "k.i8", &u, &err), SL_ERR_FORMAT);
    assert_non_null(strstr(err.message, "k.i8"));
    assert_int_equal(sl_gguf_get_u32(g, "k.u64", &u, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_get_u32(g, "k.ints", &u, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_get_f32(g, "k.string", &f, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_get_bool(g, "k.u8", &b, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_get_string(g, "k.strings", &s, &err), SL_ERR_FORMAT);
}

static void test_reads_gguf_py(void **state)
{
    (void)state;
    sl_gguf *g;
    sl_err err = {0};
    fill_data();
    ok(sl_gguf_open(SL_TEST_GOLDEN_DIR "/small.gguf", 0, &g, &err), &err);
    assert_int_equal(sl_gguf_n_values(g), 17);
    assert_int_equal(sl_gguf_n_tensors(g), 3);
    assert_int_equal(sl_gguf_alignment(g), 64);
    check_numbers(g);
    check_getters(g);
    const sl_gguf_value *v = sl_gguf_find(g, "k.strings");
    assert_true(v && v->kind == SL_GGUF_ARRAY && v->elem_kind == SL_GGUF_STRING && v->count == 3);
    check_string(v->strings[0], "");
    check_string(v->strings[1], "a");
    check_string(v->strings[2], "bc");
    v = sl_gguf_find(g, "k.ints");
    int64_t i;
    assert_true(v && v->count == 3 && sl_gguf_as_i64(v, 1, &i) && i == -2);
    assert_false(sl_gguf_as_i64(v, 3, &i));
    check_tensor(g, "a", SL_TYPE_F32, 2, ne_a, data_a, sizeof data_a);
    check_tensor(g, "b", SL_TYPE_Q4_0, 2, ne_b, data_b, sizeof data_b);
    check_tensor(g, "c", SL_TYPE_F16, 4, ne_c, data_c, sizeof data_c);
    assert_null(sl_gguf_find_tensor(g, "d"));
    assert_null(sl_gguf_find(g, ""));
    assert_null(sl_gguf_value_at(g, 17));
    assert_null(sl_gguf_tensor_at(g, 3));
    sl_gguf_close(g);
}

/* Everything a reader gave goes through the writer again to the same bytes. */
static void test_copy(void **state)
{
    (void)state;
    sl_gguf *g;
    sl_gguf_writer *w;
    sl_err err = {0};
    ok(sl_gguf_open(SL_TEST_GOLDEN_DIR "/small.gguf", 0, &g, &err), &err);
    ok(sl_gguf_writer_open(&w, &err), &err);
    for (size_t i = 0; i < sl_gguf_n_values(g); i++)
        ok(sl_gguf_writer_copy_value(w, sl_gguf_value_at(g, i), &err), &err);
    for (size_t i = 0; i < sl_gguf_n_tensors(g); i++) {
        const sl_gguf_tensor *t = sl_gguf_tensor_at(g, i);
        ok(sl_gguf_writer_add_tensor(w, t->name, t->type, t->n_dims, t->ne, t->data, &err), &err);
    }
    ok(sl_gguf_writer_write(w, in_folder("copy.gguf"), &err), &err);
    size_t n_want, n_got;
    uint8_t *want = slurp(SL_TEST_GOLDEN_DIR "/small.gguf", &n_want), *got = slurp(in_folder("copy.gguf"), &n_got);
    assert_int_equal(n_got, n_want);
    assert_memory_equal(got, want, n_want);
    free(want);
    free(got);
    sl_gguf_writer_close(w);
    sl_gguf_close(g);
    assert_int_equal(unlink(in_folder("copy.gguf")), 0);
}

static sl_status produce_short(void *user, sl_gguf_writer *w, size_t index, sl_err *err)
{
    return sl_gguf_writer_append(w, data_b, 71, err);
}

static sl_status produce_long(void *user, sl_gguf_writer *w, size_t index, sl_err *err)
{
    SL_TRY(sl_gguf_writer_append(w, data_b, 72, err));
    return sl_gguf_writer_append(w, data_b, 1, err);
}

static sl_status produce_error(void *user, sl_gguf_writer *w, size_t index, sl_err *err)
{
    SL_FAIL(err, SL_ERR_CANCELLED, "no more");
}

static void test_writer_refuses(void **state)
{
    (void)state;
    sl_gguf_writer *w;
    sl_err err = {0};
    ok(sl_gguf_writer_open(&w, &err), &err);
    char long_name[65];
    memset(long_name, 'x', 64);
    long_name[64] = 0;
    const uint64_t zero[] = {64, 0}, odd[] = {33}, huge[] = {UINT64_C(1) << 40, UINT64_C(1) << 40};
    uint8_t two = 2;
    assert_int_equal(sl_gguf_writer_set_u32(w, "", 1, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_writer_set_u32(w, "a\nb", 1, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_writer_set_u32(w, "general.alignment", 48, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_writer_set(w, "k", SL_GGUF_BOOL, &two, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_writer_set(w, "k", SL_GGUF_ARRAY, &two, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_gguf_writer_set(w, "k", (sl_gguf_kind)13, &two, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_gguf_writer_add_tensor(w, long_name, SL_TYPE_F32, 2, ne_a, data_a, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_writer_add_tensor(w, "t", SL_TYPE_F32, 2, zero, data_a, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_writer_add_tensor(w, "t", SL_TYPE_F32, 5, zero, data_a, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_writer_add_tensor(w, "t", SL_TYPE_Q8_0, 1, odd, data_a, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_writer_add_tensor(w, "t", SL_TYPE_F32, 2, huge, data_a, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_writer_add_tensor(w, "t", (sl_type)4, 2, ne_a, data_a, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_writer_append(w, data_a, 1, &err), SL_ERR_STATE);
    ok(sl_gguf_writer_add_tensor(w, "t", SL_TYPE_F32, 2, ne_a, data_a, &err), &err);
    assert_int_equal(sl_gguf_writer_add_tensor(w, "t", SL_TYPE_F32, 2, ne_a, data_a, &err), SL_ERR_FORMAT);
    assert_int_equal(sl_gguf_writer_write(w, "/nonexistent/x.gguf", &err), SL_ERR_IO);
    assert_int_equal(mkdir(in_folder("is_a_folder"), 0700), 0);
    assert_int_equal(sl_gguf_writer_write(w, in_folder("is_a_folder"), &err), SL_ERR_IO);
    sl_gguf_writer_close(w);

    sl_gguf_data_fn *const producers[] = {produce_short, produce_long, produce_error};
    const sl_status want[] = {SL_ERR_ARGUMENT, SL_ERR_ARGUMENT, SL_ERR_CANCELLED};
    for (size_t i = 0; i < SL_COUNTOF(producers); i++) {
        ok(sl_gguf_writer_open(&w, &err), &err);
        ok(sl_gguf_writer_stream_tensor(w, "b", SL_TYPE_Q4_0, 2, ne_b, producers[i], NULL, &err), &err);
        assert_int_equal(sl_gguf_writer_write(w, in_folder("never.gguf"), &err), want[i]);
        sl_gguf_writer_close(w);
    }
    assert_int_equal(n_files(), 1);
    assert_int_equal(rmdir(in_folder("is_a_folder")), 0);
}

/* A full disk (here: a limit on the file's size) leaves neither a piece of the new file nor a spoiled old one. */
static void test_full_disk(void **state)
{
    (void)state;
    int calls = 0;
    sl_err err = {0};
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 500;
    sl_gguf_writer *w = golden_writer(&calls);
    ok(sl_gguf_writer_write(w, in_folder("full.gguf"), &err), &err);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    sl_status status = sl_gguf_writer_write(w, in_folder("full.gguf"), &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, SL_ERR_IO);
    assert_int_equal(n_files(), 1);
    struct stat st;
    assert_int_equal(stat(in_folder("full.gguf"), &st), 0);
    assert_int_equal(st.st_size, 960);
    sl_gguf_writer_close(w);
    assert_int_equal(unlink(in_folder("full.gguf")), 0);
}

/* ---- hostile files: built by hand, each length, count and type field noted ---- */

typedef struct field {
    const char *name;
    size_t at, n_bytes;
    const char *may_be; /* " value value " that stay valid, besides the original; "any" */
} field;

typedef struct sketch {
    uint8_t bytes[4096];
    size_t n_bytes, header_bytes;
    field fields[128];
    size_t n_fields;
} sketch;

static void put(sketch *s, const void *bytes, size_t n_bytes)
{
    assert_true(s->n_bytes + n_bytes <= sizeof s->bytes);
    memcpy(s->bytes + s->n_bytes, bytes, n_bytes);
    s->n_bytes += n_bytes;
}

static void put_field(sketch *s, const char *name, uint64_t value, size_t n_bytes, const char *may_be)
{
    s->fields[s->n_fields++] = (field){name, s->n_bytes, n_bytes, may_be};
    put(s, &value, n_bytes);
}

static void put_string(sketch *s, const char *name, const char *string)
{
    put_field(s, name, strlen(string), 8, "");
    put(s, string, strlen(string));
}

static void put_key(sketch *s, const char *key, uint32_t kind, const char *kind_may_be)
{
    put_string(s, "key length", key);
    put_field(s, "value kind", kind, 4, kind_may_be);
}

static void put_tensor(sketch *s, const char *name, uint32_t n_dims, uint64_t ne0, uint64_t ne1, const char *ne1_may_be,
                       uint32_t type, uint64_t offset)
{
    put_string(s, "tensor name length", name);
    put_field(s, "n_dims", n_dims, 4, "");
    put_field(s, "ne[0]", ne0, 8, type == SL_TYPE_F32 ? " 1 2 3 " : "");
    put_field(s, "ne[1]", ne1, 8, ne1_may_be);
    put_field(s, "tensor type", type, 4, type == SL_TYPE_F32 ? " 1 " : ""); /* F16 is smaller */
    put_field(s, "offset", offset, 8, "");
}

/* A valid file with each kind of field: six keys, two tensors of 32 and 36 bytes. */
static sketch *make_sketch(void)
{
    sketch *s = calloc(1, sizeof *s);
    assert_non_null(s);
    put(s, "GGUF", 4);
    put_field(s, "version", 3, 4, "");
    put_field(s, "n_tensors", 2, 8, " 0 1 ");
    put_field(s, "n_kv", 6, 8, "");
    put_key(s, "general.alignment", SL_GGUF_U32, "");
    put_field(s, "alignment", 32, 4, " 8 ");      /* the data begins earlier, but is all there */
    put_key(s, "number", SL_GGUF_U64, " 11 12 "); /* another kind of that width is as good */
    put_field(s, "number", 5, 8, "any");
    put_key(s, "text", SL_GGUF_STRING, "");
    put_string(s, "string length", "hello");
    put_key(s, "words", SL_GGUF_ARRAY, "");
    put_field(s, "element kind", SL_GGUF_STRING, 4, "");
    put_field(s, "array count", 2, 8, "");
    put_string(s, "array string length", "one");
    put_string(s, "array string length", "three");
    put_key(s, "numbers", SL_GGUF_ARRAY, "");
    put_field(s, "element kind", SL_GGUF_U32, 4, " 5 6 ");
    put_field(s, "array count", 3, 8, "");
    for (int i = 0; i < 3; i++)
        put_field(s, "array number", (uint64_t)i, 4, "any");
    put_key(s, "flags", SL_GGUF_ARRAY, "");
    put_field(s, "element kind", SL_GGUF_BOOL, 4, " 0 1 ");
    put_field(s, "array count", 2, 8, "");
    put_field(s, "array bool", 1, 1, " 0 1 ");
    put_field(s, "array bool", 0, 1, " 0 1 ");
    put_tensor(s, "first", 2, 4, 2, " 1 ", SL_TYPE_F32, 0);
    put_tensor(s, "second", 2, 32, 2, " 1 ", SL_TYPE_Q4_0, 32);
    s->header_bytes = s->n_bytes;
    s->n_bytes = (s->n_bytes + 31) / 32 * 32;
    for (int i = 0; i < 32 + 36; i++)
        put(s, &(uint8_t){(uint8_t)i}, 1);
    return s;
}

/* Touches everything a reader hands out. */
static uint64_t walk(const sl_gguf *g)
{
    uint64_t sum = sl_gguf_file_bytes(g) + sl_gguf_data_start(g);
    for (size_t i = 0; i < sl_gguf_n_values(g); i++) {
        const sl_gguf_value *v = sl_gguf_value_at(g, i);
        for (size_t k = 0; k < v->key.n_bytes; k++)
            sum += (uint8_t)v->key.bytes[k];
        for (uint64_t k = 0; k < v->count; k++) {
            uint64_t u = 0;
            int64_t n = 0;
            double f = 0;
            if (v->strings && v->strings[k].n_bytes)
                sum += (uint8_t)v->strings[k].bytes[0] + (uint8_t)v->strings[k].bytes[v->strings[k].n_bytes - 1];
            sum += sl_gguf_as_u64(v, k, &u) + sl_gguf_as_i64(v, k, &n) + sl_gguf_as_f64(v, k, &f) + u;
        }
    }
    for (size_t i = 0; i < sl_gguf_n_tensors(g); i++) {
        const sl_gguf_tensor *t = sl_gguf_tensor_at(g, i);
        assert_ptr_equal(sl_gguf_find_tensor(g, t->name), t);
        for (uint64_t k = 0; t->data && k < t->n_bytes; k++)
            sum += ((const uint8_t *)t->data)[k];
    }
    return sum;
}

/* Opens a copy of exactly n_bytes, so that ASan sees any read beyond; walks it when it opens. */
static sl_status try_open(const uint8_t *bytes, size_t n_bytes, uint32_t flags, sl_err *err)
{
    uint8_t *copy = malloc(SL_MAX(n_bytes, 1));
    assert_non_null(copy);
    memcpy(copy, bytes, n_bytes);
    sl_gguf *g = NULL;
    *err = (sl_err){0};
    sl_status status = sl_gguf_open_memory(copy, n_bytes, flags, &g, err);
    if (status == SL_OK) {
        volatile uint64_t sink = walk(g);
        (void)sink;
    } else {
        assert_null(g);
        assert_int_equal(err->code, status);
        assert_true(err->message[0] && !strchr(err->message, '\n'));
    }
    sl_gguf_close(g);
    free(copy);
    return status;
}

static void test_every_field(void **state)
{
    (void)state;
    const uint64_t values[] = {0,
                               1,
                               2,
                               3,
                               4,
                               5,
                               6,
                               7,
                               8,
                               9,
                               10,
                               12,
                               13,
                               31,
                               33,
                               63,
                               64,
                               0x7fffffff,
                               0x80000000,
                               0x80000001,
                               0xffffffff,
                               UINT64_C(1) << 32,
                               (UINT64_C(1) << 61) + 1,
                               INT64_MAX,
                               UINT64_C(1) << 63,
                               (UINT64_C(1) << 63) + 1,
                               UINT64_MAX - 31,
                               UINT64_MAX};
    sketch *s = make_sketch();
    sl_err err;
    ok(try_open(s->bytes, s->n_bytes, 0, &err), &err);
    for (size_t i = 0; i < s->n_fields; i++) {
        const field *f = &s->fields[i];
        for (size_t k = 0; k < SL_COUNTOF(values); k++) {
            uint64_t old = 0;
            char word[32];
            memcpy(&old, s->bytes + f->at, f->n_bytes);
            if (old == values[k] || (f->n_bytes < 8 && values[k] >> 8 * f->n_bytes))
                continue;
            memcpy(s->bytes + f->at, &values[k], f->n_bytes);
            snprintf(word, sizeof word, " %llu ", (unsigned long long)values[k]);
            bool valid = !strcmp(f->may_be, "any") || strstr(f->may_be, word);
            if ((try_open(s->bytes, s->n_bytes, 0, &err) == SL_OK) != valid)
                fail_msg("%s = %llu should %s: %s", f->name, (unsigned long long)values[k], valid ? "pass" : "fail",
                         err.message);
            sl_status header_only = try_open(s->bytes, s->n_bytes, SL_GGUF_HEADER_ONLY, &err);
            assert_true(!valid || header_only == SL_OK);
            memcpy(s->bytes + f->at, &old, f->n_bytes);
        }
    }
    free(s);
}

static void test_truncation(void **state)
{
    (void)state;
    sketch *s = make_sketch();
    sl_err err;
    for (size_t n = 0; n < s->n_bytes; n++) {
        assert_int_not_equal(try_open(s->bytes, n, 0, &err), SL_OK);
        sl_status header_only = try_open(s->bytes, n, SL_GGUF_HEADER_ONLY, &err);
        assert_int_equal(header_only == SL_OK, n >= s->header_bytes);
    }
    free(s);
}

static void test_every_byte(void **state)
{
    (void)state;
    sketch *s = make_sketch();
    sl_err err;
    for (size_t at = 0; at < s->n_bytes; at++) {
        for (int bit = 0; bit < 8; bit++) {
            s->bytes[at] ^= (uint8_t)(1 << bit);
            (void)!try_open(s->bytes, s->n_bytes, 0, &err);
            s->bytes[at] ^= (uint8_t)(1 << bit);
        }
    }
    free(s);
}

/* Replaces the first occurrence of a string of equal length. */
static void patch(sketch *s, const char *from, const void *to, size_t n_bytes)
{
    uint8_t *at = memmem(s->bytes, s->n_bytes, from, strlen(from));
    assert_non_null(at);
    memcpy(at, to, n_bytes);
}

static void expect(const sketch *s, sl_status want, const char *message)
{
    sl_err err;
    assert_int_equal(try_open(s->bytes, s->n_bytes, 0, &err), want);
    if (!strstr(err.message, message))
        fail_msg("'%s' lacks '%s'", err.message, message);
}

static void test_named_cases(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        size_t n_bytes;
        sl_status status;
        const char *message;
    } cases[] = {
        {"GGUF", "GGUX", 4, SL_ERR_FORMAT, "not a GGUF file"},
        {"GGUF", "GGUF\1\0\0\0", 8, SL_ERR_UNSUPPORTED, "version 1"},
        {"GGUF", "GGUF\2\0\0\0", 8, SL_ERR_UNSUPPORTED, "version 2"},
        {"GGUF", "GGUF\4\0\0\0", 8, SL_ERR_UNSUPPORTED, "version 4"},
        {"GGUF", "GGUF\0\0\0\3", 8, SL_ERR_UNSUPPORTED, "big-endian"},
        {"second", "first\0", 6, SL_ERR_FORMAT, "control characters"},
        {"second", "fi\377rst", 6, SL_ERR_FORMAT, "broken UTF-8"},
        {"number", "n\33mber", 6, SL_ERR_FORMAT, "control characters"},
        {"text\10", "text\10\0\0\0\377\377\377\377\377\377\377\377", 16, SL_ERR_FORMAT, "wants 18446744073709551615"},
        {"first", "first\5", 6, SL_ERR_FORMAT, "5 dimensions"},
        {"words\11\0\0\0\10", "words\11\0\0\0\11", 10, SL_ERR_UNSUPPORTED, "array of arrays"},
    };
    for (size_t i = 0; i < SL_COUNTOF(cases); i++) {
        sketch *s = make_sketch();
        patch(s, cases[i].from, cases[i].to, cases[i].n_bytes);
        expect(s, cases[i].status, cases[i].message);
        free(s);
    }
}

static void test_duplicates_and_overlap(void **state)
{
    (void)state;
    sketch twice = {0};
    put(&twice, "GGUF\3\0\0\0", 8);
    put_field(&twice, "", 0, 8, "");
    put_field(&twice, "", 2, 8, "");
    for (int i = 0; i < 2; i++) {
        put_key(&twice, "again", SL_GGUF_U8, "");
        put(&twice, "x", 1);
    }
    expect(&twice, SL_ERR_FORMAT, "key 'again' appears twice");

    for (int overlap = 0; overlap < 3; overlap++) {
        sketch two = {0};
        put(&two, "GGUF\3\0\0\0", 8);
        put_field(&two, "", 3, 8, "");
        put_field(&two, "", 0, 8, "");
        put_tensor(&two, "a", 2, 16, 1, "", SL_TYPE_F32, 128);
        put_tensor(&two, overlap == 2 ? "a" : "b", 2, 16, 1, "", SL_TYPE_F32, 0);
        put_tensor(&two, "c", 2, 16, 1, "", SL_TYPE_F32, overlap == 1 ? 96 : 64);
        two.n_bytes = (two.n_bytes + 31) / 32 * 32 + 192;
        const char *messages[] = {"", "tensors 'c' and 'a' overlap", "tensor 'a' appears twice"};
        expect(&two, overlap ? SL_ERR_FORMAT : SL_OK, messages[overlap]);
    }
}

/* Names of 63 bytes pass, of 64 not; alignment of 8 and 65536 pass. */
static void test_limits(void **state)
{
    (void)state;
    for (size_t n_name = 62; n_name <= 65; n_name++) {
        char name[66] = "";
        memset(name, 'n', n_name);
        sketch s = {0};
        put(&s, "GGUF\3\0\0\0", 8);
        put_field(&s, "", 1, 8, "");
        put_field(&s, "", 0, 8, "");
        put_tensor(&s, name, 2, 8, 1, "", SL_TYPE_F32, 0);
        s.n_bytes = (s.n_bytes + 31) / 32 * 32 + 32;
        expect(&s, n_name < 64 ? SL_OK : SL_ERR_FORMAT, n_name < 64 ? "" : "tensor name of 6");
    }
    for (uint64_t alignment = 1; alignment < UINT64_C(1) << 32; alignment *= 2) {
        sketch s = {0};
        put(&s, "GGUF\3\0\0\0", 8);
        put_field(&s, "", 0, 8, "");
        put_field(&s, "", 1, 8, "");
        put_key(&s, "general.alignment", SL_GGUF_U32, "");
        put(&s, &alignment, 4);
        bool valid = alignment >= 8 && alignment <= 65536;
        expect(&s, valid ? SL_OK : SL_ERR_FORMAT, valid ? "" : "power of two");
    }
}

/* 200,000 keys, or tensors, take linear time (a quadratic look-up would take minutes). */
static void test_many(void **state)
{
    (void)state;
    enum { N = 200000, ROOM = N * 64 };
    uint8_t *bytes = calloc(1, ROOM + 64);
    assert_non_null(bytes);
    for (int tensors = 0; tensors <= 1; tensors++) {
        uint64_t counts[2] = {tensors ? N : 0, tensors ? 0 : N};
        uint8_t *at = bytes;
        memcpy(at, "GGUF\3\0\0\0", 8);
        memcpy(at + 8, counts, 16);
        at += 24;
        for (uint32_t i = 0; i < N; i++) {
            char name[16];
            uint64_t n_name = (uint64_t)snprintf(name, sizeof name, "k%u", i), one = 1;
            memcpy(at, &n_name, 8);
            memcpy(at + 8, name, n_name);
            at += 8 + n_name;
            if (tensors) { /* all at offset 0: found out only after all are read */
                memcpy(at, &(uint32_t){1}, 4);
                memcpy(at + 4, &one, 8);
                memset(at + 12, 0, 12);
                at += 24;
            } else {
                memset(at, 0, 5);
                at += 5;
            }
        }
        sl_gguf *g = NULL;
        sl_err err = {0};
        clock_t start = clock();
        sl_status status = sl_gguf_open_memory(bytes, ROOM + 64, 0, &g, &err);
        assert_int_equal(status, tensors ? SL_ERR_FORMAT : SL_OK);
        assert_non_null(strstr(tensors ? err.message : "overlap", "overlap"));
        if (!tensors)
            assert_int_equal(sl_gguf_n_values(g), N);
        sl_gguf_close(g);
        assert_true(clock() - start < 10 * CLOCKS_PER_SEC); /* CPU time: quadratic work would take minutes */
    }
    free(bytes);
}

static void expect_path(const char *path, sl_status want, const char *message)
{
    sl_gguf *g;
    sl_err err = {0};
    assert_int_equal(sl_gguf_open(path, 0, &g, &err), want);
    assert_null(g);
    if (!strstr(err.message, message) || strncmp(err.message, path, strlen(path)) || strchr(err.message, '\n'))
        fail_msg("'%s' isn't '%s: ...%s...'", err.message, path, message);
}

static void write_file(const char *path, const void *bytes, size_t n_bytes)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n_bytes, f), n_bytes);
    assert_int_equal(fclose(f), 0);
}

static void test_paths(void **state)
{
    (void)state;
    expect_path("/nonexistent/model.gguf", SL_ERR_IO, "No such file");
    expect_path(folder, SL_ERR_IO, "is a directory");
    expect_path("/dev/null", SL_ERR_IO, "not a regular file");
    write_file(in_folder("x"), "", 0);
    expect_path(in_folder("x"), SL_ERR_IO, "empty");
    write_file(in_folder("x"), "GGUF", 4);
    expect_path(in_folder("x"), SL_ERR_FORMAT, "cut short");
    write_file(in_folder("x"), "just some text", 14);
    expect_path(in_folder("x"), SL_ERR_FORMAT, "not a GGUF file");
    if (geteuid() != 0) { /* root reads everything */
        assert_int_equal(chmod(in_folder("x"), 0), 0);
        expect_path(in_folder("x"), SL_ERR_IO, "Permission denied");
    }
    assert_int_equal(unlink(in_folder("x")), 0);
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    expect_path(in_folder("pipe"), SL_ERR_IO, "not a regular file");
    assert_int_equal(unlink(in_folder("pipe")), 0);
}

static void test_cut_while_open(void **state)
{
    (void)state;
    sketch *s = make_sketch();
    sl_gguf *g;
    sl_err err = {0};
    write_file(in_folder("cut"), s->bytes, s->n_bytes);
    ok(sl_gguf_open(in_folder("cut"), 0, &g, &err), &err);
    ok(sl_gguf_check_file(g, &err), &err);
    assert_int_equal(truncate(in_folder("cut"), 100), 0);
    assert_int_equal(sl_gguf_check_file(g, &err), SL_ERR_IO);
    sl_gguf_close(g);
    assert_int_equal(unlink(in_folder("cut")), 0);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writer_matches_gguf_py),
        cmocka_unit_test(test_reads_gguf_py),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_every_field),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_named_cases),
        cmocka_unit_test(test_duplicates_and_overlap),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_cut_while_open),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
