"""Step3: `<steptml:invoke name="NAME">` and `<steptml:parameter name="KEY">` within tokens that look like DeepSeek's
but are written with underscores."""

from dragoman.backends.markup.families.minimax_m2 import invokes
from dragoman.backends.markup.family import Family, on_a_line


def _token(word: str) -> str:
    return f"<\uff5c{word}\uff5c>"


_BEGIN, _END = _token("tool_calls_begin"), _token("tool_calls_end")
_SKIPPED = (_token("tool_call_begin"), f"function{_token('tool_sep')}", _token("tool_call_end"))

FAMILY = Family(
    "step3",
    "Step3",
    openers=on_a_line({_BEGIN: invokes((_BEGIN, _END), space="steptml:", skipped=_SKIPPED)}),
    signs=(("<steptml:invoke",), (_token("tool_sep"),)),
    names=("step3",),
    markup='`<steptml:invoke name="NAME"><steptml:parameter name="KEY">…`',
    recovers="forgotten closing tags; values by their types",
)
