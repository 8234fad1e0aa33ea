"""What `make attack` measures with, and one attack of each side. The figures belong to `make attack`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import sys
from collections import Counter

import pytest
import yaml

from bench.attack.__main__ import HOSTILE, MEMORY, STALL, Cost, cost, gateway_for, line, main, probe
from bench.attack.clients import ATTACKS, WARM_UP, ended, play
from bench.attack.hostile import MIB
from bench.children import GATEWAY, started
from tests.real.components import ROOT

pytestmark = pytest.mark.slow
KUBERNETES = ROOT / "configs" / "kubernetes" / "base"

# A server that works for a while before it says that it is alive.
BUSY = """
import http.server, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        end = time.thread_time() + 0.2
        while time.thread_time() < end: pass
        self.send_response(200); self.end_headers()
    def log_message(self, *words): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(f"ready on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
"""


async def test_the_probe_sees_the_work_that_it_waited_for() -> None:
    async with started("a busy server", (sys.executable, "-c", BUSY)) as child, probe(child) as stalls:
        await asyncio.sleep(0)
    assert stalls[0] > 0.15


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize(
    ("reads", "end"),
    [
        ([STREAM, b"x\nevent: response.failed\ndata: {}\n\n"], "200 response.failed"),
        ([STREAM, b"x\nevent: response.fai", b"led\n", b"d"], "200 response.failed"),
        ([STREAM, b"x\nevent: a\nd\nevent: response.failed\nd\nevent: b\n"], "200 response.failed b"),
        (
            [STREAM, b"x\nevent: response.failed\nd", b"\nevent: response.failed\n"],
            "200 response.failed response.failed",
        ),
        ([STREAM, b"x\nevent: response.created\n"], "200 response.created"),
        ([STREAM, b"x"], "200 no event"),
        ([b'HTTP/1.1 400 Bad\r\n\r\n{"error":{"code":"too_much"}}'], "400 too_much"),
        ([], "no answer"),
    ],
)
async def test_how_an_answer_ended(reads: list[bytes], end: str) -> None:
    reader = asyncio.StreamReader()

    async def fed() -> None:
        for data in reads:
            reader.feed_data(data)
            await asyncio.sleep(0)
        reader.feed_eof()

    found, _ = await asyncio.gather(ended(reader), fed())
    assert found == end


@pytest.mark.parametrize("name", ["no-key", "deep", "data-lines", "stalled-refusal", "endless-head"])
async def test_an_attack_ends_as_it_should(name: str) -> None:
    found = await cost(name, ATTACKS[name])
    assert found.wrong == []
    assert found.stall < math.inf  # the gateway answered whoever asked meanwhile
    assert found.ends.total() == len(ATTACKS[name].requests("http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("stall", "memory", "wrong", "said"),
    [
        (STALL, MEMORY, [], ""),
        (0.3, 0.0, [], "stood still for 300 ms"),
        (0.0, MEMORY * 2.0, [], "300 MiB above idle"),
        (0.0, 0.0, ["no answer"], "ended with 'no answer'"),
    ],
)
def test_the_verdict(stall: float, memory: float, wrong: list[str], said: str) -> None:
    found = Cost("deep", stall, memory, MEMORY, 1.0, Counter(["no answer"]), wrong)
    assert re.search(said, " ".join(found.failures))
    assert bool(found.failures) is bool(said)
    assert "no answer" in line(found, "brackets")


def test_an_unknown_attack_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main(["nonsense"])
    assert "no attack is called nonsense" in capsys.readouterr().err


async def test_the_memory_limit_of_the_pod_is_enough_for_what_its_configuration_allows() -> None:
    """The gateway runs under that limit: an allocation beyond it would fail."""
    container = yaml.safe_load((KUBERNETES / "deployment.yaml").read_text())["spec"]["template"]["spec"]["containers"][
        0
    ]
    limit = {"Mi": 1, "Gi": 1024}[container["resources"]["limits"]["memory"][-2:]] * MIB
    limit *= int(container["resources"]["limits"]["memory"][:-2])
    limits = yaml.safe_load((KUBERNETES / "gateway.yaml").read_text())["limits"]
    command = ("sh", "-c", f'ulimit -d {limit // 1024} && exec "$@"', "sh", *GATEWAY)
    names = ["bodies", "items", "images", "endless-eight", "endless", "endless-arguments", "values", "unread"]
    attacks = [ATTACKS[name] for name in names]
    settings = {f"DRAGOMAN_LIMITS__{key.upper()}": str(value) for key, value in limits.items()}
    async with (
        started("model server", HOSTILE) as hostile,
        gateway_for(hostile, ATTACKS["bodies"], command, DRAGOMAN_TIMEOUTS__BODY="60", **settings) as gateway,
    ):
        ended = await asyncio.gather(*(play(each, gateway.url, each.requests(gateway.url)) for each in attacks))
        assert gateway.peak_rss() < limit
        assert await play(WARM_UP, gateway.url, WARM_UP.requests(gateway.url)) == ["200"]
    for attack, ends in zip(attacks, ended, strict=True):
        assert all(re.fullmatch(attack.right, end) for end in ends), (attack.what, ends)
