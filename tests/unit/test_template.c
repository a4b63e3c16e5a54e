/* Chat templates: outputs of jinja2 (tools/golden_templates.py), trust of each byte, limits, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include <jansson.h>

#include "text/template.h"
#include "vocab_file.h"

#define MAX_MESSAGES 32

/* Templates that use what this subset lacks. */
static const char *const unsupported[] = {"deepseek-ai-DeepSeek-V3.2.jinja"}; /* a filter from_json of its own */

static const char *text_of(const json_t *entry, const char *key)
{
    const char *text = json_string_value(json_object_get(entry, key));
    return text ? text : "";
}

static size_t read_messages(const json_t *entry, sl_message messages[MAX_MESSAGES])
{
    const json_t *list = json_object_get(entry, "messages");
    size_t n = json_array_size(list);
    assert_true(n <= MAX_MESSAGES);
    for (size_t i = 0; i < n; i++) {
        const json_t *content = json_object_get(json_array_get(list, i), "content");
        messages[i].role = text_of(json_array_get(list, i), "role");
        messages[i].content = (sl_bytes){json_string_value(content), json_string_length(content)};
    }
    return n;
}

/* The spans together are the expected text, and neighbours differ in trust. */
static void check_output(const char *what, const sl_prompt *prompt, const json_t *expected)
{
    size_t n = 0, n_expected = json_string_length(expected);
    const char *text = json_string_value(expected);
    for (size_t i = 0; i < prompt->n_spans; i++) {
        const sl_span *span = &prompt->spans[i];
        assert_true(span->n_bytes > 0);
        assert_true(i == 0 || span->trusted != span[-1].trusted);
        if (n + span->n_bytes > n_expected || memcmp(text + n, span->bytes, span->n_bytes) != 0) {
            size_t at = 0;
            while (at < span->n_bytes && n + at < n_expected && text[n + at] == span->bytes[at])
                at++;
            fail_msg("%s differs at byte %zu: \"%.60s\" should be \"%.60s\"", what, n + at, span->bytes + at,
                     text + n + at);
        }
        n += span->n_bytes;
    }
    if (n != n_expected)
        fail_msg("%s: %zu bytes instead of %zu; missing \"%.60s\"", what, n, n_expected, text + n);
}

static sl_status render(const json_t *entry, const sl_template *tmpl, sl_prompt *prompt, sl_err *err)
{
    sl_message messages[MAX_MESSAGES];
    sl_template_vars vars = {.messages = messages,
                             .n_messages = read_messages(entry, messages),
                             .add_generation_prompt = json_is_true(json_object_get(entry, "add_generation_prompt")),
                             .bos_token = text_of(entry, "bos_token"),
                             .eos_token = text_of(entry, "eos_token")};
    return sl_template_render(tmpl, &vars, prompt, err);
}

static void check_entry(const json_t *entry, const char *what, const sl_template *tmpl)
{
    sl_prompt prompt;
    sl_err err = {0};
    const char *error = json_string_value(json_object_get(entry, "error"));
    sl_status status = render(entry, tmpl, &prompt, &err);
    if (!error) {
        if (status != SL_OK)
            fail_msg("%s: %s", what, err.message);
        check_output(what, &prompt, json_object_get(entry, "output"));
        sl_prompt_free(&prompt);
        return;
    }
    if (status == SL_OK)
        fail_msg("%s: jinja2 fails here", what);
    assert_int_equal(prompt.n_spans, 0);
    if (strcmp(error, "raise") == 0) {
        assert_int_equal(status, SL_ERR_ARGUMENT);
        if (strncmp(err.message, text_of(entry, "message"), 250) != 0)
            fail_msg("%s: \"%s\"", what, err.message);
    }
}

static sl_template *open_named(const char *name, const char *source, size_t n_bytes)
{
    sl_template *tmpl;
    sl_err err = {0};
    if (sl_template_open(source, n_bytes, &tmpl, &err) != SL_OK)
        fail_msg("%s: %s", name, err.message);
    return tmpl;
}

static bool is_unsupported(const char *name)
{
    for (size_t i = 0; i < SL_COUNTOF(unsupported); i++)
        if (strcmp(name, unsupported[i]) == 0)
            return true;
    return false;
}

static void test_golden(void **state)
{
    (void)state;
    size_t n_bytes, index, n_checked = 0;
    json_t *entry;
    char *file = read_golden("templates.json", &n_bytes), path[256];
    json_t *list = json_loadb(file, n_bytes, 0, NULL);
    free(file);
    assert_true(json_array_size(list) > 600);
    json_array_foreach(list, index, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name")), *source = text_of(entry, "source");
        char *owned = NULL;
        n_bytes = strlen(source);
        if (name && is_unsupported(name))
            continue;
        if (name) {
            snprintf(path, sizeof path, "templates/%s", name);
            source = owned = read_golden(path, &n_bytes);
        }
        sl_template *tmpl = open_named(name ? name : source, source, n_bytes);
        snprintf(path, sizeof path, "%s (entry %zu)", name ? name : source, index);
        check_entry(entry, path, tmpl);
        sl_template_close(tmpl);
        free(owned);
        n_checked++;
    }
    assert_true(n_checked > 600);
    json_decref(list);
}
static sl_status open_status(const char *source, sl_err *err)
{
    sl_template *tmpl;
    sl_status status = sl_template_open(source, strlen(source), &tmpl, err);
    assert_true((status == SL_OK) == (tmpl != NULL));
    sl_template_close(tmpl);
    return status;
}

/* What the subset lacks, or no template may hold, is named at open, with its line. */
static void test_open_errors(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        sl_status status;
        const char *words;
    } cases[] = {
        {"a\n{{ x|nosuch }}", SL_ERR_UNSUPPORTED, "line 2: the filter nosuch"},
        {"{{ x is nosuch }}", SL_ERR_UNSUPPORTED, "the test nosuch"},
        {"\n\n{{ x.nosuch() }}", SL_ERR_UNSUPPORTED, "line 3: the method nosuch"},
        {"{{ nosuch() }}", SL_ERR_UNSUPPORTED, "the function nosuch"},
        {"{{ x|map('nosuch') }}", SL_ERR_UNSUPPORTED, "the filter nosuch"},
        {"{{ x|selectattr('a', 'nosuch') }}", SL_ERR_UNSUPPORTED, "the test nosuch"},
        {"{% include 'x' %}", SL_ERR_UNSUPPORTED, "include"},
        {"{% for x in y recursive %}{% endfor %}", SL_ERR_UNSUPPORTED, "recursive"},
        {"{{ f(*x) }}", SL_ERR_UNSUPPORTED, "f"},
        {"{% if x %}", SL_ERR_FORMAT, "endif"},
        {"{% if %}{% endif %}", SL_ERR_FORMAT, "line 1"},
        {"\n{{ 1 + }}", SL_ERR_FORMAT, "line 2"},
        {"{{ 'abc }}", SL_ERR_FORMAT, "string"},
        {"{{ 1 ", SL_ERR_FORMAT, "does not end"},
        {"{# 1 ", SL_ERR_FORMAT, "comment"},
        {"{% raw %}", SL_ERR_FORMAT, "endraw"},
        {"{% endif %}", SL_ERR_FORMAT, "endif"},
        {"{% break %}", SL_ERR_FORMAT, "break"},
        {"{{ 1 $ 2 }}", SL_ERR_FORMAT, "'$'"},
        {"{{ 99999999999999999999 }}", SL_ERR_LIMIT, "too large"},
    };
    for (size_t i = 0; i < SL_COUNTOF(cases); i++) {
        sl_err err = {0};
        sl_status status = open_status(cases[i].source, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].words))
            fail_msg("%s: %s", cases[i].source, err.message);
    }
    size_t n_bytes;
    char path[128];
    snprintf(path, sizeof path, "templates/%s", unsupported[0]);
    char *source = read_golden(path, &n_bytes);
    sl_err err = {0};
    assert_int_equal(open_status(source, &err), SL_ERR_UNSUPPORTED);
    free(source);
}

static sl_status render_text(const char *source, const sl_message *messages, size_t n_messages, sl_prompt *prompt,
                             sl_err *err)
{
    sl_template *tmpl = open_named(source, source, strlen(source));
    sl_template_vars vars = {.messages = messages, .n_messages = n_messages, .bos_token = "<s>"};
    sl_status status = sl_template_render(tmpl, &vars, prompt, err);
    sl_template_close(tmpl);
    return status;
}

/* Hungry templates end with an error, soon. */
static void test_limits(void **state)
{
    (void)state;
    static const char *const hungry[] = {
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor "
        "%}",
        "{{ 'x' * 10**12 }}",
        "{{ [1] * 10**12 }}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ "
        "ns.l|tojson }}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
        "{% set x = 'y' * 1000000 %}{% for i in range(100) %}{{ x }}{% endfor %}",
        "{{ 'a'|indent(10**12) }}",
        "{{ {}|tojson(indent=10**18) ~ [[[[1]]]]|tojson(indent=10**18) ~ 'x' * 10**10 }}",
        "{{ range(10**7)|list|sort|join(',') }}",
        "{{ '-'.join(range(10**6)|map('string')|list) * 100 }}",
    };
    for (size_t i = 0; i < SL_COUNTOF(hungry); i++) {
        sl_prompt prompt;
        sl_err err = {0};
        clock_t begin = clock();
        sl_status status = render_text(hungry[i], NULL, 0, &prompt, &err);
        if (status != SL_ERR_LIMIT)
            fail_msg("%s: %s", hungry[i], status == SL_OK ? "no error" : err.message);
        if (clock() - begin > 10 * CLOCKS_PER_SEC)
            fail_msg("%s takes too long", hungry[i]);
    }
    /* Nesting: refused at open, at any depth, without using the stack up. */
    static const char *const nests[][2] = {{"{{ ", "("},   {"{{ ", "["},       {"{{ ", "-"},  {"{{ ", "not "},
                                           {"{{ ", "{1:"}, {"", "{% if 1 %}"}, {"{{ ", "a["}, {"{{ ", "1 if "}};
    for (size_t i = 0; i < SL_COUNTOF(nests); i++) {
        size_t n_unit = strlen(nests[i][1]), n = strlen(nests[i][0]);
        char *source = malloc(n + 60000 * n_unit + 1);
        sl_err err = {0};
        assert_non_null(source);
        strcpy(source, nests[i][0]);
        for (int k = 0; k < 60000; k++, n += n_unit)
            memcpy(source + n, nests[i][1], n_unit + 1);
        assert_int_not_equal(open_status(source, &err), SL_OK);
        free(source);
    }
    char *big = calloc(1, (1 << 20) + 2);
    sl_err err = {0};
    memset(big, 'x', (1 << 20) + 1);
    assert_int_equal(open_status(big, &err), SL_ERR_LIMIT);
    free(big);
}

/* Long chains group to the left; they must not use the stack up either. */
static void test_long_chains(void **state)
{
    (void)state;
    static const char *const links[] = {"+1", "~1", "|abs", ".a", "[0]", " and 1", " or 0", " if 1", " == 1"};
    for (size_t i = 0; i < SL_COUNTOF(links); i++) {
        size_t n_link = strlen(links[i]), n = 5;
        char *source = malloc(n + 100000 * n_link + 4);
        sl_template *tmpl;
        sl_prompt prompt = {0};
        assert_non_null(source);
        memcpy(source, "{{ 1 ", n);
        for (int k = 0; k < 100000; k++, n += n_link)
            memcpy(source + n, links[i], n_link);
        strcpy(source + n, " }}");
        if (sl_template_open(source, strlen(source), &tmpl, NULL) == SL_OK) {
            (void)!sl_template_render(tmpl, &(sl_template_vars){0}, &prompt, NULL);
            sl_prompt_free(&prompt);
        }
        sl_template_close(tmpl);
        free(source);
    }
}

static void check_trust(const char *source, const char *expected)
{
    static const sl_message message = {"rOle", {"mEssage <|x|>", 13}};
    sl_prompt prompt;
    sl_err err = {0};
    char text[256];
    size_t n = 0;
    if (render_text(source, &message, 1, &prompt, &err) != SL_OK)
        fail_msg("%s: %s", source, err.message);
    for (size_t i = 0; i < prompt.n_spans; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, prompt.spans[i].trusted ? "%.*s" : "[%.*s]",
                              (int)prompt.spans[i].n_bytes, prompt.spans[i].bytes);
    sl_prompt_free(&prompt);
    text[n] = '\0';
    if (strcmp(text, expected) != 0)
        fail_msg("%s gives %s instead of %s", source, text, expected);
}

/* Brackets mark untrusted bytes: they keep that mark through whatever a template does with them. */
static void test_trust(void **state)
{
    (void)state;
    check_trust("<|{{ messages[0].role }}|>{{ bos_token }}", "<|[rOle]|><s>");
    check_trust("{{ '<|' + messages[0]['role'] ~ '|>' }}", "<|[rOle]|>");
    check_trust("{% set x = messages[0].content %}{{ x }}{{ x|upper }}", "[mEssage <|x|>MESSAGE <|X|>]");
    check_trust("{{ (messages[0].content + '!').split(' ')[-1] }}", "[<|x|>]!");
    check_trust("{{ messages[0].content|replace('<|x|>', '<|y|>') }}", "[mEssage ]<|y|>");
    check_trust("{{ 'a-b'|replace('-', messages[0].content) }}", "a[mEssage <|x|>]b");
    check_trust("{{ messages[0].content[8:] }}{{ messages[0].content[::-1] }}", "[<|x|>>|x|< egassEm]");
    check_trust("{{ ['<s>', messages[0].role]|join('</s>') }}", "<s></s>[rOle]");
    check_trust("{{ messages[0].content|tojson }}", "[\"mEssage <|x|>\"]");
    check_trust("{% set x %}<s>{{ messages[0].role }}{% endset %}{{ x|trim|indent(2, true) }}", "  <s>[rOle]");
    check_trust("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(messages[0].role) }}", "<[rOle]>");
    check_trust("{{ (messages[0].content * 2)|length }}{{ messages|length }}", "261");
    check_trust("{{ '  ' ~ messages[0].role|lower|capitalize|string }}", "  [Role]");
    check_trust("{% for c in messages[0].role %}{{ c }}.{% endfor %}", "[r].[O].[l].[e].");
    check_trust("{{ [messages[0].role] }}", "[['rOle']]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),      cmocka_unit_test(test_open_errors), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_long_chains), cmocka_unit_test(test_trust),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
