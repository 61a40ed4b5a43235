"""Where the objects of a store lie: names to bytes, with atomic puts. Paths use '/' and are relative to the store."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from logitstore.errors import StoreError

#: Scratch of writers; no part of a store's content.
SCRATCH = "tmp"
_STALE_SECONDS = 3600.0


class Storage(Protocol):
    """A flat set of named objects."""

    @property
    def location(self) -> str:
        """What a user calls the store."""

    def get(self, name: str) -> bytes:
        """An object's bytes; FileNotFoundError where there is none."""

    def put(self, name: str, content: bytes) -> None:
        """Write an object whole or not at all, over what was there."""

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one of that name, in one step; whether it was written."""

    def delete(self, name: str) -> None:
        """Remove an object if it is there."""

    def names(self, prefix: str = "") -> Iterator[str]:
        """The names that start with ``prefix`` (a folder, without a closing '/'), sorted."""

    def size(self, name: str) -> int:
        """Bytes of an object; FileNotFoundError where there is none."""

    def sweep_scratch(self) -> None:
        """Remove what writers that are gone left half-written."""


class LocalStorage:
    """A folder. An object is written beside, flushed to the disk, and then renamed to its name."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    @property
    def location(self) -> str:
        return str(self.root)

    def get(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def put(self, name: str, content: bytes) -> None:
        scratch = self._write_scratch(name, content)
        try:
            self._in_parent(name, lambda target: scratch.replace(target))
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise _cannot_write(self.location, name, error) from error

    def create(self, name: str, content: bytes) -> bool:
        scratch = self._write_scratch(name, content)
        try:
            self._in_parent(name, lambda target: os.link(scratch, target))
        except FileExistsError:
            return False
        except OSError as error:
            raise _cannot_write(self.location, name, error) from error
        finally:
            scratch.unlink(missing_ok=True)
        return True

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)
        for parent in (self.root / name).parents:
            if parent == self.root:
                break
            try:
                parent.rmdir()
            except OSError:
                break

    def names(self, prefix: str = "") -> Iterator[str]:
        base = self.root / prefix
        found = [
            (Path(folder) / name).relative_to(self.root).as_posix()
            for folder, _, names in os.walk(base)
            for name in names
        ]
        return iter(sorted(found))

    def size(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def sweep_scratch(self) -> None:
        for name in list(self.names(SCRATCH)):
            _, host, pid, _ = name.rsplit("~", 3)
            if host == socket.gethostname():
                left = not process_exists(int(pid))
            else:
                left = time.time() - (self.root / name).stat().st_mtime > _STALE_SECONDS
            if left:
                self.delete(name)
        with contextlib.suppress(OSError):
            (self.root / SCRATCH).rmdir()

    def _write_scratch(self, name: str, content: bytes) -> Path:
        mark = f"{socket.gethostname()}~{os.getpid()}~{secrets.token_hex(4)}"
        scratch = self.root / SCRATCH / f"{name.replace('/', '_')}~{mark}"
        try:
            while True:
                scratch.parent.mkdir(parents=True, exist_ok=True)
                try:
                    file = scratch.open("xb")
                except FileNotFoundError:  # another builder has just removed the empty scratch folder
                    continue
                break
            with file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise _cannot_write(self.location, name, error) from error
        return scratch

    def _in_parent(self, name: str, place: Callable[[Path], object]) -> None:
        target = self.root / name
        while True:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                place(target)
            except FileNotFoundError:
                if target.parent.is_dir():
                    raise
                continue
            break
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def process_exists(pid: int) -> bool:
    """Whether a process of this host is alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _cannot_write(location: str, name: str, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write {name} in the store {location}: {error.strerror or error}; every committed block is intact, "
        "and the same command goes on from there once there is room and permission to write"
    )
