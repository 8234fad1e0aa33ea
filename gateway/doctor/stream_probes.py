"""Probes of how an answer comes: piece by piece or all at once, and whether its work ends when the client leaves."""

from __future__ import annotations

import asyncio
import re

from dragoman.backends.chat.encode import encode, final
from dragoman.backends.chat.settings import Settings
from dragoman.gateway.calls.call import Call
from dragoman.gateway.doctor.asking import LIMIT, Asker
from dragoman.gateway.doctor.finding import Finding, Verdict
from dragoman.gateway.doctor.http import Answered, Http
from dragoman.gateway.doctor.probe_stream import ProbeStream
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Request

STREAM, LEAVING = "stream", "client leaves"
ENDS_WITHIN = 1.0
PIECES = 16  # with fewer, nothing can be said
PIECES_OF_A_READ = 8  # a model that is quick puts some into one read, a buffer all of them
LONG_TEXT = 60  # characters that no model writes in one token
ALL_AT_ONCE = "answers come all at once, and a long one is silent until its end"
PIECE = re.compile(rb'"(?:content|reasoning_content|reasoning|arguments)"\s*:\s*"((?:[^"\\]|\\.)+)"')


async def stream(asker: Asker, http: Http, base: str, settings: Settings, model: str | None) -> Finding:
    """Asks without the gateway's own reader, which takes whole answers too. `model` is the name that is sent."""
    asked = asker.request(("user", "Count from 1 to 40, with commas."), max_tokens=160)
    body, _ = encode(asked, settings, asker.refused)
    answer = await http.post(f"{base}/chat/completions", final(body, settings, model))
    if not isinstance(answer, Answered):
        return Finding("weak", STREAM, str(answer))
    if answer.status != 200:
        return Finding("weak", STREAM, f"status {answer.status}: {answer.words}")
    if "json" in answer.headers.get("content-type", "") or answer.body.lstrip().startswith(b"{"):
        return Finding(
            "weak", STREAM, f"does not stream: {ALL_AT_ONCE}", "let the server, or the proxy before it, stream"
        )
    pieces = [len(piece) for piece in PIECE.findall(answer.body)]
    if len(pieces) == 1 and pieces[0] >= LONG_TEXT:
        return Finding("weak", STREAM, f"the whole text is one piece: {ALL_AT_ONCE}", "let the server stream")
    if len(pieces) < PIECES:
        return Finding("ok", STREAM, f"{len(pieces)} pieces, too few to tell whether something buffers them")
    if len(answer.reads) * PIECES_OF_A_READ <= len(pieces):
        advice = "a proxy before the server collects it (nginx: `proxy_buffering off;`), or the server does"
        reads = "at once" if len(answer.reads) == 1 else f"in {len(answer.reads)} reads"
        return Finding("weak", STREAM, f"buffered: {len(pieces)} pieces came {reads}, so {ALL_AT_ONCE}", advice)
    return Finding("ok", STREAM, f"{len(pieces)} pieces in {len(answer.reads)} reads")


async def leaving(asker: Asker) -> Finding:
    """How long the backend goes on working after the client has left in the middle of an answer."""
    request = asker.request(("user", "Count from 1 to 500, with commas."))
    answer, loop = ProbeStream(), asyncio.get_running_loop()
    calls: list[Call] = []
    task = asyncio.create_task(_walk(asker, request, answer, calls))
    begun = asyncio.create_task(answer.begun.wait())
    try:
        await asyncio.wait((task, begun), timeout=LIMIT, return_when="FIRST_COMPLETED")
        if not task.done() and not begun.done():
            return Finding("weak", LEAVING, f"no first token within {LIMIT:g} s")
        left = loop.time()
        calls[0].end(left)
        await asyncio.wait((task,), timeout=4 * ENDS_WITHIN)
        if task.done() and not task.cancelled():
            task.result()  # raises what broke it
    except GatewayError as error:
        return Finding("weak", LEAVING, asker.reason(error))
    finally:
        begun.cancel()
        task.cancel()
    taken = loop.time() - left
    limits = asker.road.backend.traits.unstoppable
    verdict: Verdict = "ok" if taken <= ENDS_WITHIN and not limits else "weak"
    return Finding(verdict, LEAVING, f"let go after {taken * 1000:.0f} ms", limits)


async def _walk(asker: Asker, request: Request, answer: ProbeStream, calls: list[Call]) -> None:
    calls.append(asker.road.call(request, answer))
    await asker.road.walk(calls[0])
