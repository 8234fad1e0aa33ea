"""Words for how much to think, and the nearest that a server knows."""

import pytest

from dragoman.backends.efforts import nearest_effort
from dragoman.translators.soft_words import EFFORTS


@pytest.mark.parametrize(
    ("effort", "accepted", "nearest"),
    [
        ("high", ("none", "low", "medium", "high"), "high"),
        ("max", ("none", "low", "medium", "high"), "high"),
        ("minimal", ("none", "low", "medium", "high"), "none"),
        ("xhigh", ("low", "high", "max"), "high"),
        ("none", ("low", "high"), "low"),
        ("low", ("on", "off"), "on"),
    ],
)
def test_an_effort_becomes_the_nearest_that_is_accepted(effort: str, accepted: tuple[str, ...], nearest: str) -> None:
    assert nearest_effort(effort, accepted) == nearest


@pytest.mark.parametrize("effort", EFFORTS)
def test_every_effort_has_a_nearest(effort: str) -> None:
    assert nearest_effort(effort, ("medium",)) == "medium"
