"""A folder of audio files, searched recursively: the key is the path below the folder."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from logitstore.audio import media
from logitstore.audio.audiofile import AUDIO_SUFFIXES, Audio
from logitstore.audio.source import Reading, normal_path
from logitstore.errors import AudioError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa


_MOST_NAMED = 3


class FolderSource:
    """Audio files below a folder; hidden files and folders are skipped, symbolic links followed.

    What cannot be read, or has a name that is not UTF-8, is left out and named in the notes.
    """

    kind = "folder"
    segmented = False

    def __init__(self, root: Path, below: Path | None = None) -> None:
        self.root = root
        self.below = below or root
        self.reading = Reading()

    def listing(self) -> pa.Table:
        import pyarrow as pa

        left = Left()
        keys = list(walk(self.root, self.below, AUDIO_SUFFIXES, left))
        unheard = [] if media.installed() else [key for key in keys if _ending(key) in media.SUFFIXES]
        keys = [key for key in keys if _ending(key) not in media.SUFFIXES] if unheard else keys
        self.reading.notes += [*left.notes(), *_unheard(unheard), *_two_forms(keys)]
        if not keys:
            if unheard or left.names:
                raise SourceError(f"{self.below}: no audio that can be read; {'; '.join(self.reading.notes)}")
            raise SourceError(
                f"{self.below}: no audio found; files are known by their endings: {', '.join(sorted(AUDIO_SUFFIXES))}"
            )
        return pa.table({"path": pa.array(keys, pa.string())})

    def read(self, path: str) -> Audio:
        if normal_path(path) != path:
            raise AudioError("the path leaves the audio root")
        return self.root / path


class Left:
    """What a walk through folders leaves out, by why."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def add(self, why: str, name: str) -> None:
        self.names.setdefault(why, []).append(name)

    def notes(self) -> list[str]:
        """A sentence for each reason, with the names as far as they can be printed."""
        return [
            f"{len(names):,} {'is' if len(names) == 1 else 'are'} left out, {why}: {_some(names)}"
            for why, names in self.names.items()
        ]


def walk(root: Path, below: Path, suffixes: Set[str], left: Left | None = None) -> Iterator[str]:
    """Keys below ``root`` of the files with these endings under ``below``; a loop of links is cut where it closes.

    :param left: told of what cannot be read and of names that are not UTF-8, which are not among the keys.
    :raises SourceError: ``below`` itself cannot be listed.
    """
    left = Left() if left is None else left

    visited: set[tuple[int, int]] = set()

    def visit(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[str]:
        name = Path(os.path.relpath(folder, root)).as_posix()
        try:
            status = folder.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                left.add("a link back to a folder that it lies in", name)
                return
            if identity in visited:
                left.add("a second way to a folder, which is searched once", name)
                return
            visited.add(identity)
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not above:
                raise
            left.add(f"a folder that cannot be listed ({error.strerror})", name)
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            key = Path(os.path.relpath(entry.path, root)).as_posix()
            try:
                inside = entry.is_dir()
                wanted = not inside and _ending(entry.name) in suffixes
                if entry.is_symlink() and not inside and (wanted or not _ending(entry.name)):
                    entry.stat()
            except OSError as error:
                left.add(f"a link that leads nowhere ({error.strerror})", key)
                continue
            if inside:
                yield from visit(folder / entry.name, above | {identity})
            elif wanted and not _is_text(key):
                left.add("a name that is not UTF-8; rename it", key)
            elif wanted:
                yield key

    try:
        yield from visit(below, frozenset())
    except OSError as error:
        raise SourceError(f"{error.filename or below}: cannot be listed: {error.strerror}") from None


def _ending(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_MOST_NAMED])) + (", …" if len(names) > _MOST_NAMED else "")


def _unheard(keys: Sequence[str]) -> list[str]:
    """A note on files that need the extra ``media``, by their endings."""
    if not keys:
        return []
    each = ", ".join(f"{count:,} {ending}" for ending, count in sorted(Counter(map(_ending, keys)).items()))
    return [f"left out are {len(keys):,} files that need the extra 'media' ({each}); to include them: {media.HOW}"]


def _two_forms(keys: Sequence[str]) -> list[str]:
    """A note on names that look the same and are not: one Unicode text in two forms."""
    seen: dict[str, str] = {}
    twins = []
    for key in keys:
        if not key.isascii() and seen.setdefault(unicodedata.normalize("NFC", key), key) != key:
            twins.append(key)
    if not twins:
        return []
    return [f"{len(twins):,} names are there twice, in two Unicode forms, and are two files each: {_some(twins)}"]
