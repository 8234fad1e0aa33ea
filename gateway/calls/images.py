"""Images by URL: fetched here and put into the request as `data:` URLs, so that no model server ever fetches.

Only hosts of the allow-list are asked, over http(s) on their usual ports or the one that is listed. The address that a
name resolves to is checked when its socket is made, again for every redirect, so that neither DNS nor another spelling
of an address leads into the own network. Nothing of the client's request is sent along. Size, number, redirects and
time are bounded, and so is what is fetched at once, from each host and for each client: a slow host keeps up only those
who ask it, and nobody takes all of its places. A refusal names the image by its place in the client's request; a host's
answer is never quoted.

Whether something is an image is for its first bytes to say, wherever it came from. SVG and other text never is.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from dragoman.gateway.calls.body_memory import UNCOUNTED
from dragoman.gateway.config import ImagesConfig, Limits
from dragoman.gateway.store.kept import Room
from dragoman.gateway.telemetry.logs import log
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Image, Message, Note, Part, Request, Text, ToolResult
from dragoman.translators.unreadable import asked_about, image_kind, in_place_of, unseen

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
OF_HOST = 8  # fetches at once from one host
OF_HOST_FOR_CLIENT = 4  # of them for one client
FOR_CLIENT = 16  # for one client from all hosts
# What object stores (S3, Azure) call what was put there without a type, and aiohttp what comes without one.
UNTYPED = ("application/octet-stream", "binary/octet-stream")
HEAD = 64  # characters of base64 that show what an image is; a multiple of four
REDIRECTS = frozenset({301, 302, 303, 307, 308})


LEFT_OUT = Note("item", "image")


class Forbidden(OSError):
    """The address is not one that may be asked."""


class Refused(GatewayError):
    """An image that may not or cannot be fetched. The model reads `reason` in its place: always in the same words, so
    that the prompt of a turn stays a prefix of the next one's."""

    def __init__(self, image: Image, message: str, reason: str) -> None:
        super().__init__(Kind.INVALID, message, image.path or None, code="invalid_value", content="image")
        self.reason = reason


class Places:
    """So many at once for each key. A key that nobody uses is forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used: dict[Hashable, tuple[asyncio.Semaphore, int]] = {}

    @contextlib.asynccontextmanager
    async def one(self, key: Hashable) -> AsyncIterator[None]:
        places, users = self._used.get(key) or (asyncio.Semaphore(self._most), 0)
        self._used[key] = places, users + 1
        try:
            async with places:
                yield
        finally:
            _, users = self._used[key]
            if users == 1:
                del self._used[key]
            else:
                self._used[key] = places, users - 1


class Images:
    """`total` bounds the bytes of all images of a request; with `reject` none is left out. `permitted` and `resolver`
    are for tests; the rule is `may_be_asked`."""

    def __init__(
        self,
        config: ImagesConfig,
        permitted: Callable[[Address], bool] | None = None,
        resolver: AbstractResolver | None = None,
        total: int | None = None,
        reject: bool = False,
    ) -> None:
        self._config = config
        self._reject = reject
        self._total = Limits().body_bytes if total is None else total
        self._permitted = permitted or (lambda address: may_be_asked(address, config.private))
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None
        self._of_host, self._of_both, self._for_client = map(Places, (OF_HOST, OF_HOST_FOR_CLIENT, FOR_CLIENT))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def inlined(self, request: Request, notes: list[Note], client: str = "", room: Room | None = None) -> Request:
        """The request with every image in it. Raises if an image of the current question may not or cannot be fetched;
        an earlier one is left out, with a note in `notes`. What is fetched has to find `room`, as a body does."""
        images = list(_images(request.messages))
        if not images:
            return request
        if len(images) > self._config.most:
            raise _too_much(images[self._config.most], f"More than {self._config.most} images in one request.")
        needed = images if self._reject else asked_about(request.messages)
        wanted = {image.url: image for image in reversed(needed)}
        budget = _ByteBudget(self._total, room)
        found: dict[str, Image | Text] = {}
        targets: dict[str, tuple[URL, Image]] = {}
        for image in images:
            budget.count(image)
            if image.url in found or image.url in targets:
                continue
            image = wanted.get(image.url, image)
            try:
                if (url := self._checked(image)) is not None:
                    targets[image.url] = (url, image)
            except Refused as refused:
                found[image.url] = _left_out(refused, image.url in wanted)
        found |= await self._fetched_all(
            targets, wanted, budget, client
        )  # all are checked before the first host is asked
        if not found:
            return request
        notes.extend(LEFT_OUT for image in images if isinstance(found.get(image.url), Text))
        return replace(request, messages=tuple(_with(message, found) for message in request.messages))

    def seen(self, request: Request, notes: Sequence[Note]) -> None:
        """Raises if the backend's notes say that it leaves out images, and none may be left out."""
        if self._reject and LEFT_OUT in notes:
            raise unseen(next(_images(request.messages)))

    # ------------------------------------------------------------------------------------------------------ checking

    def _checked(self, image: Image) -> URL | None:
        """The URL to fetch an image from; None for one that came with the request."""
        if image.url[:5].lower() == "data:":
            if len(image.url) * 3 // 4 > self._config.bytes + 1024:
                raise self._too_large(image)
            if _is_text(image.url):
                raise _refused(image, "The data of the image is not a PNG, JPEG, GIF or WebP image.")
            return None
        return self._target(image)

    def _target(self, image: Image) -> URL:
        if not self._config.allow:
            raise _refused(image, "Images by URL are not allowed here: send the image itself as a data: URL.")
        try:
            url = URL(image.url)
        except ValueError:
            raise _refused(image, "Invalid image URL.") from None
        return self._allowed(url, image)

    def _allowed(self, url: URL, image: Image) -> URL:
        host, port = (url.raw_host or "").lower().rstrip("."), url.port
        if url.scheme not in ("http", "https") or not host:
            raise _refused(image, "Only http and https URLs are supported for images.")
        if url.user is not None or url.password is not None:
            raise _refused(image, "An image URL must not hold a user name or a password.")
        if not any(_matches(entry, host, port, url.is_default_port()) for entry in self._config.allow):
            raise _refused(image, "Images by URL are not allowed from this host: send the image itself as a data: URL.")
        return url

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """aiohttp calls this with the very address that it connects to next."""
        family, kind, protocol, _, where = info
        if not self._permitted(ipaddress.ip_address(str(where[0]).partition("%")[0])):
            raise Forbidden("this address may not be asked")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    # ----------------------------------------------------------------------------------------------------- fetching

    async def _fetched_all(
        self, targets: Mapping[str, tuple[URL, Image]], wanted: Collection[str], budget: _ByteBudget, client: str
    ) -> dict[str, Image | Text]:
        async def one(name: str, url: URL, image: Image) -> Image | Text:
            try:
                return replace(image, url=await self._fetched(url, image, budget, client))
            except Refused as refused:
                return _left_out(refused, name in wanted)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = {name: group.create_task(one(name, *target)) for name, target in targets.items()}
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return {name: task.result() for name, task in tasks.items()}

    async def _fetched(self, url: URL, image: Image, budget: _ByteBudget, client: str) -> str:
        try:
            async with asyncio.timeout(self._config.timeout) as limit:
                return await self._followed(url, image, budget, client, limit)
        except TimeoutError:
            reason = "it took too long"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = "its host cannot be reached"
            log.info("an image was not fetched", extra={"fields": {"host": url.host, "error": type(error).__name__}})
        raise _refused(image, f"The image could not be fetched: {reason}.")

    async def _followed(self, url: URL, image: Image, budget: _ByteBudget, client: str, limit: asyncio.Timeout) -> str:
        for _ in range(self._config.redirects + 1):
            host = url.host, url.port
            async with (
                self._of_both.one((client, host)),
                self._of_host.one(host),
                self._for_client.one(client),  # last, so that those who wait for a host take none of them
                self._opened().get(url, allow_redirects=False) as response,
            ):
                if response.status not in REDIRECTS:
                    self._check_head(response, image)
                    with _paused(limit):
                        await budget.find_room(image, response.content_length or self._config.bytes)
                    return await self._read(response, image, budget)
                url = self._allowed(url.join(URL(response.headers.get("Location", ""))), image)
        raise _refused(image, "The image could not be fetched: too many redirects.")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                force_close=True, use_dns_cache=False, resolver=self._resolver, socket_factory=self._socket
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "dragoman", "Accept": "image/*", "Accept-Encoding": "identity"},
                auto_decompress=False,
            )
        return self._session

    def _check_head(self, response: aiohttp.ClientResponse, image: Image) -> None:
        if response.status != 200:
            raise _refused(image, f"The image could not be fetched: its host answered with status {response.status}.")
        media = response.content_type
        if not (media.startswith("image/") or media in UNTYPED) or response.headers.get("Content-Encoding", "") not in (
            "",
            "identity",
        ):
            raise _refused(image, "What was fetched is not an image.")
        if (response.content_length or 0) > self._config.bytes:
            raise self._too_large(image)

    async def _read(self, response: aiohttp.ClientResponse, image: Image, budget: _ByteBudget) -> str:
        data = bytearray()
        async for piece in response.content.iter_any():
            data += piece
            if len(data) > self._config.bytes:
                raise self._too_large(image)
            budget.take(image, len(piece))
        if (kind := image_kind(data)) is None:
            raise _refused(image, "What was fetched is not a PNG, JPEG, GIF or WebP image.")
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    def _too_large(self, image: Image) -> Refused:
        return _refused(image, f"The image is larger than {self._config.bytes} bytes.", "it is too large")


class _ByteBudget:
    """The bytes left for the images of one request. An image counts as often as it occurs there."""

    def __init__(self, total: int, room: Room | None = None) -> None:
        self.total = self.left = total
        self.times: Counter[str] = Counter()
        self._room = room
        self._small = 0  # bytes that are still to be counted: one small image is not, but many are
        self._turn = asyncio.Lock()

    async def find_room(self, image: Image, size: int) -> None:
        """Before it is read, for what is made of it in base64."""
        if self._room is None:
            return
        async with self._turn:
            self._small += size * self.times[image.url] * 4 // 3
            if self._small > UNCOUNTED:
                size, self._small = self._small, 0
                if not self._room.takes(size):
                    await self._room.wait(size)

    def count(self, image: Image) -> None:
        """An image that came with the request was bounded with its body."""
        self.times[image.url] += 1
        if image.url[:5].lower() == "data:":
            self.left -= len(image.url) * 3 // 4

    def take(self, image: Image, size: int) -> None:
        self.left -= size * self.times[image.url]
        if self.left < 0:
            raise _too_much(image, f"The images of one request are larger than {self.total} bytes together.")


@contextlib.contextmanager
def _paused(limit: asyncio.Timeout) -> Iterator[None]:
    """The time in the block does not count."""
    loop = asyncio.get_running_loop()
    end, began = limit.when(), loop.time()
    limit.reschedule(None)
    yield
    limit.reschedule(None if end is None else end + loop.time() - began)


def may_be_asked(address: Address, private: bool = False) -> bool:
    """Public addresses; with `private` also those of the own network, but never those where clouds serve credentials
    (link-local and similar)."""
    address = _inner(address)
    if _never(address):
        return False
    inside = address.is_private
    if isinstance(address, ipaddress.IPv6Address):
        if address in _OWN_NAT64:
            return private and not any(map(_never, _translated(address)))
        inside = inside or address.is_site_local
        if not inside and address not in _WORLD:
            return False
    return (private and inside and address not in _RESERVED) or (address.is_global and not inside)


def _never(address: Address) -> bool:
    return address.is_multicast or address.is_unspecified or address.is_link_local or address in _METADATA


_RESERVED = ipaddress.ip_network("240.0.0.0/4")
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")))
_WORLD = ipaddress.ip_network("2000::/3")  # all of IPv6 that is allocated
_OWN_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_EMBEDDING = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96")))


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address embeds, else the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and any(address in network for network in _EMBEDDING):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if int(address) > 1 else None
        return inner or address
    return address


def _translated(address: ipaddress.IPv6Address) -> list[Address]:
    """The addresses that a local NAT64 may translate it to; where they start depends on its prefix (RFC 6052)."""
    packed = address.packed
    squeezed = packed[:8] + packed[9:]
    places = (squeezed[6:10], squeezed[7:11], squeezed[8:12], packed[12:])
    return [inner for place in places if int(inner := ipaddress.IPv4Address(place))]


def _matches(entry: str, host: str, port: int | None, usual: bool) -> bool:
    """Entries are `host` or `.suffix` (its subdomains), with `:port` or for the scheme's own port only."""
    name, _, listed = entry.lower().partition(":")
    if (listed and str(port) != listed) or (not listed and not usual):
        return False
    return host.endswith(name) and host != name if name.startswith(".") else host == name


def _is_text(url: str) -> bool:
    """Whether a data URL in base64 holds markup, such as SVG, whatever type it names. An image that a server may know
    and this gateway does not is left to the server."""
    comma = url.find(",", 0, 256)
    try:
        head = base64.b64decode(url[comma + 1 : comma + 1 + HEAD], validate=True)
    except ValueError:
        return False
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"


def _refused(image: Image, message: str, reason: str = "this gateway cannot fetch it") -> Refused:
    return Refused(image, message, reason)


def _too_much(image: Image, message: str) -> GatewayError:
    return GatewayError(Kind.INVALID, message, image.path or None, code="invalid_value", content="media")


def _left_out(refused: Refused, wanted: bool) -> Text:
    if wanted:
        raise refused
    return Text(in_place_of("image", refused.reason))


def _images(messages: Iterable[Message]) -> Iterator[Image]:
    for message in messages:
        for part in message.parts:
            if type(part) is Image:
                yield part
            elif type(part) is ToolResult:
                for item in part.content:
                    if type(item) is Image:
                        yield item


def _with(message: Message, found: Mapping[str, Image | Text]) -> Message:
    def put(part: Any) -> Any:
        if isinstance(part, Image):
            return _as_found(part, found.get(part.url, part))
        if isinstance(part, ToolResult):
            return replace(part, content=tuple(put(item) for item in part.content))
        return part

    parts: tuple[Part, ...] = tuple(put(part) for part in message.parts)
    return replace(message, parts=parts)


def _as_found(image: Image, found: Image | Text) -> Image | Text:
    """The fetched image with the detail that this occurrence asks for."""
    return replace(image, url=found.url) if isinstance(found, Image) else found
