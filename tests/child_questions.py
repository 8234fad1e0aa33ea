"""What tests see of child processes: the questions that went to them."""

from __future__ import annotations

import pytest

from dragoman.backends.child_process import Children


def noted_questions(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Grows with each question that any group of children is asked; they are answered as always."""
    questions: list[bytes] = []
    original = Children.ask

    async def noted(self: Children, question: bytes, within: float) -> bytes:
        questions.append(question)
        return await original(self, question, within)

    monkeypatch.setattr(Children, "ask", noted)
    return questions
