/* Chat templates: statements, and the way from messages to a prompt. */
#include "text/template.h"

#include <stdlib.h>
#include <string.h>

#include "text/template_run.h"

#define MAX_SOURCE_BYTES ((size_t)1 << 20)
#define MAX_OUTPUT_BYTES ((size_t)64 << 20)
#define FUEL             INT64_C(8000000)

typedef enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;

static sl_status run_body(sl_trun *run, const sl_tnode *list, flow *next);

const sl_tvalue *sl_trun_find(const sl_trun *run, uint32_t name)
{
    for (size_t i = run->n_vars; i > run->visible; i--)
        if (run->vars[i - 1].name == name)
            return &run->vars[i - 1].value;
    for (size_t i = SL_MIN(run->n_globals, run->visible); i > 0; i--)
        if (run->vars[i - 1].name == name)
            return &run->vars[i - 1].value;
    return NULL;
}

sl_status sl_trun_set(sl_trun *run, uint32_t name, sl_tvalue value)
{
    for (size_t i = run->n_vars; i > run->scope; i--)
        if (run->vars[i - 1].name == name) {
            run->vars[i - 1].value = value;
            return SL_OK;
        }
    if (run->n_vars == run->var_capacity) {
        sl_tbinding *vars;
        size_t capacity = run->var_capacity * 2 + 32;
        SL_TALLOC(run, vars, capacity);
        if (run->n_vars)
            memcpy(vars, run->vars, run->n_vars * sizeof *vars);
        run->vars = vars;
        run->var_capacity = capacity;
    }
    run->vars[run->n_vars++] = (sl_tbinding){name, value};
    return SL_OK;
}

/* Begins a scope; returns what leave_scope needs. The outermost scope is the one of the global variables. */
static size_t enter_scope(sl_trun *run)
{
    size_t outer = run->scope;
    if (outer == 0)
        run->n_globals = run->n_vars;
    run->scope = run->n_vars;
    return outer;
}

static void leave_scope(sl_trun *run, size_t outer)
{
    run->n_vars = run->scope;
    run->scope = outer;
}

/* Sets a name, several names from the elements of value, or an attribute of a namespace. */
static sl_status assign(sl_trun *run, const sl_tnode *target, sl_tvalue value)
{
    if (target->kind == SL_TN_NAME)
        return sl_trun_set(run, target->name, value);
    if (target->kind == SL_TN_ATTR) {
        const sl_tvalue *object = sl_trun_find(run, target->a->name);
        sl_tvalue key;
        if (!object || object->kind != SL_TV_NAMESPACE)
            SL_TFAIL(run, SL_ERR_FORMAT, "cannot assign attribute on non-namespace object");
        SL_TRY(sl_tvalue_string(run, target->text.bytes, target->text.n_bytes, true, &key));
        return sl_tdict_set(run, object->dict, key, value);
    }
    const sl_tlist *items;
    size_t i = 0;
    SL_TRY(sl_tvalue_iterate(run, value, &items));
    for (const sl_tnode *name = target->list; name; name = name->next, i++) {
        if (i >= items->n)
            SL_TFAIL(run, SL_ERR_FORMAT, "not enough values to unpack");
        SL_TRY(sl_trun_set(run, name->name, items->items[i]));
    }
    if (i < items->n)
        SL_TFAIL(run, SL_ERR_FORMAT, "too many values to unpack");
    return SL_OK;
}

/* Text that the body writes, as a value. */
static sl_status capture(sl_trun *run, const sl_tnode *body, sl_tvalue *out)
{
    sl_tbuffer buffer = {0}, *outer_out = run->out;
    flow next;
    run->out = &buffer;
    SL_TRY(run_body(run, body, &next));
    run->out = outer_out;
    return sl_tbuffer_value(run, &buffer, out);
}

sl_status sl_trun_macro(sl_trun *run, const sl_tnode *macro, const sl_targs *args, sl_tvalue *out)
{
    size_t outer_visible = run->visible, i = 0, outer = enter_scope(run);
    SL_TRY(sl_trun_enter(run));
    for (size_t k = 0; k < args->n_keys; k++) {
        const sl_tnode *param = macro->list2;
        while (param && !(param->text.n_bytes == args->keys[k].n_bytes &&
                          memcmp(param->text.bytes, args->keys[k].bytes, args->keys[k].n_bytes) == 0))
            param = param->next;
        if (!param)
            SL_TFAIL(run, SL_ERR_FORMAT, "macro '%.*s' takes no keyword argument '%.*s'",
                     (int)SL_MIN(macro->text.n_bytes, 64), macro->text.bytes, (int)SL_MIN(args->keys[k].n_bytes, 64),
                     args->keys[k].bytes);
    }
    run->visible = run->scope;
    for (const sl_tnode *param = macro->list2; param; param = param->next, i++) {
        sl_tvalue value = sl_tvalue_undefined(&param->text);
        const sl_tvalue *given = i < args->n ? &args->items[i] : NULL;
        for (size_t k = 0; k < args->n_keys && !given; k++)
            if (param->text.n_bytes == args->keys[k].n_bytes &&
                memcmp(param->text.bytes, args->keys[k].bytes, args->keys[k].n_bytes) == 0)
                given = &args->values[k];
        if (given)
            value = *given;
        else if (param->a)
            SL_TRY(sl_trun_eval(run, param->a, &value));
        SL_TRY(sl_trun_set(run, param->name, value));
    }
    if (args->n > i)
        SL_TFAIL(run, SL_ERR_FORMAT, "macro '%.*s' takes not more than %zu arguments",
                 (int)SL_MIN(macro->text.n_bytes, 64), macro->text.bytes, i);
    SL_TRY(capture(run, macro->list, out));
    leave_scope(run, outer);
    run->visible = outer_visible;
    run->depth--;
    return SL_OK;
}

static sl_status run_if(sl_trun *run, const sl_tnode *node, flow *next)
{
    for (const sl_tnode *branch = node->list; branch; branch = branch->next) {
        sl_tvalue condition = sl_tvalue_bool(true);
        if (branch->a)
            SL_TRY(sl_trun_eval(run, branch->a, &condition));
        if (sl_tvalue_truthy(condition))
            return run_body(run, branch->list, next);
    }
    return SL_OK;
}

/* The elements a loop goes over: all, or those its condition holds for. */
static sl_status loop_items(sl_trun *run, const sl_tnode *node, sl_tlist *out)
{
    const sl_tlist *items;
    sl_tvalue value;
    SL_TRY(sl_trun_eval(run, node->b, &value));
    SL_TRY(sl_tvalue_iterate(run, value, &items));
    *out = *items;
    if (!node->c)
        return SL_OK;
    size_t outer = enter_scope(run);
    *out = (sl_tlist){0};
    for (size_t i = 0; i < items->n; i++) {
        run->n_vars = run->scope;
        SL_TRY(assign(run, node->a, items->items[i]));
        SL_TRY(sl_trun_eval(run, node->c, &value));
        if (sl_tvalue_truthy(value))
            SL_TRY(sl_tlist_push(run, out, items->items[i]));
    }
    leave_scope(run, outer);
    return SL_OK;
}

static sl_status run_for(sl_trun *run, const sl_tnode *node, flow *next)
{
    sl_tloop *loop;
    sl_tlist *items;
    uint32_t loop_name = run->loop_name;
    SL_TALLOC(run, items, 1);
    SL_TRY(loop_items(run, node, items));
    SL_TALLOC(run, loop, 1);
    *loop = (sl_tloop){.items = items};
    size_t outer = enter_scope(run);
    for (; loop->index < items->n && *next != FLOW_BREAK; loop->index++) {
        run->n_vars = run->scope;
        *next = FLOW_ON;
        SL_TRY(sl_trun_charge(run, 1));
        SL_TRY(sl_trun_set(run, loop_name, (sl_tvalue){.kind = SL_TV_LOOP, .loop = loop}));
        SL_TRY(assign(run, node->a, items->items[loop->index]));
        SL_TRY(run_body(run, node->list, next));
    }
    run->n_vars = run->scope;
    *next = FLOW_ON;
    if (items->n == 0)
        SL_TRY(run_body(run, node->list2, next));
    leave_scope(run, outer);
    return SL_OK;
}

/* {% set x %}…{% endset %} and {% filter f %}…{% endfilter %}. */
static sl_status run_captured(sl_trun *run, const sl_tnode *node)
{
    sl_tvalue text, outer_captured = run->captured;
    size_t outer = enter_scope(run);
    SL_TRY(capture(run, node->list, &text));
    leave_scope(run, outer);
    run->captured = text;
    SL_TRY(sl_trun_eval(run, node->b, &text));
    run->captured = outer_captured;
    if (node->kind == SL_TN_SET_BLOCK)
        return assign(run, node->a, text);
    return sl_tbuffer_add_value(run, run->out, text);
}

static sl_status run_statement(sl_trun *run, const sl_tnode *node, flow *next)
{
    sl_tvalue value;
    size_t outer;
    switch ((sl_tnode_kind)node->kind) {
    case SL_TN_TEXT:
        return sl_tbuffer_add(run, run->out, node->text.bytes, node->text.n_bytes, true);
    case SL_TN_OUTPUT:
        SL_TRY(sl_trun_eval(run, node->a, &value));
        return sl_tbuffer_add_value(run, run->out, value);
    case SL_TN_IF:
        return run_if(run, node, next);
    case SL_TN_FOR:
        return run_for(run, node, next);
    case SL_TN_SET:
        SL_TRY(sl_trun_eval(run, node->b, &value));
        return assign(run, node->a, value);
    case SL_TN_SET_BLOCK:
    case SL_TN_FILTER_BLOCK:
        return run_captured(run, node);
    case SL_TN_MACRO:
        return sl_trun_set(run, node->name, (sl_tvalue){.kind = SL_TV_MACRO, .macro = node});
    case SL_TN_SCOPE:
        outer = enter_scope(run);
        SL_TRY(run_body(run, node->list, next));
        leave_scope(run, outer);
        return SL_OK;
    default:
        *next = node->kind == SL_TN_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
        return SL_OK;
    }
}

static sl_status run_body(sl_trun *run, const sl_tnode *list, flow *next)
{
    *next = FLOW_ON;
    SL_TRY(sl_trun_enter(run));
    for (const sl_tnode *node = list; node && *next == FLOW_ON; node = node->next) {
        run->line = node->line;
        SL_TRY(sl_trun_charge(run, 1));
        SL_TRY(run_statement(run, node, next));
        if (run->out->n > MAX_OUTPUT_BYTES)
            SL_TFAIL(run, SL_ERR_LIMIT, "the template writes more than 64 MiB");
    }
    run->depth--;
    return SL_OK;
}

static sl_status set_global(sl_trun *run, const char *name, sl_tvalue value)
{
    for (uint32_t i = 0; i < run->tmpl->n_names; i++)
        if (sl_bytes_are(run->tmpl->names[i].text, name))
            return sl_trun_set(run, i, value);
    return SL_OK; /* the template never asks for it */
}

static sl_status set_text(sl_trun *run, const char *name, const char *text)
{
    sl_tvalue value;
    SL_TRY(sl_tvalue_string(run, text ? text : "", text ? strlen(text) : 0, true, &value));
    return set_global(run, name, value);
}

static sl_status add_entry(sl_trun *run, sl_tdict *dict, const char *key, const char *bytes, size_t n_bytes)
{
    sl_tvalue name, value;
    SL_TRY(sl_tvalue_string(run, key, strlen(key), true, &name));
    SL_TRY(sl_tvalue_string(run, n_bytes ? bytes : "", n_bytes, false, &value));
    return sl_tdict_set(run, dict, name, value);
}

/* The variables that transformers gives a chat template. */
static sl_status set_globals(sl_trun *run, const sl_template_vars *vars)
{
    sl_tvalue messages;
    SL_TRY(sl_tvalue_list(run, SL_TV_LIST, vars->n_messages, &messages));
    for (size_t i = 0; i < vars->n_messages; i++) {
        const sl_message *message = &vars->messages[i];
        sl_tvalue dict;
        SL_TRY(sl_tvalue_dict(run, SL_TV_DICT, &dict));
        SL_TRY(add_entry(run, dict.dict, "role", message->role, strlen(message->role)));
        SL_TRY(add_entry(run, dict.dict, "content", message->content.bytes, message->content.n_bytes));
        SL_TRY(sl_tlist_push(run, messages.list, dict));
    }
    SL_TRY(set_global(run, "messages", messages));
    SL_TRY(set_global(run, "add_generation_prompt", sl_tvalue_bool(vars->add_generation_prompt)));
    SL_TRY(set_global(run, "tools", sl_tvalue_none()));
    SL_TRY(set_global(run, "documents", sl_tvalue_none()));
    SL_TRY(set_text(run, "bos_token", vars->bos_token));
    return set_text(run, "eos_token", vars->eos_token);
}

/* Copies the text of the buffer and cuts it where trust changes. */
static sl_status make_prompt(const sl_tbuffer *buffer, sl_prompt *out, sl_err *err)
{
    size_t n_spans = buffer->n > 0;
    for (size_t i = 1; i < buffer->n; i++)
        n_spans += buffer->trust[i] != buffer->trust[i - 1];
    out->storage = malloc(buffer->n + 1);
    out->spans = calloc(n_spans + 1, sizeof *out->spans);
    if (!out->storage || !out->spans) {
        sl_prompt_free(out);
        SL_FAIL(err, SL_ERR_NOMEM, "template: out of memory");
    }
    if (buffer->n)
        memcpy(out->storage, buffer->bytes, buffer->n);
    out->storage[buffer->n] = '\0';
    for (size_t begin = 0, end; begin < buffer->n; begin = end) {
        for (end = begin + 1; end < buffer->n && buffer->trust[end] == buffer->trust[begin];)
            end++;
        out->spans[out->n_spans++] = (sl_span){out->storage + begin, end - begin, buffer->trust[begin]};
    }
    return SL_OK;
}

sl_status sl_template_render(const sl_template *tmpl, const sl_template_vars *vars, sl_prompt *out, sl_err *err)
{
    sl_tbuffer buffer = {0};
    sl_trun run = {.tmpl = tmpl, .fuel = FUEL, .out = &buffer, .loop_name = tmpl->loop_name, .line = 1, .err = err};
    flow next;
    *out = (sl_prompt){0};
    sl_arena_init(&run.arena, 0);
    sl_status status = set_globals(&run, vars);
    if (status == SL_OK)
        status = run_body(&run, tmpl->body, &next);
    if (status == SL_OK)
        status = make_prompt(&buffer, out, err);
    sl_arena_reset(&run.arena);
    return status;
}

void sl_prompt_free(sl_prompt *prompt)
{
    free(prompt->spans);
    free(prompt->storage);
    *prompt = (sl_prompt){0};
}

sl_status sl_template_open(const char *source, size_t n_bytes, sl_template **out, sl_err *err)
{
    sl_ttokens tokens = {0};
    *out = NULL;
    if (n_bytes > MAX_SOURCE_BYTES)
        SL_FAIL(err, SL_ERR_LIMIT, "template: larger than 1 MiB");
    sl_template *tmpl = calloc(1, sizeof *tmpl);
    if (!tmpl)
        SL_FAIL(err, SL_ERR_NOMEM, "template: out of memory");
    sl_arena_init(&tmpl->arena, 0);
    sl_status status = sl_template_lex(&tmpl->arena, (sl_bytes){source, n_bytes}, &tokens, err);
    if (status == SL_OK)
        status = sl_template_intern(tmpl, (sl_bytes){"loop", 4}, &tmpl->loop_name, err);
    if (status == SL_OK)
        status = sl_template_parse(tmpl, &tokens, err);
    if (status != SL_OK) {
        sl_template_close(tmpl);
        return status;
    }
    *out = tmpl;
    return SL_OK;
}

void sl_template_close(sl_template *tmpl)
{
    if (!tmpl)
        return;
    sl_arena_reset(&tmpl->arena);
    free(tmpl);
}
