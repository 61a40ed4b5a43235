"""A simulated disk and a simulated bucket, down to what the storages ask of the system and of the object store."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import random
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

from logitstore.store import cloud, storage
from logitstore.store.format import commits
from logitstore.store.storage import LocalStorage
from tests.faults.scheduler import ROOT, Builder, World

# a folder, down to what is asked of the operating system


@dataclass(eq=False)
class File:
    """A file: what a reader finds, and what is left of it if the power fails."""

    content: bytes = b""
    kept: bytes | None = None
    changed: float = 0.0
    locked: tuple[Builder, int] | None = None  # by which process, through which descriptor

    def lose(self, chance: random.Random) -> None:
        if self.kept != self.content:
            torn = self.content[: chance.randrange(len(self.content) + 1)]
            self.content = self.kept if self.kept is not None and chance.random() < 0.5 else torn
        self.kept = self.content


@dataclass(eq=False)
class Folder:
    """A folder: its entries, and those that are left if the power fails."""

    entries: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    def lose(self, chance: random.Random) -> None:
        for name in sorted(self.entries.keys() | self.kept.keys()):
            now, then = self.entries.get(name), self.kept.get(name)
            if now is not then and chance.random() < 0.5:
                if then is None:
                    del self.entries[name]
                else:
                    self.entries[name] = then
        self.kept = dict(self.entries)
        for entry in self.entries.values():
            entry.lose(chance)


class Disk:
    """A POSIX file system: names appear and vanish in one step; what was not synced may be lost with the power."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.root = Folder()
        self.open_files: dict[int, Any] = {}
        self._flat: dict[str, bytes] | None = None

    def storage(self) -> LocalStorage:
        return LocalStorage(ROOT)

    def fill(self, objects: dict[str, bytes]) -> None:
        """Begin with some objects, all of them safe."""
        for name, content in objects.items():
            *folders, last = name.split("/")
            at = self.root
            for folder in (ROOT, *folders):
                inside = at.kept[folder] = at.entries.setdefault(folder, Folder())
                at = inside
            at.kept[last] = at.entries[last] = File(content, content)

    def object(self, name: str) -> bytes | None:
        """An object's bytes, if it is there."""
        at: Any = self.root.entries.get(ROOT)
        for part in name.split("/"):
            at = at.entries.get(part) if isinstance(at, Folder) else None
        return at.content if isinstance(at, File) else None

    def objects(self) -> dict[str, bytes]:
        """Every object of the store, scratch included."""
        if self._flat is None:
            store = self.root.entries.get(ROOT)
            self._flat = dict(self._walk(store, "")) if store is not None else {}
        return self._flat

    def _walk(self, folder: Folder, base: str) -> Iterator[tuple[str, bytes]]:
        for name, entry in folder.entries.items():
            if isinstance(entry, Folder):
                yield from self._walk(entry, f"{base}{name}/")
            else:
                yield f"{base}{name}", entry.content

    def crash(self) -> None:
        """The power fails: every builder is gone, and so is, perhaps, what was not synced."""
        self._flat = None
        self.open_files.clear()
        self.root.lose(self.world.scheduler.random)
        self.world.see_all()

    def settle(self) -> None:
        """Nothing is under way here."""

    # calls

    def call(self, what: str, path: Any = "", acts: bool = False) -> None:
        self.world.scheduler.step(f"{what} {path}", acts=acts)

    def find(self, path: PurePosixPath | str) -> Any:
        entry: Any = self.root
        for name in path.split("/") if isinstance(path, str) else path.parts:
            if not isinstance(entry, Folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
            if name not in entry.entries:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            entry = entry.entries[name]
        return entry

    def changed(self, *paths: PurePosixPath) -> None:
        self._flat = None
        for path in paths:
            self.world.see_object("/".join(path.parts[1:]))

    def opened(self, what: Any) -> int:
        number = len(self.open_files) + 10
        while number in self.open_files:
            number += 1
        self.open_files[number] = what
        return number


class _Handle:
    """An open file."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.number = _disk().opened(file)

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *_: object) -> None:
        _close(self.number)

    def write(self, content: bytes) -> int:
        scheduler = _disk().world.scheduler
        half = len(content) // 2
        self.file.content += content[:half]  # a builder can die in the middle
        _disk()._flat = None
        scheduler.step("write")
        self.file.content += content[half:]
        self.file.changed = scheduler.now
        _disk()._flat = None
        return len(content)

    def read(self) -> bytes:
        _disk().call("read")
        return self.file.content

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        return self.number


def _disk() -> Disk:
    found = World.now.place
    assert isinstance(found, Disk)
    return found


def _close(number: int) -> None:
    file = _disk().open_files.pop(number, None)
    if isinstance(file, File) and file.locked is not None and file.locked[1] == number:
        file.locked = None


class SimulatedPath(PurePosixPath):
    """What the storage asks of a path."""

    def read_bytes(self) -> bytes:
        _disk().call("read", self)
        found = _disk().find(self)
        if isinstance(found, Folder):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self))
        return bytes(found.content)

    def open(self, mode: str = "r") -> _Handle:
        _disk().call(f"open {mode}", self)
        if mode.startswith("x"):
            folder = _disk().find(self.parent)
            if self.name in folder.entries:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self))
            folder.entries[self.name] = File(changed=_disk().world.scheduler.now)
            _disk()._flat = None
        elif mode.startswith("w"):
            folder = _disk().find(self.parent)
            file = folder.entries.setdefault(self.name, File())
            file.content = b""
            _disk()._flat = None
        return _Handle(_disk().find(self))

    def stat(self) -> Any:
        return _status(_disk().find(self))

    def is_symlink(self) -> bool:
        return False

    def exists(self) -> bool:
        try:
            _disk().find(self)
        except OSError:
            return False
        return True

    def __truediv__(self, name: Any) -> SimulatedPath:
        return _joined(self, name)

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        if exist_ok and self.exists():
            return None
        for path in [*reversed(self.parents[:-1]), self] if parents else [self]:
            try:
                folder = _disk().find(path.parent)
                if path.name in folder.entries:
                    if path == self and not exist_ok:
                        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
                    continue
                _disk().call("mkdir", path)
                folder = _disk().find(path.parent)
                folder.entries.setdefault(path.name, Folder())
            except FileNotFoundError:  # it has been removed meanwhile; that is the caller's
                if path == self or not parents:
                    raise
                return self.mkdir(parents, exist_ok)

    def unlink(self, missing_ok: bool = False) -> None:
        _disk().call("unlink", self, acts=not self._scratch)
        try:
            folder = _disk().find(self.parent)
            del folder.entries[self.name]
        except (FileNotFoundError, KeyError):
            if not missing_ok:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self)) from None
            return
        _disk().changed(self)

    def rmdir(self) -> None:
        folder = _disk().find(self.parent)
        own = _disk().find(self)
        if own.entries:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(self))
        _disk().call("rmdir", self)
        own, folder = _disk().find(self), _disk().find(self.parent)
        if own.entries:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(self))
        del folder.entries[self.name]

    def replace(self, target: Any) -> None:  # type: ignore[override]
        _disk().call("rename to", target, acts=True)
        into = _disk().find(target.parent)
        folder = _disk().find(self.parent)
        if self.name not in folder.entries:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        into.entries[target.name] = folder.entries.pop(self.name)
        _disk().changed(target)

    rename = replace

    @property
    def _scratch(self) -> bool:
        return len(self.parts) > 1 and self.parts[1] == storage.SCRATCH


@functools.lru_cache(maxsize=4096)
def _joined(path: PurePosixPath, name: Any) -> SimulatedPath:
    return PurePosixPath.__truediv__(path, name)  # type: ignore[return-value]


def _status(found: Any) -> Any:
    size = len(found.content) if isinstance(found, File) else 0
    kind = stat.S_IFREG if isinstance(found, File) else stat.S_IFDIR
    return SimpleNamespace(st_mode=kind, st_size=size, st_blocks=size, st_mtime=getattr(found, "changed", 0.0))


class SimulatedOs:
    """What the storage asks of ``os``."""

    O_RDONLY = O_RDWR = O_NONBLOCK = O_NOFOLLOW = O_CLOEXEC = 0
    sep = os.sep
    fspath = staticmethod(os.fspath)
    path = os.path
    PathLike = os.PathLike

    @staticmethod
    def getpid() -> int:
        return World.now.builder.pid

    @staticmethod
    def link(source: SimulatedPath, target: SimulatedPath) -> None:
        _disk().call("link to", target, acts=True)
        file = _disk().find(source)
        into = _disk().find(target.parent)
        if target.name in into.entries:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        into.entries[target.name] = file
        _disk().changed(target)

    @staticmethod
    def open(path: Any, flags: int) -> int:
        found = _disk().find(path)
        if isinstance(found, File):
            _disk().call("open", path)
            found = _disk().find(path)
        return _disk().opened(found)

    @staticmethod
    @contextlib.contextmanager
    def fdopen(number: int, *_: object, **__: object) -> Iterator[Any]:
        yield SimpleNamespace(read=lambda: _disk().open_files[number].content)

    @staticmethod
    def close(number: int) -> None:
        _close(number)

    @staticmethod
    def lstat(path: Any) -> Any:
        return _status(_disk().find(path))

    @staticmethod
    def fstat(number: int) -> Any:
        return _status(_disk().open_files[number])

    @staticmethod
    def fsync(number: int) -> None:
        _disk().call("fsync")
        found = _disk().open_files.get(number)
        if isinstance(found, File):
            found.kept = found.content
        elif isinstance(found, Folder):
            found.kept = dict(found.entries)

    @staticmethod
    def walk(path: Any, **_: object) -> Iterator[tuple[str, list[str], list[str]]]:
        _disk().call("list", path)
        try:
            found = _disk().find(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        if isinstance(found, File):
            return
        pending = [(str(path), found)]
        while pending:
            where, folder = pending.pop()
            names = sorted(folder.entries)
            folders = [name for name in names if isinstance(folder.entries[name], Folder)]
            files = [name for name in names if isinstance(folder.entries[name], File)]
            yield where, folders, files
            pending += [(f"{where}/{name}", folder.entries[name]) for name in folders if name in folder.entries]


class SimulatedFcntl:
    """What the storage asks of ``fcntl``: locks of files, gone with the process."""

    LOCK_EX, LOCK_NB = 2, 4

    @staticmethod
    def flock(number: int, flags: int) -> None:
        _disk().call("lock")
        file = _disk().open_files[number]
        if file.locked is not None and file.locked[0].alive:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        file.locked = (World.now.builder, number)


# a bucket, down to the requests


class AlreadyExistsError(Exception):
    """A condition was not met."""


class RequestError(Exception):
    """A request that has failed for good."""


@dataclass
class Late:
    """A request that is still under way."""

    what: str
    name: str
    apply: Callable[[], None]
    until: float


class Bucket:
    """An object store, as ``obstore`` shows it: strongly consistent, puts in one step, conditional where asked."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.held: dict[str, bytes] = {}
        self.late: list[Late] = []
        self.by_content = world.scheduler.random.random() < 0.5  # whether an ETag is a digest, as S3's are
        self.version = 0
        self.tags: dict[str, str] = {}

    def storage(self) -> cloud.ObjectStorage:
        made = object.__new__(cloud.ObjectStorage)
        made._scheme, made._bucket, made._location = "s3", ROOT, f"s3://{ROOT}"
        made._api, made._store = self, None
        made._errors = SimpleNamespace(BaseError=RequestError)
        made._unmet = (AlreadyExistsError, AlreadyExistsError)
        made._begin()
        return made

    def fill(self, objects: dict[str, bytes]) -> None:
        """Begin with some objects."""
        for name in sorted(objects, key=lambda name: name.startswith(commits.FOLDER)):
            self._put(name, objects[name], "create")

    def object(self, name: str) -> bytes | None:
        """An object's bytes, if it is there."""
        return self.held.get(name)

    def objects(self) -> dict[str, bytes]:
        return self.held

    def crash(self) -> None:
        """The power of the builders' machine fails; the bucket is elsewhere."""
        self.world.see_all()

    def settle(self) -> None:
        """What is under way arrives."""
        while self.late:
            self._land(self.late.pop(0))

    def on_step(self) -> None:
        scheduler = self.world.scheduler
        for one in [one for one in self.late if one.until <= scheduler.now or scheduler.random.random() < 0.05]:
            self.late.remove(one)
            self._land(one)

    def _land(self, one: Late) -> None:
        self.world.scheduler.log(f"{one.what} {one.name} arrives late")
        with contextlib.suppress(AlreadyExistsError):
            one.apply()

    # requests

    def _request(self, what: str, name: str, apply: Callable[[], Any], *, writes: bool, late: bool = True) -> Any:
        scheduler = self.world.scheduler
        scheduler.step(f"{what} {name}", acts=False)
        try:
            roll = scheduler.random.random() / max(scheduler.faulty, 1e-9)
            if scheduler.calm or roll >= 1.0:
                return apply()
            if roll < 0.3:
                scheduler.log("… is lost on the way")
            elif roll < 0.7 or not writes or not late:
                with contextlib.suppress(AlreadyExistsError, FileNotFoundError):
                    apply()
                scheduler.log("… is done, and its answer is lost")
            else:
                self.late.append(Late(what, name, apply, scheduler.now + 20 * scheduler.random.random()))
                scheduler.log("… is under way, and not waited for")
            if scheduler.random.random() < 0.2:
                scheduler.log("… has failed")
                raise RequestError("no answer")
            raise RequestError("no answer (kind: Interrupted)")  # which is sent again
        finally:
            if writes:
                self.world.builder.guarded = None

    def _put(self, name: str, content: bytes, mode: Any) -> None:
        there = name in self.held
        if (mode == "create" and there) or (isinstance(mode, dict) and self.tags.get(name) != mode["e_tag"]):
            raise AlreadyExistsError
        self.held[name] = content
        self.version += 1
        self.tags[name] = hashlib.md5(content).hexdigest() if self.by_content else str(self.version)
        self.world.see_object(name)

    def put(
        self, _: Any, name: str, content: bytes, mode: Any = "overwrite", *, use_multipart: bool = False
    ) -> dict[str, str]:
        def write() -> dict[str, str]:
            self._put(name, content, mode)
            return {"e_tag": self.tags[name]}

        kind = "replace" if isinstance(mode, dict) else {"create": "create", "overwrite": "put"}[mode]
        return dict(self._request(kind, name, write, writes=True))

    def get(self, _: Any, name: str) -> Any:
        def read() -> Any:
            if name not in self.held:
                raise FileNotFoundError(name)
            content, tag = self.held[name], self.tags[name]
            return SimpleNamespace(bytes=lambda: content, meta={"e_tag": tag, "version": None, "size": len(content)})

        return self._request("get", name, read, writes=False)

    def head(self, _: Any, name: str) -> Any:
        return self._request("head", name, lambda: {"size": len(self.held[name])}, writes=False)

    def delete(self, _: Any, name: str) -> None:
        def remove() -> None:
            if self.held.pop(name, None) is not None:
                self.tags.pop(name)
                self.world.see_object(name)

        self._request("delete", name, remove, writes=True, late=False)

    def list(self, _: Any, prefix: str | None, offset: str | None = None, chunk_size: int = 0) -> Any:
        begin = f"{prefix}/" if prefix else ""

        def found() -> Any:
            return [
                {"path": name, "size": len(self.held[name]), "e_tag": self.tags[name]}
                for name in sorted(self.held)
                if name.startswith(begin) and (offset is None or name > offset)
            ]

        return [self._request("list", begin, found, writes=False)]
