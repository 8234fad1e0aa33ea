"""A model without calls of its own: text, and reasoning in `<think>…</think>`."""

from dragoman.backends.markup.family import Family

FAMILY = Family(
    "plain",
    "models that write no calls",
    field="reasoning_content",
    recovers="repeated and unopened reasoning tags",
)
