"""`tritonserver` as a process of the tests: started on ports that the kernel chose, ended by its id, nothing left.

Its Python backend finds the interpreter by PATH, its stub wants libpython beside it, and both must lie in one folder:
that is what the private backend directory is for. Shared memory is named by us, so that what a hard end leaves can be
removed. Models are loaded one by one, because each is a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 60.0
LOAD_SECONDS = 60.0
END_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Triton:
    """Ports of 127.0.0.1; `trace` is the file in which the stand-ins write what they do."""

    process: subprocess.Popen[bytes]
    http: int
    grpc: int
    metrics: int
    trace: Path
    log: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def post(self, path: str, within: float = LOAD_SECONDS) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/v2/{path}", b"{}", method="POST")
        with urllib.request.urlopen(request, timeout=within) as answer:
            return bytes(answer.read())

    def load(self, *models: str) -> None:
        """Blocks until they are ready."""
        for model in models:
            try:
                self.post(f"repository/models/{model}/load")
            except urllib.error.HTTPError as error:
                raise AssertionError(f"{model} does not load: {error.read().decode()}\n{tail(self.log)}") from None

    def answers(self, model: str, within: float = 3.0) -> bool:
        """Whether a BLS model does: it may hang for ever after a request whose engine failed."""
        body = json.dumps({"text_input": "ping", "max_tokens": 2, "stream": True}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/v2/models/{model}/generate_stream", body)
        try:
            with urllib.request.urlopen(request, timeout=within) as answer:
                return b"text_output" in answer.read()
        except OSError:
            return False

    def unload(self, model: str) -> None:
        """The server goes on with it for a moment."""
        self.post(f"repository/models/{model}/unload")

    def facts(self, **wanted: Any) -> list[dict[str, Any]]:
        """What the stand-ins wrote, those lines that have these values."""
        if not self.trace.exists():
            return []
        lines = [json.loads(line) for line in self.trace.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        return [line for line in lines if all(line.get(key) == value for key, value in wanted.items())]


@contextlib.contextmanager
def running(python: Path, tokenizer: Path, folder: Path) -> Iterator[Triton]:
    """`python` is the interpreter of the component `triton`; `folder` holds the repository in `models`."""
    site = next(python.parents[1].glob("lib/python3.*/site-packages"))
    home = site / "pytriton" / "tritonserver"
    ports = free_ports()
    prefix = f"dragoman_{os.getpid()}_{ports[0]}_"
    trace = folder / "trace"
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            _command(home, folder, ports, prefix),
            stdout=log,
            stderr=log,
            env={
                "PATH": f"{python.parent}:{os.environ['PATH']}",
                "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
                "STANDIN_TOKENIZER": str(tokenizer / "tokenizer.json"),
                "STANDIN_TRACE": str(trace),
                "TOKENIZERS_PARALLELISM": "false",
            },
        )
        server = Triton(child, *ports, trace=trace, log=folder / "log")
        try:
            _wait_until_live(server)
            yield server
        finally:
            _end(child, prefix)


def _command(home: Path, folder: Path, ports: tuple[int, int, int], prefix: str) -> list[str]:
    http, grpc, metrics = ports
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    shutil.copyfile(home / "backends/python/triton_python_backend_utils.py", backend / "triton_python_backend_utils.py")
    # A link, so that the library's own relative search path stays valid.
    (backend / "libtriton_python.so").symlink_to(home / "backends/python/libtriton_python.so")
    stub = home / "python_backend_stubs" / sysconfig.get_python_version() / "triton_python_backend_stub"
    (backend / "triton_python_backend_stub").symlink_to(stub)
    return [
        str(home / "bin" / "tritonserver"),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        *("--http-address=127.0.0.1", f"--http-port={http}"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
        *("--metrics-address=127.0.0.1", f"--metrics-port={metrics}", "--metrics-interval-ms=100"),
        *("--allow-gpu-metrics=false", "--model-control-mode=explicit", "--exit-timeout-secs=2"),
        f"--backend-config=python,shm-region-prefix-name={prefix}",
    ]


def _wait_until_live(server: Triton) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.alive:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{server.http}/v2/health/live", timeout=1).close()
            return
        time.sleep(0.1)
    raise AssertionError(f"tritonserver did not start: {tail(server.log)}")


def _end(child: subprocess.Popen[bytes], prefix: str) -> None:
    child.terminate()
    try:
        child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for leftover in Path("/dev/shm").glob(f"{prefix}*"):
        leftover.unlink(missing_ok=True)


def tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-3000:]


def free_ports() -> tuple[int, int, int]:
    """Different ones; the server cannot be handed open sockets, so another process might take one meanwhile."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        first, second, third = (int(each.getsockname()[1]) for each in sockets)
        return first, second, third
