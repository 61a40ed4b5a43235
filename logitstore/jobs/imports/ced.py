"""CED's published logits as a store: its seeds become explicit draws, its epochs views.

CED pads a batch to its longest clip and places its time masks in the frames of that batch. Which clips shared a batch
is not in its files, so that one number of frames is taken for all; rows of shorter clips are counted.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from logitstore.arrays import I64
from logitstore.audio.clips import ClipAudio
from logitstore.audio.lengths import samples_at
from logitstore.audio.scan import headers
from logitstore.audio.source import Source
from logitstore.audio.sources import open_audio
from logitstore.classes import read_classes
from logitstore.errors import UsageError
from logitstore.jobs.imports.ced_files import CedFiles, CedTable, chunk_lengths, stated_lengths
from logitstore.jobs.imports.ced_seeds import HOP, SAMPLE_RATE, ced_draws, require_ced
from logitstore.jobs.imports.shared import (
    AudioNames,
    ImportedViews,
    ImportSummary,
    imported_manifest,
    require_some,
    sorted_clips,
    write_blocks,
)
from logitstore.jobs.options import CedImport
from logitstore.store.format.manifest import Member
from logitstore.store.format.quality import VALUE_BITS
from logitstore.store.shards import default_shard_clips
from logitstore.store.storage import open_storage
from logitstore.views.ops import Place
from logitstore.views.ops.time_mask import TimeMask
from logitstore.views.recipe import Recipe, load_recipe

TEACHER = "import:ced"
#: The column of the clip table that holds CED's seeds, one a view, where they were kept.
SEEDS_COLUMN = "ced_seeds"
_MANY = 20  # stored classes for each class that there is, of which each should be one somewhere


@dataclass(frozen=True)
class _Clips:
    """The clips of the import in the order of CED's keys: arrays (n,), and why some have no targets, by position."""

    paths: list[str]
    start: I64
    length: I64
    rate: I64
    own: I64  # samples at 16 kHz, as CED had them
    failed: dict[int, str]
    resampled: int  # clips that are a sample longer or shorter here, for their files are at another rate


def import_ced(options: CedImport, advance: Callable[[int], None] = lambda views: None) -> ImportSummary:
    """Make a store of CED's files, or finish one that the same options began.

    :param advance: told how many views were just written.
    :raises UsageError: anything in the options or the files that cannot be right.
    """
    recipe = load_recipe(options.recipe).unshared()  # CED's code knows no shares
    require_ced(recipe)
    classes = read_classes(options.classes, outputs=True)
    files = CedFiles(options.folder, options.chunk_seconds, options.epochs)
    if files.topk > len(classes):
        raise UsageError(f"{options.classes} names {len(classes)} classes, and the files hold {files.topk} a row")
    table = files.table()
    source = open_audio(options.audio_root)
    workers = options.workers or os.cpu_count() or 1
    clips = _find_clips(table, files, source, options.audio_root, workers)
    require_some(clips.failed, clips.paths, options.strict)

    longest = int(clips.own.max())
    clip_seconds = longest / SAMPLE_RATE
    frames = _frames(options.frames, longest, recipe)
    shard_clips = options.shard_clips or default_shard_clips(len(clips.paths))
    place = Place(longest, SAMPLE_RATE, shard_clips)
    recipe.check(place)
    member = Member(TEACHER, files.digest(), "sigmoid", SAMPLE_RATE, 1.0, _contract(files, frames))
    manifest = imported_manifest(
        classes=classes,
        teacher=member,
        recipe=recipe,
        place=place,
        clip_seconds=clip_seconds,
        topk=files.topk,
        value_bits=VALUE_BITS if options.value_bits is None else options.value_bits,
    )
    clip_table, order = sorted_clips(clips.paths, clips.start, clips.length, clips.rate)
    row_of = np.argsort(order)
    failed = {int(row_of[position]): reason for position, reason in clips.failed.items()}
    own = clips.own[order]
    with tempfile.TemporaryDirectory(prefix="import-ced-") as scratch:
        gathered = _Gathered(Path(scratch), len(own), files)
        for epoch in range(files.epochs):
            for slab in files.slabs(epoch, table.names, len(classes)):
                gathered.put(row_of[np.searchsorted(table.keys, slab.keys)], epoch, slab)
        if options.keep_seeds:
            clip_table = clip_table.append_column(SEEDS_COLUMN, gathered.seed_lists())

        def imported(wanted: range) -> ImportedViews:
            here = slice(wanted.start, wanted.stop)
            seeds = gathered.seeds[here]  # (R, V)
            lengths = np.repeat(own[here], files.epochs)
            drawn = ced_draws(recipe, np.maximum(seeds, 0).reshape(-1), lengths, frames).columns(recipe)
            known = (seeds >= 0).reshape(-1)
            return ImportedViews(
                gathered.classes[here],
                gathered.probabilities[here],
                {name: np.where(known, values, 0).reshape(seeds.shape) for name, values in drawn.items()},
            )

        return write_blocks(
            open_storage(options.out, to_write=True), manifest, clip_table, files.epochs, failed, imported,
            audio=ClipAudio(source, clip_table, SAMPLE_RATE), advance=advance,
            notes=[*_notes(clips, files, recipe, frames, longest), *gathered.unheard_of(len(classes), options.classes)],
            strict=options.strict,
        )  # fmt: skip


class _Gathered:
    """Targets and seeds by clip and view, in files of the system's folder for scratch: memory stays flat."""

    def __init__(self, scratch: Path, clips: int, files: CedFiles) -> None:
        shape = (clips, files.epochs, files.topk)

        def array(name: str, dtype: str, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[Any]]:
            return np.memmap(scratch / name, dtype=dtype, mode="w+", shape=shape)

        self.classes = array("classes", "uint16", shape)
        self.probabilities = array("probabilities", "float16", shape)
        self.seeds = array("seeds", "int64", shape[:2])
        self.seeds[:] = -1
        self.highest = -1

    def put(self, rows: I64, view: int, slab: Any) -> None:
        """Rows of one epoch."""
        self.classes[rows, view] = slab.classes
        self.probabilities[rows, view] = slab.probabilities
        self.seeds[rows, view] = slab.seeds
        self.highest = max(self.highest, int(slab.classes.max(initial=0)))

    def unheard_of(self, classes: int, file: str) -> list[str]:
        """A note where the last classes of a list are in no row, though rows hold many: it may be another's list."""
        if self.highest + 1 >= classes or self.classes.size < _MANY * classes:
            return []
        return [
            f"no row names a class after {self.highest}, and {file} names {classes}: is it the list that CED was run "
            "with?"
        ]

    def seed_lists(self) -> Any:
        """The seeds as a column of lists, one number a view; -1 where an epoch lacks the clip."""
        import pyarrow as pa

        clips, views = self.seeds.shape
        offsets = np.arange(clips + 1, dtype=np.int32) * views
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.array(self.seeds).reshape(-1)))


def _find_clips(table: CedTable, files: CedFiles, source: Source, root: str, workers: int) -> _Clips:
    """Where the audio root has the clips, and which it lacks."""
    import pyarrow as pa

    names = AudioNames(source, root)
    by_name = [names.find(name) for name in table.names.to_pylist()]
    present = [path for path in by_name if path is not None]
    _refuse_shared(table.names.to_pylist(), by_name)
    frames, rates = np.zeros(len(by_name), np.int64), np.zeros(len(by_name), np.int64)
    here = np.array([path is not None for path in by_name], dtype=bool)
    frames[here], rates[here] = headers(source, pa.array(present, pa.string()), workers)

    files_of, chunks = table.files, table.chunks
    rate, total = rates[files_of], frames[files_of]
    at_16k = samples_at(total, np.maximum(rate, 1), SAMPLE_RATE)
    own = chunk_lengths(chunks, table.ends, at_16k, files.chunk_seconds)
    off = np.zeros(len(own), dtype=np.int64)
    for by in (-1, 1):  # resamplers differ in how they round the last sample
        other = chunk_lengths(chunks, table.ends, at_16k + by, files.chunk_seconds)
        better = (own < 0) & (other >= 0) & (rate != SAMPLE_RATE) & (rate > 0)
        own, off = np.where(better, other, own), np.where(better, by, off)
    stated = stated_lengths(chunks, table.ends, files.chunk_seconds)
    fits = (own > 0) & (rate > 0)
    own = np.where(fits, own, np.maximum(stated, 1))

    file_rate = np.where(rate > 0, rate, SAMPLE_RATE)
    start = np.rint(chunks * files.chunk_seconds * file_rate).astype(np.int64)
    whole = np.rint(files.chunk_seconds * file_rate).astype(np.int64)
    as_stated = np.rint(own / SAMPLE_RATE * file_rate).astype(np.int64)
    length = np.where(fits, np.minimum(whole, total - start), as_stated)

    failed: dict[int, str] = {}
    for position in np.flatnonzero(~fits | (table.epochs < files.epochs)).tolist():
        file = int(files_of[position])
        if by_name[file] is None:
            failed[position] = "missing: the audio root has no file of this name"
        elif not rates[file]:
            failed[position] = "unreadable: the header of the file cannot be read"
        elif not fits[position]:
            failed[position] = (
                f"other length: CED's chunk ends at {float(table.ends[position]):.6g} s, the file at "
                f"{frames[file] / rates[file]:.6g} s ({frames[file]} frames at {rates[file]} Hz)"
            )
        else:
            failed[position] = f"incomplete: only {table.epochs[position]} of {files.epochs} epochs have this clip"
    known_paths = [
        path if path is not None else name for path, name in zip(by_name, table.names.to_pylist(), strict=True)
    ]
    return _Clips(
        [known_paths[file] for file in files_of.tolist()],
        start, length, file_rate, own, failed, int(np.count_nonzero(fits & (off != 0))),
    )  # fmt: skip


def _refuse_shared(names: list[str], paths: list[str | None]) -> None:
    taken: dict[str, str] = {}
    for name, path in zip(names, paths, strict=True):
        if path is not None and taken.setdefault(path, name) != name:
            raise UsageError(f"{taken[path]} and {name} of CED's tables are both {path} in the audio root; rename one")


def _frames(asked: int | None, longest: int, recipe: Recipe) -> int:
    most = 1 + longest // HOP
    time_mask = recipe.find(TimeMask)
    least = 1 if time_mask is None else time_mask.max_ticks
    if asked is not None and not least <= asked <= most:
        raise UsageError(
            f"--frames is {asked}; allowed are {least} (the longest mask) to {most} (what CED's front end makes of the "
            f"longest clip, {longest} samples)"
        )
    return most if asked is None else asked


def _contract(files: CedFiles, frames: int) -> dict[str, Any]:
    """What the manifest says of the ensemble that nobody named."""
    from logitstore.views.mel import FrontEnd

    return {
        "imported": "ced",
        "front_end": FrontEnd().to_dict(),
        "fill": {"stage": "log-mel before BatchNorm", "value": 0.0},
        "frames": frames,
        "chunk_seconds": files.chunk_seconds,
        "epochs": files.epochs,
    }


def _notes(clips: _Clips, files: CedFiles, recipe: Recipe, frames: int, longest: int) -> list[str]:
    notes = []
    shorter = int(np.count_nonzero(1 + clips.own // HOP < frames))
    if shorter and recipe.find(TimeMask) is not None:
        notes.append(
            f"{shorter * files.epochs:,} rows are of {shorter:,} clips shorter than {frames} frames: their time masks "
            "are placed as if their batch had held a clip of that length, which CED's files do not say"
        )
    if frames < 1 + longest // HOP:
        longer = int(np.count_nonzero(1 + clips.own // HOP > frames))
        notes.append(f"{longer * files.epochs:,} rows are of {longer:,} clips longer than {frames} frames")
    if clips.resampled:
        notes.append(
            f"{clips.resampled:,} clips are one sample longer or shorter at {SAMPLE_RATE} Hz than they were for CED, "
            "for their files are at another rate"
        )
    return notes
