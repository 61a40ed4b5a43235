"""A clip and its views as a figure and as sound: what ``logitstore show`` writes."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.arrays import F32
from logitstore.errors import MissingExtraError, UsageError
from logitstore.files import check_out, open_out
from logitstore.store.clip import StoredClip, StoredView
from logitstore.store.reader import Store
from logitstore.views.picture import height, log_mel, palette, shades, wav

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORIGINAL = "original"
_CLASSES = 5  # of a view that are drawn
_ROW, _WIDTH, _HEAD = 1.75, 12.0, 0.75  # inches
_MOST_ROWS = 40
_ENVELOPE = 900  # columns of a waveform
_INK, _SOFT, _LINE = "#1b2230", "#566072", "#d5d9e0"
_BAR, _OWN = "#9db4cc", "#2f6fae"
_MEMBERS = ("#b6500c", "#1a7f37", "#7a3fa0", "#b42318", "#8a5a00", "#0b7285")


def find_clip(store: Store, asked: str) -> StoredClip:
    """A clip by its number, or by the path of its file where it is the only one of that.

    :raises UsageError: there is no such clip, or there are several; what there is is said.
    """
    if re.fullmatch(r"-?\d+", asked):
        return store[int(asked)]
    import pyarrow.compute as pc

    paths = store.clips["path"]
    found = pc.indices_nonzero(pc.equal(paths, asked)).to_pylist()
    if len(found) == 1:
        return store[found[0]]
    if found:
        several = ", ".join(f"{clip} ({store[clip].start_s:g} s)" for clip in found[:5])
        more = ", …" if len(found) > 5 else ""
        raise UsageError(
            f"{asked!r} has {len(found):,} clips in {store.location}; give the number of one: {several}{more}"
        )
    near = pc.indices_nonzero(pc.match_substring(paths, Path(asked).name, ignore_case=True)).to_pylist()[:3]
    like = "; did you mean " + " or ".join(repr(paths[clip].as_py()) for clip in near) + "?" if near else ""
    raise UsageError(
        f"no clip of {store.location} has the path {asked!r}{like or '; give a number, or a path as the store has it'}"
    )


def chosen(clip: StoredClip, asked: Sequence[str]) -> list[StoredView | None]:
    """The views to show, None for the original: those asked for, by default the original and all views.

    :param asked: numbers of views, and "original".
    :raises UsageError: there is no such view.
    """
    if not asked:
        return [None, *(clip.view(number) for number in clip.views)]
    found: list[StoredView | None] = []
    for each in asked:
        if each != ORIGINAL and not each.isdecimal():
            raise UsageError(f"--view {each!r} is no view; give a number, or {ORIGINAL!r}")
        found.append(None if each == ORIGINAL else clip.view(int(each)))
    return found


def figure(clip: StoredClip, views: Sequence[StoredView | None]) -> Figure:
    """A figure of a clip: a row for each view, of its waveform, its log-mel with the masks drawn, and its answers.

    :param views: None stands for the original, whose answers are the mean over all views.
    :raises MissingExtraError: matplotlib is not installed.
    :raises UsageError: the store was opened without its audio; too many views for one figure.
    :raises AudioError: the clip cannot be decoded.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "report", "a figure of a clip") from None
    if len(views) > _MOST_ROWS:
        raise UsageError(
            f"a figure has at most {_MOST_ROWS} rows, and {len(views)} views are asked for; choose by --view"
        )
    rate, seconds = clip.sample_rate, clip.view_seconds
    waveforms = [clip.waveform if view is None else view.waveform for view in views]
    loudest = float(log_mel(clip.waveform, rate).max())
    members = _member_names(views)
    foot = 0.42 + (0.28 if members else 0.0)
    tall = _ROW * len(views) + _HEAD + foot
    made = Figure(figsize=(_WIDTH, tall), dpi=120, facecolor="white")
    FigureCanvasAgg(made)
    top, bottom = 1 - _HEAD / tall, foot / tall
    grid = made.add_gridspec(
        len(views), 2, width_ratios=(2.6, 1), left=0.055, right=0.965, top=top, bottom=bottom, hspace=0.3, wspace=0.28
    )
    made.text(0.055, 1 - 0.22 / tall, _plain(_title(clip)), fontsize=12, fontweight="bold", color=_INK, va="center")
    made.text(0.965, 1 - 0.22 / tall, _plain(_facts(clip)), fontsize=9, color=_SOFT, va="center", ha="right")
    own = clip.mean.names[:1]
    for row, (view, waveform) in enumerate(zip(views, waveforms, strict=True)):
        left = grid[row, 0].subgridspec(2, 1, height_ratios=(1, 3.2), hspace=0.06)
        sound, cells = made.add_subplot(left[0]), made.add_subplot(left[1])
        _draw_waveform(sound, waveform, seconds, view)
        _draw_cells(cells, waveform, rate, seconds, loudest, view, last=row == len(views) - 1)
        _draw_answers(made.add_subplot(grid[row, 1]), clip, view, own, members, last=row == len(views) - 1)
    if members:
        _draw_legend(made, members, tall)
    return made


def write_figure(clip: StoredClip, views: Sequence[StoredView | None], file: str) -> None:
    """Write :func:`figure` as a PNG.

    :raises UsageError: the file cannot be written; and as :func:`figure`.
    """
    from PIL import Image  # matplotlib needs it too

    drawn = io.BytesIO()
    figure(clip, views).savefig(drawn, format="png")
    small = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)  # a third of its bytes
    with open_out(file, "--png") as out:
        small.save(out, "PNG", optimize=True)


def sound_files(views: Sequence[StoredView | None], file: str) -> list[str]:
    """The WAV files of some views: the one that was named for one view, and for several that name with each behind it.

    :raises UsageError: one cannot be written.
    """
    path = Path(file)
    names = (
        [file]
        if len(views) == 1
        else [str(path.with_name(f"{path.stem}-{_name(view)}{path.suffix}")) for view in views]
    )
    for name in names:
        check_out(name, "--wav", (".wav",))
    return names


def write_sounds(clip: StoredClip, views: Sequence[StoredView | None], files: Sequence[str]) -> None:
    """Write views as 32-bit float WAV files: the very samples that the teachers heard.

    :param views: None stands for the original. :param files: of :func:`sound_files`.
    :raises UsageError: the store was opened without its audio, or a file cannot be written.
    :raises AudioError: the clip cannot be decoded.
    """
    for view, file in zip(views, files, strict=True):
        content = wav(clip.waveform if view is None else view.waveform, clip.sample_rate)
        with open_out(file, "--wav") as out:
            out.write(content)


def document(clip: StoredClip, views: Sequence[StoredView | None]) -> dict[str, Any]:
    """A clip and some of its views as plain JSON values."""
    return {
        "clip": clip.number,
        "path": clip.path,
        "start_s": clip.start_s,
        "length_s": clip.length_s,
        "columns": clip.columns,
        "failed": clip.failed,
        "mean": _answers(clip.mean.names, clip.mean.probabilities),
        "shown": [_view_document(view) for view in views if view is not None],
    }


def _view_document(view: StoredView) -> dict[str, Any]:
    members = view.members or {}
    classes = _answers(view.targets.names, view.targets.probabilities)
    for rank, each in enumerate(classes):
        if members:
            each["members"] = {name: float(said[rank]) for name, said in members.items()}
    return {
        "view": view.number,
        "parameters": view.parameters,
        "drawn": view.drawn,
        "boxes": [vars(box) for box in view.boxes],
        "entropy": view.entropy,
        "classes": classes,
        "sounding": _sounding(view),
    }


def _sounding(view: StoredView) -> list[dict[str, Any]] | None:
    """When which class is likelier than not; None of a store that does not say when."""
    found = view.sounding()
    if found is None:
        return None
    return [{"class": name, "start_s": start, "end_s": end, "highest": p} for name, start, end, p in found]


def _answers(names: Sequence[str], probabilities: F32) -> list[dict[str, Any]]:
    return [{"class": name, "probability": p} for name, p in zip(names, probabilities.tolist(), strict=True)]


def _name(view: StoredView | None) -> str:
    return ORIGINAL if view is None else str(view.number)


# the figure's parts


def _plain(text: str, most: int = 90, *, start: bool = False) -> str:
    """Text as matplotlib shall draw it: cut at its start, or so that its ``start`` is left, and no formula."""
    from logitstore.texts import one_line

    shown = one_line(text)
    if len(shown) > most:
        shown = shown[: most - 1] + "…" if start else "…" + shown[1 - most :]
    return shown.replace("$", r"\$")


def _title(clip: StoredClip) -> str:
    return f"clip {clip.number}  {clip.path}"


def _facts(clip: StoredClip) -> str:
    place = f"{clip.start_s:g} to {clip.start_s + clip.length_s:.4g} s of the file"
    label = [f"{name} {value}" for name, value in list(clip.columns.items())[:2]]
    return "   ".join([*label, place])


def _draw_waveform(axes: Axes, waveform: F32, seconds: float, view: StoredView | None) -> None:
    parts = np.array_split(waveform, min(_ENVELOPE, len(waveform)))
    low, high = np.array([(part.min(), part.max()) for part in parts]).T
    least = 0.004 * max(0.02, float(np.abs(waveform).max()))
    time = (np.arange(len(parts)) + 0.5) * seconds / len(parts)
    axes.fill_between(time, low - least, high + least, color=_INK, linewidth=0)
    peak = float(np.abs(waveform).max())
    most = max(0.02, peak)
    axes.set(xlim=(0, seconds), ylim=(-most, most), xticks=[], yticks=[])
    axes.text(1.0, 1.06, f"peak {peak:.2f}", transform=axes.transAxes, fontsize=7, color=_SOFT, ha="right", va="bottom")
    for side in axes.spines.values():
        side.set_visible(False)
    heading = ORIGINAL if view is None else f"view {view.number}"
    axes.text(0.0, 1.06, heading, transform=axes.transAxes, fontsize=9.5, fontweight="bold", color=_INK, va="bottom")
    drawn = "as it was decoded"
    if view is not None:
        drawn = "   ".join(f"{name} {text}" for name, text in view.drawn.items()) or "as the original"
    axes.text(
        0.09, 1.06, _plain(drawn, 110, start=True), transform=axes.transAxes, fontsize=8.5, color=_SOFT, va="bottom"
    )


def _draw_cells(
    axes: Axes, waveform: F32, rate: int, seconds: float, loudest: float, view: StoredView | None, *, last: bool
) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle

    cells = log_mel(waveform, rate)
    axes.imshow(
        shades(cells, loudest),
        origin="lower",
        aspect="auto",
        cmap=ListedColormap(palette() / 255.0),
        vmin=0,
        vmax=1,
        extent=(0, seconds, 0, 1),
        interpolation="nearest",
    )
    for box in [] if view is None else view.boxes:
        place = (box.left * seconds, 1 - box.top - box.height)
        size = (box.width * seconds, box.height)
        axes.add_patch(
            Rectangle(
                place, *size, facecolor=(1, 1, 1, 0.30), edgecolor="white", hatch="////", linewidth=1.1, gid=box.kind
            )
        )
        label = (
            f"{box.start:.2f} to {box.stop:.2f} s" if box.kind == "time" else f"{box.start:,.0f} to {box.stop:,.0f} Hz"
        )
        if size[0] > 0.1 * seconds and size[1] > 0.1:
            axes.text(
                place[0] + size[0] / 2 if box.kind == "time" else 0.99 * seconds,
                0.93 if box.kind == "time" else place[1] + size[1] / 2,
                label,
                fontsize=7,
                color=_INK,
                ha="center" if box.kind == "time" else "right",
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.2},
            )
    ticks = [hz for hz in (250, 500, 1000, 2000, 4000, 8000, 16000, 24000) if hz <= rate / 2]
    while len(ticks) > 4:
        ticks = ticks[1::2] if len(ticks) % 2 == 0 else ticks[::2]
    axes.set_yticks([height(hz, rate) for hz in ticks], [f"{hz / 1000:g}" for hz in ticks])
    axes.set(xlim=(0, seconds), ylim=(0, 1))
    axes.set_ylabel("kHz", fontsize=8, color=_SOFT, labelpad=2)
    axes.tick_params(labelsize=7.5, colors=_SOFT, length=2.5, labelbottom=last)
    if last:
        axes.set_xlabel("seconds", fontsize=8, color=_SOFT, labelpad=2)
    for side in axes.spines.values():
        side.set_color(_LINE)


def _member_names(views: Sequence[StoredView | None]) -> list[str]:
    return list(dict.fromkeys(name for view in views if view is not None for name in view.members or {}))


def _draw_answers(
    axes: Axes, clip: StoredClip, view: StoredView | None, own: Sequence[str], members: Sequence[str], *, last: bool
) -> None:
    said = clip.mean if view is None else view.targets
    names, values = said.names[:_CLASSES], said.probabilities[:_CLASSES]
    places = np.arange(len(names))
    axes.barh(places, values, height=0.62, color=[_OWN if name in own else _BAR for name in names], zorder=2)
    kept = (view.members if view is not None else None) or {}
    for name, shares in kept.items():
        colour, marker = _look_of(members.index(name))
        axes.plot(shares[: len(names)], places, marker, color=colour, markersize=4.5, markeredgecolor="white",
                  markeredgewidth=0.6, zorder=3, clip_on=False)  # fmt: skip
    for place, value in enumerate(values.tolist()):
        furthest = max([value, *(float(shares[place]) for shares in kept.values() if not np.isnan(shares[place]))])
        axes.text(furthest + 0.03, place, f"{value:.2f}", fontsize=7.5, color=_INK, va="center")
    axes.set_yticks(places, [_plain(name, 24, start=True) for name in names])
    axes.set(xlim=(0, 1), ylim=(max(_CLASSES, len(names)) - 0.5, -0.5), xticks=[0, 0.5, 1])
    axes.tick_params(labelsize=8, colors=_INK, length=0, pad=3)
    axes.tick_params(axis="x", labelsize=7.5, colors=_SOFT, labelbottom=last)
    axes.grid(axis="x", color=_LINE, linewidth=0.8, zorder=0)
    for side in axes.spines.values():
        side.set_visible(False)
    heading = f"mean of {len(clip.views)} views" if view is None else f"entropy {view.entropy:.2f} nats"
    axes.text(0.0, 1.04, heading, transform=axes.transAxes, fontsize=8.5, color=_SOFT, va="bottom")
    if last:
        axes.set_xlabel("probability", fontsize=8, color=_SOFT, labelpad=2)


def _look_of(number: int) -> tuple[str, str]:
    return _MEMBERS[number % len(_MEMBERS)], "oDs^v<>"[number // len(_MEMBERS) % 7]


def _draw_legend(made: Figure, members: Sequence[str], tall: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(color=_OWN, label="ensemble: the clip's own answer"),
        Patch(color=_BAR, label="other classes"),
    ]
    for number, name in enumerate(members):
        colour, marker = _look_of(number)
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5, label=_plain(name, 30)))
    made.legend(handles=handles, loc="lower right", bbox_to_anchor=(0.965, 0.04 / tall), ncols=min(len(handles), 6),
                fontsize=8, frameon=False, handletextpad=0.5, columnspacing=1.4, labelcolor=_SOFT)  # fmt: skip
