"""The run: every attack against a gateway of its own, a line for each, exit code 1 where one costs too much.

The budgets: no attack takes the loop for more than 250 ms of CPU, and none costs more memory above idle than 150 MB and
three times the bodies, of requests and of answers, that are in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.attack.clients import ATTACKS, KEY, WARM_UP, Attack, play
from bench.attack.hostile import MIB
from bench.children import GATEWAY, Broken, Child, started
from bench.loop import run

HOSTILE = (sys.executable, "-m", "bench.attack.hostile")
STALL = 0.25  # seconds of CPU
MEMORY = 150 * MIB
# Short, so that what is given up is given up within the run.
TIMEOUTS = {"first_event": 20, "between_events": 10, "client": 2, "body": 20, "keepalive": 1}


@dataclass(frozen=True)
class Cost:
    """What one attack cost: CPU seconds of the longest stall, bytes above idle, and how its answers ended."""

    name: str
    stall: float
    memory: float
    allowed: float
    seconds: float
    ends: Counter[str]
    wrong: Sequence[str]

    @property
    def failures(self) -> list[str]:
        found = [f"ended with {each!r}" for each in self.wrong]
        if self.stall > STALL:
            found.append(f"the loop stood still for {self.stall * 1e3:.0f} ms of CPU (at most {STALL * 1e3:.0f})")
        if self.memory > self.allowed:
            found.append(f"{self.memory / MIB:.0f} MiB above idle (at most {self.allowed / MIB:.0f})")
        return found


async def cost(name: str, attack: Attack) -> Cost:
    async with started("model server", HOSTILE) as hostile, gateway_for(hostile, attack) as gateway:
        await play(WARM_UP, gateway.url, WARM_UP.requests(gateway.url))
        requests = await asyncio.to_thread(attack.requests, gateway.url)
        idle, begun = gateway.rss(), time.monotonic()
        async with probe(gateway) as stalls:
            ends = Counter(await play(attack, gateway.url, requests))
        seconds = time.monotonic() - begun
        in_flight = sum(len(request) for request in requests) + attack.answers
        wrong = [end for end in ends if not re.fullmatch(attack.right, end)]
        return Cost(name, stalls[0], gateway.peak_rss() - idle, MEMORY + 3 * in_flight, seconds, ends, wrong)


@contextlib.asynccontextmanager
async def gateway_for(
    hostile: Child, attack: Attack, command: Sequence[str] = GATEWAY, **more: str
) -> AsyncIterator[Child]:
    """`more`: variables of its environment."""
    with tempfile.TemporaryDirectory() as folder:
        backend = {"url": f"{hostile.url}/v1", "name": "gpu", "settings": attack.settings}
        environment = {
            "DRAGOMAN_API_KEYS": KEY,
            "DRAGOMAN_BACKENDS": json.dumps([backend]),
            "DRAGOMAN_LOG__LEVEL": "error",
            "DRAGOMAN_STATE_DIR": folder,
            **{f"DRAGOMAN_TIMEOUTS__{key.upper()}": str(value) for key, value in TIMEOUTS.items()},
            **more,
        }
        async with started("gateway", [*command, "serve", "--port", "0"], environment) as gateway:
            yield gateway


@contextlib.asynccontextmanager
async def probe(gateway: Child) -> AsyncIterator[list[float]]:
    """The list has the longest stall once the attack is over."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.attack.probe", gateway.url, str(gateway.pid)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    await child.stdout.readline()
    stalls: list[float] = []
    try:
        yield stalls
    finally:
        output, _ = await child.communicate(b"")  # closes its input
        stalls.append(float(output))


MARKS = ("<!-- the table of make attack -->", "<!-- end of the table -->")


def page(costs: Sequence[Cost]) -> str:
    """The table as docs/security.md shows it."""
    rows = [
        f"| {ATTACKS[each.name].what} | {_ends(each)} | {each.stall * 1e3:.0f} ms | {each.memory / MIB:.0f} MiB |"
        for each in costs
    ]
    head = "| attack | how it ends | longest stall of the loop | memory above idle |\n|---|---|---:|---:|"
    return "\n".join([head, *rows])


def _ends(found: Cost) -> str:
    return ", ".join(f"{count} of {end}" if count > 1 else end for end, count in found.ends.items())


def line(found: Cost, what: str) -> str:
    figures = f"{found.stall * 1e3:6.0f} ms {found.memory / MIB:6.0f} MiB {found.seconds:6.1f} s"
    return f"{found.name:18} {figures}  {what}: {_ends(found)}"


async def every(names: Sequence[str]) -> list[Cost]:
    costs: list[Cost] = []
    print(f"{'':18} {'stall':>9} {'memory':>10} {'time':>8}")
    for name in names:
        async with asyncio.timeout(180):
            found = await cost(name, ATTACKS[name])
        print(line(found, ATTACKS[name].what), flush=True)
        for failure in found.failures:
            print(f"{'':18} FAIL: {failure}", flush=True)
        costs.append(found)
    return costs


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.attack", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which attacks (all of: {', '.join(ATTACKS)})")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the marks of this page")
    given = parser.parse_args(words)
    if unknown := [name for name in given.names if name not in ATTACKS]:
        parser.error(f"no attack is called {', '.join(unknown)}")
    try:
        costs = run(every(given.names or list(ATTACKS)))
    except (Broken, OSError, TimeoutError) as error:
        print(f"attack: {error or type(error).__name__}", file=sys.stderr)
        return 1
    if given.write is not None:
        before, _, rest = given.write.read_text().partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        given.write.write_text(f"{before}{MARKS[0]}\n{page(costs)}\n{MARKS[1]}{after}")
    return 1 if any(each.failures for each in costs) else 0


if __name__ == "__main__":
    sys.exit(main())
