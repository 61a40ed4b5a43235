"""The evaluation job: teachers, students and their ensemble, scored on labelled audio without augmentation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from logitstore.errors import AudioError, SourceError, UsageError
from logitstore.jobs.labelled import Labelled, label_matrix, read_labelled
from logitstore.jobs.metrics import Metrics, measure
from logitstore.view.clips import ClipAudio
from logitstore.view.lengths import clip_samples

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What ``logitstore evaluate`` was asked; None means the default that the data or the teachers suggest."""

    manifest: str
    teachers: Sequence[str]
    label_column: str
    audio_root: str | None = None
    where: str | None = None
    weights: Sequence[float] | None = None
    average: str = "probability"
    classes: str | None = None
    clip_seconds: float | None = None
    sample_rate: int | None = None
    batch_size: int = 32
    workers: int | None = None
    device: str = "auto"
    amp: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Metrics of every member by its spec, and of the ensemble where there are several."""

    members: tuple[tuple[str, Metrics], ...]
    ensemble: Metrics | None
    rows: int
    clips: int
    clip_seconds: float
    sample_rate: int
    failures: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "members": [{"teacher": spec} | metrics.to_dict() for spec, metrics in self.members],
            "ensemble": None if self.ensemble is None else self.ensemble.to_dict(),
            "rows": self.rows,
            "clips": self.clips,
            "clip_seconds": self.clip_seconds,
            "sample_rate": self.sample_rate,
            "failures": [{"path": path, "reason": reason} for path, reason in self.failures],
        }


def evaluate(options: EvaluateOptions, progress: Callable[[int, int], None] | None = None) -> Evaluation:
    """Score every teacher and their ensemble; the scores of a file of several clips are averaged.

    :param progress: told (clips done, clips).
    :raises TeacherError: labels that are no class of the teachers; teachers that are no ensemble.
    :raises SourceError: nothing to score.
    """
    import torch

    from logitstore.jobs.machine import pick_device
    from teachers.classes import read_classes
    from teachers.ensemble import Ensemble
    from teachers.registry import load_teacher

    _check(options)
    workers = options.workers or os.cpu_count() or 1
    teachers = [load_teacher(spec) for spec in options.teachers]
    sample_rate = options.sample_rate or max(teacher.sample_rate for teacher in teachers)
    ensemble = Ensemble(
        teachers,
        weights=options.weights,
        average="logit" if options.average == "logit" else "probability",
        classes=None if options.classes is None else read_classes(options.classes),
        sample_rate=sample_rate,
        amp=options.amp,
    )
    labelled = read_labelled(
        options.manifest,
        options.audio_root,
        options.label_column,
        where=options.where,
        clip_seconds=options.clip_seconds,
        workers=workers,
    )
    whose = f"teacher {options.teachers[0]!r}" if len(teachers) == 1 else "the teachers"
    labels = label_matrix(labelled.labels, ensemble.classes, whose=whose)
    ensemble.to(torch.device(pick_device(options.device)))

    def said(waveforms: torch.Tensor) -> F32:
        mean, by_member = ensemble.probabilities(waveforms, None, members=True)
        return torch.cat([mean[None], by_member]).cpu().numpy()  # (1 + M, B, C)

    shape = (1 + len(teachers), len(ensemble.classes))
    audio = ClipAudio(labelled.source, labelled.table, sample_rate)
    with ThreadPoolExecutor(workers, "decode") as pool:
        scores, failures = score_clips(labelled, audio, said, shape, sample_rate, options.batch_size, pool, progress)
    rows, heard = labelled.by_row(scores, _heard(len(audio), failures))
    if not heard.any():
        clip, reason = next(iter(failures.items()))
        raise SourceError(f"none of {len(audio)} clips can be decoded, the first ({labelled.name(clip)}): {reason}")
    all_metrics = [measure(labels[heard], scores_of[heard]) for scores_of in rows]
    return Evaluation(
        tuple(zip(options.teachers, all_metrics[1:], strict=True)),
        all_metrics[0] if len(teachers) > 1 else None,
        int(heard.sum()),
        len(audio) - len(failures),
        labelled.clip_seconds,
        sample_rate,
        tuple((labelled.name(clip), reason) for clip, reason in sorted(failures.items())),
    )


def score_clips(
    labelled: Labelled,
    audio: ClipAudio,
    said: Callable[[Any], F32],
    shape: tuple[int, int],
    sample_rate: int,
    batch_size: int,
    pool: ThreadPoolExecutor,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[F32, dict[int, str]]:
    """What models say of every clip, unaugmented and padded to one length.

    :param said: waveforms, a float32 tensor (B, S), to scores float32 (M, B, C). :param shape: (M, C).
    :returns: float32 (M, n, C), zero for clips that failed, and the reasons of those.
    """
    from logitstore.view.replay import pad

    samples = max(1, clip_samples(labelled.clip_seconds, sample_rate))
    scores = np.zeros((shape[0], len(audio), shape[1]), dtype=np.float32)
    failures: dict[int, str] = {}
    for done, clips, waveforms in _decoded(audio, batch_size, pool, failures):
        if len(clips):
            scores[:, clips] = said(pad(waveforms, samples)[0])
        if progress is not None:
            progress(done, len(audio))
    return scores, failures


def _decoded(
    audio: ClipAudio, batch_size: int, pool: ThreadPoolExecutor, failures: dict[int, str]
) -> Iterator[tuple[int, I64, list[F32]]]:
    """Batches of clips in order, the next one decoded while one is used: how far it is, the clips, their waveforms."""

    def attempt(clip: int) -> F32 | AudioError:
        try:
            return audio[clip]
        except AudioError as error:
            return error

    starts = range(0, len(audio), batch_size)
    ahead = [pool.submit(attempt, clip) for clip in range(min(batch_size, len(audio)))]
    for start in starts:
        current = ahead
        following = range(start + batch_size, min(start + 2 * batch_size, len(audio)))
        ahead = [pool.submit(attempt, clip) for clip in following]
        clips, waveforms = [], []
        for clip, future in enumerate(current, start=start):
            result = future.result()
            if isinstance(result, AudioError):
                failures[clip] = str(result)
            else:
                clips.append(clip)
                waveforms.append(result)
        yield start + len(current), np.array(clips, dtype=np.int64), waveforms


def _heard(clips: int, failures: dict[int, str]) -> Bool:
    heard = np.ones(clips, dtype=np.bool_)
    heard[list(failures)] = False
    return heard


def _check(options: EvaluateOptions) -> None:
    if not options.teachers:
        raise UsageError("no teacher was given; give at least one --teacher SPEC")
    if options.clip_seconds is not None and not 0.1 <= options.clip_seconds <= 3600:
        raise UsageError(f"--clip-seconds is {options.clip_seconds:g}; allowed are 0.1 to 3600")
    for name, least in (("batch_size", 1), ("workers", 1), ("sample_rate", 1000)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}")
