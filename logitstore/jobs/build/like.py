"""``build --like STORE``: another store of the same clips, drawn alike, so that both can be read as one ensemble.

A draw depends on the seed, the clip and the view alone. So what must match comes from the store: its clip table, byte
for byte, recipe, seed, rate, lengths and shards. Teachers, classes, device and the place of the audio are the build's
own. The audio is held against the store's fingerprints.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.audio.clips import ClipAudio
from logitstore.audio.found import require_found
from logitstore.audio.scan import headers
from logitstore.errors import MismatchError, UsageError
from logitstore.jobs.build.heard import Heard
from logitstore.jobs.options import BuildOptions, Extension
from logitstore.store.format.commits import Commit
from logitstore.store.format.manifest import IMPORTED, Manifest
from logitstore.store.format.parts import KEY, Part, parts_of_source, read_parts
from logitstore.store.piece import Piece, open_piece
from logitstore.views.recipe import AUTO, Recipe, load_recipe

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.source import Source

DEFAULT_VIEWS = 10
_SOURCE_OPTIONS = ("where", "path_column", "start_column", "end_column", "duration_column")
_MOST_BLOCKS = 4
_SHOWN = 3


@dataclass(frozen=True)
class Like:
    """The store that a build follows. ``parts`` are of its clip table; ``own`` the names of those to be built."""

    piece: Piece
    parts: tuple[Part, ...]
    own: frozenset[str] = frozenset()

    @property
    def manifest(self) -> Manifest:
        """What the store is."""
        return self.piece.manifest

    @property
    def clips(self) -> pa.Table:
        """The clips of all parts: path, start, length and rate."""
        import pyarrow as pa

        return pa.concat_tables([_keys(part.table) for part in self.parts])

    def of_shard(self, shard: int) -> list[Commit]:
        """The store's blocks of a shard that have fingerprints."""
        return [each for each in self.piece.commits if each.shard == shard and each.fingerprints]

    def notes(self, options: BuildOptions) -> list[str]:
        """What the user should know of what comes from the store."""
        manifest, views = self.manifest, options.views
        others = "" if views == self.piece.views else f", of which {self.piece.location} has {self.piece.views}"
        return [
            f"drawn like {self.piece.location}: recipe {manifest.recipe.name}, seed {manifest.seed}, views of "
            f"{manifest.clip_seconds:g} s at {manifest.sample_rate:,} Hz, {views} of each clip{others}"
        ]

    def contents(self) -> list[bytes]:
        """The files of the clip table, to be copied."""
        return [self.piece.storage.get(part.name) for part in self.parts]

    def of_source(self, scanned: pa.Table) -> tuple[Like, list[str]]:
        """The same, for the clips that a source gives; and a line on those that it does not give.

        :raises MismatchError: it gives other clips than the store's, or a part's otherwise; some are named.
        """
        narrow = [dataclasses.replace(part, table=_keys(part.table)) for part in self.parts]
        found = parts_of_source(narrow, _keys(scanned), self.piece.location)
        given = set(scanned["path"].to_pylist())
        paths = dict.fromkeys(path for part in found for path in part.table["path"].to_pylist())
        gone = [path for path in paths if path not in given]
        notes = []
        if gone:
            notes.append(
                f"{len(gone):,} of {len(paths):,} files of {self.piece.location} are not in the source, and are "
                f"recorded as failures ({', '.join(gone[:_SHOWN])}{', …' if len(gone) > _SHOWN else ''})"
            )
        return dataclasses.replace(self, own=frozenset(part.name for part in found)), notes

    def of_audio(self, source: Source, audio_root: str, workers: int) -> tuple[Like, list[str]]:
        """The same, for the audio alone, going by the headers of its files; and notes.

        :raises MismatchError: a file has another rate, or is too short for its clips; some are named.
        :raises SourceError, AudioError: not one of the files can be read.
        """
        import pyarrow as pa

        clips = self.clips
        paths = list(dict.fromkeys(clips["path"].to_pylist()))
        frames, rates = headers(source, pa.array(paths, pa.string()), workers)
        there = dict(zip(paths, zip(rates.tolist(), frames.tolist(), strict=True), strict=True))
        wrong: dict[str, str] = {}
        now = []
        for path, start, length, rate in zip(*(clips[name].to_pylist() for name in clips.column_names), strict=True):
            found_rate, found_frames = there[path]
            now.append(found_rate if rate else 1)  # one that could not be read then is no news
            if rate and found_rate and found_rate != rate:
                wrong[path] = f"{path} was at {rate} Hz and is at {found_rate} Hz"
            elif rate and found_rate and found_frames < start + length:
                wrong.setdefault(path, f"{path} has {found_frames} frames and had {start + length} or more")
        if wrong:
            some = "; ".join([*wrong.values()][:_SHOWN])
            raise MismatchError(
                f"the audio of {audio_root} is not the one that {self.piece.location} was made from: {some} "
                f"({len(wrong)} such files); give that audio"
            )
        seen = clips.set_column(clips.column_names.index("rate"), "rate", pa.array(now, pa.int32()))
        notes = require_found(source, seen, self.piece.location, audio_root)
        return dataclasses.replace(self, own=frozenset(part.name for part in self.parts)), notes

    def heard(self, source: Source, pool: Executor | None, name: str) -> Heard:
        """What the audio is held against: the fingerprints of the store; its teachers are not asked."""
        audio = ClipAudio(source, self.clips, self.manifest.sample_rate)
        return Heard(self.piece, audio, None, pool, name)

    def require_heard(self, source: Source, name: str) -> None:
        """Hold the audio against some blocks of the store, spread over it, before anything is written.

        :raises MismatchError: it sounds otherwise; files are named.
        """
        heard, known = self.heard(source, None, name), [each for each in self.piece.commits if each.fingerprints]
        chosen = np.unique(np.linspace(0, len(known) - 1, min(_MOST_BLOCKS, len(known))).astype(int))
        for number in chosen.tolist():
            heard.check(known[number])


def as_like(options: BuildOptions) -> tuple[BuildOptions, Like | None]:
    """The options with nothing left open that the store of ``--like`` says, or their own default does; and that store.

    :raises NotAStoreError: there is no store.
    :raises MismatchError: an option that says otherwise than the store; or a store whose draws are not of its seed.
    :raises UsageError: neither a source, nor a store and the audio of its clips.
    """
    if options.like is None:
        if not options.source and not isinstance(options, Extension):
            raise UsageError("no SOURCE was given; give the audio, or --like STORE with --audio-root, for its clips")
        given: dict[str, Any] = {"seed": options.seed or 0, "views": options.views or DEFAULT_VIEWS}
        return dataclasses.replace(options, **given), None
    piece = open_piece(options.like)
    manifest = piece.manifest
    if manifest.device_kind == IMPORTED:
        raise MismatchError(
            f"{options.like} was imported: its draws are not those of its seed, so no other store can be drawn alike"
        )
    if not options.source:
        if options.audio_root is None:
            raise UsageError(
                f"--like {options.like} says which clips there are, not where; give --audio-root, or SOURCE"
            )
        for name in _SOURCE_OPTIONS:
            if getattr(options, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} says how to read SOURCE, and there is none; leave it out")
    _require_agreeing(options, manifest)
    parts = read_parts(piece.storage, manifest.shard_clips)
    if not parts:
        raise MismatchError(f"{options.like} has no clips yet; run its build first")
    piece.clip_files()  # as the commits say
    resolved: dict[str, Any] = {
        "recipe": manifest.recipe,
        "seed": manifest.seed,
        "clip_seconds": manifest.clip_seconds,
        "sample_rate": manifest.sample_rate,
        "shard_clips": manifest.shard_clips,
        "views": options.views or piece.views or DEFAULT_VIEWS,
    }
    return dataclasses.replace(options, **resolved), Like(piece, parts)


def _require_agreeing(options: BuildOptions, manifest: Manifest) -> None:
    """Refuse an option beside ``--like`` that says otherwise than the store."""
    said = [
        (f"--{name.replace('_', '-')}", getattr(manifest, name), getattr(options, name))
        for name in ("seed", "clip_seconds", "sample_rate", "shard_clips")
        if getattr(options, name) not in (None, getattr(manifest, name))
    ]
    if options.recipe != AUTO:
        asked = options.recipe if isinstance(options.recipe, Recipe) else load_recipe(options.recipe)
        stored = manifest.recipe_document["ops"]
        if stored not in (asked.fitted(manifest.place).to_dict()["ops"], asked.unshared().to_dict()["ops"]):
            said.append(("--recipe", manifest.recipe.name, f"{asked.name}, whose ops are others"))
    if said:
        shown = "; ".join(f"{flag}: the store has {stored}, asked {asked}" for flag, stored, asked in said)
        raise MismatchError(
            f"--like {options.like} says what must match it, and other options say otherwise: {shown}; leave those "
            "out, or --like"
        )


def _keys(table: pa.Table) -> pa.Table:
    return table.select([*KEY, "rate"])
