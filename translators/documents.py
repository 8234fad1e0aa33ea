"""What a model reads of a PDF: a line that names it and its pages, then the text of each page under its number.

The same document gives the same text in every turn, so that the prompt of a turn stays a prefix of the next one's. What
was left out is said in the text.
"""

from __future__ import annotations

from dataclasses import dataclass

from dragoman.translators.ir import Document, Text
from dragoman.translators.unreadable import PDF_DOCUMENT, named

REST = "[The rest of this document is left out: it is too long]"


@dataclass(frozen=True, slots=True)
class Extract:
    """The text of the first pages of a document that has `total` of them; None stands for a page that cannot be read.
    Where it is `cut`, the last page here is not whole."""

    pages: tuple[str | None, ...]
    total: int
    cut: bool = False

    @property
    def size(self) -> int:
        return sum(len(page or "") for page in self.pages)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is shown of a document, and whether that is all of its text."""

    text: Text
    whole: bool


def shown(document: Document, extract: Extract, most: int) -> Reading:
    """`most` bounds the characters of the document's own text."""
    lines: list[str] = []
    number, cut, left = 0, extract.cut, most
    for page in extract.pages:
        if left <= 0:
            break
        number += 1
        lines += _page(number, page if page is None else page[:left])
        size = len(page or "")
        cut = cut or size > left
        left -= size
    all_of_it = number == extract.total and not cut
    head = [_head(document, number, extract.total), *([document.context] if document.context else [])]
    text = "\n".join([*head, *lines, *([] if all_of_it else [REST])])
    return Reading(Text(text), all_of_it and None not in extract.pages)


def _head(document: Document, last: int, total: int) -> str:
    """`[PDF document "report.pdf", pages 1 to 100 of 250]`"""
    if last == total:
        pages = "1 page" if total == 1 else f"{total} pages"
    else:
        pages = f"page 1 of {total}" if last == 1 else f"pages 1 to {last} of {total}"
    return f"[{named(PDF_DOCUMENT, document.name)}, {pages}]"


def _page(number: int, text: str | None) -> list[str]:
    if text is None:
        return [f"[Page {number} cannot be read]"]
    return [f"[Page {number}]", text] if text else [f"[Page {number} has no text]"]
