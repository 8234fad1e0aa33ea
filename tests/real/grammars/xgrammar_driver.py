"""Asks xgrammar what a grammar lets through; runs with the interpreter of `.real/xgrammar`.

    python xgrammar_driver.py < cases.json > verdicts.json

A case is an object of `tag` or `ebnf` with `texts`, and `pieces` out of which answers are made at random (`walks` of
them). Its verdict is `{"accepted": [true, …], "walks": [text, …]}`, or `{"error": …}` for a grammar that is none.
"""

import json
import random
import sys
import types
from typing import Any

import tvm_ffi

MOST_STEPS = 300
MOST_FREE = 40  # steps after which what is open is closed
CLOSING = ('"', "}", "]")

assert tvm_ffi  # it looks for the real torch, so it comes first


class Absent:
    """Anything of a package that is needed on a GPU only."""

    def __init__(self, *given: object, **named: object) -> None:
        pass


class AbsentPackage(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent


sys.modules |= {name: AbsentPackage(name) for name in ("torch", "transformers")}

import xgrammar  # noqa: E402

BYTES = xgrammar.TokenizerInfo(
    [bytes([each]) for each in range(256)] + [b"</s>"], vocab_type=xgrammar.VocabType.RAW, stop_token_ids=[256]
)
COMPILER = xgrammar.GrammarCompiler(BYTES)


def verdict(case: dict[str, Any]) -> dict[str, Any]:
    try:
        if "tag" in case:
            grammar = COMPILER.compile_structural_tag(case["tag"])
        else:
            grammar = COMPILER.compile_grammar(case["ebnf"])
    except Exception as error:  # whatever it finds wrong
        return {"error": f"{type(error).__name__}: {error}"}
    chance = random.Random(7)
    walks = [walk(xgrammar.GrammarMatcher(grammar), case["pieces"], chance) for _ in range(case.get("walks", 0))]
    return {"accepted": [accepts(grammar, text) for text in case["texts"]], "walks": [each for each in walks if each]}


def accepts(grammar: Any, text: str) -> bool:
    matcher = xgrammar.GrammarMatcher(grammar)
    return bool(matcher.accept_string(text) and matcher.accept_token(256))


def walk(matcher: Any, pieces: list[str], chance: random.Random) -> str:
    """A whole answer that the grammar lets through; "" where it has not come to an end."""
    text = ""
    for step in range(MOST_STEPS):
        if step and matcher.accept_token(256):
            return text
        shuffled = sorted(pieces, key=lambda each: chance.random())
        for piece in [*(CLOSING if step > MOST_FREE else ()), *shuffled]:
            if matcher.accept_string(piece):
                text += piece
                break
        else:
            return ""
    return ""


json.dump([verdict(case) for case in json.load(sys.stdin)], sys.stdout)
