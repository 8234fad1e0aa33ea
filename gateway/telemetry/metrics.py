"""Prometheus metrics, in a registry of our own: an embedded gateway does not touch the global one.

Labels come from closed sets (routes, statuses, outcomes, kinds of clients, backends of the configuration, names of
keys). Names that others choose become `other` once there are too many of them, so that nobody can fill the memory with
series; a model is a label only if it is configured or listed, or once a server has answered for it. Children are looked
up once and cached: the library's own look-up costs more than everything else that is counted for an answer. An unknown
token count is never recorded as zero.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from dragoman import gateway
from dragoman.gateway.telemetry import METRICS_DIRECTORY
from dragoman.gateway.telemetry.processes import Processes, live_workers
from dragoman.translators.ir import Note, Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
GAPS = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PLAIN_NAME = re.compile(r"[a-z0-9_.:-]{1,48}")
MODEL_NAME = re.compile(r"[A-Za-z0-9_.:/@+-]{1,96}")
KEY_NAME = re.compile(r"\S{1,64}")  # they are the operator's own
MOST_NAMES = 200
MOST_MODELS = 64
MOST_CLIENTS = 1000  # more keys than are named in any configuration, but not in all that a process may see

M = TypeVar("M", Counter, Gauge, Histogram)


class BoundedNames:
    """The first `most` names that match the pattern; every other name becomes `other`."""

    def __init__(self, pattern: re.Pattern[str], most: int) -> None:
        self._pattern = pattern
        self._most = most
        self._names: set[str] = set()

    def __call__(self, name: str) -> str:
        if name in self._names:
            return name
        if len(self._names) < self._most and self._pattern.fullmatch(name):
            self._names.add(name)
            return name
        return "other"


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "dragoman_requests",
            "Requests by route, kind of client, HTTP status, outcome, backend and model; empty before these are known.",
            "route", "client_kind", "status", "outcome", "backend", "model",
        )  # fmt: skip
        self.client_requests = self._counter(
            "dragoman_client_requests", "Calls by the name of the client's key, by model and outcome.",
            "client", "model", "outcome",
        )  # fmt: skip
        self.client_tokens = self._counter(
            "dragoman_client_tokens",
            "Tokens as the servers measured them, by the name of the client's key and by model.",
            "client", "model", "direction",
        )  # fmt: skip
        self.tokens = self._counter(
            "dragoman_tokens",
            "Tokens as the servers measured them: input (cached ones included), cached, output, reasoning.",
            "route", "client_kind", "model", "backend", "direction",
        )  # fmt: skip
        self.unmeasured = self._counter(
            "dragoman_answers_without_usage", "Finished answers whose server told no token counts.", "route", "backend"
        )
        self.notes = self._counter(
            "dragoman_notes", "What was dropped, repaired or not enforced, by kind and name.", "kind", "name"
        )
        self.odd_answers = self._counter(
            "dragoman_odd_answers", "Answers that were empty, reasoning only, or otherwise not as they should be.",
            "route", "backend", "oddity",
        )  # fmt: skip
        self.searches = self._counter("dragoman_web_searches", "Searches of the web for models, by outcome.", "outcome")
        self.search_seconds = self._histogram(
            "dragoman_web_search_seconds", "How long the search service took for one search.", SECONDS
        )
        self._add_times()
        self._add_memo()
        self._add_departures()
        self._add_pool()
        self.in_flight = self._gauge("dragoman_requests_in_flight", "Model calls that run now.", "livesum", "route")
        self.backend_ready = self._gauge(
            "dragoman_backend_ready",
            "1 while a server of the backend is ready, or sleeps until a call wakes it, else 0.",
            "livemax", "backend",
        )  # fmt: skip
        self._add_process()
        self._notes = BoundedNames(PLAIN_NAME, MOST_NAMES)
        self._models = BoundedNames(MODEL_NAME, MOST_MODELS)
        self._series: dict[tuple[str, str, str, str], Series] = {}
        self._clients = BoundedNames(KEY_NAME, MOST_CLIENTS)
        self._children: dict[tuple[str, ...], Any] = {}

    def _add_process(self) -> None:
        self.loop_lag = self._histogram(
            "dragoman_loop_lag_seconds", "How late the event loop ran a timer, sampled twice a second.", SHORT
        )
        self.loop_stall = self._gauge(
            "dragoman_loop_stall_seconds",
            "The longest time in the last minute for which the event loop stood still, to a tenth of a second.",
            "livemax",
        )  # fmt: skip
        self.build = self._gauge(
            "dragoman_build_info", "1, with the versions of the gateway and of Python.", "livemax", "version", "python"
        )
        self.build.labels(gateway.__version__, platform.python_version()).set(1)
        self.registry.register(Processes(lambda: ["self"]))
        self.resident = self._gauge(
            "dragoman_resident_memory_bytes", "Memory of the process, or of all workers together.", "livesum"
        )

    def _add_times(self) -> None:
        labels = ("route", "client_kind", "model", "backend")
        self.first_event = self._histogram(
            "dragoman_time_to_first_event_seconds", "From a request's arrival to the model's first event.", SECONDS,
            *labels,
        )  # fmt: skip
        self.gap = self._histogram(
            "dragoman_token_gap_seconds",
            "Between two reads of an answer; a read holds one token or several. Told when the answer has ended.", GAPS,
            "route", "model", "backend",
        )  # fmt: skip
        self.duration = self._histogram(
            "dragoman_request_duration_seconds", "From a request's arrival to its end.", SECONDS, "route"
        )
        self.overhead = self._histogram(
            "dragoman_overhead_seconds",
            "The gateway's own time before a backend is asked: from the body's last byte, without waiting in line.",
            SHORT, "route",
        )  # fmt: skip

    def _add_memo(self) -> None:
        self.memo_lookups = self._counter(
            "dragoman_memo_lookups",
            "Tools and conversations of requests, by whether their client had sent them (or their beginning) before.",
            "found",
        )  # fmt: skip
        self.memo_bytes = self._counter(
            "dragoman_memo_lookup_bytes", "Their bytes: what was found was not parsed again.", "found"
        )

        self.prefixes = self._counter(
            "dragoman_prompt_prefixes",
            "Prompts after the first of a conversation, by whether they begin with the whole of the one before.",
            "kept",
        )  # fmt: skip
        self.prefix_lost = self._counter(
            "dragoman_prompt_prefix_lost_bytes", "Bytes of last prompts, from the place on where the next one differed."
        )

    def _add_departures(self) -> None:
        self.disconnects = self._counter(
            "dragoman_client_disconnects", "Clients that left before their answer ended, by the state they left in.",
            "route", "state",
        )  # fmt: skip
        self.cancel = self._histogram(
            "dragoman_disconnect_to_cancel_seconds",
            "From a client's loss being noticed until the server's work for it was given up.", SHORT, "backend",
        )  # fmt: skip
        self.freed = self._counter(
            "dragoman_streams_freed", "Answers whose server was stopped because the client had left.", "backend"
        )
        self.saved = self._counter(
            "dragoman_freed_stream_seconds_estimate",
            "An estimate of GPU time saved: by how much the answers given up fell short of the mean length of finished "
            "ones on the same backend, in seconds of one stream; nothing while no answer has finished there.",
            "backend",
        )  # fmt: skip

    def _add_pool(self) -> None:
        self.replica_state = self._gauge(
            "dragoman_replica_state",
            "1 for the state a pool's server is in: ready, asleep, down or open (its answers fail or do not come).",
            "livemax", "pool", "backend", "state",
        )  # fmt: skip
        self.replica_retries = self._counter(
            "dragoman_replica_retries", "Requests that a pool's server could not serve and that went to another one.",
            "pool", "backend",
        )  # fmt: skip
        self.fallbacks = self._counter(
            "dragoman_fallbacks", "Calls that went to another backend than that of their model.", "backend", "fallback"
        )
        self.refused_fields = self._counter(
            "dragoman_refused_fields",
            "Body fields that a server refused by name, so that they are left out for its model for ten minutes.",
            "backend", "field",
        )  # fmt: skip
        self.markup = self._gauge(
            "dragoman_markup_proven",
            "1 for a model whose calls are read out of the text, since its server's answers have proven the family.",
            "livemax", "backend", "model", "family",
        )  # fmt: skip
        self.queue_depth = self._gauge("dragoman_queue_depth", "Model calls that wait for room.", "livesum", "backend")
        self.queue_wait = self._histogram(
            "dragoman_queue_wait_seconds", "How long admitted model calls waited for room.", SECONDS, "backend"
        )
        self.queue_refused = self._counter(
            "dragoman_queue_refused", "Model calls refused for want of room: full (the queue) or waited (too long).",
            "backend", "reason",
        )  # fmt: skip

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(name, description, labels, registry=self.registry)

    def _gauge(self, name: str, description: str, workers: Literal["livesum", "livemax"], *labels: str) -> Gauge:
        """`workers` is how the values of one gateway's processes are combined."""
        return Gauge(name, description, labels, registry=self.registry, multiprocess_mode=workers)

    def _histogram(self, name: str, description: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, description, labels, buckets=buckets, registry=self.registry)

    def request(
        self, route: str, kind: str, status: int, outcome: str, backend: str = "", model: str | None = ""
    ) -> None:
        """`model`: None for a name that only the client knows."""
        self.child(self.requests, route, kind, str(status), outcome, backend, self._model(model)).inc()

    def client_request(self, client: str | None, model: str | None, outcome: str) -> None:
        """`client`: the name of a key in the configuration, None for other keys and for none."""
        self.child(self.client_requests, self._client(client), self._model(model), outcome).inc()

    def client_usage(self, client: str | None, model: str | None, usage: Usage | None) -> None:
        if usage is not None:
            key, name = self._client(client), self._model(model)
            for direction, count in directions(usage):
                self.child(self.client_tokens, key, name, direction).inc(count)

    def child(self, metric: M, *labels: str) -> M:
        """The child of one of these metrics, for labels from closed sets."""
        key = (metric._name, *labels)
        if (found := self._children.get(key)) is None:
            found = self._children[key] = metric.labels(*labels)
        known: M = found
        return known

    def _model(self, name: str | None) -> str:
        return self._models(name) if name else "other" if name is None else ""

    def _client(self, name: str | None) -> str:
        return self._clients(name) if name else "other"

    def memo(self, found: bool, size: int) -> None:
        label = "yes" if found else "no"
        self.child(self.memo_lookups, label).inc()
        self.child(self.memo_bytes, label).inc(size)

    def prefix(self, kept: bool, lost: int) -> None:
        self.child(self.prefixes, "yes" if kept else "no").inc()
        if lost:
            self.prefix_lost.inc(lost)

    def note(self, note: Note) -> None:
        self.child(self.notes, note.kind, self._notes(note.name)).inc(note.count)

    def replica(self, pool: str, backend: str, state: str) -> None:
        for each in ("ready", "asleep", "down", "open"):
            self.replica_state.labels(pool, backend, each).set(each == state)

    def proven(self, backend: str, model: str, family: str) -> None:
        self.markup.labels(backend, self._models(model), family).set(1)

    def series(self, route: str, kind: str, backend: str, model: str) -> Series:
        """The children that count an answer; to be called only once the backend has answered for the model."""
        key = (route, kind, backend, self._models(model))
        if (found := self._series.get(key)) is None:
            found = self._series[key] = Series(self, *key)
        return found

    def departure(self, backend: str, seconds: float, short: float | None) -> None:
        """`seconds` until the server's work was given up; `short`: by how much the answer was below the mean length."""
        self.freed.labels(backend).inc()
        self.cancel.labels(backend).observe(seconds)
        if short is not None:
            self.saved.labels(backend).inc(max(0.0, short))

    def render(self) -> bytes:
        """With several workers, the metrics of all of them, which the library then stores in files."""
        if METRICS_DIRECTORY not in os.environ:
            return generate_latest(self.registry)
        combined = CollectorRegistry()
        combined.register(Processes(live_workers))
        collect: Callable[[CollectorRegistry], object] = MultiProcessCollector  # the library leaves it without types
        collect(combined)
        return generate_latest(combined)


def directions(usage: Usage) -> Iterator[tuple[str, int]]:
    """What is known of it and not zero."""
    counts = (
        ("input", usage.input),
        ("output", usage.output),
        ("cached", usage.cached),
        ("reasoning", usage.reasoning),
    )
    yield from ((direction, count) for direction, count in counts if count)


class Series:
    """The children for one route, kind of client, backend and model, looked up once."""

    def __init__(self, metrics: Metrics, route: str, kind: str, backend: str, model: str) -> None:
        self.first_event = metrics.first_event.labels(route, kind, model, backend)
        self._gap = metrics.gap.labels(route, model, backend)
        self._unmeasured = metrics.unmeasured.labels(route, backend)
        self._metrics = metrics
        self._labels = (route, kind, model, backend)

    def gaps(self, counts: Sequence[int], seconds: float) -> None:
        """The gaps of one answer: how many in each bucket of `GAPS`, and their sum. A stream costs the library one
        call instead of thousands."""
        # The library has no call for many observations at once. Its internals have been the same for years, and a test
        # compares the result with single observations.
        for bucket, count in zip(self._gap._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._gap._sum.inc(seconds)

    def usage(self, usage: Usage | None) -> None:
        if usage is None:
            self._unmeasured.inc()
            return
        for direction, count in directions(usage):
            self._metrics.child(self._metrics.tokens, *self._labels, direction).inc(count)
