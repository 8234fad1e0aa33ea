"""Several processes on one port: a supervisor that binds the sockets, starts the workers and restarts lost ones.

Each worker has its own listening socket, so that the kernel distributes connections evenly (`SO_REUSEPORT`, Linux;
elsewhere all accept from one). The supervisor holds them all: connections that wait in the queue of a worker that died
are served by its replacement. A signal to the supervisor goes to every worker once; workers have their own process
groups, so that a terminal's Ctrl-C does not reach them twice. A worker whose supervisor has vanished drains and ends.

Metrics are right across workers: each stores its own in files (`prometheus_client`'s multiprocess mode), and the worker
that answers `/metrics` adds them up. What clients have spent of their rates is in memory that all workers share. Queues
and their limits are divided equally.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from dragoman.gateway.config import Config, ConfigError
from dragoman.gateway.keys.secrets import Reread, Secrets
from dragoman.gateway.keys.spending import Spending
from dragoman.gateway.telemetry import METRICS_DIRECTORY

CRASHED = 70  # exit status of a worker that died of a bug
CANNOT_SERVE = 71  # of one that would end with 1: that is also the status of one that its watchdog has ended
REFUSED = {CANNOT_SERVE: 1, 2: 2}  # what the supervisor ends with when a worker refuses to run
FIRST_REST = 0.1  # seconds before a lost worker is restarted, doubled each time up to the longest
LONGEST_REST = 10.0
LIVED = 10.0  # seconds of life after which a lost worker is restarted without a longer rest
TRY_LIMIT = 30  # seconds to open the backends of a new configuration
HANDLED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})


@dataclass(slots=True)
class Worker:
    number: int
    sockets: list[socket.socket]
    pid: int = 0
    started: float = 0.0
    rest: float = FIRST_REST
    due: float | None = None  # when it is to be restarted
    replaces: bool = False  # one that was lost


def serve(config: Config, secrets: Secrets, reread: Reread) -> int:
    """Runs until a signal ends it, and returns the exit status. To be called before anything starts a thread."""
    if not hasattr(signal, "sigtimedwait"):
        raise ConfigError("configuration: workers: this system has no way to wait for them; start several processes")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who started us may ignore it, and then no child can be waited for
    _try_out(config, secrets)  # before a port is bound
    try:
        figures = tempfile.mkdtemp(prefix="dragoman-figures-")
        _keep(figures)
    except OSError as error:
        raise ConfigError(f"configuration: workers: several need a directory for their figures: {error}") from None
    os.environ[METRICS_DIRECTORY] = figures  # the library reads it when it is imported
    try:
        from dragoman.gateway.serve.server import with_seal_key
        from dragoman.gateway.serve.sockets import CannotListen

        try:
            workers = asyncio.run(_bind(config))
        except CannotListen as error:
            print(f"dragoman: {error}", file=sys.stderr)
            return 1
        return Supervisor(config, with_seal_key(config, secrets), reread, workers).run()
    finally:
        shutil.rmtree(figures, ignore_errors=True)


def _keep(directory: str) -> None:
    """What cleans up /tmp on many systems (systemd-tmpfiles) leaves a directory alone that is locked, as long as this
    process or a worker runs."""
    import fcntl

    with contextlib.suppress(OSError):  # not every file system has such locks
        fcntl.flock(os.open(directory, os.O_RDONLY), fcntl.LOCK_SH)


async def _bind(config: Config) -> list[Worker]:
    """The sockets of all workers. Bound exclusively first: a port that another program shares counts as in use."""
    from dragoman.gateway.serve.sockets import listen

    alone = await listen(config.host, config.port)
    if not hasattr(socket, "SO_REUSEPORT") or not sys.platform.startswith("linux"):
        return [Worker(number, alone) for number in range(config.workers)]
    port = alone[0].getsockname()[1]
    for each in alone:
        each.close()
    return [Worker(number, await listen(config.host, port, shared=True)) for number in range(config.workers)]


class Supervisor:
    def __init__(self, config: Config, secrets: Secrets, reread: Reread, workers: list[Worker]) -> None:
        from dragoman.gateway.telemetry.logs import configure

        configure(config.log, secrets.all())
        self._config = config
        self._secrets = secrets
        self._reread = reread
        self._workers = workers
        self._stopping = False
        self._status = 0
        self._spoken = False
        # nothing is ever written: the workers' reads return once the supervisor is gone
        self._alive, self._held = os.pipe()
        self._spending = Spending.shared()

    def run(self) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        for worker in self._workers:
            self._start(worker)
        while any(worker.pid for worker in self._workers) or not self._stopping:
            due = [worker.due for worker in self._workers if worker.due is not None and not self._stopping]
            caught = signal.sigtimedwait(HANDLED, max(0.0, min([*due, time.monotonic() + 60]) - time.monotonic()))
            if caught is not None and caught.si_signo != signal.SIGCHLD:
                self._handle(signal.Signals(caught.si_signo))
            self._reap()
            for worker in self._workers:
                if worker.due is not None and time.monotonic() >= worker.due and not self._stopping:
                    self._start(worker)
        self._spending.close()
        return self._status

    def _start(self, worker: Worker) -> None:
        speak = not self._spoken
        worker.due, worker.started = None, time.monotonic()
        with contextlib.suppress(OSError):  # where somebody has removed it, a worker could not count, and would not run
            os.makedirs(os.environ[METRICS_DIRECTORY], 0o700, exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            worker.pid = os.fork()
        except OSError as error:  # no memory, perhaps what the lost one died of; the others go on
            self._not_started(worker, error)
            return
        if worker.pid == 0:
            self._be_worker(worker, speak)
        self._spoken = True

    def _not_started(self, worker: Worker, error: OSError) -> None:
        from dragoman.gateway.telemetry.logs import log

        log.error("a worker cannot be started: %s", error.strerror, extra={"fields": {"worker": worker.number}})
        self._start_later(worker)

    def _be_worker(self, worker: Worker, speak: bool) -> None:
        status = CRASHED
        try:
            os.setpgid(0, 0)
            os.close(self._held)
            for other in self._workers:
                if other.sockets is not worker.sockets:
                    for each in other.sockets:
                        each.close()
            signal.pthread_sigmask(
                signal.SIG_UNBLOCK, HANDLED - {signal.SIGHUP}
            )  # which stays blocked until the loop handles it
            threading.Thread(target=_end_with_supervisor, args=(self._alive,), daemon=True).start()
            status = _work(worker, self._config, self._secrets, self._reread, speak, self._spending)
            status = CANNOT_SERVE if status == 1 else status
        except ConfigError as error:
            print(f"dragoman: {error}", file=sys.stderr)
            status = 2
        except BaseException:
            traceback.print_exc(limit=-8)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # without the clean-up that belongs to the supervisor

    def _handle(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            from dragoman.gateway.serve.server import for_reload, with_seal_key
            from dragoman.gateway.telemetry.logs import log

            try:
                read, secrets = self._reread()
                config = for_reload(read, secrets, self._config)
                secrets = with_seal_key(config, secrets)
                _try_out(config, secrets)  # otherwise the next worker would refuse to run and end them all
                self._config, self._secrets = config, secrets
            except ConfigError as error:
                log.error("the configuration stays as it was: %s", error)
                return
            except Exception:  # the workers depend on this process
                log.exception("the configuration stays as it was")
                return
        else:
            self._stopping = True
            for worker in self._workers:  # from now on a worker's own copy decides when it stops listening
                for each in worker.sockets:
                    each.close()
        self._pass_on(number)

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)

    def _reap(self) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        from dragoman.gateway.telemetry.figure_files import forget

        mark_dead: Callable[[int], object] = mark_process_dead  # the library leaves it without types
        for worker in self._workers:
            if not worker.pid:
                continue
            pid, ended = os.waitpid(worker.pid, os.WNOHANG)
            if not pid:
                continue
            mark_dead(pid)
            forget(os.environ[METRICS_DIRECTORY], pid)
            worker.pid = 0
            self._lost(worker, os.waitstatus_to_exitcode(ended))

    def _lost(self, worker: Worker, status: int) -> None:
        """A worker that refuses to run ends all, unless it was to replace a lost one and others serve: what it needs,
        such as a certificate that is just being renewed, may be there again in a moment. One that was killed, crashed
        or stood still is restarted."""
        from dragoman.gateway.telemetry.logs import log

        others = worker.replaces and any(each.pid for each in self._workers)
        if self._stopping:
            self._status = max(self._status, REFUSED.get(status, status) if status > 0 else 0)
        elif status in REFUSED and not others:
            self._status, self._stopping = REFUSED[status], True
            self._pass_on(signal.SIGTERM)
        else:
            if time.monotonic() - worker.started > LIVED:
                worker.rest = FIRST_REST
            log.error("a worker was lost", extra={"fields": {"worker": worker.number, "status": status}})
            self._start_later(worker)

    def _start_later(self, worker: Worker) -> None:
        worker.replaces = True
        worker.due = time.monotonic() + worker.rest
        worker.rest = min(worker.rest * 2, LONGEST_REST)


def _work(worker: Worker, config: Config, secrets: Secrets, reread: Reread, speak: bool, spending: Spending) -> int:
    from dragoman.gateway.serve.server import in_loop, run_on
    from dragoman.gateway.telemetry import figure_files

    figure_files.use()
    return in_loop(run_on(worker.sockets, config, secrets, reread, speak, spending, worker.number))


def _try_out(config: Config, secrets: Secrets) -> None:
    """Raises `ConfigError` if no worker could run with it: a child process opens everything and ends."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _open_and_end(config, secrets, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        reason = pipe.read().decode(errors="replace")
    _, ended = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(ended) != 0:
        raise ConfigError(reason or "it could not be tried out")


def _open_and_end(config: Config, secrets: Secrets, writing: int) -> None:
    from dragoman.gateway.factory import open_backends
    from dragoman.gateway.serve.app import open_store
    from dragoman.gateway.serve.server import with_seal_key
    from dragoman.gateway.serve.tls import for_clients

    status = CRASHED
    try:
        signal.alarm(TRY_LIMIT)
        for_clients(config.tls)
        open_store(config, with_seal_key(config, secrets), None)
        backends = open_backends(config, secrets)  # a name, so that none is collected, unclosed, before the exit
        status = 0 if backends else CRASHED
    except ConfigError as error:
        os.write(writing, str(error).encode()[:4000])
    except BaseException:
        traceback.print_exc(limit=-8)
    finally:
        sys.stderr.flush()
        os._exit(status)  # nothing needs closing: it was never used


def _end_with_supervisor(alive: int) -> None:
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)
