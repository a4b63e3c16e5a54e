/* Parser of chat templates: recursive descent with a depth limit, after the grammar of Jinja 3.1's parser. */
#include <string.h>

#include "text/template_ast.h"
#include "text/template_parse.h"

sl_status sl_template_intern(sl_template *tmpl, sl_bytes text, uint32_t *out, sl_err *err)
{
    for (*out = 0; *out < tmpl->n_names; ++*out) {
        sl_bytes known = tmpl->names[*out].text;
        if (known.n_bytes == text.n_bytes && memcmp(known.bytes, text.bytes, text.n_bytes) == 0)
            return SL_OK;
    }
    if (tmpl->n_names == SL_TEMPLATE_MAX_NAMES)
        SL_FAIL(err, SL_ERR_LIMIT, "template: more than %d names", SL_TEMPLATE_MAX_NAMES);
    if (tmpl->n_names == tmpl->name_capacity) {
        uint32_t capacity = tmpl->name_capacity ? tmpl->name_capacity * 2 : 32;
        struct sl_tname *names = sl_arena_array(&tmpl->arena, capacity, sizeof *names);
        if (!names)
            SL_FAIL(err, SL_ERR_NOMEM, "template: out of memory");
        if (tmpl->n_names)
            memcpy(names, tmpl->names, tmpl->n_names * sizeof *names);
        tmpl->names = names;
        tmpl->name_capacity = capacity;
    }
    tmpl->names[tmpl->n_names++] = (struct sl_tname){.text = text};
    return SL_OK;
}

sl_status sl_tparser_node(sl_tparser *p, sl_tnode_kind kind, sl_tnode **out)
{
    *out = sl_arena_alloc(&p->tmpl->arena, sizeof **out);
    if (!*out)
        SL_FAIL(p->err, SL_ERR_NOMEM, "template: out of memory");
    (*out)->kind = (uint8_t)kind;
    (*out)->line = p->at->line;
    return SL_OK;
}

sl_status sl_tparser_enter(sl_tparser *p)
{
    if (++p->depth > SL_TEMPLATE_MAX_NESTING)
        SL_FAIL(p->err, SL_ERR_LIMIT, "template line %u: nested more than %d deep", p->at->line,
                SL_TEMPLATE_MAX_NESTING);
    return SL_OK;
}

bool sl_tparser_at_op(const sl_tparser *p, const char *op)
{
    return p->at->kind == SL_TT_OP && sl_bytes_are(p->at->text, op);
}

bool sl_tparser_at_name(const sl_tparser *p, const char *name)
{
    return p->at->kind == SL_TT_NAME && sl_bytes_are(p->at->text, name);
}

bool sl_tparser_take_op(sl_tparser *p, const char *op)
{
    bool is = sl_tparser_at_op(p, op);
    p->at += is;
    return is;
}

bool sl_tparser_take_name(sl_tparser *p, const char *name)
{
    bool is = sl_tparser_at_name(p, name);
    p->at += is;
    return is;
}

static const char *describe(const sl_ttoken *token)
{
    static const char *const names[] = {
        [SL_TT_END] = "the end of the template",
        [SL_TT_DATA] = "text",
        [SL_TT_VAR_BEGIN] = "{{",
        [SL_TT_VAR_END] = "}}",
        [SL_TT_BLOCK_BEGIN] = "{%",
        [SL_TT_BLOCK_END] = "%}",
        [SL_TT_STRING] = "a string",
        [SL_TT_INT] = "a number",
        [SL_TT_FLOAT] = "a number",
        [SL_TT_OP] = "",
    };
    return names[token->kind] ? names[token->kind] : "";
}

sl_status sl_tparser_unexpected(sl_tparser *p, const char *expected)
{
    SL_FAIL(p->err, SL_ERR_FORMAT, "template line %u: expected %s, found %s%.*s", p->at->line, expected,
            describe(p->at),
            p->at->kind == SL_TT_NAME || p->at->kind == SL_TT_OP ? (int)SL_MIN(p->at->text.n_bytes, 40) : 0,
            p->at->text.bytes ? p->at->text.bytes : "");
}

sl_status sl_tparser_expect_op(sl_tparser *p, const char *op)
{
    return sl_tparser_take_op(p, op) ? SL_OK : sl_tparser_unexpected(p, op);
}

static sl_status end_block(sl_tparser *p)
{
    if (p->at->kind != SL_TT_BLOCK_END)
        return sl_tparser_unexpected(p, "%}");
    p->at++;
    return SL_OK;
}

/* At {% followed by one of the words of a NULL-ended list. */
static bool at_block_word(const sl_tparser *p, const char *const *words)
{
    if (p->at->kind != SL_TT_BLOCK_BEGIN || p->at[1].kind != SL_TT_NAME)
        return false;
    for (; *words; words++)
        if (sl_bytes_are(p->at[1].text, *words))
            return true;
    return false;
}

static sl_status parse_statement(sl_tparser *p, sl_tnode **out);

/* Text, outputs and statements up to {% with one of the end words (which stays), or, without words, the end. */
static sl_status parse_body(sl_tparser *p, const char *const *ends, sl_tnode **out)
{
    const sl_ttoken *begin = p->at;
    SL_TRY(sl_tparser_enter(p));
    while (p->at->kind != SL_TT_END && !(ends && at_block_word(p, ends))) {
        sl_tnode *node = NULL;
        if (p->at->kind == SL_TT_DATA) {
            SL_TRY(sl_tparser_node(p, SL_TN_TEXT, &node));
            node->text = (p->at++)->text;
        } else if (p->at->kind == SL_TT_VAR_BEGIN) {
            SL_TRY(sl_tparser_node(p, SL_TN_OUTPUT, &node));
            p->at++;
            SL_TRY(sl_tparser_tuple(p, &node->a));
            if (p->at->kind != SL_TT_VAR_END)
                return sl_tparser_unexpected(p, "}}");
            p->at++;
        } else {
            SL_TRY(parse_statement(p, &node));
        }
        *out = node;
        out = &node->next;
    }
    if (ends && p->at->kind == SL_TT_END)
        SL_FAIL(p->err, SL_ERR_FORMAT, "template line %u: the block has no %s", begin->line, ends[0]);
    p->depth--;
    return SL_OK;
}

/* {% word %} whose word is known to be there. */
static sl_status skip_block(sl_tparser *p)
{
    p->at += 2;
    return end_block(p);
}

static sl_status parse_if(sl_tparser *p, sl_tnode **out)
{
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    sl_tnode **branch;
    SL_TRY(sl_tparser_node(p, SL_TN_IF, out));
    branch = &(*out)->list;
    for (bool more = true; more; branch = &(*branch)->next) {
        SL_TRY(sl_tparser_node(p, SL_TN_BRANCH, branch));
        SL_TRY(sl_tparser_tuple(p, &(*branch)->a));
        SL_TRY(end_block(p));
        SL_TRY(parse_body(p, ends, &(*branch)->list));
        more = sl_bytes_are(p->at[1].text, "elif");
        p->at += more ? 2 : 0;
    }
    if (sl_bytes_are(p->at[1].text, "else")) {
        SL_TRY(skip_block(p));
        SL_TRY(sl_tparser_node(p, SL_TN_BRANCH, branch));
        SL_TRY(parse_body(p, (const char *const[]){"endif", NULL}, &(*branch)->list));
    }
    return skip_block(p);
}

/* Name, or names between commas, that a loop or an assignment sets. */
static sl_status parse_target(sl_tparser *p, bool allow_attr, sl_tnode **out)
{
    bool in_brackets = sl_tparser_take_op(p, "(");
    sl_tnode *tuple = NULL, **item = out;
    for (;;) {
        if (p->at->kind != SL_TT_NAME)
            return sl_tparser_unexpected(p, "a name");
        SL_TRY(sl_tparser_name(p, item));
        if (allow_attr && !tuple && sl_tparser_take_op(p, ".")) {
            sl_tnode *object = *item;
            SL_TRY(sl_tparser_node(p, SL_TN_ATTR, out));
            (*out)->a = object;
            (*out)->text = (p->at++)->text;
            return SL_OK;
        }
        if (!sl_tparser_take_op(p, ","))
            break;
        if (!tuple) {
            sl_tnode *first = *out;
            SL_TRY(sl_tparser_node(p, SL_TN_TUPLE, &tuple));
            tuple->list = first;
            *out = tuple;
            item = &tuple->list;
        }
        item = &(*item)->next;
    }
    return in_brackets ? sl_tparser_expect_op(p, ")") : SL_OK;
}

static sl_status parse_for(sl_tparser *p, sl_tnode **out)
{
    SL_TRY(sl_tparser_node(p, SL_TN_FOR, out));
    SL_TRY(parse_target(p, false, &(*out)->a));
    if (!sl_tparser_take_name(p, "in"))
        return sl_tparser_unexpected(p, "in");
    SL_TRY(sl_tparser_or(p, &(*out)->b));
    if (sl_tparser_take_name(p, "if"))
        SL_TRY(sl_tparser_expression(p, &(*out)->c));
    if (sl_tparser_at_name(p, "recursive"))
        SL_FAIL(p->err, SL_ERR_UNSUPPORTED, "template line %u: recursive loops are not supported", p->at->line);
    SL_TRY(end_block(p));
    p->loop_depth++;
    SL_TRY(parse_body(p, (const char *const[]){"endfor", "else", NULL}, &(*out)->list));
    p->loop_depth--;
    if (sl_bytes_are(p->at[1].text, "else")) {
        SL_TRY(skip_block(p));
        SL_TRY(parse_body(p, (const char *const[]){"endfor", NULL}, &(*out)->list2));
    }
    return skip_block(p);
}

static sl_status parse_set(sl_tparser *p, sl_tnode **out)
{
    SL_TRY(sl_tparser_node(p, SL_TN_SET, out));
    SL_TRY(parse_target(p, true, &(*out)->a));
    if (sl_tparser_take_op(p, "=")) {
        SL_TRY(sl_tparser_tuple(p, &(*out)->b));
        return end_block(p);
    }
    (*out)->kind = SL_TN_SET_BLOCK;
    SL_TRY(sl_tparser_node(p, SL_TN_CAPTURED, &(*out)->b));
    while (sl_tparser_take_op(p, "|"))
        SL_TRY(sl_tparser_filter(p, &(*out)->b));
    SL_TRY(end_block(p));
    SL_TRY(parse_body(p, (const char *const[]){"endset", NULL}, &(*out)->list));
    return skip_block(p);
}

static sl_status parse_filter_block(sl_tparser *p, sl_tnode **out)
{
    SL_TRY(sl_tparser_node(p, SL_TN_FILTER_BLOCK, out));
    SL_TRY(sl_tparser_node(p, SL_TN_CAPTURED, &(*out)->b));
    do
        SL_TRY(sl_tparser_filter(p, &(*out)->b));
    while (sl_tparser_take_op(p, "|"));
    SL_TRY(end_block(p));
    SL_TRY(parse_body(p, (const char *const[]){"endfilter", NULL}, &(*out)->list));
    return skip_block(p);
}

static sl_status parse_macro(sl_tparser *p, sl_tnode **out)
{
    SL_TRY(sl_tparser_node(p, SL_TN_MACRO, out));
    if (p->at->kind != SL_TT_NAME)
        return sl_tparser_unexpected(p, "a name");
    (*out)->text = p->at->text;
    SL_TRY(sl_template_intern(p->tmpl, p->at->text, &(*out)->name, p->err));
    p->at++;
    SL_TRY(sl_tparser_expect_op(p, "("));
    for (sl_tnode **param = &(*out)->list2; !sl_tparser_at_op(p, ")"); param = &(*param)->next) {
        if ((*out)->list2)
            SL_TRY(sl_tparser_expect_op(p, ","));
        if (sl_tparser_at_op(p, ")"))
            break;
        if (p->at->kind != SL_TT_NAME)
            return sl_tparser_unexpected(p, "a name");
        SL_TRY(sl_tparser_name(p, param));
        if (sl_tparser_take_op(p, "="))
            SL_TRY(sl_tparser_expression(p, &(*param)->a));
    }
    p->at++;
    SL_TRY(end_block(p));
    unsigned loop_depth = p->loop_depth;
    p->loop_depth = 0;
    SL_TRY(parse_body(p, (const char *const[]){"endmacro", NULL}, &(*out)->list));
    p->loop_depth = loop_depth;
    return skip_block(p);
}

static sl_status parse_generation(sl_tparser *p, sl_tnode **out)
{
    SL_TRY(sl_tparser_node(p, SL_TN_SCOPE, out));
    SL_TRY(end_block(p));
    SL_TRY(parse_body(p, (const char *const[]){"endgeneration", NULL}, &(*out)->list));
    return skip_block(p);
}

static sl_status parse_statement(sl_tparser *p, sl_tnode **out)
{
    if (p->at->kind != SL_TT_BLOCK_BEGIN)
        return sl_tparser_unexpected(p, "a tag");
    p->at++;
    if (p->at->kind != SL_TT_NAME)
        return sl_tparser_unexpected(p, "the name of a tag");
    if (sl_tparser_take_name(p, "if"))
        return parse_if(p, out);
    if (sl_tparser_take_name(p, "for"))
        return parse_for(p, out);
    if (sl_tparser_take_name(p, "set"))
        return parse_set(p, out);
    if (sl_tparser_take_name(p, "macro"))
        return parse_macro(p, out);
    if (sl_tparser_take_name(p, "filter"))
        return parse_filter_block(p, out);
    if (sl_tparser_take_name(p, "generation"))
        return parse_generation(p, out);
    bool is_break = sl_tparser_at_name(p, "break");
    if (p->loop_depth && (is_break || sl_tparser_at_name(p, "continue"))) {
        SL_TRY(sl_tparser_node(p, is_break ? SL_TN_BREAK : SL_TN_CONTINUE, out));
        p->at++;
        return end_block(p);
    }
    static const char *const known[] = {"call", "block", "extends",    "include", "import",
                                        "from", "with",  "autoescape", "do"};
    for (size_t i = 0; i < SL_COUNTOF(known); i++)
        if (sl_tparser_at_name(p, known[i]))
            SL_FAIL(p->err, SL_ERR_UNSUPPORTED, "template line %u: {%% %s %%} is not supported", p->at->line, known[i]);
    SL_FAIL(p->err, SL_ERR_FORMAT, "template line %u: unexpected tag \"%.*s\"", p->at->line,
            (int)SL_MIN(p->at->text.n_bytes, 40), p->at->text.bytes);
}

/* Notes the names of all macros, so that a call may come before the definition. */
static sl_status find_macros(sl_tparser *p)
{
    uint32_t name;
    for (size_t i = 2; i < p->tokens->n; i++) {
        const sl_ttoken *token = &p->tokens->items[i];
        if (token->kind != SL_TT_NAME || token[-1].kind != SL_TT_NAME || token[-2].kind != SL_TT_BLOCK_BEGIN ||
            !sl_bytes_are(token[-1].text, "macro"))
            continue;
        SL_TRY(sl_template_intern(p->tmpl, token->text, &name, p->err));
        p->tmpl->names[name].is_macro = true;
    }
    return SL_OK;
}

sl_status sl_template_parse(sl_template *tmpl, const sl_ttokens *tokens, sl_err *err)
{
    sl_tparser p = {.tmpl = tmpl, .tokens = tokens, .at = tokens->items, .err = err};
    SL_TRY(find_macros(&p));
    return parse_body(&p, NULL, &tmpl->body);
}
