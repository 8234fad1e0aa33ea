"""What the doctor found, of all servers: what is printed, written and counted is made from this."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from dragoman.gateway.doctor.clients import AGENTS, ClientVerdict
from dragoman.gateway.doctor.finding import Changes, Finding


@dataclass(slots=True)
class ModelReport:
    name: str
    findings: list[Finding] = field(default_factory=list)
    clients: tuple[ClientVerdict, ...] = ()


@dataclass(slots=True)
class ServerReport:
    """`findings` are those of the server, whatever model is asked. `changes` are the settings that helped."""

    name: str
    url: str
    place: int
    kind: str = ""
    findings: list[Finding] = field(default_factory=list)
    models: list[ModelReport] = field(default_factory=list)
    changes: Changes = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """`gateway`: findings about the gateway's own installation."""

    gateway: list[Finding] = field(default_factory=list)
    servers: list[ServerReport] = field(default_factory=list)

    @property
    def changes(self) -> Changes:
        return {key: value for server in self.servers for key, value in server.changes.items()}

    @property
    def failing(self) -> list[str]:
        """The clients that do not work with some model, whatever is set."""
        models = [model for server in self.servers for model in server.models]
        found = [each.client for model in models for each in model.clients if each.outcome == "does not"]
        return list(dict.fromkeys(found))

    def unserved(self, wanted: Collection[str], with_settings: bool = False) -> list[str]:
        """Where what is wanted does not work, and why: the clients that are named, or without names, some agent for
        each model. With `with_settings`, what works with the changes counts as working."""
        works = {"works", "works with settings"} if with_settings else {"works"}
        return list(self._unserved(wanted, works))

    def _unserved(self, wanted: Collection[str], works: Collection[str]) -> Iterator[str]:
        for server in self.servers:
            if not server.models:
                failed = next((each for each in server.findings if each.verdict == "FAIL"), None)
                yield f"{server.name}: {f'{failed.probe}: {failed.result}' if failed else 'no model was asked'}"
            for model in server.models:
                concerned = [each for each in model.clients if each.client in (wanted or AGENTS)]
                bad = [each for each in concerned if each.outcome not in works]
                if bad and (wanted or len(bad) == len(concerned)):
                    for each in bad if wanted else bad[:1]:
                        settings = each.outcome == "works with settings"
                        what = "works only with settings that are not configured" if settings else str(each)
                        yield f"{server.name}: {model.name}: {each.client} {what}"
