/* Writes a small llama-like model whose matrices go through all weight types in turn, with random contents: for tests
 * that compare sluice with itself. The vocabulary comes from another file. */
#ifndef SL_TESTS_RANDOM_MODEL_H
#define SL_TESTS_RANDOM_MODEL_H

#include "file/gguf_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANDOM_EMBD = 256, RANDOM_FF = 512, RANDOM_LAYERS = 3, RANDOM_VOCAB = 352 };

static inline void random_require(sl_status status, const sl_err *err)
{
    if (status != SL_OK) {
        fprintf(stderr, "cannot write the random model: %s\n", err->message);
        abort();
    }
}

static inline void put_f16(unsigned char *at, float value)
{
    uint16_t h = sl_f32_to_f16(value);
    memcpy(at, &h, sizeof h);
}

/* Random bytes, then scales that keep the weights near 0.05. */
static inline unsigned char *random_blocks(sl_type type, uint64_t n_elems, uint32_t *seed)
{
    const sl_type_info *info = sl_type_get(type);
    size_t n_blocks = n_elems / info->block_elems, n_bytes = n_blocks * info->block_bytes;
    unsigned char *bytes = malloc(n_bytes);
    for (size_t i = 0; i < n_bytes; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        bytes[i] = (unsigned char)(*seed >> 24);
    }
    for (size_t b = 0; b < n_blocks; b++) {
        unsigned char *block = bytes + b * info->block_bytes;
        float wobble = 1.0f + (float)(b % 13) * 0.05f;
        switch (type) {
        case SL_TYPE_F16: /* 2^-5 to 2^-4, either sign */
            block[1] = (unsigned char)((block[1] & 0x83) | 0x28);
            break;
        case SL_TYPE_BF16:
            block[1] = (unsigned char)((block[1] & 0x80) | 0x3d);
            break;
        case SL_TYPE_Q4_1:
            put_f16(block, 0.01f * wobble);
            put_f16(block + 2, -0.075f * wobble);
            break;
        case SL_TYPE_Q5_1:
            put_f16(block, 0.005f * wobble);
            put_f16(block + 2, -0.075f * wobble);
            break;
        case SL_TYPE_Q2_K:
            put_f16(block + 80, 0.004f * wobble);
            put_f16(block + 82, 0.006f * wobble);
            break;
        case SL_TYPE_Q3_K:
            put_f16(block + 108, 0.001f * wobble);
            break;
        case SL_TYPE_Q5_K:
            put_f16(block, 0.00015f * wobble);
            put_f16(block + 2, 0.002f * wobble);
            break;
        case SL_TYPE_IQ4_NL:
            put_f16(block, 0.0006f * wobble);
            break;
        case SL_TYPE_IQ4_XS:
            put_f16(block, 0.00004f * wobble);
            break;
        case SL_TYPE_MXFP4: /* units of 2^-8 and 2^-7, near half of the largest value */
            block[0] = (unsigned char)(120 + (block[0] & 1));
            break;
        case SL_TYPE_Q8_0:
            put_f16(block, 0.0006f * wobble);
            break;
        case SL_TYPE_Q4_K:
            put_f16(block, 0.0003f * wobble);
            put_f16(block + 2, 0.002f * wobble);
            break;
        case SL_TYPE_Q6_K:
            put_f16(block + 208, 0.00003f * wobble);
            break;
        default: /* Q4_0, Q5_0 */
            put_f16(block, 0.006f * wobble);
        }
    }
    return bytes;
}

static inline void random_model_write(const char *path, const char *vocabulary_path)
{
    static const sl_type types[] = {SL_TYPE_Q4_0, SL_TYPE_Q4_1, SL_TYPE_Q5_0,   SL_TYPE_Q8_0,   SL_TYPE_Q4_K,
                                    SL_TYPE_Q6_K, SL_TYPE_F16,  SL_TYPE_BF16,   SL_TYPE_Q5_1,   SL_TYPE_Q2_K,
                                    SL_TYPE_Q3_K, SL_TYPE_Q5_K, SL_TYPE_IQ4_NL, SL_TYPE_IQ4_XS, SL_TYPE_MXFP4};
    static const struct {
        const char *name;
        uint64_t cols, rows;
    } matrices[] = {
        {"attn_q", RANDOM_EMBD, RANDOM_EMBD}, {"attn_k", RANDOM_EMBD, 128},
        {"attn_v", RANDOM_EMBD, 128},         {"attn_output", RANDOM_EMBD, RANDOM_EMBD},
        {"ffn_gate", RANDOM_EMBD, RANDOM_FF}, {"ffn_up", RANDOM_EMBD, RANDOM_FF},
        {"ffn_down", RANDOM_FF, RANDOM_EMBD},
    };
    enum { N_MATRICES = sizeof matrices / sizeof matrices[0] };
    unsigned char *data[RANDOM_LAYERS * N_MATRICES + 1];
    _Static_assert(sizeof types / sizeof types[0] <= RANDOM_LAYERS * N_MATRICES, "each type occurs");
    static float ones[RANDOM_EMBD];
    for (int i = 0; i < RANDOM_EMBD; i++)
        ones[i] = 0.9f + 0.001f * (float)i;
    sl_gguf *source;
    sl_gguf_writer *w;
    sl_err err;
    uint32_t seed = 99;
    random_require(sl_gguf_open(vocabulary_path, 0, &source, &err), &err);
    random_require(sl_gguf_writer_open(&w, &err), &err);
    for (size_t i = 0; i < sl_gguf_n_values(source); i++) {
        const sl_gguf_value *value = sl_gguf_value_at(source, i);
        if (value->key.n_bytes > 9 && memcmp(value->key.bytes, "tokenizer", 9) == 0)
            random_require(sl_gguf_writer_copy_value(w, value, &err), &err);
    }
    random_require(sl_gguf_writer_set_string(w, "general.architecture", "llama", &err), &err);
    static const struct {
        const char *key;
        uint32_t value;
    } numbers[] = {{"llama.block_count", RANDOM_LAYERS},     {"llama.embedding_length", RANDOM_EMBD},
                   {"llama.feed_forward_length", RANDOM_FF}, {"llama.context_length", 2048},
                   {"llama.attention.head_count", 4},        {"llama.attention.head_count_kv", 2}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        random_require(sl_gguf_writer_set_u32(w, numbers[i].key, numbers[i].value, &err), &err);
    const uint64_t vector[1] = {RANDOM_EMBD}, embed[2] = {RANDOM_EMBD, RANDOM_VOCAB};
    int n = 0;
    for (uint32_t l = 0; l < RANDOM_LAYERS; l++) {
        char name[64];
        for (int m = 0; m < N_MATRICES; m++, n++) {
            sl_type type = types[(size_t)n % (sizeof types / sizeof types[0])];
            uint64_t ne[2] = {matrices[m].cols, matrices[m].rows};
            data[n] = random_blocks(type, ne[0] * ne[1], &seed);
            snprintf(name, sizeof name, "blk.%u.%s.weight", l, matrices[m].name);
            random_require(sl_gguf_writer_add_tensor(w, name, type, 2, ne, data[n], &err), &err);
        }
        snprintf(name, sizeof name, "blk.%u.attn_norm.weight", l);
        random_require(sl_gguf_writer_add_tensor(w, name, SL_TYPE_F32, 1, vector, ones, &err), &err);
        snprintf(name, sizeof name, "blk.%u.ffn_norm.weight", l);
        random_require(sl_gguf_writer_add_tensor(w, name, SL_TYPE_F32, 1, vector, ones, &err), &err);
    }
    data[n] = random_blocks(SL_TYPE_Q8_0, embed[0] * embed[1], &seed);
    random_require(sl_gguf_writer_add_tensor(w, "token_embd.weight", SL_TYPE_Q8_0, 2, embed, data[n], &err), &err);
    random_require(sl_gguf_writer_add_tensor(w, "output_norm.weight", SL_TYPE_F32, 1, vector, ones, &err), &err);
    random_require(sl_gguf_writer_write(w, path, &err), &err);
    sl_gguf_writer_close(w);
    sl_gguf_close(source);
    for (int i = 0; i <= n; i++)
        free(data[i]);
}

#endif
