"""aider against the gateway, over chat completions and over Messages: it edits a file and commits the change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.aider import Aider
from tests.real.scripted_model import says
from tests.real.serving import serving
from tests.scripted import Json, Script, ScriptedServer, text_stream

BLOCK = """greeting.py
```python
<<<<<<< SEARCH
print("hello")
=======
print("grüß dich")
>>>>>>> REPLACE
```
"""
SUBJECT = "feat: greet in German"
ANSWER = text_stream("I will.\n\n", BLOCK)
CUT = Script(ANSWER, split="frames", cut_at=ANSWER.index(b"greeting.py"))


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_an_edit_is_applied_once_and_committed_although_the_first_answer_was_cut(
    real_component: RealComponent, tmp_path: Path, provider: str
) -> None:
    def answer(asked: Json) -> Script:
        return says(SUBJECT) if "# Diffs:" in str(asked["messages"][-1]) else Script(ANSWER)

    python = real_component("aider")
    async with ScriptedServer(CUT, default=answer) as server, serving("--backend", server.url) as url:
        aider = Aider(python, tmp_path, url)
        await aider.git("init", "--quiet")
        await aider.git("add", ".")
        await aider.git("commit", "--quiet", "--message", "one")
        status, shown = await aider.ask(f"{provider}/any", "Greet in German.")
        asked = [seen.body for seen in server.chats if seen.body]
    assert status == 0, shown
    assert " ".join(shown.split()).count("The model server broke off in the middle of its answer.") == 1
    assert "Applied edit to greeting.py" in shown
    assert (aider.work / "greeting.py").read_text(encoding="utf-8") == 'print("grüß dich")\n'
    assert (await aider.git("log", "--format=%s")).split("\n")[:2] == [SUBJECT, "one"]
    first, again, _ = asked
    assert first["messages"] == again["messages"]


async def test_an_overflow_is_shown_as_one_and_not_repeated(real_component: RealComponent, tmp_path: Path) -> None:
    words = "This model's maximum context length is 32768 tokens. However, your request has 40000 input tokens."
    refusal = Script.json({"object": "error", "message": words, "type": "BadRequestError", "code": 400}, 400)
    python = real_component("aider")
    async with ScriptedServer(default=refusal) as server, serving("--backend", server.url) as url:
        aider = Aider(python, tmp_path, url)
        await aider.git("init", "--quiet")
        _, shown = await aider.ask("openai/any", "Greet in German.")
        assert len(server.chats) == 1
    assert "Model openai/any has hit a token limit!" in shown
