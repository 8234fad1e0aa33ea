"""`make comparison`: every case with this gateway, codex-relay, Switchyard and LiteLLM, and llama.cpp's own endpoint.

Prints what was wrong; with `--docs` the tables of docs/comparison.md and the README are written too, which needs all of
them to be installed. Exit status 1 where this gateway is wrong in a case or something could not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import peers
from bench.systems import GATEWAY_SYSTEM, System
from tests.real.comparison import engine
from tests.real.comparison.measure import Row, measured
from tests.real.comparison.table import PAGE, README, engines, gateways, short, write
from tests.real.components import COMPONENTS

OURS = "dragoman"


async def compared(names: Sequence[str]) -> dict[str, Row]:
    """The gateways that are installed and named, by name and version."""
    rows = {}
    for system in (GATEWAY_SYSTEM, *peers.installed()[0]):
        name = OURS if system is GATEWAY_SYSTEM else system.key
        if system.protocol == "responses" and (not names or name in names):
            with tempfile.TemporaryDirectory(prefix="dragoman-comparison-") as folder:
                rows[_title(system)] = await measured(system, Path(folder))
            _print(_title(system), rows[_title(system)])
    return rows


def _print(title: str, row: Row) -> None:
    print(f"{title}: {sum(seen is None for seen in row.values())} of {len(row)}", flush=True)
    for name, seen in row.items():
        if seen is not None:
            print(f"  {name}: {seen}", flush=True)


def _title(system: System) -> str:
    name = system.title.partition(",")[0]
    return name if system is GATEWAY_SYSTEM else f"{name} {peers.versions([system])[0].partition(' ')[2]}"


async def run(names: Sequence[str], docs: bool) -> int:
    rows = await compared(names)
    beside: dict[str, Row] = {}
    if not names or "llama.cpp" in names:
        with tempfile.TemporaryDirectory(prefix="dragoman-comparison-") as folder:
            beside = await engine.measured(Path(folder))
        for title, row in beside.items():
            _print(f"over llama.cpp, {title}", row)
    if docs:
        day = f"Measured on {datetime.datetime.now(datetime.UTC).date().isoformat()}."
        write(
            PAGE,
            gateways=f"{day}\n\n{gateways(rows)}",
            engines=f"{day}\n\n{engines(beside, engine.CASES, engine.LEAVING)}",
        )
        write(README, comparison=short(rows))
    return int(any(seen is not None for row in (rows.get(OURS, {}), beside.get(OURS, {})) for seen in row.values()))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.real.comparison", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{OURS}, llama.cpp, {', '.join(peers.COMPONENT_OF)}")
    parser.add_argument("--docs", action="store_true", help="write the tables into the pages as well")
    given = parser.parse_args(words)
    known = {OURS, "llama.cpp", *peers.COMPONENT_OF}
    if unknown := sorted(set(given.names) - known):
        parser.error(f"not known: {', '.join(unknown)}")
    absent = peers.installed()[1] + ([] if COMPONENTS["local-model"].installed() else ["local-model"])
    if given.docs and (absent or given.names):
        parser.error(f"a page needs everything: {', '.join(absent) or 'name none'}")
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # of clients that leave
    return asyncio.run(run(given.names, given.docs))


if __name__ == "__main__":
    sys.exit(main())
