"""Whether a chat server answers at the configured address, and if not, at which one.

Tried are the mistakes of people: `/v1` is missing or there is too much of a path, http in place of https or the other
way round, a redirect. What is found at another address is a change of `url`. A missing or refused key, a certificate
that nobody trusts, and a server that is Triton's own end here, each with what would help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dragoman.backends.chat.probe import entries_of, root_of
from dragoman.backends.unreached import Trouble, Unreached
from dragoman.gateway.config import BackendConfig
from dragoman.gateway.doctor.finding import Finding, Key
from dragoman.gateway.doctor.http import Answered, Http
from dragoman.gateway.keys.secrets import BACKEND_API_KEY

PROBE = "address"
PLACES = ("/v1", "/api/v1", "/openai/v1", "/engines/v1")  # where chat servers and their proxies have their endpoints
HTTPS_WANTED = ("HTTPS port", "HTTPS server", "TLS")


@dataclass(frozen=True, slots=True)
class Located:
    """`listing` is the parsed list of models, None where the server has none. Without `base`, no server was found."""

    finding: Finding
    base: str | None = None
    listing: Any = None


def base_of(url: str) -> str:
    """The address that the backend asks, as the registry makes it out of a URL."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return f"{parts.scheme.lower()}://{parts.netloc}{path or '/v1'}"


async def locate(http: Http, given: BackendConfig, key: Key, has_key: bool) -> Located:
    """`key` is that of the backend's `url`."""
    base = base_of(given.url)
    answer = await http.get(f"{base}/models")
    if isinstance(answer, Answered) and (found := _read(answer, base)):
        return found
    if isinstance(answer, Answered) and answer.status in (401, 403):
        return Located(_keyless(given, answer, has_key))
    first = _described(answer)
    for other in _others(base, answer):
        answered = await http.get(f"{other}/models")
        if isinstance(answered, Unreached) and answered.trouble is Trouble.CERTIFICATE:
            answer = answered
            break
        if isinstance(answered, Answered) and (found := _read(answered, other)):
            tried = f"{other}/models lists {_count(found.listing)}"
            return Located(Finding("FAIL", PROBE, first, changes={key: other}, tried=tried), other, found.listing)
        if isinstance(answered, Answered) and answered.status in (401, 403):
            return Located(_keyless(given, answered, has_key, other))
    if isinstance(answer, Unreached):
        return Located(Finding("FAIL", PROBE, str(answer), _help(answer, given)))
    return await _without_list(http, base, answer)


async def _without_list(http: Http, base: str, answer: Answered) -> Located:
    """A server need not list its models, if it answers calls."""
    asked = await http.post(f"{base}/chat/completions", b"{}", 10.0)
    if isinstance(asked, Answered) and asked.status in (400, 422):
        advice = "name the model with `model` of the backend or --model, and its context window with `window`"
        return Located(Finding("weak", PROBE, f"answers, but lists no models ({_described(answer)})", advice), base)
    triton = await http.get(f"{root_of(base)}/v2")
    if isinstance(triton, Answered) and triton.status == 200 and "extensions" in triton.body.decode("utf-8", "replace"):
        parts = urlsplit(base)
        advice = f"this is Triton itself: the URL is triton+http://{parts.netloc}/MODEL?tokenizer=DIR (docs/triton.md)"
        return Located(Finding("FAIL", PROBE, "no chat completions, but Triton's own protocol", advice))
    if answer.status >= 500:
        advice = "the server is there and fails: wait until it has loaded its model, else read its log"
        return Located(Finding("FAIL", PROBE, _described(answer), advice))
    advice = "check the host and the port: the URL of a chat server ends in /v1"
    return Located(Finding("FAIL", PROBE, f"no chat completions there ({_described(answer)})", advice))


def _read(answer: Answered, base: str) -> Located | None:
    """The list of models, in the three forms that servers have."""
    listing = answer.json
    if answer.status != 200 or (entries := entries_of(listing)) is None:
        return None
    if not entries:
        advice = "load a model on the server (ollama pull NAME), or name one that it loads when asked: --model"
        return Located(Finding("weak", PROBE, "answers, and lists no model", advice), base, listing)
    return Located(Finding("ok", PROBE, f"answers, and lists {_count(listing)}"), base, listing)


def _count(listing: Any) -> str:
    entries = entries_of(listing) or []
    return "1 model" if len(entries) == 1 else f"{len(entries)} models"


def _described(answer: Answered | Unreached) -> str:
    if isinstance(answer, Unreached):
        return str(answer)
    if 300 <= answer.status < 400:
        return f"GET …/models is redirected (status {answer.status})"
    if answer.status == 200:
        return "GET …/models is no list of models"
    said = f": {answer.words}" if answer.words and "<" not in answer.words else ""
    return f"GET …/models has status {answer.status}{said}"


def _others(base: str, answer: Answered | Unreached) -> Iterator[str]:
    """Addresses that may be meant, the likeliest first."""
    parts = urlsplit(base)
    if isinstance(answer, Unreached):
        if answer.trouble is Trouble.NO_TLS:
            yield f"http://{parts.netloc}{parts.path}"
        elif answer.trouble is Trouble.CLOSED and parts.scheme == "http":
            yield f"https://{parts.netloc}{parts.path}"
        return
    if answer.status == 400 and any(word in answer.body.decode("utf-8", "replace") for word in HTTPS_WANTED):
        yield f"https://{parts.netloc}{parts.path}"
    if 300 <= answer.status < 400 and (location := answer.headers.get("location", "")).startswith("http"):
        yield location.partition("?")[0].rstrip("/").removesuffix("/models")
    if answer.status in (400, 404, 405) or 200 <= answer.status < 400:
        path = parts.path.rstrip("/")
        tried = [path + place for place in PLACES] + list(PLACES)
        for place in dict.fromkeys(tried):
            if place != path:
                yield f"{parts.scheme}://{parts.netloc}{place}"


def _keyless(given: BackendConfig, answer: Answered, has_key: bool, base: str = "") -> Finding:
    source = given.api_key_env or (str(given.api_key_file) if given.api_key_file else BACKEND_API_KEY)
    said = f": {answer.words}" if answer.words else ""
    where = f" at {base}" if base else ""
    if has_key:
        advice = f"the key in {source} is not the one that this server wants"
        return Finding("FAIL", PROBE, f"refuses the key{where} (status {answer.status}{said})", advice)
    advice = f"give the gateway the server's key: export {source}=…  (or `api_key_file` of the backend)"
    return Finding("FAIL", PROBE, f"wants a key{where} (status {answer.status}{said})", advice)


def _help(unreached: Unreached, given: BackendConfig) -> str:
    match unreached.trouble:
        case Trouble.CERTIFICATE if "self" in unreached.detail or "issuer" in unreached.detail:
            return "name the authority that signed it: `tls: {ca: FILE}` of the backend"
        case Trouble.CERTIFICATE:
            return "use the host's name as it stands in the certificate, or have the certificate renewed"
        case Trouble.NO_NAME:
            return f"check the host in {given.url}, or the machine's DNS"
        case Trouble.NO_TLS | Trouble.CLOSED:
            return "check the port: something else than a chat server listens there"
        case Trouble.REFUSED | Trouble.SILENT:
            return "start the server, or check host, port and firewall; a container's localhost is not this machine's"
