"""Golden files: one case, one file of named sections, in the shape of Go's txtar.

    -- upstream.sse --
    data: {"choices": [...]}
    -- responses.sse --
    event: response.created
    ...

A section is the bytes after its header line, up to the next header. Content that does not end in a line end has one
added, and its header says so: `-- model.txt, no line end --`. The first section is the source, written by hand; the
others are what the code makes of it, written by `make golden` and read as a diff.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

GOLDEN = Path(__file__).parent / "golden"
TRANSCRIPTS = sorted((GOLDEN / "streams" / "chat_completions").glob("*.txtar"))  # what chat servers stream
_HEADER = re.compile(rb"^-- (?P<name>[\w.]+)(?P<bare>, no line end)? --\n", re.MULTILINE)


def read(path: Path) -> dict[str, bytes]:
    """The sections by name, in order."""
    data = path.read_bytes()
    headers = list(_HEADER.finditer(data))
    assert headers, f"{path.name} has no sections"
    assert headers[0].start() == 0, f"{path.name} does not begin with a section"
    ends = [header.start() for header in headers[1:]] + [len(data)]
    return {
        header["name"].decode(): data[header.end() : end - 1 if header["bare"] else end]
        for header, end in zip(headers, ends, strict=True)
    }


def write(path: Path, sections: Mapping[str, bytes]) -> None:
    out = b""
    for name, content in sections.items():
        bare = bool(content) and not content.endswith(b"\n")
        assert not _HEADER.search(content), f"{path.name}: {name} holds what looks like a header"
        out += f"-- {name}{', no line end' * bare} --\n".encode() + content + b"\n" * bare
    path.write_bytes(out)


def compare(path: Path, section: str, content: bytes | None, rewrite: bool) -> None:
    """Holds what the code made to the section of that name; None means that there is to be none."""
    sections = read(path)
    if rewrite and sections.get(section) != content:
        source, *_ = sections
        made = {name: old for name, old in sections.items() if name not in (source, section)}
        made |= {} if content is None else {section: content}
        write(path, {source: sections[source], **dict(sorted(made.items()))})
        return
    assert sections.get(section) == content, f"{section} in {path.name}: if that is meant, `make golden`, read the diff"


def pretty(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


# ------------------------------------------------------------------------------------------------------- the sources


def upstream(path: Path) -> bytes:
    """What the server streams in a case of `TRANSCRIPTS`."""
    return read(path)["upstream.sse"]


def requests(protocol: str) -> list[Path]:
    """The cases of requests of a client protocol."""
    return sorted((GOLDEN / "requests" / protocol).glob("*.txtar"))


def request(path: Path) -> Any:
    return orjson.loads(read(path)["request.json"])
