"""Where chat templates run: Jinja's sandbox with what Hugging Face adds to it, and with bounds.

A template belongs to the model that the operator serves, but it came with a download. It reaches no file, no clock and
no attribute of Python's own; what it repeats, pads, counts and prints is bounded before it is done, and a rendering
that takes too long is stopped at the next piece of its output. The bounds are against accidents and bad downloads, not
a defence in depth. Needs the extra `tokenizer`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

try:
    import jinja2
    from jinja2 import meta, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError as error:
    raise ImportError("chat templates need jinja2: pip install 'dragoman[tokenizer]'") from error

Json = dict[str, Any]

OUTPUT_LIMIT = 1 << 26  # characters of a prompt
REPEAT_LIMIT = 1 << 20  # elements of what a template multiplies or pads
INDENT_LIMIT = 64
SECONDS = 20.0

_PADDING = frozenset({"center", "expandtabs", "indent", "ljust", "rjust", "zfill"})
_FORMATS = frozenset({"format", "format_map"})
# A width that is an argument, or one of millions: `%*d`, `%9999999d`, `{:>{}}`, `{:9999999}`.
_WIDE = re.compile(r"%[-+ #0]*(?:\*|\d{7,})|\{[^{}]*:[^{}]*(?:\{|\d{7,})")


class Refused(jinja2.TemplateError):
    """`raise_exception` was called by the template."""


class TooMuch(jinja2.TemplateError):
    """A bound was reached."""


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks what training learns from; a prompt holds it as it is."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = tojson
        for name in (_PADDING | _FORMATS) & self.filters.keys():
            self.filters[name] = _checked(name, self.filters[name])
        self.globals["raise_exception"] = _raise_exception
        del self.globals["lipsum"]  # prints as many words as it is asked for

    def variables(self, source: str) -> frozenset[str]:
        """The names that a template takes from outside: its switches among them."""
        return frozenset(meta.find_undeclared_variables(self.parse(source)))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%":
            _check_format(left)
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str | list | tuple) and isinstance(other, int) and len(one) * other > REPEAT_LIMIT:
                raise TooMuch("the template repeats a value too often")
        if operator == "**" and (abs(left) > 1_000_000 or abs(right) > 64):
            raise TooMuch("the template computes too large a power")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        name = getattr(obj, "__name__", "")
        if name in _FORMATS:
            _check_format(getattr(getattr(obj, "__wrapped__", obj), "__self__", ""))
        elif name in _PADDING:
            _check_widths(args, kwargs)
        return super().call(context, obj, *args, **kwargs)


def _checked(name: str, filter: Any) -> Any:
    def checked(value: Any, *args: Any, **kwargs: Any) -> Any:
        if name in _FORMATS:
            _check_format(value)
        else:
            _check_widths(args, kwargs)
        return filter(value, *args, **kwargs)

    return checked


def _check_format(format: Any) -> None:
    if isinstance(format, str) and _WIDE.search(format):
        raise TooMuch("the template pads a value too far")


def _check_widths(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    if any(isinstance(width, int) and width > REPEAT_LIMIT for width in (*args, *kwargs.values())):
        raise TooMuch("the template pads a value too far")


class Ranges:
    """`range` in one rendering: loops within loops count together, since nothing else would ever stop them."""

    def __init__(self) -> None:
        self._left = REPEAT_LIMIT

    def __call__(self, *bounds: int) -> range:
        numbers = range(*bounds)
        self._left -= len(numbers)
        if self._left < 0:
            raise TooMuch(f"its loops go beyond {REPEAT_LIMIT} rounds")
        return numbers


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes for HTML."""
    if indent is not None and indent > INDENT_LIMIT:
        raise TooMuch("the template pads a value too far")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> None:
    raise Refused(str(message))


def collected(template: jinja2.Template, context: Json) -> str:
    """The whole output, piece by piece so that a template without end is stopped."""
    pieces: list[str] = []
    size = 0
    end = time.monotonic() + SECONDS
    for piece in template.generate(context):
        pieces.append(piece)
        size += len(piece)
        if size > OUTPUT_LIMIT:
            raise TooMuch(f"it wrote more than {OUTPUT_LIMIT} characters")
        if time.monotonic() > end:
            raise TooMuch(f"it took more than {SECONDS:g} s")
    return "".join(pieces)
