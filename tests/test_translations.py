"""The Chinese pages give the same commands and the same tables as the English ones.

Every block of code of the English text stands in the Chinese page, in the same order and with the same characters. A
table has the same rows: in a cell, what stands in backticks is the same. The tables of measured failures are translated
by phrases and those of the README by cells: `--golden` writes them anew, and what is not known fails with its words.
"""

# ruff: noqa: RUF001 (Chinese has its own comma and colon)

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.report import as_markdown, pasted

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
# The tables of the README between such marks, cell by cell: what is not listed is a name or a number.
TABLES = ("comparison", "speed")
CELLS = {
    "yes": "是",
    "no": "否",
    "two calls that share an index": "两个调用共用一个 index",
    "text, call, text in their order": "文本、调用、文本保持顺序",
    "`parallel_tool_calls: false` kept": "遵守 `parallel_tool_calls: false`",
    "a stream cut midway is no success": "中途断开的流不算成功",
    "an empty 200 is no success": "空的 200 不算成功",
    "half a call is not called complete": "半个调用不标为完成",
    "an overflow that agents recognize": "超出窗口的错误可被智能体识别",
    "usage measured or absent": "用量要么为实测值，要么不给",
    "tools left out are named": "列出被略去的工具",
    "a client that leaves ends the work": "客户端离开即终止生成",
    "pass-through": "字节转发",
    "CPU of a delta, 32 streams, unpaced, µs": "每个增量的 CPU，32 路流，全速，µs",
    "CPU of a delta, 200 streams, one each 20 ms, µs": "每个增量的 CPU，200 路流，每 20 ms 一个，µs",
    "added time to first token, ms": "首个 token 增加的时间，ms",
    "whole answers, 16 at once, 1/s": "非流式回答，16 路并发，1/s",
    "CPU of a 205 kB request, next turn, ms": "205 kB 请求的 CPU，后续轮次，ms",
    "memory, idle, MB": "空闲内存，MB",
}
RIGHT = re.compile(r"right in (\d+) cases")
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


def marked(page: str, name: str) -> str:
    found = re.search(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", page, re.DOTALL)
    assert found is not None
    return found[0]


def in_chinese(cell: str) -> str:
    words = RIGHT.sub(r"\1 个用例中正确", CELLS.get(cell, cell))
    left = set(re.findall(r"[a-z]{3,}", re.sub(r"`[^`]*`|codex-relay|dragoman|index|token", "", words), re.I))
    assert left <= {"LiteLLM", "Switchyard", "CPU"}, f"not translated yet, write it into CELLS: {cell}"
    return words


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_the_readme_are_the_same_in_both_languages(name: str, rewrite_golden: bool) -> None:
    path = CHINESE / README
    lines = marked(text(ROOT / README), name).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]
    table = as_markdown([[in_chinese(cell) for cell in row] for row in cells]) + "\n"
    if rewrite_golden:
        path.write_text(pasted(text(path), name, table.rstrip()), "utf-8")
    assert marked(text(path), name) == table


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
