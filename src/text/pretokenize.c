#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenize.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/pre_table.h"

/* Limits of one match in the interpreter, which only runs where JIT cannot. */
#define MATCH_LIMIT     10000000
#define HEAP_LIMIT_KIB  65536
#define JIT_STACK_BYTES ((size_t)1 << 20)
#define ILL_FORMED      (UINT32_C(1) << 31) /* flag in a piece length while the passes run */

struct sl_pretokenizer {
    const sl_pre_rule *rule;
    pcre2_code *codes[SL_PRE_MAX_PATTERNS];
    int n_codes;
};

struct sl_pretokenizer_run {
    const sl_pretokenizer *pre;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    pcre2_match_data *data;
    sl_pieces pieces[2];
};

static sl_status compile(const char *pattern, pcre2_code **out, sl_err *err)
{
    int code;
    PCRE2_SIZE at;
    *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!*out)
        SL_FAIL(err, SL_ERR_INTERNAL, "pre-tokenizer: pattern error %d at %zu", code, (size_t)at);
    /* Without JIT support in the library the interpreter does the same work. */
    (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
    return SL_OK;
}

sl_status sl_pretokenizer_open(sl_bytes name, sl_pretokenizer **out, sl_err *err)
{
    const sl_pre_rule *rule = sl_pre_rule_find(name.bytes, name.n_bytes);
    *out = NULL;
    if (!rule)
        SL_FAIL(err, SL_ERR_UNSUPPORTED, "unknown pre-tokenizer \"%.*s\"", (int)SL_MIN(name.n_bytes, 64), name.bytes);
    sl_pretokenizer *pre = calloc(1, sizeof *pre);
    if (!pre)
        SL_FAIL(err, SL_ERR_NOMEM, "pre-tokenizer: out of memory");
    pre->rule = rule;
    for (int i = 0; i < SL_PRE_MAX_PATTERNS && rule->patterns[i]; i++) {
        sl_status status = compile(rule->patterns[i], &pre->codes[i], err);
        if (status != SL_OK) {
            sl_pretokenizer_close(pre);
            return status;
        }
        pre->n_codes++;
    }
    *out = pre;
    return SL_OK;
}

void sl_pretokenizer_close(sl_pretokenizer *pre)
{
    if (!pre)
        return;
    for (int i = 0; i < pre->n_codes; i++)
        pcre2_code_free(pre->codes[i]);
    free(pre);
}

bool sl_pretokenizer_ignores_merges(const sl_pretokenizer *pre)
{
    return pre->rule->ignore_merges;
}

bool sl_vocab_default_add_bos(sl_vocab_kind kind, sl_bytes pre)
{
    const sl_pre_rule *rule = kind == SL_VOCAB_BPE ? sl_pre_rule_find(pre.bytes, pre.n_bytes) : NULL;
    return kind == SL_VOCAB_SPM || (rule && rule->add_bos);
}

sl_status sl_pretokenizer_run_open(const sl_pretokenizer *pre, sl_pretokenizer_run **out, sl_err *err)
{
    sl_pretokenizer_run *run = calloc(1, sizeof *run);
    *out = run;
    if (!run)
        SL_FAIL(err, SL_ERR_NOMEM, "pre-tokenizer: out of memory");
    run->pre = pre;
    run->context = pcre2_match_context_create(NULL);
    run->stack = pcre2_jit_stack_create(32 * 1024, JIT_STACK_BYTES, NULL); /* NULL where there is no JIT: allowed */
    run->data = pcre2_match_data_create(1, NULL);
    if (!run->context || !run->data) {
        sl_pretokenizer_run_close(run);
        *out = NULL;
        SL_FAIL(err, SL_ERR_NOMEM, "pre-tokenizer: out of memory");
    }
    pcre2_set_match_limit(run->context, MATCH_LIMIT);
    pcre2_set_heap_limit(run->context, HEAP_LIMIT_KIB);
    if (run->stack)
        pcre2_jit_stack_assign(run->context, NULL, run->stack);
    return SL_OK;
}

void sl_pretokenizer_run_close(sl_pretokenizer_run *run)
{
    if (!run)
        return;
    pcre2_match_context_free(run->context);
    pcre2_jit_stack_free(run->stack);
    pcre2_match_data_free(run->data);
    free(run->pieces[0].lengths);
    free(run->pieces[1].lengths);
    free(run);
}

static sl_status push_piece(sl_pieces *pieces, uint32_t length, sl_err *err)
{
    if (pieces->n == pieces->capacity) {
        size_t capacity = pieces->capacity ? pieces->capacity * 2 : 256;
        uint32_t *lengths = realloc(pieces->lengths, capacity * sizeof *lengths);
        if (!lengths)
            SL_FAIL(err, SL_ERR_NOMEM, "pre-tokenizer: out of memory");
        pieces->lengths = lengths;
        pieces->capacity = capacity;
    }
    pieces->lengths[pieces->n++] = length;
    return SL_OK;
}

/* Pieces of well-formed and of ill-formed bytes in turn; the latter flagged, as no pattern may see them. */
static sl_status split_ill_formed(sl_pieces *pieces, const char *bytes, size_t n_bytes, sl_err *err)
{
    size_t begin = 0, at = 0;
    bool ill_formed = false;
    while (at < n_bytes) {
        int length = (unsigned char)bytes[at] < 0x80 ? 1 : sl_utf8_decode(bytes + at, n_bytes - at, NULL);
        if ((length <= 0) != ill_formed) {
            if (at > begin)
                SL_TRY(push_piece(pieces, (uint32_t)(at - begin) | (ill_formed ? ILL_FORMED : 0), err));
            begin = at;
            ill_formed = !ill_formed;
        }
        at += length > 0 ? (size_t)length : 1;
    }
    if (at > begin)
        SL_TRY(push_piece(pieces, (uint32_t)(at - begin) | (ill_formed ? ILL_FORMED : 0), err));
    return SL_OK;
}

/* Appends the matches of code in n_bytes, and the gaps between them. */
static sl_status split_piece(sl_pretokenizer_run *run, const pcre2_code *code, const char *bytes, size_t n_bytes,
                             sl_pieces *out, sl_err *err)
{
    const PCRE2_SIZE *match = pcre2_get_ovector_pointer(run->data);
    size_t done = 0; /* everything before it is in a piece */
    while (done < n_bytes) {
        int rc = pcre2_match(code, (PCRE2_SPTR)bytes, n_bytes, done, PCRE2_NO_UTF_CHECK, run->data, run->context);
        if (rc < 0 || match[1] <= match[0]) /* no match, or a limit was hit: the rest stays whole */
            return push_piece(out, (uint32_t)(n_bytes - done), err);
        if (match[0] > done)
            SL_TRY(push_piece(out, (uint32_t)(match[0] - done), err));
        SL_TRY(push_piece(out, (uint32_t)(match[1] - match[0]), err));
        done = match[1];
    }
    return SL_OK;
}

sl_status sl_pretokenizer_split(sl_pretokenizer_run *run, const char *bytes, size_t n_bytes, const sl_pieces **out,
                                sl_err *err)
{
    sl_pieces *from = &run->pieces[0], *to = &run->pieces[1];
    if (n_bytes >= ILL_FORMED / 2)
        SL_FAIL(err, SL_ERR_LIMIT, "pre-tokenizer: text above 1 GiB");
    from->n = 0;
    SL_TRY(split_ill_formed(from, bytes, n_bytes, err));
    for (int pass = 0; pass < run->pre->n_codes; pass++) {
        const char *at = bytes;
        to->n = 0;
        for (size_t i = 0; i < from->n; i++) {
            uint32_t length = from->lengths[i];
            if (length & ILL_FORMED)
                SL_TRY(push_piece(to, length, err));
            else
                SL_TRY(split_piece(run, run->pre->codes[pass], at, length, to, err));
            at += length & ~ILL_FORMED;
        }
        sl_pieces *swap = from;
        from = to;
        to = swap;
    }
    for (size_t i = 0; i < from->n; i++)
        from->lengths[i] &= ~ILL_FORMED;
    *out = from;
    return SL_OK;
}
