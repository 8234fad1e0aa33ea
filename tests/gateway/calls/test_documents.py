"""PDFs in requests: their text in their place on every protocol, read once, in child processes that can be killed."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dragoman.backends.child_process import Children, NoReply
from dragoman.gateway.calls import document_worker
from dragoman.gateway.calls.documents import ENTRY, Documents, Extracts, can_read
from dragoman.gateway.config import DocumentsConfig
from dragoman.translators.documents import REST, Extract
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Document, Message, Note, Text, ToolResult
from dragoman.translators.protocol import Json, Policy
from tests import pdfs
from tests.child_questions import noted_questions
from tests.recording import ask
from tests.serving_gateway import PATHS, Served
from tests.translators.test_unreadable import (
    DOCUMENT,
    PDF,
    answering,
    asked,
    document,
    encoded,
    every_protocol,
    parse,
    post,
    returned,
    shown,
)
from tests.waiting import until

UNREAD = "[PDF document left out: this gateway cannot read it]"
ANNUAL = pdfs.compressed("Revenue grew (by 4 %).\nGrüße", "Costs fell.")
SHOWN = "2 pages]\n[Page 1]\nRevenue grew (by 4 %).\nGrüße\n[Page 2]\nCosts fell."

Make = Callable[..., Documents]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Documents] = []

    def documents(reject: bool = False, extracts: Extracts | None = None, **settings: Any) -> Documents:
        made.append(Documents(DocumentsConfig(**{"seconds": 120, **settings}), reject, extracts))
        return made[-1]

    yield documents
    for each in made:
        await each.close()


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What went to child processes of this file's subject."""
    return noted_questions(monkeypatch)


def of(data: bytes, name: str | None = None) -> Document:
    return Document(UNREAD, encoded(data), name)


async def read(documents: Documents, *held: Document, client: str = "") -> tuple[list[str], list[Note]]:
    notes: list[Note] = []
    request = ask(messages=(Message("user", held),))
    (message,) = (await documents.inlined(request, notes, client)).messages
    assert all(type(part) is Text for part in message.parts)
    return [part.text for part in message.parts if isinstance(part, Text)], notes


# -------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (pdfs.pdf("1 \\ (2)", "", "three"), "3 pages]\n[Page 1]\n1 \\ (2)\n[Page 2 has no text]\n[Page 3]\nthree"),
        (ANNUAL, SHOWN),
        (pdfs.encrypted(b"", "Open to all."), "1 page]\n[Page 1]\nOpen to all."),
        (b"\n\n" + pdfs.pdf("late"), "1 page]\n[Page 1]\nlate"),
        (pdfs.pdf("one").replace(b"startxref\n", b"startxref\n9"), "1 page]\n[Page 1]\none"),
        (pdfs.of_contents(pdfs.stream(pdfs.drawn("good")), b"<</Length 9/Filter/Nothing>>stream\nx\nendstream"),
         "2 pages]\n[Page 1]\ngood\n[Page 2 cannot be read]"),
    ],
)  # fmt: skip
async def test_the_text_of_a_document_takes_its_place(make: Make, data: bytes, text: str) -> None:
    texts, notes = await read(make(), of(data, "a.pdf"))
    assert texts == [f'[PDF document "a.pdf", {text}']
    assert notes == ([Note("repair", "document")] if "cannot be read" in text else [])


@pytest.mark.parametrize(
    "data",
    [
        pdfs.scanned(),
        pdfs.encrypted(b"secret", "Hidden."),
        pdfs.cyclic(),
        pdfs.bomb(),
        pdfs.pdf(),
        PDF,
        pdfs.pdf("one")[:300],
        b"%PDF-1.7\n" + bytes(range(256)) * 100,
        b"no such thing",
    ],
    ids=["scanned", "encrypted", "cyclic", "bomb", "no pages", "no tree", "half", "noise", "none"],
)
async def test_what_cannot_be_read_keeps_its_note(make: Make, data: bytes) -> None:
    texts, notes = await read(make(), of(data))
    assert (texts, notes) == ([UNREAD], [Note("item", "document")])


async def test_base64_that_is_none_keeps_its_note(make: Make) -> None:
    assert (await read(make(), Document(UNREAD, "JVBERi0=é€\ud800")))[0] == [UNREAD]


async def test_pages_and_characters_are_bounded(make: Make) -> None:
    long = pdfs.pdf(*[f"page {number}" for number in range(10_000)])
    texts, notes = await read(make(pages=2), of(long))
    assert texts == [f"[PDF document, pages 1 to 2 of 10000]\n[Page 1]\npage 0\n[Page 2]\npage 1\n{REST}"]
    assert notes == [Note("repair", "document")]
    (text,), notes = await read(make(characters=100), of(pdfs.compressed("x" * 1000, "y")))
    assert text == f"[PDF document, page 1 of 2]\n[Page 1]\n{'x' * 100}\n{REST}"
    assert notes == [Note("repair", "document")]


async def test_all_documents_of_a_request_share_its_characters(make: Make) -> None:
    held = [of(pdfs.pdf("x" * 60)), of(pdfs.pdf("y" * 60)), of(pdfs.pdf("z" * 60))]
    texts, notes = await read(make(characters=120), *held)
    assert [text.count(letter) for text, letter in zip(texts, "xyz", strict=True)] == [60, 28, 0]
    assert texts[2] == UNREAD
    assert notes == [Note("repair", "document"), Note("item", "document")]
    assert (await read(make(characters=120), *held[:2]))[0] == texts[:2]


async def test_a_document_that_is_too_large_is_not_even_asked_about(make: Make, questions: list[bytes]) -> None:
    texts, _ = await read(make(bytes=1024), of(pdfs.pdf("x" * 2000)))
    assert texts == [UNREAD]
    assert not questions


async def test_a_document_as_large_as_is_allowed_is_read(make: Make) -> None:
    picture = pdfs.stream(b"\0" * 31_000_000)
    (text,), _ = await read(make(), of(pdfs.of_contents(pdfs.stream(pdfs.drawn("small")), more=(picture,))))
    assert text == "[PDF document, 1 page]\n[Page 1]\nsmall"


def test_texts_hold_no_control_characters_and_no_half_pairs() -> None:
    class Page:
        def extract_text(self) -> str:
            return "\ud83d\ude00 \ud800\x00a\tb  \r\nc\x0c\n"

    page: Any = Page()
    assert document_worker._text(page) == "\U0001f600 �a\tb\nc"


# ------------------------------------------------------------------------------------------------------ child processes


async def test_a_slow_document_ends_its_child_and_is_not_tried_again(make: Make, questions: list[bytes]) -> None:
    documents = make(seconds=1.0)
    for _ in range(2):
        texts, notes = await read(documents, of(pdfs.slow()))
        assert (texts, notes) == ([UNREAD], [Note("item", "document")])
    assert len(questions) == 1
    assert not documents._children._running
    documents = make()
    assert (await read(documents, of(ANNUAL)))[0] == [f"[PDF document, {SHOWN}"]
    assert len(documents._children._running) == 1


async def test_one_that_had_little_time_is_tried_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    async def late(self: Children, question: bytes, within: float) -> bytes:
        asked.append(within)
        raise NoReply("too slow", late=len(asked) > 1)

    monkeypatch.setattr(Children, "ask", late)
    documents = make()
    for _ in range(3):
        assert (await read(documents, of(ANNUAL)))[0] == [UNREAD]
    assert len(asked) == 2


async def test_no_client_keeps_another_waiting(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    free, running = asyncio.Event(), 0

    async def held(self: Children, question: bytes, within: float) -> bytes:
        nonlocal running
        running += 1
        if base64.b64decode(question.partition(b"\n")[2]).startswith(b"slow"):
            await free.wait()
        running -= 1
        return b'{"pages": ["read"], "total": 1, "cut": false}'

    monkeypatch.setattr(Children, "ask", held)
    documents = make()
    slow = [asyncio.create_task(read(documents, of(b"slow %d" % each), client="a")) for each in range(5)]
    await asyncio.sleep(0.01)
    assert running == 1
    assert (await read(documents, of(b"quick"), client="b"))[1] == []
    free.set()
    assert all(not notes for _, notes in await asyncio.gather(*slow))


async def test_a_client_that_leaves_ends_its_child(make: Make) -> None:
    documents = make()
    await read(documents, of(ANNUAL))
    (child,) = documents._children._running
    task = asyncio.create_task(read(documents, of(pdfs.slow())))
    await until(lambda: not documents._children._idle)
    task.cancel()
    await asyncio.wait((task,))
    assert child not in documents._children._running
    assert (await read(documents, of(pdfs.pdf("next"))))[0] == ["[PDF document, 1 page]\n[Page 1]\nnext"]


# ----------------------------------------------------------------------------------------------------------- the memory


async def test_a_document_is_read_once_for_each_client(make: Make, questions: list[bytes]) -> None:
    documents = make()
    for client in ("a", "a", "b", "b"):
        await read(documents, of(ANNUAL), of(pdfs.scanned()), of(ANNUAL), client=client)
    assert len(questions) == 4


async def test_requests_at_the_same_time_read_a_document_once(make: Make, questions: list[bytes]) -> None:
    documents = make()
    found = await asyncio.gather(*(read(documents, of(ANNUAL), client="a") for _ in range(4)))
    assert len({texts[0] for texts, _ in found}) == 1
    assert len(questions) == 1


def test_what_was_read_is_remembered_in_bounds() -> None:
    extracts = Extracts(3 * (ENTRY + 10))
    keys = [("", bytes([number])) for number in range(4)]
    for key in keys[:3]:
        extracts.put(key, Extract(("x" * 10,), 1))
    assert extracts.get(keys[0]) is not None
    extracts.put(keys[3], None)
    assert [key in extracts for key in keys] == [True, False, True, True]
    assert extracts.size == 3 * ENTRY + 20
    extracts.put(("", b"large"), Extract(("x" * 10_000,), 1))
    assert extracts.size == 0


# ----------------------------------------------------------------------------------------------------- over the gateway


def messages_of(it: Served) -> list[Json]:
    """As the server was sent them last."""
    body = it.server.chats[-1].body
    assert body is not None
    messages: list[Json] = body["messages"]
    return messages


def continued(protocol: str, body: Json) -> Json:
    more = [{"role": "assistant", "content": "I see."}, {"role": "user", "content": "And now?"}]
    key = "input" if protocol == "responses" else "messages"
    return {**body, key: [*body[key], *more]}


@every_protocol
@pytest.mark.parametrize("place", [asked, returned])
async def test_a_document_is_text_in_this_turn_and_the_next(protocol: str, place: Any, questions: list[bytes]) -> None:
    body = place(protocol, document(protocol, ANNUAL, "application/pdf", "annual.pdf"))
    async with answering() as it:
        sent = []
        for each in (body, continued(protocol, body)):
            assert (await post(it, PATHS[protocol], each))[:2] == (200, "")
            sent.append(messages_of(it))
    assert sent[0][-1]["content"] == f'[PDF document "annual.pdf", {SHOWN}'
    assert sent[1][: len(sent[0])] == sent[0]
    assert len(questions) == 1


@every_protocol
async def test_documents_stand_between_the_other_parts(protocol: str) -> None:
    texts = [
        {"type": "input_text" if protocol == "responses" else "text", "text": text} for text in ("Read", "and say")
    ]
    parts = [texts[0], document(protocol, ANNUAL, "application/pdf"), texts[1]]
    async with answering() as it:
        assert (await post(it, PATHS[protocol], asked(protocol, *parts)))[0] == 200
        (message,) = messages_of(it)
    assert message["content"] == f"Read\n[PDF document, {SHOWN}\nand say"


@every_protocol
async def test_pages_that_are_left_out_are_noted(protocol: str) -> None:
    async with answering(documents={"pages": 1}) as it:
        body = asked(protocol, document(protocol, ANNUAL, "application/pdf"))
        _, ignored, _ = await post(it, PATHS[protocol], body)
    assert ignored == DOCUMENT[protocol].replace("item:", "repair:")


@every_protocol
@pytest.mark.parametrize("place", [asked, returned])
@pytest.mark.parametrize("data", [pdfs.scanned(), pdfs.encrypted(b"secret", "x")], ids=["scanned", "encrypted"])
async def test_an_unreadable_document_is_what_it_was_without_the_reader(
    protocol: str, place: Any, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = place(protocol, document(protocol, data, "application/pdf", "a.pdf"))
    answers = []
    for reads in (True, False):
        if not reads:
            monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        async with answering() as it:
            status, ignored, _ = await post(it, PATHS[protocol], body)
            answers.append((status, ignored, json.dumps(it.server.chats[-1].body)))
            assert (it.gateway.handler.documents is not None) == reads
    assert answers[0] == answers[1]
    assert answers[0][:2] == (200, DOCUMENT[protocol])


@every_protocol
async def test_without_the_extra_every_document_has_its_note(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    async with answering() as it:
        body = asked(protocol, document(protocol, ANNUAL, "application/pdf", "a.pdf"))
        assert (await post(it, PATHS[protocol], body))[:2] == (200, DOCUMENT[protocol])
        (message,) = messages_of(it)
    assert message["content"] == '[PDF document "a.pdf" left out: this gateway cannot read it]'


def test_no_pages_are_no_reader() -> None:
    assert can_read(DocumentsConfig())
    assert not can_read(DocumentsConfig(pages=0))


@every_protocol
@pytest.mark.parametrize("place", [asked, returned])
async def test_a_strict_policy_refuses_only_what_cannot_be_read(protocol: str, place: Any) -> None:
    async with answering(policy={"unreadable": "reject"}) as it:
        good = place(protocol, document(protocol, ANNUAL, "application/pdf"))
        assert (await post(it, PATHS[protocol], good))[0] == 200
        bad = place(protocol, document(protocol, pdfs.scanned(), "application/pdf"))
        status, _, answer = await post(it, PATHS[protocol], bad)
    assert status == 400
    with pytest.raises(GatewayError) as caught:
        parse(protocol, bad, Policy(unreadable="reject"))
    assert caught.value.kind is Kind.UNSUPPORTED
    assert caught.value.message.rstrip(".") in answer["error"]["message"]
    if protocol == "messages":
        assert f"{caught.value.param}: capability_rejected: document_block" in answer["error"]["message"]
    else:
        assert answer["error"]["param"] == caught.value.param


async def test_a_count_reads_what_the_answer_reads(questions: list[bytes]) -> None:
    body = asked("messages", document("messages", pdfs.compressed("word " * 2000), "application/pdf"))
    async with answering() as it:
        _, _, counted = await post(it, "/v1/messages/count_tokens", body)
        await post(it, "/v1/messages", body)
    assert counted["input_tokens"] > 1000
    assert len(questions) == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda data: encoded(data),
        lambda data: base64.encodebytes(data).decode(),
        lambda data: f"data:application/pdf;name=a;base64,{encoded(data)}",
        lambda data: f"data:,%{data.hex('%')}",
    ],
)
def test_every_spelling_of_a_pdf_is_a_document(write: Callable[[bytes], str]) -> None:
    part = {"type": "input_file", "filename": "a.pdf", "file_data": write(ANNUAL)}
    turn = parse("responses", asked("responses", part), Policy(documents=True))
    (found,) = turn.request.messages[0].parts
    assert isinstance(found, Document)
    assert base64.b64decode(found.data) == ANNUAL
    assert turn.notes == ()


def test_a_result_without_its_call_keeps_its_document() -> None:
    body = asked("responses")
    part = document("responses", ANNUAL, "application/pdf")
    body["input"] = [{"type": "function_call_output", "call_id": "gone", "output": [part]}]
    turn = parse("responses", body, Policy(documents=True))
    (message,) = turn.request.messages
    assert not any(isinstance(part, ToolResult) for part in message.parts)
    assert any(isinstance(part, Document) for part in message.parts)


async def test_the_context_of_a_document_stands_with_it() -> None:
    block = {**document("messages", ANNUAL, "application/pdf", "T"), "context": "Read page two."}
    other = {**document("messages", pdfs.scanned(), "application/pdf", "T"), "context": "Read page two."}
    async with answering() as it:
        await post(it, "/v1/messages", asked("messages", block, other))
        (message,) = messages_of(it)
    assert message["content"].startswith('[PDF document "T", 2 pages]\nRead page two.\n[Page 1]')
    assert message["content"].endswith('[PDF document "T" left out: this gateway cannot read it]\nRead page two.')
    assert shown(parse("messages", asked("messages", other))) in message["content"]
