"""Renders with transformers' own `apply_chat_template`; runs with the interpreter of `.real/transformers`.

    python transformers_driver.py DAY < cases.json > renderings.json

A case is an object of `template`, `tokens`, `messages` and `tools`; its rendering is `{"text": …}` or `{"error": …}`.
With `nulls`, members that are null reach the template, as they did before transformers 5. The clock stands still at the
midnight of DAY.
"""

import json
import sys
from datetime import datetime
from typing import Any

import tokenizers
import transformers
from transformers.utils import chat_template_utils

MIDNIGHT = datetime.fromisoformat(sys.argv[1])


class Clock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> "Clock":
        return cls.fromisoformat(MIDNIGHT.isoformat())


def rendered(case: dict[str, Any]) -> dict[str, str]:
    model = tokenizers.models.WordLevel({"a": 0}, "a")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(model))
    given = {"tools": case["tools"], "chat_template": case["template"], "add_generation_prompt": True, **case["tokens"]}
    try:
        if case.get("nulls"):
            return {"text": chat_template_utils.render_jinja_template([case["messages"]], **given)[0][0]}
        return {"text": tokenizer.apply_chat_template(case["messages"], tokenize=False, **given)}
    except Exception as error:  # whatever the template does
        return {"error": f"{type(error).__name__}: {error}"}


chat_template_utils.datetime = Clock
json.dump([rendered(case) for case in json.load(sys.stdin)], sys.stdout)
