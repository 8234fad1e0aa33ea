"""The bench measures what it says: its programs in C, its checks, its arithmetic, and a whole run in miniature.

No figure is compared with a bound here: times belong to `make bench`, on a machine that is not running tests.
"""

import contextlib
import dataclasses
import json
import os
import resource
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import pytest

from bench import bodies, parts, peers, turns
from bench.__main__ import Plan, main, measure
from bench.checks import check
from bench.children import UPSTREAM, Broken, Child, started
from bench.client import Line, fetch, post
from bench.figures import FIGURES, Bound, Results
from bench.native import Programs, build, compiler
from bench.plot import svg
from bench.profile import folded
from bench.profile import table as profile_table
from bench.report import as_json, as_markdown, as_text, kinds_table, main_table, number, pasted, workers_table
from bench.rig import Load, Rig, Times, family, rig
from bench.scripts import KINDS, MODELS, PACED, SCRIPTS, SLOW_BURSTS, Script
from bench.soak.__main__ import Settings, report, soak
from bench.soak.tally import percentile
from bench.state import measured
from bench.systems import DIRECT, GATEWAY_SYSTEM, OURS, TWO_WORKERS, UNIT, Launch, Process, System
from bench.upstream import FIRST_WORD, TOGETHER, WORDS, Recording, text_of
from bench.upstream import SCRIPTS as SOAK_SCRIPTS

pytestmark = pytest.mark.slow
needs_compiler = pytest.mark.skipif(compiler() is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return build(tmp_path_factory.mktemp("native"))


@pytest.fixture
async def place(programs: Programs, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(programs, tmp_path) as made:
        yield made


@contextlib.contextmanager
def small() -> Iterator[pytest.MonkeyPatch]:
    """Loads that are over in a moment, and as short scripts as there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "BURST_STREAMS", {1: 2, 4: 4})
        patch.setattr(parts, "PACED_STREAMS", (2,))
        patch.setattr(parts, "RAMP_SECONDS", 0.05)
        patch.setattr(parts, "LARGE_REQUESTS", 2)
        patch.setattr(parts, "WHOLE_SECONDS", 0.1)
        patch.setattr(parts, "MOST_STREAMS", 4)
        short = {
            "HELD": Script("text", 20, 5_000),
            "OPEN": Script("text", 2, 200_000),
            "TICKING": Script("text", 400, 1_000),
        }
        paced = {kind: Script(kind, 20, 5_000) for kind in KINDS}
        for name, script in short.items():
            patch.setattr(parts, name, script)
        patch.setattr(parts, "PACED", paced)
        patch.setattr("bench.rig.MODELS", (*MODELS, *(each.model for each in (*short.values(), *paced.values()))))
        yield patch


# ---- the programs in C


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gap", [0, 1_000])
async def test_every_delta_of_a_script_reaches_the_clients_and_paced_ones_say_when_they_left(
    place: Rig, kind: str, gap: int
) -> None:
    script = Script(kind, 40, gap)
    load = await place.load(DIRECT, script, 3, 7)
    assert load.answered == 7
    assert load.marks == 7 * script.marks
    assert (load.delay.most > 0) is (gap > 0)
    assert load.cpu > 0
    assert load.peak > 0


@needs_compiler
async def test_a_delta_of_the_server_has_the_size_of_a_real_one(place: Rig) -> None:
    body = turns.encode("chat", "text-40-0", turns.short())
    line = await Line.open(place.server.url)
    reply = await line.ask(post(place.server.url, "/v1/chat/completions", body), keep=True)
    line.leave()
    events = [event for event in reply.content().split(b"\n\n") if b'"content":"' in event]
    assert len(events) == 41
    assert all(200 <= len(event) + 2 <= 260 for event in events)


@needs_compiler
async def test_the_server_answers_whole_requests_and_says_which_models_it_has(place: Rig) -> None:
    load = await place.load(DIRECT, Script("text", 100), 4, 40, whole=True)
    assert load.answered == 40
    models = orjson.loads(await fetch(place.server.url, "/v1/models"))
    assert [each["id"] for each in models["data"]] == list(MODELS)
    assert len(MODELS) == len({(each.kind, each.deltas, each.gap) for each in SCRIPTS})


@needs_compiler
async def test_an_answer_that_fails_is_no_figure(place: Rig) -> None:
    with pytest.raises(Broken, match=r"3 of 3 answers failed: .*not found"):
        await place.load(DIRECT, Script("Nothing", 1), 1, 3)
    nobody = await place.load(DIRECT, Script("Nothing", 1), 1, 3, failing=True)
    assert nobody.answered == 0


@needs_compiler
async def test_answers_that_do_not_come_in_time_are_missing(place: Rig) -> None:
    with pytest.raises(Broken, match="2 of 2 answers failed"):
        await place.load(DIRECT, Script("text", 50, 200_000), 2, 2, seconds=1)


@needs_compiler
async def test_clients_that_wait_leave_the_cpu_to_others(place: Rig) -> None:
    """One that does not stands in the way of the server, which has the same CPU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    load = await place.load(DIRECT, PACED["text"], 4, 4)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert load.seconds > 1
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < load.seconds / 3


@needs_compiler
async def test_the_bodies_are_sent_in_turn(place: Rig) -> None:
    bodies = [place.body(DIRECT, Script("text", deltas, 1_000)) for deltas in (10, 20)]
    load = await place.load(DIRECT, Script("text", 10, 1_000), 1, 4, bodies=bodies)
    assert load.marks == 60


def test_without_a_compiler_the_bench_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    assert main(["burst", "--patient"]) == 1
    assert "no C compiler" in capsys.readouterr().err


@needs_compiler
def test_a_program_that_does_not_compile_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "cc -Dmain=0")
    with pytest.raises(Broken, match=r"server\.c was not compiled"):
        build(tmp_path)


# ---- what is asked and what comes back


@pytest.mark.parametrize("protocol", turns.PROTOCOLS)
def test_an_agents_request_is_large_and_grows_by_its_steps_only(protocol: str) -> None:
    whole = turns.long(3, turns.STEPS + 2)
    earlier, later = (turns.encode(protocol, "m", whole.until(steps)) for steps in (turns.STEPS, turns.STEPS + 1))
    assert 200_000 < len(earlier) < 210_000
    assert 1_000 < len(later) - len(earlier) < 2_500
    assert earlier == turns.encode(protocol, "m", turns.long(3))
    sent = orjson.loads(earlier)
    assert len(sent["tools"]) == turns.TOOLS
    history = "input" if protocol == "responses" else "messages"
    assert orjson.loads(later)[history][: len(sent[history])] == sent[history]


def test_conversations_of_two_seeds_share_no_tool_and_no_step() -> None:
    one, other = turns.long(1), turns.long(2)
    assert not {json.dumps(each.schema) for each in one.tools} & {json.dumps(each.schema) for each in other.tools}
    assert not {each.output for each in one.steps} & {each.output for each in other.steps}


@needs_compiler
async def test_a_system_that_does_other_work_is_not_measured(place: Rig) -> None:
    assert UNIT.process is not None
    async with place.start(UNIT.process):
        await check(place, UNIT)
        with pytest.raises(Broken, match="says Said"):
            await check(place, dataclasses.replace(UNIT, protocol="responses"))


@needs_compiler
async def test_the_cpu_of_two_workers_is_that_of_all_their_processes_on_one_cpu(place: Rig) -> None:
    assert TWO_WORKERS.process is not None
    async with place.start(TWO_WORKERS.process) as supervisor:
        processes = [Child("", pid, "") for pid in family(supervisor.pid)]
        assert len(processes) == 3
        assert {frozenset(os.sched_getaffinity(each.pid)) for each in processes} == {
            frozenset(os.sched_getaffinity(0) if place.gateway_cpu is None else {place.gateway_cpu})
        }
        before = [each.cpu() for each in processes]
        load = await place.load(TWO_WORKERS, SLOW_BURSTS["text"], 64, 64)
        own, *workers = (each.cpu() - earlier for each, earlier in zip(processes, before, strict=True))
        assert all(each > own for each in workers)
        # what they do between the two readings of their clocks is counted here only
        assert max(workers) < load.cpu <= own + sum(workers) + 1e-9


@needs_compiler
async def test_a_peer_that_does_not_start_is_a_hole_in_the_table_and_ours_ends_the_run(
    programs: Programs, tmp_path: Path
) -> None:
    process = Process("ghost", lambda launch: ["false"], announces=False, start_seconds=5)
    ghost = System("ghost", "ghost", "chat", process, ours=False, main=True)
    results = await measure(Plan([], [DIRECT, ghost]), programs, tmp_path)
    assert "did not become ready" in results.missing["ghost"]
    with pytest.raises(Broken, match="did not become ready"):
        await measure(Plan([], [dataclasses.replace(ghost, ours=True)]), programs, tmp_path)


def test_the_peers_are_given_every_model_and_the_port(tmp_path: Path) -> None:
    launch = Launch("http://127.0.0.1:1/v1", 4711, tmp_path)
    for process in dict.fromkeys(each.process for each in peers.PEERS):
        assert process is not None
        assert "4711" in process.command(launch)
    routes = tomllib.loads((tmp_path / "routes.toml").read_text("utf-8"))["routes"]
    assert [each["id"] for each in routes.values()] == list(MODELS)
    models = orjson.loads((tmp_path / "litellm.yaml").read_bytes())["model_list"]
    assert [each["model_name"] for each in models] == list(MODELS)


@needs_compiler
@pytest.mark.parametrize(
    ("delays", "counts", "asked"),
    [
        ([0.002], 0.002, 1),
        ([0.5, 0.002], 0.002, 2),
        ([0.5, 0.02, 0.3], 0.02, 3),
    ],
)
async def test_a_paced_load_that_was_held_up_is_asked_again(
    place: Rig, monkeypatch: pytest.MonkeyPatch, delays: list[float], counts: float, asked: int
) -> None:
    """Each try takes as much CPU as its deltas are late."""
    script = PACED["text"]
    loads = [
        Load(2, 2 * script.marks, 1.0, Times(0, 0, 0), Times(0, each, 0), Times(0, 0, 0), each * 2 * script.deltas, 0)
        for each in delays
    ]
    left = iter(loads)

    async def load(*_: object, **__: object) -> Load:
        return next(left)

    monkeypatch.setattr(Rig, "load", load)
    monkeypatch.setattr(parts, "PACED_STREAMS", (2,))
    place.pace[DIRECT.key] = 0.0
    figures = await parts.paced(place, DIRECT, 0)
    assert figures["text_delay_p99_2"] == counts
    assert figures["text_paced_2"] == pytest.approx(counts)
    assert len(list(left)) == len(delays) - asked


@needs_compiler
@pytest.mark.parametrize(
    ("pace", "requests", "deltas"),
    [
        (1e-6, 60 * 7, 500),
        (5e-6, 60 * 2, 500),
        (1e-5, 60, 500),
        (1e-2, 1, 50),
    ],
)
async def test_a_burst_takes_a_fifth_of_a_second_or_more_and_ten_at_most(
    place: Rig, monkeypatch: pytest.MonkeyPatch, pace: float, requests: int, deltas: int
) -> None:
    asked: list[tuple[int, int]] = []

    async def load(rig: Rig, system: System, script: Script, streams: int, requests: int) -> Load:
        asked.append((requests, script.deltas))
        return Load(0, 0, 1.0, Times(0, 0, 0), Times(0, 0, 0), Times(0, 0, 0), requests * script.deltas * pace, 0)

    monkeypatch.setattr(Rig, "load", load)
    monkeypatch.setattr(parts, "BURST_STREAMS", {1: 60})
    place.pace[DIRECT.key] = pace
    assert await parts.burst(place, DIRECT, 0) == {"text_burst_1": pytest.approx(pace)}
    assert asked == [(requests, deltas)]


# ---- arithmetic and what is shown


def results() -> Results:
    """Two rounds; the gateway is 2 and 4 times the unit."""
    made = Results()
    for round, (unit, gateway) in enumerate([(1e-6, 2e-6), (3e-6, 12e-6)]):
        for key in ("text_burst_32", "tools_burst_1", "text_burst_1"):
            made.add(UNIT, round, {key: unit})
            made.add(GATEWAY_SYSTEM, round, {key: gateway})
        for system, seconds in ((DIRECT, 0.001), (UNIT, 0.0015), (GATEWAY_SYSTEM, 0.002 + round)):
            made.add(system, round, {"first": seconds})
    made.add(GATEWAY_SYSTEM, 0, {"idle": 50e6, "held": 700})
    made.derive()
    return made


def test_of_cpu_the_least_counts_of_rates_the_most_and_of_delays_and_paced_deltas_the_median() -> None:
    made = results()
    assert made.value("text_burst_32", "responses") == pytest.approx(2e-6)
    assert made.ratio("text_burst_32", "responses") == pytest.approx(2.0)
    assert made.ratio("idle", "responses") is None
    assert made.ratio("text_burst_32", "messages") is None
    for round, value in enumerate((1.0, 5.0, 3.0)):
        made.add(
            UNIT, round, {"whole_rate": value, "whole_cpu": value, "large_next": value, "text_delay_p99_20": value}
        )
        made.add(UNIT, round, {"text_burst_1": value, "text_paced_20": value, "workers_paced_200": value})
    keys = ("whole_rate", "whole_cpu", "large_next", "text_burst_1", "text_delay_p99_20")
    assert [made.value(key, UNIT.key) for key in keys] == [5.0, 1.0, 1.0, 1.0, 3.0]
    # deltas that come late are read together and cost less, so the least of the paced rounds may be a false one
    assert [made.value(key, UNIT.key) for key in ("text_paced_20", "workers_paced_200")] == [3.0, 3.0]


def test_the_first_token_is_counted_from_where_it_comes_without_a_gateway() -> None:
    made = results()
    assert made.value("first_added", "pass-through") == pytest.approx(0.0005)
    assert made.value("first_added", "responses") == pytest.approx(0.501)
    assert made.value("first_added", "direct") is None


@pytest.mark.parametrize(
    ("bound", "value", "met"),
    [
        (Bound("ratio", 1.4), 1.4, True),
        (Bound("ratio", 1.4), 1.41, False),
        (Bound("value", 600, least=True), 600, True),
        (Bound("value", 600, least=True), 599, False),
    ],
)
def test_whether_a_figure_is_what_it_should_be(bound: Bound, value: float, met: bool) -> None:
    assert bound.met(value) is met


def test_figures_that_are_not_what_they_should_be_are_known() -> None:
    made = results()
    assert [each.key for each in made.missed()] == ["text_burst_32", "first_added"]
    excess = next(each for each in FIGURES if each.key == "first_added")
    assert made.bounded(excess) == pytest.approx(500.5)


def test_the_ratio_of_two_workers_is_to_one() -> None:
    made = Results()
    for key, one, two in (("burst_32", 4e-6, 4.4e-6), ("burst_256", 4e-6, 4.8e-6)):
        for system, seconds in ((UNIT, 1e-6), (GATEWAY_SYSTEM, one), (TWO_WORKERS, two)):
            made.add(system, 0, {f"workers_{key}": seconds})
    assert [each.key for each in made.missed()] == ["workers_burst_256"]
    assert workers_table(made, [GATEWAY_SYSTEM, TWO_WORKERS]) == [
        ["", GATEWAY_SYSTEM.title, TWO_WORKERS.title, "should be"],
        ["CPU of a delta, 32 streams, unpaced, µs", "4.00 (1.00 x)", "4.40 (1.10 x)", "at most 1.15 x: yes"],
        ["CPU of a delta, 256 streams, unpaced, µs", "4.00 (1.00 x)", "4.80 (1.20 x)", "at most 1.15 x: no"],
    ]
    assert as_json(made, OURS, {})["figures"]["workers_burst_32"]["two-workers"]["ratio"] == pytest.approx(1.1)


def test_the_tables_have_a_row_for_each_figure_and_a_column_for_each_system() -> None:
    table = main_table(results(), OURS)
    assert table[0] == ["", UNIT.title, GATEWAY_SYSTEM.title, "should be"]
    by_title = {row[0]: row[1:] for row in table}
    assert by_title["CPU of a delta, 32 streams, unpaced, µs"] == [
        "1.00 (1.00 x)",
        "2.00 (2.00 x)",
        "at most 1.4 x: no",
    ]
    assert by_title["memory, idle, MB"] == ["-", "50.0", "at most 60 MB: yes"]
    assert len(as_text(table).splitlines()) == len(table)
    assert as_markdown(table).count("\n") == len(table)
    kinds = kinds_table(results(), OURS)
    assert [row[0] for row in kinds[1:]] == [
        "text: pass-through",
        "text: dragoman, Responses",
        "tool arguments: pass-through",
        "tool arguments: dragoman, Responses",
    ]
    assert main_table(Results(), OURS) == kinds_table(Results(), OURS) == []


def test_numbers_are_shown_with_three_figures() -> None:
    assert [number(value) for value in (0.123, 1.234, 12.34, 123.4, 12345.6)] == [
        "0.12",
        "1.23",
        "12.3",
        "123",
        "12,346",
    ]


def test_json_holds_every_round() -> None:
    content = as_json(results(), OURS, {"python": "3"})
    assert content["figures"]["text_burst_32"]["responses"]["rounds"] == [2e-6, 12e-6]
    assert orjson.loads(orjson.dumps(content)) == content


def test_the_plot_is_a_picture_with_a_dot_for_each_ratio() -> None:
    picture = ET.fromstring(svg(results(), OURS))
    dots = [each for each in picture.iter() if each.tag.endswith("circle")]
    assert len(dots) == 1  # 32 streams; the unit is the line, and what has no ratio is not shown
    assert any(GATEWAY_SYSTEM.title == each.text for each in picture.iter())


def test_only_what_is_between_its_marks_is_pasted() -> None:
    page = "before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n"
    assert pasted(page, "figures", r"new \1") == page.replace("old", r"new \1")
    assert pasted(page, "kinds", "new") == page


@needs_compiler
async def test_a_run_in_miniature_yields_every_figure(programs: Programs, tmp_path: Path) -> None:
    systems = [DIRECT, UNIT, GATEWAY_SYSTEM, TWO_WORKERS]
    with small():
        made = await measure(Plan(parts.PARTS, systems, rounds=1), programs, tmp_path)
    assert made.missing == {}
    assert made.rounds.keys() >= {
        "text_burst_4",
        "tools_burst_4",
        "reasoning_paced_2",
        "text_delay_p99_2",
        "first_added",
    }
    for key in (
        "text_burst_1",
        "text_paced_2",
        "whole_rate",
        "whole_cpu",
        "large_first",
        "large_next",
        "stall",
        "idle",
    ):
        for system in (UNIT, GATEWAY_SYSTEM):
            value = made.value(key, system.key)
            assert value is not None
            assert value > 0
    assert made.value("held", GATEWAY_SYSTEM.key) is not None
    for key in ("workers_burst_4", "workers_paced_2"):
        assert made.rounds[key].keys() == {GATEWAY_SYSTEM.key, TWO_WORKERS.key}


STACKS = """\
thread (1): MainThread;<module> (<string>:1);Runner.run (asyncio/runners.py:118) 20
thread (1): MainThread;Runner.run (asyncio/runners.py:118);Connection.data_received (backends/http1/connection.py:9) 30
thread (1): MainThread;f (/x/lib/python3.11/site-packages/aiohttp/web.py:1) 4
thread (1): MainThread;<module> (a.py:1);__init__ (<string>:3) 5
thread (1): MainThread 1
thread (2): uvloop_0;_worker (concurrent/futures/thread.py:81) 999
"""


def test_a_sample_belongs_to_the_innermost_frame_of_the_main_thread() -> None:
    profile = folded(STACKS)
    assert profile.samples == 60
    assert profile.own == {
        "the loop": 21,
        "backends/http1/connection.py": 30,
        "aiohttp": 4,
        "constructors of dataclasses": 5,
    }
    assert profile.inside["the loop"] == 51


def test_the_table_of_a_profile_adds_up() -> None:
    profile = folded(STACKS)
    profile.kernel = 40
    head, *rows = profile_table({"work": profile})
    assert head == ["share of the samples, %", "work"]
    assert rows[:2] == [["backends/http1/connection.py", "50 (50)"], ["the loop", "35 (85)"]]
    assert rows[-2:] == [["all other modules", "0"], ["the kernel's share of the CPU, %", "40"]]


# ---- the soak's own server, clients and runs


def test_a_delta_of_the_script_has_the_size_of_a_real_one() -> None:
    written = b"".join(Recording("burst", SOAK_SCRIPTS["burst"]).writes)
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
    assert sum(len(tool.get("tools", [tool])) for tool in turn["tools"]) == 30
    assert body == bodies.agent_turn("first")


def test_percentile() -> None:
    assert percentile(range(1, 101), 99) == 100
    assert percentile(range(1, 1001), 99) == 991
    assert percentile([5.0], 99) == 5.0
    assert percentile([], 99) == 0.0


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
    assert seen["burst-short"].content().count(b'"content":"') == SOAK_SCRIPTS["burst-short"].deltas + 1
    assert (counts["started"], counts["streams"], counts["abandoned"]) == (3, 0, 0)


async def test_a_child_that_does_not_start_says_why() -> None:
    with pytest.raises(Broken, match="no such luck"):
        async with started("child", [sys.executable, "-c", "import sys; sys.exit('no such luck')"]):
            pass


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
