"""The configuration: its keys (`sections`, `schema`), where their values come from (`sources`), what is said of wrong
ones (`faults`), what is made from their descriptions (`reference`), and the files of certificates."""

from dragoman.gateway.config.fields import ConfigError
from dragoman.gateway.config.schema import FIXED, PREFIX, Config, Group
from dragoman.gateway.config.search_section import SearchConfig, SearchShape
from dragoman.gateway.config.sections import (
    AdmissionConfig,
    BackendConfig,
    BackendTls,
    DocumentsConfig,
    ImagesConfig,
    Limits,
    LogConfig,
    ModelRule,
    Timeouts,
    Tls,
)
from dragoman.gateway.config.sources import load, load_with_sources, replicas, split_commas

__all__ = [
    "FIXED",
    "PREFIX",
    "AdmissionConfig",
    "BackendConfig",
    "BackendTls",
    "Config",
    "ConfigError",
    "DocumentsConfig",
    "Group",
    "ImagesConfig",
    "Limits",
    "LogConfig",
    "ModelRule",
    "SearchConfig",
    "SearchShape",
    "Timeouts",
    "Tls",
    "load",
    "load_with_sources",
    "replicas",
    "split_commas",
]
