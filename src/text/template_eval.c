/* Expressions of templates. */
#include <math.h>
#include <string.h>

#include "text/template_run.h"

static sl_status make_strings(sl_trun *run, sl_tvalue a, sl_tvalue b, sl_tvalue *out)
{
    sl_tbuffer buffer = {0};
    SL_TRY(sl_tbuffer_add_value(run, &buffer, a));
    SL_TRY(sl_tbuffer_add_value(run, &buffer, b));
    return sl_tbuffer_value(run, &buffer, out);
}

static sl_status repeat(sl_trun *run, sl_tvalue what, int64_t times, sl_tvalue *out)
{
    sl_tbuffer buffer = {0};
    if (what.kind == SL_TV_STRING) {
        for (int64_t i = 0; i < times; i++)
            SL_TRY(sl_tbuffer_add_value(run, &buffer, what));
        return sl_tbuffer_value(run, &buffer, out);
    }
    SL_TRY(sl_tvalue_list(run, what.kind, 0, out));
    for (int64_t i = 0; i < times; i++) {
        SL_TRY(sl_trun_charge(run, 1 + what.list->n));
        for (size_t k = 0; k < what.list->n; k++)
            SL_TRY(sl_tlist_push(run, out->list, what.list->items[k]));
    }
    return SL_OK;
}

static bool is_integer(sl_tvalue v)
{
    return v.kind == SL_TV_INT || v.kind == SL_TV_BOOL;
}

static int64_t int_of(sl_tvalue v)
{
    return v.kind == SL_TV_BOOL ? v.b : v.i;
}

static double double_of(sl_tvalue v)
{
    return v.kind == SL_TV_FLOAT ? v.f : (double)int_of(v);
}

static bool power(int64_t base, int64_t exponent, int64_t *out)
{
    *out = 1;
    if (base == 0 || base == 1 || base == -1)
        exponent = exponent ? 2 - exponent % 2 : 0; /* the same result in at most two steps */
    for (; exponent > 0; exponent--)
        if (__builtin_mul_overflow(*out, base, out))
            return false;
    return true;
}

/* Python's rules: / gives a float, // and % round towards minus infinity. */
static sl_status compute_integers(sl_trun *run, sl_top op, int64_t a, int64_t b, sl_tvalue *out)
{
    bool fits = true;
    if ((op == SL_OP_DIV || op == SL_OP_FLOORDIV || op == SL_OP_MOD) && b == 0)
        SL_TFAIL(run, SL_ERR_FORMAT, "division by zero");
    *out = sl_tvalue_int(0);
    switch (op) {
    case SL_OP_ADD:
        fits = !__builtin_add_overflow(a, b, &out->i);
        break;
    case SL_OP_SUB:
        fits = !__builtin_sub_overflow(a, b, &out->i);
        break;
    case SL_OP_MUL:
        fits = !__builtin_mul_overflow(a, b, &out->i);
        break;
    case SL_OP_DIV:
        *out = (sl_tvalue){.kind = SL_TV_FLOAT, .f = (double)a / (double)b};
        break;
    case SL_OP_FLOORDIV:
        fits = !(a == INT64_MIN && b == -1);
        out->i = fits ? a / b - (a % b != 0 && (a < 0) != (b < 0)) : 0;
        break;
    case SL_OP_MOD:
        out->i = b == -1 ? 0 : a % b + (a % b != 0 && (a < 0) != (b < 0) ? b : 0);
        break;
    default:
        if (b < 0)
            *out = (sl_tvalue){.kind = SL_TV_FLOAT, .f = pow((double)a, (double)b)};
        else
            fits = power(a, b, &out->i);
    }
    if (!fits)
        SL_TFAIL(run, SL_ERR_LIMIT, "the number is too large");
    return SL_OK;
}

static sl_status compute_floats(sl_trun *run, sl_top op, double a, double b, sl_tvalue *out)
{
    if ((op == SL_OP_DIV || op == SL_OP_FLOORDIV || op == SL_OP_MOD) && b == 0)
        SL_TFAIL(run, SL_ERR_FORMAT, "division by zero");
    double mod = op == SL_OP_MOD ? fmod(a, b) : 0;
    *out = (sl_tvalue){.kind = SL_TV_FLOAT,
                       .f = op == SL_OP_ADD        ? a + b
                            : op == SL_OP_SUB      ? a - b
                            : op == SL_OP_MUL      ? a * b
                            : op == SL_OP_DIV      ? a / b
                            : op == SL_OP_FLOORDIV ? floor(a / b)
                            : op == SL_OP_MOD      ? mod + (mod != 0 && (mod < 0) != (b < 0) ? b : 0)
                                                   : pow(a, b)};
    return SL_OK;
}

static sl_status add_lists(sl_trun *run, sl_tvalue a, sl_tvalue b, sl_tvalue *out)
{
    SL_TRY(sl_tvalue_list(run, a.kind, a.list->n + b.list->n, out));
    for (size_t i = 0; i < a.list->n; i++)
        SL_TRY(sl_tlist_push(run, out->list, a.list->items[i]));
    for (size_t i = 0; i < b.list->n; i++)
        SL_TRY(sl_tlist_push(run, out->list, b.list->items[i]));
    return SL_OK;
}

static sl_status compute(sl_trun *run, sl_top op, sl_tvalue a, sl_tvalue b, sl_tvalue *out)
{
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "**"};
    if (op == SL_OP_CONCAT)
        return make_strings(run, a, b, out);
    SL_TRY(sl_tvalue_need_defined(run, a));
    SL_TRY(sl_tvalue_need_defined(run, b));
    bool numbers = (is_integer(a) || a.kind == SL_TV_FLOAT) && (is_integer(b) || b.kind == SL_TV_FLOAT);
    if (numbers && (a.kind == SL_TV_FLOAT || b.kind == SL_TV_FLOAT))
        return compute_floats(run, op, double_of(a), double_of(b), out);
    if (numbers)
        return compute_integers(run, op, int_of(a), int_of(b), out);
    if (op == SL_OP_ADD && a.kind == SL_TV_STRING && b.kind == SL_TV_STRING)
        return make_strings(run, a, b, out);
    if (op == SL_OP_ADD && sl_tvalue_is_list(a) && a.kind == b.kind)
        return add_lists(run, a, b, out);
    if (op == SL_OP_MUL && is_integer(b) && (a.kind == SL_TV_STRING || sl_tvalue_is_list(a)))
        return repeat(run, a, int_of(b), out);
    if (op == SL_OP_MUL && is_integer(a) && (b.kind == SL_TV_STRING || sl_tvalue_is_list(b)))
        return repeat(run, b, int_of(a), out);
    if (op == SL_OP_MOD && a.kind == SL_TV_STRING)
        SL_TFAIL(run, SL_ERR_UNSUPPORTED, "formatting with %% is not supported");
    SL_TFAIL(run, SL_ERR_FORMAT, "'%s' %s '%s' is not possible", sl_tvalue_type_name(a), names[op],
             sl_tvalue_type_name(b));
}

static sl_status compare(sl_trun *run, sl_top op, sl_tvalue a, sl_tvalue b, bool *out)
{
    int order;
    if (op == SL_OP_EQ || op == SL_OP_NE) {
        SL_TRY(sl_tvalue_equal(run, a, b, out));
        *out = *out == (op == SL_OP_EQ);
        return SL_OK;
    }
    if (op == SL_OP_IN || op == SL_OP_NOT_IN) {
        SL_TRY(sl_tvalue_contains(run, b, a, out));
        *out = *out == (op == SL_OP_IN);
        return SL_OK;
    }
    SL_TRY(sl_tvalue_order(run, a, b, &order));
    *out = op == SL_OP_LT ? order < 0 : op == SL_OP_LE ? order <= 0 : op == SL_OP_GT ? order > 0 : order >= 0;
    return SL_OK;
}

static sl_status eval_compare(sl_trun *run, const sl_tnode *node, sl_tvalue *out)
{
    sl_tvalue left, right;
    bool holds = true;
    SL_TRY(sl_trun_eval(run, node->a, &left));
    for (const sl_tnode *operand = node->list; operand && holds; operand = operand->next) {
        SL_TRY(sl_trun_eval(run, operand->a, &right));
        SL_TRY(compare(run, (sl_top)operand->op, left, right, &holds));
        left = right;
    }
    *out = sl_tvalue_bool(holds);
    return SL_OK;
}

static sl_status eval_arguments(sl_trun *run, const sl_tnode *list, sl_targs *args)
{
    size_t n = 0;
    for (const sl_tnode *arg = list; arg; arg = arg->next)
        n++;
    *args = (sl_targs){0};
    if (n == 0)
        return SL_OK;
    SL_TALLOC(run, args->items, 2 * n);
    SL_TALLOC(run, args->keys, n);
    args->values = args->items + n;
    for (const sl_tnode *arg = list; arg; arg = arg->next) {
        if (arg->kind == SL_TN_KEYWORD) {
            args->keys[args->n_keys] = arg->text;
            SL_TRY(sl_trun_eval(run, arg->a, &args->values[args->n_keys++]));
        } else {
            SL_TRY(sl_trun_eval(run, arg, &args->items[args->n++]));
        }
    }
    return SL_OK;
}

/* Filters, tests, methods, functions and macros. */
static sl_status eval_call(sl_trun *run, const sl_tnode *node, sl_tvalue *out)
{
    sl_tvalue self = sl_tvalue_none();
    sl_targs args;
    if (node->kind != SL_TN_CALL)
        SL_TRY(sl_trun_eval(run, node->a, &self));
    SL_TRY(eval_arguments(run, node->list, &args));
    run->line = node->line;
    if (node->kind == SL_TN_CALL) {
        const sl_tvalue *value = sl_trun_find(run, node->name);
        if (value && value->kind == SL_TV_MACRO)
            return sl_trun_macro(run, value->macro, &args, out);
        if (!node->builtin)
            SL_TFAIL(run, SL_ERR_FORMAT, "'%.*s' is undefined", (int)SL_MIN(node->text.n_bytes, 64), node->text.bytes);
    }
    SL_TRY(node->builtin->fn(run, self, &args, out));
    if (node->kind == SL_TN_TEST)
        *out = sl_tvalue_bool(out->b != node->negated);
    return SL_OK;
}

static sl_status eval_items(sl_trun *run, const sl_tnode *node, sl_tvalue *out)
{
    SL_TRY(sl_tvalue_list(run, node->kind == SL_TN_LIST ? SL_TV_LIST : SL_TV_TUPLE, 0, out));
    for (const sl_tnode *item = node->list; item; item = item->next) {
        sl_tvalue value;
        SL_TRY(sl_trun_eval(run, item, &value));
        SL_TRY(sl_tlist_push(run, out->list, value));
    }
    return SL_OK;
}

static sl_status eval_dict(sl_trun *run, const sl_tnode *node, sl_tvalue *out)
{
    SL_TRY(sl_tvalue_dict(run, SL_TV_DICT, out));
    for (const sl_tnode *pair = node->list; pair; pair = pair->next) {
        sl_tvalue key, value;
        SL_TRY(sl_trun_eval(run, pair->a, &key));
        SL_TRY(sl_trun_eval(run, pair->b, &value));
        SL_TRY(sl_tdict_set(run, out->dict, key, value));
    }
    return SL_OK;
}

static sl_status eval_slice(sl_trun *run, const sl_tnode *node, sl_tvalue *out)
{
    sl_tvalue value, bounds[3] = {sl_tvalue_none(), sl_tvalue_none(), sl_tvalue_none()};
    const sl_tnode *parts[3] = {node->b, node->c, node->d};
    SL_TRY(sl_trun_eval(run, node->a, &value));
    for (int i = 0; i < 3; i++)
        if (parts[i])
            SL_TRY(sl_trun_eval(run, parts[i], &bounds[i]));
    return sl_tvalue_subscript(run, value, bounds, out);
}

static sl_status eval_sign(sl_trun *run, const sl_tnode *node, sl_tvalue *out)
{
    sl_tvalue value;
    SL_TRY(sl_trun_eval(run, node->a, &value));
    return compute(run, node->kind == SL_TN_NEGATE ? SL_OP_SUB : SL_OP_ADD, sl_tvalue_int(0), value, out);
}

/* and, or, not, inline if. */
static sl_status eval_logic(sl_trun *run, const sl_tnode *node, sl_tvalue *out)
{
    static const sl_bytes no_else = {"the inline if", 13};
    const sl_tnode *first = node->kind == SL_TN_COND ? node->b : node->a;
    SL_TRY(sl_trun_eval(run, first, out));
    bool truth = sl_tvalue_truthy(*out);
    if (node->kind == SL_TN_NOT)
        *out = sl_tvalue_bool(!truth);
    else if (node->kind == SL_TN_AND ? truth : node->kind == SL_TN_OR && !truth)
        return sl_trun_eval(run, node->b, out);
    else if (node->kind == SL_TN_COND && (truth || node->c))
        return sl_trun_eval(run, truth ? node->a : node->c, out);
    else if (node->kind == SL_TN_COND)
        *out = sl_tvalue_undefined(&no_else);
    return SL_OK;
}

static sl_status eval_operands(sl_trun *run, const sl_tnode *node, sl_tvalue *out)
{
    sl_tvalue a, b = sl_tvalue_none();
    SL_TRY(sl_trun_eval(run, node->a, &a));
    if (node->b)
        SL_TRY(sl_trun_eval(run, node->b, &b));
    run->line = node->line;
    if (node->kind == SL_TN_ATTR)
        return sl_tvalue_attr(run, a, &node->text, out);
    if (node->kind == SL_TN_INDEX)
        return sl_tvalue_index(run, a, b, out);
    return compute(run, (sl_top)node->op, a, b, out);
}

static sl_status eval(sl_trun *run, const sl_tnode *node, sl_tvalue *out)
{
    const sl_tvalue *found;
    switch ((sl_tnode_kind)node->kind) {
    case SL_TN_NONE:
        *out = sl_tvalue_none();
        return SL_OK;
    case SL_TN_BOOL:
        *out = sl_tvalue_bool(node->i);
        return SL_OK;
    case SL_TN_INT:
        *out = sl_tvalue_int(node->i);
        return SL_OK;
    case SL_TN_FLOAT:
        *out = (sl_tvalue){.kind = SL_TV_FLOAT, .f = node->f};
        return SL_OK;
    case SL_TN_STRING:
        return sl_tvalue_string(run, node->text.bytes, node->text.n_bytes, true, out);
    case SL_TN_NAME:
        SL_TRY(sl_trun_charge(run, run->n_vars / 8));
        found = sl_trun_find(run, node->name);
        *out = found ? *found : sl_tvalue_undefined(&node->text);
        return SL_OK;
    case SL_TN_CAPTURED:
        *out = run->captured;
        return SL_OK;
    case SL_TN_LIST:
    case SL_TN_TUPLE:
        return eval_items(run, node, out);
    case SL_TN_DICT:
        return eval_dict(run, node, out);
    case SL_TN_SLICE:
        return eval_slice(run, node, out);
    case SL_TN_CALL:
    case SL_TN_METHOD:
    case SL_TN_FILTER:
    case SL_TN_TEST:
        return eval_call(run, node, out);
    case SL_TN_NEGATE:
    case SL_TN_PLUS:
        return eval_sign(run, node, out);
    case SL_TN_NOT:
    case SL_TN_AND:
    case SL_TN_OR:
    case SL_TN_COND:
        return eval_logic(run, node, out);
    case SL_TN_COMPARE:
        return eval_compare(run, node, out);
    default:
        return eval_operands(run, node, out);
    }
}

sl_status sl_trun_eval(sl_trun *run, const sl_tnode *node, sl_tvalue *out)
{
    SL_TRY(sl_trun_enter(run));
    SL_TRY(sl_trun_charge(run, 1));
    run->line = node->line;
    SL_TRY(eval(run, node, out));
    run->depth--;
    return SL_OK;
}
