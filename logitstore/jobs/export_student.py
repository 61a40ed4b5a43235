"""The export job: a run in, an ONNX file out, with 8-bit weights beside it and what that costs where it is asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from logitstore.arrays import F32
from logitstore.audio.clips import ClipAudio
from logitstore.audio.lengths import clip_samples
from logitstore.audio.scan import scan
from logitstore.audio.sources import open_source
from logitstore.errors import RunError, SourceError
from logitstore.evaluation.labelled import DEFAULT_CLIP_SECONDS, read_labelled
from logitstore.evaluation.scores import decoded
from logitstore.jobs.compare import Comparison
from logitstore.jobs.compare import compare as compare_models
from logitstore.jobs.evaluate import evaluate
from logitstore.jobs.options import CompareOptions, EvaluateOptions, ExportOptions
from logitstore.training.runs import Run, load_run
from logitstore.views.render import pad
from students import int8
from students.export import Agreement, checked, compare, feeds, place, shortest

SUFFIX = ".onnx"
#: Clips that ranges are measured on, evenly over all that are given; and how many a batch.
_CALIBRATION_CLIPS = 128
_CALIBRATION_BATCH = 8
#: What is said aloud: fewer clips with the same first class, or a probability that is farther away.
_LEAST_AGREEMENT, _MOST_DIFFERENCE = 0.95, 0.1


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One file: its size, how far it is from the run, and its mAP where labels were given.

    ``method`` is None, "static" or "dynamic"; ``heard`` what the difference was measured on; ``compared`` how far it
    agrees with the run on audio, where some was given. Of an 8-bit file,
    ``weights`` says how many have 8 bits and how many do not, and ``warning`` that it lost much, where it did.
    """

    path: str
    bytes: int
    method: str | None
    agreement: Agreement
    heard: str
    weights: int8.Weights | None = None
    warning: str | None = None
    mAP: float | None = None  # noqa: N815 - its name everywhere
    compared: Comparison | None = None


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written, and of what: the float file, then the 8-bit one; ``mAP`` is the run's own."""

    run: str
    classes: int
    scores: str
    sample_rate: int
    least_samples: int
    files: tuple[Exported, ...]
    mAP: float | None = None  # noqa: N815

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def export_student(options: ExportOptions, progress: Callable[[str], None] | None = None) -> Export:
    """Export a run, check it, and measure it where labels are given.

    :param progress: told what is being done.
    :raises RunError: not a run, options that cannot be right, or a file that does not say what the run says.
    :raises MissingExtraError: the extra ``onnx`` is not installed.
    :raises SourceError: nothing to calibrate or to measure on. :raises TeacherError: labels that are no class.
    """
    say = progress or (lambda _: None)
    _check(options)
    run = load_run(options.run)
    options = replace(options, clip_seconds=options.clip_seconds or run.clip_seconds)
    say("exporting and checking")
    content, agreement = checked(run, options.masks)
    path = Path(options.out)
    parts: list[tuple[Path, bytes, str | None, Agreement, str]] = [(path, content, None, agreement, "test signals")]
    if options.int8:
        say("quantising")
        parts.append(_int8(options, run, content))
    for target, part, _, _, _ in parts:
        place(part, target, run)
    found: list[float | None] = [None] * (1 + len(parts))
    if options.eval_manifest is not None and options.label_column is not None:
        say("measuring")
        specs = [options.run, *(f"onnx:{target}" for target, *_ in parts)]
        measured = evaluate(
            EvaluateOptions(
                manifest=options.eval_manifest, teachers=specs, label_column=options.label_column,
                label_separator=options.label_separator,
                audio_root=options.audio_root, where=options.eval_where, clip_seconds=options.clip_seconds,
                workers=options.workers, device="cpu",
            )
        )  # fmt: skip
        found = [metrics.mAP for _, metrics in measured.members]
    files = tuple(
        Exported(
            path=str(target), bytes=len(part), method=method, agreement=agreed, heard=heard, mAP=mean_ap,
            compared=_compared(options, target),
            weights=None if method is None else int8.weights_of(part), warning=method and _warning(agreed),
        )
        for (target, part, method, agreed, heard), mean_ap in zip(parts, found[1:], strict=True)
    )  # fmt: skip
    return Export(
        run=options.run, classes=len(run.classes), scores=run.scores, sample_rate=run.sample_rate,
        least_samples=shortest(run.model), files=files, mAP=found[0],
    )  # fmt: skip


def _compared(options: ExportOptions, file: Path) -> Comparison | None:
    """The file against the run, on the audio of ``--eval`` or ``--calibrate``; None where there is none."""
    source, where = (options.eval_manifest, options.eval_where) if options.eval_manifest else (options.calibrate, None)
    if source is None:
        return None
    asked = CompareOptions(
        a=options.run, b=str(file), source=source, audio_root=options.audio_root, where=where, device="cpu",
        clip_seconds=options.clip_seconds, workers=options.workers,
    )  # fmt: skip
    return compare_models(asked)


def _warning(found: Agreement) -> str | None:
    """Why an 8-bit file is not what the run is; None for one that is near."""
    if found.top1 >= _LEAST_AGREEMENT and found.largest <= _MOST_DIFFERENCE:
        return None
    return (
        f"8 bits cost much here: another first class for {1 - found.top1:.1%} of the clips, probabilities up to "
        f"{found.largest:.2g} away; measure it with --eval MANIFEST before it is used, and try --activation-bits 16 or "
        "more and other audio for --calibrate"
    )


def _check(options: ExportOptions) -> None:
    if Path(options.out).suffix != SUFFIX:
        raise RunError(f"--out is {options.out!r}; give a file that ends in {SUFFIX}")
    if options.eval_manifest is None:
        for name in ("label_column", "label_separator", "eval_where"):
            if getattr(options, name) is not None:
                raise RunError(f"--{name.replace('_', '-')} says how to evaluate, and there is no --eval MANIFEST")
    elif options.label_column is None:
        raise RunError("--eval is given without --label-column; name the manifest's column of labels")
    if options.activation_bits != 8 and not options.int8:
        raise RunError("--activation-bits is for 8-bit files, and there is no --int8")
    if options.calibrate is not None and not options.int8:
        raise RunError("--calibrate is for 8-bit files, and there is no --int8")


def _int8(options: ExportOptions, run: Run, content: bytes) -> tuple[Path, bytes, str, Agreement, str]:
    method = int8.method_for(content)
    asked = options.calibrate or options.eval_manifest
    if method == int8.STATIC and asked is None:
        raise RunError(
            f"--int8 of run {options.run!r} needs audio to measure the ranges of its convolutions on: give --calibrate "
            "AUDIO (a folder or a manifest; no labels are needed), or --eval MANIFEST"
        )
    if method == int8.DYNAMIC and options.activation_bits != 8:
        raise RunError(
            f"--activation-bits is for convolutions, and run {options.run!r} is mostly matrix products; leave it out"
        )
    heard = [] if asked is None else _audio(options, run)
    given = [feed for batch in heard for feed in feeds(batch, run.model, options.masks)]
    small = int8.quantised(content, method, given, options.activation_bits)
    path = Path(options.out)
    measured_on = f"{sum(len(batch) for batch in heard)} clips of {asked}" if heard else "test signals"
    if not heard:
        from students.export import batches_to_check

        heard = batches_to_check(run.model)
    return path.with_suffix(f".int8{SUFFIX}"), small, method, compare(small, run.model, heard), measured_on


def _audio(options: ExportOptions, run: Run) -> list[F32]:
    """Batches of clips, float32 (B, S), unaugmented and padded, evenly over all that are given.

    :raises SourceError: none can be decoded.
    """
    workers = options.workers or os.cpu_count() or 1
    if options.calibrate is not None:
        source = open_source(options.calibrate, options.audio_root)
        seconds = options.clip_seconds or DEFAULT_CLIP_SECONDS
        table = scan(source, clip_seconds=seconds, workers=workers)
    else:
        labelled = read_labelled(
            str(options.eval_manifest), options.audio_root, str(options.label_column), where=options.eval_where,
            label_separator=options.label_separator, classes=run.classes, clip_seconds=options.clip_seconds,
            workers=workers,
        )  # fmt: skip
        source, table, seconds = labelled.source, labelled.table, labelled.clip_seconds
    chosen = np.unique(np.linspace(0, table.num_rows - 1, min(table.num_rows, _CALIBRATION_CLIPS)).round().astype(int))
    audio = ClipAudio(source, table.take(chosen), run.sample_rate)
    samples = max(1, clip_samples(seconds, run.sample_rate))
    failures: dict[int, str] = {}
    with ThreadPoolExecutor(workers, "decode") as pool:
        batches = [
            pad(waveforms, samples)[0].numpy()
            for _, clips, waveforms in decoded(audio, _CALIBRATION_BATCH, pool, failures)
            if len(clips)
        ]
    if not batches:
        raise SourceError(f"none of {len(audio)} clips to calibrate on can be decoded, the first: {failures[0]}")
    return batches
