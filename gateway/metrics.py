"""What happened, as Prometheus figures in a registry of our own (an embedded gateway does not touch the global one).

Labels come from closed sets (routes, statuses, outcomes, kinds, backends of the configuration); names that a client
can choose are folded into `other` once there are too many of them, so that nobody can fill the memory with series.
"""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from translators.ir import Note, Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
PLAIN_NAME = re.compile(r"[a-z0-9_.:-]{1,48}")
MOST_NAMES = 200


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "dragoman_requests", "Requests by route, HTTP status and outcome.", ["route", "status", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.tokens = Counter(
            "dragoman_tokens",
            "Tokens as the servers measured them: input (cached ones included), cached, output, reasoning.",
            ["route", "backend", "direction"], registry=self.registry,
        )  # fmt: skip
        self.unmeasured = Counter(
            "dragoman_answers_without_usage", "Finished answers whose server told no token counts.",
            ["route", "backend"], registry=self.registry,
        )  # fmt: skip
        self.notes = Counter(
            "dragoman_notes", "What was dropped, repaired or not enforced, by kind and name.", ["kind", "name"],
            registry=self.registry,
        )  # fmt: skip
        self.first_event = Histogram(
            "dragoman_time_to_first_event_seconds", "From a request's arrival to the model's first event.",
            ["route", "backend"], buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.duration = Histogram(
            "dragoman_request_duration_seconds", "From a request's arrival to its end.", ["route"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.disconnects = Counter(
            "dragoman_client_disconnects", "Clients that left before their answer ended, by the state they left in.",
            ["route", "state"], registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            "dragoman_requests_in_flight", "Model calls that run now.", ["route"], registry=self.registry
        )
        self.backend_ready = Gauge(
            "dragoman_backend_ready", "1 when the last probe found the backend ready, else 0.", ["backend"],
            registry=self.registry,
        )  # fmt: skip
        self.replica_state = Gauge(
            "dragoman_replica_state", "1 for the state a pool's server is in: ready, asleep, down, open (breaker).",
            ["pool", "backend", "state"], registry=self.registry,
        )  # fmt: skip
        self.replica_retries = Counter(
            "dragoman_replica_retries", "Requests that a pool's server could not serve and that went to another one.",
            ["pool", "backend"], registry=self.registry,
        )  # fmt: skip
        self.queue_depth = Gauge(
            "dragoman_queue_depth", "Model calls that wait for room.", ["backend"], registry=self.registry
        )
        self.queue_wait = Histogram(
            "dragoman_queue_wait_seconds", "How long admitted model calls waited for room.", ["backend"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.queue_refused = Counter(
            "dragoman_queue_refused", "Model calls refused for want of room: full (the queue) or waited (too long).",
            ["backend", "reason"], registry=self.registry,
        )  # fmt: skip
        self._names: set[str] = set()

    def note(self, note: Note) -> None:
        self.notes.labels(note.kind, self._bounded(note.name)).inc()

    def replica(self, pool: str, backend: str, state: str) -> None:
        for each in ("ready", "asleep", "down", "open"):
            self.replica_state.labels(pool, backend, each).set(each == state)

    def usage(self, route: str, backend: str, usage: Usage | None) -> None:
        if usage is None:
            self.unmeasured.labels(route, backend).inc()
            return
        counts = (("input", usage.input), ("output", usage.output), ("cached", usage.cached))
        for direction, count in (*counts, ("reasoning", usage.reasoning)):
            if count:
                self.tokens.labels(route, backend, direction).inc(count)

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def _bounded(self, name: str) -> str:
        if name in self._names:
            return name
        if len(self._names) < MOST_NAMES and PLAIN_NAME.fullmatch(name):
            self._names.add(name)
            return name
        return "other"
