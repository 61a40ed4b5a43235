"""Files: those of a run folder appear whole or not at all; text of users, whatever wrote it."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

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


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """The text of a small file that a user made: UTF-8, or UTF-16 and UTF-32 as Notepad, Excel and PowerShell save it.

    A byte order mark is no part of the text. UTF-16 without one is known by its zeros.

    :param most: bytes that it may have.
    :raises OSError: it cannot be read. :raises ValueError: it is too large, or in another encoding; the line is named.
    """
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
