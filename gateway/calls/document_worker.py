"""The reading of PDFs as it runs in a child process (`documents` asks for it): limits and base64 in, JSON out.

Nothing of a document is believed: whatever pypdf raises is a fault of the document, or of its page.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

with contextlib.suppress(ImportError):
    import pypdf  # before the first question, whose time is limited

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

logging.getLogger("pypdf").setLevel(logging.CRITICAL + 1)  # of one document it may write a line a thousand times
_CONTROLS = dict.fromkeys({*range(32), 127} - {ord("\t"), ord("\n")})


def answer(question: bytes) -> bytes:
    """`{"pages": …, "characters": …}`, a line feed and a PDF in base64 → `{"pages": ["text", null, …], "total": …,
    "cut": …}`, or `{"fault": "…"}` where nothing can be read."""
    end = question.index(b"\n")
    limits = json.loads(question[:end])
    try:
        found = _read(base64.b64decode(memoryview(question)[end + 1 :]), limits["pages"], limits["characters"])
    except Exception as error:
        found = {"fault": type(error).__name__}
    return json.dumps(found).encode()


def _read(raw: bytes, most_pages: int, most: int) -> dict[str, Any]:
    reader = _opened(raw)
    pages: list[str | None] = []
    left, cut = most, False
    for page in islice(_pages(reader), most_pages):
        text = _text(page)
        cut = text is not None and len(text) > left
        pages.append(text if text is None else text[:left])
        left -= len(text or "")
        if left <= 0:
            break
    if not any(pages):
        return {"fault": "no text"}
    return {"pages": pages, "total": len(reader.pages), "cut": cut}


def _opened(raw: bytes) -> PdfReader:
    reader = pypdf.PdfReader(io.BytesIO(raw))
    if reader.is_encrypted:
        reader.decrypt("")  # many may be read without a password, and are encrypted only to forbid changes
    return reader


def _pages(reader: PdfReader) -> Iterator[PageObject]:
    yield from reader.pages


def _text(page: PageObject) -> str | None:
    try:
        text = page.extract_text()
    except Exception:
        return None
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # no half surrogate pairs
    lines = (line.rstrip().translate(_CONTROLS) for line in whole.splitlines())
    return "\n".join(lines).strip()
