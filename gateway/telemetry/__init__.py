"""Metrics, traces and logs: names and figures only, never the text of prompts or answers."""

# The variable that makes `prometheus_client`, when it is imported, store metrics in files that several processes share.
METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
