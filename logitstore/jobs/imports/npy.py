"""A dense array of scores, one row a clip, as a store of one unaugmented view: EfficientAT's published ensemble."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from logitstore.arrays import I64
from logitstore.audio.clips import ClipAudio
from logitstore.audio.lengths import clip_samples
from logitstore.audio.scan import headers
from logitstore.audio.sources import open_audio
from logitstore.classes import read_classes
from logitstore.digests import file_digest, hasher
from logitstore.errors import SourceError, UsageError
from logitstore.files import read_text
from logitstore.jobs.build.job import DEFAULT_TOPK
from logitstore.jobs.imports.shared import (
    AudioNames,
    ImportedViews,
    ImportSummary,
    imported_manifest,
    require_some,
    sorted_clips,
    write_blocks,
)
from logitstore.jobs.options import NpyImport
from logitstore.store.format.codec import top_k
from logitstore.store.format.manifest import Member
from logitstore.store.format.quality import VALUE_BITS
from logitstore.store.shards import default_shard_clips
from logitstore.store.storage import open_storage
from logitstore.views.ops import Place
from logitstore.views.recipe import NONE

TEACHER = "import:npy"
_CHECKED_ROWS = 4096


def import_npy(options: NpyImport, advance: Callable[[int], None] = lambda views: None) -> ImportSummary:
    """Make a store of an array, or finish one that the same options began.

    :param advance: told how many views were just written.
    :raises UsageError: anything in the options or the files that cannot be right.
    """
    array = read_array(options.array)
    classes = read_classes(options.classes, outputs=True)
    if array.shape[1] != len(classes):
        raise UsageError(
            f"{options.array} has {array.shape[1]} columns and {options.classes} names {len(classes)} classes; "
            "every column needs its class"
        )
    topk = min(DEFAULT_TOPK, len(classes)) if options.topk is None else options.topk
    if topk > len(classes):
        raise UsageError(f"--topk {topk} is more than the {len(classes)} classes; give 1 to {len(classes)}")
    names = read_names(options.names, len(array), options.array)
    _check_scores(array, options)

    source = None if options.audio_root is None else open_audio(options.audio_root)
    notes: list[str] = []
    failed: dict[int, str] = {}
    if source is None or options.audio_root is None:
        paths = names
        length, rate = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
        notes.append(
            "no --audio-root was given: the clips have no lengths, so that the store can be queried and exported, and "
            "nothing can be trained from it"
        )
    else:
        found = AudioNames(source, options.audio_root)
        paths, length, rate, failed, note = _find_clips(names, found, source, options)
        notes += note
        require_some(failed, paths, options.strict)

    samples = clip_samples(options.clip_seconds, options.sample_rate)
    place = Place(samples, options.sample_rate, options.shard_clips or default_shard_clips(len(paths)))
    member = Member(TEACHER, _digest(options), "sigmoid", options.sample_rate, 1.0, {"imported": "npy"})
    manifest = imported_manifest(
        classes=classes,
        teacher=member,
        recipe=NONE,
        place=place,
        clip_seconds=options.clip_seconds,
        topk=topk,
        value_bits=VALUE_BITS if options.value_bits is None else options.value_bits,
    )
    clip_table, order = sorted_clips(paths, np.zeros(len(paths), np.int64), length, rate)
    row_of = np.argsort(order)

    def imported(clips: range) -> ImportedViews:
        best, values = top_k(probabilities(array[order[clips.start : clips.stop]], options.scores), topk)
        return ImportedViews(best[:, None], values[:, None], {})

    return write_blocks(
        open_storage(options.out, to_write=True), manifest, clip_table, 1,
        {int(row_of[position]): reason for position, reason in failed.items()}, imported,
        audio=None if source is None else ClipAudio(source, clip_table, options.sample_rate),
        advance=advance, notes=notes, strict=options.strict,
    )  # fmt: skip


def probabilities(scores: npt.NDArray[np.floating[Any]], kind: str) -> npt.NDArray[np.float32]:
    """Probabilities, float32, of "logits" (through a sigmoid) or of "probabilities" (as they are)."""
    if kind == "probabilities":
        return scores.astype(np.float32)
    return (0.5 * (1.0 + np.tanh(0.5 * scores.astype(np.float64)))).astype(np.float32)


def read_array(file: str) -> npt.NDArray[np.floating[Any]]:
    """A two-dimensional array of floats, mapped and not read; never a pickle.

    :raises SourceError: unreadable, or of another kind or shape.
    """
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SourceError(f"{file} is not readable as a .npy array: {line}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise SourceError(f"{file} holds {found}; allowed is one array of floats, a row a clip and a column a class")
    return array


def read_names(file: str, rows: int, array: str) -> list[str]:
    """The names of ``rows`` clips, one a line.

    :raises SourceError: unreadable, too few or too many, an empty line, or a name twice.
    """
    try:
        text = read_text(file, most=1 << 32)
    except (OSError, ValueError) as error:
        raise SourceError(f"{file} cannot be read as text, one name a line: {error}") from error
    names = re.split(r"\r\n|\r|\n", text)
    while names and not names[-1].strip():  # what comes after the last line's end
        names.pop()
    if len(names) != rows:
        header = f" (is line 1, {names[0]!r}, a header? take it out)" if len(names) == rows + 1 else ""
        raise SourceError(
            f"{file} has {len(names)} lines and {array} has {rows} rows{header}; line i must name the clip of row i"
        )
    lines: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise SourceError(f"{file}: line {number} is empty; every row needs a name")
        if lines.setdefault(name, number) != number:
            raise SourceError(f"{file}: {name} stands on lines {lines[name]} and {number}; a clip has one row")
    return names


def _check_scores(array: npt.NDArray[np.floating[Any]], options: NpyImport) -> None:
    """Refuse scores that are not finite, and probabilities outside [0, 1]."""
    for low in range(0, len(array), _CHECKED_ROWS):
        part = np.asarray(array[low : low + _CHECKED_ROWS])
        if options.scores == "probabilities":
            wrong, allowed = ~((part >= 0) & (part <= 1)), "0 to 1 (for logits say --scores logits)"
        else:
            wrong, allowed = ~np.isfinite(part), "finite numbers"
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise SourceError(
                f"{options.array}: row {low + row}, column {column} is {part[row, column]}; allowed are {allowed}"
            )


def _find_clips(
    names: list[str], found: AudioNames, source: Any, options: NpyImport
) -> tuple[list[str], I64, I64, dict[int, str], list[str]]:
    """Paths, lengths in frames and rates of the clips, why some have none, and notes."""
    import pyarrow as pa

    keys = [found.find(name, endings=False) for name in names]
    owners: dict[str, str] = {}
    for name, key in zip(names, keys, strict=True):
        if key is not None and owners.setdefault(key, name) != name:
            raise SourceError(
                f"{options.names}: {owners[key]} and {name} are both {key} below {options.audio_root}; "
                "a clip has one row"
            )
    here = np.array([key is not None for key in keys], dtype=bool)
    length, rate = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    present = pa.array([key for key in keys if key is not None], pa.string())
    length[here], rate[here] = headers(source, present, options.workers or os.cpu_count() or 1)
    most = np.floor(options.clip_seconds * rate + 0.5).astype(np.int64)
    longer = length > most
    notes = []
    if longer.any():
        notes.append(
            f"{int(longer.sum()):,} files are longer than --clip-seconds {options.clip_seconds:g}: "
            "their clips are what they begin with"
        )
    failed = {
        position: "missing: the audio root has no file of this name"
        if keys[position] is None
        else "unreadable: the header of the file cannot be read"
        for position in np.flatnonzero(length == 0).tolist()
    }
    paths = [key if key is not None else name for key, name in zip(keys, names, strict=True)]
    return paths, np.where(longer, most, length), rate, failed, notes


def _digest(options: NpyImport) -> str:
    """BLAKE2b with 128 bits over the array's and the names' bytes and the kind of scores."""
    total = hasher(options.scores.encode())
    for path in (options.array, options.names):
        total.update(bytes.fromhex(file_digest(Path(path))))
    return total.hexdigest()
