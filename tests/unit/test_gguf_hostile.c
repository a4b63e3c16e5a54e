/* file/gguf on hostile files: every field, length and byte wrong in turn, and the cases with names. */
#define _GNU_SOURCE
#include "gguf_folder.h"

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

/* Whether a value may stand in a field instead of its own. */
static bool may_be(const field *f, uint64_t value)
{
    char word[32];
    snprintf(word, sizeof word, " %llu ", (unsigned long long)value);
    return !strcmp(f->may_be, "any") || strstr(f->may_be, word);
}

/* Whether the file is still valid now that one bit of the byte at `at` is another. */
static bool should_open(const sketch *s, size_t at)
{
    const field *last = NULL; /* that the byte is in, or behind */
    for (size_t i = 0; i < s->n_fields && s->fields[i].at <= at; i++)
        last = &s->fields[i];
    if (!last)
        return false; /* the magic */
    if (at < last->at + last->n_bytes) {
        uint64_t value = 0;
        memcpy(&value, s->bytes + last->at, last->n_bytes);
        return may_be(last, value);
    }
    bool name = at < s->header_bytes && (strstr(last->name, "key length") || strstr(last->name, "name length"));
    return !name || (s->bytes[at] >= 0x20 && s->bytes[at] < 0x7f); /* texts, padding and data may be anything */
}

static void test_every_byte(void **state)
{
    (void)state;
    sketch *s = make_sketch();
    sl_err err;
    for (size_t at = 0; at < s->n_bytes; at++) {
        for (int bit = 0; bit < 8; bit++) {
            s->bytes[at] ^= (uint8_t)(1 << bit);
            bool valid = should_open(s, at);
            if ((try_open(s->bytes, s->n_bytes, 0, &err) == SL_OK) != valid)
                fail_msg("byte %zu, bit %d should %s: %s", at, bit, valid ? "pass" : "fail", err.message);
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
