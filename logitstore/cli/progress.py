"""How long jobs show themselves: a bar on stderr while they run, a few lines on stdout when they are done.

There is no bar where stderr is not a terminal, under ``--quiet``, and on other processes than the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from logitstore.cli.command import note, stderr
from logitstore.texts import in_lines

if TYPE_CHECKING:
    from logitstore.jobs.build.job import BuildSummary
    from logitstore.training.loop import FitProgress
    from logitstore.training.train import Trained

_MOST_NOTES = 10
_SHOWN = {"held_out_loss": "held-out loss", "mAP": "mAP"}


@contextmanager
def counting(unit: str) -> Iterator[Callable[[int], None]]:
    """A bar that counts things of a kind, however many there are."""
    bar = Progress(
        TextColumn("{task.completed:,.0f} " + unit),
        BarColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
    )
    task = bar.add_task(unit, total=None)
    with bar:
        yield lambda count: bar.advance(task, count)


@contextmanager
def of_total(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that goes away at its end; it is told how many are done, of how many."""
    with Progress(console=stderr, disable=not stderr.is_terminal, transient=True) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def render_build(summary: BuildSummary) -> str:
    """The lines that a finished build prints."""
    from logitstore.store.summary import failure_lines

    per_view = summary.store_bytes / summary.stored_views if summary.stored_views else 0.0
    pcm = summary.pcm_bytes
    share = f" ({100 * summary.store_bytes / pcm:.2f} % of the clips' 16-bit PCM)" if pcm else ""
    rate = f", {summary.made_views / summary.seconds:.0f} views/s" if summary.made_views else ""
    lines = [
        f"store      {summary.location}",
        f"clips      {summary.clips:,} x {summary.views} views, in {summary.blocks:,} blocks",
        f"made       {summary.made_views:,} views in {summary.seconds:.1f} s{rate}",
        f"size       {summary.store_bytes:,} bytes, {per_view:.1f} bytes a view{share}",
        *failure_lines(summary.failures, summary.location),
    ]
    if summary.manifest.relations is not None:
        from logitstore.store.format.relations import relation_sizes

        lines.insert(4, f"relations  {relation_sizes(summary.relation_bytes, summary.stored_views)}")
    if summary.missing:
        lines.insert(2, f"missing    {summary.missing:,} of {summary.shards:,} shards are not finished")
    if summary.survival is not None:
        lines += summary.survival.headed()
    return in_lines(lines)


def build_document(summary: BuildSummary) -> dict[str, Any]:
    """What a finished build prints with ``--json``."""
    made = {"views_made": summary.made_views, "seconds": summary.seconds, "shards_missing": summary.missing}
    kept = None if summary.survival is None else summary.survival.to_dict()
    failures = [vars(failure) for failure in summary.failures]
    return summary.to_dict() | made | {"failures": failures, "survival": kept}


class _Rate(ProgressColumn):
    """Views a second, and clips a second."""

    def __init__(self, views: int) -> None:
        super().__init__()
        self.views = views

    def render(self, task: Task) -> Text:
        if not task.speed:
            return Text("")
        return Text(f"{task.speed / self.views:,.1f} clips/s, {task.speed:,.0f} views/s")


class BuildProgress:
    """A bar of a build: views, clips/s, views/s, failures, time left.

    :param views: of every clip.
    """

    def __init__(self, views: int) -> None:
        self._bar = Progress(
            TextColumn("{task.fields[counts]}"),
            BarColumn(),
            TextColumn("{task.percentage:>5.1f} %"),
            _Rate(views),
            TextColumn("{task.fields[failures]} failures"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=stderr,
            disable=not stderr.is_terminal,
        )
        self._task = self._bar.add_task("views", total=None, counts="", failures=0)
        self._failures = 0
        self._last_note = ""

    def __enter__(self) -> BuildProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def callbacks(self) -> Any:
        """The callbacks that a build job takes."""
        from logitstore.jobs.build.job import Progress as Callbacks

        return Callbacks(start=self._start, advance=self._advance, failures=self._failed, note=self._note)

    def _start(self, done: int, total: int) -> None:
        self._bar.update(self._task, total=total, completed=done, counts=f"{done:,}/{total:,} views")

    def _advance(self, views: int) -> None:
        self._bar.advance(self._task, views)
        task = self._bar.tasks[0]
        self._bar.update(self._task, counts=f"{int(task.completed):,}/{int(task.total or 0):,} views")

    def _failed(self, count: int) -> None:
        self._failures += count
        self._bar.update(self._task, failures=self._failures)

    def _note(self, message: str) -> None:
        if message != self._last_note:
            note(message)
            self._last_note = message


class TrainingProgress:
    """Steps, loss, clips/s and time left on stderr, a line an evaluation.

    ``first``: whether this process is the one that speaks, of several that train together.
    """

    def __init__(self) -> None:
        from logitstore.training.processes import is_first

        self.first = is_first()
        self._bar = Progress(
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            BarColumn(),
            TextColumn("{task.fields[loss]}{task.fields[rate]:,.0f} clips/s  left"),
            TimeRemainingColumn(),
            console=stderr,
            disable=not (stderr.is_terminal and self.first),
        )
        self._task = self._bar.add_task("training", total=0, loss="", rate=0.0)
        self._clips = 0

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def callbacks(self) -> FitProgress:
        """What a training job takes."""
        from logitstore.training.loop import FitProgress

        return FitProgress(start=self._start, step=self._step, epoch=self._epoch, note=self._note)

    def _start(self, steps: int, done: int) -> None:
        self._bar.start()
        self._bar.reset(self._task, total=steps, completed=done)

    def _step(self, step: int, clips: int, loss: float | None) -> None:
        self._clips += clips
        elapsed = self._bar.tasks[0].elapsed or 1e-9
        shown = "" if loss is None else f"loss {loss:.4f}  "
        self._bar.update(self._task, completed=step, loss=shown, rate=self._clips / elapsed)

    def _epoch(self, record: dict[str, Any]) -> None:
        shown = [f"{label} {record[name]:.4f}" for name, label in _SHOWN.items() if name in record]
        if shown and not self._bar.disable:
            stderr.print(f"epoch {record['epoch'] + 1}: loss {record['loss']:.4f}, {', '.join(shown)}")

    def _note(self, message: str) -> None:
        if not self._bar.disable:  # it is among the notes at the end too
            note(message)


def training_document(trained: Trained) -> dict[str, Any]:
    """What a finished training prints with ``--json``."""
    about = {"run": trained.out, "model": trained.model, "parameters": trained.parameters, "before": trained.before}
    return about | asdict(trained.result) | {"notes": list(trained.notes), "agreement": trained.agreement}


def render_training(trained: Trained) -> str:
    """The lines that a finished training prints."""
    result, metrics = trained.result, trained.result.metrics
    lines = [
        f"run        {trained.out}" + (" (finished before; nothing was done)" if trained.before else ""),
        f"model      {trained.model}, {trained.parameters:,} parameters",
        f"trained    {result.steps:,} steps, {result.epochs:,} epochs in {result.seconds:.1f} s, "
        f"{result.clips_per_second:,.0f} clips/s",
        f"loss       {result.loss:.4f}",
    ]
    if result.stopped:
        lines[2] += ", stopped early"
    if "held_out_loss" in metrics:
        lines.append(
            f"held out   loss {metrics['held_out_loss']:.4f} on {metrics['held_out_clips']:,} clips of the store"
        )
    if result.averaged:
        steps = ", ".join(f"{each['step']:,}" for each in result.averaged)
        what = "the best evaluation, after step" if len(result.averaged) == 1 else "the mean of those after the steps"
        lines.append(f"kept       {what} {steps}")
    if "mAP" in metrics:
        lines.append(
            f"mAP        {metrics['mAP']:.4f}, micro AUPRC {metrics['micro_auprc']:.4f} (average precision), on "
            f"{metrics['eval_rows']:,} rows and {metrics['eval_classes']} classes; "
            f"{metrics['eval_classes_left_out']} classes left out for having no positives"
        )
        if metrics["eval_clips_failed"]:
            lines.append(f"           {metrics['eval_clips_failed']} clips could not be decoded and were left out")
    lines += [f"note       {note}" for note in trained.notes[:_MOST_NOTES]]
    if len(trained.notes) > _MOST_NOTES:
        lines.append(f"note       … {len(trained.notes) - _MOST_NOTES} more")
    if trained.agreement is not None:
        from logitstore.cli.agreement import agreement_lines
        from logitstore.evaluation.agreement import Agreement

        lines += ["", "on held-out clips of the store, without labels:", ""]
        lines += agreement_lines(Agreement.of(trained.agreement), "teachers", "student")
    return in_lines(lines)
