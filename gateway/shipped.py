"""The files of `configs/` that are installed with the package: in the wheel below `dragoman/gateway/configs`, in a
checkout where they are."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACES = (HERE / "configs", HERE.parent / "configs")


def shipped(name: str) -> Path:
    return next(found for place in PLACES if (found := place / name).is_file())
