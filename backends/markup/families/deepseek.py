"""DeepSeek: three forms of calls.

V3 and R1: in a section, each call begins with the word function, a separator and the NAME; the JSON stands in a fence.
V3.1: the NAME comes before the separator, bare JSON after it. V3.2 and V4: `<DSML>` tags (with bars) around each
parameter, which say themselves whether it is a string; the sections have other names, and in V4.1 a blank precedes the
name of every tag. The bars of all tokens are U+FF5C, their underscores U+2581.
"""

import re

from dragoman.backends.markup.family import Family
from dragoman.backends.markup.readers.headed_calls import HeadedCalls
from dragoman.backends.markup.readers.tagged_calls import TaggedCalls

_BAR, _LINE = "\uff5c", "\u2581"


def _token(words: str) -> str:
    return f"<{_BAR}{words.replace(' ', _LINE)}{_BAR}>"


CALLS_BEGIN, CALLS_END = _token("tool calls begin"), _token("tool calls end")
CALL_BEGIN, CALL_SEPARATOR, CALL_END = _token("tool call begin"), _token("tool sep"), _token("tool call end")
END_OF_SENTENCE = _token("end of sentence")
_HEADED = HeadedCalls(
    header=re.compile(r"(?P<name>[\w.:/-]+)"),
    separator=CALL_SEPARATOR,
    sections=(CALLS_BEGIN,),
    again=(CALL_BEGIN,),
    closers=("```", CALL_END, CALLS_END),
    word="function",
)
# the names of sections: V3.2, V4, V4.1, and V4's as they are misspelt
_SECTIONS = ("function_calls", "tool_calls", " calls", "calls", "toolcalls", "tool")


def marked(word: str, sections: tuple[str, ...] = _SECTIONS) -> tuple[TaggedCalls, tuple[str, ...]]:
    """The form of calls whose tags all begin with a word between bars, and its openers."""
    mark = f"{_BAR}{word}{_BAR}"
    opens, closes = [tuple(f"{slash}{mark}{blank}" for blank in ("", " ")) for slash in ("<", "</")]
    section_opens = tuple(f"<{mark}{section}>" for section in sections)
    call_opens = tuple(f"{tag}invoke" for tag in opens)
    form = TaggedCalls(
        call_tag=re.compile(r'\s*name="(\s*[^"\s][^"]*)"\s*/?>'),
        parameter_opens=tuple(f"{tag}parameter" for tag in opens),
        parameter_tag=re.compile(
            rf'<{mark} ?parameter name="(?P<key>[^"]*)"(?:\s+string="(?P<string>true|false)")?\s*>'
        ),
        value_ends=tuple(f"{tag}parameter>" for tag in closes),
        call_ends=tuple(f"{tag}invoke>" for tag in closes),
        section_opens=section_opens,
        call_opens=call_opens,
        section_ends=tuple(f"</{mark}{section}>" for section in sections),
        follows=section_opens,
        body=True,
    )
    return form, (*section_opens, *call_opens)


_DSML, _OPENERS = marked("DSML")

FAMILY = Family(
    "deepseek",
    "DeepSeek V3, R1, V3.1, V3.2, V4, V4.1",
    openers={
        CALLS_BEGIN: _HEADED,
        CALL_BEGIN: _HEADED,
        **{opener: _DSML for opener in _OPENERS},
        **{f"\n\n{opener}": _DSML for opener in _OPENERS},
    },
    breaks=True,
    ends=(END_OF_SENTENCE, "<|EOT|>"),
    signs=((f"{_BAR}DSML{_BAR}",), (CALLS_BEGIN,)),
    names=("deepseek",),
    markup="sections of tokens with bars, `invoke` and `parameter` tags marked DSML",
    field="reasoning_content",
    recovers="other section names; a forgotten token before a call; forgotten closing tags; JSON instead of parameters",
)
