"""The evaluation job: teachers, students, their ensemble and stored targets, scored on labels without augmentation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from logitstore.arrays import F32, Bool
from logitstore.audio.cache import open_cache
from logitstore.audio.clips import ClipAudio
from logitstore.audio.sonyc import column_for
from logitstore.audio.source import ColumnNames
from logitstore.errors import SourceError, UsageError
from logitstore.evaluation import sonyc
from logitstore.evaluation.labelled import Labelled, label_matrix, read_labelled
from logitstore.evaluation.mapping import LabelMap, keep_mapped, read_map
from logitstore.evaluation.metrics import Scores, measure
from logitstore.evaluation.results import ENSEMBLE, Evaluation
from logitstore.evaluation.scores import score_rows
from logitstore.evaluation.sonyc import SonycEvaluation
from logitstore.evaluation.stored import StoredRows, join_manifest, join_own
from logitstore.jobs.options import EvaluateOptions
from logitstore.notes import note
from logitstore.options import label_column_of


def evaluate(options: EvaluateOptions, progress: Callable[[int, int], None] | None = None) -> Evaluation:
    """Score every teacher and their ensemble, or the targets of a store, or both on the rows that both have.

    The scores of a row of several clips are averaged. Without teachers, torch is not imported and no audio is read.

    :param progress: told (clips done, clips).
    :raises TeacherError: labels that are no class of the teachers; teachers that are no ensemble.
    :raises SourceError: nothing to score.
    """
    options = _asked(options)
    if options.predictions is not None:
        raise UsageError("--predictions are scores already, and need neither teachers nor audio")
    _check(options)
    used = None if options.map is None else read_map(options.map)
    stored = None if options.stored is None else _stored_rows(options, options.stored, used)
    if options.teachers:
        return _heard_by_teachers(options, stored, used, progress)
    assert stored is not None  # _check: one of the two was asked for
    own = stored.store.manifest.classes
    classes, mapped, what = None, None, None
    if options.classes is not None:
        from logitstore.classes import read_classes

        classes = read_classes(options.classes)
    if used is not None:
        classes = used.scored([(stored.place, own)])
        stored, what = keep_mapped(stored, classes, used)
        mapped = used.onto(classes, own)
    found = stored.score(classes, mapped)
    return Evaluation(
        members=(), ensemble=None, stored=found, classes=classes or own, rows=found.rows, clips=found.clips,
        clip_seconds=found.clip_seconds, sample_rate=found.sample_rate, failures=(), map=what,
        sonyc=() if options.measure is None else (_official_of_targets(options, stored),),
    )  # fmt: skip


def _stored_rows(options: EvaluateOptions, place: str, used: LabelMap | None) -> StoredRows:
    from logitstore.store.reader import open_store

    store = open_store(place)
    names = None if used is None else tuple(used.classes)
    subset = None
    if options.clips is not None:
        from logitstore.store.subset import read_subset

        subset = read_subset(store, options.clips)
    if options.manifest is None:
        return join_own(
            store, _column(options, store.manifest.classes), where=options.where, separator=options.label_separator,
            classes=names, subset=subset, verdicts=options.verdicts,
        )  # fmt: skip
    return join_manifest(
        store,
        options.manifest,
        _column(options, store.manifest.classes),
        where=options.where,
        separator=options.label_separator,
        columns=ColumnNames.of(options),
        classes=names,
        subset=subset,
        verdicts=options.verdicts,
        by_name=options.measure is not None,
    )


def _column(options: EvaluateOptions, classes: Sequence[str]) -> str:
    """The column of labels: as asked, and of SONYC-UST's by default the one that fits the classes.

    Under its official measure ``level`` is that of the measure, whatever the classes are.
    """
    if options.labels is None or (options.measure is None and options.level is not None):
        return label_column_of(options)
    return column_for(classes)


def _heard_by_teachers(
    options: EvaluateOptions,
    stored: StoredRows | None,
    used: LabelMap | None,
    progress: Callable[[int, int], None] | None,
) -> Evaluation:
    import torch

    from teachers.ensemble import load_ensemble

    workers = options.workers or os.cpu_count() or 1
    ensemble = load_ensemble(
        options.teachers,
        options.weights,
        options.average,
        options.classes,
        sample_rate=options.sample_rate,
        device=options.device,
        precision=options.precision,
    )
    for line in (*ensemble.notes, *ensemble.unheard("as --sample-rate asks")):
        note(line)
    classes, what = ensemble.classes, None
    known = [np.ones(len(classes), dtype=np.bool_), *ensemble.known]
    onto: list[Callable[[Scores], Scores]] = []
    if used is not None:
        own = [[name for name, there in zip(classes, of.tolist(), strict=True) if there] for of in known]
        models = [(f"teacher {spec!r}", names) for spec, names in zip(options.teachers, own[1:], strict=True)]
        models += [] if stored is None else [(stored.place, list(stored.store.manifest.classes))]
        classes = used.scored(models)
        onto = [used.onto(classes, ensemble.classes, names) for names in own]
        known = [np.ones(len(classes), dtype=np.bool_)] * len(known)
    assert options.manifest is not None  # _check
    column = _column(options, classes)
    says = any(teacher.contract.trained_seconds for teacher in ensemble.members)
    learnt = ensemble.learnt_seconds()[0] if says else None
    labelled = read_labelled(
        options.manifest,
        options.audio_root,
        column,
        where=options.where,
        label_separator=options.label_separator,
        classes=classes if used is None else tuple(used.classes),
        clip_seconds=options.clip_seconds or learnt,
        workers=workers,
        columns=ColumnNames.of(options),
    )
    if used is not None:
        labelled, what = keep_mapped(labelled, classes, used)
    if stored is not None:
        corrected = stored if used is None else keep_mapped(stored, classes, used)[0]
        labelled = labelled.keep(np.isin(labelled.numbers, corrected.numbers))
        told = dict(zip(corrected.numbers.tolist(), corrected.labels, strict=True))
        labelled = replace(labelled, labels=tuple(told[number] for number in labelled.numbers.tolist()))
        if not len(labelled):
            raise SourceError(f"no row of {options.manifest} that can be read is in the store {options.stored}")
    whose = f"teacher {options.teachers[0]!r}" if len(ensemble.members) == 1 else "the teachers"
    whose = whose if options.classes is None else "the --classes file"
    labels = label_matrix(labelled.labels, classes, whose=whose, source=options.manifest)

    def said(waveforms: torch.Tensor) -> F32:
        mean, by_member = ensemble.probabilities(waveforms, None, members=True)
        scores: F32 = torch.cat([mean[None], by_member]).cpu().numpy()  # (1 + M, B, C)
        if used is None:
            return scores
        return np.stack([mapped(each) for mapped, each in zip(onto, scores, strict=True)])

    shape, rate = (1 + len(ensemble.members), len(classes)), ensemble.sample_rate
    disk = open_cache(options)
    audio = ClipAudio(labelled.source, labelled.table, rate, disk=disk)
    with ThreadPoolExecutor(workers, "decode") as pool:
        rows, heard, failures = score_rows(labelled, audio, said, shape, rate, options.batch_size, pool, progress)
    if disk is not None:
        note(disk.summary())
    names = [ENSEMBLE if len(options.teachers) > 1 else options.teachers[0], *options.teachers]
    official = _official(options, labelled, classes, rows, heard, names) if options.measure else ()
    if stored is not None and options.measure is not None:
        official += (_official_of_targets(options, stored),)
    all_metrics = [
        measure(labels[heard], scores_of[heard], np.flatnonzero(of)) for of, scores_of in zip(known, rows, strict=True)
    ]
    if stored is not None:
        stored = stored.keep(np.isin(stored.numbers, labelled.numbers[heard]))
        mapped = None if used is None else used.onto(classes, stored.store.manifest.classes)
        if used is not None:
            stored, _ = keep_mapped(stored, classes, used)
    return Evaluation(
        members=tuple(zip(options.teachers, all_metrics[1:], strict=True)),
        ensemble=all_metrics[0] if len(ensemble.members) > 1 else None,
        stored=None if stored is None else stored.score(classes, mapped),
        classes=classes,
        rows=int(heard.sum()),
        clips=len(audio) - len(failures),
        clip_seconds=labelled.clip_seconds,
        sample_rate=rate,
        failures=tuple((audio.place(clip), reason) for clip, reason in sorted(failures.items())),
        map=what,
        sonyc=official,
    )


def evaluate_predictions(options: EvaluateOptions) -> SonycEvaluation:
    """The official measure of a file of predictions against the agreed labels of a split: files alone, no audio.

    :raises UsageError: options that are of teachers or stores. :raises SourceError: the files do not fit each other.
    """
    options = _asked(options)
    for name in ("teachers", "stored", "write_predictions", "map", "classes", "clip_seconds", "sample_rate", "weights"):
        if getattr(options, name):
            flag = {"teachers": "teacher", "weights": "teacher-weight"}.get(name, name.replace("_", "-"))
            raise UsageError(
                f"--predictions are scores already, and --{flag} is for scores from audio; give one of them"
            )
    assert options.manifest is not None  # _asked
    assert options.predictions is not None
    found = sonyc.read_predictions(options.predictions)
    truth = sonyc.read_truth(options.manifest, options.split or "validate")
    return sonyc.evaluate(options.predictions, truth, found, options.level)


def _official(
    options: EvaluateOptions, labelled: Labelled, classes: Sequence[str], rows: F32, heard: Bool, names: Sequence[str]
) -> tuple[SonycEvaluation, ...]:
    """The official measure of SONYC-UST of what was heard, float32 (1 + M, rows, C), and the file of predictions."""
    truth = _truth(options)
    given = [sonyc.predictions_of(labelled.files(heard), classes, of[heard].astype(np.float64), derive=True)
             for of in rows]  # fmt: skip
    if options.write_predictions is not None:
        sonyc.write_predictions(given[0], options.write_predictions)
    several = len(names) > 2
    return tuple(
        sonyc.evaluate(name, truth, of.only(truth.files), options.level)
        for name, of in zip(names, given, strict=True)
        if several or of is given[0]
    )


def _official_of_targets(options: EvaluateOptions, stored: StoredRows) -> SonycEvaluation:
    """The official measure of what a store says; classes that a target does not hold count as 0."""
    truth = _truth(options)
    said = sonyc.predictions_of(stored.names(), stored.store.manifest.classes, stored.means(), derive=True)
    if options.write_predictions is not None and not options.teachers:
        sonyc.write_predictions(said, options.write_predictions)
    return sonyc.evaluate(f"targets of {stored.store.location}", truth, said.only(truth.files), options.level)


def _truth(options: EvaluateOptions) -> sonyc.Truth:
    assert options.manifest is not None  # _asked
    return sonyc.read_truth(options.manifest, options.split or "validate", told=False)


def _asked(options: EvaluateOptions) -> EvaluateOptions:
    """The options with what ``--measure`` implies: whose labels, of which clips.

    ``labels``, ``where`` and ``split`` say it, ``manifest`` where the labels are.

    :raises UsageError: options of the measure without it, or such as do not go together.
    """
    for name in ("threshold", "median_filter", "shortest"):
        if getattr(options, name) != getattr(EvaluateOptions, name):
            raise UsageError(f"--{name.replace('_', '-')} is for events, and --events is not given")
    if options.measure is None:
        for name in ("annotations", "predictions", "split", "write_predictions"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} is for an official measure; give --measure sonyc too")
        return options
    if options.annotations is not None and options.manifest is not None:
        raise UsageError(f"MANIFEST {options.manifest} and --annotations are both given; give one of them")
    manifest = options.annotations or options.manifest
    if manifest is None:
        raise UsageError("--measure sonyc needs labels; give SONYC-UST's annotations.csv as --annotations FILE")
    if not options.teachers and options.predictions is None and options.stored is None:
        raise UsageError(
            "--measure sonyc needs scores; give --predictions FILE, --stored STORE, or a --teacher SPEC and audio"
        )
    if options.label_column is not None or options.where is not None:
        flag = "label-column" if options.label_column is not None else "where"
        raise UsageError(f"--measure sonyc takes the agreed labels of --split, and --{flag} others; leave it out")
    split = options.split or "validate"
    return replace(
        options, manifest=manifest, annotations=None, labels="sonyc", where=f"split = '{split}'", split=split
    )


def _check(options: EvaluateOptions) -> None:
    label_column_of(options)
    if options.map is not None and options.classes is not None:
        raise UsageError("--map says which labels are scored, and --classes would too; give one of them")
    if not options.teachers and options.stored is None:
        raise UsageError("no teacher was given; give at least one --teacher SPEC, or the targets of a --stored STORE")
    if options.teachers and options.manifest is None:
        raise UsageError("teachers hear audio: give the MANIFEST that names it; only --stored can do without one")
    if options.clips is not None and options.stored is None:
        raise UsageError("--clips names clips of a store; give --stored STORE, or choose rows with --where")
    if options.verdicts is not None and options.stored is None:
        raise UsageError("--verdicts are about clips of a store; give --stored STORE")
    for name in ("weights", "clip_seconds", "sample_rate"):
        if getattr(options, name) and not options.teachers:
            flag = "teacher-weight" if name == "weights" else name.replace("_", "-")
            raise UsageError(f"--{flag} is for teachers, and stored targets are as they are; leave it out")
