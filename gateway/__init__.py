"""HTTP and operations: the only package that listens. It knows no protocol by name."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dragoman")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"
