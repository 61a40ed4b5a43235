"""Whether a source's audio is there at all, said before anything long is begun with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from logitstore.audio.audiofile import frame_count
from logitstore.errors import AudioError, LogitstoreError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.source import Source

_MOST_NAMED = 3
_MOST_TRIED = 64  # folders beside a wrong audio root


def require_found(source: Source, clip_table: pa.Table, name: str | Sequence[str], audio_root: str | None) -> list[str]:
    """A line on the files that cannot be read, going by their headers; none where all can.

    :param clip_table: of :func:`logitstore.audio.scan.scan`. :param name: what the user calls the source.
    :param audio_root: what its paths are relative to, as the user gave it.
    :raises SourceError: none of the files is there: it names the audio root, and a better one if that is near.
    :raises AudioError: they are there, or some of them are, and not one can be read.
    """
    import pyarrow.compute as pc

    paths = clip_table["path"]
    unread = pc.unique(paths.filter(pc.equal(clip_table["rate"], 0)))
    if not len(unread):
        return []
    reasons = [(path, _reason(source, path)) for path in unread[:_MOST_NAMED].to_pylist()]
    some = "; ".join(f"{path}: {reason}" for path, reason in reasons) + ("; …" if len(unread) > _MOST_NAMED else "")
    total = len(pc.unique(paths))
    if len(unread) < total:
        return [f"{len(unread):,} of {total:,} files cannot be read, and are recorded as failures ({some})"]
    raise _nothing(source, reasons, unread, named(name), audio_root, some)


def named(source: str | Sequence[str]) -> str:
    """What the user gave as a source, or as several, in a message."""
    return source if isinstance(source, str) else ", ".join(source)


def _nothing(
    source: Source, reasons: list[tuple[str, str]], unread: pa.Array, name: str, audio_root: str | None, some: str
) -> LogitstoreError:
    root = audio_root or str(Path(name).parent)
    absent = source.kind in ("manifest", "labels", "several") and all(
        _absent(source, path) for path in unread.to_pylist()
    )
    if not absent:
        return AudioError(
            f"not one of the {len(unread):,} files of {name} can be read ({some}); see that they are audio, and whole"
        )
    better = _better_root(Path(root), reasons[0][0])
    return SourceError(
        f"none of the {len(unread):,} files that {name} names is below the audio root {root} ({some}); "
        + (f"--audio-root {better} has them, it seems" if better else "give the folder that the paths start from")
    )


def _absent(source: Source, path: str) -> bool:
    """Whether a source has no such file at all."""
    try:
        audio = source.read(path)
    except AudioError:
        return True
    return isinstance(audio, Path) and not audio.exists()


def _better_root(root: Path, path: str) -> str | None:
    """A folder near a wrong audio root from which a path leads to a file: below it, or above."""
    if not root.is_dir():
        return None
    below = (folder for folder in islice(root.iterdir(), _MOST_TRIED) if folder.is_dir())
    above = (Path(os.path.normpath(root / up)) for up in ("..", "../.."))
    return next((str(folder) for folder in (*sorted(below), *above) if (folder / path).is_file()), None)


def _reason(source: Source, path: str) -> str:
    try:
        frame_count(source.read(path))
    except AudioError as error:
        return str(error)
    return "readable now, but not when the clips were listed"
