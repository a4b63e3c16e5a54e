/* What the two halves of the template parser (statements, expressions) share. */
#ifndef SL_TEXT_TEMPLATE_PARSE_H
#define SL_TEXT_TEMPLATE_PARSE_H

#include "text/template_ast.h"

#define SL_TEMPLATE_MAX_NESTING 128

typedef struct sl_tparser {
    sl_template *tmpl;
    const sl_ttokens *tokens;
    const sl_ttoken *at;
    unsigned depth, loop_depth;
    sl_err *err;
} sl_tparser;

SL_WARN_UNUSED sl_status sl_tparser_node(sl_tparser *p, sl_tnode_kind kind, sl_tnode **out);
/* Counts one level of nesting; SL_ERR_LIMIT when it is one too many. The caller does depth-- at its end. */
SL_WARN_UNUSED sl_status sl_tparser_enter(sl_tparser *p);
bool sl_tparser_at_op(const sl_tparser *p, const char *op);
bool sl_tparser_at_name(const sl_tparser *p, const char *name);
bool sl_tparser_take_op(sl_tparser *p, const char *op);
bool sl_tparser_take_name(sl_tparser *p, const char *name);
SL_WARN_UNUSED sl_status sl_tparser_expect_op(sl_tparser *p, const char *op);
/* The error "expected …, found …". */
SL_WARN_UNUSED sl_status sl_tparser_unexpected(sl_tparser *p, const char *expected);

/* Expressions (template_expr.c). `or` is one without the inline if, `tuple` one or several between commas. */
SL_WARN_UNUSED sl_status sl_tparser_expression(sl_tparser *p, sl_tnode **out);
SL_WARN_UNUSED sl_status sl_tparser_or(sl_tparser *p, sl_tnode **out);
SL_WARN_UNUSED sl_status sl_tparser_tuple(sl_tparser *p, sl_tnode **out);
/* The name at the parser's position as a variable. */
SL_WARN_UNUSED sl_status sl_tparser_name(sl_tparser *p, sl_tnode **out);
/* Wraps *node in the filter at the parser's position, after its "|". */
SL_WARN_UNUSED sl_status sl_tparser_filter(sl_tparser *p, sl_tnode **node);

#endif
