"""The Chinese pages give the same commands and the same tables as the English ones.

Every block of code of the English text stands in the Chinese page, in the same order and with the same characters. A
table has the same rows: in a cell, what stands in backticks is the same. The tables of measured failures are translated
by phrases: `--golden` writes them anew, and a phrase that is not known fails with its words.
"""

# ruff: noqa: RUF001 (Chinese has its own comma and colon)

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHINESE = ROOT / "docs" / "zh_cn"
README = "README.md"


@dataclass(frozen=True)
class Pair:
    """A Chinese page, and the section of an English page that it stands for."""

    chinese: str
    english: str
    section: str


PAIRS = [
    Pair("quickstart.md", README, "See it work"),
    Pair("codex.md", README, "Codex"),
    Pair("claude-code.md", README, "Claude Code"),
    Pair("servers.md", README, "A real model server"),
]
MEASURED = re.compile(r"(?<=<!-- measured: begin -->\n).*(?=<!-- measured: end -->)", re.DOTALL)
# Words of the measured tables. What stands in backticks or in quotes is what a program says, and stays.
PHRASES = {
    r"\*\*Chat completions\*\*": "**Chat Completions**",
    r"our answer": "网关的应答",
    r"(\w+) SDK": r"\1 SDK",
    r"overflow, before the answer": "超出窗口，回答开始前",
    r"overflow, as the stream's first event": "超出窗口，作为流的首个事件",
    r"overflow, behind text": "超出窗口，已有文本之后",
    r"full, before the answer": "服务繁忙，回答开始前",
    r"full, behind text": "服务繁忙，已有文本之后",
    r"bad request": "无效请求",
    r"server error, before the answer": "服务端错误，回答开始前",
    r"nobody listens, for a second": "一秒内连接不上",
    r"cut before the answer": "回答开始前断开",
    r"cut in the text": "文本中途断开",
    r"cut in a call": "工具调用中途断开",
    r"the answer's tokens are used up": "回答的 token 额度用尽",
    r"event (`)": r"事件 \1",
    r", again in (\d+) s: ": r"，\1 秒后重试：",
    r"`: $": "`：",
    r"(\d+) requests, (?=ends)": r"\1 次请求，",
    r"(\d+) requests, compacts, answers ": r"\1 次请求，压缩对话，回答",
    r"(\d+) requests, answers ": r"\1 次请求，回答",
    r"asks again, answers ": "再次请求，回答",
    r"ends with ": "结束于 ",
    r"ends: ": "结束：",
    r"raises (`)": r"抛出 \1",
}
NAMES = {"Responses", "Messages", "Chat", "Completions", "Codex", "CLI", "Claude", "Code", "openai", "anthropic", "SDK"}
NAMES |= {"token"}


def text(path: Path) -> str:
    return path.read_text("utf-8")


def section(page: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no section “{title}” any more: name its new title here"
    return found[1]


def blocks(page: str) -> list[str]:
    return re.findall(r"^```\w+\n.*?^```$", page, re.MULTILINE | re.DOTALL)


def rows(page: str) -> list[list[list[str]]]:
    """Of tables with keys in their first cells, what each cell has in backticks."""
    found = []
    for table in re.findall(r"(?:^\|.*\|\n)+", re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL), re.M):
        cells = [[re.findall(r"`[^`]+`", cell) for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
        if any(row[0] for row in cells):
            found += cells
    return found


def translated(table: str) -> str:
    pieces = re.split(r"(“[^”]*”)", table)
    for phrase, words in PHRASES.items():
        pieces[::2] = [re.sub(phrase, words, piece) for piece in pieces[::2]]
    return "".join(pieces)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.chinese)
def test_both_languages_give_the_same_commands(pair: Pair) -> None:
    english = section(text(ROOT / pair.english), pair.section)
    assert blocks(text(CHINESE / pair.chinese)) == blocks(english)
    assert blocks(english)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.chinese)
def test_both_languages_have_tables_with_the_same_keys(pair: Pair) -> None:
    english = section(text(ROOT / pair.english), pair.section)
    ours, theirs = (rows(each) for each in (text(CHINESE / pair.chinese), english))
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    assert [len(row) for row in ours] == [len(row) for row in theirs]


def test_the_measured_failures_are_the_same_in_both_languages(rewrite_golden: bool) -> None:
    english, page = MEASURED.search(text(ROOT / "docs" / "failures.md")), CHINESE / "errors.md"
    assert english is not None
    table = translated(english[0])
    left = re.sub(r"`[^`]*`|“[^”]*”", "", table)
    unknown = sorted(set(re.findall(r"[A-Za-z]{2,}", left)) - NAMES)
    assert not unknown, f"not translated yet, write it into PHRASES: {unknown}"
    if rewrite_golden:
        page.write_text(MEASURED.sub(lambda _: table, text(page)), "utf-8")
    chinese = MEASURED.search(text(page))
    assert chinese is not None
    assert chinese[0] == table


def test_every_page_is_listed_and_every_link_leads_to_a_file() -> None:
    pages = {path.name for path in CHINESE.iterdir()}
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", text(CHINESE / README)))
    assert linked == pages - {README}
    assert {pair.chinese for pair in PAIRS} | {"errors.md"} == linked
    for path in CHINESE.iterdir():
        for target in re.findall(r"\]\(([^)#\s]+)", text(path)):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
