"""Where a text stands in Markdown's code."""

from __future__ import annotations

import pytest

from dragoman.backends.markup.fences import Fences


@pytest.mark.parametrize(
    ("text", "open", "in_line"),
    [
        ("", False, False),
        ("Like this:\n```", True, True),
        ("```xml\n<a>", True, False),
        ("  ```xml\n", True, False),
        ("```\na\n```", False, True),
        ("```\na\n```\n", False, False),
        ("```\na\n```python\nb", True, False),
        ("a ``` b", False, True),
        ("write `", False, True),
        ("write `a` and", False, False),
        ("it`s so\nand", False, False),
        ("```a``` b", False, False),
        ("~~~xml\n<a>", True, False),
        ("~~~\na\n~~~\n", False, False),
        ("~~~\n```\nb", True, False),
        ("```\n~~~\nb", True, False),
        ("````\n```\nb", True, False),
        ("````\n```\nb\n```\n````\n", False, False),
        ("```\na\n`````\nb", False, False),
        ("a ~~~\nb", False, False),
    ],
)
def test_what_stands_in_code(text: str, open: bool, in_line: bool) -> None:
    whole, letters = Fences(), Fences()
    whole.feed(text)
    for letter in text:
        letters.feed(letter)
    assert (whole.open, whole.in_line) == (letters.open, letters.in_line) == (open, in_line)
