"""The report as one JSON document. Its shape is stable: members may be added, none is renamed or removed.

    {"version": 1, "status": 0 | 1, "unserved": [text], "gateway": [finding],
     "backends": [{"name", "url", "server", "findings": [finding],
                   "models": [{"name", "findings": [finding], "clients": [{"client", "outcome", "reasons": [text]}]}]}],
     "settings": YAML text, "written": [text]}

A finding is {"verdict": "ok" | "weak" | "FAIL", "probe", "result", "advice", "settings": [{"key", "value"}], "tried"},
a client's outcome "works", "works with settings" or "does not".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from dragoman.gateway.doctor.finding import Finding
from dragoman.gateway.doctor.report import ModelReport, Report, ServerReport

VERSION = 1
Json = dict[str, Any]


def document(
    report: Report, settings: str, written: Sequence[str], unserved: Sequence[str], redact: Callable[[str], str]
) -> str:
    content = {
        "version": VERSION,
        "status": 1 if unserved else 0,
        "unserved": list(unserved),
        "gateway": [_finding(each) for each in report.gateway],
        "backends": [_server(each) for each in report.servers],
        "settings": settings,
        "written": list(written),
    }
    return redact(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


def _server(report: ServerReport) -> Json:
    return {
        "name": report.name,
        "url": report.url,
        "server": report.kind,
        "findings": [_finding(each) for each in report.findings],
        "models": [_model(each) for each in report.models],
    }


def _model(report: ModelReport) -> Json:
    return {
        "name": report.name,
        "findings": [_finding(each) for each in report.findings],
        "clients": [
            {"client": each.client, "outcome": each.outcome, "reasons": list(each.reasons)} for each in report.clients
        ],
    }


def _finding(found: Finding) -> Json:
    return {
        "verdict": found.verdict,
        "probe": found.probe,
        "result": found.result,
        "advice": found.advice,
        "settings": [{"key": ".".join(map(str, key)), "value": value} for key, value in found.changes.items()],
        "tried": found.tried,
    }
