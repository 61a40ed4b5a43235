"""The oddest clips: those that the teachers are least sure of, that views tear apart, that members quarrel about."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from logitstore.arrays import F64
from logitstore.errors import AudioError, UsageError
from logitstore.jobs.report.page import Content, Note, Part, Picture, Section, Strip, Table
from logitstore.jobs.report.views import Views
from logitstore.notes import doing, note
from logitstore.store.clip import StoredClip, StoredView

PART = {"place": 90, "class": "Odd"}
_SHOWN, _PICTURED = 10, 4  # of each kind


@dataclass(frozen=True)
class _Odd:
    """A clip: how odd it is, and what is said of it."""

    value: float
    clip: int
    own: int
    probability: float
    entropy: float
    kept: float


@dataclass(frozen=True)
class _Kind:
    title: str
    says: str
    measure: str
    of: Callable[[Views], F64 | None]


def _torn(views: Views) -> F64:
    """Share of views that say something else, and a little for a low probability, which breaks ties."""
    held = np.maximum(views.own, 0)
    own = np.take_along_axis(views.means, held[:, None], axis=1)[:, 0]
    return views.by_clip((~views.kept).astype(np.float64)) + 1e-6 * (1 - own)


def _disputed(views: Views) -> F64 | None:
    return None if views.members is None else views.by_clip(views.disagreement.sum(axis=1))


_KINDS = (
    _Kind("Least certain", "Highest mean entropy over their views.", "", lambda views: views.by_clip(views.entropy)),
    _Kind("Torn by augmentation", "Most views with another first class than the clip's own answer.", "", _torn),
    _Kind(
        "Disputed by the members",
        "Highest mean Jensen-Shannon divergence of the members.",
        "divergence, nats",
        _disputed,
    ),
)


class Odd(Part):
    """Keeps the oddest of each kind while the views go by."""

    looks = True

    def __init__(self, report: Any) -> None:
        super().__init__(report)
        self.found: list[list[_Odd]] = [[] for _ in _KINDS]

    def see(self, views: Views) -> None:
        """Look for odder ones."""
        held = np.flatnonzero(views.counts)
        if not len(held):
            return
        entropy, kept = views.by_clip(views.entropy), views.by_clip(views.kept.astype(np.float64))
        for at, kind in enumerate(_KINDS):
            values = kind.of(views)
            if values is None:
                continue
            order = held[np.lexsort((held, -values[held]))][:_SHOWN]
            new = [
                _Odd(
                    float(values[c]),
                    views.first + c,
                    int(views.own[c]),
                    float(views.means[c, views.own[c]]),
                    float(entropy[c]),
                    float(kept[c]),
                )
                for c in order.tolist()
            ]
            self.found[at] = sorted([*self.found[at], *new], key=lambda odd: (-odd.value, odd.clip))[:_SHOWN]

    def section(self) -> Section | None:
        """Nothing of a store without views."""
        if not any(self.found):
            return None
        store, classes = self.report.store, self.report.classes
        content: list[Content] = []
        pictured: set[int] = set()
        unheard = ""
        for kind, oddest in zip(_KINDS, self.found, strict=True):
            found = [odd for odd in oddest if odd.value > 0 and not (kind.of is _torn and odd.kept == 1)]
            if not found:
                continue
            clips = {odd.clip: store[odd.clip] for odd in found}
            columns = ["clip", "path", "starts at, s", "own answer", "mean p", "entropy, nats", "views that keep it"]
            columns += [kind.measure] if kind.measure else []
            rows = [
                (
                    odd.clip,
                    clips[odd.clip].path,
                    clips[odd.clip].start_s,
                    classes[odd.own],
                    odd.probability,
                    odd.entropy,
                    odd.kept,
                    odd.value,
                )[: len(columns)]
                for odd in found
            ]
            content.append(
                Table(
                    kind.title,
                    columns,
                    (",", "", ",.2f", "", ".3f", ".2f", ".0%", ".3f")[: len(columns)],
                    rows,
                    kind.says,
                )
            )
            fresh = [odd for odd in found if odd.clip not in pictured][:_PICTURED] if self.report.hears else []
            for odd in fresh:
                pictured.add(odd.clip)
                doing("drawing the oddest clips", len(pictured))
                try:
                    content.append(self._strip(kind, odd, clips[odd.clip]))
                except AudioError as error:
                    unheard = unheard or f"clip {odd.clip} cannot be decoded now: {error}"
        if unheard and not any(isinstance(one, Strip) for one in content):
            raise UsageError(
                f"none of the {len(pictured)} clips to draw can be decoded from --audio-root; is it the audio of "
                f"{store.location}? {unheard}"
            )
        if unheard:
            note(f"the page does without a picture: {unheard}")
            content.append(Note(unheard, "bad"))
        if not self.report.hears:
            content.append(Note("To see them, with the masks of two of their views, give --audio-root DIR."))
        lead = "Wrong labels, several sounds at once, silence, and recipes that are too rough are found here first."
        return Section("oddest", "The oddest clips", lead, content)

    def _strip(self, kind: _Kind, odd: _Odd, clip: StoredClip) -> Strip:
        from logitstore.views.picture import log_mel

        name, rate = self.report.classes[odd.own], self.report.summary.manifest.sample_rate
        original = log_mel(clip.waveform, rate)
        loudest = float(original.max())
        pictures = [
            Picture(
                "as it is",
                _uri(original, loudest),
                f"Log-mel spectrogram of clip {clip.number}, unaugmented",
                f"{clip.length_s:.2f} s of audio",
            )
        ]
        views = [clip.view(number) for number in clip.views]
        by_own = sorted(views, key=lambda view: (_said(view, odd.own), view.number))
        for view in dict.fromkeys((by_own[-1], by_own[0])):
            said = ", ".join(
                f"{view.targets.names[i]} {view.targets.probabilities[i]:.2f}"
                for i in range(min(2, len(view.targets.names)))
            )
            hides = [
                f"{box.start:.2f}–{box.stop:.2f} s" if box.kind == "time" else f"{box.start:,.0f}–{box.stop:,.0f} Hz"
                for box in view.boxes
            ]
            pictures.append(
                Picture(
                    f"view {view.number}",
                    _uri(log_mel(view.waveform, rate), loudest),
                    f"Log-mel spectrogram of view {view.number} of clip {clip.number}"
                    + (f"; masked: {', '.join(hides)}" if hides else ""),
                    said,
                    [
                        (box.left, box.top, box.width, box.height, text)
                        for box, text in zip(view.boxes, hides, strict=True)
                    ],
                )
            )
        says = f"{kind.title.lower()}; own answer {name} {odd.probability:.2f}, kept in {odd.kept:.0%} of the views"
        return Strip(f"clip {clip.number} · {clip.path}", says, pictures)


def _said(view: StoredView, own: int) -> float:
    """What a view says of a class; 0 where it is not among its k."""
    at = np.flatnonzero(view.targets.classes == own)
    return float(view.targets.probabilities[at[0]]) if len(at) else 0.0


def _uri(cells: Any, loudest: float) -> str:
    from logitstore.views.picture import png

    return "data:image/png;base64," + base64.b64encode(png(cells, loudest)).decode("ascii")
