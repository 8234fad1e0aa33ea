"""Tests against real components: a real model, real clients, a real Triton server, real SDKs."""
