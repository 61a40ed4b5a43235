"""Where the objects of a store lie: names to bytes, with atomic puts. Names use '/' and are relative to the store.

A folder is served here; a URL (``s3://…``, ``gs://…``, ``memory://…``) by ``cloud.py``, and one that can only be read
(``https://…``, ``hf://…``) by ``web.py``, imported when one is given.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from logitstore.errors import CorruptStoreError, StoreError, UsageError
from logitstore.store.names import check_name, most_bytes

#: Scratch of writers; no part of a store's content.
SCRATCH = "tmp"
#: What a URL of a store may begin with.
SCHEMES = ("s3", "gs", "memory")
#: What the URL of a store may begin with that can only be read.
READ_ONLY = ("https", "http", "hf")
_SCRATCH_NAME = re.compile(r".*~(?P<host>[^~]*)~(?P<pid>[0-9]{1,15})~[^~]*", re.DOTALL)
_STALE_SECONDS = 3600.0
_SYNCED_AT_ONCE = 8
_ATTEMPTS = 50
_DEEPEST = 6  # folders below the store that a listing goes down
_HOLES_BYTES, _HOLES_SHARE = 1 << 26, 64  # from how many bytes on, and so much larger than what lies on the disk
_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFLNK: "link",
          stat.S_IFCHR: "device", stat.S_IFBLK: "device"}  # fmt: skip

Result = TypeVar("Result")


class Storage(Protocol):
    """A flat set of named objects. A store may come from a stranger: see :mod:`logitstore.store.names`.

    Whatever reads raises CorruptStoreError for a name that cannot be one of a store, for what is no plain file, and for
    what is larger than such an object can be.
    """

    @property
    def location(self) -> str:
        """What a user calls the store."""

    def get(self, name: str) -> bytes:
        """An object's bytes; FileNotFoundError where there is none."""

    def get_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        """The bytes of some objects, in their order, read at once where that helps; None where there is none."""

    def contents(
        self, prefix: str = "", stem: str = "", wanted: Callable[[str], bool] = lambda name: True
    ) -> Iterator[tuple[str, bytes | None]]:
        """What :meth:`names` finds and is wanted, by name, and its bytes; None where it has gone since."""

    def put(self, name: str, content: bytes, still: Callable[[], bool] = lambda: True) -> bool:
        """Write an object whole or not at all, over what was there; whether it was written.

        :param still: asked before it is tried again, which it is only where this holds.
        """

    def put_many(self, contents: Mapping[str, bytes]) -> None:
        """Write some objects, in no order, at once where that helps; each as :meth:`put` does."""

    def create_many(self, contents: Mapping[str, bytes]) -> list[str]:
        """Create some objects as :meth:`create` does; the names of those that were there, which stay as they are."""

    def create(self, name: str, content: bytes, still: Callable[[], bool] = lambda: True) -> bool:
        """Write an object unless there is one of that name, in one step; whether it was written.

        :param still: asked before it is tried again, which it is only where this holds.
        """

    def replace(self, name: str, content: bytes, expected: bytes) -> bool:
        """Write an object over one that holds ``expected``; whether it was written.

        One step on object stores, and in a folder whose file system has locks; where it has none, two that replace the
        same bytes at the same moment may both be told so.
        """

    def delete(self, name: str, still: Callable[[], bool] = lambda: True) -> None:
        """Remove an object if it is there.

        :param still: asked before it is tried again, which it is only where this holds.
        :raises StoreError: it may also be gone, and only the answer be lost.
        """

    def names(self, prefix: str = "", stem: str = "") -> Iterator[str]:
        """The names in ``prefix`` (a folder, without a closing '/') that begin with ``stem`` there, sorted."""

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """The names in ``prefix``, sorted, and the bytes of each object, from listings alone."""

    def size(self, name: str) -> int:
        """Bytes of an object; FileNotFoundError where there is none."""

    def sweep_scratch(self) -> None:
        """Remove what writers that are gone left half-written."""


class LocalStorage:
    """A folder. An object is written beside, flushed to the disk, and then renamed to its name.

    Only plain files are read, and only those within the folder; nothing is written or removed through a link.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    @property
    def location(self) -> str:
        return str(self.root)

    def get(self, name: str) -> bytes:
        descriptor = self._open(name)
        try:
            with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
                return file.read()
        except OSError as error:
            raise _cannot_read(self.location, name, error) from error
        finally:
            os.close(descriptor)

    def get_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        for name in names:
            try:
                yield self.get(name)
            except FileNotFoundError:
                yield None

    def contents(
        self, prefix: str = "", stem: str = "", wanted: Callable[[str], bool] = lambda name: True
    ) -> Iterator[tuple[str, bytes | None]]:
        names = list(filter(wanted, self.names(prefix, stem)))
        yield from zip(names, self.get_many(names), strict=True)

    def put(self, name: str, content: bytes, still: Callable[[], bool] = lambda: True) -> bool:
        self._put(name, content)
        self._sync_folders([name])
        return True

    def put_many(self, contents: Mapping[str, bytes]) -> None:
        with ThreadPoolExecutor(_SYNCED_AT_ONCE, "put") as pool:  # a disk flushes many for the price of one
            list(pool.map(self._put, contents, contents.values()))
        self._sync_folders(contents)

    def create_many(self, contents: Mapping[str, bytes]) -> list[str]:
        with ThreadPoolExecutor(_SYNCED_AT_ONCE, "put") as pool:
            made = list(pool.map(self._create, contents, contents.values()))
        self._sync_folders(contents)
        return [name for name, new in zip(contents, made, strict=True) if not new]

    def create(self, name: str, content: bytes, still: Callable[[], bool] = lambda: True) -> bool:
        made = self._create(name, content)
        self._sync_folders([name])
        return made

    def replace(self, name: str, content: bytes, expected: bytes) -> bool:
        if next(self.get_many([name])) != expected:
            return False
        try:
            descriptor = self._open_to_lock(name)
        except FileNotFoundError:
            return False
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another is replacing it at this moment
                return False
            except OSError:  # a file system without locks
                pass
            if next(self.get_many([name])) != expected:
                return False
            self.put(name, content)
            return next(self.get_many([name])) == content
        finally:
            os.close(descriptor)

    def delete(self, name: str, still: Callable[[], bool] = lambda: True) -> None:
        target = self._target(name)
        try:
            target.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {name} of {self.location}: {error.strerror or error}") from error
        for parent in target.parents:
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
            with contextlib.suppress(OSError):  # gone since it was listed, or a link that leads nowhere
                found[name] = Path(path).stat().st_size
        return dict(sorted(found.items()))

    def _walk(self, prefix: str) -> Iterator[tuple[str, str]]:
        """What lies in a folder that is no folder itself; links to folders, and folders too far down, among it."""
        root = os.fspath(self.root)
        top = self._place(prefix) if prefix else root
        for folder, folders, names in os.walk(top, onerror=self._raise_unlistable):
            base = os.path.relpath(folder, root).replace(os.sep, "/")
            base = "" if base == "." else f"{base}/"
            deep = base.count("/") >= _DEEPEST
            for name in [*names, *(name for name in folders if deep or Path(folder, name).is_symlink())]:
                yield f"{base}{name}", f"{folder}/{name}"
            if deep:
                folders.clear()

    def _raise_unlistable(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise StoreError(f"cannot list {error.filename}: {error.strerror}; check the permissions") from error

    def size(self, name: str) -> int:
        descriptor = self._open(name)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def file(self, name: str) -> Path:
        """Where an object lies, for those who open it themselves; it is a plain file.

        :raises FileNotFoundError: there is none. :raises CorruptStoreError: as reading it does.
        """
        os.close(self._open(name))
        return Path(self._place(name))

    def sweep_scratch(self) -> None:
        for name in list(self.names(SCRATCH)):
            match = _SCRATCH_NAME.fullmatch(name)
            if match is None:  # no writer's
                continue
            if match["host"] == socket.gethostname():
                left = not process_exists(int(match["pid"]))
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
        scratch = self._target(f"{SCRATCH}/{name.replace('/', '_')}~{mark}")
        try:
            with _in_folder(scratch, lambda path: path.open("xb")) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise _cannot_write(self.location, name, error) from error
        return scratch

    def _open(self, name: str) -> int:
        """A descriptor of an object, which is a plain file within the store; never waits for one.

        :raises FileNotFoundError: there is none. :raises StoreError: it cannot be read.
        """
        path = self._place(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except NotADirectoryError as error:
            if "/" in name:
                raise FileNotFoundError(f"{self.location} holds no {name}") from error
            raise
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENODEV):
                raise self._no_file(name, os.lstat(path).st_mode) from error
            raise _cannot_read(self.location, name, error) from error
        found = os.fstat(descriptor)
        wrong = None
        if not stat.S_ISREG(found.st_mode):
            wrong = self._no_file(name, found.st_mode)
        elif found.st_size > (most := most_bytes(name)):
            wrong = CorruptStoreError(
                f"{self.location}: {name} has {found.st_size:,} bytes, and such an object at most {most:,}; remove it, "
                "or restore it from a copy"
            )
        elif found.st_size > _HOLES_BYTES and found.st_blocks * 512 < found.st_size // _HOLES_SHARE:
            wrong = CorruptStoreError(
                f"{self.location}: {name} claims {found.st_size:,} bytes and holds {found.st_blocks * 512:,} on the "
                "disk; restore it from a copy"
            )
        if wrong is not None:
            os.close(descriptor)
            raise wrong
        return descriptor

    def _no_file(self, name: str, mode: int) -> CorruptStoreError:
        kind = _KINDS.get(stat.S_IFMT(mode), "thing of another kind")
        return CorruptStoreError(
            f"{self.location}: {name} is a {kind}, not a file; remove it, or restore the file from a copy"
        )

    def _place(self, name: str) -> str:
        """Where an object lies; links on the way there are followed, and lead nowhere outside of the store."""
        check_name(name, self.location)
        path = os.fspath(self.root)
        for part in name.split("/"):
            path = f"{path}/{part}"
            try:
                if stat.S_ISLNK(os.lstat(path).st_mode):
                    path = self._followed(path)
            except (FileNotFoundError, NotADirectoryError):  # which opening it will tell
                continue
        return path

    def _followed(self, path: str) -> str:
        link = os.path.relpath(path, self.root)
        try:
            target = os.path.realpath(path, strict=True)
        except OSError as error:
            raise CorruptStoreError(
                f"{self.location}: {link} is a link that leads nowhere; remove it, or restore the file from a copy"
            ) from error
        root = os.path.realpath(self.root)
        if os.path.commonpath([root, target]) != root or target == root:
            raise CorruptStoreError(
                f"{self.location}: {link} is a link that leads out of the store; copy the store with the files that "
                "its links stand for (cp -rL), or remove it"
            )
        return target

    def _target(self, name: str) -> Path:
        """Where an object is written or removed: its folders are folders, and no links.

        :raises CorruptStoreError: one of them is a link.
        """
        check_name(name, self.location)
        path = os.fspath(self.root)
        for part in name.split("/")[:-1]:
            path = f"{path}/{part}"
            try:
                linked = stat.S_ISLNK(os.lstat(path).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                break
            if linked:
                raise CorruptStoreError(
                    f"{self.location}: {os.path.relpath(path, self.root)} is a link, and nothing is written through "
                    "links; put the folder itself there"
                )
        return self.root / name

    def _put(self, name: str, content: bytes) -> None:
        self._target(name)
        scratch = self._write_scratch(name, content)
        try:
            _in_folder(self.root / name, lambda target: scratch.replace(target))
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise _cannot_write(self.location, name, error) from error

    def _create(self, name: str, content: bytes) -> bool:
        self._target(name)
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

    def _open_to_lock(self, name: str) -> int:
        how = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(self._target(name), os.O_RDWR | how)  # network file systems lock only what is open to write
        except PermissionError:  # another user's
            return os.open(self._target(name), os.O_RDONLY | how)

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


def open_storage(location: str | os.PathLike[str], *, to_write: bool = False) -> Storage:
    """The storage at a path, or at a URL; nothing is read yet, but for where on the hub it is.

    :param to_write: whether something is to be written there.
    :raises UsageError: a URL of another scheme than :data:`SCHEMES`, or without a bucket.
    :raises MissingExtraError: a URL, and the extra ``cloud`` is not installed.
    """
    if not isinstance(location, str):
        text = os.fspath(location)
        if text.startswith(tuple(f"{scheme}:/" for scheme in (*SCHEMES, *READ_ONLY))):
            raise UsageError(f"{text} looks like a URL that became a path and so lost a '/'; give the URL as a string")
        return LocalStorage(text)
    if not is_url(location):
        return LocalStorage(location)
    scheme = location.split("://", 1)[0].lower()
    if scheme in READ_ONLY:
        if to_write:
            raise UsageError(
                f"{location}: stores at {scheme}:// can only be read; give a folder, or a bucket ("
                + ", ".join(f"{known}://" for known in SCHEMES)
                + ")"
            )
        from logitstore.store.web import WebStorage

        return WebStorage(location)
    if scheme not in SCHEMES:
        allowed = ", ".join(f"{known}://" for known in (*SCHEMES, "https", "hf"))
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
    """Whether a process of this host is alive; none has a number that is not positive, or too large."""
    if pid <= 0:  # stands for several processes
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _cannot_read(location: str, name: str, error: OSError) -> StoreError:
    return StoreError(
        f"cannot read {name} in the store {location}: {error.strerror or error}; check the permissions and the disk"
    )


def _cannot_write(location: str, name: str, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write {name} in the store {location}: {error.strerror or error}; every committed block is intact, "
        "and the same command goes on from there once there is room and permission to write"
    )
