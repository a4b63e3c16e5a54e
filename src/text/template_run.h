/* What the two halves of the template interpreter (statements, expressions) share. */
#ifndef SL_TEXT_TEMPLATE_RUN_H
#define SL_TEXT_TEMPLATE_RUN_H

#include "text/template_builtin.h"

/* Value of an expression. */
SL_WARN_UNUSED sl_status sl_trun_eval(sl_trun *run, const sl_tnode *node, sl_tvalue *out);

/* Calls a macro (template_run.c); *out is its text. */
SL_WARN_UNUSED sl_status sl_trun_macro(sl_trun *run, const sl_tnode *macro, const sl_targs *args, sl_tvalue *out);

/* Innermost variable of that name; NULL when there is none. */
const sl_tvalue *sl_trun_find(const sl_trun *run, uint32_t name);
/* Sets a variable of the innermost scope. */
SL_WARN_UNUSED sl_status sl_trun_set(sl_trun *run, uint32_t name, sl_tvalue value);

#endif
