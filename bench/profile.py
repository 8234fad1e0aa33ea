"""`python -m bench.profile`: where the gateway's time goes, sampled while it works under one load after the other.

py-spy looks at the process 500 times a second; what counts is the innermost frame of Python, so that a call into the
kernel belongs to the line that made it. What the loop does by itself (waiting, receiving) has no frame of its own and
stands under the loop. The kernel's share is from the process's own clocks. It takes a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import turns
from bench.__main__ import PAGE
from bench.children import Broken, Child
from bench.native import Programs, build
from bench.report import as_markdown, as_text, pasted
from bench.rig import Rig, preferred, rig
from bench.scripts import BURSTS, LARGE, PROFILED, WHOLE
from bench.systems import GATEWAY_SYSTEM
from tests.real.components import COMPONENTS, ROOT

RATE = 500
SHOWN = 16
_FRAME = re.compile(r"^(?P<function>.+) \((?P<path>[^()]+?)(?::\d+)?\)$")
_LIBRARY = re.compile(r"(?:site-packages|lib/python3\.\d+(?!/site-packages))/([\w.-]+)")
# The loop has few frames of its own, and dataclasses' constructors are compiled from strings.
_NAMES = {"asyncio": "the loop", "uvloop": "the loop", "<string>": "constructors of dataclasses"}
OURS = ("backends", "gateway", "translators")


@dataclass(frozen=True, slots=True)
class Work:
    """A load that keeps the gateway busy for some seconds, and about how many."""

    title: str
    load: Callable[[Rig], Awaitable[object]]
    seconds: int = 8


@dataclass(slots=True)
class Profile:
    """Samples of the main thread by module: `own` where it was innermost, `inside` where it or what it called was.
    `kernel` is the share of the process's CPU that the kernel took."""

    kernel: float = 0.0
    samples: int = 0
    own: collections.Counter[str] = field(default_factory=collections.Counter)
    inside: collections.Counter[str] = field(default_factory=collections.Counter)

    def share(self, place: str) -> tuple[float, float]:
        """Of all samples, in percent: its own, and with what it calls."""
        return 100 * self.own[place] / max(1, self.samples), 100 * self.inside[place] / max(1, self.samples)


def place(frame: str) -> str | None:
    """The module of a frame as py-spy names it: a path of ours, or the name of a library."""
    found = _FRAME.match(frame)
    if found is None:
        return None
    path = found["path"].removeprefix(f"{ROOT}/").removeprefix(".dev/").removeprefix("dragoman/")
    if path.startswith(OURS):
        return path
    library = _LIBRARY.search(path)
    name = (library[1] if library else path.split("/")[0]).removesuffix(".py")
    return _NAMES.get(name, name)


def folded(text: str) -> Profile:
    """From py-spy's raw output: a stack of frames and its count on each line."""
    profile = Profile()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if "MainThread" not in stack:
            continue
        # A thread between two frames is a stack of its name alone.
        places = [found for frame in stack.split(";") if (found := place(frame))] or ["the loop"]
        profile.samples += int(count)
        profile.own[places[-1]] += int(count)
        profile.inside.update(dict.fromkeys(places, int(count)))
    return profile


async def _paced(rig: Rig) -> None:
    await rig.load(GATEWAY_SYSTEM, PROFILED, 200, 200, ramp=0.4)


async def _burst(rig: Rig) -> None:
    await rig.load(GATEWAY_SYSTEM, BURSTS["text"], 32, 2400)


async def _whole(rig: Rig) -> None:
    await rig.load(GATEWAY_SYSTEM, WHOLE, 16, 1_000_000, whole=True, seconds=8, failing=True)


async def _turns(rig: Rig) -> None:
    conversation = turns.long(1, turns.STEPS + 60)
    bodies = [
        rig.file(f"turn-{each}", lambda each=each: turns.encode("responses", LARGE.model, conversation.until(each)))
        for each in range(turns.STEPS, turns.STEPS + 60)
    ]
    await rig.load(GATEWAY_SYSTEM, LARGE, 1, 1_000_000, bodies=bodies, seconds=8, failing=True)


WORKS = (
    Work("200 paced streams", _paced),
    Work("32 streams, unpaced", _burst),
    Work("whole answers", _whole),
    Work("turns of 205 kB", _turns),
)


async def sampled(rig: Rig, child: Child, work: Work) -> Profile:
    spy = COMPONENTS["py-spy"].path.with_name("py-spy")
    output = rig.folder / "samples.txt"
    words = ["record", "--pid", str(child.pid), "--rate", str(RATE), "--duration", str(work.seconds)]
    before = kernel_and_user(child.pid)
    sampler = await asyncio.create_subprocess_exec(
        str(spy),
        *words,
        *("--threads", "--format", "raw", "--output", str(output)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await work.load(rig)
    _, errors = await sampler.communicate()
    if sampler.returncode:
        raise Broken(f"py-spy ended with {sampler.returncode}: {errors[-500:].decode(errors='replace')}")
    kernel, user = (after - earlier for after, earlier in zip(kernel_and_user(child.pid), before, strict=True))
    profile = folded(output.read_text("utf-8"))
    profile.kernel = 100 * kernel / max(1, kernel + user)
    return profile


def kernel_and_user(pid: int) -> tuple[int, int]:
    """In the kernel's ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return int(fields[12]), int(fields[11])


def table(profiles: dict[str, Profile]) -> list[list[str]]:
    """A column for each work; the modules that take most in any of them."""
    names = {name for profile in profiles.values() for name in profile.own}
    shown = sorted(names, key=lambda name: max(each.share(name)[0] for each in profiles.values()), reverse=True)[:SHOWN]
    rows = [["share of the samples, %", *profiles]]
    for name in shown:
        shares = [each.share(name) for each in profiles.values()]
        rows.append([name, *(f"{own:.0f} ({inside:.0f})" for own, inside in shares)])
    others = [100 - sum(each.share(name)[0] for name in shown) for each in profiles.values()]
    rows.append(["all other modules", *(f"{each:.0f}" for each in others)])
    rows.append(["the kernel's share of the CPU, %", *(f"{each.kernel:.0f}" for each in profiles.values())])
    return rows


async def profiles(rig: Rig, works: Sequence[Work]) -> dict[str, Profile]:
    process = GATEWAY_SYSTEM.process
    assert process is not None
    async with rig.start(process) as child:
        await rig.warm_up(GATEWAY_SYSTEM)
        return {work.title: await sampled(rig, child, work) for work in works}


async def _run(programs: Programs, folder: Path) -> dict[str, Profile]:
    async with rig(programs, folder) as made:
        return await profiles(made, WORKS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description="Where the gateway's time goes.")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/performance.md as well")
    given = parser.parse_args()
    if not COMPONENTS["py-spy"].installed():
        print("bench.profile: needs py-spy, which `make bench-profile` installs", file=sys.stderr)
        return 1
    try:
        with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as folder, preferred():
            found = asyncio.run(_run(build(Path(folder)), Path(folder)))
    except (Broken, OSError, TimeoutError) as error:
        print(f"bench.profile: {error or type(error).__name__}", file=sys.stderr)
        return 1
    rows = table(found)
    print(as_text(rows))
    if given.docs:
        PAGE.write_text(pasted(PAGE.read_text("utf-8"), "profile", as_markdown(rows)), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
