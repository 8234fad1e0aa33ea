"""What a person pastes to point a client at this gateway: one line of shell for each kind of client.

OpenAI's clients want a base URL that ends in `/v1`, Anthropic's want it without. Codex takes none from the environment
(seen with 0.169.0), so its command line defines a provider. Where the gateway has keys, the lines take the client's
from the variable KEY: no key is ever printed.
"""

from __future__ import annotations

import ipaddress
import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

NO_KEY = "any"  # the clients want some key, also where the gateway wants none


@dataclass(frozen=True, slots=True)
class ClientSetup:
    """`base` is the gateway's address without a path, for a client on this machine; `keys` says whether a client needs
    one; `everywhere` whether other machines reach the gateway too, under a name that is not known here."""

    base: str
    keys: bool = False
    everywhere: bool = False

    def text(self, model: str) -> str:
        """A sentence with the lines to paste below it. `model` is a name that the gateway serves."""
        sentence = "Paste a line to point a client at it"
        if self.keys:
            sentence += ", after `export KEY=` with your key"
        if self.everywhere:
            sentence += f"; from other machines, with this one's name in place of {urlsplit(self.base).hostname}"
        return "\n  ".join([f"{sentence}:", *self.lines(model)])

    def lines(self, model: str) -> list[str]:
        key = '"$KEY"' if self.keys else NO_KEY
        openai, anthropic, name = (shlex.quote(text) for text in (f"{self.base}/v1", self.base, model))
        fields = {"name": "dragoman", "base_url": f"{self.base}/v1"} | ({"env_key": "KEY"} if self.keys else {})
        table = ",".join(f'{field}="{value}"' for field, value in fields.items())
        provider = shlex.quote(f"model_providers.dragoman={{{table}}}")
        return [
            f"export OPENAI_BASE_URL={openai} OPENAI_API_KEY={key}",
            f"export ANTHROPIC_BASE_URL={anthropic} ANTHROPIC_AUTH_TOKEN={key} ANTHROPIC_MODEL={name}",
            f"codex -m {name} -c model_provider=dragoman -c {provider}",
        ]


def url(host: str, port: int, scheme: str = "http") -> str:
    shown = f"[{host.replace('%', '%25')}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}"


def client_setup(host: str, bound: tuple[Any, ...], scheme: str, keys: bool) -> ClientSetup:
    """For a gateway that listens on `bound`, the socket name that `host` resolved to. Where that is every address of
    the machine, clients get the loopback address."""
    address = ipaddress.ip_address(bound[0].partition("%")[0])
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return ClientSetup(url(host, bound[1], scheme), keys, everywhere=address.is_unspecified)
