"""The configuration: its models (`schema`), where their values come from (`sources`), and the files of certificates."""

from dragoman.gateway.config.schema import (
    FIXED,
    PREFIX,
    AdmissionConfig,
    BackendConfig,
    BackendTls,
    Config,
    ConfigError,
    Group,
    ImagesConfig,
    Limits,
    LogConfig,
    ModelRule,
    Timeouts,
    Tls,
)
from dragoman.gateway.config.sources import load, replicas, split_commas

__all__ = [
    "FIXED",
    "PREFIX",
    "AdmissionConfig",
    "BackendConfig",
    "BackendTls",
    "Config",
    "ConfigError",
    "Group",
    "ImagesConfig",
    "Limits",
    "LogConfig",
    "ModelRule",
    "Timeouts",
    "Tls",
    "load",
    "replicas",
    "split_commas",
]
