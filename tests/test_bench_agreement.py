"""In which ratios runs of the bench agree, from the files that they have written."""

from pathlib import Path

import orjson
import pytest

from bench.__main__ import main
from bench.figures import Results
from bench.report import as_json
from bench.systems import GATEWAY_SYSTEM, OURS, TWO_WORKERS, UNIT


def run_of(path: Path, gateway: float, *, whole_rate: bool = True) -> Path:
    """The file of a run in which the gateway takes `gateway` times the unit."""
    made = Results()
    for system, times in ((UNIT, 1.0), (GATEWAY_SYSTEM, gateway), (TWO_WORKERS, gateway)):
        made.add(system, 0, {"text_burst_32": times, "text_delay_p99_20": times, "held": times})
        made.add(system, 0, {"whole_rate": 2.0} if whole_rate else {})
        if system is not UNIT:
            made.add(system, 0, {"workers_burst_32": times})
    path.write_bytes(orjson.dumps(as_json(made, OURS, {})))
    return path


def test_runs_agree_where_their_ratios_are_within_15_percent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(run_of(tmp_path / f"{gateway}.json", gateway)) for gateway in (2.0, 2.2, 2.29, 2.4)]
    assert main(["--agree", *runs[:3], "--strict"]) == 0
    # the pass-through to itself says nothing, delays and streams held are no work, and two workers are to one
    assert capsys.readouterr().out == "3 runs agree to within 15 % in 5 of 5 ratios of CPU and rates\n"
    assert main(["--agree", *runs]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "4 runs agree to within 15 % in 3 of 5 ratios of CPU and rates",
        "  20 % apart: text_burst_32, responses: 2.00, 2.20, 2.29, 2.40",
        "  20 % apart: text_burst_32, two-workers: 2.00, 2.20, 2.29, 2.40",
    ]
    assert main(["--agree", *runs, "--strict"]) == 2


def test_a_ratio_that_a_run_lacks_is_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(run_of(tmp_path / f"{each}.json", 2.0, whole_rate=each)) for each in (True, False)]
    assert main(["--agree", *runs]) == 0
    assert "in 3 of 3 ratios" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"figures": 7}'])
def test_a_file_without_figures_is_named(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none.json").write_text(content)
    assert main(["--agree", str(tmp_path / "none.json"), str(tmp_path / "gone.json")]) == 1
    assert "none.json holds no figures of a run" in capsys.readouterr().err


def test_runs_with_nothing_in_common_are_not_said_to_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(run_of(tmp_path / "run.json", 2.0))
    (tmp_path / "none.json").write_text('{"figures": {}}')
    for runs in ([run, str(tmp_path / "none.json")], [str(tmp_path / "none.json"), run]):
        assert main(["--agree", *runs]) == 1
        assert "no ratio" in capsys.readouterr().err
