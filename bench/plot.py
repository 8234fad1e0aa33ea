"""The plot of a run: for each figure, how many times the pass-through every system takes, on a logarithmic scale.

Left of the line a system takes less than the pass-through, right of it more. Plain SVG, with no library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from bench.figures import FIGURES, Figure, Results
from bench.report import number
from bench.systems import UNIT, System

SHOWN = ("text_burst_32", "text_paced_20", "text_paced_200", "held", "whole_cpu", "large_first", "large_next")
WIDTH, LABELS, ROW, GAP, HEAD = 860, 270, 17, 26, 24
LEAST, MOST = 0.04, 400.0
OURS, THEIRS, QUIET = "#1f6feb", "#9a6700", "#57606a"
STYLE = "font-family:system-ui,sans-serif;font-size:12px"


def svg(results: Results, systems: Sequence[System]) -> str:
    """The whole picture; a panel for each figure that has ratios."""
    pieces: list[str] = []
    top = 12
    for figure in FIGURES:
        rows = [each for each in systems if each is not UNIT and results.ratio(figure.key, each.key)]
        if figure.key in SHOWN and rows:
            pieces += _panel(results, figure, rows, top)
            top += HEAD + ROW * len(rows) + GAP
    box = f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" style="{STYLE}" role="img">'
    return "\n".join([head, f"<title>{escape(_TITLE)}</title>", box, *pieces, "</svg>"]) + "\n"


_TITLE = "How many times the byte pass-through of the same run"


def _panel(results: Results, figure: Figure, systems: Sequence[System], top: int) -> list[str]:
    bottom = top + HEAD + ROW * len(systems)
    pieces = [_text(8, top + 13, _heading(figure), weight="600")]
    for tick in (0.1, 1.0, 10.0, 100.0):
        x, shade = _x(tick), "#8c959f" if tick == 1 else "#d8dee4"
        pieces.append(f'<line x1="{x}" y1="{top + HEAD - 4}" x2="{x}" y2="{bottom}" stroke="{shade}"/>')
        pieces.append(_text(x, bottom + 12, f"{tick:g} x", anchor="middle", fill=QUIET))
    for place, system in enumerate(systems):
        ratio = results.ratio(figure.key, system.key) or 1.0
        y, x, colour = top + HEAD + ROW * place + 8, _x(ratio), OURS if system.ours else THEIRS
        value = results.value(figure.key, system.key) or 0.0
        pieces += [
            _text(LABELS - 10, y + 4, system.title, anchor="end"),
            f'<line x1="{_x(1.0)}" y1="{y}" x2="{x}" y2="{y}" stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{x}" cy="{y}" r="4.5" fill="{colour}"/>',
            _text(
                max(x, _x(1.0)) + 9,
                y + 4,
                f"{ratio:.2f} x ({number(value * figure.scale)} {figure.unit})".replace(" )", ")"),
                fill=QUIET,
            ),
        ]
    return pieces


def _heading(figure: Figure) -> str:
    return f"{figure.title}: {'more' if figure.key == 'held' else 'less'} is better"


def _x(ratio: float) -> float:
    bounded = min(max(ratio, LEAST), MOST)
    share = (math.log(bounded) - math.log(LEAST)) / (math.log(MOST) - math.log(LEAST))
    return round(LABELS + share * (WIDTH - LABELS - 140), 1)


def _text(x: float, y: float, words: str, *, anchor: str = "start", fill: str = "#1f2328", weight: str = "400") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}">{escape(words)}</text>'
