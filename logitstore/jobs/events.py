"""The evaluation of events: teachers and students that say when, against strong labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logitstore.audio.cache import open_cache
from logitstore.audio.source import ColumnNames
from logitstore.errors import SourceError, UsageError
from logitstore.evaluation.events import (
    COLLAR,
    MOST_FALSE,
    OFFSET_SHARE,
    SCENARIOS,
    Event,
    EventF1,
    event_f1,
    psds,
    read_events,
)
from logitstore.evaluation.labelled import with_nearest
from logitstore.jobs.options import EvaluateOptions, TagOptions
from logitstore.jobs.tag import FRAME_MS, tag
from logitstore.notes import note

#: Options of ``evaluate`` that have no meaning for events.
_OTHERS = (
    "stored", "clips", "verdicts", "measure", "annotations", "predictions", "split", "write_predictions", "map",
    "where", "labels", "level", "label_separator", "sample_rate",
)  # fmt: skip


@dataclass(frozen=True)
class EventEvaluation:
    """How well events were found: event F1 at a threshold, and PSDS in both of DCASE's scenarios, in [0, 1].

    ``files`` that were heard, of ``seconds`` in all, with ``events`` true events; ``found`` how many were found.
    ``failures``: paths that could not be read, or not to their end, with reasons; they are left out.
    """

    teachers: tuple[str, ...]
    f1: EventF1
    psds: dict[str, float]
    files: int
    seconds: float
    events: int
    found: int
    threshold: float
    median_filter: float
    shortest: float
    failures: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        by_class = [
            {"class": each.name, "events": each.events, "hits": each.hits, "false": each.false, "f1": each.f1}
            for each in self.f1.by_class
        ]
        return {
            "teachers": list(self.teachers),
            "event_f1": {"macro": self.f1.macro, "micro": self.f1.micro},
            **self.psds,
            "collar": COLLAR,
            "offset_share": OFFSET_SHARE,
            "most_false_an_hour": MOST_FALSE,
            "threshold": self.threshold,
            "median_filter": self.median_filter,
            "shortest": self.shortest,
            "files": self.files,
            "seconds": self.seconds,
            "events": self.events,
            "found": self.found,
            "by_class": by_class,
            "failures": [{"path": path, "error": error} for path, error in self.failures],
        }


def evaluate_events(options: EvaluateOptions, progress: Callable[[int, int], None] | None = None) -> EventEvaluation:
    """Hear the files of a table of strong labels, and measure what was found in them.

    :param progress: told (windows done, windows).
    :raises UsageError: options that are of clips. :raises SourceError: no such labels, no file that can be read.
    """
    _check(options)
    assert options.manifest is not None  # _check
    truth = read_events(options.manifest, options.label_column, ColumnNames.of(options))
    root = Path(options.manifest).parent if options.audio_root is None else Path(options.audio_root)
    asked = TagOptions(
        files=[str(root / path) for path in truth], teachers=options.teachers, weights=options.weights,
        average=options.average, classes=options.classes, seconds=options.clip_seconds, frames=True,
        threshold=options.threshold, median_filter=options.median_filter, shortest=options.shortest,
        batch_size=options.batch_size, workers=options.workers, device=options.device, precision=options.precision,
    )  # fmt: skip
    scores, found, lengths = {}, {}, {}
    failures: list[tuple[str, str]] = []
    classes: tuple[str, ...] = ()
    disk = open_cache(options)
    for path, heard in zip(truth, tag(asked, progress, disk=disk), strict=True):
        if heard.error is not None:
            failures.append((path, heard.error))
        if heard.error is not None or heard.frames is None:
            continue
        if not classes:
            classes = tuple(heard.classes)
            _check_labels(options, truth, classes)
        scores[path], found[path], lengths[path] = heard.frames, heard.events or [], heard.seconds
    if disk is not None:
        note(disk.summary())
    if not scores:
        raise SourceError(
            f"none of the {len(truth)} files of {options.manifest} can be read, the first: {failures[0][1]}"
        )
    known = {path: truth[path] for path in scores}
    hop = FRAME_MS / 1000
    return EventEvaluation(
        teachers=tuple(options.teachers),
        f1=event_f1(known, found, classes),
        psds={name: psds(scores, hop, known, lengths, classes, each) for name, each in SCENARIOS.items()},
        files=len(scores),
        seconds=math.fsum(lengths.values()),
        events=sum(map(len, known.values())),
        found=sum(map(len, found.values())),
        threshold=options.threshold,
        median_filter=options.median_filter,
        shortest=options.shortest,
        failures=tuple(failures),
    )


def _check(options: EvaluateOptions) -> None:
    if options.manifest is None:
        raise UsageError("--events needs strong labels: give the MANIFEST that has a row an event")
    if not options.teachers:
        raise UsageError("no teacher was given; give at least one --teacher SPEC that says when")
    for name in _OTHERS:
        if getattr(options, name) != getattr(EvaluateOptions, name):
            raise UsageError(
                f"--events measures what teachers hear when, and --{name.replace('_', '-')} does not go with it"
            )


def _check_labels(options: EvaluateOptions, truth: dict[str, tuple[Event, ...]], classes: tuple[str, ...]) -> None:
    """Refuse labels that no teacher knows: they could never be found."""
    unknown = sorted({each.label for events in truth.values() for each in events} - set(classes))
    if unknown:
        named = ", ".join(with_nearest(each, classes) for each in unknown[:3]) + (", …" if len(unknown) > 3 else "")
        raise SourceError(
            f"{options.manifest}: {len(unknown)} label{'s' * (len(unknown) > 1)} that are no class of the teachers: "
            f"{named}; rename them, or leave their rows out"
        )
