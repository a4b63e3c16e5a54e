/* Reads the packed vocabularies of tests/golden/vocab; tools/vocab_vectors.py writes them and describes the format. */
#ifndef SL_TESTS_VOCAB_FILE_H
#define SL_TESTS_VOCAB_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "text/vocab.h"

typedef struct vocab_reader {
    const unsigned char *at, *end;
} vocab_reader;

/* Whole file with a NUL after it; the caller frees it. Aborts the test program when it cannot be read. */
static inline char *read_golden(const char *name, size_t *n_bytes)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", SL_TEST_GOLDEN_DIR, name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "cannot read %s\n", path);
        abort();
    }
    fseek(file, 0, SEEK_END);
    *n_bytes = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*n_bytes + 1);
    if (!bytes || fread(bytes, 1, *n_bytes, file) != *n_bytes)
        abort();
    bytes[*n_bytes] = '\0';
    fclose(file);
    return bytes;
}

static inline const unsigned char *vf_take(vocab_reader *r, size_t n)
{
    if ((size_t)(r->end - r->at) < n)
        abort();
    r->at += n;
    return r->at - n;
}

static inline uint64_t vf_varint(vocab_reader *r)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        unsigned byte = *vf_take(r, 1);
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            break;
    }
    return value;
}

static inline int64_t vf_zigzag(vocab_reader *r)
{
    uint64_t n = vf_varint(r);
    return n & 1 ? -(int64_t)(n / 2) - 1 : (int64_t)(n / 2);
}

static inline sl_bytes vf_join(sl_arena *arena, sl_bytes left, sl_bytes right, const char *between)
{
    size_t n_between = strlen(between);
    sl_bytes out = {0};
    char *bytes = sl_arena_alloc(arena, left.n_bytes + n_between + right.n_bytes + 1);
    if (!bytes)
        abort();
    memcpy(bytes, left.bytes, left.n_bytes);
    memcpy(bytes + left.n_bytes, between, n_between);
    memcpy(bytes + left.n_bytes + n_between, right.bytes, right.n_bytes);
    out.bytes = bytes;
    out.n_bytes = left.n_bytes + n_between + right.n_bytes;
    return out;
}

static inline void vf_read_merges(vocab_reader *r, sl_vocab_desc *desc, sl_arena *arena)
{
    sl_bytes *tokens = sl_arena_array(arena, desc->n_tokens, sizeof *tokens);
    sl_bytes *merges = sl_arena_array(arena, desc->n_merges + 1, sizeof *merges);
    uint32_t(*pairs)[3] = sl_arena_array(arena, desc->n_merges + 1, sizeof *pairs);
    uint32_t last = UINT32_MAX;
    if (!tokens || !merges || !pairs)
        abort();
    for (uint32_t i = 0; i < desc->n_merges; i++) {
        pairs[i][0] = (uint32_t)vf_varint(r);
        pairs[i][1] = (uint32_t)vf_varint(r);
        pairs[i][2] = last = (uint32_t)((int64_t)last + 1 + vf_zigzag(r));
    }
    uint64_t n_explicit = vf_varint(r);
    for (uint64_t id = 0, i = 0; i < n_explicit; i++) {
        id += vf_varint(r);
        tokens[id].n_bytes = vf_varint(r);
        tokens[id].bytes = (const char *)vf_take(r, tokens[id].n_bytes);
    }
    for (uint32_t i = 0; i < desc->n_merges; i++) {
        sl_bytes left = tokens[pairs[i][0]], right = tokens[pairs[i][1]];
        if (!tokens[pairs[i][2]].bytes && left.bytes && right.bytes)
            tokens[pairs[i][2]] = vf_join(arena, left, right, "");
    }
    for (uint32_t i = 0; i < desc->n_merges; i++)
        merges[i] = vf_join(arena, tokens[pairs[i][0]], tokens[pairs[i][1]], " ");
    desc->tokens = tokens;
    desc->merges = merges;
}

/* Description of the vocabulary golden/vocab/<name>.vocab; arrays live in the arena, texts in *file (to be freed). */
static inline sl_vocab_desc read_vocab_desc(const char *name, sl_arena *arena, char **file)
{
    char path[128];
    size_t n_bytes;
    snprintf(path, sizeof path, "vocab/%s.vocab", name);
    *file = read_golden(path, &n_bytes);
    vocab_reader r = {(const unsigned char *)*file, (const unsigned char *)*file + n_bytes};
    sl_vocab_desc desc = {0};
    if (memcmp(vf_take(&r, 4), "SLV1", 4) != 0)
        abort();
    desc.kind = *vf_take(&r, 1) ? SL_VOCAB_SPM : SL_VOCAB_BPE;
    desc.add_bos = *vf_take(&r, 1);
    desc.add_eos = *vf_take(&r, 1);
    desc.add_space_prefix = *vf_take(&r, 1);
    desc.pre.n_bytes = vf_varint(&r);
    desc.pre.bytes = (const char *)vf_take(&r, desc.pre.n_bytes);
    desc.n_tokens = (uint32_t)vf_varint(&r);
    desc.n_merges = (uint32_t)vf_varint(&r);
    desc.bos = vf_zigzag(&r);
    desc.eos = vf_zigzag(&r);
    desc.eot = vf_zigzag(&r);
    desc.unk = vf_zigzag(&r);
    desc.pad = vf_zigzag(&r);
    vf_read_merges(&r, &desc, arena);
    int32_t *types = sl_arena_array(arena, desc.n_tokens, sizeof *types);
    float *scores = sl_arena_array(arena, desc.n_tokens, sizeof *scores);
    if (!types || !scores)
        abort();
    for (uint32_t i = 0; i < desc.n_tokens;) {
        uint64_t n = vf_varint(&r);
        unsigned type = *vf_take(&r, 1);
        while (n--)
            types[i++] = (int32_t)type;
    }
    for (uint32_t i = 0; desc.kind == SL_VOCAB_SPM && i < desc.n_tokens;) {
        float run[2];
        uint64_t n = vf_varint(&r);
        memcpy(run, vf_take(&r, sizeof run), sizeof run);
        for (uint64_t k = 0; k < n; k++)
            scores[i++] = run[0] + run[1] * (float)k;
    }
    desc.types = types;
    desc.scores = scores;
    return desc;
}

#endif
