"""One clip of a store and one view of it, to look at: what was drawn, what was said, and how it sounded.

``store[clip]`` and ``store[clip].view(v)`` give these. They are for people; what goes through many views asks the
store's own methods, which take many clips at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.arrays import F32, U16
from logitstore.errors import LogitstoreError, MissingExtraError, UsageError
from logitstore.store.format.commits import Commit
from logitstore.store.format.frames import Frames
from logitstore.store.format.manifest import member_names
from logitstore.store.pieces import Pieces
from logitstore.store.shards import number_ranges
from logitstore.views.recipe import Draws, masks

if TYPE_CHECKING:
    import torch

    from logitstore.audio.clips import ClipAudio
    from logitstore.views.picture import Box
    from logitstore.views.recipe import Masks, Recipe

_KEYS = ("clip", "path", "start", "length", "rate")


@dataclass(frozen=True)
class ViewTargets:
    """What the ensemble said of one view: the k likeliest classes, falling.

    ``classes`` uint16 (k,), positions in ``store.manifest.classes``; ``names`` are theirs; ``probabilities`` float32
    (k,) in (0, 1).
    """

    classes: U16
    names: tuple[str, ...]
    probabilities: F32


class StoredClip:
    """One clip of a store.

    :param store: the store. :param number: the clip's number. :param audio: where it can be heard, None for nowhere.
    :raises UsageError: there is no such clip.
    """

    def __init__(self, store: Pieces, number: int, audio: ClipAudio | None = None) -> None:
        count = int(store.offsets[-1])
        if not 0 <= number < count:
            raise UsageError(f"clip {number} is not in {store.location}; it has clips 0 to {count - 1}")
        self.number = number
        self._store, self._audio = store, audio
        self._row = store.clip_row(number)

    @property
    def path(self) -> str:
        """Of its file, relative to the audio root."""
        return str(self._row["path"])

    @property
    def start(self) -> int:
        """First frame of the file that it holds."""
        return int(self._row["start"])

    @property
    def length(self) -> int:
        """Number of frames of the file that it holds."""
        return int(self._row["length"])

    @property
    def rate(self) -> int:
        """Of the file in Hz; 0 where that could not be read."""
        return int(self._row["rate"])

    @property
    def start_s(self) -> float:
        """Where it starts in its file, in seconds."""
        return self.start / max(self.rate, 1)

    @property
    def length_s(self) -> float:
        """How long it is, in seconds, before it is padded or cut to a view."""
        return self.length / max(self.rate, 1)

    @property
    def sample_rate(self) -> int:
        """Of its waveform and those of its views, in Hz."""
        return self._store.manifest.sample_rate

    @property
    def can_be_heard(self) -> bool:
        """Whether the store was opened with its audio."""
        return self._audio is not None

    @property
    def view_seconds(self) -> float:
        """Length of each of its views, in seconds."""
        place = self._store.manifest.place
        return place.clip_samples / place.sample_rate

    @property
    def columns(self) -> dict[str, Any]:
        """What the user's columns of the clip table say of it."""
        return {name: value for name, value in self._row.items() if name not in _KEYS}

    @property
    def views(self) -> tuple[int, ...]:
        """The views that have targets, rising."""
        return tuple(view for commit in self.blocks for view in range(commit.view_start, commit.view_stop))

    @functools.cached_property
    def mean(self) -> ViewTargets:
        """What the ensemble said on the mean of its views, a class that a view lacks counting as 0 there, or as what
        stands for it in a store with a quality: as many of the likeliest classes that a view has as one has, none of a
        clip without views."""
        said = [self.view(number).targets for number in self.views]
        total = np.zeros(len(self._store.manifest.classes))
        named = np.zeros(len(total), bool)
        for number, each in zip(self.views, said, strict=True):
            rest = 0.0 if self._store.manifest.quality is None else float(self._store.rests(number, [self.number])[0])
            total += rest / len(said)
            total[each.classes] += (each.probabilities - rest) / len(said)
            named[each.classes] = True
        k = min(max((len(each.classes) for each in said), default=0), np.count_nonzero(named))
        best = np.lexsort((np.arange(len(total)), -total, ~named))[:k].astype(np.uint16)
        names = tuple(self._store.manifest.classes[number] for number in best.tolist())
        return ViewTargets(best, names, total[best].astype(np.float32))

    @functools.cached_property
    def waveform(self) -> F32:
        """The clip before any augmentation, padded or cut to the length of a view: float32 (clip_samples,), about
        [-1, 1], at the store's rate.

        :raises UsageError: the store was opened without its audio.
        :raises AudioError: it cannot be decoded.
        """
        if self._audio is None:
            raise no_audio(self._store)
        waveform = np.zeros(self._store.manifest.place.clip_samples, np.float32)
        heard = self._audio[self.number][: len(waveform)]
        waveform[: len(heard)] = heard
        return waveform

    @functools.cached_property
    def blocks(self) -> tuple[Commit, ...]:
        """The blocks that hold targets of it, by view."""
        return tuple(commit for commit, reason in self._held if reason is None)

    @property
    def failed(self) -> str | None:
        """Why it has no targets; None where it has some, or where its blocks are not finished."""
        return next((reason for _, reason in self._held if reason is not None), None)

    @functools.cached_property
    def _held(self) -> list[tuple[Commit, str | None]]:
        return [
            (commit, dict(commit.failed).get(self.number - commit.first_clip))
            for commit in self._store.commits
            if commit.first_clip <= self.number < commit.first_clip + commit.clips
        ]

    def view(self, number: int) -> StoredView:
        """One view of it.

        :param number: one of :attr:`views`.
        :raises UsageError: it has no targets for that view.
        """
        if number not in self.views:
            has = f"it failed: {self.failed}" if self.failed else f"it has views {number_ranges(self.views) or 'none'}"
            raise UsageError(f"clip {self.number} of {self._store.location} has no view {number}; {has}")
        return StoredView(self, number, self._store, self._audio)

    def __repr__(self) -> str:
        what = f"failed: {self.failed}" if self.failed else f"views {number_ranges(self.views) or 'none'}"
        place = f"{self.start_s:g} to {self.start_s + self.length_s:g} s"
        return f"<StoredClip {self.number}: {self.path}, {place}, {what}>"

    def _repr_html_(self) -> str:
        from logitstore import notebook

        place = f"{self.start_s:g} to {self.start_s + self.length_s:.4g} s of the file"
        facts = [("clip", self.number), ("in file", place), *self.columns.items()]
        facts.append(("failed", self.failed) if self.failed else ("views", number_ranges(self.views) or "none"))
        parts = [notebook.facts(facts)]
        if self.views:
            mean = self.mean
            rows = [(name, share, [f"{share:.3f}"]) for name, share in _first(mean.names, mean.probabilities)]
            parts.append(notebook.bars(rows, ("", f"mean of {len(self.views)} views")))
        if not self.failed:
            parts += _heard(self, lambda: self.waveform, [], f"clip {self.number}, the original")
        return notebook.card(self.path, *parts)


class StoredView:
    """One view of a clip: get it from :meth:`StoredClip.view`.

    What is heard (``waveform``, ``log_mel``) needs the audio: open the store with ``audio_root=``.
    """

    def __init__(self, clip: StoredClip, number: int, store: Pieces, audio: ClipAudio | None) -> None:
        self.clip = clip
        self.number = number
        self._store, self._audio = store, audio

    @functools.cached_property
    def targets(self) -> ViewTargets:
        """What the ensemble said of it."""
        classes, probabilities = self._store.targets(self.number, [self.clip.number])
        used = probabilities[0] > 0
        names = tuple(self._store.manifest.classes[number] for number in classes[0, used].tolist())
        return ViewTargets(classes[0, used], names, probabilities[0, used])

    @functools.cached_property
    def rest(self) -> float | None:
        """The probability that stands for each class that is not among :attr:`targets`; None of a store without a
        quality, which knows nothing of them."""
        if self._store.manifest.quality is None:
            return None
        return float(self._store.rests(self.number, [self.clip.number])[0])

    @functools.cached_property
    def members(self) -> dict[str, F32] | None:
        """What each member said of the classes of :attr:`targets`, float32 (k,); None where that was not kept."""
        (block,) = (each for each in self.clip.blocks if each.view_start <= self.number < each.view_stop)
        said = self._store.block_members(block)
        if said is None:
            return None
        names, row = member_names(self._store.manifest), self.clip.number - block.first_clip
        here = said[:, row, self.number - block.view_start, : len(self.targets.classes)]
        return {names[i]: here[i] for i in self._store.block_teachers(block)}

    @functools.cached_property
    def frames(self) -> Frames | None:
        """What is kept of when, the one view being clip 0 of it; None of a store that does not say when."""
        if self._store.manifest.frames is None:
            return None
        return self._store.frames(self.number, [self.clip.number])

    def sounding(self, least: float = 0.5) -> list[tuple[str, float, float, float]] | None:
        """When each class is at least so likely: (class, start, end, highest probability), by start, in seconds of the
        view; None of a store that does not say when."""
        if self.frames is None:
            return None
        manifest = self._store.manifest
        found: list[tuple[str, float, float, float]] = []
        before = (-1, -1)  # class and end, in frames, of the stretch before
        for label, start, stop, p in zip(
            self.frames.classes.tolist(), self.frames.starts.tolist(), self.frames.stops.tolist(),
            self.frames.probabilities.tolist(), strict=True,
        ):  # fmt: skip
            if p < least:
                continue
            end = min(round(stop * self.frames.hop, 3), manifest.clip_seconds)
            if before == (label, start):
                name, begun, _, highest = found.pop()
                found.append((name, begun, end, max(highest, p)))
            else:
                found.append((manifest.classes[label], round(start * self.frames.hop, 3), end, p))
            before = (label, stop)
        return sorted(found, key=lambda each: each[1:3])

    @functools.cached_property
    def _draws(self) -> Draws:
        return self._store.draws(self.number, [self.clip.number])

    @property
    def draw(self) -> dict[str, int]:
        """The integers that were drawn for it, by their names; see ``docs/format.md``."""
        return {name: int(values[0]) for name, values in self._draws.columns.items()}

    @property
    def parameters(self) -> dict[str, Any]:
        """What was drawn in plain units, as SQL's table ``views`` shows it (ms, Hz, dB, …); None for nothing."""
        drawn = self._draws.columns
        first = int(self._store.shard_starts(np.array([self.clip.number]))[0])
        found: dict[str, Any] = {}
        for column in self._store.manifest.recipe.sql_columns:
            value = np.asarray(column.values(drawn))[0].item() + (first if column.of_shard else 0)
            found[column.name] = None if column.null is not None and column.null(drawn)[0] else value
        return found

    @property
    def drawn(self) -> dict[str, str]:
        """What each op did, by its name, in words for people: seconds, Hz and dB."""
        manifest = self._store.manifest
        return in_words(manifest.recipe, self.parameters, manifest.sample_rate)

    @property
    def entropy(self) -> float:
        """Of its targets, in nats: of sigmoid scores the sum of the k Bernoulli entropies."""
        p = self.targets.probabilities.astype(np.float64)
        nats = -(p * np.log(p)).sum()
        return float(nats - ((1 - p) * np.log1p(-p)).sum() if self._store.manifest.scores == "sigmoid" else nats)

    @property
    def mask(self) -> dict[str, float] | None:
        """What is hidden: ``time_start``, ``time_end`` in seconds, ``freq_low``, ``freq_high`` in Hz, half-open.

        Equal ends where nothing is; None under a recipe without masks.
        """
        hidden = masks(self._store.manifest.recipe, self._draws)
        return None if hidden is None else {name: float(ends[0]) for name, ends in vars(hidden).items()}

    @property
    def boxes(self) -> list[Box]:
        """Where its masks lie in its picture, see :mod:`logitstore.views.picture`; none where nothing is hidden."""
        from logitstore.views.picture import boxes

        manifest = self._store.manifest
        return boxes(masks(manifest.recipe, self._draws), manifest.clip_seconds, manifest.sample_rate)

    @property
    def waveform(self) -> F32:
        """How it sounded to the teachers: float32 (clip_samples,), about [-1, 1], at the store's rate.

        :raises UsageError: the store was opened without its audio.
        :raises AudioError: the clip, or the one that it is mixed with, cannot be decoded.
        """
        waveform, _ = self._rendered
        return np.asarray(waveform.numpy(), np.float32)

    @property
    def log_mel(self) -> F32:
        """How it looked: decibels of 64 mel bands every 10 ms, float32 (64, T), the masked cells at 0 dB.

        :raises UsageError, AudioError: as :attr:`waveform`.
        """
        from logitstore.views.fingerprint import reference_log_mel

        waveform, hidden = self._rendered
        return np.asarray(reference_log_mel(waveform, hidden, self._store.manifest.sample_rate).numpy(), np.float32)

    @functools.cached_property
    def _rendered(self) -> tuple[torch.Tensor, Masks | None]:
        from logitstore.views.render import Renderer

        if self._audio is None:
            raise no_audio(self._store)
        manifest, clip = self._store.manifest, self.clip.number
        partners = self._store.partners(np.array([clip]), self._draws)
        partner = -1 if partners is None else int(partners[0])
        return Renderer(self._audio, manifest.recipe, manifest.place).view(clip, self._draws, partner)

    def __repr__(self) -> str:
        said = ", ".join(
            f"{name} {share:.2f}"
            for name, share in zip(self.targets.names[:3], self.targets.probabilities[:3].tolist(), strict=True)
        )
        more = ", …" if len(self.targets.names) > 3 else ""
        return f"<StoredView {self.number} of clip {self.clip.number} ({self.clip.path}): {said}{more}>"

    def _repr_html_(self) -> str:
        from logitstore import notebook

        members = self.members or {}
        rows = [
            (
                name,
                share,
                [f"{share:.3f}", *("-" if np.isnan(one[at]) else f"{one[at]:.3f}" for one in members.values())],
            )
            for at, (name, share) in enumerate(_first(self.targets.names, self.targets.probabilities))
        ]
        header = ("", f"entropy {self.entropy:.2f} nats", "ensemble" if members else "", *members)
        parts = [notebook.facts(self.drawn.items()), notebook.bars(rows, header)]
        parts += _heard(self.clip, lambda: self.waveform, self.boxes, f"view {self.number} of clip {self.clip.number}")
        return notebook.card(f"view {self.number} of clip {self.clip.number}, {self.clip.path}", *parts)


def in_words(recipe: Recipe, parameters: Mapping[str, Any], sample_rate: int) -> dict[str, str]:
    """What was drawn, by the name of each op, for people.

    :param parameters: as SQL's table ``views`` shows them. :param sample_rate: of the store, in Hz.
    """
    return {op.name: _op_in_words([column.name for column in op.sql_columns()], parameters, sample_rate)
            for op in recipe.ops}  # fmt: skip


def _op_in_words(columns: Sequence[str], values: Mapping[str, Any], sample_rate: int) -> str:
    said = []
    for name in columns:
        value, unit = values[name], name.rpartition("_")[2]
        start, end = next(((a, b) for a, b in _ENDS if a in name.split("_")), ("", ""))
        if (unit in ("step", "key") and len(columns) > 1) or any(b in name.split("_") for _, b in _ENDS):
            continue  # the same in units that people do not know; the end, which is said with the start
        other = values.get(name.replace(f"_{start}_", f"_{end}_")) if start else None
        if value is None or (other is not None and value == other):
            said.append("nothing")
        elif other is not None:
            said.append(f"{_number(value, unit, sample_rate)} to {_amount(other, unit, sample_rate)}")
        else:
            said.append(_amount(value, unit, sample_rate, name))
    return ", ".join(dict.fromkeys(said))


#: What columns of a range are called: (from, to).
_ENDS = (("start", "end"), ("low", "high"))
_UNITS = {"ms": "s", "samples": "s", "hz": "Hz", "db": "dB"}


def _number(value: Any, unit: str, sample_rate: int) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    seconds = {"ms": 1000, "samples": sample_rate}.get(unit)
    if seconds is not None:
        return f"{value / seconds:.2f}"
    return f"{value:,.0f}" if unit == "hz" else f"{value:.1f}" if unit == "db" else f"{value:g}"


def _amount(value: Any, unit: str, sample_rate: int, name: str = "") -> str:
    """A value with its unit, or, where it has none that is known, behind the last word of its column."""
    number = _number(value, unit, sample_rate)
    return f"{number} {_UNITS[unit]}" if unit in _UNITS else f"{name.rpartition('_')[2]} {number}".strip()


def no_audio(store: Pieces) -> UsageError:
    """The error of a store that was opened without its audio."""
    return UsageError(
        f"{store.location} was opened without its audio; give open_store(…, audio_root=FOLDER), or use "
        "store.with_audio(FOLDER)"
    )


_SHOWN = 6  # classes, in a notebook


def _first(names: Sequence[str], probabilities: F32) -> list[tuple[str, float]]:
    return list(zip(names[:_SHOWN], probabilities[:_SHOWN].tolist(), strict=True))


def _heard(clip: StoredClip, waveform: Callable[[], F32], boxes: Sequence[Box], label: str) -> list[str]:
    """A player and a picture, for a notebook; where there can be none, what to do for them."""
    from logitstore import notebook
    from logitstore.views.picture import height, log_mel, png, wav

    if not clip.can_be_heard:
        return [notebook.note("to hear and see it, give the audio: store.with_audio(FOLDER)")]
    try:
        samples = waveform()
    except LogitstoreError as error:
        return [notebook.note(f"it cannot be heard: {error}")]
    rate, seconds = clip.sample_rate, clip.view_seconds
    found = [notebook.player(wav(samples, rate), label)]
    try:
        drawn = png(log_mel(samples, rate), float(log_mel(clip.waveform, rate).max()))
    except MissingExtraError as error:
        return [*found, notebook.note(str(error))]
    hidden = "".join(
        f"; hidden: {box.start:.4g} to {box.stop:.4g} {'s' if box.kind == 'time' else 'Hz'}" for box in boxes
    )
    across = [(share, f"{share * seconds:g} s") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    up = [(height(hz, rate), f"{hz / 1000:g} kHz") for hz in (500, 2000, 8000) if hz <= rate / 2]
    places = [(box.left, box.top, box.width, box.height) for box in boxes]
    return [*found, notebook.picture(drawn, f"log-mel of {label}{hidden}", places, across, up)]
