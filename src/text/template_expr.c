/* Expressions of chat templates. Precedence after Jinja 3.1: inline if, or, and, not, comparisons, + -, ~, * / // %, **,
 * unary, then postfix, filters and tests. */
#include <stdlib.h>
#include <string.h>

#include "text/template_builtin.h"
#include "text/template_parse.h"

static sl_status parse_unary(sl_tparser *p, bool with_filter, sl_tnode **out);

sl_status sl_tparser_name(sl_tparser *p, sl_tnode **out)
{
    SL_TRY(sl_tparser_node(p, SL_TN_NAME, out));
    (*out)->text = p->at->text;
    SL_TRY(sl_template_intern(p->tmpl, p->at->text, &(*out)->name, p->err));
    p->at++;
    return SL_OK;
}

/* Elements between commas up to the closing bracket, which it takes. */
static sl_status parse_items(sl_tparser *p, const char *close, sl_tnode **out)
{
    while (!sl_tparser_at_op(p, close)) {
        SL_TRY(sl_tparser_expression(p, out));
        out = &(*out)->next;
        if (!sl_tparser_take_op(p, ","))
            break;
    }
    return sl_tparser_expect_op(p, close);
}

/* Arguments after "(", up to and with ")". */
static sl_status parse_arguments(sl_tparser *p, sl_tnode **out)
{
    bool keywords = false;
    while (!sl_tparser_at_op(p, ")")) {
        if (sl_tparser_at_op(p, "*") || sl_tparser_at_op(p, "**"))
            SL_FAIL(p->err, SL_ERR_UNSUPPORTED, "template line %u: * arguments are not supported", p->at->line);
        if (p->at->kind == SL_TT_NAME && p->at[1].kind == SL_TT_OP && sl_bytes_are(p->at[1].text, "=")) {
            SL_TRY(sl_tparser_node(p, SL_TN_KEYWORD, out));
            (*out)->text = p->at->text;
            p->at += 2;
            SL_TRY(sl_tparser_expression(p, &(*out)->a));
            keywords = true;
        } else if (keywords) {
            return sl_tparser_unexpected(p, "a keyword argument");
        } else {
            SL_TRY(sl_tparser_expression(p, out));
        }
        out = &(*out)->next;
        if (!sl_tparser_take_op(p, ","))
            break;
    }
    return sl_tparser_expect_op(p, ")");
}

static sl_status parse_dict(sl_tparser *p, sl_tnode **out)
{
    SL_TRY(sl_tparser_node(p, SL_TN_DICT, out));
    sl_tnode **pair = &(*out)->list;
    while (!sl_tparser_at_op(p, "}")) {
        SL_TRY(sl_tparser_node(p, SL_TN_PAIR, pair));
        SL_TRY(sl_tparser_expression(p, &(*pair)->a));
        SL_TRY(sl_tparser_expect_op(p, ":"));
        SL_TRY(sl_tparser_expression(p, &(*pair)->b));
        pair = &(*pair)->next;
        if (!sl_tparser_take_op(p, ","))
            break;
    }
    return sl_tparser_expect_op(p, "}");
}

/* After "(": an expression in brackets, or a tuple. */
static sl_status parse_brackets(sl_tparser *p, sl_tnode **out)
{
    if (sl_tparser_take_op(p, ")"))
        return sl_tparser_node(p, SL_TN_TUPLE, out);
    SL_TRY(sl_tparser_expression(p, out));
    if (sl_tparser_take_op(p, ")"))
        return SL_OK;
    SL_TRY(sl_tparser_expect_op(p, ","));
    sl_tnode *first = *out;
    SL_TRY(sl_tparser_node(p, SL_TN_TUPLE, out));
    (*out)->list = first;
    return parse_items(p, ")", &first->next);
}

static sl_status parse_strings(sl_tparser *p, sl_tnode **out)
{
    size_t n_bytes = 0;
    const sl_ttoken *begin = p->at;
    SL_TRY(sl_tparser_node(p, SL_TN_STRING, out));
    for (; p->at->kind == SL_TT_STRING; p->at++) /* "a" "b" is "ab" */
        n_bytes += p->at->text.n_bytes;
    (*out)->text = begin->text;
    if (p->at - begin == 1)
        return SL_OK;
    char *joined = sl_arena_alloc(&p->tmpl->arena, n_bytes + 1);
    if (!joined)
        SL_FAIL(p->err, SL_ERR_NOMEM, "template: out of memory");
    (*out)->text = (sl_bytes){joined, n_bytes};
    for (const sl_ttoken *token = begin; token < p->at; token++) {
        memcpy(joined, token->text.bytes, token->text.n_bytes);
        joined += token->text.n_bytes;
    }
    return SL_OK;
}

static sl_status parse_number(sl_tparser *p, sl_tnode **out)
{
    bool is_int = p->at->kind == SL_TT_INT;
    SL_TRY(sl_tparser_node(p, is_int ? SL_TN_INT : SL_TN_FLOAT, out));
    if (is_int) {
        for (size_t i = 0; i < p->at->text.n_bytes; i++)
            if (__builtin_mul_overflow((*out)->i, 10, &(*out)->i) ||
                __builtin_add_overflow((*out)->i, p->at->text.bytes[i] - '0', &(*out)->i))
                SL_FAIL(p->err, SL_ERR_LIMIT, "template line %u: the number is too large", p->at->line);
    } else {
        (*out)->f = strtod(p->at->text.bytes, NULL); /* the lexer ends its copy with a NUL */
    }
    p->at++;
    return SL_OK;
}

/* Constants by name; -1 for any other name. */
static int constant_of(sl_bytes name, int64_t *value)
{
    *value = sl_bytes_are(name, "true") || sl_bytes_are(name, "True");
    if (*value || sl_bytes_are(name, "false") || sl_bytes_are(name, "False"))
        return SL_TN_BOOL;
    return sl_bytes_are(name, "none") || sl_bytes_are(name, "None") ? SL_TN_NONE : -1;
}

static sl_status parse_primary(sl_tparser *p, sl_tnode **out)
{
    int64_t value;
    int constant = p->at->kind == SL_TT_NAME ? constant_of(p->at->text, &value) : -1;
    if (constant >= 0) {
        SL_TRY(sl_tparser_node(p, (sl_tnode_kind)constant, out));
        (*out)->i = value;
        p->at++;
        return SL_OK;
    }
    if (p->at->kind == SL_TT_NAME)
        return sl_tparser_name(p, out);
    if (p->at->kind == SL_TT_STRING)
        return parse_strings(p, out);
    if (p->at->kind == SL_TT_INT || p->at->kind == SL_TT_FLOAT)
        return parse_number(p, out);
    if (sl_tparser_take_op(p, "("))
        return parse_brackets(p, out);
    if (sl_tparser_take_op(p, "{"))
        return parse_dict(p, out);
    if (!sl_tparser_take_op(p, "["))
        return sl_tparser_unexpected(p, "an expression");
    SL_TRY(sl_tparser_node(p, SL_TN_LIST, out));
    return parse_items(p, "]", &(*out)->list);
}

/* After "[": an index or a slice of object. */
static sl_status parse_subscript(sl_tparser *p, sl_tnode *object, sl_tnode **out)
{
    sl_tnode *node;
    SL_TRY(sl_tparser_node(p, SL_TN_INDEX, &node));
    node->a = object;
    *out = node;
    if (!sl_tparser_at_op(p, ":"))
        SL_TRY(sl_tparser_expression(p, &node->b));
    if (sl_tparser_take_op(p, ":")) {
        node->kind = SL_TN_SLICE;
        if (!sl_tparser_at_op(p, "]") && !sl_tparser_at_op(p, ":"))
            SL_TRY(sl_tparser_expression(p, &node->c));
        if (sl_tparser_take_op(p, ":") && !sl_tparser_at_op(p, "]"))
            SL_TRY(sl_tparser_expression(p, &node->d));
    }
    return sl_tparser_expect_op(p, "]");
}

/* After "(": a call of node, which is a name or an attribute. */
static sl_status parse_call(sl_tparser *p, sl_tnode *node)
{
    uint32_t line = node->line;
    if (node->kind == SL_TN_ATTR) {
        node->kind = SL_TN_METHOD;
        node->builtin = sl_tmethod_find(node->text);
        if (!node->builtin)
            SL_FAIL(p->err, SL_ERR_UNSUPPORTED, "template line %u: the method %.*s is not supported", line,
                    (int)SL_MIN(node->text.n_bytes, 64), node->text.bytes);
    } else if (node->kind == SL_TN_NAME) {
        node->kind = SL_TN_CALL;
        node->builtin = sl_tfunction_find(node->text);
        if (!node->builtin && !p->tmpl->names[node->name].is_macro)
            SL_FAIL(p->err, SL_ERR_UNSUPPORTED, "template line %u: the function %.*s is not supported", line,
                    (int)SL_MIN(node->text.n_bytes, 64), node->text.bytes);
    } else {
        SL_FAIL(p->err, SL_ERR_UNSUPPORTED, "template line %u: only names and methods can be called", line);
    }
    return parse_arguments(p, &node->list);
}

static sl_status parse_postfix(sl_tparser *p, sl_tnode **node)
{
    for (;;) {
        sl_tnode *object = *node;
        if (sl_tparser_take_op(p, ".")) {
            if (p->at->kind == SL_TT_INT) {
                SL_TRY(sl_tparser_node(p, SL_TN_INDEX, node));
                SL_TRY(parse_number(p, &(*node)->b));
            } else if (p->at->kind == SL_TT_NAME) {
                SL_TRY(sl_tparser_node(p, SL_TN_ATTR, node));
                (*node)->text = (p->at++)->text;
            } else {
                return sl_tparser_unexpected(p, "an attribute");
            }
            (*node)->a = object;
        } else if (sl_tparser_take_op(p, "[")) {
            SL_TRY(parse_subscript(p, object, node));
        } else if (sl_tparser_take_op(p, "(")) {
            SL_TRY(parse_call(p, object));
        } else {
            return SL_OK;
        }
    }
}

/* The filters map, select and reject name others; those must be known now, not when the template runs. */
static sl_status check_indirect(sl_tparser *p, const sl_tnode *node)
{
    const sl_tnode *arg = node->list;
    bool is_map = sl_bytes_are(node->text, "map");
    bool by_attr = sl_bytes_are(node->text, "selectattr") || sl_bytes_are(node->text, "rejectattr");
    if (!is_map && !by_attr && !sl_bytes_are(node->text, "select") && !sl_bytes_are(node->text, "reject"))
        return SL_OK;
    if (by_attr && arg)
        arg = arg->next;
    if (!arg || arg->kind != SL_TN_STRING || (is_map ? sl_tfilter_find(arg->text) : sl_ttest_find(arg->text)))
        return SL_OK;
    SL_FAIL(p->err, SL_ERR_UNSUPPORTED, "template line %u: the %s %.*s is not supported", arg->line,
            is_map ? "filter" : "test", (int)SL_MIN(arg->text.n_bytes, 64), arg->text.bytes);
}

sl_status sl_tparser_filter(sl_tparser *p, sl_tnode **node)
{
    sl_tnode *object = *node;
    if (p->at->kind != SL_TT_NAME)
        return sl_tparser_unexpected(p, "the name of a filter");
    SL_TRY(sl_tparser_node(p, SL_TN_FILTER, node));
    (*node)->a = object;
    (*node)->text = p->at->text;
    (*node)->builtin = sl_tfilter_find(p->at->text);
    if (!(*node)->builtin)
        SL_FAIL(p->err, SL_ERR_UNSUPPORTED, "template line %u: the filter %.*s is not supported", p->at->line,
                (int)SL_MIN(p->at->text.n_bytes, 64), p->at->text.bytes);
    p->at++;
    if (sl_tparser_take_op(p, "("))
        SL_TRY(parse_arguments(p, &(*node)->list));
    return check_indirect(p, *node);
}

/* True where a test may take its one argument without brackets. */
static bool at_bare_argument(const sl_tparser *p)
{
    static const char *const words[] = {"else", "or", "and", "is", "if", "in", "not", "recursive"};
    if (p->at->kind == SL_TT_STRING || p->at->kind == SL_TT_INT || p->at->kind == SL_TT_FLOAT)
        return true;
    if (sl_tparser_at_op(p, "[") || sl_tparser_at_op(p, "{"))
        return true;
    for (size_t i = 0; i < SL_COUNTOF(words); i++)
        if (sl_tparser_at_name(p, words[i]))
            return false;
    return p->at->kind == SL_TT_NAME;
}

static sl_status parse_test(sl_tparser *p, sl_tnode **node)
{
    sl_tnode *object = *node;
    SL_TRY(sl_tparser_node(p, SL_TN_TEST, node));
    (*node)->a = object;
    (*node)->negated = sl_tparser_take_name(p, "not");
    if (p->at->kind != SL_TT_NAME)
        return sl_tparser_unexpected(p, "the name of a test");
    (*node)->text = p->at->text;
    (*node)->builtin = sl_ttest_find(p->at->text);
    if (!(*node)->builtin)
        SL_FAIL(p->err, SL_ERR_UNSUPPORTED, "template line %u: the test %.*s is not supported", p->at->line,
                (int)SL_MIN(p->at->text.n_bytes, 64), p->at->text.bytes);
    p->at++;
    if (sl_tparser_take_op(p, "("))
        return parse_arguments(p, &(*node)->list);
    if (!at_bare_argument(p))
        return SL_OK;
    SL_TRY(parse_primary(p, &(*node)->list));
    return parse_postfix(p, &(*node)->list);
}

static sl_status parse_unary(sl_tparser *p, bool with_filter, sl_tnode **out)
{
    SL_TRY(sl_tparser_enter(p));
    if (sl_tparser_at_op(p, "-") || sl_tparser_at_op(p, "+")) {
        SL_TRY(sl_tparser_node(p, sl_tparser_at_op(p, "-") ? SL_TN_NEGATE : SL_TN_PLUS, out));
        p->at++;
        SL_TRY(parse_unary(p, false, &(*out)->a));
    } else {
        SL_TRY(parse_primary(p, out));
    }
    SL_TRY(parse_postfix(p, out));
    for (;;) {
        if (with_filter && sl_tparser_take_op(p, "|"))
            SL_TRY(sl_tparser_filter(p, out));
        else if (with_filter && sl_tparser_take_name(p, "is"))
            SL_TRY(parse_test(p, out));
        else
            break;
    }
    p->depth--;
    return SL_OK;
}

/* Operators of one level of precedence that group to the left. */
typedef struct level {
    struct {
        const char *text;
        sl_top op;
    } ops[4];
} level;

static const level levels[] = {
    {{{"+", SL_OP_ADD}, {"-", SL_OP_SUB}}},
    {{{"~", SL_OP_CONCAT}}},
    {{{"*", SL_OP_MUL}, {"/", SL_OP_DIV}, {"//", SL_OP_FLOORDIV}, {"%", SL_OP_MOD}}},
    {{{"**", SL_OP_POW}}},
};

static sl_status parse_binary(sl_tparser *p, size_t at_level, sl_tnode **out)
{
    if (at_level == SL_COUNTOF(levels))
        return parse_unary(p, true, out);
    SL_TRY(parse_binary(p, at_level + 1, out));
    for (size_t i = 0; i < 4 && levels[at_level].ops[i].text; i++) {
        if (!sl_tparser_at_op(p, levels[at_level].ops[i].text))
            continue;
        sl_tnode *left = *out;
        SL_TRY(sl_tparser_node(p, SL_TN_BINARY, out));
        p->at++;
        (*out)->op = (uint8_t)levels[at_level].ops[i].op;
        (*out)->a = left;
        SL_TRY(parse_binary(p, at_level + 1, &(*out)->b));
        i = (size_t)-1; /* look for another one from the first */
    }
    return SL_OK;
}

/* Takes a comparison operator; false when none is there. */
static bool take_comparison(sl_tparser *p, uint8_t *op)
{
    static const struct {
        const char *text;
        sl_top op;
    } ops[] = {{"==", SL_OP_EQ}, {"!=", SL_OP_NE}, {"<", SL_OP_LT},
               {"<=", SL_OP_LE}, {">", SL_OP_GT},  {">=", SL_OP_GE}};
    for (size_t i = 0; i < SL_COUNTOF(ops); i++)
        if (sl_tparser_take_op(p, ops[i].text)) {
            *op = (uint8_t)ops[i].op;
            return true;
        }
    if (sl_tparser_at_name(p, "not") && p->at[1].kind == SL_TT_NAME && sl_bytes_are(p->at[1].text, "in")) {
        p->at += 2;
        *op = SL_OP_NOT_IN;
        return true;
    }
    *op = SL_OP_IN;
    return sl_tparser_take_name(p, "in");
}

static sl_status parse_compare(sl_tparser *p, sl_tnode **out)
{
    uint8_t op;
    SL_TRY(parse_binary(p, 0, out));
    sl_tnode **operand = NULL;
    while (take_comparison(p, &op)) {
        if (!operand) {
            sl_tnode *left = *out;
            SL_TRY(sl_tparser_node(p, SL_TN_COMPARE, out));
            (*out)->a = left;
            operand = &(*out)->list;
        }
        SL_TRY(sl_tparser_node(p, SL_TN_OPERAND, operand));
        (*operand)->op = op;
        SL_TRY(parse_binary(p, 0, &(*operand)->a));
        operand = &(*operand)->next;
    }
    return SL_OK;
}

static sl_status parse_not(sl_tparser *p, sl_tnode **out)
{
    if (!sl_tparser_at_name(p, "not"))
        return parse_compare(p, out);
    SL_TRY(sl_tparser_enter(p));
    SL_TRY(sl_tparser_node(p, SL_TN_NOT, out));
    p->at++;
    SL_TRY(parse_not(p, &(*out)->a));
    p->depth--;
    return SL_OK;
}

static sl_status parse_and(sl_tparser *p, sl_tnode **out)
{
    SL_TRY(parse_not(p, out));
    while (sl_tparser_at_name(p, "and")) {
        sl_tnode *left = *out;
        SL_TRY(sl_tparser_node(p, SL_TN_AND, out));
        p->at++;
        (*out)->a = left;
        SL_TRY(parse_not(p, &(*out)->b));
    }
    return SL_OK;
}

sl_status sl_tparser_or(sl_tparser *p, sl_tnode **out)
{
    SL_TRY(parse_and(p, out));
    while (sl_tparser_at_name(p, "or")) {
        sl_tnode *left = *out;
        SL_TRY(sl_tparser_node(p, SL_TN_OR, out));
        p->at++;
        (*out)->a = left;
        SL_TRY(parse_and(p, &(*out)->b));
    }
    return SL_OK;
}

sl_status sl_tparser_expression(sl_tparser *p, sl_tnode **out)
{
    SL_TRY(sl_tparser_enter(p));
    SL_TRY(sl_tparser_or(p, out));
    while (sl_tparser_take_name(p, "if")) {
        sl_tnode *value = *out;
        SL_TRY(sl_tparser_node(p, SL_TN_COND, out));
        (*out)->a = value;
        SL_TRY(sl_tparser_or(p, &(*out)->b));
        if (sl_tparser_take_name(p, "else"))
            SL_TRY(sl_tparser_expression(p, &(*out)->c));
    }
    p->depth--;
    return SL_OK;
}

sl_status sl_tparser_tuple(sl_tparser *p, sl_tnode **out)
{
    SL_TRY(sl_tparser_expression(p, out));
    if (!sl_tparser_at_op(p, ","))
        return SL_OK;
    sl_tnode *first = *out, **item = &first->next;
    SL_TRY(sl_tparser_node(p, SL_TN_TUPLE, out));
    (*out)->list = first;
    while (sl_tparser_take_op(p, ",")) {
        if (p->at->kind == SL_TT_VAR_END || p->at->kind == SL_TT_BLOCK_END)
            break;
        SL_TRY(sl_tparser_expression(p, item));
        item = &(*item)->next;
    }
    return SL_OK;
}
