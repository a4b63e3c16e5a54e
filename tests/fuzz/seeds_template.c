/* Writes the seeds of fuzz_template into a folder: seeds_template FOLDER */
#include "seeds.h"

static const char *const sources[] = {
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}",
    "{%- set ns = namespace(a=1, b='x') -%}\n  {% for m in messages[1:] if m.content %}\n{% set ns.a = ns.a + 1 %}"
    "{{ loop.index ~ loop.last ~ ns.a }}{% else %}none{% endfor %}",
    "{% macro f(a, b=2) %}<{{ a|upper }}{{ b }}>{% endmacro %}{{ f(messages[1].role) }}{{ f('x', b=[1, 2.5]) }}",
    "{% set x %}{{ messages[1].content }}{% endset %}{{ x|trim|replace('<', '&')|indent(2, true) }}{{ x.split('|')[-1] "
    "}}",
    "{{ messages|tojson(indent=2) }}{{ {'a': [1, none, true]}|tojson }}{{ messages|map(attribute='role')|join(',') }}",
    "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}{{ messages|sort(attribute='content')|first }}",
    "{% for k, v in {'a': 1}.items() %}{{ k ~ v }}{% break %}{% endfor %}{# c #}{% raw %}{{ x }}{% endraw %}",
    "{{ 'abc'[::-1] }}{{ (1, 2)[0] }}{{ -7 // 2 % 3 ** 2 }}{{ 1 < 2 <= 3 != 4 }}{{ 'a' in 'abc' and not x is defined "
    "}}",
    "{{ range(5)|list }}{{ 'x' * 3 }}{{ [1] + [2] }}{{ x|default('d', true) }}{{ '1'|int + '2.5'|float }}{{ 1 if 0 "
    "else 2 }}",
    "{% filter lower %}A{% endfilter %}{% generation %}{{ messages[0].content.strip().startswith('B') }}{% "
    "endgeneration %}",
};

int main(int argc, char **argv)
{
    return seeds_write(argc, argv, sources, sizeof sources / sizeof sources[0]);
}
