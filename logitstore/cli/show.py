"""``logitstore show``: one clip and its views."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from logitstore.cli.command import answer, command, echo, next_steps
from logitstore.errors import UsageError
from logitstore.options import STORE_WEIGHT, JsonOptions, Option, StoreWeights
from logitstore.options import Store as StoreOption

if TYPE_CHECKING:
    import numpy.typing as npt

    from logitstore.arrays import F32
    from logitstore.cli.screen import Screen
    from logitstore.store.clip import StoredClip, StoredView

_MOST_VIEWS = 12  # that are shown unasked
_MOST_SOUNDING = 6  # stretches of time that a view tells of
_CLASSES, _ALONE = 3, 10  # of a view; of one that is asked for alone
_PICTURE = 10  # lines of a log-mel


@dataclass(frozen=True, kw_only=True)
class _Show(JsonOptions):
    store: StoreOption
    clip: Annotated[str, Option("A clip: its number, or the path of its file.", argument=True, metavar="CLIP")]
    also: Annotated[
        Sequence[str],
        Option("Another store, read as one with STORE. Repeatable.", group="Views", metavar="STORE", names="store"),
    ] = ()
    store_weights: Annotated[StoreWeights, STORE_WEIGHT.but(group="Views")] = None
    audio_root: Annotated[
        Sequence[str],
        Option("The audio that the store was built from; of several stores one for all, or one for each in their "
               "order. Repeatable.", group="Audio", metavar="DIR", names="audio"),
    ] = ()  # fmt: skip
    view: Annotated[
        Sequence[str],
        Option("A view to show, or the word original. Repeatable.", group="Views", metavar="N", default="all"),
    ] = ()
    png: Annotated[
        str | None,
        Option("Draw them there: waveform, log-mel with what is hidden, answers. Needs the extra `report`.",
               group="Output", metavar="FILE"),
    ] = None  # fmt: skip
    wav: Annotated[
        str | None,
        Option("Write how they sounded to the teachers: 32-bit float WAV; of several views a file for each, its name "
               "with -N before the ending.", group="Output", metavar="FILE"),
    ] = None  # fmt: skip


@command("show", _Show)
def show_command(options: _Show) -> None:
    """Show a clip of STORE and its views: what was drawn for each, in seconds and Hz, and what was said of it.

    With --audio-root a terminal shows the log-mel too, and --png and --wav write pictures and sound. The samples of
    --wav are those that the teachers heard, to the bit.

    \b
    Example:
      logitstore show store 12
      logitstore show store dog_bark/1-100032-A.ogg --view 3
      logitstore show store 12 --audio-root audio --view original --view 3 --png view.png --wav view.wav
    """
    from logitstore.cli.screen import Screen
    from logitstore.jobs.show import chosen, document, find_clip, sound_files, write_figure, write_sounds
    from logitstore.store.reader import open_store

    wanted = [flag for flag, file in (("--png", options.png), ("--wav", options.wav)) if file is not None]
    if wanted and not options.audio_root:
        raise UsageError(
            f"{' and '.join(wanted)} need{'s' * (len(wanted) == 1)} the sound, and a store holds none; give "
            "--audio-root DIR, the audio that it was built from"
        )
    if options.png is not None:
        from logitstore.evaluation.calibration import check_png

        check_png(options.png)
    store = open_store(
        [options.store, *options.also], weights=options.store_weights, audio_root=list(options.audio_root) or None
    )
    clip = find_clip(store, options.clip)
    views = chosen(clip, options.view)
    files = [] if options.wav is None else sound_files(views, options.wav)
    if wanted and not clip.views:
        why = f"it failed: {clip.failed}" if clip.failed else "its block is not finished"
        raise UsageError(f"clip {clip.number} of {store.location} has no views to draw or write; {why}")
    written = [*files]
    if files:
        write_sounds(clip, views, files)
    if options.png is not None:
        write_figure(clip, views, options.png)
        written.append(options.png)
    if options.json:
        answer(options, document(clip, views) | {"written": written}, "")
        return
    screen = Screen()
    draw(clip, views, screen, asked=bool(options.view), heard=bool(options.audio_root))
    screen.print()
    for file in written:
        echo(f"{'wrote':<10} {file}")
    place = shlex.join([options.store, str(clip.number)])
    if clip.views and not written:
        next_steps(f"logitstore show {place} --audio-root AUDIO --view {clip.views[0]} --png view.png --wav view.wav")


def draw(
    clip: StoredClip, views: Sequence[StoredView | None], screen: Screen, *, asked: bool = False, heard: bool = False
) -> None:
    """The lines of a clip.

    :param asked: whether the views were asked for: none is left out then. :param heard: whether it can be heard.
    """
    from logitstore.cli.screen import HEAD, ODD, SOFT

    screen.add((f"clip {clip.number}", HEAD), "  ", (clip.path, HEAD), whole=True)
    place = f"{clip.start_s:g} to {clip.start_s + clip.length_s:.4g} s of the file" if clip.rate else "not read"
    screen.add(
        ("in file".ljust(11), SOFT),
        f"{place}, {clip.rate:,} Hz; views are {clip.view_seconds:g} s at {clip.sample_rate:,} Hz",
    )
    for name, value in clip.columns.items():
        screen.add((name[:10].ljust(11), SOFT), str(value))
    if clip.failed:
        screen.add(("failed".ljust(11), SOFT), (clip.failed, ODD), whole=True)
    if not clip.views:
        if not clip.failed:
            screen.add(("views".ljust(11), SOFT), "none yet: its block is not finished")
        return
    shown = list(views) if asked else list(views)[: _MOST_VIEWS + 1]
    with_picture = heard and screen.console.is_terminal and screen.console.color_system == "truecolor"
    with_picture &= screen.blocks and (asked or len(shown) <= 4)
    loudest = _loudest(clip) if with_picture else 0.0
    classes = _ALONE if len(shown) == 1 else _CLASSES
    for view in shown:
        screen.add("")
        _draw_view(clip, view, classes, screen)
        if with_picture:
            _draw_picture(clip, view, loudest, screen)
    left = len(views) - len(shown)
    if left:
        screen.add("", (f"… {left} more views; choose with --view N", SOFT))


def _draw_view(clip: StoredClip, view: StoredView | None, classes: int, screen: Screen) -> None:
    from logitstore.cli.screen import BAR, HEAD, SOFT, fit, widest

    said = clip.mean if view is None else view.targets
    if view is None:
        screen.add(("original".ljust(11), HEAD), (f"mean of what was said of {len(clip.views)} views", SOFT))
    else:
        drawn = [part for name, text in view.drawn.items() for part in ((f"{name} ", SOFT), f"{text}  ")]
        head: list[tuple[str, str] | str] = [
            (f"view {view.number}".ljust(11), HEAD),
            (f"{view.entropy:.2f} nats  ", SOFT),
        ]
        if len("".join(each if isinstance(each, str) else each[0] for each in [*head, *drawn]).rstrip()) > screen.width:
            screen.add(*head)
            head = ["  "]
        screen.add(*head, *drawn)
    members = (view.members if view is not None else None) or {}
    name = widest(said.names[:classes], 26)
    room = len(members) * 5 + 3 if members else 0
    bar = max(10, screen.width - name - room - 12)
    own = clip.mean.names[:1]
    for rank, (each, share) in enumerate(zip(said.names[:classes], said.probabilities.tolist(), strict=False)):
        parts: list[tuple[str, str] | str] = [f"  {fit(each, name)} "]
        parts += [(screen.bar(share, bar), BAR if each in own else f"{BAR} {SOFT}"), f" {share:.2f}"]
        if members:
            values = " ".join("   -" if one[rank] != one[rank] else f"{one[rank]:.2f}" for one in members.values())
            parts += ["  ", (f"({values})", SOFT)]
        screen.add(*parts)
    sounding = None if view is None else view.sounding()
    if sounding is not None:
        told = [f"{name} {start:g} to {end:g} s" for name, start, end, _ in sounding[:_MOST_SOUNDING]]
        more = f", … {len(sounding) - len(told)} more" if len(sounding) > len(told) else ""
        screen.add(("  when ", SOFT), f"{', '.join(told) or 'nothing is likelier than not'}{more}")


def _loudest(clip: StoredClip) -> float:
    from logitstore.views.picture import log_mel

    return float(log_mel(clip.waveform, clip.sample_rate).max())


def _draw_picture(clip: StoredClip, view: StoredView | None, loudest: float, screen: Screen) -> None:
    """A log-mel in half blocks, two bands a line, low ones below; what is hidden is grey."""
    import numpy as np
    from rich.text import Text

    from logitstore.views.picture import log_mel, palette, shades

    width, bands = screen.width - 8, 2 * _PICTURE
    waveform = clip.waveform if view is None else view.waveform
    cells = _shrunk(shades(log_mel(waveform, clip.sample_rate), loudest), bands, width)
    colours = palette()[(cells * 255).astype(np.uint8)].astype(np.int64)  # (bands, width, 3)
    for box in [] if view is None else view.boxes:
        across = slice(round(box.left * width), max(round((box.left + box.width) * width), round(box.left * width) + 1))
        low = round((1 - box.top - box.height) * bands)
        upward = slice(low, max(low + 1, round((1 - box.top) * bands)))
        colours[upward, across] = 128 + colours[upward, across] // 6
    for row in range(_PICTURE):
        upper, lower = colours[bands - 1 - 2 * row], colours[bands - 2 - 2 * row]
        label = {0: f"{clip.sample_rate / 2000:g} kHz", _PICTURE - 1: "0 kHz"}.get(row, "")
        line = Text(f"{label:>7} ", "dim")
        for over, under in zip(upper.tolist(), lower.tolist(), strict=True):
            line.append("▀", f"rgb({over[0]},{over[1]},{over[2]}) on rgb({under[0]},{under[1]},{under[2]})")
        screen.lines.append(line)
    screen.add((" " * 8 + "0 s" + f"{clip.view_seconds:g} s".rjust(width - 3), "dim"))


def _shrunk(cells: F32, bands: int, width: int) -> npt.NDArray[Any]:
    """Cells (bands, frames) as fewer, each the mean of those that it stands for."""
    import numpy as np

    down = np.stack([part.mean(axis=0) for part in np.array_split(cells, bands)])
    frames = np.linspace(0, down.shape[1], width + 1).astype(int)
    return np.stack([down[:, a : max(b, a + 1)].mean(axis=1) for a, b in itertools.pairwise(frames)], 1)
