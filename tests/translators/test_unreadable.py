"""Documents and images that cannot be read: what stands in their place, on every protocol alike, and when they are
refused instead."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Image, Message, Note, Text, ToolCall, ToolResult
from dragoman.translators.protocol import Context, Json, Policy, Turn
from dragoman.translators.registry import PROTOCOLS
from dragoman.translators.unreadable import (
    NOT_TAKEN_IMAGE,
    Unreadable,
    _unquoted,
    asked_about,
    with_latest_images,
)
from tests.scripted import Script, text_stream
from tests.serving_gateway import PATHS, Served, served

PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
ZIP = b"PK\x03\x04\x14\x00\x00\x00rest"
DOCUMENT = {"messages": "item:document", "responses": "item:file", "chat_completions": "item:file"}
BY_NAME = {protocol.name: protocol for protocol in PROTOCOLS if protocol.name in DOCUMENT}
every_protocol = pytest.mark.parametrize("protocol", sorted(BY_NAME))


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def document(protocol: str, data: bytes, media: str, name: str | None = None) -> Json:
    """A document as each protocol writes it."""
    if protocol == "messages":
        source = {"type": "base64", "media_type": media, "data": encoded(data)}
        return {"type": "document", "source": source, **({"title": name} if name else {})}
    file = {"file_data": f"data:{media};base64,{encoded(data)}", **({"filename": name} if name else {})}
    return {"type": "input_file", **file} if protocol == "responses" else {"type": "file", "file": file}


def image(protocol: str, media: str, data: str = "AAAA") -> Json:
    url = f"data:{media};base64,{data}"
    match protocol:
        case "messages":
            return {"type": "image", "source": {"type": "base64", "media_type": media, "data": data}}
        case "responses":
            return {"type": "input_image", "image_url": url}
        case _:
            return {"type": "image_url", "image_url": {"url": url}}


def asked(protocol: str, *parts: Json, later: bool = False) -> Json:
    """A prompt with these parts, perhaps as the past of another one."""
    messages: list[Json] = [{"role": "user", "content": [*parts]}]
    if later:
        messages += [{"role": "assistant", "content": "I see."}, {"role": "user", "content": "And now?"}]
    if protocol == "responses":
        return {"model": "m", "input": messages}
    return {"model": "m", "max_tokens": 64, "messages": messages}


def asked_again(protocol: str, *parts: Json) -> Json:
    """What a client sends after a refusal: no answer stands between the two prompts."""
    body = asked(protocol, *parts)
    body["input" if protocol == "responses" else "messages"].append({"role": "user", "content": "And without it?"})
    return body


def returned(protocol: str, *parts: Json) -> Json:
    """The same parts as what a tool gave back."""
    match protocol:
        case "messages":
            use = {"type": "tool_use", "id": "t1", "name": "read", "input": {}}
            result = {"type": "tool_result", "tool_use_id": "t1", "content": [*parts]}
            turns: list[Json] = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
        case "responses":
            turns = [
                {"type": "function_call", "call_id": "t1", "name": "read", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "t1", "output": [*parts]},
            ]
        case _:
            call = {"id": "t1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
            turns = [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "t1", "content": [*parts]},
            ]
    body = asked(protocol)
    body["input" if protocol == "responses" else "messages"] = [{"role": "user", "content": "Read it."}, *turns]
    return body


def parse(protocol: str, body: Json, policy: Policy | None = None) -> Turn:
    return BY_NAME[protocol].parse(body, Context(id="0" * 32, clock=lambda: 0, policy=policy or Policy()))


def shown(turn: Turn) -> str:
    """All text that reaches the model."""
    parts: list[Any] = [part for message in turn.request.messages for part in message.parts]
    parts += [item for part in parts if isinstance(part, ToolResult) for item in part.content]
    return "\n".join(part.text for part in parts if isinstance(part, Text))


# ------------------------------------------------------------------------------------------------------------ documents


@every_protocol
@pytest.mark.parametrize("place", [asked, returned])
@pytest.mark.parametrize(
    ("data", "media", "kind"),
    [
        (PDF, "application/pdf", "PDF document"),
        (PDF, "text/plain", "PDF document"),
        (PDF + b"\xe2\xe3\x00", "Application/PDF; name=a", "PDF document"),
        (b"\xd0\xcf\x11\xe0", "application/pdf", "PDF document"),
        (ZIP, "application/zip", "Document of type application/zip"),
        (b"one\x00two", "application/octet-stream", "Document of type application/octet-stream"),
        (b"\xff\xfe", "text/plain", "Document of type text/plain"),
        (b"\xff\xfe", "no type at all!", "Document of unknown type"),
    ],
)
def test_a_binary_document_has_a_text_in_its_place(
    protocol: str, place: Any, data: bytes, media: str, kind: str
) -> None:
    turn = parse(protocol, place(protocol, document(protocol, data, media, "a\n report")))
    assert f'[{kind} "a report" left out: this gateway cannot read it]' in shown(turn)
    assert encoded(data) not in shown(turn)
    assert [f"{note.kind}:{note.name}" for note in turn.notes] == [DOCUMENT[protocol]]


@every_protocol
@pytest.mark.parametrize("place", [asked, returned])
@pytest.mark.parametrize(
    "media", ["application/xml", "application/x-yaml", "application/javascript", "text/x-python", "", "application/pdf"]
)
def test_what_decodes_as_text_is_text_whatever_its_type_says(protocol: str, place: Any, media: str) -> None:
    turn = parse(protocol, place(protocol, document(protocol, "a: 1\n\tGrüße\f".encode(), media, "a.yaml")))
    assert "a: 1\n\tGrüße\f" in shown(turn)
    assert "a.yaml" in shown(turn)
    assert turn.notes == ()


@every_protocol
def test_a_pdf_without_data_is_no_text(protocol: str) -> None:
    assert "[PDF document left out" in shown(
        parse(protocol, asked(protocol, document(protocol, b"", "application/pdf")))
    )


@every_protocol
def test_an_empty_text_is_a_text(protocol: str) -> None:
    turn = parse(protocol, asked(protocol, document(protocol, b"", "text/plain", "a.txt")))
    assert "a.txt]" in shown(turn)
    assert turn.notes == ()


def test_text_may_hold_control_characters_where_its_type_says_text_and_a_byte_order_mark_is_none_of_it() -> None:
    log = parse("messages", asked("messages", document("messages", b"\xef\xbb\xbf\x1b[1mbold", "text/plain")))
    assert shown(log) == "[Document]\n\x1b[1mbold"
    other = parse("messages", asked("messages", document("messages", b"\x1b[1mbold", "application/x-log")))
    assert "left out" in shown(other)


@pytest.mark.parametrize(
    ("data", "media", "whole"),
    [
        (b"hello world\n" * 10_000, "application/xml", True),
        (b"\0 hello world\n" * 10_000, "text/plain", True),
        (b"hello world\n" * 10_000 + b"\0", "application/xml", False),
        (b"\0" + b"hello world\n" * 10_000, "application/xml", False),
        (b"\n" + PDF + b"a" * 10_000, "text/plain", False),
    ],
)
def test_long_documents_are_read_whole_or_not_at_all(data: bytes, media: str, whole: bool) -> None:
    for written in (encoded(data), base64.encodebytes(data).decode()):
        read = Unreadable(Policy(), [], "document").document_text(written, media, "p")
        assert (read == data.decode()) == whole
        assert isinstance(read, Text) != whole


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ({"type": "url", "url": "https://example.test/a.pdf?signature=1"}, "Document named by URL"),
        ({"type": "file", "file_id": "file_1"}, "Uploaded document"),
        ({"type": "hologram"}, "Document of unknown source"),
        ({"type": "base64", "media_type": "text/plain", "data": "&&&"}, "Document of type text/plain"),
    ],
)
def test_other_sources_of_messages_are_left_out(source: Json, kind: str) -> None:
    block = {"type": "document", "title": "T", "context": "Read page two.", "source": source}
    turn = parse("messages", asked("messages", block))
    assert shown(turn) == f'[{kind} "T" left out: this gateway cannot read it]\nRead page two.'
    assert turn.notes == (Note("item", "document"),)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ({"file_id": "file_1"}, "Uploaded document"),
        ({"file_url": "https://example.test/a.pdf"}, "Document named by URL"),
        ({"file_data": "data:text/plain;base64,&&&"}, "Document of type text/plain"),
        ({"file_data": "data:application/x-thing,%00%ff"}, "Document of type application/x-thing"),
        ({"file_data": "not base64"}, "Document of unknown type"),
        ({"file_data": "data:text/plain,\ud800"}, "Document of type text/plain"),
    ],
)
def test_other_files_of_responses_are_left_out(file: Json, kind: str) -> None:
    turn = parse("responses", returned("responses", {"type": "input_file", **file}))
    assert f"[{kind} left out: this gateway cannot read it]" in shown(turn)
    assert turn.notes == (Note("item", "file"),)


@pytest.mark.parametrize(
    "data", ["data:text/plain,a%20b", "data:;base64,YSBi", "data:application/xml;charset=utf-8;base64,YS\nBi", "YSBi"]
)
def test_files_in_other_spellings_are_read(data: str) -> None:
    part = {"type": "input_file", "file_data": data, "file_id": None}
    assert shown(parse("responses", asked("responses", part))) == "a b"


# --------------------------------------------------------------------------------------------------------------- images


@every_protocol
@pytest.mark.parametrize("place", [asked, returned])
@pytest.mark.parametrize(
    ("media", "data", "kind"),
    [
        ("image/svg+xml", "PHN2Zy8+", "Image of type image/svg+xml"),
        ("image/tiff", "AAAA", "Image of type image/tiff"),
        ("application/octet-stream", "AAAA", "Image of type application/octet-stream"),
        ("", "AAAA", "Image of unknown type"),
        ("image/png", "", "Image without data"),
    ],
)
def test_an_image_that_no_server_takes_has_a_text_in_its_place(
    protocol: str, place: Any, media: str, data: str, kind: str
) -> None:
    turn = parse(protocol, place(protocol, image(protocol, media, data)))
    assert f"[{kind} left out: this gateway cannot read it]" in shown(turn)
    assert turn.notes == (Note("item", "image"),)


@every_protocol
@pytest.mark.parametrize("place", [asked, returned])
@pytest.mark.parametrize(
    ("media", "data", "text"),
    [
        ("application/pdf", "JVBERi0xLjc=", "[PDF document left out: this gateway cannot read it]"),
        ("text/plain", "YSBi", "a b"),
        ("Application/JSON; charset=utf-8", "e30=", "{}"),
    ],
)
def test_a_document_in_the_place_of_an_image_is_read_as_one(
    protocol: str, place: Any, media: str, data: str, text: str
) -> None:
    assert text in shown(parse(protocol, place(protocol, image(protocol, media, data))))


@every_protocol
@pytest.mark.parametrize("media", ["image/jpg", "IMAGE/JPEG", "image/pjpeg", "image/jpeg; quality=1"])
def test_a_jpeg_has_one_name(protocol: str, media: str) -> None:
    (message,) = parse(protocol, asked(protocol, image(protocol, media))).request.messages
    (part,) = message.parts
    assert isinstance(part, Image)
    assert part.url == "data:image/jpeg;base64,AAAA"


PNG = "iVBORw0KGgo="


@every_protocol
@pytest.mark.parametrize(
    ("media", "data"),
    [
        ("image/png", "iVBO\nRw0K\r\nGgo=\n"),
        ("image/png", " iVBORw0KGgo%3D"),
        ("application/octet-stream", PNG),
        ("image/heic", PNG),
        ("", PNG),
    ],
)
def test_an_image_is_in_one_line_under_its_own_type(protocol: str, media: str, data: str) -> None:
    (message,) = parse(protocol, asked(protocol, image(protocol, media, data))).request.messages
    (part,) = message.parts
    assert isinstance(part, Image)
    assert part.url == f"data:image/png;base64,{PNG}"


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["%", "%4", "%41", "%e4", "%3D", "=", "=41", "a", "F", "\n", "\r", "ä", "."])).map("".join)
)
def test_a_data_url_is_unquoted_if_all_of_it_is_quoted_well(payload: str) -> None:
    whole = not re.search("%(?![0-9a-fA-F]{2})", payload)
    assert _unquoted(payload) == (unquote_to_bytes(payload) if whole else payload.encode())


@pytest.mark.parametrize("payload", [",%41", ",%", ",%4", ",%%41", ";base64,A ", ";base64,%41"])
def test_an_odd_spelling_of_a_large_data_url_costs_little(payload: str) -> None:
    head, comma, odd = payload.partition(",")
    url = f"data:image/png{head}{comma}{odd * 1_000_000}"
    before = time.process_time()
    parse("responses", asked("responses", {"type": "input_image", "image_url": url}))
    assert time.process_time() - before < 0.5


@pytest.mark.parametrize("url", ["", "https://", "file:///etc/passwd", "photo.png", "data:image/svg+xml;utf8,<svg/>"])
def test_what_is_no_address_of_an_image_is_left_out(url: str) -> None:
    turn = parse("responses", asked("responses", {"type": "input_image", "image_url": url}))
    assert "left out" in shown(turn)
    assert url not in shown(turn) or not url
    assert turn.notes == (Note("item", "image"),)


def test_an_image_that_is_not_base64_becomes_that() -> None:
    (message,) = parse(
        "chat_completions",
        asked("chat_completions", {"type": "image_url", "image_url": "data:image/png,%89PNG"}),
    ).request.messages
    assert message.parts == (Image(f"data:image/png;base64,{encoded(bytes([0x89]) + b'PNG')}"),)


@pytest.mark.parametrize("source", [{"type": "file", "file_id": "f"}, {"type": "hologram"}])
def test_images_of_other_sources_are_left_out(source: Json) -> None:
    turn = parse("messages", returned("messages", {"type": "image", "source": source}))
    assert "left out" in shown(turn)
    assert turn.notes == (Note("item", "image"),)


def test_an_uploaded_image_of_responses_is_left_out() -> None:
    turn = parse("responses", returned("responses", {"type": "input_image", "file_id": "file_1"}))
    assert "[Uploaded image left out: this gateway cannot read it]" in shown(turn)


@every_protocol
def test_an_empty_word_for_the_detail_is_none(protocol: str) -> None:
    part = image(protocol, "image/png")
    owner: Json = part["image_url"] if protocol == "chat_completions" else part
    owner["detail"] = ""
    (message,) = parse(protocol, asked(protocol, part)).request.messages
    assert message.parts == (Image("data:image/png;base64,AAAA"),)


# -------------------------------------------------------------------------------------------------------------- refused


@every_protocol
@pytest.mark.parametrize("place", [asked, returned])
@pytest.mark.parametrize(
    ("make", "content", "words"),
    [
        (lambda p: document(p, PDF, "application/pdf"), "document", "PDF documents cannot be read by this gateway"),
        (lambda p: document(p, ZIP, "application/zip"), "document", "Documents of type application/zip cannot be read"),
        (lambda p: image(p, "image/svg+xml"), "image", "Images of type image/svg+xml cannot be read by this gateway"),
    ],
)
def test_a_strict_policy_refuses_with_the_place(protocol: str, place: Any, make: Any, content: str, words: str) -> None:
    with pytest.raises(GatewayError, match=re.escape(words)) as caught:
        parse(protocol, place(protocol, make(protocol)), Policy(unreadable="reject"))
    error = caught.value
    assert (error.kind, error.content) == (Kind.UNSUPPORTED, content)
    assert error.param is not None
    message = BY_NAME[protocol].error(error, "req_1").body["error"]["message"]
    if protocol == "messages":
        token = f"{error.param}: capability_rejected: {content}_block ({words}"
        assert message.startswith(token)
        assert message.endswith(")")
    else:
        assert "capability_rejected" not in message


# --------------------------------------------------------------------------------------------------------- any content


def test_the_answer_is_about_what_the_user_said_last() -> None:
    one, two, past = Image("data:1"), Image("data:2"), Image("data:0", past=True)
    said = [
        Message("user", (one,)),
        Message("user", (past, Text("look"), two)),
        Message("system", (Text("Be brief."),)),
    ]
    assert asked_about(said) == (two,)
    assert asked_about(said[:1]) == (one,)
    assert asked_about([]) == ()
    assert asked_about([*said, Message("assistant", (ToolCall("c", "n", "{}"),))]) == ()
    assert asked_about([*said, Message("tool", (ToolResult("c", (one,)),))]) == ()


@given(st.binary(max_size=60), st.sampled_from(["", "text/plain", "application/pdf", "image/x", ";", "a/b;c"]))
def test_any_data_is_read_or_left_out(data: bytes, media: str) -> None:
    notes: list[Note] = []
    unreadable = Unreadable(Policy(), notes, "document")
    for read in (
        unreadable.document_text(encoded(data), media, "p"),
        unreadable.data_url_text(f"data:{media};base64,{encoded(data)}", "p"),
        unreadable.data_url_text(f"data:{media},{data.hex('%', 1)}", "p"),
    ):
        assert isinstance(read, str | Text)
    assert all(note == Note("item", "document") for note in notes)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_words_are_read_or_left_out(first: str, second: str) -> None:
    unreadable = Unreadable(Policy(), [], "document")
    assert unreadable.data_url_text(first + second, "p", second) is not None
    assert isinstance(unreadable.image_at(f"data:{first},{second}", "p", "p"), Image | Text)
    assert isinstance(unreadable.image(first, second, "p", "p"), Image | Text)


# ---------------------------------------------------------------------------------------------------- over the gateway


@contextlib.asynccontextmanager
async def answering(sees: bool = True, **settings: Any) -> AsyncIterator[Served]:
    """The gateway over a server that says "ok", with or without eyes."""
    async with served(backend={"preset": "vllm", "settings": {"images": sees}}, **settings) as it:
        it.server.default = Script(text_stream("ok"))
        yield it


async def post(it: Served, path: str, body: Json) -> tuple[int, str, Json]:
    async with it.session.post(it.url + path, json=body) as reply:
        return reply.status, reply.headers.get("x-dragoman-ignored", ""), await reply.json()


@every_protocol
async def test_images_without_eyes_end_no_session(protocol: str) -> None:
    """In the result of a tool and in an earlier turn a text stands in their place; what is asked about is refused."""
    png = image(protocol, "image/png", "iVBORw0KGgo=")
    async with answering(sees=False) as it:
        for body in (returned(protocol, png), asked(protocol, png, later=True), asked_again(protocol, png)):
            status, ignored, _ = await post(it, PATHS[protocol], body)
            assert (status, "item:image" in ignored) == (200, True)
            sent = json.dumps(it.server.chats[-1].body)
            assert "[Image left out: this model does not see images]" in sent
            assert "iVBOR" not in sent
        status, _, answer = await post(it, PATHS[protocol], asked(protocol, png))
        assert status == 400
        assert "This model does not see images" in answer["error"]["message"]
        assert ("capability_rejected: image_block (" in answer["error"]["message"]) == (protocol == "messages")


@every_protocol
async def test_by_policy_images_without_eyes_are_refused_everywhere(protocol: str) -> None:
    png = image(protocol, "image/png", "iVBORw0KGgo=")
    async with answering(sees=False, policy={"unreadable": "reject"}) as it:
        for body in (returned(protocol, png), asked(protocol, png, later=True), asked(protocol, png)):
            status, _, answer = await post(it, PATHS[protocol], body)
            assert status == 400
            assert "This model does not see images" in answer["error"]["message"]
        assert not it.server.chats


@every_protocol
@pytest.mark.parametrize("reject", [False, True])
async def test_images_that_the_server_refuses_are_left_out_or_refused_by_the_same_policy(
    protocol: str, reject: bool
) -> None:
    png = image(protocol, "image/png", "iVBORw0KGgo=")
    blind = Script.json({"error": {"message": "m is not a multimodal model"}}, 400)
    async with answering(policy={"unreadable": "reject" if reject else "note"}) as it:
        it.server.default = lambda asked: blind if "iVBOR" in str(asked) else Script(text_stream("ok"))
        status, ignored, answer = await post(it, PATHS[protocol], returned(protocol, png))
        assert len(it.server.chats) == (1 if reject else 2)
    if reject:
        assert status == 400
        assert "This model does not see images" in answer["error"]["message"]
    else:
        assert (status, ignored) == (200, "item:image")


@every_protocol
async def test_an_image_by_address_ends_no_session(protocol: str) -> None:
    """None may be fetched by default: refused where it is asked about, a text in its place in the history."""
    address = "https://example.test/a.png?signature=secret"
    png: Json = {"type": "image_url", "image_url": {"url": address}}
    if protocol == "messages":
        png = {"type": "image", "source": {"type": "url", "url": address}}
    elif protocol == "responses":
        png = {"type": "input_image", "image_url": address}
    async with answering() as it:
        for body in (returned(protocol, png), asked(protocol, png, later=True), asked_again(protocol, png)):
            status, ignored, _ = await post(it, PATHS[protocol], body)
            assert (status, ignored) == (200, "item:image")
            sent = json.dumps(it.server.chats[-1].body)
            assert "[Image left out: this gateway cannot fetch it]" in sent
            assert "example.test" not in sent
        status, _, answer = await post(it, PATHS[protocol], asked(protocol, png))
        assert status == 400
        assert "Images by URL are not allowed here" in answer["error"]["message"]
    async with answering(policy={"unreadable": "reject"}) as it:
        assert (await post(it, PATHS[protocol], returned(protocol, png)))[0] == 400


@pytest.mark.parametrize("reject", [False, True])
async def test_a_count_takes_and_refuses_what_an_answer_does(reject: bool) -> None:
    policy = {"unreadable": "reject" if reject else "note"}
    bodies = [
        asked("messages", document("messages", PDF, "application/pdf")),
        returned("messages", image("messages", "image/svg+xml")),
        returned("messages", image("messages", "image/png")),
        asked("messages", image("messages", "image/png")),
    ]
    async with answering(sees=False, policy=policy) as it:
        for body in bodies:
            answered = await post(it, "/v1/messages", body)
            counted = await post(it, "/v1/messages/count_tokens", body)
            assert answered[0] == counted[0]
            if answered[0] == 400:
                assert answered[2]["error"] == counted[2]["error"]
                assert "capability_rejected: " in counted[2]["error"]["message"]


async def test_too_many_images_are_refused_in_words_that_make_claude_code_leave_them_out() -> None:
    png = image("messages", "image/png", "iVBORw0KGgo=")
    async with answering(images={"most": 1}) as it:
        status, _, answer = await post(it, "/v1/messages", returned("messages", png, png))
    assert status == 400
    assert "capability_rejected: media_budget (More than 1 images in one request)" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("most", "asking", "left"),
    [
        (2, False, "..cd"),
        (4, False, None),
        (0, False, "...."),
        (2, True, "...de"),
        (1, True, "....e"),
        (0, True, "....e"),
        (5, True, None),
    ],
)
def test_the_latest_images_and_those_that_the_answer_is_about_are_kept(
    most: int, asking: bool, left: str | None
) -> None:
    messages = [
        Message("user", (Text("Look."), Image("a"))),
        Message("assistant", (ToolCall("1", "see", "{}"), ToolCall("2", "see", "{}"))),
        Message("tool", (ToolResult("1", (Text("These:"), Image("b"), Image("c"))),)),
        Message("tool", (ToolResult("2", (Image("d"),), is_error=True),)),
        *([Message("user", (Image("e"), Text("And this?")))] if asking else []),
    ]
    kept = with_latest_images(messages, most)
    if left is None:
        assert kept is None
        return
    assert kept is not None
    found = [part for message in kept for part in message.parts]
    flat = [item for part in found for item in (part.content if isinstance(part, ToolResult) else (part,))]
    images = [part for part in flat if isinstance(part, Image) or part == Text(NOT_TAKEN_IMAGE)]
    assert "".join(part.url if isinstance(part, Image) else "." for part in images) == left


def test_more_images_asked_about_than_are_taken_are_not_left_out() -> None:
    assert with_latest_images([Message("user", (Image("a"), Image("b"), Image("c")))], 2) is None


@pytest.mark.parametrize("head", ["data:image/png;base64,", "data:application/octet-stream;base64,", ""])
def test_an_image_that_comes_as_a_file_is_an_image(head: str) -> None:
    """LlamaIndex for JavaScript sends images so."""
    data = encoded(b"\x89PNG\r\n\x1a\nrest")
    file = {"filename": "image-1.png", "file_data": head + data}
    shown = Image(f"data:image/png;base64,{data}")
    for protocol, field, part in (
        ("chat_completions", "messages", {"type": "file", "file": file}),
        ("responses", "input", {"type": "input_file", **file}),
    ):
        body = {"model": "m", field: [{"role": "user", "content": [part]}]}
        turn = BY_NAME[protocol].parse(body, Context("r", lambda: 0))
        assert turn.request.messages == (Message("user", (shown,)),)
        assert turn.notes == ()
