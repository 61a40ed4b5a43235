"""Files of a run folder: each appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

_PARTIAL = ".partial-"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, sync it, and move it there; its folder is synced too.

    :raises OSError: it cannot be written; what was there before is untouched.
    """
    partial = path.with_name(f".{path.name}{_PARTIAL}{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_partial(path: Path) -> bool:
    """Whether a path is what a killed :func:`write_whole` left."""
    return path.name.startswith(".") and _PARTIAL in path.name


def clear_partials(folder: Path) -> None:
    """Remove what killed writers left in a folder."""
    for path in folder.iterdir():
        if is_partial(path):
            path.unlink(missing_ok=True)
