"""PDFs in a request: their text is read here and put into their place, since no model server reads them.

They are read in child processes that can be killed, one after the other for each client and within a time for each
request, so that a slow document costs those who sent it and nobody else. Pages and characters are bounded; what is
beyond the bounds is left out with a note. What was read is remembered by its content, for the client who sent it, since
a document comes again with every later turn; so is that one cannot be read. A document that cannot be read is replaced
by the text that stands for it, or refused, as the operator decides (`translators.unreadable`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from dragoman.backends.child_process import Children, NoReply
from dragoman.gateway.calls.images import Places
from dragoman.gateway.config import DocumentsConfig
from dragoman.gateway.telemetry.logs import log
from dragoman.translators.documents import Extract, shown
from dragoman.translators.ir import Document, Message, Note, Request, Text, ToolResult
from dragoman.translators.unreadable import PDF_DOCUMENT, unread

AT_ONCE = 2  # documents that are read at the same time, by one process each
MEMORY = 512 * 1024 * 1024  # bytes of address space of such a process
REMEMBERED = 32 * 1024 * 1024  # characters
ENTRY = 200  # characters that one more document counts beside its text
BLOCK = 4 * 1024 * 1024  # characters that are hashed before others have their turn
_WORKER = "dragoman.gateway.calls.document_worker:answer"

Key = tuple[str, bytes]


def can_read(config: DocumentsConfig) -> bool:
    """Whether PDFs are to be read, and the extra `documents` is installed."""
    return config.pages > 0 and importlib.util.find_spec("pypdf") is not None


class Extracts:
    """What was read, None where nothing could be. The ones that nobody asked for longest are forgotten first."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._held: OrderedDict[Key, Extract | None] = OrderedDict()
        self.size = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    def get(self, key: Key) -> Extract | None:
        self._held.move_to_end(key)
        return self._held[key]

    def put(self, key: Key, extract: Extract | None) -> None:
        self._held[key] = extract
        self.size += _size(extract)
        while self.size > self._most:
            _, oldest = self._held.popitem(last=False)
            self.size -= _size(oldest)


class Documents:
    """With `reject`, a document that cannot be read is refused. `close` ends the child processes."""

    def __init__(self, config: DocumentsConfig, reject: bool = False, extracts: Extracts | None = None) -> None:
        self._config = config
        self._reject = reject
        self._extracts = extracts or Extracts()
        most_reply = 16 * (config.characters + config.pages) + 1024  # twelve bytes are the most for a character in JSON
        self._children = Children(_WORKER, most=AT_ONCE, memory=MEMORY, max_reply=most_reply)
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._for_client = Places(1)

    async def close(self) -> None:
        await self._children.close()

    async def inlined(self, request: Request, notes: list[Note], client: str = "") -> Request:
        """The request with the text of every document in it; `notes` grows with what is left out."""
        texts: list[Text] = []
        left = self._config.characters
        deadline = asyncio.get_running_loop().time() + self._config.seconds
        for document in _documents(request.messages):
            await asyncio.sleep(0)  # there may be very many
            extract = await self._read(document, client, deadline) if left > 0 else None
            if extract is None:
                if self._reject:
                    raise unread("document", PDF_DOCUMENT, document.path)
                notes.append(Note("item", document.kind))
                texts.append(Text(document.text))
                continue
            reading = shown(document, extract, left)
            left -= len(reading.text.text)
            texts.append(reading.text)
            if not reading.whole:
                notes.append(Note("repair", document.kind))
        if not texts:
            return request
        found = iter(texts)
        return replace(request, messages=tuple(_with(message, found) for message in request.messages))

    async def _read(self, document: Document, client: str, deadline: float) -> Extract | None:
        if len(document.data) * 3 // 4 > self._config.bytes:
            return None
        key = client, await _digest(document.data)
        if key in self._extracts:
            return self._extracts.get(key)
        async with contextlib.AsyncExitStack() as turn:
            try:
                async with asyncio.timeout_at(deadline):
                    await turn.enter_async_context(self._for_client.one(client))
                    await turn.enter_async_context(self._at_once)
            except TimeoutError:
                return None
            if key not in self._extracts:  # another request of this client may have held the same
                left = deadline - asyncio.get_running_loop().time()
                return await self._asked(document, key, left) if left > 0 else None
            return self._extracts.get(key)

    async def _asked(self, document: Document, key: Key, seconds: float) -> Extract | None:
        limits = {"pages": self._config.pages, "characters": self._config.characters}
        question = json.dumps(limits).encode() + b"\n" + document.data.encode("ascii", "replace")
        try:
            reply = json.loads(await self._children.ask(question, seconds))
        except NoReply as error:
            log.warning("a PDF could not be read: %s", error)
            if error.late and seconds > self._config.seconds / 2:  # with the time of a turn for itself, it may be read
                self._extracts.put(key, None)
            return None
        extract = None
        if "fault" not in reply:
            extract = Extract(tuple(reply["pages"]), reply["total"], reply["cut"])
        self._extracts.put(key, extract)
        return extract


def _size(extract: Extract | None) -> int:
    return ENTRY + (extract.size if extract is not None else 0)


async def _digest(data: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(data), BLOCK):
        if start:
            await asyncio.sleep(0)
        digest.update(data[start : start + BLOCK].encode("ascii", "replace"))
    return digest.digest()


def _documents(messages: Iterable[Message]) -> Iterator[Document]:
    for message in messages:
        for part in message.parts:
            if type(part) is Document:
                yield part
            elif type(part) is ToolResult:
                yield from (item for item in part.content if type(item) is Document)


def _with(message: Message, found: Iterator[Text]) -> Message:
    """`found` are the texts of the documents, in their order."""

    def put(part: Any) -> Any:
        if type(part) is Document:
            return next(found)
        if type(part) is ToolResult:
            return replace(part, content=tuple(put(item) for item in part.content))
        return part

    return replace(message, parts=tuple(put(part) for part in message.parts))
