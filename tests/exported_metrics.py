"""The names under which the gateway's figures can be queried: what dashboards, rules and autoscalers may speak of."""

from __future__ import annotations

from prometheus_client.metrics import MetricWrapperBase

from dragoman.gateway.telemetry.metrics import Metrics

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "info": ("_info",)}


def exported() -> dict[str, set[str] | None]:
    """Each name of a series, with its labels; None where only the running gateway knows them."""
    metrics = Metrics()
    labels: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            labels[family.name] = set(metric._labelnames)
    found: dict[str, set[str] | None] = {}
    for family in metrics.registry.collect():
        for suffix in SUFFIXES.get(family.type, ("",)):
            known = labels.get(family.name)
            found[family.name + suffix] = known | {"le"} if known is not None and suffix == "_bucket" else known
    return found
