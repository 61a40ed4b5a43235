"""What a source of clips is: one small interface (list the audio, read a piece of it), and the rules for its keys."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from logitstore.audio.audiofile import Audio
from logitstore.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

#: Names that the clip table has for itself.
RESERVED = ("clip", "path", "start", "length", "rate", "failed")


class Source(Protocol):
    """Where clips come from. Safe to share between threads, across a fork, and to pickle."""

    kind: str
    segmented: bool  # whether the listing's start and duration (s) cut its files

    def listing(self) -> pa.Table:
        """The pieces of audio: column ``path`` (string, the key), ``start`` and ``duration`` (float64 s) where the
        source is segmented, then the user's columns. Any order.

        :raises SourceError: nothing there, or not what it says it is.
        """
        ...

    def read(self, path: str) -> Audio:
        """One piece by its key.

        :raises AudioError: there is no such piece; the message holds no path of the machine.
        """
        ...


def check_columns(names: Iterable[str], what: str, own: Sequence[str] = ()) -> None:
    """Refuse columns that cannot stand beside the clip table's own, whatever their case (SQL has none).

    :param own: columns that are the listing's, not the user's.

    :raises SourceError: a reserved name, or a name twice.
    """
    seen = {name.lower() for name in own}
    for name in names:
        if name in own:
            continue
        lower = name.lower()
        if lower in RESERVED:
            raise SourceError(
                f"{what}: the column {name!r} has a name that the clip table keeps for itself "
                f"({', '.join(RESERVED)}); rename it"
            )
        if lower in seen:
            raise SourceError(f"{what}: the column {name!r} is there twice (case does not count in SQL); rename one")
        seen.add(lower)


def text_key(key: str, what: str) -> str:
    """Check that a key is valid UTF-8, and give it back.

    :raises SourceError: it is not.
    """
    try:
        key.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{what}: the name {key!r} is not UTF-8; rename it") from None
    return key


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def normal_path(path: str) -> str | None:
    """The path without '.', '//' and inner '..'; None if it is absolute, empty, or leaves the folder it starts in.

    Lexical: a symbolic link below the root is its owner's business and is followed.
    """
    if not path or path.startswith("/") or "\0" in path or os.path.splitdrive(path)[0]:
        return None
    normal = posixpath.normpath(path)
    return None if normal in (".", "..") or normal.startswith("../") else normal
