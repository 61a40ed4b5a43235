"""The log of a training: a JSONL file that can be cut back to a checkpoint and goes on from there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from logitstore.digests import hasher
from logitstore.errors import RunError

LOG_NAME = "log.jsonl"
_LONGEST, _MOST_EPOCHS = 1 << 20, 100_000  # bytes of a line, and records, that are read


def read_epochs(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of the epochs in the log of a run, in their order; none where it has no log that can be read."""
    found: list[dict[str, Any]] = []
    with suppress(OSError, ValueError), (Path(folder) / LOG_NAME).open("rb") as file:
        while line := file.readline(_LONGEST):
            if b'"event": "epoch"' in line:
                record = json.loads(line)
                if isinstance(record, dict) and len(found) < _MOST_EPOCHS:
                    found.append(record)
    return found


class RunLog:
    """A JSONL file, one record a line.

    :param place: what :meth:`sync` returned for a checkpoint, to go on from there; None to begin anew.
    :raises RunError: the file does not hold what it held then; it cannot be written, now or by any method.
    """

    def __init__(self, path: Path, place: dict[str, Any] | None = None) -> None:
        self._hash = hasher()
        kept = b""
        try:
            if place is not None:
                kept = path.read_bytes()[: place["bytes"]]
                self._hash.update(kept)
                if self._hash.hexdigest() != place["digest"]:
                    raise RunError(
                        f"{str(path)!r} is not the log that the checkpoint was taken with; restore it, or remove the "
                        "run folder and train again"
                    )
            self._file = path.open("r+b" if place is not None else "wb")
            if place is not None:
                self._file.truncate(len(kept))
                self._file.seek(len(kept))
        except OSError as error:
            raise RunError(f"the log {str(path)!r} cannot be used: {error.strerror or error}") from error
        self._path, self._bytes = path, len(kept)

    def write(self, record: dict[str, Any]) -> None:
        """Add a record."""
        line = json.dumps(record).encode() + b"\n"
        with self._writing():
            self._file.write(line)
        self._hash.update(line)
        self._bytes += len(line)

    def flush(self) -> None:
        """Let other processes see what was written."""
        with self._writing():
            self._file.flush()

    def sync(self) -> dict[str, Any]:
        """Bring it to disk; returns where it is: ``bytes`` and a ``digest`` of them."""
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())
        return {"bytes": self._bytes, "digest": self._hash.hexdigest()}

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"the log {str(self._path)!r} cannot be written: {error.strerror or error}; make room, and the same "
                "command goes on from the last checkpoint"
            ) from error

    def close(self) -> None:
        """Close the file; what could not be written was said before."""
        with suppress(OSError):
            self._file.close()
