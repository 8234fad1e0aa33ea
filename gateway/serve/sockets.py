"""Listening sockets, bound before anything is started, so that a port in use costs nothing."""

from __future__ import annotations

import asyncio
import os
import socket

BACKLOG = 1024
# localhost often resolves to ::1 where the kernel has no IPv6
_NO_SUCH_FAMILY = {97, 99, 47, 49}  # EAFNOSUPPORT and EADDRNOTAVAIL, of Linux and of macOS


class CannotListen(Exception):
    """Its text is one line for the person at the terminal."""


async def listen(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """One listening socket for each address of `host`; the address of a `shared` one can be bound several times."""
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
                sockets.append(_bind(family, (address[0], chosen, *address[2:]), shared))
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


def _bind(family: int, address: tuple[object, ...], shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
        bound.listen(BACKLOG)  # a second process on the port fails here at the latest, on Linux at bind
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound
