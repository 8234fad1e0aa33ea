"""Who is shown what is found, as it is found: a terminal, or nobody where a document is printed at the end."""

from __future__ import annotations

from typing import Protocol

from dragoman.gateway.doctor.finding import Finding
from dragoman.gateway.doctor.report import ModelReport, ServerReport


class Show(Protocol):
    """`waiting` says what is waited for from now on, until anything else is shown."""

    def server(self, report: ServerReport) -> None: ...

    def model(self, report: ModelReport) -> None: ...

    def finding(self, found: Finding) -> None: ...

    def clients(self, report: ModelReport) -> None: ...

    def waiting(self, what: str) -> None: ...


class Silent:
    def server(self, report: ServerReport) -> None:
        pass

    def model(self, report: ModelReport) -> None:
        pass

    def finding(self, found: Finding) -> None:
        pass

    def clients(self, report: ModelReport) -> None:
        pass

    def waiting(self, what: str) -> None:
        pass
