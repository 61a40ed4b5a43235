"""``logitstore build`` and ``logitstore status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from logitstore.cli.common import resumable, stderr

if TYPE_CHECKING:
    from logitstore.store.summary import BuildSummary


@click.command("build")
@click.argument("source")
@click.option("--out", required=True, help="Where the store is, or shall be.")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    required=True,
    metavar="SPEC",
    help="A teacher: a run folder, ced:FILE, hf:ID_OR_PATH, onnx:FILE or python:MODULE:FACTORY. Repeatable.",
)
@click.option(
    "--teacher-weight",
    "weights",
    multiple=True,
    type=float,
    help="Weight of a teacher in the mean, one for each --teacher in their order. Equal by default.",
)
@click.option(
    "--average",
    type=click.Choice(["probability", "logit"]),
    default="probability",
    show_default=True,
    help="What of the members is averaged.",
)
@click.option("--classes", metavar="FILE", help="Keep only the classes named in this file, one a line.")
@click.option("--audio-root", metavar="DIR", help="What a manifest's paths are relative to.")
@click.option("--views", default=10, show_default=True, help="Views of every clip.")
@click.option("--topk", type=int, help="Classes kept of every view.  [default: 20, or all where there are fewer]")
@click.option("--recipe", default="ced", show_default=True, help="ced, none, or a YAML file.")
@click.option("--seed", default=0, show_default=True, help="Seed of the draws.")
@click.option("--clip-seconds", default=10.0, show_default=True, help="Length of every view.")
@click.option("--sample-rate", default=16000, show_default=True, help="Rate of every view in Hz.")
@click.option("--where", metavar="SQL", help="Keep only the rows of the source for which this holds.")
@click.option("--value-bits", default=8, show_default=True, help="Bits a probability: 4 to 8, or 16 for float16.")
@click.option("--batch-size", default=32, show_default=True, help="Views a batch.")
@click.option("--workers", type=int, help="Decoding threads.  [default: the number of cores]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--amp", is_flag=True, help="Run the teachers in mixed precision.")
@click.option("--shard-clips", type=int, help="Clips a block.  [default: by the number of clips, at most 4096]")
@click.option("--keep-members", is_flag=True, help="Also store each member's probability at the ensemble's classes.")
@click.option(
    "--relations",
    metavar="frames,clips",
    help="Also store what the similarity losses need of the teachers' features: frames for IUSP, clips for SP.",
)
@click.option(
    "--similarity-frames",
    default=16,
    show_default=True,
    help="Frames that the features are pooled to for --relations, 2 to 64.",
)
@click.option("--strict", is_flag=True, help="Stop at the first clip that cannot be decoded.")
@click.option("--retry-failed", is_flag=True, help="Try clips again that failed before.")
@click.option(
    "--shards", metavar="A:B", help="Build only the shards A to B - 1, as one of several jobs that fill one store."
)
@click.option("--dry-run", is_flag=True, help="Scan, time one batch of each teacher, and say what the build would do.")
def build_command(dry_run: bool, **options: Any) -> None:
    """Run a teacher ensemble over SOURCE and store what it says of every view.

    SOURCE is a folder of audio, a manifest (CSV, TSV or Parquet with a column `path`), tar shards, Parquet with audio
    bytes, or HDF5. The same command goes on where an interrupted one stopped.

    \b
    Example:
      logitstore build audio/ --out store --teacher ced:ced_base.pt --views 10
      logitstore build clips.csv --audio-root audio --where "fold < 5" --out store --teacher runs/t1 --teacher runs/t2
    """  # fmt: skip
    from logitstore.jobs.build.job import BuildOptions, prepare, run

    asked = BuildOptions(**options)
    with stderr.status("scanning the source and loading the teachers"):
        job = prepare(asked)
    if dry_run:
        from logitstore.jobs.build.dry_run import dry_run as describe

        click.echo(describe(job))
        return
    with resumable(), BuildProgress(job.options.views) as progress:
        summary = run(job, progress.callbacks())
    click.echo(render_summary(summary))


@click.command("status")
@click.argument("store")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status_command(store: str, as_json: bool) -> None:
    """Blocks of STORE that are done, claimed and missing, and the clips that failed.

    \b
    Example:
      logitstore status store
    """
    import json

    from logitstore.jobs.status import status

    found = status(store)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
        return
    click.echo(found.render())


def render_summary(summary: BuildSummary) -> str:
    """The lines that a finished build prints."""
    per_view = summary.store_bytes / summary.stored_views if summary.stored_views else 0.0
    pcm = summary.pcm_bytes
    share = f" ({100 * summary.store_bytes / pcm:.2f} % of the clips' 16-bit PCM)" if pcm else ""
    rate = f", {summary.made_views / summary.seconds:.0f} views/s" if summary.made_views else ""
    lines = [
        f"store      {summary.location}",
        f"clips      {summary.clips:,} x {summary.views} views, in {summary.blocks:,} blocks",
        f"made       {summary.made_views:,} views in {summary.seconds:.1f} s{rate}",
        f"size       {summary.store_bytes:,} bytes, {per_view:.1f} bytes a view{share}",
        f"failures   {len(summary.failures):,}",
    ]
    if summary.manifest.relations is not None:
        from logitstore.store.format.relations import relation_sizes

        lines.insert(4, f"relations  {relation_sizes(summary.relation_bytes, summary.stored_views)}")
    if summary.missing:
        lines.insert(2, f"missing    {summary.missing:,} of {summary.shards:,} shards are not finished")
    lines += [f"           {path}: {reason}" for path, reason in summary.failures[:10]]
    if len(summary.failures) > 10:
        lines.append(f'           … all of them: logitstore inspect {summary.location} "FROM failures"')
    return "\n".join(lines)


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
    """A bar on stderr: views, clips/s, views/s, failures, time left. Nothing where stderr is not a terminal.

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
            stderr.print(f"note: {message}", soft_wrap=True)
            self._last_note = message
