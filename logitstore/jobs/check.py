"""``logitstore teachers check``: one teacher tried on a user's audio, or on sounds that are made here.

The checks of :mod:`teachers.checks`, and what of its answers survives the recipe (:mod:`logitstore.jobs.survival`).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.arrays import F32
from logitstore.audio.clips import ClipAudio, put
from logitstore.audio.found import named, require_found
from logitstore.audio.lengths import clip_samples
from logitstore.audio.scan import scan
from logitstore.audio.source import ColumnNames
from logitstore.audio.sources import open_source
from logitstore.errors import AudioError, ModelOutputError
from logitstore.jobs.options import CheckOptions
from logitstore.jobs.survival import CLIPS, Sample, Survival, survival
from logitstore.store.shards import default_shard_clips
from logitstore.texts import in_lines
from logitstore.views.ops import Place
from logitstore.views.philox import philox4x32, uniform_integers
from logitstore.views.recipe import AUTO, Recipe, fitting, load_recipe

if TYPE_CHECKING:
    import pyarrow as pa

    from teachers.checks import Finding

_VIEWS = 2 * CLIPS
_LEAST = 2  # views of a first batch, so that one can be asked about alone


@dataclass(frozen=True)
class Checked:
    """What was found of a teacher. ``heard`` says what it was asked about; ``survival`` is None where nothing could be
    told of that, and under a recipe without ops."""

    teacher: str
    heard: str
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    survival: Survival | None

    @property
    def failed(self) -> list[str]:
        """The checks that failed."""
        return list(dict.fromkeys(each.check for each in self.findings if each.verdict == "fails"))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"survival": None if self.survival is None else self.survival.to_dict()}

    def render(self) -> str:
        """Lines for people: a check a line, and the table of what survives."""
        rows = [(each.verdict, each.check, each.line) for each in self.findings]
        if self.survival is not None:
            warned = self.survival.warnings()
            kept = f"the top class is kept in {self.survival.teachers[0].recipe.top:.2f} of the views, as told below"
            rows += [("warning", "survival", line) for line in warned] or [("ok", "survival", kept)]
        wide = max(len(check) for _, check, _ in rows)
        return in_lines(
            [
                f"teacher  {self.teacher}",
                f"heard    {self.heard}",
                "",
                *(f"{verdict:<8} {check:<{wide}}  {found}" for verdict, check, found in rows),
                *(["", *self.survival.lines()] if self.survival is not None else []),
            ]
        )


def check(options: CheckOptions) -> Checked:
    """Load a teacher and try it.

    :raises TeacherError: it cannot be loaded, or cannot hear the recipe, or views of that length.
    :raises AudioError: no clip of the source can be decoded.
    """
    asked = None
    if isinstance(options.recipe, Recipe) or options.recipe != AUTO:
        asked = options.recipe if isinstance(options.recipe, Recipe) else load_recipe(options.recipe)
    source = open_source(options.source, options.audio_root, ColumnNames()) if options.source else None

    from teachers.checks import Finding, examine
    from teachers.ensemble import load_ensemble

    ensemble = load_ensemble([options.spec], sample_rate=options.sample_rate, device=options.device)
    (teacher,), rate = ensemble.members, ensemble.sample_rate
    seconds = options.clip_seconds or ensemble.learnt_seconds()[0]
    notes = ensemble.unheard("as --sample-rate asks")
    workers = options.workers or os.cpu_count() or 1
    if source is not None:
        table = scan(source, clip_seconds=seconds, where=options.where, workers=workers)
        notes += require_found(source, table, list(options.source), options.audio_root)
        audio, what = ClipAudio(source, table, rate), f"clips of {named(options.source)}"
        if options.clip_seconds is None and teacher.contract.trained_seconds is None:
            seconds = min(seconds, _longest(table) or seconds)  # silence behind every clip would be all that is heard
    place = Place(clip_samples(seconds, rate), rate)
    recipe = asked or fitting(teacher.takes_masks)
    recipe.check(place)
    ensemble.check(recipe, seconds)
    if source is None:
        table, audio = _made(place)
        what = f"{CLIPS} sounds that were made here (tones, sweeps, clicks, noise): give a SOURCE for what counts"
    place = Place(place.clip_samples, rate, default_shard_clips(table.num_rows))
    with ThreadPoolExecutor(workers, "decode") as pool:
        sample = Sample.of(recipe.fitted(place), place, table, audio, views=_VIEWS, pool=pool)
        if sample is None:
            raise _none_decodes(audio, named(options.source))
        spread = np.linspace(0, len(sample.clips) - 1, max(_LEAST, min(options.batch_size, len(sample.clips))))
        first = sample.views(spread.astype(int))
        findings = examine(teacher, first.waveforms, first.masks, rate=rate, device=options.device)
        kept = None
        if findings[0].verdict != "fails":
            try:
                kept = survival(ensemble, sample, batch_size=options.batch_size)
            except ModelOutputError as error:
                findings.append(Finding("survival", "fails", str(error)))
    heard = f"{what}, views of {seconds:g} s at {rate:,} Hz, recipe {recipe.name}, on {ensemble.device}"
    return Checked(teacher.spec, heard, tuple(notes), tuple(findings), kept)


def _none_decodes(audio: ClipAudio, where: str) -> AudioError:
    """The error of a source of which none of the clips that were tried can be decoded."""
    try:
        reason = f"{len(audio[0]):,} samples"
    except AudioError as error:
        reason = str(error)
    return AudioError(
        f"none of the clips of {where} that were tried can be decoded (such as {audio.place(0)}: {reason}); see that "
        "these files are audio, and whole, or leave SOURCE out"
    )


class _Made(ClipAudio):
    """Sounds of one length that are made here, and are the same everywhere: tones, sweeps, clicks, noise in turn."""

    def __init__(self, samples: int, rate: int) -> None:
        self.samples, self.rate = samples, rate

    def __len__(self) -> int:
        return CLIPS

    def place(self, clip: int) -> str:
        return f"sound {clip}"

    def __getitem__(self, clip: int) -> F32:
        kind, step = clip % 4, clip // 4
        index = np.arange(self.samples, dtype=np.int64)
        time = index / self.rate
        hz = 150.0 * 2 ** (step / 2)  # 150 Hz to 1.7 kHz
        if kind == 0:
            sound = sum(np.sin(2 * np.pi * hz * k * time) / k for k in (1, 2, 3)) / 2
        elif kind == 1:
            length = self.samples / self.rate
            sound = np.sin(2 * np.pi * hz * (time + time**2 / length))  # to three times its start
        elif kind == 2:
            since = index % max(1, int(self.rate / (2 + 2 * step))) / self.rate
            sound = np.exp(-60 * since) * np.sin(2 * np.pi * 4 * hz * since)
        else:
            words = philox4x32((index // (1 + step), clip, 0, 0), (0, 0))[0]  # held for some samples: darker noise
            sound = uniform_integers(words, -(1 << 15), 1 << 15) / (1 << 15)
        swell = 0.5 + 0.5 * np.sin(2 * np.pi * (0.3 + 0.1 * step) * time)
        made: F32 = (0.4 * swell * sound).astype(np.float32)
        return made

    def write(self, clip: int, row: F32, turn: int = 0) -> int:
        return put(self[clip], row, turn)


def _longest(table: pa.Table) -> float:
    """Seconds of the longest clip of a table; 0 of an empty one."""
    lengths, rates = (table[name].to_numpy() for name in ("length", "rate"))
    return float((lengths / np.maximum(rates, 1)).max(initial=0.0))


def _made(place: Place) -> tuple[pa.Table, ClipAudio]:
    """The made sounds as a clip table, and their audio."""
    import pyarrow as pa

    audio = _Made(place.clip_samples, place.sample_rate)
    count = len(audio)
    table = pa.table(
        {
            "path": [audio.place(clip) for clip in range(count)],
            "start": np.zeros(count, np.int64),
            "length": np.full(count, place.clip_samples, np.int64),
            "rate": np.full(count, place.sample_rate, np.int64),
        }
    )
    return table, audio
