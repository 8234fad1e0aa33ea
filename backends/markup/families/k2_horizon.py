"""K2 Horizon: GLM's grammar in tags of its own, `<ifm|tool_call>NAME<ifm|arg_key>KEY</ifm|arg_key>`, also with the type
of each value, or an object in their place. How much it is to think names the tags of its thoughts."""

from dragoman.backends.markup.families.glm import keyed
from dragoman.backends.markup.family import THINK, Family, on_a_line
from dragoman.backends.markup.readers.either import Either
from dragoman.backends.markup.readers.json_calls import JsonCalls


def _tags(word: str) -> tuple[str, str]:
    return f"<ifm|{word}>", f"</ifm|{word}>"


_CALL, _CALL_END = _tags("tool_call")
_SECTION, _SECTION_END = _tags("tool_calls")
_FORM = Either(
    JsonCalls((_CALL_END,)),
    keyed(_CALL, _CALL_END, key=_tags("arg_key"), value=_tags("arg_value"), body=True, type_tag=_tags("arg_type")),
    begins=("{", "["),
    skipped=(_CALL,),
)

FAMILY = Family(
    "k2_horizon",
    "K2 Horizon",
    openers=on_a_line({_SECTION: _FORM, _CALL: _FORM}),
    breaks=True,
    thinking={**dict(map(_tags, ("think", "think_fast", "think_faster"))), **THINK},
    ends=("<|ifm|im_end|>", "<|endoftext|>"),
    frames=(_SECTION_END, f"\n{_SECTION_END}"),
    signs=((_CALL,), (_SECTION,)),
    names=("k2-horizon",),
    markup="`<ifm|tool_call>NAME<ifm|arg_key>KEY</ifm|arg_key><ifm|arg_value>…`",
    field="reasoning_content",
    recovers="forgotten closing tags; values by their types; JSON instead of parameters or of all",
)
