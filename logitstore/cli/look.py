"""``logitstore look``: a store on one screen."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from logitstore.cli.command import answer, command, next_steps
from logitstore.options import STORE_WEIGHT, JsonOptions, Option, StoreWeights
from logitstore.options import Store as StoreOption

if TYPE_CHECKING:
    from logitstore.cli.screen import Screen
    from logitstore.store.look import Histogram, Look, Odd

_LABEL = 12  # columns of what stands at the left
_OPS = 5  # that are shown


@dataclass(frozen=True, kw_only=True)
class _Look(JsonOptions):
    store: StoreOption
    also: Annotated[
        Sequence[str],
        Option("Another store, read as one with STORE. Repeatable.", group="Question", metavar="STORE", names="store"),
    ] = ()
    store_weights: Annotated[StoreWeights, STORE_WEIGHT.but(group="Question")] = None


@command("look", _Look)
def look_command(options: _Look) -> None:
    """Show STORE on one screen: what it holds, its commonest classes, how sure its teachers are, its oddest clips.

    A clip's own answer is the class of the highest mean probability over its views; a view keeps it where it says it
    first. Odd are the clips of the highest entropy, those whose views say something else, and, where members were
    kept, those that members disagree about. In colour on a terminal; NO_COLOR switches colours off.

    \b
    Example:
      logitstore look store
      logitstore look store --also store-2
      logitstore look store --json
    """
    from logitstore.cli.screen import Screen
    from logitstore.store.look import look
    from logitstore.store.reader import open_store

    found = look(open_store([options.store, *options.also], weights=options.store_weights))
    screen = Screen()
    draw(found, screen)
    if options.json:
        answer(options, found.to_dict(), "")
    else:
        screen.print()
    place = shlex.quote(options.store)
    also = "".join(f" --also {shlex.quote(each)}" for each in options.also)
    steps = [f"logitstore show {place} {each.clip}{also}" for each in (found.torn or found.uncertain)[:1]]
    next_steps(
        *steps, f"logitstore inspect {place}{also} @", *([] if also else [f"logitstore report {place} -o report.html"])
    )


def draw(found: Look, screen: Screen) -> None:
    """The lines of a store, at most 40."""
    from logitstore.cli.screen import HEAD, SOFT
    from logitstore.store.format.manifest import member_names

    summary = found.summary
    state = "finished" if summary.shards_finished == summary.shards else "not finished: run the same build again"
    screen.add((summary.location, HEAD), "  ", (state, SOFT))
    failed = f"{summary.failed:,} clip{'s' * (summary.failed > 1)} failed" if summary.failed else "none failed"
    shown = {"clips": "", "views": "", "targets": "", "recipe": "", "teachers": "", "size": ""}
    shown |= {name: text for name, text in summary.lines() if name in shown}
    for name in ("clips", "targets", "recipe", "teachers", "size"):
        text = shown[name]
        if name == "clips":
            text = (
                f"{summary.clips:,} of {summary.manifest.clip_seconds:g} s at {summary.manifest.sample_rate:,} Hz, "
                f"{_hours(found.hours)}; {failed}"
            )
        elif name == "teachers":
            members = ", ".join(member_names(summary.manifest))
            text = members if len(summary.manifest.teachers) == 1 else f"{members}; mean of {summary.average}"
        elif name == "targets":
            text = f"{summary.stored_views:,} views, {summary.views:,} a clip; {text}"
        screen.add((name.ljust(_LABEL), SOFT), text)
    for failure in summary.first_failures[:1]:
        screen.add((" " * _LABEL, SOFT), f"clip {failure.clip}, {failure.place}: {failure.reason}")
    if not summary.stored_views:
        screen.add("", ("no view is stored yet", HEAD))
        return
    _draw_classes(found, screen)
    _draw_histograms(found, screen)
    _draw_survival(found, screen)
    _draw_odd(found, screen)


def _hours(hours: float) -> str:
    if hours < 1 / 30:
        return f"{3600 * hours:,.0f} seconds"
    return f"{60 * hours:,.0f} minutes" if hours < 2 else f"{hours:,.1f} hours"


def _draw_classes(found: Look, screen: Screen) -> None:
    from logitstore.cli.screen import BAR, HEAD, SOFT, fit, widest

    heading = f"commonest of the {found.classes_first:,} classes that come first in a view"
    name = widest([each.name for each in found.commonest], 24)
    bar = screen.width - name - 30
    screen.add("")
    screen.add((fit(heading, name + bar + 4), HEAD), (f"{'views':>9} {'clips':>8} {'mean p':>7}", SOFT))
    most, views = found.commonest[0].views, found.summary.stored_views
    for each in found.commonest:
        share = f"{100 * each.views / views:.0f}".rjust(3)
        screen.add(
            f"  {fit(each.name, name)} ",
            (screen.bar(each.views / most, bar), BAR),
            f" {each.views:>9,} {each.clips:>8,} {each.probability:>7.2f}",
            (f"{share} %" if screen.width >= 90 else "", SOFT),
        )


def _draw_histograms(found: Look, screen: Screen) -> None:
    from logitstore.cli.screen import BAR, HEAD, SOFT

    parts: list[tuple[str, str] | str] = []
    half = screen.width // 2
    for histogram, unit in ((found.top1, ""), (found.entropy, " nats")):
        low, high = "0", f"{histogram.high:.3g}{unit}"
        drawn = screen.histogram(histogram.counts)
        parts += ["  ", (low, SOFT), " ", (drawn, BAR), " ", (high, SOFT)]
        parts.append(" " * max(0, half - 5 - len(low) - len(drawn) - len(high)))
    screen.add("")
    screen.add(
        (_median("first probability", found.top1).ljust(half), HEAD),
        (_median("entropy of a view", found.entropy), HEAD),
    )
    screen.add(*parts)


def _median(name: str, histogram: Histogram) -> str:
    return name if histogram.median is None else f"{name}, median {histogram.median:.2f}"


def _draw_survival(found: Look, screen: Screen) -> None:
    from logitstore.cli.screen import HEAD, SOFT, fit

    screen.add("")
    if found.kept is None:
        screen.add(("survival", HEAD), ("  no clip has several views", SOFT))
        return
    steps = "  ".join(each.rjust(6) for each in ("none", "1/4", "2/4", "3/4", "all"))
    screen.add((f"survival: {100 * found.kept:.1f} % of views keep their clip's own answer", HEAD))
    if found.survival:
        screen.add((f"{'  where an op did':<20}{steps}", SOFT), ("  of at most", SOFT))
    for each in found.survival[:_OPS]:
        shares = ["-" if share is None else f"{share:.2f}" for share in each.kept]
        screen.add(
            f"  {fit(each.op, 18)}",
            "  ".join(share.rjust(6) for share in shares),
            (f"  {each.most:.3g} {each.unit}", SOFT),
        )


def _draw_odd(found: Look, screen: Screen) -> None:
    kinds = [("most uncertain", "nats", found.uncertain), ("views disagree", "share kept", found.torn)]
    if found.disputed is not None:
        kinds.append(("members differ", "nats", found.disputed))
    from logitstore.cli.screen import HEAD, ODD, SOFT, fit, widest

    cases = [each for _, _, several in kinds for each in several]
    place = widest([_place(each) for each in cases], screen.width // 2)
    screen.add("")
    screen.add((fit("odd clips", 26 + place), HEAD), ("answers, its own first", SOFT))
    for title, unit, several in kinds:
        for number, each in enumerate(several):
            label = (title, f"  {unit}", "")[min(number, 2)]
            screen.add(
                (f"  {label:<15}", SOFT),
                f" {each.clip:>6} ",
                (fit(_place(each), place, end=True), ODD),
                f" {each.value:>5.2f}  {', '.join(each.answers)}",
            )


def _place(each: Odd) -> str:
    return f"{each.path} {each.start_s:g} s" if each.start_s else each.path
