"""What a template may not do, and that what it may do is left alone."""

from __future__ import annotations

import contextlib
import time

import jinja2
import pytest

from dragoman.backends.prompts.sandbox import Ranges, Sandbox, TooMuch, collected


def rendered(source: str) -> str:
    return collected(Sandbox().from_string(source), {"range": Ranges(), "m": {"content": "1234567890 %s *"}})


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10**9 }}",
        "{{ 'x'.ljust(10**9) }}",
        "{{ 'x'.zfill(10**9) }}",
        "{{ 'x' | center(10**9) }}",
        "{{ 'a\nb' | indent(10**9) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ [1] | tojson(indent=10**9) }}",
        "{% for a in range(2000) %}{% for b in range(2000) %}{% endfor %}{% endfor %}",
    ],
)
def test_what_would_grow_without_bound_is_stopped_before(source: str) -> None:
    begun = time.monotonic()
    with pytest.raises(TooMuch):
        rendered(source)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "source",
    [
        "{{ lipsum(n=1000) }}",
        "{{ m.__class__ }}",
        "{{ ''.format.__globals__ }}",
        "{{ m.update({'a': 1}) }}",
        "{% include 'x' %}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ '{0.__class__}'.format(m) }}",
    ],
)
def test_nothing_reaches_out_of_the_sandbox(source: str) -> None:
    """It is refused, or it is undefined and prints nothing."""
    with contextlib.suppress(jinja2.TemplateError, TypeError):
        assert rendered(source) == ""


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ 'x'.ljust(3) }}|", "x  |"),
        ("{{ '%5.1f%%' % 2 }}", "  2.0%"),
        ("{{ '{:>4}|{}'.format('a', 5000000) }}", "   a|5000000"),
        ("{{ '**%s**' | format(12345678) }}", "**12345678**"),
        ("{{ m.content | indent(2) }}", "1234567890 %s *"),
        ("{{ m.content + '%s' % 'x' }}", "1234567890 %s *x"),
        ("{{ [1, 'é'] | tojson(indent=1) }}", '[\n 1,\n "é"\n]'),
        ("{% set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}{{ dict(b=2) }}", "2{'b': 2}"),
    ],
)
def test_what_templates_do_is_left_alone(source: str, text: str) -> None:
    assert rendered(source) == text
