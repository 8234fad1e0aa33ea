"""One process from its first socket to its last: listen, say ready, run, drain, end.

The sockets are bound before anything is started, so that a port in use costs nothing. At SIGTERM or SIGINT the
gateway turns not ready and stops listening; running answers finish up to the drain limit; the rest end with a failure
that clients retry. A second signal ends the wait.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from dataclasses import replace

from aiohttp import web

from gateway.app import GATEWAY, RUNNER_OPTIONS, Gateway, build
from gateway.config import Config
from gateway.logs import Redactor, configure, log
from gateway.sealing import own_key, state_directory
from gateway.secrets import Secrets
from translators.errors import GatewayError, Kind

BACKLOG = 1024
LAST_WORDS = 5.0  # seconds for the failure events of cut answers to leave
READY_POLL = 0.25
NOT_READY_AFTER = 3.0


class CannotListen(Exception):
    """Its text is one line for the person at the terminal."""


async def run(config: Config, secrets: Secrets) -> int:
    app = build(config, secrets=secrets)
    try:
        sockets = await listen(config.host, config.port)
    except CannotListen as error:
        print(f"dragoman: {error}", file=sys.stderr)
        return 1
    if not secrets.seal_keys:
        secrets = replace(secrets, seal_keys=(own_key(state_directory(config.state_dir)),))
    configure(config.log, secrets.all())
    runner = web.AppRunner(app, shutdown_timeout=1.0, **RUNNER_OPTIONS)
    try:
        await runner.setup()
        for each in sockets:
            await web.SockSite(runner, each, backlog=BACKLOG).start()
        return await _serve(runner.app[GATEWAY], runner, url(config.host, sockets[0]), Redactor(secrets.all()))
    finally:
        await runner.cleanup()
        for each in sockets:
            each.close()


async def _serve(served: Gateway, runner: web.AppRunner, address: str, redact: Redactor) -> int:
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    stop = asyncio.create_task(signals.get(), name="signal")
    announced = asyncio.create_task(announce(served, address), name="announce")
    try:
        await asyncio.wait((stop, announced), return_when=asyncio.FIRST_COMPLETED)
        if announced.done() and (failure := announced.result()) is not None:
            print(f"dragoman: {redact(failure)}", file=sys.stderr)
            return 1
        _settle_garbage_collector()
        await stop
        await drain(served, runner, again := asyncio.create_task(signals.get(), name="second signal"))
        again.cancel()
        return 0
    finally:
        for task in (stop, announced):
            task.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _settle_garbage_collector() -> None:
    """What has been loaded by now stays, so no collection need look at it again; requests leave few cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def announce(served: Gateway, address: str) -> str | None:
    """Says ready once a backend answers, and before that, once, what is missing; gives the reason, in one line, when
    no backend can be started."""
    loop = asyncio.get_running_loop()
    end = loop.time() + min(NOT_READY_AFTER, served.config.timeouts.start)
    told = False
    while True:
        states = await served.gate.states()
        errors = [watch.start_error for watch in served.gate.watches.values()]
        if all(errors):
            return f"the backend cannot be started: {' '.join(str(errors[0]).split())}"
        if ready := [name for name, health in states.items() if health.state == "ready"]:
            break
        if not told and loop.time() > end:
            told = True
            waiting = ", ".join(f"{name} is {health.state} ({health.detail})" for name, health in states.items())
            print(f"dragoman listens on {address} and waits for its backend: {waiting}", flush=True)
        await asyncio.sleep(READY_POLL)
    print(f"dragoman is ready on {address} (backend: {', '.join(ready)}; clients use {address}/v1)", flush=True)
    return None


async def drain(served: Gateway, runner: web.AppRunner, hurry: asyncio.Future[int] | None = None) -> None:
    """Not ready, no new connections, the running answers up to the limit, then a retryable failure for the rest."""
    handler = served.handler
    handler.draining = True
    for site in list(runner.sites):
        await site.stop()
    running = len(handler.calls)
    log.info("draining", extra={"fields": {"in_flight": running}})
    await _until_idle(served, served.config.timeouts.drain, hurry)
    if handler.calls:
        log.warning("drain limit reached", extra={"fields": {"cut": len(handler.calls)}})
        error = GatewayError(Kind.DRAINING, "The gateway is shutting down; try again in 1s.", retry_after=1)
        for call in list(handler.calls):
            call.interrupt(error)
        await _until_idle(served, LAST_WORDS, None)


async def _until_idle(served: Gateway, seconds: float, hurried: asyncio.Future[int] | None) -> None:
    idle = asyncio.ensure_future(served.handler.idle.wait())
    await asyncio.wait((idle,) if hurried is None else (idle, hurried), timeout=seconds, return_when="FIRST_COMPLETED")
    idle.cancel()


# -------------------------------------------------------------------------------------------------------------- sockets


async def listen(host: str, port: int) -> list[socket.socket]:
    """One bound socket for every address that `host` has."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise CannotListen(f"cannot listen on {host}: {error.strerror}") from None
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    sockets: list[socket.socket] = []
    try:
        for family, address in sorted(addresses, key=lambda pair: pair[0] != socket.AF_INET):
            chosen = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_bind(family, (address[0], chosen, *address[2:])))
            except OSError as error:
                if not sockets or error.errno not in _NO_SUCH_FAMILY:
                    raise
        return sockets
    except OSError as error:
        for each in sockets:
            each.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = " (is another dragoman running? --port takes another one)" if "in use" in reason else ""
        raise CannotListen(f"cannot listen on {host} port {port}: {reason}{hint}") from None


# localhost often resolves to ::1 where the kernel has no IPv6
_NO_SUCH_FAMILY = {97, 99, 47, 49}  # EAFNOSUPPORT and EADDRNOTAVAIL, of Linux and of macOS


def _bind(family: int, address: tuple[object, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
        bound.listen(BACKLOG)  # a second process on the port fails here at the latest, on Linux at bind
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def url(host: str, bound: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{bound.getsockname()[1]}"
