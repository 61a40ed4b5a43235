"""Where the objects of a store lie: names to bytes, with atomic puts. Names use '/' and are relative to the store.

A folder is served here; a URL (``s3://…``, ``gs://…``, ``memory://…``) by ``cloud.py``, imported when one is given.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from logitstore.errors import StoreError, UsageError

#: Scratch of writers; no part of a store's content.
SCRATCH = "tmp"
#: What a URL of a store may begin with.
SCHEMES = ("s3", "gs", "memory")
_STALE_SECONDS = 3600.0
_SYNCED_AT_ONCE = 8
_ATTEMPTS = 50

Result = TypeVar("Result")


class Storage(Protocol):
    """A flat set of named objects."""

    @property
    def location(self) -> str:
        """What a user calls the store."""

    def get(self, name: str) -> bytes:
        """An object's bytes; FileNotFoundError where there is none."""

    def get_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        """The bytes of some objects, in their order, read at once where that helps; None where there is none."""

    def put(self, name: str, content: bytes) -> None:
        """Write an object whole or not at all, over what was there."""

    def put_many(self, contents: Mapping[str, bytes]) -> None:
        """Write some objects, in no order, at once where that helps; each as :meth:`put` does."""

    def create_many(self, contents: Mapping[str, bytes]) -> list[str]:
        """Create some objects as :meth:`create` does; the names of those that were there, which stay as they are."""

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one of that name, in one step; whether it was written."""

    def replace(self, name: str, content: bytes, expected: bytes) -> bool:
        """Write an object over one that holds ``expected``; whether it was written.

        One step on object stores, and in a folder whose file system has locks; where it has none, two that replace the
        same bytes at the same moment may both be told so.
        """

    def delete(self, name: str) -> None:
        """Remove an object if it is there."""

    def names(self, prefix: str = "", stem: str = "") -> Iterator[str]:
        """The names in ``prefix`` (a folder, without a closing '/') that begin with ``stem`` there, sorted."""

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """The names in ``prefix``, sorted, and the bytes of each object, from listings alone."""

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

    def get_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        for name in names:
            try:
                yield self.get(name)
            except FileNotFoundError:
                yield None

    def put(self, name: str, content: bytes) -> None:
        self._put(name, content)
        self._sync_folders([name])

    def put_many(self, contents: Mapping[str, bytes]) -> None:
        with ThreadPoolExecutor(_SYNCED_AT_ONCE, "put") as pool:  # a disk flushes many for the price of one
            list(pool.map(self._put, contents, contents.values()))
        self._sync_folders(contents)

    def create_many(self, contents: Mapping[str, bytes]) -> list[str]:
        with ThreadPoolExecutor(_SYNCED_AT_ONCE, "put") as pool:
            made = list(pool.map(self._create, contents, contents.values()))
        self._sync_folders(contents)
        return [name for name, new in zip(contents, made, strict=True) if not new]

    def create(self, name: str, content: bytes) -> bool:
        made = self._create(name, content)
        self._sync_folders([name])
        return made

    def replace(self, name: str, content: bytes, expected: bytes) -> bool:
        try:
            file = self._open_to_lock(name)
        except FileNotFoundError:
            return False
        with file:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another is replacing it at this moment
                return False
            except OSError:  # a file system without locks
                pass
            if next(self.get_many([name])) != expected:
                return False
            self.put(name, content)
            return next(self.get_many([name])) == content

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)
        for parent in (self.root / name).parents:
            if parent == self.root:
                break
            try:
                parent.rmdir()
            except OSError:
                break

    def names(self, prefix: str = "", stem: str = "") -> Iterator[str]:
        begin = f"{prefix}/{stem}" if prefix else stem
        return iter(sorted(name for name, _ in self._walk(prefix) if name.startswith(begin)))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        found = {}
        for name, path in self._walk(prefix):
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                found[name] = path.stat().st_size
        return dict(sorted(found.items()))

    def _walk(self, prefix: str) -> Iterator[tuple[str, Path]]:
        for folder, _, names in os.walk(self.root / prefix):
            base = Path(folder).relative_to(self.root)
            for name in names:
                yield (base / name).as_posix(), Path(folder, name)

    def size(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def sweep_scratch(self) -> None:
        for name in list(self.names(SCRATCH)):
            _, host, pid, _ = name.rsplit("~", 3)
            if host == socket.gethostname():
                left = not process_exists(int(pid))
            else:
                try:
                    left = time.time() - (self.root / name).stat().st_mtime > _STALE_SECONDS
                except FileNotFoundError:  # its writer has just moved it into place
                    continue
            if left:
                self.delete(name)
        with contextlib.suppress(OSError):
            (self.root / SCRATCH).rmdir()

    def _write_scratch(self, name: str, content: bytes) -> Path:
        mark = f"{socket.gethostname()}~{os.getpid()}~{secrets.token_hex(4)}"
        scratch = self.root / SCRATCH / f"{name.replace('/', '_')}~{mark}"
        try:
            with _in_folder(scratch, lambda path: path.open("xb")) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise _cannot_write(self.location, name, error) from error
        return scratch

    def _put(self, name: str, content: bytes) -> None:
        scratch = self._write_scratch(name, content)
        try:
            _in_folder(self.root / name, lambda target: scratch.replace(target))
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise _cannot_write(self.location, name, error) from error

    def _create(self, name: str, content: bytes) -> bool:
        scratch = self._write_scratch(name, content)
        try:
            _in_folder(self.root / name, lambda target: os.link(scratch, target))
        except FileExistsError:
            return False
        except OSError as error:
            raise _cannot_write(self.location, name, error) from error
        finally:
            scratch.unlink(missing_ok=True)
        return True

    def _open_to_lock(self, name: str) -> BinaryIO:
        try:
            return (self.root / name).open("r+b")  # a network file system locks only what is open for writing
        except PermissionError:  # another user's
            return (self.root / name).open("rb")

    def _sync_folders(self, names: Iterable[str]) -> None:
        """Flush the folders that objects have been put in, and those that hold these, to the disk: a name is there
        after a failure of the power only if all of them are."""
        folders = {
            parent for name in names for parent in (self.root / name).parents if parent.is_relative_to(self.root)
        }
        if any("/" not in name for name in names):  # the root, with which a store begins
            folders.add(self.root.parent)
        for folder in sorted(folders, reverse=True):
            try:
                descriptor = os.open(folder, os.O_RDONLY)
            except (FileNotFoundError, PermissionError):  # another builder has removed the object since; not ours
                continue
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def open_storage(location: str | os.PathLike[str]) -> Storage:
    """The storage at a path, or at a URL; nothing is read yet.

    :raises UsageError: a URL of another scheme than :data:`SCHEMES`, or without a bucket.
    :raises MissingExtraError: a URL, and the extra ``cloud`` is not installed.
    """
    if not isinstance(location, str):
        text = os.fspath(location)
        if text.startswith(tuple(f"{scheme}:/" for scheme in SCHEMES)):
            raise UsageError(f"{text} looks like a URL that became a path and so lost a '/'; give the URL as a string")
        return LocalStorage(text)
    if not is_url(location):
        return LocalStorage(location)
    scheme = location.split("://", 1)[0].lower()
    if scheme not in SCHEMES:
        allowed = ", ".join(f"{known}://" for known in SCHEMES)
        raise UsageError(f"{scheme}:// is no place for a store; allowed are {allowed} and a path of this machine")
    from logitstore.store.cloud import ObjectStorage

    return ObjectStorage(location)


def is_url(location: str) -> bool:
    """Whether a location is a URL and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", location) is not None


def _in_folder(path: Path, act: Callable[[Path], Result]) -> Result:
    """Act on a path whose folder is made first, and once more where another builder has just removed it empty."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(FileNotFoundError):
            with contextlib.suppress(FileExistsError):  # it was there, and was gone before this was certain
                path.parent.mkdir(parents=True, exist_ok=True)
            return act(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return act(path)


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
