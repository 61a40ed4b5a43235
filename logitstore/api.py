"""The jobs as functions of Python: each takes the options of its command as keywords, with the same names and defaults.

What each keyword means stands in ``docs/reference.md``. Nothing heavy is imported before one of them is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from logitstore.jobs.options import (
    BuildOptions,
    CompareOptions,
    EvaluateOptions,
    ExportOptions,
    ExtendOptions,
    MergeOptions,
    PlanOptions,
    RepairOptions,
    ReportOptions,
    TagOptions,
    VerifyOptions,
)
from logitstore.options import with_keywords
from students.options import StudentOptions
from teachers.options import TeacherOptions

if TYPE_CHECKING:
    from logitstore.evaluation.results import Evaluation
    from logitstore.evaluation.sonyc import SonycEvaluation
    from logitstore.jobs.build.job import BuildSummary
    from logitstore.jobs.compare import Comparison
    from logitstore.jobs.events import EventEvaluation
    from logitstore.jobs.export_student import Export
    from logitstore.jobs.plan import Costs
    from logitstore.jobs.repair import Repaired
    from logitstore.jobs.report.job import Reported
    from logitstore.jobs.tag import Tagged
    from logitstore.jobs.verify.job import Verified
    from logitstore.training.train import Trained

__all__ = [
    "build",
    "evaluate",
    "export_student",
    "extend",
    "merge",
    "plan",
    "repair",
    "report",
    "tag",
    "train_student",
    "train_teacher",
    "verify",
]


@with_keywords(BuildOptions)
def build(options: BuildOptions) -> BuildSummary:
    """Run teachers over audio and store what they say of every augmented view; goes on where it was interrupted.

        >>> summary = logitstore.build(source="audio", out="store", teachers=["runs/teacher"], views=3)
        >>> summary.clips
        12

    :returns: what was made, and which clips could not be decoded.
    :raises UsageError: options that cannot be right; :class:`~logitstore.errors.MismatchError` for a store at ``out``
        that was made otherwise.
    """
    from logitstore.jobs.build.job import build

    return build(options)


@with_keywords(ExtendOptions)
def extend(options: ExtendOptions) -> BuildSummary:
    """Add clips to a store, asking the same teachers in the same way.

        >>> logitstore.extend(store="store", source="more", teachers=["runs/teacher"]).clips
        16

    :returns: as :func:`build` does.
    :raises MismatchError: other teachers than the store's, or clips that it has.
    """
    from logitstore.jobs.build.extend import extend

    return extend(options)


@with_keywords(MergeOptions)
def merge(options: MergeOptions) -> BuildSummary:
    """Write stores that heard the same views as one store of the ensemble of all their teachers.

        >>> logitstore.build(like="store", audio_root="audio", out="second", teachers=["runs/teacher"]).views
        3
        >>> logitstore.merge(stores=["store", "second"], ensemble=True, out="joint").stored_views
        36

    :returns: as :func:`build` does.
    :raises MismatchError: stores that did not hear the same views, or an ``out`` that holds another store.
    """
    from logitstore.jobs.merge import merge

    return merge(options)


@with_keywords(VerifyOptions)
def verify(options: VerifyOptions) -> Verified:
    """Check everything that a store holds; with audio and teachers, also that they still sound and say the same.

        >>> logitstore.verify(store="store", audio_root="audio").problems
        ()

    :returns: what was checked; ``problems`` is empty where nothing is wrong.
    :raises NotAStoreError: there is no store.
    """
    from logitstore.jobs.verify.job import verify

    return verify(options)


@with_keywords(PlanOptions)
def plan(options: PlanOptions) -> Costs:
    """Tell what a build of so many clips takes, and a training from it: time, money, bytes, objects, requests, memory.

        >>> costs = logitstore.plan(clips=2e6, views=10, teachers=["a", "b"], rates=["1000", "500"])
        >>> round(costs.device_hours, 1)
        16.7

    :returns: the figures that the command prints. :raises UsageError: rates that are none, or no teacher.
    """
    from logitstore.jobs.plan import plan

    return plan(options)


@with_keywords(RepairOptions)
def repair(options: RepairOptions) -> Repaired:
    """Make again what is damaged or missing of a store; without its audio and teachers, say what is lost.

        >>> logitstore.repair(store="store").lost
        []

    :returns: what was found, mended and dropped, and what is still lost.
    :raises MismatchError: other teachers or other audio than the store's.
    """
    from logitstore.jobs.repair import repair

    return repair(options)


@with_keywords(ReportOptions)
def report(options: ReportOptions) -> Reported:
    """Write one page that shows what a store holds and how runs learnt; it needs no network.

        >>> logitstore.report(store="store", runs=["runs/student"], audio_root="audio", out="report.html").views
        36

    :returns: what was written: its path, bytes and sections.
    :raises MissingExtraError: the extra ``report`` is not installed.
    """
    from logitstore.jobs.report.job import report

    return report(options)


@with_keywords(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> Evaluation | SonycEvaluation | EventEvaluation:
    """Score teachers, students and their ensemble, or a store's targets, on labelled audio.

        >>> found = logitstore.evaluate(manifest="labels.csv", audio_root="audio", label_column="label",
        ...                             teachers=["runs/teacher"])
        >>> 0 <= found.members[0][1].mAP <= 1
        True

    :returns: metrics of each teacher, of the ensemble where there are several, of the store where one was given; the
        official measure alone for a file of ``predictions``, how well events were found alone with ``events``.
    :raises UsageError: nothing to score, or labels that are no class.
    """
    from logitstore.jobs.evaluate import evaluate, evaluate_predictions

    if options.events:
        from logitstore.jobs.events import evaluate_events

        return evaluate_events(options)
    if options.predictions is not None:
        return evaluate_predictions(options)
    return evaluate(options)


@with_keywords(CompareOptions)
def compare(options: CompareOptions) -> Comparison:
    """Say how far ``b`` agrees with ``a`` on the same sound, without labels, and what each costs.

        >>> found = logitstore.compare(a="runs/teacher", b="runs/student", source="audio")
        >>> 0 <= found.agreement.top1 <= 1
        True

    :returns: the agreement, and of each its parameters, multiply-accumulates and speed.
    :raises MismatchError: the two have no class in common, or the audio is not the store's.
    """
    from logitstore.jobs.compare import compare

    return compare(options)


@with_keywords(TagOptions)
def tag(options: TagOptions) -> Iterator[Tagged]:
    """Say what is heard when in audio files: the most probable classes of every window, or events with ``frames``.

        >>> for found in logitstore.tag(files=["audio/a/000.wav"], teachers=["runs/teacher"], top=1):
        ...     len(found.windows[0].tags)
        1

    :returns: the files in their order, each as soon as it was heard; ``error`` says why one could not be read.
    :raises UsageError: windows that a teacher cannot hear.
    """
    from logitstore.jobs.tag import tag

    return tag(options)


@with_keywords(StudentOptions)
def train_student(options: StudentOptions) -> Trained:
    """Train a student from a store, without labels; goes on from its last checkpoint where it was interrupted.

        >>> trained = logitstore.train_student(store="store", audio_root="audio", student="cnn4", out="runs/student",
        ...                                    model_args={"width": 2, "mels": 16}, steps=2, batch_size=4)
        >>> trained.result.steps
        2

    :returns: the run's folder and its results; :func:`load_student` loads the model.
    :raises RunError: options that do not go together, or an ``out`` that holds another training.
    """
    from students.train import train_student

    return train_student(options)


@with_keywords(TeacherOptions)
def train_teacher(options: TeacherOptions) -> Trained:
    """Train a teacher on labelled audio; goes on from its last checkpoint where it was interrupted.

        >>> trained = logitstore.train_teacher(manifest="labels.csv", audio_root="audio", label_column="label",
        ...                                    model="cnn4", model_args={"width": 2, "mels": 16}, out="runs/teacher",
        ...                                    steps=2, batch_size=4)
        >>> trained.result.steps
        2

    :returns: the run's folder and its results; :func:`load_teacher` loads the model.
    :raises RunError: options that do not go together, or an ``out`` that holds another training.
    """
    from teachers.train import train_teacher

    return train_teacher(options)


@with_keywords(ExportOptions)
def export_student(options: ExportOptions) -> Export:
    """Write a student as an ONNX file: waveforms in, probabilities out; the file is checked before it is put in place.

        >>> logitstore.export_student(run="runs/student", out="student.onnx").files[0].path
        'student.onnx'

    :returns: the files written, their sizes, and how far they are from the run.
    :raises MissingExtraError: the extra ``onnx`` is not installed.
    """
    from logitstore.jobs.export_student import export_student

    return export_student(options)
