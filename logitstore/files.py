"""Files: those of a run folder appear whole or not at all; text of users, whatever wrote it."""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from logitstore.errors import LogitstoreError, OutputError, UsageError

_PARTIAL = ".partial-"
#: Byte order marks and the encodings that they announce; the longer ones first, for one begins with another.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MOST_TEXT = 1 << 26
_HANDED_OVER = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
_MOST_HOLE, _HOLE_SHARE = 1 << 26, 16  # bytes, and the share of a file that must be on the disk


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """The text of a small file that a user made: UTF-8, or UTF-16 and UTF-32 as Notepad, Excel and PowerShell save it.

    A byte order mark is no part of the text. UTF-16 without one is known by its zeros.

    :param most: bytes that it may have.
    :raises OSError: it cannot be read. :raises ValueError: it is too large, or in another encoding; the line is named.
    """
    require_end(path)
    with Path(path).open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most >> 20} MiB; give a file of text")
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if encoding is None:
        zeros = [content[half::2].count(0) * 4 > len(content) > 1 for half in (0, 1)]  # half of a half at least
        encoding = {(False, True): "utf-16-le", (True, False): "utf-16-be"}.get((zeros[0], zeros[1]), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not {encoding.removesuffix('-sig').upper()}; save it as UTF-8") from None
    if "\0" in text:
        raise ValueError(f"line {text[: text.index(chr(0))].count(chr(10)) + 1} has a zero byte; save it as UTF-8")
    return text


def read_whole(path: Path) -> bytes:
    """The content of a file that may be large, as the weights of a model are.

    :raises OSError: it cannot be read, is no regular file, or claims far more bytes than the disk holds of it: a hole
        is made in no time, and takes all memory that there is.
    """
    require_no_hole(path)
    return path.read_bytes()


def require_end(path: str | os.PathLike[str]) -> None:
    """Refuse what may never end, or never begin: a pipe that nobody writes to, a device.

    What the shell itself hands over, as ``<(command)``, is somebody's to write, and may be read.

    :raises OSError: it is neither that nor a regular file.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode) and not os.fspath(path).startswith(_HANDED_OVER):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def require_no_hole(path: Path) -> None:
    """Refuse a file whose size is not what the disk holds of it, before its size is believed.

    :raises OSError: it is no regular file, or mostly a hole.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    there = found.st_blocks * 512
    if found.st_size > _MOST_HOLE and there < found.st_size // _HOLE_SHARE:
        reason = f"it claims {found.st_size:,} bytes, and the disk holds {there:,} of them; copy it anew"
        raise OSError(errno.EINVAL, reason, str(path))


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


@contextmanager
def open_out(place: str | os.PathLike[str], option: str = "--out") -> Iterator[IO[bytes]]:
    """A file to write a result to, which a user named: a regular file appears whole or not at all.

    It is written beside its place and takes over the mode of what it replaces. A symbolic link stays and its target is
    written, there or not; what is no regular file (a pipe, a device, ``/dev/stdout``) is written through.

    :param option: what messages call it.
    :raises UsageError: it is a folder, or there is no folder for it, or it must not be written.
    :raises OutputError: it cannot be written to its end. What was there before is untouched.
    :raises BrokenPipeError: it is a pipe that nobody reads any more.
    """
    name = os.fspath(place)
    check_out(name, option)
    target = _followed(name, option)
    own = _OWN_STREAM.fullmatch(target)
    partial = None
    try:
        if own is not None:
            sys.stdout.flush()
            number = int(own["number"] or {"stdout": 1, "stderr": 2}[own["name"]])
            file: IO[bytes] = os.fdopen(os.dup(number), "wb")
        elif Path(target).exists() and not Path(target).is_file():
            file = Path(target).open("wb")  # noqa: SIM115
        else:
            partial = Path(target).with_name(f".{Path(target).name[:50]}{_PARTIAL}{os.getpid()}")
            file = partial.open("xb")
            with suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(Path(target).stat().st_mode))
    except OSError as error:
        raise UsageError(f"{option} {name!r} cannot be written: {error.strerror}; give another place") from error
    try:
        with file:
            yield file
        if partial is not None:
            partial.replace(target)
    except OSError as error:
        if isinstance(error, LogitstoreError | BrokenPipeError):
            raise
        raise OutputError(f"{option} {name!r} cannot be written: {error.strerror or error}") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def check_out(place: str | os.PathLike[str], option: str = "--out", endings: Collection[str] = ()) -> None:
    """Refuse a place that :func:`open_out` could not write, before the work whose result it is to hold.

    :param endings: of names, in lower case with their dot, that say what the file holds, where only some can be; what
        is no regular file may have any name.
    :raises UsageError: it is a folder, in none, must not be written, or has another ending; what is right is said.
    """
    name = os.fspath(place)
    if not name or "\0" in name:
        raise UsageError(f"{option} {name!r} is no name of a file; give another")
    target = _followed(name, option)
    if _OWN_STREAM.fullmatch(target):
        return
    path = Path(target)
    try:
        if path.is_dir() or name.endswith("/"):
            raise UsageError(f"{option} {name!r} is a folder; give the name of a file")
        if not path.parent.is_dir():
            raise UsageError(
                f"{option} {name!r} cannot be written: there is no folder {str(path.parent)!r}; make it, or give "
                "another place"
            )
        if path.exists() and not path.is_file():
            return
        if endings and Path(name).suffix.lower() not in endings:
            raise UsageError(
                f"{option} is {name!r}; the name of such a file must end in "
                + " or ".join([", ".join(list(endings)[:-1]), list(endings)[-1]] if len(endings) > 1 else endings)
            )
        if path.exists() and not os.access(path, os.W_OK):
            raise UsageError(f"{option} {name!r} is write-protected; give another place")
    except OSError as error:
        raise UsageError(f"{option} {name!r} cannot be written: {error.strerror}; give another place") from error


#: Names of what a process has open already, which are written where they stand.
_OWN_STREAM = re.compile(r"/dev/(?P<name>stdout|stderr)|(?:/dev/fd|/proc/self/fd)/(?P<number>\d+)")


def _followed(name: str, option: str) -> str:
    """Where symbolic links lead, up to a stream of this process."""
    target = os.path.abspath(name)  # noqa: PTH100
    try:
        for _ in range(40):
            if _OWN_STREAM.fullmatch(target) or not Path(target).is_symlink():
                return target
            there = Path(target).parent.joinpath(Path(target).readlink())
            target = str(Path(os.path.realpath(there.parent)) / there.name)
    except OSError as error:
        raise UsageError(f"{option} {name!r} cannot be written: {error.strerror}; give another place") from error
    raise UsageError(f"{option} {name!r} is a symbolic link that leads in a circle; give another place")
