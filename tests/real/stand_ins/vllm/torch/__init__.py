"""Stands in for torch where vLLM's source distribution is asked for its name and version."""


class version:
    cuda = hip = xpu = None


__version__ = "2.14.0"
