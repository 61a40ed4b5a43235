"""A folder of audio files, searched recursively: the key is the path below the folder."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Set
from pathlib import Path
from typing import TYPE_CHECKING

from logitstore.audio.audiofile import AUDIO_SUFFIXES, Audio
from logitstore.audio.source import Reading, normal_path, text_key
from logitstore.errors import AudioError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa


class FolderSource:
    """Audio files below a folder; hidden files and folders are skipped, symbolic links followed."""

    kind = "folder"
    segmented = False

    def __init__(self, root: Path, below: Path | None = None) -> None:
        self.root = root
        self.below = below or root
        self.reading = Reading()

    def listing(self) -> pa.Table:
        import pyarrow as pa

        keys = [text_key(key, str(self.below)) for key in walk(self.root, self.below, AUDIO_SUFFIXES)]
        if not keys:
            raise SourceError(
                f"{self.below}: no audio found; files are known by their endings: {', '.join(sorted(AUDIO_SUFFIXES))}"
            )
        return pa.table({"path": pa.array(keys, pa.string())})

    def read(self, path: str) -> Audio:
        if normal_path(path) != path:
            raise AudioError("the path leaves the audio root")
        return self.root / path


def walk(root: Path, below: Path, suffixes: Set[str]) -> Iterator[str]:
    """Keys below ``root`` of the files with these endings under ``below``; a loop of links is cut where it closes."""

    def visit(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[str]:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from visit(folder / entry.name, above | {identity})
            elif posixpath.splitext(entry.name)[1].lower() in suffixes:
                yield Path(os.path.relpath(entry.path, root)).as_posix()

    try:
        yield from visit(below, frozenset())
    except OSError as error:
        raise SourceError(f"{error.filename or below}: cannot be listed: {error.strerror}") from None
