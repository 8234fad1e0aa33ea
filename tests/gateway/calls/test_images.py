"""Images by address: what is fetched, by whom, from where, and what never is."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from dragoman.gateway.calls.body import BodyReader
from dragoman.gateway.calls.body_memory import Share
from dragoman.gateway.calls.images import OF_HOST, OF_HOST_FOR_CLIENT, Address, Images, may_be_asked
from dragoman.gateway.config import ImagesConfig, Limits, load
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Image, Message, Note, Request, Text, ToolResult
from dragoman.translators.registry import PROTOCOLS
from tests.gateway_fakes import FakeBackend, running
from tests.waiting import LIMIT, until

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels" * 20
PATH = "input[0].content[1].image_url"
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


def asking(*urls: str) -> Request:
    return Request("0" * 32, "m", (Message("user", (Text("look"), *(Image(url, path=PATH) for url in urls))),))


class Names(AbstractResolver):
    """Names as the test says; each answer is used once, the last one for ever, as a rebinding name server does it."""

    def __init__(self, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): list(addresses) for name, addresses in names.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self.names:
            raise OSError("no such name")
        answers = self.names[host]
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        return None


@contextlib.asynccontextmanager
async def host(answer: Answering) -> AsyncIterator[tuple[int, list[str]]]:
    """A server on 127.0.0.1 (and .2); gives its port and the requests that it got."""
    seen: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(f"{request.method} {request.path_qs} {sorted(request.headers)}")
        return await answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    await web.TCPSite(runner, "127.0.0.2", port).start()
    try:
        yield port, seen
    finally:
        await runner.cleanup()


async def png(request: web.Request) -> web.Response:
    return web.Response(body=PNG, content_type="image/png")


def public_is_127_0_0_2(address: Address) -> bool:
    """Where a test stands in for the internet there is one public address."""
    return address == ipaddress.ip_address("127.0.0.2") or may_be_asked(address)


@contextlib.asynccontextmanager
async def fetching(names: AbstractResolver | None = None, **config: Any) -> AsyncIterator[Images]:
    images = Images(ImagesConfig.model_validate(config), public_is_127_0_0_2, names)
    try:
        yield images
    finally:
        await images.close()


async def refusal(images: Images, *urls: str) -> str:
    with pytest.raises(GatewayError) as raised:
        await images.inlined(asking(*urls), [])
    assert raised.value.kind is Kind.INVALID
    assert raised.value.code == "invalid_value"
    assert raised.value.param == PATH
    return raised.value.message


async def test_data_urls_pass_and_addresses_are_refused_where_nothing_is_allowed() -> None:
    async with fetching() as images:
        request = asking("data:image/png;base64,AAAA")
        assert await images.inlined(request, []) is request
        assert "not allowed here" in await refusal(images, "https://example.org/a.png")


async def test_an_allowed_image_is_fetched_once_and_put_in_its_place() -> None:
    async with host(png) as (port, seen):
        names = Names(pictures_example=["127.0.0.2"])
        async with fetching(names, allow=[f"pictures.example:{port}"]) as images:
            url = f"http://pictures.example:{port}/a.png?size=1"
            result = ToolResult("call_1", (Text("seen"), Image(url)))
            request = asking(url)
            request = Request("0" * 32, "m", (*request.messages, Message("tool", (result,))))
            done = await images.inlined(request, [])
        first = done.messages[0].parts[1]
        assert isinstance(first, Image)
        assert first.url.startswith("data:image/png;base64,iVBOR")
        assert first.path == PATH
        assert isinstance(done.messages[1].parts[0], ToolResult)
        assert done.messages[1].parts[0].content[1] == Image(first.url)
        assert len(seen) == 1
        assert seen[0].startswith("GET /a.png?size=1")
        assert "Authorization" not in seen[0]
        assert "Cookie" not in seen[0]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://elsewhere.example/a.png", "not allowed from this host"),
        ("https://pictures.example.evil.example/a.png", "not allowed from this host"),
        ("https://evilpictures.example/a.png", "not allowed from this host"),
        ("https://pictures.example:8443/a.png", "not allowed from this host"),
        ("https://pictures.example@evil.example/a.png", "user name"),
        ("https://user:word@pictures.example/a.png", "user name"),
        ("https://evil.example\\@pictures.example/a.png", ""),
        ("https://evil.example#@pictures.example/a.png", "not allowed from this host"),
        ("https://127.0.0.1/a.png", "not allowed from this host"),
        ("https://2130706433/a.png", "not allowed from this host"),
        ("https://[::ffff:127.0.0.1]/a.png", "not allowed from this host"),
        ("file:///etc/passwd", "Only http"),
        ("gopher://pictures.example/", "Only http"),
        ("http://", "Only http"),
        ("http://[", "Invalid image URL"),
        ("https://pictures.example:99999/a.png", "Invalid image URL"),
    ],
)
async def test_what_is_not_on_the_list_is_refused_before_anything_is_asked(url: str, reason: str) -> None:
    names = Names()
    async with fetching(names, allow=["pictures.example", ".cdn.example"]) as images:
        assert reason in await refusal(images, url)
    assert names.asked == []


@pytest.mark.parametrize(
    ("name", "allowed"), [("a.cdn.example", True), ("A.B.CDN.example.", True), ("cdn.example", False)]
)
async def test_a_suffix_means_the_hosts_below_it(name: str, allowed: bool) -> None:
    async with fetching(Names(), allow=[".cdn.example"]) as images:
        message = await refusal(images, f"https://{name}/a.png")
    assert ("cannot be reached" in message) == allowed


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1",
        "fd00::1",
    ],
)
async def test_a_listed_name_that_leads_inside_is_not_connected_to(address: str) -> None:
    async with host(png) as (port, seen), fetching(Names(a_example=[address]), allow=[f"a.example:{port}"]) as images:
        assert "cannot be reached" in await refusal(images, f"http://a.example:{port}/")
        assert seen == []


async def test_a_listed_number_is_judged_by_the_address_that_it_is() -> None:
    async with host(png) as (port, seen), fetching(allow=[f"2130706433:{port}", f"127.0.0.1:{port}"]) as images:
        for spelled in ("2130706433", "127.0.0.1"):
            await refusal(images, f"http://{spelled}:{port}/a.png")
        assert seen == []


async def test_a_redirect_is_judged_like_the_first_address() -> None:
    targets = {"/inside": "http://127.0.0.1:{port}/secret", "/name": "http://inner.example:{port}/secret"}
    targets |= {
        "/good": "/a.png",
        "/user": "http://x:y@a.example:{port}/a.png",
        "/loop": "/loop",
        "/file": "file:///etc",
    }

    async def answer(request: web.Request) -> web.Response:
        if request.path not in targets:
            return await png(request)
        where = targets[request.path].format(port=request.url.port)
        return web.Response(status=302, headers={"Location": where})

    async with host(answer) as (port, seen):
        names = Names(a_example=["127.0.0.2"], inner_example=["127.0.0.1"])
        listed = [f"a.example:{port}", f"inner.example:{port}"]
        async with fetching(names, allow=listed) as images:
            expected = {
                "inside": "not allowed from this host",
                "name": "cannot be reached",
                "user": "user name",
                "loop": "too many redirects",
                "file": "Only http",
            }
            for path, reason in expected.items():
                assert reason in await refusal(images, f"http://a.example:{port}/{path}")
            done = await images.inlined(asking(f"http://a.example:{port}/good"), [])
            assert isinstance(image := done.messages[0].parts[1], Image)
            assert image.url.startswith("data:image/png")
        assert not any("secret" in line for line in seen)


async def test_a_name_that_changes_its_address_between_two_questions_gains_nothing() -> None:
    async with host(png) as (port, seen):
        names = Names(a_example=["127.0.0.2", "127.0.0.1"])
        async with fetching(names, allow=[f"a.example:{port}"]) as images:
            await images.inlined(asking(f"http://a.example:{port}/first"), [])
            assert "cannot be reached" in await refusal(images, f"http://a.example:{port}/second")
        assert len(seen) == 1


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "image/png"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
        while True:
            await response.write(PNG * 100)
    return response


async def _slow(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(2)
    return await png(request)


def _told(**options: Any) -> Answering:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(**options)

    return answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_endless, "larger than"),
        (_told(body=PNG * 1000, content_type="image/png"), "larger than"),
        (_slow, "too long"),
        (_told(body=b"<html>", content_type="text/html"), "not an image"),
        (_told(body=b"<svg/>", content_type="image/svg+xml"), "not a PNG"),
        (_told(body=b"no image", content_type="binary/octet-stream"), "not a PNG"),
        (_told(body=PNG, content_type="image/png", headers={"Content-Encoding": "gzip"}), "not an image"),
        (_told(status=404, text="canary of the host", content_type="image/png"), "status 404"),
    ],
)
async def test_what_comes_must_be_an_image_of_bounded_size_in_time(answer: Answering, reason: str) -> None:
    async with host(answer) as (port, _):
        config = {"allow": [f"a.example:{port}"], "bytes": 20_000, "timeout": 0.5}
        async with fetching(Names(a_example=["127.0.0.2"]), **config) as images:
            message = await refusal(images, f"http://a.example:{port}/")
            assert reason in message
            assert "canary" not in message


@pytest.mark.parametrize("media", ["binary/octet-stream", "application/octet-stream", "image/jpeg", "image/x-png"])
async def test_an_image_s_type_is_in_its_first_bytes(media: str) -> None:
    answer, names = _told(body=PNG, content_type=media), Names(a_example=["127.0.0.2"])
    async with host(answer) as (port, _), fetching(names, allow=[f"a.example:{port}"]) as images:
        done = await images.inlined(asking(f"http://a.example:{port}/"), [])
    assert isinstance(image := done.messages[0].parts[1], Image)
    assert image.url.startswith("data:image/png;")


async def test_number_and_size_of_images_are_bounded() -> None:
    async with fetching(most=2, bytes=1024) as images:
        small, large = "data:image/png;base64,AAAA", "data:image/png;base64," + "A" * 4096
        assert "More than 2 images" in await refusal(images, small, small, small)
        assert "larger than 1024" in await refusal(images, small, large)


async def test_in_the_history_a_text_takes_the_place_of_what_cannot_be_had() -> None:
    """One that fails today was there yesterday: the session goes on without it."""
    small, large = Image("data:image/png;base64,AAAA"), Image("data:image/png;base64," + "A" * 4096)
    gone, elsewhere = Image("http://a.example/gone.png?at=1"), Image("https://elsewhere.example/b.png")
    result = Message("tool", (ToolResult("call_1", (Text("seen"), gone, small)),))
    history = (Message("user", (elsewhere, large, small)), Message("assistant", (Text("ok"),)), result)
    async with fetching(Names(), allow=["a.example"], bytes=1024) as images:
        notes: list[Note] = []
        done = await images.inlined(Request("0" * 32, "m", history), notes)
        unfetched = Text("[Image left out: this gateway cannot fetch it]")
        assert done.messages[0].parts == (unfetched, Text("[Image left out: it is too large]"), small)
        assert done.messages[2].parts == (ToolResult("call_1", (Text("seen"), unfetched, small)),)
        assert notes == [Note("item", "image")] * 3
        again = Message("user", (replace(gone, path=PATH),))
        with pytest.raises(GatewayError, match="cannot be reached") as raised:
            await images.inlined(Request("0" * 32, "m", (*history, again)), [])
        assert raised.value.param == PATH


async def test_by_policy_nothing_of_the_history_is_left_out() -> None:
    images = Images(ImagesConfig(), reject=True)
    result = Message("tool", (ToolResult("call_1", (Image("https://elsewhere.example/b.png", path=PATH),)),))
    with pytest.raises(GatewayError, match="not allowed here") as raised:
        await images.inlined(Request("0" * 32, "m", (result,)), [])
    assert (raised.value.param, raised.value.content) == (PATH, "image")


@pytest.mark.parametrize(
    ("address", "public", "private"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("10.0.0.1", False, True),
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("fd12::1", False, True),
        ("169.254.169.254", False, False),
        ("fe80::1", False, False),
        ("fd00:ec2::254", False, False),
        ("100.100.100.200", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("64:ff9b::7f00:1", False, True),
        ("2002:7f00:1::", False, True),
        ("::7f00:1", False, True),
        ("64:ff9b:1::a00:1", False, True),
        ("64:ff9b:1::808:808", False, True),
        ("64:ff9b:1::a9fe:a9fe", False, False),
        ("64:ff9b:1:a9fe:a9:fe00::", False, False),
        ("::ffff:0:10.0.0.1", False, True),
        ("::ffff:0:169.254.169.254", False, False),
        ("::ffff:0:93.184.216.34", True, True),
        ("fec0::1", False, True),
        ("5f00::1", False, False),
        ("4000::1", False, False),
        ("100.64.0.1", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("224.0.0.1", False, False),
        ("255.255.255.255", False, False),
    ],
)
def test_which_addresses_may_be_asked(address: str, public: bool, private: bool) -> None:
    parsed = ipaddress.ip_address(address)
    assert may_be_asked(parsed) is public
    assert may_be_asked(parsed, private=True) is private


async def test_the_images_of_one_request_are_bounded_together_however_often_one_is_named() -> None:
    async with host(png) as (port, _):
        names = Names(pictures_example=["127.0.0.2"])
        config = ImagesConfig.model_validate({"allow": [f"pictures.example:{port}"]})
        images = Images(config, public_is_127_0_0_2, names, total=3 * len(PNG))
        try:
            first, *others = (f"http://pictures.example:{port}/{name}.png" for name in "abcd")
            assert (await images.inlined(asking(first, first, others[0]), [])).messages
            for urls in ((first, first, first, first), (first, *others)):
                assert f"larger than {3 * len(PNG)} bytes together" in await refusal(images, *urls)
        finally:
            await images.close()


async def test_what_is_fetched_takes_of_the_memory_for_bodies_before_it_is_read() -> None:
    """A request of a few bytes may bring as much as one with the images in it."""
    size = 1_500_000

    async def large(_: web.Request) -> web.Response:
        return web.Response(body=PNG.ljust(size), content_type="image/png")

    bodies = BodyReader(Limits(body_bytes=8_000_000, bodies_bytes=8_000_000), within=0.1)
    shares = [Share(), Share()]
    async with host(large) as (port, _):
        names = Names(pictures_example=["127.0.0.2"])
        async with fetching(names, allow=[f"pictures.example:{port}"], timeout=5) as images:
            urls = [f"http://pictures.example:{port}/{name}.png" for name in "abc"]
            await images.inlined(asking(*urls), [], room=bodies.room(shares[0]))
            assert bodies.memory.taken == 3 * (size * 4 // 3)
            with pytest.raises(GatewayError) as raised:
                await images.inlined(asking(*urls), [], room=bodies.room(shares[1]))
            assert raised.value.kind is Kind.BUSY
            for each in shares:
                each.free()
            assert bodies.memory.taken == 0


# ------------------------------------------------------------------------------------------------------------ at once


@contextlib.asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[Images, Callable[[str, int], str], dict[str, int], asyncio.Event]]:
    """`slow.example` does not answer before the event is set. Gives the images, the URL of a picture, and how many
    requests each host has open or has answered."""
    asked: dict[str, int] = {"slow": 0, "fast": 0}
    go_on = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        name = "slow" if request.path.startswith("/slow") else "fast"
        asked[name] += 1
        if name == "slow":
            await go_on.wait()
        return await png(request)

    async with host(answer) as (port, _):
        names = Names(slow_example=["127.0.0.2"], fast_example=["127.0.0.2"])
        async with fetching(names, allow=[f"{name}.example:{port}" for name in asked], timeout=LIMIT) as images:
            yield images, lambda name, n: f"http://{name}.example:{port}/{name}{n}.png", asked, go_on


async def test_a_slow_host_holds_up_neither_other_hosts_nor_other_clients() -> None:
    async with two_hosts() as (images, url, asked, go_on):
        slow = [url("slow", number) for number in range(20)]
        greedy = asyncio.create_task(images.inlined(asking(*slow), [], "greedy"))
        await until(lambda: asked["slow"] == OF_HOST_FOR_CLIENT)
        for client in ("greedy", "modest"):
            done = await images.inlined(asking(url("fast", 1)), [], client)
            assert isinstance(image := done.messages[0].parts[1], Image)
            assert image.url.startswith("data:")
        modest = asyncio.create_task(images.inlined(asking(url("slow", 99)), [], "modest"))
        await until(lambda: asked["slow"] == OF_HOST_FOR_CLIENT + 1)
        others = [asyncio.create_task(images.inlined(asking(*slow), [], f"client {n}")) for n in range(4)]
        await until(lambda: asked["slow"] == OF_HOST)
        go_on.set()
        await asyncio.gather(greedy, modest, *others)
        assert not any(places._used for places in (images._of_host, images._of_both, images._for_client))


async def test_waiting_for_a_place_counts() -> None:
    async with two_hosts() as (images, url, asked, go_on):
        images._config = images._config.model_copy(update={"timeout": 0.3})
        slow = [url("slow", number) for number in range(20)]
        assert "too long" in await refusal(images, *slow)
        assert asked["slow"] == OF_HOST_FOR_CLIENT  # the others have waited as long, and are never asked for
        go_on.set()
        assert not images._of_host._used


def data_url(content: bytes, media: str = "image/png") -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize("content", [b"<svg/>", b"\xef\xbb\xbf\n <?xml version='1.0'?><svg/>", b"<!DOCTYPE html>" * 9])
@pytest.mark.parametrize("media", ["image/png", "image/webp"])
async def test_svg_is_no_image_whoever_brings_it_and_whatever_it_is_called(content: bytes, media: str) -> None:
    async with (
        host(_told(body=content, content_type=media)) as (port, _),
        fetching(Names(a_example=["127.0.0.2"]), allow=[f"a.example:{port}"]) as images,
    ):
        for url in (data_url(content, media), f"http://a.example:{port}/"):
            assert "is not a PNG, JPEG, GIF or WebP image" in await refusal(images, url)
            history = (Message("user", (Image(url),)), Message("assistant", (Text("ok"),)))
            done = await images.inlined(Request("0" * 32, "m", history), [])
            assert done.messages[0].parts == (Text("[Image left out: this gateway cannot fetch it]"),)


@pytest.mark.parametrize("content", [b"", b"\0\0\0", PNG, b"GIF89a<", b"\xff\xd8\xff<"])
async def test_what_may_be_an_image_is_left_to_the_server(content: bytes) -> None:
    async with fetching() as images:
        request = asking(data_url(content), "data:image/png;base64,no base64", "data:image/png;base64")
        assert await images.inlined(request, []) is request


IMAGE = "https://pictures.example/a.png"
BODIES: dict[str, dict[str, Any]] = {
    "responses": {
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]}],
    },
    "chat_completions": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]}],
    },
    "messages": {
        "max_tokens": 10,
        "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": IMAGE}}]}],
    },
}


@pytest.mark.parametrize("protocol", [each for each in PROTOCOLS if each.name in BODIES], ids=lambda each: each.name)
async def test_every_protocol_refuses_an_image_that_is_not_allowed(protocol: Any) -> None:
    backend = FakeBackend()
    async with running(backend, protocols=PROTOCOLS) as served:
        body = {"model": "only", **BODIES[protocol.name]}
        async with served.post(body, f"/v1/{protocol.path}") as answer:
            told = (await answer.json())["error"]
            assert answer.status == 400
            assert "Images by URL" in told["message"]
            if protocol.name == "responses":
                assert told["code"] == "invalid_value"
                assert told["param"].endswith(".image_url")
    assert backend.requests == []


@pytest.mark.parametrize("entry", ["example.org", ".example.org", "a.example.org:8443", "10.0.0.7:80", "localhost"])
def test_hosts_that_can_be_listed(entry: str) -> None:
    assert ImagesConfig(allow=(entry,)).allow == (entry,)


@pytest.mark.parametrize(
    "entry", ["https://example.org", "example.org/a", "*", "", "a b", "user@a.example", "[::1]", "a:b"]
)
def test_what_is_no_host_stops_the_start(entry: str) -> None:
    with pytest.raises(ValueError, match="without a scheme"):
        ImagesConfig(allow=(entry,))


def test_hosts_can_be_listed_in_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DRAGOMAN_IMAGES__ALLOW", "a.example, .b.example:8443")
    assert load().images.allow == ("a.example", ".b.example:8443")
