"""One process from its first socket to its last: listen, report ready, serve, reload the configuration, drain, end.

SIGHUP starts a new generation of the gateway next to the old one, which finishes the calls it has begun; a
configuration that cannot be used changes nothing. It is read and its backends are opened in a thread, so that running
streams do not wait for files and imports. At SIGTERM the gateway turns not ready, takes new requests for a few seconds
more, until load balancers have noticed, and stops listening. Running answers finish, up to the drain limit; the rest
end with a failure that clients retry. SIGINT skips the wait for load balancers, and a second signal ends every wait.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import ssl
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from dragoman.backends.background import end, in_background
from dragoman.gateway.calls.health import Gate
from dragoman.gateway.calls.model_table import Models
from dragoman.gateway.config import FIXED, Config, ConfigError
from dragoman.gateway.keys.reasoning_seal import own_key, state_directory
from dragoman.gateway.keys.secrets import Reread, Secrets, check_open
from dragoman.gateway.keys.spending import Spending
from dragoman.gateway.serve.allocator import return_large_blocks
from dragoman.gateway.serve.app import GATEWAY, RUNNER_OPTIONS, Gateway, Opened, build, open_all
from dragoman.gateway.serve.client_setup import ClientSetup, client_setup, url
from dragoman.gateway.serve.connection import Runner, forget_applications
from dragoman.gateway.serve.sockets import BACKLOG, CannotListen, listen
from dragoman.gateway.serve.tls import for_clients
from dragoman.gateway.serve.watchdog import Watchdog
from dragoman.gateway.store.lazy import LazyStore
from dragoman.gateway.telemetry.logs import Redactor, configure, escaped, log
from dragoman.translators.errors import GatewayError, Kind

LAST_WORDS = 5.0  # seconds for the failure events of cut answers to leave
READY_POLL = 0.25
NOT_READY_AFTER = 3.0
LINGER = 125.0  # seconds that connections to an older generation may stay idle: most clients keep theirs for less
LINGER_POLL = 0.25
SIGHUP = getattr(signal, "SIGHUP", None)  # not everywhere


async def run(config: Config, secrets: Secrets, reread: Reread | None = None) -> int:
    """`reread` reads the configuration again, or raises `ConfigError`."""
    try:
        sockets = await listen(config.host, config.port)
    except CannotListen as error:
        print(f"dragoman: {error}", file=sys.stderr)
        return 1
    return await run_on(sockets, config, with_seal_key(config, secrets), reread)


async def run_on(
    sockets: Sequence[socket.socket],
    config: Config,
    secrets: Secrets,
    reread: Reread | None,
    speak: bool = True,
    spending: Spending | None = None,
    worker: int = 0,
) -> int:
    """Serves on bound sockets until a signal ends it, and closes them; with `speak`, it reports on standard output.
    `spending` is that of several workers, `worker` the number of this one."""
    return_large_blocks()
    server = Server(sockets, spending, worker)
    try:
        configure(config.log, secrets.all())
        await server.open(config, secrets)
        scheme, bound = "https" if config.tls.certificate else "http", sockets[0].getsockname()
        address = url(config.host, bound[1], scheme)
        clients = client_setup(config.host, bound, scheme, keys=bool(secrets.client_keys))
        with Watchdog(lambda: server.config.timeouts.stall).watching():
            return await _serve(server, address, clients if speak else None, reread, Redactor(secrets.all()))
    finally:
        await server.close()


def in_loop(work: Coroutine[Any, Any, int]) -> int:
    """Runs it in the fastest event loop that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def with_seal_key(config: Config, secrets: Secrets) -> Secrets:
    if secrets.seal_keys:
        return secrets
    return replace(secrets, seal_keys=(own_key(state_directory(config.state_dir)),))


def for_reload(read: Config, secrets: Secrets, running: Config) -> Config:
    """The new configuration as it can take effect: checked with the address that stays, not the one now in the file."""
    config = read.as_running(running)
    check_open(config, secrets.client_keys)
    return config


def _read_for_reload(reread: Reread, running: Config) -> tuple[Config, Config, Secrets]:
    """The configuration as it was read and as it can take effect, and the secrets with a key to seal with."""
    read, secrets = reread()
    config = for_reload(read, secrets, running)
    return read, config, with_seal_key(config, secrets)


def _open_files(config: Config, secrets: Secrets, older: Gateway | None) -> tuple[ssl.SSLContext | None, Opened]:
    return for_clients(config.tls), open_all(config, secrets, older)


@dataclass(slots=True, eq=False)
class Generation:
    """The gateway built from one configuration, with the runner that serves it."""

    gateway: Gateway
    runner: web.AppRunner
    retiring: asyncio.Task[None] | None = None


class Server:
    """The generations of the gateway: the last one takes new connections, older ones finish their calls."""

    def __init__(self, sockets: Sequence[socket.socket], spending: Spending | None = None, worker: int = 0) -> None:
        self._sockets = sockets
        self._spending = spending
        self._worker = worker
        self._generations: list[Generation] = []

    @property
    def gateway(self) -> Gateway:
        return self._generations[-1].gateway

    @property
    def gate(self) -> Gate:
        return self.gateway.gate

    @property
    def models(self) -> Models:
        return self.gateway.models

    @property
    def config(self) -> Config:
        return self.gateway.config

    @property
    def store(self) -> LazyStore | None:
        return self.gateway.store

    async def open(self, config: Config, secrets: Secrets) -> None:
        """Starts a generation that takes over; raises `ConfigError` if it cannot, and then nothing has changed."""
        previous = self._generations[-1] if self._generations else None
        older = previous.gateway if previous else None
        tls, opened = await asyncio.to_thread(_open_files, config, secrets, older)
        app = build(config, opened, secrets, previous=older, spending=self._spending, worker=self._worker)
        generation = Generation(app[GATEWAY], Runner(app, shutdown_timeout=1.0, **RUNNER_OPTIONS))
        try:
            await generation.runner.setup()
            for each in self._sockets:
                await web.SockSite(generation.runner, each.dup(), backlog=BACKLOG, ssl_context=tls).start()
        except BaseException:
            await generation.runner.cleanup()
            raise
        self._generations.append(generation)
        if previous is not None:
            generation.gateway.gate.take_over(previous.gateway.gate)
            previous.gateway.handler.leaving = True
            await _stop_listening(previous.runner)  # from here on nobody is met with the older configuration
            await previous.gateway.sockets.leave()
            previous.retiring = in_background(self._retire(previous), "older generation")

    async def reload(self, reread: Reread) -> None:
        old = self.gateway.config
        try:
            read, config, secrets = await asyncio.to_thread(_read_for_reload, reread, old)
            await self.open(config, secrets)
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error)
            return
        except Exception:
            log.exception("the configuration stays as it was")
            return
        configure(config.log, secrets.all())
        log.info("the configuration was read again")
        if fixed := [name for name in FIXED if getattr(old, name) != getattr(read, name)]:
            log.warning("%s: a change takes effect at the next start", ", ".join(fixed))

    async def _retire(self, generation: Generation) -> None:
        """Ends a generation after all older ones, once its answers have ended and its clients have disconnected."""
        handler, runner = generation.gateway.handler, generation.runner
        await handler.idle.wait()
        end = asyncio.get_running_loop().time() + LINGER
        while True:
            gone = runner.server is None or not runner.server.connections
            if handler.idle.is_set() and (gone or asyncio.get_running_loop().time() > end):
                break
            await asyncio.sleep(LINGER_POLL)
        place = self._generations.index(generation)
        if older := [each.retiring for each in self._generations[:place] if each.retiring is not None]:
            await asyncio.wait(older)
        await generation.gateway.sockets.leave()  # those that came since, and have asked for nothing
        await _clean_up(runner)
        self._generations.remove(generation)
        if handler.memos is not self.gateway.handler.memos:  # those of the first generation are never collected
            handler.memos.clear()
        forget_applications()
        asyncio.get_running_loop().call_soon(gc.collect)  # its objects refer to each other in circles

    async def leave(self, grace: float, hurry: asyncio.Future[int]) -> None:
        await self._stop_retiring()
        for each in self._generations:
            each.gateway.handler.leaving = True
        if grace:
            log.info("leaving", extra={"fields": {"grace": grace}})
            await asyncio.wait((hurry,), timeout=grace)
        for bound in self._sockets:  # otherwise clients could still connect and would wait for an answer until the end
            bound.close()
        drains = (drain(each.gateway, each.runner, hurry) for each in self._generations)
        for failure in await asyncio.gather(*drains, return_exceptions=True):
            if failure is not None:  # it cuts no other generation's answers
                log.error("a generation could not be drained", exc_info=failure)

    async def close(self) -> None:
        await self._stop_retiring()
        for each in self._generations:
            await _clean_up(each.runner)
        for bound in self._sockets:
            bound.close()

    async def _stop_retiring(self) -> None:
        await end(*(each.retiring for each in self._generations))


async def _serve(
    server: Server, address: str, clients: ClientSetup | None, reread: Reread | None, redact: Redactor
) -> int:
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    handled = [number for number in (signal.SIGTERM, signal.SIGINT, SIGHUP) if number is not None]
    for number in handled:
        loop.add_signal_handler(number, signals.put_nowait, number)
    if SIGHUP is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGHUP})  # a signal that arrived during the start is handled now
    stop = asyncio.create_task(_until_stopped(server, signals, reread), name="signal")
    announced = asyncio.create_task(announce(server, address, clients is not None, clients), name="announce")
    try:
        await asyncio.wait((stop, announced), return_when=asyncio.FIRST_COMPLETED)
        if announced.done() and (failure := announced.result()) is not None:
            print(f"dragoman: {escaped(redact(failure))}", file=sys.stderr)
            return 1
        _settle_garbage_collector()
        grace = server.gateway.config.grace if await stop == signal.SIGTERM else 0.0
        again = asyncio.create_task(_until_stopped(server, signals, None), name="second signal")
        try:
            await server.leave(grace, again)
        finally:
            await end(again)
        return 0
    finally:
        await end(stop, announced)
        for number in handled:
            loop.remove_signal_handler(number)


async def _until_stopped(server: Server, signals: asyncio.Queue[int], reread: Reread | None) -> int:
    """The signal that ends the server; each SIGHUP before it reloads the configuration."""
    while (number := await signals.get()) == SIGHUP:
        if reread is not None:
            await server.reload(reread)
    return number


def _settle_garbage_collector() -> None:
    """What is loaded by now stays, so collections need not scan it again; requests leave few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def announce(
    serving: Server | Gateway, address: str, speak: bool = True, clients: ClientSetup | None = None
) -> str | None:
    """Prints that the gateway is ready once a backend answers, with the lines to paste for clients; before that, once,
    what it waits for. Returns the reason, in one line, if no backend can be started."""
    loop = asyncio.get_running_loop()
    end = loop.time() + min(NOT_READY_AFTER, serving.config.timeouts.start)
    silent = not speak
    while True:
        states = await serving.gate.states()
        errors = [group.start_error for group in serving.gate.groups.values()]
        if all(errors):
            return f"the backend cannot be started: {' '.join(str(errors[0]).split())}"
        if ready := serving.gate.able():
            break
        if not silent and loop.time() > end:
            silent = True
            waiting = ", ".join(f"{name} is {health.state} ({health.detail})" for name, health in states.items())
            _say(f"dragoman listens on {address} and waits for its backend: {escaped(waiting)}")
        await asyncio.sleep(READY_POLL)
    if speak:
        setup = clients or ClientSetup(address)
        lines = setup.text(await serving.models.example())
        _say(f"dragoman is ready on {address} (backend: {', '.join(ready)}). {lines}")
        if (store := serving.store) is not None and not store.down:
            _say(f"What clients keep here is in {store.place}.")
    return None


def _say(words: str) -> None:
    """To whoever has started the gateway; it serves on where nobody reads that any longer (`| grep -m1 ready`), or
    where it cannot be written."""
    try:
        print(words, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def drain(gateway: Gateway, runner: web.AppRunner, hurry: asyncio.Future[int] | None = None) -> None:
    """Stops listening, lets running answers finish up to the limit, then ends the rest with a retryable failure."""
    handler = gateway.handler
    handler.draining = True
    await _stop_listening(runner)
    await gateway.sockets.leave()
    running = len(handler.calls)
    named = "; ^C again or a second SIGTERM ends the running answers now" if running and hurry is not None else ""
    log.info("draining%s", named, extra={"fields": {"in_flight": running}})
    await _until_idle(gateway, gateway.config.timeouts.drain, hurry)
    if handler.calls:
        log.warning("drain limit reached", extra={"fields": {"cut": len(handler.calls)}})
        error = GatewayError(Kind.DRAINING, "The gateway is shutting down; try again in 1s.", retry_after=1)
        for call in list(handler.calls):
            call.end(asyncio.get_running_loop().time(), error)
        await _until_idle(gateway, LAST_WORDS, None)


async def _clean_up(runner: web.AppRunner) -> None:
    """A failure is logged: other generations, and the process, still have to end."""
    try:
        await runner.cleanup()
    except Exception:
        log.exception("a generation could not be ended cleanly")


async def _stop_listening(runner: web.AppRunner) -> None:
    for site in list(runner.sites):
        await site.stop()


async def _until_idle(gateway: Gateway, seconds: float, hurry: asyncio.Future[int] | None) -> None:
    idle = asyncio.ensure_future(gateway.handler.idle.wait())
    try:
        await asyncio.wait((idle,) if hurry is None else (idle, hurry), timeout=seconds, return_when="FIRST_COMPLETED")
    finally:
        idle.cancel()
