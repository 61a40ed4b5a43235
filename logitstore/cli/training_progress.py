"""How a training shows itself: a bar on stderr while it runs, a few lines on stdout when it is done."""

from __future__ import annotations

from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from logitstore.cli.common import stderr
from logitstore.training.loop import FitProgress
from logitstore.training.processes import is_first
from logitstore.training.train import Trained

_MOST_NOTES = 10
_SHOWN = {"held_out_loss": "held-out loss", "mAP": "mAP"}


class TrainingProgress:
    """Steps, loss, clips/s and time left on stderr, a line an evaluation; nothing where stderr is not a terminal.

    ``first``: whether this process is the one that speaks, of several that train together.
    """

    def __init__(self) -> None:
        self.first = is_first()
        self._bar = Progress(
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} clips/s  left"),
            TimeRemainingColumn(),
            console=stderr,
            disable=not (stderr.is_terminal and self.first),
        )
        self._task = self._bar.add_task("training", total=0, loss=float("nan"), rate=0.0)
        self._clips = 0

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def callbacks(self) -> FitProgress:
        """What a training job takes."""
        return FitProgress(start=self._start, step=self._step, epoch=self._epoch, note=self._note)

    def _start(self, steps: int, done: int) -> None:
        self._bar.start()
        self._bar.reset(self._task, total=steps, completed=done)

    def _step(self, step: int, clips: int, loss: float) -> None:
        self._clips += clips
        elapsed = self._bar.tasks[0].elapsed or 1e-9
        self._bar.update(self._task, completed=step, loss=loss, rate=self._clips / elapsed)

    def _epoch(self, record: dict[str, Any]) -> None:
        shown = [f"{label} {record[name]:.4f}" for name, label in _SHOWN.items() if name in record]
        if shown and not self._bar.disable:
            stderr.print(f"epoch {record['epoch'] + 1}: loss {record['loss']:.4f}, {', '.join(shown)}")

    def _note(self, message: str) -> None:
        if not self._bar.disable:  # it is among the notes at the end too
            stderr.print(f"note: {message}")


def render(trained: Trained) -> str:
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
            f"{metrics['eval_rows']:,} files and {metrics['eval_classes']} classes; "
            f"{metrics['eval_classes_left_out']} classes left out for having no positives"
        )
        if metrics["eval_clips_failed"]:
            lines.append(f"           {metrics['eval_clips_failed']} clips could not be decoded and were left out")
    lines += [f"note       {note}" for note in trained.notes[:_MOST_NOTES]]
    if len(trained.notes) > _MOST_NOTES:
        lines.append(f"note       … {len(trained.notes) - _MOST_NOTES} more")
    return "\n".join(lines)
