"""The model's own files, as a Triton backend uses them: chat template, tokenizer, and how the model writes calls.

They are read once, in a thread, and long prompts are made in a thread too (`backends.prompts.prompt`). The packages
that read them come with the extra `tokenizer`. Under a constraint that holds from the first token on, the model may not
think: its template is asked not to let it, and reasoning that the template has opened all the same is closed in the
prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dragoman.backends.markup import FAMILIES, Markup, detect, open_markup, recognise
from dragoman.backends.model_folder import build, encode, module, read, require_packages
from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.triton.answer import AnswerFormat
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Request, Thinking, ToolCall
from dragoman.translators.parts import Parts

if TYPE_CHECKING:
    from dragoman.backends.prompts.prompt import Prompt, Rendered
    from dragoman.backends.prompts.template import ChatTemplate
    from dragoman.backends.prompts.tokenizer import Tokenizer

PROMPT_END = 200  # characters of a prompt in which the reasoning may have been opened


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """`family` is a name of `backends.markup`. `unread`: the template shows tools, and nothing tells how the model
    writes calls, so that they come back as text."""

    template: ChatTemplate
    tokenizer: Tokenizer
    prompts: Prompt
    family: str
    unread: bool = False

    @property
    def shows_tools(self) -> bool:
        return self.template.takes_tools

    @property
    def thinks(self) -> bool:
        """Whether the template has a switch for thinking."""
        return self.template.thinks

    async def prompt(self, request: Request, *, guided: bool) -> Rendered:
        if not guided:
            return await build(self.prompts, request)
        rendered = await build(self.prompts, replace(request, thinking=Thinking(effort="none")))
        opened = rendered.text.rstrip()
        closer = next((end for tag, end in FAMILIES[self.family].thinking.items() if opened.endswith(tag)), None)
        if closer is None:
            return rendered
        text = f"{opened}\n{closer}\n\n"
        return replace(rendered, text=text, ids=await encode(self.tokenizer, text))

    def without_second_bos(self, text: str) -> str:
        """For a server that puts the tokenizer's special tokens before a prompt itself."""
        if self.tokenizer.encode("a", add_special_tokens=True) == self.tokenizer.encode("a"):
            return text
        return self.template.strip_bos(text)

    def answer_format(self, request: Request, prompt: Rendered) -> AnswerFormat:
        def markup(parts: Parts) -> Markup:
            return open_markup(self.family, parts, prompt=prompt.text[-PROMPT_END:], request=request)

        ends = tuple(self.tokenizer.decode([id]) for id in self.tokenizer.eos_ids)
        return AnswerFormat(self.tokenizer.decode_stream, markup, self.tokenizer.count, ends)


_ASKED = {"role": "user", "content": "Hi"}
_PROBE = ToolCall("call_probe", "probe_call", '{"number": 2}')  # templates of bare calls print text unquoted
_PROBE_TOOL = {
    "type": "function",
    "function": {"name": _PROBE.name, "description": "", "parameters": {"type": "object"}},
}


def family_of(chat: ChatTemplate, model: str = "") -> str | None:
    """The markup family, by the template's markers or by what it prints; by the model's name where it is empty."""
    return detect(chat.source, model=model) or _recognised(chat)


def _recognised(chat: ChatTemplate) -> str | None:
    """The family by what the template prints for a call, where no marker in it tells."""
    if not chat.takes_tools:
        return None
    function = {"name": _PROBE.name, "arguments": _PROBE.arguments}
    called = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": _PROBE.id, "type": "function", "function": function}],
    }
    try:
        prompt = chat.render([_ASKED], [_PROBE_TOOL])
        whole = chat.render([_ASKED, called], [_PROBE_TOOL], add_generation_prompt=False)
    except GatewayError:
        return None
    return recognise(whole.removeprefix(prompt), _PROBE) if whole.startswith(prompt) else None


Loader = Callable[[], ModelFiles]


def loader(folder: Path, family: str | None, model: str, settings: Rendering) -> Loader:
    """A function that reads the files. Raises `GatewayError` INVALID at once where the extra is missing."""
    require_packages()

    def load() -> ModelFiles:
        chat, tokens = read(folder.resolve())
        prompts = module("prompt").Prompt(settings, chat, tokens)
        found = family or family_of(chat, model)
        return ModelFiles(chat, tokens, prompts, found or "plain", unread=found is None and chat.takes_tools)

    return load
