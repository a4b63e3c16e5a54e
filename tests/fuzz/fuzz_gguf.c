/* libFuzzer target: any bytes as a GGUF file, everything walked when it opens, then copied into a writer. */
#include "file/gguf_writer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static volatile uint64_t sink;

static void walk_values(const sl_gguf *gguf)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < sl_gguf_n_values(gguf); i++) {
        const sl_gguf_value *value = sl_gguf_value_at(gguf, i);
        for (size_t k = 0; k < value->key.n_bytes; k++)
            sum += (uint8_t)value->key.bytes[k];
        for (uint64_t k = 0; k < value->count; k++) {
            uint64_t u = 0;
            int64_t n = 0;
            double f = 0;
            sum += sl_gguf_as_u64(value, k, &u) + sl_gguf_as_i64(value, k, &n) + sl_gguf_as_f64(value, k, &f) + u;
            for (size_t b = 0; value->strings && b < value->strings[k].n_bytes; b++)
                sum += (uint8_t)value->strings[k].bytes[b];
        }
        char *key = strndup(value->key.bytes, value->key.n_bytes);
        uint32_t u = 0;
        float f = 0;
        bool b = false;
        sl_gguf_string s = {0};
        if (!key || sl_gguf_find(gguf, key) != value)
            abort();
        sum += sl_gguf_get_u32(gguf, key, &u, NULL) + sl_gguf_get_f32(gguf, key, &f, NULL) +
               sl_gguf_get_bool(gguf, key, &b, NULL) + sl_gguf_get_string(gguf, key, &s, NULL);
        free(key);
    }
    sink += sum;
}

static void walk_tensors(const sl_gguf *gguf)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < sl_gguf_n_tensors(gguf); i++) {
        const sl_gguf_tensor *tensor = sl_gguf_tensor_at(gguf, i);
        if (sl_gguf_find_tensor(gguf, tensor->name) != tensor)
            abort();
        for (uint64_t k = 0; tensor->data && k < tensor->n_bytes; k++)
            sum += ((const uint8_t *)tensor->data)[k];
        if (tensor->data && tensor->info->dequantize && tensor->n_elems <= 4096) {
            float values[4096];
            tensor->info->dequantize(tensor->data, values, tensor->n_elems);
            sum += values[0] > 0;
        }
    }
    sink += sum;
}

/* What a reader accepts, the writer accepts as well. */
static void copy_into_writer(const sl_gguf *gguf)
{
    sl_gguf_writer *writer;
    if (sl_gguf_writer_open(&writer, NULL) != SL_OK)
        abort();
    for (size_t i = 0; i < sl_gguf_n_values(gguf); i++)
        if (sl_gguf_writer_copy_value(writer, sl_gguf_value_at(gguf, i), NULL) != SL_OK)
            abort();
    for (size_t i = 0; i < sl_gguf_n_tensors(gguf); i++) {
        const sl_gguf_tensor *t = sl_gguf_tensor_at(gguf, i);
        if (sl_gguf_writer_add_tensor(writer, t->name, t->type, t->n_dims, t->ne, t->data, NULL) != SL_OK)
            abort();
    }
    sl_gguf_writer_close(writer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    sl_gguf *gguf;
    sl_err err;
    for (uint32_t flags = 0; flags <= SL_GGUF_HEADER_ONLY; flags++) {
        if (sl_gguf_open_memory(data, n_bytes, flags, &gguf, &err) != SL_OK)
            continue;
        walk_values(gguf);
        walk_tensors(gguf);
        if (!flags)
            copy_into_writer(gguf);
        sl_gguf_close(gguf);
    }
    return 0;
}
