/* file/gguf and file/gguf_writer: round trip, and equality with gguf-py's bytes. */
#define _GNU_SOURCE
#include "gguf_folder.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writer_matches_gguf_py),
        cmocka_unit_test(test_reads_gguf_py),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
