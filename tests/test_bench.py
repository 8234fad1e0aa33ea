"""The bench measures what it says: its instruments, its checks, and a whole run in miniature.

No figure is compared with a budget here: times belong to `make bench`, on a machine that is not running tests.
"""

import itertools
import math
import sys

import orjson
import pytest

from bench import bodies
from bench.__main__ import ROWS, Result, Row, compare, main, table
from bench.children import PASSTHROUGH, UPSTREAM, Broken, started
from bench.client import Line, fetch, post
from bench.measures import TINY, percentile
from bench.soak.__main__ import Settings, report, soak
from bench.state import measured
from bench.upstream import FIRST_WORD, SCRIPTS, TOGETHER, WORDS, Recording, text_of

pytestmark = pytest.mark.slow


def test_a_delta_of_the_script_has_the_size_of_a_real_one() -> None:
    written = b"".join(Recording("burst", SCRIPTS["burst"]).writes)
    events = [line for line in written.split(b"\r\n") if len(line) > 8]
    assert len(events) == 500 - TOGETHER
    assert all(200 <= len(event) <= 260 for event in events)
    assert all(event.startswith(b"data: {") and event.endswith(b"\n\n") for event in events)


def test_the_first_word_is_said_once_only() -> None:
    assert text_of(500).count(FIRST_WORD) == 1
    assert not any(FIRST_WORD in word for word in WORDS)


def test_the_agents_turn_is_as_large_and_as_varied_as_promised() -> None:
    body = bodies.agent_turn("first")
    turn = orjson.loads(body)
    assert abs(len(body) - bodies.LARGE_BYTES) < 4_000
    assert len(turn["input"]) == 40
    assert sum(len(tool.get("tools", [tool])) for tool in turn["tools"]) == 60
    assert body == bodies.agent_turn("first")


def test_sessions_share_their_tools_and_turns_go_on_from_one_another() -> None:
    one, other = map(orjson.loads, itertools.islice(bodies.agent_sessions("first"), 2))
    assert one["tools"] == other["tools"]
    assert not [item for item in one["input"] if len(orjson.dumps(item)) > 1000 and item in other["input"]]
    turns = [orjson.loads(turn) for turn in itertools.islice(bodies.agent_turns("first"), 9)]
    for before, after in itertools.pairwise(turns[:8]):
        assert after["input"][:-2] == before["input"]
    assert len(turns[8]["input"]) == len(turns[0]["input"])
    assert turns[8]["input"] != turns[0]["input"]


def test_percentile() -> None:
    assert percentile(range(1, 101), 99) == 100
    assert percentile(range(1, 1001), 99) == 991
    assert percentile([5.0], 99) == 5.0
    assert percentile([], 99) == 0.0


@pytest.mark.parametrize(
    ("row", "gateway", "ratio", "met"),
    [
        (Row("k", "t", "µs", 1.0, ratio_budget=3.0), 6.0, 3.0, True),
        (Row("k", "t", "µs", 1.0, ratio_budget=3.0), 6.2, 3.1, False),
        (Row("k", "t", "µs", 1.0, ratio_budget=3.0), 6.2, None, False),
        (Row("k", "t", "MB", 1.0, budget=80.0), 80.0, 9.0, True),
        (Row("k", "t", "MB", 1.0, budget=80.0), 81.0, 0.1, False),
        (Row("k", "t", "MB", 1.0), 81.0, 0.1, None),
    ],
)
def test_the_verdict_on_a_budget(row: Row, gateway: float, ratio: float | None, met: bool | None) -> None:
    result = Result(row, 2.0, gateway, ratio)
    assert result.met is met
    word = {True: "pass", False: "FAIL", None: ""}[met]
    assert table([result], TINY).splitlines()[-1].endswith(word)


async def test_the_scripted_server_plays_whole_cut_and_refused_streams() -> None:
    async with started("upstream", UPSTREAM) as upstream:
        seen = {}
        for script in ("burst-short", "cut", "error", "busy"):
            line = await Line.open(upstream.url)
            request = post(upstream.url, "/v1/chat/completions", bodies.question(script))
            seen[script] = await line.ask(request, b'"finish_reason":"stop"', keep=True)
            line.leave()
        counts = orjson.loads(await fetch(upstream.url, "/counts"))
    assert [(reply.status, reply.whole, reply.completed) for reply in seen.values()] == [
        (200, True, True),
        (200, False, False),
        (200, True, False),
        (429, True, False),
    ]
    assert seen["burst-short"].content().endswith(b"data: [DONE]\n\n")
    assert seen["burst-short"].content().count(b'"content":"') == SCRIPTS["burst-short"].deltas + 1
    assert (counts["started"], counts["streams"], counts["abandoned"]) == (3, 0, 0)


async def test_a_proxy_that_does_other_work_is_not_measured() -> None:
    with pytest.raises(Broken, match="not what the script says"):
        await compare(TINY, [*PASSTHROUGH, "{upstream}"])  # speaks chat completions where Responses were asked for


async def test_a_child_that_does_not_start_says_why() -> None:
    with pytest.raises(Broken, match="no such luck"):
        async with started("child", [sys.executable, "-c", "import sys; sys.exit('no such luck')"]):
            pass


def test_a_run_that_breaks_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--gateway", f"{sys.executable} -c pass"]) == 1
    assert "did not become ready" in capsys.readouterr().err


async def test_a_run_in_miniature_yields_every_figure() -> None:
    results = await compare(TINY)
    assert [result.row for result in results] == list(ROWS)
    for result in results:
        assert math.isfinite(result.unit)
        assert math.isfinite(result.gateway)
    by_key = {result.row.key: result for result in results}
    for key in ("burst_cpu", "paced_cpu", "whole_rate", "whole_cpu", "first_turn_cpu", "next_turn_cpu", "idle_rss"):
        assert by_key[key].unit > 0
        assert by_key[key].gateway > 0
        assert by_key[key].ratio is not None
    assert len(table(results, TINY).splitlines()) == len(ROWS) + 1


async def test_a_soak_in_miniature_leaves_nothing_open_and_counts_every_request() -> None:
    attacks = ("no-key", "not-http", "cut-off", "deep", "items", "large-refusal", "endless-head")
    settings = Settings(minutes=0.04, streams=12, growth_mb=1000, attacks=attacks)
    outcome = await soak(settings)
    assert outcome.failures == []
    assert outcome.tally.outcomes["answered"] > 0
    assert outcome.tally.attacks > 0
    assert outcome.tally.reloads == 2
    assert outcome.counted > 0
    assert outcome.rss_end > 0
    assert "clients at once" in report(outcome, settings)


async def test_kept_conversations_are_measured_kept_not_kept_and_over_a_socket() -> None:
    rows = await measured(turns=3)
    assert len(rows) == 7
    assert all(float(figure.split()[0]) > 0 for _, figure in rows)
