"""`make conformance`: every scenario with every client, then the table of docs/clients.md.

With names of components only these are measured, and nothing is written. Exit status 1 where something does not hold
that should, or holds that should not, and where a client could not be measured.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import sys

from tests.real.components import COMPONENTS
from tests.real.libraries.clients import CLIENTS, Client
from tests.real.libraries.measure import measure, surprises
from tests.real.libraries.table import PAGE, README, write

AT_ONCE = 2


async def conforms(client: Client, turns: asyncio.Semaphore) -> bool:
    """Says what it found; whether that is what the table declares."""
    missing = [name for name in client.components if not COMPONENTS[name].installed()]
    if missing:
        print(f"{client.component}: not installed: {', '.join(missing)}; `make real` installs it", flush=True)
        return False
    async with turns:
        results = await measure(client)
    wrong = surprises(results)
    held = sum(not result.missing for result in results)
    print(f"{client.component}: {held} of {len(results)} hold", flush=True)
    for each in wrong:
        found = each.missing or "holds, and the table says that it does not"
        print(f"  {each.row.protocol}, {each.scenario}, {each.way}: {found}", flush=True)
    return not wrong


async def main(names: list[str]) -> int:
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # of clients that leave
    chosen = [client for client in CLIENTS if not names or client.component in names]
    turns = asyncio.Semaphore(AT_ONCE)
    conform = all(await asyncio.gather(*(conforms(client, turns) for client in chosen)))
    if conform and not names:
        write(datetime.date.today())
        print(f"wrote {PAGE.name} and {README.name}")
    return 0 if conform and chosen else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
