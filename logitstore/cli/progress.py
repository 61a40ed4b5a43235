"""How long jobs show themselves while they run, and the lines that they print when they are done.

A :class:`Meter` is a bar on a terminal. Where stderr is none, as in the log of a batch job, it is a line every 30 s and
one at the end, and nothing at all of what takes less than 30 s. There is neither under ``--quiet``, nor on other
processes than the first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task
from rich.text import Text

from logitstore.cli.command import note, stderr
from logitstore.cli.curve import ROWS, Curve, drawn, of_run
from logitstore.launched import is_first
from logitstore.notes import listening
from logitstore.texts import in_lines, one_line

if TYPE_CHECKING:
    from logitstore.jobs.build.job import BuildSummary
    from logitstore.training.loop import FitProgress
    from logitstore.training.train import Trained

_MOST_NOTES = 10
_SHOWN = {"held_out_loss": "held-out loss", "mAP": "mAP"}
#: Seconds between two lines of a log.
EVERY = 30.0
_LEAST_SECONDS = 1.0  # of work, before its rate tells anything
_LEAST_STEPS = 20  # of a curve that is shown while it grows


class Meter:
    """What a job has done, of how much, how fast, and how long the rest takes.

    :param what: the job in a word or two, as "building". :param unit: what it counts, in the plural; "" where it counts
        nothing itself.
    :param speaks: whether this process shows anything. :param clock: seconds, from anywhere on.
    :param every: seconds between two lines where there is no terminal.
    """

    def __init__(
        self,
        what: str,
        unit: str = "",
        *,
        speaks: bool = True,
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY,
    ) -> None:
        self.what, self.unit, self.clock, self.every = what, unit, clock, every
        self.done, self.total = 0, None
        #: Words that stand before the count, and behind it; each may be empty.
        self.before: Callable[[], str] = str
        self.behind: Callable[[], str] = str
        #: The rate in other words than ``unit`` a second.
        self.rate: Callable[[], str] = self._rate
        #: Lines that stand above the bar of a terminal.
        self.above: Callable[[], list[str]] = list
        self._began = self._counting = self._counted = clock()
        self._first = 0  # done before this job began to count
        self._stage: tuple[str, int, int | None] | None = None
        self._lines = 0
        self._terminal = speaks and stderr.is_terminal
        self._logs = speaks and not stderr.is_terminal and not stderr.quiet
        self._bar: _Above | None = None
        self._over = threading.Event()
        self._stack = ExitStack()

    done: int
    total: int | None

    def __enter__(self) -> Self:
        self._began = self._counting = self._counted = self.clock()
        self._stack.enter_context(listening(self.stage))
        self.resume()
        if self._logs:
            threading.Thread(target=self._tell, name="progress", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        self._over.set()
        self._stack.close()
        self.pause()
        if self._lines and kind is None:
            counts = self._counts(left=False)
            self._print(f"{self.what} is done{': ' if counts else ''}{counts}")

    def pause(self) -> None:
        """Take the bar away, as long as something else is printed."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def resume(self) -> None:
        """Show the bar again."""
        if self._terminal and self._bar is None:
            self._bar = _Above(
                SpinnerColumn(), _Bar(self), _Says(self), console=stderr, transient=True,
                redirect_stdout=False, redirect_stderr=False,  # rich would write what steers the terminal through them
            )  # fmt: skip
            self._bar.meter = self
            self._bar.add_task("", total=None)
            self._bar.start()

    def start(self, done: int, total: int | None) -> None:
        """So many are done already; what follows is counted from here on."""
        self.done, self.total, self._first = done, total, done
        self._counting = self._counted = self.clock()
        self._stage = None

    def advance(self, count: int) -> None:
        """So many more are done."""
        self.update(self.done + count, self.total)

    def update(self, done: int, total: int | None) -> None:
        """So many are done now."""
        self.done, self.total, self._stage = done, total, None
        self._counted = self.clock()

    def stage(self, what: str, done: int = 0, total: int | None = None) -> None:
        """What is done beside what is counted, until that goes on."""
        self._stage = (what, done, total)

    def tick(self) -> None:
        """A line of the log; called every 30 s."""
        self._print(self.says())

    @property
    def share(self) -> tuple[int, int | None]:
        """How many are done, of how many, of what the job is at."""
        return (self.done, self.total) if self._stage is None else self._stage[1:]

    @property
    def seconds(self) -> float:
        """From when what is counted began to when it last went on."""
        return self._counted - self._counting

    def per_second(self) -> float:
        """How many a second; 0 while that cannot be told."""
        return (self.done - self._first) / self.seconds if self.seconds >= _LEAST_SECONDS else 0.0

    def says(self, short: bool = False) -> str:
        """What the job is at, in a line.

        :param short: of 60 columns, beside a bar: the count is left out where other words stand for it.
        """
        if self._stage is not None:
            what, done, total = self._stage
            return what if total is None else f"{what}: {done:,} of {total:,}"
        counts = self._counts(short=short)
        if short:
            return counts or self.what
        return f"{self.what}: {counts}" if counts else self.what

    def _counts(self, *, short: bool = False, left: bool = True) -> str:
        if not self.unit or (self.total is None and not self.done):
            return self.behind()
        of = "" if self.total is None else f" of {self.total:,}"
        before, count = self.before(), f"{self.done:,}{of} {self.unit}"
        parts = [before, "" if short and before else count, self.rate(), self._left() if left else "", self.behind()]
        return ", ".join(filter(None, parts))

    def _rate(self) -> str:
        rate = self.per_second()
        return f"{rate:,.{0 if rate >= 10 else 1}f} {self.unit}/s" if rate else ""

    def _left(self) -> str:
        rate = self.per_second()
        if not rate or self.total is None or self.done >= self.total:
            return ""
        return f"{span((self.total - self.done) / rate)} left"

    def _print(self, text: str) -> None:
        self._lines += 1
        stderr.print(one_line(f"{'progress':<10} {span(self.clock() - self._began)}  {text}"), soft_wrap=True)

    def _tell(self) -> None:
        while not self._over.wait(self.every):
            self.tick()


class _Above(Progress):
    """A bar with lines above it."""

    meter: Meter | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """The lines, where there are any, and the bar."""
        for line in [] if self.meter is None else self.meter.above():
            yield Text(line, no_wrap=True)
        yield from super().get_renderables()


class _Bar(BarColumn):
    """The bar of a meter; one that goes to and fro where there is no end to be known."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(bar_width=16)
        self.meter = meter

    def render(self, task: Task) -> Any:
        done, total = self.meter.share
        task.completed, task.total = done, total or None
        return super().render(task)


class _Says(ProgressColumn):
    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter = meter

    def render(self, task: Task) -> Text:
        return Text(self.meter.says(short=True), overflow="ellipsis", no_wrap=True)


def span(seconds: float) -> str:
    """A time as m:ss or h:mm:ss."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Shows a job that counts things of a kind, however many there are."""
    with Meter(what, unit) as meter:
        yield meter.advance


@contextmanager
def of_total(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a job that says how many are done, of how many."""
    with Meter(what, unit) as meter:
        yield meter.update


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Shows a job that counts nothing, and may say what it is at."""
    with Meter(what) as meter:
        yield meter.stage


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
    if summary.manifest.frames is not None:
        lines.insert(4, f"frames     {summary.frame_sizes()}")
    if summary.limit is not None:
        lines.insert(3, f"limit      {summary.limit.render()}")
    if summary.missing:
        lines.insert(2, f"missing    {summary.missing:,} of {summary.shards:,} shards are not finished")
    if summary.requests is not None:
        lines.append(f"requests   {summary.requests}")
    if summary.survival is not None:
        lines += summary.survival.headed()
    return in_lines(lines)


def build_document(summary: BuildSummary) -> dict[str, Any]:
    """What a finished build prints with ``--json``."""
    made = {"views_made": summary.made_views, "seconds": summary.seconds, "shards_missing": summary.missing}
    kept = None if summary.survival is None else summary.survival.to_dict()
    failures = [vars(failure) for failure in summary.failures]
    limit = None if summary.limit is None else summary.limit.to_dict()
    sent = None if summary.requests is None else summary.requests.to_dict()
    return summary.to_dict() | made | {"failures": failures, "survival": kept, "requests": sent, "limit": limit}


class BuildProgress(Meter):
    """Of a build: hours of audio, views, views/s, time left, failures.

    :param views: of every clip. :param clip_seconds: their length. :param clock: seconds, from anywhere on.
    """

    def __init__(self, views: int, clip_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("building", "views", clock=clock)
        self._seconds_a_view = clip_seconds / views
        self._failures = 0
        self._last_note = ""
        self.before, self.behind = self._hours, self._failed_so_far

    def callbacks(self) -> Any:
        """The callbacks that a build job takes."""
        from logitstore.jobs.build.job import Progress as Callbacks

        return Callbacks(
            start=self.start, advance=self.advance, others=self.advance, failures=self._failed, note=self._note
        )

    def _hours(self) -> str:
        """How much of the audio is done: each clip as long as its views, done when all of these are."""
        done, total = ((count or 0) * self._seconds_a_view for count in (self.done, self.total))
        unit, seconds = ("h", 3600) if total >= 3600 else ("min", 60)
        return f"{done / seconds:.1f} of {total / seconds:.1f} {unit}"

    def _failed_so_far(self) -> str:
        return f"{self._failures:,} failure{'s' * (self._failures != 1)}" if self.total is not None else ""

    def _failed(self, count: int) -> None:
        self._failures += count

    def _note(self, message: str) -> None:
        if message != self._last_note:
            note(message)
            self._last_note = message


class TrainingProgress(Meter):
    """Of a training: steps, loss, clips/s and time left; on a terminal a line an evaluation.

    ``first``: whether this process is the one that speaks, of several that train together.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.first = is_first()
        super().__init__("training", "steps", speaks=self.first, clock=clock)
        self._clips, self._loss, self._measured = 0, "", ""
        self._curve, self._drawn, self._drawn_of = Curve(), list[str](), 0
        self.above = self._live
        self.rate, self.behind = self._clips_per_second, lambda: ", ".join(filter(None, (self._loss, self._measured)))

    def callbacks(self) -> FitProgress:
        """What a training job takes."""
        from logitstore.training.loop import FitProgress

        return FitProgress(start=self._start, step=self._step, log=self._curve.add, epoch=self._epoch, note=self._note)

    def show_curve(self, run: str, asked: bool) -> None:
        """Print the learning curve of a run to stderr, on a terminal or where it is asked for."""
        if self.first and (asked or self._terminal):
            for line in drawn(of_run(run), stderr.width, ascii_only=not _prints("⣀┤─")):
                stderr.print(line, soft_wrap=True)

    def _live(self) -> list[str]:
        """The curve so far, drawn anew where a hundredth of the steps came; nothing on a low terminal."""
        steps = len(self._curve.training)
        if stderr.height < 2 * ROWS or steps < _LEAST_STEPS:
            return []
        if steps - self._drawn_of > (self.total or 0) // 100:
            self._drawn = drawn(self._curve, stderr.width, ascii_only=not _prints("⣀┤─"))
            self._drawn_of = steps
        return self._drawn

    def _start(self, steps: int, done: int) -> None:
        self.start(done, steps)

    def _step(self, step: int, clips: int, loss: float | None) -> None:
        self._clips += clips
        self._loss = "" if loss is None else f"loss {loss:.4f}"
        self.update(step, self.total)

    def _clips_per_second(self) -> str:
        return f"{self._clips / self.seconds:,.0f} clips/s" if self.seconds >= _LEAST_SECONDS else ""

    def _epoch(self, record: dict[str, Any]) -> None:
        shown = [f"{label} {record[name]:.4f}" for name, label in _SHOWN.items() if name in record]
        self._measured = ", ".join(shown) or self._measured
        if shown and self._terminal:
            stderr.print(f"epoch {record['epoch'] + 1}: loss {record['loss']:.4f}, {', '.join(shown)}")

    def _note(self, message: str) -> None:
        if self._terminal:  # it is among the notes at the end too
            note(message)


def _prints(text: str) -> bool:
    """Whether stderr's encoding has some characters."""
    try:
        text.encode(stderr.encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True


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
    if "sonyc_micro_auprc" in metrics:
        lines.append(
            f"SONYC-UST  {metrics['sonyc_level']} micro AUPRC {metrics['sonyc_micro_auprc']:.4f}, macro "
            f"{metrics['sonyc_macro_auprc']:.4f}, micro F1 {metrics['sonyc_micro_f1']:.4f} (the official measure), on "
            f"{metrics['sonyc_clips']:,} verified clips"
        )
    lines += [f"note       {note}" for note in trained.notes[:_MOST_NOTES]]
    if len(trained.notes) > _MOST_NOTES:
        lines.append(f"note       … {len(trained.notes) - _MOST_NOTES} more")
    if trained.agreement is not None:
        from logitstore.cli.agreement import agreement_lines
        from logitstore.evaluation.agreement import Agreement

        lines += ["", "on held-out clips of the store, without labels:", ""]
        lines += agreement_lines(Agreement.of(trained.agreement), "teachers", "student")
    return in_lines(lines)
