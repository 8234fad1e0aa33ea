"""Runs inside an environment that has the openai SDK: reads every chat answer with it and reports what it saw.

    python openai_chat_driver.py BASE_URL FOLDER CASE… > report.json

The server at BASE_URL plays the answer whose case is the request's `model`. The report says, for each case, what the
iterator over `chat.completions.create(stream=True)` gave, what the accumulator of `chat.completions.stream()` made of
it, what the whole answer was, and where the bytes disagree with the SDK's types: `extra` names fields that this
version does not know, `invalid` values that it refuses. It judges nothing.

Needs the standard library, the SDK, and the repository on its path for the driver that it shares the checks with.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.real.openai_driver import bytes_of, check

MESSAGES: Any = [{"role": "user", "content": "x"}]


def shown(completion: Any) -> dict[str, Any]:
    """A completion as JSON, with the fields that the bytes had and no others."""
    found: dict[str, Any] = completion.to_dict(warnings=False)
    return found


def iterated(client: openai.OpenAI, case: str) -> Any:
    return [shown(chunk) for chunk in client.chat.completions.create(model=case, messages=MESSAGES, stream=True)]


def accumulated(client: openai.OpenAI, case: str) -> Any:
    with client.chat.completions.stream(model=case, messages=MESSAGES) as stream:
        for _ in stream:
            pass
        return shown(stream.get_final_completion())


def whole(client: openai.OpenAI, case: str) -> Any:
    return shown(client.chat.completions.create(model=case, messages=MESSAGES))


def tried(read: Callable[[openai.OpenAI, str], Any], client: openai.OpenAI, case: str) -> dict[str, Any]:
    try:
        return {"read": read(client, case)}
    except openai.APIError as error:
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        return {"raised": type(error).__name__, "status": status, "code": error.code, "message": error.message}
    except Exception as error:  # whatever the SDK raises is what is asked for
        return {"raised": type(error).__name__, "message": str(error)}


def main(url: str, folder: str, *cases: str) -> None:
    report: dict[str, Any] = {"version": openai.__version__, "cases": {}}
    with openai.OpenAI(base_url=url, api_key="dummy", max_retries=0, timeout=60) as client:
        for case in cases:
            told: dict[str, set[str]] = {"missing": set(), "extra": set(), "invalid": set()}
            for chunk in bytes_of(Path(folder, f"{case}.sse").read_bytes()):
                if "error" not in chunk:
                    check(ChatCompletionChunk, chunk, told)
            seen = {read.__name__: tried(read, client, case) for read in (iterated, accumulated, whole)}
            if "read" in seen["whole"]:
                check(ChatCompletion, seen["whole"]["read"], told)
            report["cases"][case] = seen | {key: sorted(value) for key, value in told.items()}
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
