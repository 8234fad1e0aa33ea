"""`python -m bench.attack.probe URL PID`: how much CPU a gateway spends while somebody waits for `/healthz`.

It asks over and over until its input is closed, then prints the worst case in seconds of CPU of the gateway's main
thread, in which its loop runs. A process of its own, so that the load generator's work delays no reading.
"""

from __future__ import annotations

import select
import socket
import sys
from urllib.parse import urlsplit

from bench.client import get

PAUSE = 0.005  # seconds between two questions
PATIENCE = 60.0


def spent(pid: int) -> float:
    """Seconds of CPU of the main thread so far; the kernel counts nanoseconds."""
    with open(f"/proc/{pid}/task/{pid}/schedstat", encoding="ascii") as line:
        return int(line.read().split()[0]) / 1e9


def ask(url: str, pid: int) -> float:
    """The CPU that was spent between one question and its answer."""
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=PATIENCE) as connection:
        connection.sendall(get(url, "/healthz"))
        before = spent(pid)
        if b" 200 " not in connection.recv(4096):
            raise RuntimeError("the gateway says that it is not alive")
        return spent(pid) - before


def main() -> None:
    url, pid = sys.argv[1], int(sys.argv[2])
    print("ready", flush=True)
    longest, closed = 0.0, False
    while not closed:
        try:
            longest = max(longest, ask(url, pid))
        except OSError:  # also TimeoutError: it does not answer at all
            longest = float("inf")
        closed = bool(select.select([sys.stdin], [], [], PAUSE)[0])
    print(longest, flush=True)


if __name__ == "__main__":
    main()
