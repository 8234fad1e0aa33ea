"""What operators get beside the manifests: the Compose file, the dashboard, the alert rules and the page about them.

Queries are parsed by a real parser of PromQL, and each metric, each label and each closed label value in them must be
one that the gateway exports: a dashboard that stays empty is worse than none.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dragoman.backends.chat.settings import PRESETS
from dragoman.gateway import __version__
from dragoman.gateway.cli import main
from dragoman.gateway.config import Config
from dragoman.gateway.serve.cors import EXPOSED
from tests.conftest import RealComponent
from tests.container_build import read
from tests.exported_metrics import exported

ROOT = Path(__file__).parents[1]
DASHBOARD = json.loads((ROOT / "configs" / "grafana" / "dragoman.json").read_text("utf-8"))
RULES = yaml.safe_load((ROOT / "configs" / "prometheus" / "rules.yaml").read_text("utf-8"))
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
COMPOSE = (ROOT / "configs" / "compose.yaml").read_text("utf-8")
# What Prometheus itself and Kubernetes add to every series.
TARGET_LABELS = {"namespace", "pod", "job", "instance"}
OF_PROMETHEUS: dict[str, set[str] | None] = {"up": set()}
GRAFANA = {"$__rate_interval": "5m", "$__interval": "1m"}
# Label values that come from closed sets.
VALUES = {
    "outcome": {"completed", "incomplete_length", "incomplete_content_filter", "failed", "refused", "disconnected"},
    "direction": {"input", "output", "cached", "reasoning"},
    "state": {"ready", "asleep", "down", "open"},
    "status": {"401"},
}

PROMQL_PROGRAM = """
import json, sys
import promql_parser as promql

def look(query):
    found = {"series": [], "grouped": []}
    def visit(expression):
        if isinstance(expression, promql.VectorSelector):
            matchers = [[each.name, each.value] for each in expression.matchers.matchers]
            found["series"].append([expression.name, matchers])
        if isinstance(expression, promql.AggregateExpr) and expression.modifier:
            found["grouped"] += expression.modifier.labels
    try:
        promql.walk(promql.parse(query), visit)
    except ValueError as error:
        return {"error": str(error)}
    return found

print(json.dumps([look(query) for query in json.load(sys.stdin)]))
"""
COMPOSE_PROGRAM = """
import sys
import compose_spec
compose_spec.PyCompose.from_json(sys.stdin.read()).validate()
"""


def panels() -> list[Any]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def rules() -> list[Any]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def dashboard_queries() -> list[str]:
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    for name, value in GRAFANA.items():
        queries = [query.replace(name, value) for query in queries]
    return queries


def objections(python: Path, queries: list[str]) -> list[str]:
    """One line for each query that does not parse or speaks of what the gateway does not export."""
    told = _run(python, PROMQL_PROGRAM, json.dumps(queries))
    assert told.returncode == 0, told.stderr
    found = []
    for query, seen in zip(queries, json.loads(told.stdout), strict=True):
        if "error" in seen:
            found.append(f"{query}: {seen['error']}")
            continue
        if not seen["series"]:
            found.append(f"{query}: asks for nothing")
        found += [f"{query}: {each}" for each in _unknown(seen)]
    return found


def _unknown(seen: Any) -> list[str]:
    names = exported() | OF_PROMETHEUS
    found, known = [], set(TARGET_LABELS)
    for name, matchers in seen["series"]:
        if name not in names:
            found.append(f"no metric {name}")
            continue
        labels = names[name]
        known |= labels or {label for label, _ in matchers} | set(seen["grouped"])
        for label, value in matchers:
            if labels is not None and label not in labels | TARGET_LABELS:
                found.append(f"{name} has no label {label}")
            if label in VALUES and not set(value.split("|")) <= VALUES[label] and not value.startswith("$"):
                found.append(f"{label} is never {value}")
    return found + [f"grouped by {label}, which nothing has" for label in seen["grouped"] if label not in known]


def _run(python: Path, program: str, given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-c", program], input=given, capture_output=True, text=True, timeout=60, check=False)


# ---------------------------------------------------------------------------------------------------- dashboard, alerts


@pytest.mark.real
def test_every_query_of_the_dashboard_is_answered(real_component: RealComponent) -> None:
    assert objections(real_component("operations"), dashboard_queries()) == []


@pytest.mark.real
def test_every_alert_can_fire(real_component: RealComponent) -> None:
    assert objections(real_component("operations"), [rule["expr"] for rule in rules()]) == []


@pytest.mark.real
@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("sum(dragoman_request_in_flight)", "no metric dragoman_request_in_flight"),
        ("rate(dragoman_requests[5m])", "no metric dragoman_requests"),
        ('dragoman_requests_in_flight{rout="x"}', "has no label rout"),
        ('dragoman_requests_total{outcome="error"}', "outcome is never error"),
        ("sum by (color) (dragoman_requests_in_flight)", "grouped by color"),
        ("sum(dragoman_requests_in_flight", "sum"),
        ("vector(1)", "asks for nothing"),
    ],
)
def test_a_query_that_stays_empty_is_found(query: str, told: str, real_component: RealComponent) -> None:
    (objection,) = objections(real_component("operations"), [query])
    assert told in objection


def test_panels_are_laid_out_and_explained() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_the_variables_of_the_dashboard_are_defined_and_used() -> None:
    defined = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"]))) - {name[1:] for name in GRAFANA}
    assert used == set(defined)
    for name, variable in defined.items():
        if variable["type"] == "query":
            ((metric, label),) = re.findall(r"^label_values\((\w+), (\w+)\)$", variable["query"]["query"])
            assert label == name
            assert label in (exported()[metric] or set()) | TARGET_LABELS


def test_rules_have_what_prometheus_and_a_person_at_night_need() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"Dragoman\w+", rule["alert"])
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})
        assert set(rule["annotations"]) == {"summary", "description"}
        shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"])))) | {"instance"}
        assert shown <= kept


# -------------------------------------------------------------------------------------------------------------- compose


def compose(**environment: str) -> Any:
    """The file as Compose reads it: variables filled in."""

    def value(found: re.Match[str]) -> str:
        return environment.get(found[1], "given" if found[2] is None else found[2])

    return yaml.safe_load(re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)\}", value, COMPOSE))


@pytest.mark.real
def test_every_field_of_the_compose_file_is_valid(real_component: RealComponent) -> None:
    python = real_component("operations")
    content = compose()
    assert _run(python, COMPOSE_PROGRAM, json.dumps(content)).stderr == ""
    content["services"]["dragoman"]["read_onli"] = True
    assert "read_onli" in _run(python, COMPOSE_PROGRAM, json.dumps(content)).stderr


@pytest.mark.parametrize("profile", ["trtllm-serve", "vllm"])
def test_either_model_server_is_where_the_gateway_looks_for_it(
    profile: str, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    services = compose(PRESET=profile)["services"]
    gateway, server = services["dragoman"], services[profile]
    assert server["profiles"] == [profile]
    assert profile in PRESETS
    assert "profiles" not in gateway
    for name, value in gateway["environment"].items():
        environment.setenv(name, value)
    environment.setenv("DRAGOMAN_HOST", "0.0.0.0")
    assert main(["check", *gateway["command"][1:]]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    (backend,) = printed["backends"]
    (alias,) = server["networks"]["inside"]["aliases"]
    (port,) = [word.removeprefix("--port=") for word in server["command"] if word.startswith("--port=")]
    assert backend["url"] == f"http://{alias}:{port}/v1"
    assert printed["preset"] == profile
    assert "ports" not in server


def test_the_gateway_of_the_compose_file_has_no_right_that_it_does_not_need() -> None:
    gateway = compose()["services"]["dragoman"]
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    assert gateway["security_opt"] == ["no-new-privileges:true"]
    assert gateway["ports"] == ["127.0.0.1:8080:8080"]
    assert gateway["image"] == f"dragoman:{__version__}"
    ends = int(gateway["environment"]["DRAGOMAN_TIMEOUTS__DRAIN"]) + 5
    assert int(gateway["stop_grace_period"].removesuffix("s")) >= ends + 5
    assert (ROOT / "configs" / gateway["build"]["context"] / "Dockerfile").is_file()


# ------------------------------------------------------------------------------------------------------------- the page


def test_the_page_speaks_of_what_there_is() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    names = set(re.findall(r"\bdragoman_[a-z_]+", PAGE))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported()}
    assert names <= set(exported()) | families
    kubernetes = PAGE.partition("\n## Kubernetes\n")[2].partition("\n## ")[0]
    folders = set(re.findall(r"^\| `([a-z-]+)` \|", kubernetes, re.MULTILINE))
    assert folders == {path.name for path in (ROOT / "configs" / "kubernetes").iterdir()}
    for key in re.findall(r"`timeouts\.(\w+)`", PAGE):
        assert key in Config().timeouts.model_dump()
    arguments = [each.value for each in read((ROOT / "Dockerfile").read_text("utf-8")) if each.name == "ARG"]
    assert {value.partition("=")[0] for value in arguments} == {"LOCK", "PYTHON_IMAGE"}
    assert "--build-arg LOCK=extras" in PAGE
    assert "`PYTHON_IMAGE`" in PAGE


def test_the_page_has_every_metric_every_field_of_a_request_and_every_header() -> None:
    metrics = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported() if name.startswith("dragoman_")}
    fields = re.findall(r'^ {12}"(\w+)": ', (ROOT / "gateway" / "calls" / "access_log.py").read_text("utf-8"), re.M)
    headers = [name for name in EXPOSED.split(", ") if name.startswith("x-dragoman-")]
    assert len(metrics) > 30
    assert len(fields) > 25
    assert headers
    assert not {*metrics, *fields, *headers} - set(re.findall(r"`([\w-]+)", PAGE))


def test_the_times_on_the_page_are_the_defaults() -> None:
    timeouts = Config().timeouts
    assert f"`timeouts.drain` ({timeouts.drain:.0f} s)" in PAGE
    assert f"keepalives come every\n{timeouts.keepalive:.0f} s" in PAGE
