"""A PostgreSQL server as a child of the tests, on a port of its own: stopped, frozen and started again at will.

PostgreSQL refuses to run as root; there the server runs as `nobody`. Linux alone.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT = 60.0


class Postgres:
    """`python` is the interpreter of the environment in which the server's package is installed."""

    def __init__(self, python: Path) -> None:
        (self._bin,) = python.parent.parent.glob("lib/python*/site-packages/*_pgserver/pginstall18/bin")
        self._home = Path(tempfile.mkdtemp(prefix="dragoman-postgres-"))
        self._data = self._home / "data"
        self._as: dict[str, Any] = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
        if self._as:
            shutil.chown(self._home, "nobody", "nogroup")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `remove`
        self._server: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._run(
            "initdb",
            "-D",
            str(self._data),
            "--auth=trust",
            "--encoding=utf8",
            "--locale=C",
            "--no-sync",
            "--username=keeper",
        )

    def _run(self, program: str, *options: str) -> None:
        command = [str(self._bin / program), *options]
        subprocess.run(command, check=True, stdout=self._log, stderr=self._log, cwd=self._home, **self._as)

    def start(self) -> None:
        """Returns when it takes connections."""
        options = ("-h", "127.0.0.1", "-p", str(self.port), "-k", str(self._home), "-c", "fsync=off")
        command = [str(self._bin / "postgres"), "-D", str(self._data), *options]
        self._server = subprocess.Popen(command, stdout=self._log, stderr=self._log, cwd=self._home, **self._as)
        end = time.monotonic() + LIMIT
        while not self._ready():
            assert time.monotonic() < end, self.log()
            assert self._server.poll() is None, self.log()
            time.sleep(0.05)

    def _ready(self) -> bool:
        command = [str(self._bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        return subprocess.run(command, stdout=subprocess.DEVNULL, cwd=self._home).returncode == 0

    def stop(self) -> None:
        """Every connection is cut."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(LIMIT)
            self._server = None

    def freeze(self) -> None:
        """It keeps its connections, takes new ones into the kernel's queue and answers none."""
        for process in self._processes():
            os.kill(process, signal.SIGSTOP)

    def thaw(self) -> None:
        for process in self._processes():
            os.kill(process, signal.SIGCONT)

    def _processes(self) -> list[int]:
        assert self._server is not None
        parent = self._server.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [parent, *map(int, children)]

    def remove(self) -> None:
        if self._server is not None:
            self.thaw()
            self.stop()
        self._log.close()
        shutil.rmtree(self._home)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def url(self, database: str) -> str:
        return f"postgresql://keeper@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """The address of a new one."""
        name = f"answers_{next(self._numbers)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "keeper", name)
        return self.url(name)
