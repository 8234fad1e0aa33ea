"""Metrics, traces and logs. Names and figures only, never what was said."""
