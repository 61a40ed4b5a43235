"""Decoded clips kept on disk, for every process, run and command that wants the same ones.

What is dear to decode (Ogg, MP3, FLAC, whatever is at another rate or of several channels) is decoded once; a plain WAV
file costs no more than a kept clip, and is not kept. A clip is a file of its own, so that whoever has it in whatever
table finds it: its name is a digest of its path in the source, its cut, its rates, and of what tells its file from
another that comes to lie there: place, size and times of a file of a folder, all bytes of one in an archive. It holds
the very bits that were decoded: 16 bits a sample where these say all, as of FLAC at the store's rate, else float32.

    logitstore-audio-cache   says what the folder is, and of which version
    size                     bytes that all files take, 8 bytes, changed under a lock
    ab/cdef….pcm             a header of 64 bytes (magic, bytes a sample, samples, digest), then the samples
    partial/                 files that are not finished; they are moved to their names when they are

So writers need not know of each other, and readers find a whole file or none. What is damaged is decoded anew: its
digest is compared the first time that a process reads it. Nothing is thrown out: what has no room is decoded each time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import struct
import threading
import time
from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from logitstore.arrays import F32
from logitstore.audio.audiofile import Audio, Pcm
from logitstore.audio.pcm import Samples
from logitstore.digests import hasher
from logitstore.errors import UsageError
from logitstore.notes import note
from logitstore.options import AudioCacheOptions

_MARKER, _SAYS = "logitstore-audio-cache", b"1\n"
_HEADER = struct.Struct("<8sQQ16s24x")
_MAGIC = b"LSAUDIO1"
_NAMES = ("utf-8", "surrogateescape")
#: Changed with every change of how audio is decoded here that changes a bit.
DECODING = 1
_MOST_HASHED = 1 << 26  # bytes of a file in an archive: larger ones are not read whole for every clip
_STALE = 3600.0  # seconds after which an unfinished file is nobody's any more


class AudioCache:
    """A folder of decoded clips. Safe to share between threads, processes and machines that share its disk; picklable.

    :param most_bytes: that its files may take; by default what they take and half of the room that is left.
    :raises UsageError: the folder cannot be made or written, or is another thing.
    """

    def __init__(self, folder: str | os.PathLike[str], most_bytes: int | None = None) -> None:
        self.folder = Path(folder)
        try:
            self._begin()
            used = self._add(0)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise UsageError(
                f"--audio-cache {str(folder)!r} cannot be used: {error.strerror or error}; give a folder that can be "
                "written"
            ) from error
        self.most_bytes = used + free // 2 if most_bytes is None else most_bytes
        self._reset()

    def _begin(self) -> None:
        marker = self.folder / _MARKER
        self.folder.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            others = sorted(path.name for path in self.folder.iterdir() if path.name not in ("size", "partial"))
            if others and not marker.exists():  # another process may just have begun it
                raise UsageError(
                    f"--audio-cache {str(self.folder)!r} holds {others[0]!r} and is no audio cache; give a new folder"
                )
            marker.write_bytes(_SAYS)
        if (said := marker.read_bytes()) not in (_SAYS, b""):
            raise UsageError(
                f"--audio-cache {str(self.folder)!r} is of version {said[:20]!r}, and this release reads {_SAYS!r}; "
                "remove it, or give another"
            )
        (self.folder / "partial").mkdir(exist_ok=True)
        for path in (self.folder / "partial").iterdir():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink()

    def _reset(self) -> None:
        self._lock, self._recounted = threading.Lock(), False
        #: Clips read, decoded and kept, not kept for want of room, found damaged: by this process.
        self.read = self.made = self.left = self.damaged = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "most_bytes": self.most_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def key(self, audio: Audio, path: str, start: int, length: int, rate: int, sample_rate: int) -> bytes | None:
        """What tells a decoded clip from every other, 16 bytes; None of one that is not kept."""
        if isinstance(audio, Pcm):
            return None
        of = hasher(f"{_decoders()}\0{path}\0{start}\0{length}\0{rate}\0{sample_rate}\0".encode(*_NAMES))
        try:
            if isinstance(audio, Path):
                status = audio.stat()
                of.update(b"%d %d %d " % (status.st_size, status.st_mtime_ns, status.st_ctime_ns))
                place = f"{_folder(str(audio.parent))}/{audio.name}"
                of.update(place.encode(*_NAMES))  # times that an archive gave may be those of others too
            else:
                if audio.seek(0, os.SEEK_END) > _MOST_HASHED:
                    return None
                audio.seek(0)
                while content := audio.read(1 << 20):
                    of.update(content)
                audio.seek(0)
        except OSError:
            return None
        return of.digest()

    def open(self, key: bytes, rate: int, verify: bool) -> Samples | None:
        """The samples of a clip, to be closed; None where they are not kept, or not as they were.

        :param rate: that they are at, in Hz. :param verify: whether to compare their digest.
        """
        try:
            file = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        whole = False
        try:
            status = os.fstat(file)
            head = os.pread(file, _HEADER.size, 0)
            if len(head) == _HEADER.size and stat.S_ISREG(status.st_mode):
                magic, width, count, digest = _HEADER.unpack(head)
                whole = magic == _MAGIC and width in (2, 4) and status.st_size == _HEADER.size + width * count
                whole = whole and (not verify or _digest(key, os.pread(file, width * count, _HEADER.size)) == digest)
        except OSError:
            whole = False
        if not whole:
            os.close(file)
            self._count("damaged")
            return None
        self._count("read")
        return Samples(file, None, count, 1, rate, _HEADER.size, width)

    def keep(self, key: bytes, samples: F32) -> None:
        """Keep a decoded clip, where there is room."""
        kept: Any = samples
        narrow = np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype("<i2")
        if np.array_equal((narrow * np.float32(1 / 32768)).view(np.uint32), samples.view(np.uint32)):
            kept = narrow
        content = np.ascontiguousarray(kept, kept.dtype.newbyteorder("<")).tobytes()
        size = _HEADER.size + len(content)
        target = self._path(key)
        partial = self.folder / "partial" / f"{target.parent.name}{target.name}.{uuid4().hex}"
        try:
            if not self._reserve(size):
                self._no_room(f"it has its {self.most_bytes / (1 << 30):.3g} GiB (--audio-cache-size)")
                return
            try:
                with partial.open("wb") as file:
                    file.write(_HEADER.pack(_MAGIC, kept.dtype.itemsize, len(kept), _digest(key, content)))
                    file.write(content)
                target.parent.mkdir(exist_ok=True)
                self._add(0, move=(partial, target))
                self._count("made")
            except OSError:
                partial.unlink(missing_ok=True)
                self._add(-size)
                raise
        except OSError as error:
            why = "its disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error.strerror or error)
            self._no_room(why)

    def summary(self) -> str:
        """What this process found there and added, in a line."""
        try:
            takes = f"it takes {self._add(0) / (1 << 20):,.0f} of {self.most_bytes / (1 << 20):,.0f} MiB"
        except OSError as error:  # the work is done: the folder may be gone
            takes = f"what it takes cannot be told ({error.strerror or error})"
        damaged = f", {self.damaged:,} damaged and decoded anew" if self.damaged else ""
        left = f", {self.left:,} decoded and not kept for want of room" if self.left else ""
        return (
            f"audio cache {self.folder}: clips were read from it {self.read:,} times{damaged}, {self.made:,} decoded "
            f"and kept{left}; {takes}"
        )

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self.folder / name[:2] / f"{name[2:]}.pcm"

    def _count(self, what: str) -> int:
        with self._lock:
            count: int = getattr(self, what) + 1
            setattr(self, what, count)
            return count

    def _no_room(self, why: str) -> None:
        if self._count("left") == 1:
            note(f"the audio cache {self.folder} takes no more: {why}; what it lacks is decoded each time")

    def _reserve(self, size: int) -> bool:
        """Whether so many bytes more have room; they are counted then.

        Before the first time that they have none the files are counted: people may have removed some, and writers that
        were killed have left what they had reserved.
        """
        if self._add(size, self.most_bytes) >= 0:
            return True
        if self._recounted:
            return False
        self._recounted = True
        return self._add(size, self.most_bytes, recount=True) >= 0

    def _add(
        self, size: int, most: int | None = None, move: tuple[Path, Path] | None = None, *, recount: bool = False
    ) -> int:
        """Change the number of bytes that all files take: what it is then, or -1 where it would exceed ``most``.

        :param move: a finished file, and its name; what has that name already goes, and counts no more.
        :param recount: whether to look at the files, not at the number that is kept.
        """
        file = os.open(self.folder / "size", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:  # a lock of the open file, so that it holds between threads too
            fcntl.flock(file, fcntl.LOCK_EX)
            content = os.pread(file, 8, 0)
            known = len(content) == 8 and not recount
            used = int.from_bytes(content, "little") if known else _taken(self.folder)
            if move is not None:
                size -= move[1].stat().st_size if move[1].exists() else 0
                move[0].replace(move[1])
            now = max(0, used + size)
            full = most is not None and now > most
            if size or not known:
                os.pwrite(file, (used if full else now).to_bytes(8, "little"), 0)
            return -1 if full else now
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile has the file open too
            os.close(file)


def open_cache(options: AudioCacheOptions) -> AudioCache | None:
    """The cache that was asked for, or None.

    :raises UsageError: its folder cannot be used.
    """
    if options.audio_cache is None:
        return None
    size = options.audio_cache_size
    return AudioCache(options.audio_cache, None if size is None else round(size * (1 << 30)))


@cache
def _decoders() -> str:
    """What decodes and resamples here, with its versions: another may give other bits."""
    import soundfile
    import soxr

    versions = [soundfile.__libsndfile_version__, soxr.__version__, soxr.__libsoxr_version__]
    with suppress(PackageNotFoundError):
        versions.append(version("av"))
    return " ".join([str(DECODING), *versions])


@lru_cache(1024)
def _folder(path: str) -> str:
    """Where a folder really is: to ask that of every file takes longer than to open and read the short ones."""
    return os.path.realpath(path)


def _taken(folder: Path) -> int:
    return sum(path.stat().st_size for place in ("??/*.pcm", "partial/*") for path in folder.glob(place))


def _digest(key: bytes, content: bytes) -> bytes:
    of = hasher(key)
    of.update(content)
    return of.digest()
