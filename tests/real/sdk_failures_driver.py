"""Runs inside an environment that has an SDK: one question by its newest interface, with its own retries.

    python sdk_failures_driver.py responses|chat|messages BASE_URL > told.json

`BASE_URL` has no path. Tells how it ended: the text, the last event, or the class of what was raised. Standard library
and the SDK only; it judges nothing.
"""

import json
import sys
from typing import Any

TEXT = "Say hello."


def responses(url: str) -> dict[str, Any]:
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="dummy", timeout=60)
    last: Any = None
    try:
        for event in client.responses.create(model="any", input=TEXT, stream=True):
            last = event
    except openai.APIError as error:
        return raised(error)
    told = last.response
    if told.status == "completed":
        return {"text": told.output_text}
    code = told.error.code if told.error else told.incomplete_details.reason
    return {"last": f"{last.type}, {code}"}


def chat(url: str) -> dict[str, Any]:
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="dummy", timeout=60)
    text, reason = "", None
    try:
        messages: Any = [{"role": "user", "content": TEXT}]
        for chunk in client.chat.completions.create(model="any", messages=messages, stream=True):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
    except openai.APIError as error:
        return raised(error)
    return {"text": text} if reason == "stop" else {"last": f"finish_reason {reason}"}


def messages(url: str) -> dict[str, Any]:
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key="dummy", timeout=60)
    try:
        asked: Any = [{"role": "user", "content": TEXT}]
        with client.messages.stream(model="any", max_tokens=1000, messages=asked) as stream:
            final = stream.get_final_message()
    except anthropic.APIError as error:
        return raised(error)
    if final.stop_reason != "end_turn":
        return {"last": f"stop_reason {final.stop_reason}"}
    return {"text": "".join(block.text for block in final.content if block.type == "text")}


def raised(error: Exception) -> dict[str, Any]:
    return {"raised": type(error).__name__}


if __name__ == "__main__":
    json.dump({"responses": responses, "chat": chat, "messages": messages}[sys.argv[1]](sys.argv[2]), sys.stdout)
