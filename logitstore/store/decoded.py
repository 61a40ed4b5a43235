"""Decoded targets, kept so that random access is one copy a view: once a machine, not once a process.

A store's targets are decoded block by block, when first used, into a file of fixed-length rows by (view, clip): k
classes as uint16, then k codes of one or two bytes, then, of a store with a quality, the code of the rest. Every
process that has the same store open maps the same file, read-only, whether it was forked, spawned or started on its
own: the file's name is a digest of the store's content. What is mapped is page cache: the kernel keeps the views in use
in memory and gives the rest up when it needs room. The rows of one view lie together, so an epoch that uses one view of
every clip works on 1/V of the file.

The file lies in ``logitstore-<user id>-<secret>`` in the temporary folder (``TMPDIR`` chooses another). The last
process that has the store open removes it; what a killed one left is removed by the next that comes. Where the views do
not all fit on that disk the file holds as many as do, and where not one does, decoded blocks are kept in this process
alone, the most recently used, up to :data:`MOST_KEPT_BYTES`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import secrets
import shutil
import stat
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from multiprocessing import util
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from logitstore.arrays import I64, U8, U16
from logitstore.digests import digest
from logitstore.store.format.commits import Commit
from logitstore.store.storage import LocalStorage, Storage

#: Bytes of decoded blocks that a process keeps in its own memory where there is no room for a file.
MOST_KEPT_BYTES = 1 << 29
_PAGE = 4096
_VERSION = 1  # of the rows' layout
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL

#: Decodes a block: rows of bytes (R, V, width).
Decode = Callable[[Commit], U8]


def pack(classes: U16, codes: U16, code_bytes: int, rests: U8 | None = None) -> U8:
    """Targets as rows of bytes: classes and codes, uint16 (..., k), to uint8 (..., k * (2 + code_bytes)).

    :param rests: the codes of the rests, uint8 (...), which make up another byte.
    """
    kept = codes.astype(np.uint8) if code_bytes == 1 else np.ascontiguousarray(codes).view(np.uint8)
    further = [] if rests is None else [rests[..., None]]
    return np.concatenate([np.ascontiguousarray(classes).view(np.uint8), kept, *further], axis=-1)


def unpack(rows: U8, k: int, code_bytes: int) -> tuple[U16, npt.NDArray[np.unsignedinteger]]:
    """The inverse of :func:`pack`: classes uint16 (n, k), and codes (n, k) of one or two bytes, as they lie.

    What lies behind them is left out.
    """
    classes = np.ascontiguousarray(rows[:, : 2 * k]).view(np.uint16)
    codes = rows[:, 2 * k : (2 + code_bytes) * k]
    return classes, codes if code_bytes == 1 else np.ascontiguousarray(codes).view(np.uint16)


def content_key(storage: Storage, blocks: Sequence[Commit]) -> str:
    """What tells the content of a store, as it lies there now, from any other's.

    Beside the commits it is where the store lies and, in a folder, size and time of every object of a block: if one
    is changed, those who open the store from then on decode it themselves, and find out.
    """
    key = hashlib.blake2b(storage.location.encode(), digest_size=16)
    root = os.fspath(storage.root) if isinstance(storage, LocalStorage) else None
    for block in blocks:
        key.update(block.digest.encode())
        if root is not None:
            for name in block.objects:
                with contextlib.suppress(OSError):
                    found = os.stat(f"{root}/{block.group}/{name}")  # noqa: PTH116 - in a tenth of the time
                    key.update(b"%d %d," % (found.st_size, found.st_mtime_ns))
    return key.hexdigest()


class _UnusableError(Exception):
    """The file cannot be used: there is no room left for it, or it cannot be locked."""


class DecodedTargets:
    """The decoded targets of a store, filled as they are used. Safe to share between threads and forked processes.

    :param key: what tells the store's content from any other's. :param blocks: its commits.
    :param width: bytes of a row.
    :param most_bytes: size of the shared file at most, 0 for none; by default half of the room in the temporary folder.
    """

    def __init__(self, key: str, blocks: Sequence[Commit], width: int, most_bytes: int | None = None) -> None:
        self._key, self._blocks, self._width = key, blocks, width
        self._clips = max(block.first_clip + block.clips for block in blocks)
        self._views = max(block.view_stop for block in blocks)
        self._most_bytes = most_bytes
        self._window: int | None = None  # views a file holds
        self._file: _SharedFile | None = None
        self._kept: OrderedDict[int, U8] = OrderedDict()
        self._lock, self._owner = Lock(), os.getpid()

    def take(self, view: int, clips: I64, blocks: I64, decode: Decode) -> U8:
        """The rows of one view of some clips, uint8 (n, width).

        :param clips: int64 (n,). :param blocks: int64 (n,), the block of each, as positions in the store's blocks.
        :param decode: decodes a block that nobody has decoded yet.
        """
        file = self._file_of(view)
        if file is not None:
            missing = blocks[file.filled[blocks] == 0]
            try:
                for block in np.unique(missing).tolist():
                    with self._own_lock():
                        file.fill(block, self._blocks[block], decode)
                rows: U8 = file.rows[view - file.views.start].take(clips, axis=0)
                return rows
            except _UnusableError:  # go on without
                self._window, self._file = 0, None
        taken = np.empty((len(clips), self._width), dtype=np.uint8)
        for number in np.unique(blocks).tolist():
            where = np.flatnonzero(blocks == number)
            block = self._blocks[number]
            taken[where] = self._kept_block(number, decode)[clips[where] - block.first_clip, view - block.view_start]
        return taken

    def share(self) -> None:
        """Make the file for others to find, if there is none; it is empty until views are used."""
        if self._file is None:
            self._file_of(0)

    def _file_of(self, view: int) -> _SharedFile | None:
        file = self._file
        if file is not None and view in file.views:
            return file
        with self._own_lock():
            if self._file is not None and view in self._file.views:
                return self._file
            try:
                folder = _folder()
                if self._window is None:
                    room = shutil.disk_usage(folder).free // 2 if self._most_bytes is None else self._most_bytes
                    self._window = min(self._views, room // max(1, self._clips * self._width))
                if not self._window:
                    return None
                start = view // self._window * self._window
                views = range(start, min(start + self._window, self._views))
                key = digest(f"{_VERSION} {self._width} {views} {self._key}".encode())
                self._file = None  # the old one first: it may have to make room
                self._file = _SharedFile(folder, key, len(self._blocks), views, self._clips, self._width)
            except OSError:
                self._window, self._file = 0, None
            return self._file

    def _kept_block(self, number: int, decode: Decode) -> U8:
        with self._own_lock():
            if number in self._kept:
                self._kept.move_to_end(number)
            else:
                self._kept[number] = decode(self._blocks[number])
                while len(self._kept) > 1 and sum(block.nbytes for block in self._kept.values()) > MOST_KEPT_BYTES:
                    self._kept.popitem(last=False)
            return self._kept[number]

    def _own_lock(self) -> Lock:
        if self._owner != os.getpid():  # forked, perhaps while a thread of the parent held it
            self._lock, self._owner = Lock(), os.getpid()
        return self._lock


class _SharedFile:
    """The file: one byte a block that says whether it is filled, then, from a whole page on, the rows.

    ``filled`` uint8 (blocks,) and ``rows`` uint8 (views, clips, width) are parts of its ``map``. Whoever uses it holds
    a shared lock of its lock file; who can get that lock alone is the only one, and makes the file anew or removes it.

    :raises OSError: it cannot be made.
    """

    def __init__(self, folder: Path, key: str, blocks: int, views: range, clips: int, width: int) -> None:
        _sweep(folder)
        self.views = views
        self._path = folder / key
        start = -(-blocks // _PAGE) * _PAGE
        size = start + len(views) * clips * width
        lock, self._file = _open_shared(self._path, size)
        util.Finalize(self, _release, (self._path, lock, self._file), exitpriority=0)
        self._start = start
        self.map = mmap.mmap(self._file, size, access=mmap.ACCESS_READ)
        bytes_of = np.frombuffer(self.map, dtype=np.uint8)
        self.filled: U8 = bytes_of[:blocks]
        self.rows: U8 = bytes_of[start:].reshape(len(views), clips, width)

    def fill(self, number: int, block: Commit, decode: Decode) -> None:
        """Decode a block, unless another process does; then it is waited for.

        :raises _UnusableError: the disk is full, or the file cannot be locked.
        """
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, number)
        except OSError as error:
            raise _UnusableError(str(error)) from error
        try:
            if self.filled[number]:
                return
            decoded = decode(block)
            _, clips, width = self.rows.shape
            for view in range(max(block.view_start, self.views.start), min(block.view_stop, self.views.stop)):
                row = (view - self.views.start) * clips + block.first_clip
                content = np.ascontiguousarray(decoded[:, view - block.view_start])
                _write(self._file, content.tobytes(), self._start + row * width)
            _write(self._file, b"\1", number)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)


def _write(file: int, content: bytes, offset: int) -> None:
    left = memoryview(content)
    while left:
        try:
            written = os.pwrite(file, left, offset)
        except OSError as error:
            raise _UnusableError(str(error)) from error
        left, offset = left[written:], offset + written


def _folder() -> Path:
    """The folder of this user's files, which nobody else can write to.

    :raises OSError: it cannot be made, or is another's.
    """
    folder = Path(tempfile.gettempdir()) / f"logitstore-{os.getuid()}{_secret()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder of this user alone")
    return folder


def _secret() -> str:
    """What nobody else can guess, so that nobody can take the folder's name before it is made.

    It stands in the user's own cache folder; where there is none that can be written to, the name goes without.
    """
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "logitstore" / "scratch"
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            file = os.open(place, _NEW, 0o600)
            os.write(file, secrets.token_hex(8).encode())
            os.close(file)
        return f"-{place.read_text(encoding='ascii')[:16]}"
    except (OSError, RuntimeError, ValueError):
        return ""


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _open_shared(path: Path, size: int) -> tuple[int, int]:
    """Descriptors of the lock file, its shared lock held, and of the file, made anew if nobody else uses it."""
    while True:
        lock = os.open(_lock_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        file = -1
        try:
            if _alone(lock) and _is_same(lock, _lock_file(path)):
                path.unlink(missing_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                os.truncate(path, size)
            fcntl.flock(lock, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):  # another process has just removed it
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                if _is_same(lock, _lock_file(path)) and os.fstat(file).st_size == size:
                    return lock, file
        except OSError:
            _close(lock, file)
            raise
        _close(lock, file)


def _release(path: Path, lock: int, file: int = -1) -> None:
    try:
        if _alone(lock) and _is_same(lock, _lock_file(path)):
            path.unlink(missing_ok=True)
            _lock_file(path).unlink(missing_ok=True)
    finally:
        _close(lock, file)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove the files that nobody uses: those of killed processes."""
    for name in folder.glob("*.lock"):
        with contextlib.suppress(FileNotFoundError):
            _release(name.with_suffix(""), os.open(name, os.O_RDWR | os.O_CLOEXEC))


def _alone(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
