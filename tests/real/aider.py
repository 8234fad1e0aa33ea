"""aider without a terminal: a home of its own with a repository of one file, and what it printed."""

from __future__ import annotations

from pathlib import Path

from tests.real.program import run

SECONDS = 180.0
QUIET = (
    *("--no-check-update", "--analytics-disable", "--no-show-release-notes", "--no-show-model-warnings"),
    *("--no-pretty", "--no-gitignore", "--yes-always"),
)


class Aider:
    """A home with a repository of one file, and aider in it."""

    def __init__(self, python: Path, home: Path, url: str, key: str = "any") -> None:
        self.python, self.work = python, home / "work"
        nobody = "http://127.0.0.1:9"  # nothing beside the gateway is asked
        self.environment = {
            "HOME": str(home),
            "TMPDIR": str(home),
            "HTTPS_PROXY": nobody,
            "HTTP_PROXY": nobody,
            "NO_PROXY": "127.0.0.1",
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_NAME": "Ann" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "ann@example.org" for who in ("AUTHOR", "COMMITTER")},
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "OPENAI_API_BASE": f"{url}/v1",
            "OPENAI_API_KEY": key,
            "ANTHROPIC_API_BASE": url,
            "ANTHROPIC_API_KEY": key,
        }
        self.work.mkdir()
        (self.work / "greeting.py").write_text('print("hello")\n', encoding="utf-8")
        # a list of prices that is fresh, so that aider does not look for one
        prices = home / ".aider" / "caches" / "model_prices_and_context_window.json"
        prices.parent.mkdir(parents=True)
        prices.write_text('{"none": {}}', encoding="utf-8")

    async def git(self, *words: str) -> str:
        status, output, errors = await run(("git", *words), self.work, self.environment, SECONDS)
        assert status == 0, errors.decode()
        return output.decode()

    async def ask(self, model: str, prompt: str, *flags: str, edits: str = "diff") -> tuple[int, str]:
        """`flags` are further ones, and files that it shows the model."""
        command = (str(self.python), "-m", "aider", "--model", model, "--edit-format", edits, *QUIET)
        given = (*command, "--message", prompt, *flags, "greeting.py")
        status, output, errors = await run(given, self.work, self.environment, SECONDS)
        return status, output.decode() + errors.decode()
