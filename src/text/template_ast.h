/* Chat templates inside: tokens and syntax tree. */
#ifndef SL_TEXT_TEMPLATE_AST_H
#define SL_TEXT_TEMPLATE_AST_H

#include "base/arena.h"
#include "text/template.h"

typedef enum sl_ttoken_kind {
    SL_TT_END,
    SL_TT_DATA,      /* text between tags */
    SL_TT_VAR_BEGIN, /* {{ */
    SL_TT_VAR_END,
    SL_TT_BLOCK_BEGIN, /* {% */
    SL_TT_BLOCK_END,
    SL_TT_NAME,
    SL_TT_STRING, /* text holds the value, escapes resolved */
    SL_TT_INT,
    SL_TT_FLOAT,
    SL_TT_OP, /* text holds the operator */
} sl_ttoken_kind;

typedef struct sl_ttoken {
    sl_ttoken_kind kind;
    uint32_t line;
    sl_bytes text;
} sl_ttoken;

typedef struct sl_ttokens {
    sl_ttoken *items; /* in the arena; the last one is END */
    size_t n, capacity;
} sl_ttokens;

/* Cuts source into tokens, with Jinja's whitespace rules under trim_blocks and lstrip_blocks. */
SL_WARN_UNUSED sl_status sl_template_lex(sl_arena *arena, sl_bytes source, sl_ttokens *out, sl_err *err);

typedef enum sl_tnode_kind {
    /* expressions; a, b, c, d as named */
    SL_TN_NONE,
    SL_TN_BOOL,    /* i */
    SL_TN_INT,     /* i */
    SL_TN_FLOAT,   /* f */
    SL_TN_STRING,  /* text */
    SL_TN_NAME,    /* text, name */
    SL_TN_LIST,    /* list */
    SL_TN_TUPLE,   /* list */
    SL_TN_DICT,    /* list of PAIR */
    SL_TN_PAIR,    /* a: b */
    SL_TN_ATTR,    /* a.text */
    SL_TN_INDEX,   /* a[b] */
    SL_TN_SLICE,   /* a[b:c:d], each may be NULL */
    SL_TN_CALL,    /* function or macro text, name; list of arguments */
    SL_TN_METHOD,  /* a.text(list); builtin */
    SL_TN_KEYWORD, /* text=a, only among arguments */
    SL_TN_FILTER,  /* a|text(list); builtin */
    SL_TN_TEST,    /* a is text(list); builtin */
    SL_TN_NOT,
    SL_TN_NEGATE,
    SL_TN_PLUS,
    SL_TN_AND,
    SL_TN_OR,
    SL_TN_BINARY,  /* a op b */
    SL_TN_COMPARE, /* a, then list of OPERAND */
    SL_TN_OPERAND, /* op a */
    SL_TN_COND,    /* a if b else c (may be NULL) */
    /* statements */
    SL_TN_TEXT,         /* text */
    SL_TN_OUTPUT,       /* a */
    SL_TN_IF,           /* list of BRANCH */
    SL_TN_BRANCH,       /* a = condition (NULL: else), list = body */
    SL_TN_FOR,          /* a = target, b = iterable, c = condition or NULL, list = body, list2 = else */
    SL_TN_SET,          /* a = target, b = value */
    SL_TN_SET_BLOCK,    /* a = target, b = FILTER chain around a CAPTURED or NULL, list = body */
    SL_TN_CAPTURED,     /* the text of the block around it */
    SL_TN_FILTER_BLOCK, /* b = FILTER chain, list = body */
    SL_TN_MACRO,        /* text, name, list2 = parameters (NAME with a = default or NULL), list = body */
    SL_TN_SCOPE,        /* list = body ({% generation %}) */
    SL_TN_BREAK,
    SL_TN_CONTINUE,
} sl_tnode_kind;

typedef enum sl_top {
    SL_OP_ADD,
    SL_OP_SUB,
    SL_OP_MUL,
    SL_OP_DIV,
    SL_OP_FLOORDIV,
    SL_OP_MOD,
    SL_OP_POW,
    SL_OP_CONCAT,
    SL_OP_EQ,
    SL_OP_NE,
    SL_OP_LT,
    SL_OP_LE,
    SL_OP_GT,
    SL_OP_GE,
    SL_OP_IN,
    SL_OP_NOT_IN,
} sl_top;

struct sl_tbuiltin;

typedef struct sl_tnode {
    uint8_t kind; /* sl_tnode_kind */
    uint8_t op;   /* sl_top */
    bool negated; /* TEST: "is not" */
    uint32_t line;
    uint32_t name; /* number of a variable's name */
    sl_bytes text;
    int64_t i;
    double f;
    struct sl_tnode *a, *b, *c, *d;
    struct sl_tnode *list, *list2; /* first element; linked by next */
    struct sl_tnode *next;
    const struct sl_tbuiltin *builtin; /* METHOD, FILTER, TEST, and CALL of a function */
} sl_tnode;

struct sl_template {
    sl_arena arena;
    sl_tnode *body;
    struct sl_tname {
        sl_bytes text;
        bool is_macro;                          /* some macro has this name */
    } * names;                                  /* by number */
    uint32_t n_names, name_capacity, loop_name; /* number of "loop" */
};

#define SL_TEMPLATE_MAX_NAMES 1024

/* Number of a variable's name, made on first use. SL_ERR_NOMEM, or SL_ERR_LIMIT when there are too many. */
SL_WARN_UNUSED sl_status sl_template_intern(sl_template *tmpl, sl_bytes text, uint32_t *out, sl_err *err);

/* Builds tmpl->body. Nesting at most 128 deep. */
SL_WARN_UNUSED sl_status sl_template_parse(sl_template *tmpl, const sl_ttokens *tokens, sl_err *err);

static inline bool sl_bytes_are(sl_bytes bytes, const char *text)
{
    return bytes.n_bytes == __builtin_strlen(text) && __builtin_memcmp(bytes.bytes, text, bytes.n_bytes) == 0;
}

#endif
