"""Tests of `gateway/telemetry`."""
