"""What `make soak` judges by: how a stream ended, and whether what was counted is what the clients saw.

A run in miniature is in `tests/test_bench.py`.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from bench.attack.clients import ATTACKS
from bench.client import post
from bench.soak.__main__ import Memories, Settings
from bench.soak.attacker import PLAYED, count
from bench.soak.endings import End, NotEnded, ending
from bench.soak.resting import Resting
from bench.soak.tally import OTHER, Tally, counted, differences

CREATED = b'event: response.created\ndata: {"type":"response.created"}\n\n'
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed"}\n\n'
FAILED = b'event: error\ndata: {"type":"error"}\n\nevent: response.failed\ndata: {"type":"response.failed"}\n\n'
DONE = b"data: [DONE]\n\n"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
ERROR = b'event: error\ndata: {"type":"error","error":{}}\n\n'
CHUNK = b'data: {"choices":[{"delta":{"content":"say \\"error\\""}}]}\n\n'
BROKEN = b'data: {"error":{"message":"it broke"}}\n\n'


@pytest.mark.parametrize(
    ("protocol", "body", "end"),
    [
        ("responses", CREATED + COMPLETED, End.ANSWERED),
        ("responses", CREATED + COMPLETED + DONE, End.ANSWERED),
        ("responses", CREATED + FAILED, End.FAILED),
        ("messages", PING + STOP, End.ANSWERED),
        ("messages", PING + ERROR, End.FAILED),
        ("chat_completions", CHUNK + DONE, End.ANSWERED),
        ("chat_completions", CHUNK + BROKEN, End.FAILED),
    ],
)
def test_how_a_stream_ended(protocol: str, body: bytes, end: End) -> None:
    assert ending(protocol, body) is end


@pytest.mark.parametrize(
    ("protocol", "body", "reason"),
    [
        ("responses", CREATED, "no terminal event"),
        ("responses", b"", "no terminal event"),
        ("responses", CREATED + COMPLETED + COMPLETED, "2 terminal events"),
        ("responses", CREATED + COMPLETED + FAILED, "2 terminal events"),
        ("responses", COMPLETED + CREATED, "something after response.completed"),
        ("responses", COMPLETED + DONE + b"data: {}\n\n", "something after response.completed"),
        ("messages", PING, "no terminal event"),
        ("messages", STOP + ERROR, "2 terminal events"),
        ("messages", STOP + PING, "something after message_stop"),
        ("messages", STOP + DONE, "something after message_stop"),
        ("chat_completions", CHUNK, "no terminal event"),
        ("chat_completions", CHUNK + BROKEN + DONE, "2 terminal events"),
        ("chat_completions", DONE + CHUNK, r"something after \[DONE\]"),
    ],
)
def test_a_stream_that_did_not_end_as_it_must(protocol: str, body: bytes, reason: str) -> None:
    with pytest.raises(NotEnded, match=reason):
        ending(protocol, body)


def _tally(*, stayed: int = 0, read: int = 0, unread: int = 0) -> Tally:
    tally = Tally()
    for _ in range(stayed):
        tally.ended("responses", 200, End.ANSWERED)
    tally.left_read["responses"], tally.left_unread["responses"] = read, unread
    return tally


@pytest.mark.parametrize(
    ("tally", "completed", "disconnected", "right"),
    [
        (_tally(stayed=5), 5, 0, True),
        (_tally(stayed=5), 4, 0, False),
        (_tally(stayed=5), 6, 0, False),
        (_tally(stayed=5), 4, 1, False),
        (_tally(stayed=5, read=2), 5, 2, True),
        (_tally(stayed=5, read=2), 6, 1, True),
        (_tally(stayed=5, read=2), 5, 1, False),
        (_tally(stayed=5, read=2), 5, 3, False),
        (_tally(stayed=5, unread=2), 5, 0, True),
        (_tally(stayed=5, unread=2), 5, 2, True),
        (_tally(stayed=5, unread=2), 6, 2, False),
    ],
)
def test_what_is_counted_must_be_what_the_clients_saw(
    tally: Tally, completed: int, disconnected: int, right: bool
) -> None:
    requests = {("responses", 200, "completed"): completed, ("responses", 499, "disconnected"): disconnected}
    assert (differences(tally, requests) == []) is right


def test_statuses_and_ends_are_compared_each_for_itself() -> None:
    tally = Tally()
    tally.ended("messages", 429, End.FAILED)
    tally.ended("messages", 200, End.FAILED)
    right = {("messages", 429, "refused"): 1, ("messages", 200, "failed"): 1}
    assert differences(tally, right) == []
    assert differences(tally, {("messages", 429, "refused"): 2}) != []
    assert differences(tally, {("messages", 429, "refused"): 1, ("messages", 200, "completed"): 1}) != []
    assert differences(tally, {**right, ("chat_completions", 200, "completed"): 1}) != []


def test_calls_of_a_killed_worker_may_be_counted_or_not() -> None:
    tally = _tally(stayed=5, read=2)
    tally.killed_at = 1.0
    assert differences(tally, {("responses", 200, "completed"): 5}) == []
    assert differences(tally, {("responses", 200, "completed"): 8}) != []


def test_series_of_one_route_status_and_outcome_are_added_up() -> None:
    metrics = (
        "# TYPE dragoman_requests_total counter\n"
        'dragoman_requests_total{backend="gpu",client_kind="other",model="a",outcome="completed",route="messages",'
        'status="200"} 3.0\n'
        'dragoman_requests_total{backend="gpu",client_kind="other",model="b",outcome="completed",route="messages",'
        'status="200"} 4.0\n'
        'dragoman_requests_created{backend="gpu",outcome="completed",route="messages",status="200"} 1.7e+09\n'
    )
    assert counted(metrics) == {("messages", 200, "completed"): 7}


def test_what_is_left_open_is_named() -> None:
    before = Resting(sockets=2, streams=0, calls=0, threads=8, processes=1)
    assert before.failures(before, workers=1) == []
    after = Resting(sockets=3, streams=1, calls=2, threads=1008, processes=9)
    assert [line.partition(" ")[2] for line in after.failures(before, workers=1)] == [
        "sockets are left open",
        "upstream streams are left open",
        "calls in flight are left open",
        *(line.partition(" ")[2] for line in after.failures(before, workers=1)[3:]),
    ]
    assert len(after.failures(before, workers=1)) == 5


@pytest.mark.parametrize(
    ("name", "outcome", "seen"),
    [
        ("endless", "200 response.failed", ("responses", 200, End.FAILED)),
        ("data-lines", "200 response.completed", ("responses", 200, End.ANSWERED)),
        ("parts", "400 invalid_request_error", ("messages", 400, End.FAILED)),
        ("no-key", "401 invalid_api_key", (OTHER, 401, End.FAILED)),
        ("not-http", "400 bad_request", (OTHER, 400, End.FAILED)),
    ],
)
def test_an_attack_is_tallied_by_how_it_ended(name: str, outcome: str, seen: tuple[str, int, End]) -> None:
    tally = Tally()
    count(name, outcome, tally)
    assert tally.stayed == Counter({seen: 1})
    assert not tally.wrong


def test_an_attack_that_ends_otherwise_is_wrong() -> None:
    tally = Tally()
    count("no-key", "200 response.completed", tally)
    count("leaving", "no answer", tally)
    assert tally.wrong.total() == 2
    assert tally.left_unread == {"responses": 1}


def test_attacks_are_small_enough_to_be_played_beside_all_else() -> None:
    url = "http://127.0.0.1:1"
    small = {name: sum(map(len, attack.requests(url))) for name, attack in PLAYED.items()}
    assert max(small.values()) < 4 * 1024 * 1024
    assert set(PLAYED) - set(ATTACKS) == {"not-http", "cut-off"}
    assert all(re.compile(attack.right) for attack in PLAYED.values())


def test_a_request_with_a_key_has_it_in_its_head() -> None:
    with_key, without = post("http://h:1", "/p", b"{}", "k"), post("http://h:1", "/p", b"{}")
    assert with_key.replace(b"authorization: Bearer k\r\n", b"") == without
    assert without.endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize(
    ("grown", "warm_at", "judged"),
    [(9, 30, []), (11, 30, ["memory grew by 11.0 MB after the warm-up (bound: 10)"]), (11, 95, [])],
)
def test_growth_is_judged_from_the_warm_up_on(grown: int, warm_at: float, judged: list[str]) -> None:
    settings = Settings(minutes=2)  # a warm-up of 30 s
    samples = [(at, 100e6 + grown * 1e6 * (at >= 90)) for at in map(float, range(120))]
    assert Memories(settings, 90e6, samples, warm_at).failures() == judged


def test_what_an_attack_takes_for_a_moment_is_no_growth() -> None:
    samples = [(at, 100e6 + 80e6 * (at % 10 > 4 and at > 60)) for at in map(float, range(120))]
    assert Memories(Settings(minutes=2), 90e6, samples, 30).failures() == []
