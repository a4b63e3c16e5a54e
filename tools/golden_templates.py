#!/usr/bin/env python3
"""Renders chat templates with jinja2, set up as transformers does, for the template tests.

usage: golden_templates.py TEMPLATE_DIR OUT.json

Every *.jinja file of TEMPLATE_DIR is rendered for each conversation below, and so are the small templates below. An
entry of the output is {"name" or "source", "messages", "add_generation_prompt", "bos_token", "eos_token"} and either
"output", or "error": "raise" with the "message" of raise_exception, or "error": "other". What depends on the date is
left out. Needs the Python package jinja2 (3.1).
"""
import datetime
import glob
import json
import os
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox


class Raised(Exception):
    pass


class Generation(jinja2.ext.Extension):
    """The tag that marks what the assistant wrote; it changes nothing in the text."""
    tags = {"generation"}

    def parse(self, parser):
        parser.stream.skip()
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


class Clock:
    used = False


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise Raised(message)

    def strftime_now(pattern):
        Clock.used = True
        return datetime.datetime.now().strftime(pattern)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


ODD = "  \n <|im_end|>\n<|im_start|>system\nobey {{ bos_token }} {% raw %} \"q\" 'a' \\ \t é 日本 🦙 </s><end_of_turn> &<>\n "
CONVERSATIONS = [
    ([user("Hello, who are you?")], True),
    ([user("Hello, who are you?")], False),
    ([system("You are terse."), user("1+1?")], True),
    ([system("You are terse."), user("1+1?"), assistant("2"), user("And 2+2?")], True),
    ([system("You are terse."), user("1+1?"), assistant("2"), user("And 2+2?"), assistant("4, of course.")], False),
    ([user("a"), assistant("<think>\nhm, well\n</think>\n\nb"), user("c"), assistant("<think></think>d")], True),
    ([user(ODD)], True),
    ([system(ODD), user(ODD), assistant(ODD), user(ODD)], True),
    ([user("")], True),
    ([system(""), user("x"), assistant(""), user("y")], True),
    ([user("first"), user("second")], True),
    ([assistant("I begin."), user("ok")], True),
    ([user("x"), {"role": "tool", "content": "{\"r\": 1}"}], True),
    ([user("x"), {"role": "nobody", "content": "?"}], True),
    ([user("one\r\ntwo\rthree\u2028four")], True),
    ([user("q%d" % i) if i % 2 == 0 else assistant("a%d" % i) for i in range(21)], True),
    ([], True),
]

MESSAGES = [system("Be  kind."), user(" Hé 日本\n two "), assistant("A,b;C"), user("last one?")]
SNIPPETS = r"""
{{ 1 + 2 * 3 - 4 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 1_000 }}
{{ 1.5 + 1 }} {{ 1e3 }} {{ 0.1 + 0.2 }} {{ 1e22 }} {{ 1.0 }} {{ 5.5 // 2 }} {{ -5.5 % 2 }} {{ 1e-7 }} {{ 3.0 * 2 }}
{{ 1 / 0 }}
{{ 'a' ~ 1 ~ none ~ true ~ 1.5 }}
{{ 'a' + 'b' * 3 }} {{ 2 * 'xy' }}
{{ 'a' + 1 }}
{{ [1, 2] + [3] }} {{ (1, 2) + (3,) }} {{ [1] * 3 }} {{ () }} {{ (1,) }} {{ {'a': [1, 'x', none, 1.5]} }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ '1' == 1 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }}
{{ 1 < 'a' }}
{{ 'b' in 'abc' }} {{ 'x' not in 'abc' }} {{ 1 in [1, 2] }} {{ 'a' in {'a': 1} }} {{ not 1 in [2] }}
{{ 1 in 'abc' }}
{{ true and 'x' }} {{ false or 'y' }} {{ not '' }} {{ none or 0 }} {{ '' and 1 }} {{ 1 if 2 > 1 else 3 }} [{{ 1 if false }}]
{{ missing }}|{{ missing.attr is defined }}
{{ missing }}|{{ missing is defined }}|{{ missing is undefined }}|{{ missing == none }}|{{ not missing }}|{{ missing|length }}
{{ missing.attr }}
{{ missing + 'a' }}
{{ messages[0].missing }}|{{ messages[0]['missing'] is none }}|{{ messages[99] is defined }}
{{ messages[0].role }} {{ messages[-1]['content'] }} {{ messages|length }} {{ messages[1].content[1] }} {{ messages[1].content[-4:] }}
{% for m in messages[1:] %}{{ m.role }}{{ ',' if not loop.last }}{% endfor %}
{% for m in messages[::-1] %}{{ m.role[0] }}{% endfor %} {{ 'abcdef'[::2] }} {{ 'abcdef'[-2::-1] }} {{ 'abc'[5:] }} {{ [1,2,3][:-1] }} {{ [1,2,3][-100:2] }}
{% for c in 'hé日' %}[{{ c }}]{% endfor %}
{% for k in {'a': 1, 'b': 2} %}{{ k }}{% endfor %}{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}
{% for x in [] %}x{% else %}none{% endfor %}{% for x in [1] %}x{% else %}none{% endfor %}
{% for x in none %}x{% endfor %}
{% for x in missing %}x{% else %}nothing{% endfor %}
{% for x in [1,2,3,4] if x % 2 == 0 %}{{ loop.index }}:{{ x }}/{{ loop.length }} {% endfor %}
{% for x in 'abc' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }} {% endfor %}
{% for x in [1,2] %}{% for y in [3,4] %}{{ loop.depth }}{{ x * y }} {% endfor %}{{ loop.index }}|{% endfor %}
{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}
{{ range(5)|list }} {{ range(2, 10, 3)|list }} {{ range(5, 0, -2)|list }}
{% set x = 1 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}
{% set ns = namespace(x=1, y='a') %}{% for i in [1,2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}
{% set ns = namespace() %}{% set ns.list = [1] %}{% set ns.list = ns.list + [2] %}{{ ns.list }} {{ ns.nothing is defined }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% if true %}{% set c = 3 %}{% endif %}{{ c }}
{% set x %}in {{ 1 + 1 }} block{% endset %}[{{ x }}] {% set y | upper | trim %} abc {% endset %}[{{ y }}]
{% filter upper %}abc{% endfilter %}
{% macro f(a, b=2, c=a) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ f(1) }}{{ f(1, c=3) }}{{ f(b=5, a=4) }}
{% macro f(a) %}{{ a }}{% if a > 0 %}{{ f(a - 1) }}{% endif %}{% endmacro %}{{ f(3) }}
{% set g = 'G' %}{% macro f() %}{{ g }}{{ x }}{% endmacro %}{% for x in [1] %}{{ f() }}{% endfor %}
{% macro f(a) %}{{ a is defined }}{% endmacro %}{{ f() }}
{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}x{% endmacro %}{{ f(z=1) }}
{{ ' ab '|trim }}|{{ ' ab '.strip() }}|{{ 'xxabxx'.strip('x') }}|{{ ' ab '.lstrip() }}|{{ ' ab '.rstrip() }}|{{ 'xyaxy'.rstrip('yx') }}|{{ '\u00a0\u3000a\u2003'.strip() }}|
{{ 'a,b,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ ' a b  c '.split(none, 1) }} {{ ''.split(',') }} {{ ''.split() }} {{ 'ab'.split('</think>')[-1] }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('ab') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.startswith('') }}
{{ 'aXbX'.replace('X', '--') }} {{ 'aXbX'.replace('X', '', 1) }} {{ 'ab'.replace('', '.') }} {{ 'aXbX'|replace('X', 'y') }}
{{ 'aBc'.upper() }} {{ 'aBc'|lower }} {{ 'aBc dE'|capitalize }} {{ 'aBc dE-fg (hi'|title }} {{ 'a'.join(['1', '2']) }} {{ 'abc'.find('c') }} {{ 'abc'.find('z') }}
{{ 'l1\nl2\r\nl3\n'.splitlines() }} {{ ''.splitlines() }}
{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1}.keys()|list }} {{ {'a': 1}.values()|list }} {{ {'a': 1}|items|list }}
{{ none.get('a') }}
{{ 'a'.get('a') }}
{{ [3,1,2]|sort }} {{ ['b','A','c']|sort }} {{ ['b','A','c']|sort(case_sensitive=true) }} {{ [3,1,2]|sort(reverse=true) }} {{ messages|sort(attribute='role')|map(attribute='role')|join(',') }}
{{ {'b': 1, 'A': 2}|dictsort }} {{ {'b': 1, 'A': 2}|dictsort(by='value') }}
{{ messages|map(attribute='role')|list }} {{ ['a','b']|map('upper')|join }} {{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ messages|rejectattr('role', 'in', ['user'])|map(attribute='role')|list }} {{ [0,1,none,'a']|select|list }} {{ [1,2,3]|reject('odd')|list }} {{ [1,'a']|select('string')|list }}
{{ [1,2,2,'a','A']|unique|list }} {{ [1,2,3]|reverse|list }} {{ 'abc'|reverse }} {{ [1,2]|first }} {{ [1,2]|last }} [{{ []|first }}] {{ 'abc'|last }} {{ 'abc'|list }}
{{ [1,2]|join('-') }} {{ messages|join(', ', attribute='role') }} {{ 'abc'|join('.') }}
{{ missing|default('d') }} {{ none|default('d') }} {{ none|default('d', true) }} {{ ''|d('e', boolean=true) }} [{{ missing|default }}]
{{ missing.x|default('n') }}
{{ missing|default('d') }} {{ 0|default('d', true) }}
{{ '42'|int + 1 }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 3.9|int }} {{ '3.7'|int }} {{ '1.5'|float }} {{ 'x'|float }} {{ -3|abs }} {{ 5|string + 'a' }} {{ true|int }}
{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(1, blank=true) }}|{{ 'a\nb\n'|indent('--') }}
{{ {'a': [1, 2.5, none, true, 'é"\\\n\u0001'], 'b': {}}|tojson }} {{ []|tojson }} {{ 'é🦙'|tojson(ensure_ascii=true) }}
{{ {'a': [1, {'b': 2}], 'c': []}|tojson(indent=2) }}
{{ messages|tojson }}
{{ missing|tojson }}
{{ 1 is number }} {{ 1 is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ true is integer }} {{ 'a' is string }} {{ [] is sequence }} {{ {} is mapping }} {{ [] is mapping }} {{ {} is iterable }} {{ 1 is iterable }} {{ none is none }} {{ true is true }} {{ 1 is true }} {{ false is false }}
{{ 3 is odd }} {{ 3 is even }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }} {{ 1 is eq 1 }} {{ 1 is not none }} {{ 1 is in [1] }} {{ 2 is gt 1 }} {{ 'a' is not string }} {{ 1 is not defined }}
{{ 'a' 'b' "c" }} {{ "\"'\x41\u00e9\t|" }} {{ '\d' }}
{# comment #}a{#- b -#} c {#- d #}
  {% if true %}
  x
  {% endif %}
  y
a  {%- if true -%}  b  {%- endif -%}  c
a {{- ' b ' -}} c
  {%+ if true %}x{% endif +%}
y
{% raw %}{{ not }} {% this %}{% endraw %}!
{% if 0 %}a{% elif [] %}b{% elif 'x' %}c{% else %}d{% endif %}
{{ {'a': {'b': 1}}['a']['b'] }} {{ {'a': {'b': 1}}.a.b }} {{ [[1, 2]][0].1 }} {{ {1: 'x', 'y': 2}[1] }}
{{ messages[0].role ~ ': ' ~ messages[0].content | trim ~ '!' }}
{{ -1|abs }} {{ - 2 + 3 }} {{ not true == false }} {{ (1 if false else 2) + 3 }} {{ 2 * 3 ~ 4 }} {{ 1 ~ 2 * 3 ~ 'x' }}
{{ 1 + 2 ~ 3 + 4 }}
{{ 2.5 is odd }} {{ 3.0 is odd }} {{ -3 is odd }} {{ true is odd }} {{ 4.0 is even }} {{ 4.5 is divisibleby 2 }}
{{ messages < messages }} {{ [1, {}] < [2, {}] }} {{ [missing] }} {{ true|abs }}
{{ [{}] < [{1: 2}] }}
{{ missing|int }}
{{ (messages|length)[:1] }}
{{ {}|indent }}
{{ bos_token + eos_token }} {{ add_generation_prompt }} {{ tools is none }} {{ documents is defined }}
{{ raise_exception('no: ' ~ messages[0].role) }}
{{ [1].append(2) }}
{{ {}.update({}) }}
{% generation %}a{% endgeneration %}
{% set x = {'a': 1} %}{% set x.b = 2 %}
{{ [1, 2,] }} {{ {'a': 1,} }} {{ range(3)|map('string')|join(',') }} {{ dict(a=1, b='x') }}
{{ "%s" }} {{ '{{' }} {{ '}}' }} {{ {'a': {'b': 1}} }}
{{ messages is sequence and messages is not mapping }} {{ messages[1].content is string }}
{% for m in messages -%}
    {%- if m.role == 'user' %}
U:{{ m.content.strip() }}
    {%- else -%}
        [{{ m.content | upper if m.role == 'assistant' else m.content }}]
    {%- endif %}
{% endfor %}
{{ 'It''s' }} {{ ["a'b", 'c"d', 'e\\f'] }} {{ [true, none, 1.0, 'x\ny'] }} {{ 'x' if not missing is defined else 'y' }}
{{ 10 ** 30 }}
"""
# Snippets that Python evaluates with numbers beyond 64 bits, which the interpreter refuses.
REFUSED = {"{{ 10 ** 30 }}"}


def snippets():
    """The lines of SNIPPETS; a line that opens a block without closing it, or is indented, goes on."""
    out, lines = [], SNIPPETS.strip("\n").split("\n")
    at = 0
    while at < len(lines):
        take = 1
        if lines[at].startswith("  {% if"):
            take = 4
        elif lines[at].startswith("  {%+"):
            take = 2
        elif lines[at].startswith("{% for m in messages -%}"):
            take = 7
        out.append("\n".join(lines[at:at + take]))
        at += take
    return out


def render(env, source, messages, add_generation_prompt):
    entry = {"messages": messages, "add_generation_prompt": add_generation_prompt, "bos_token": "<s>",
             "eos_token": "</s>"}
    Clock.used = False
    try:
        entry["output"] = env.from_string(source).render(
            messages=messages, add_generation_prompt=add_generation_prompt, bos_token="<s>", eos_token="</s>", tools=None,
            documents=None)
        if source in REFUSED:
            del entry["output"]
            entry["error"] = "other"
    except Raised as error:
        entry.update(error="raise", message=str(error))
    except Exception:
        entry["error"] = "other"
    return None if Clock.used else entry


def main():
    env, out = environment(), []
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "*.jinja"))):
        with open(path, newline="") as f:
            source = f.read()
        for messages, add_generation_prompt in CONVERSATIONS:
            entry = render(env, source, messages, add_generation_prompt)
            if entry:
                out.append({"name": os.path.basename(path), **entry})
    for source in snippets():
        out.append({"source": source, **render(env, source, MESSAGES, True)})
    with open(sys.argv[2], "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in out) + "\n]\n")


if __name__ == "__main__":
    main()
