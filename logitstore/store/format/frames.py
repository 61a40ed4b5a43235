"""What a store keeps of when: for every view the ensemble's probabilities by frames, as bytes and back. Pure NumPy.

Most classes are silent most of the time, and those that sound go on for a while. So of every view only the *runs* are
kept: stretches of frames in which a class has one probability, in few bits on the angle scale; below a floor nothing.
Runs of a view lie by class, then by start. In a block their arrays are

``frame_tracks``   how many classes of each view have runs, as three byte planes, (3, rows x views), views fastest
``frame_classes``  those classes, each less the one before and 1, by their gaps, as ``layout`` writes gaps
``frame_runs``     how many runs each has, less 1, likewise
``frame_gaps``     frames from the end of the run before in the class (or from the start of the view) to the run
``frame_lengths``  frames of each run, less 1, likewise
``frame_codes``    its code, less that of the run before in the class, modulo 256

``docs/format.md`` is the specification.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from logitstore.arrays import F32, F64, I64, U8, U16
from logitstore.errors import UsageError
from logitstore.store.format.codec import Quantizer
from logitstore.store.format.gaps import decode_gaps, encode_gaps

LEAST_HOP_MS, MOST_HOP_MS = 10, 60_000
LEAST_BITS, MOST_BITS = 3, 8
#: Frames of a view at most: their numbers have 16 bits.
MOST_FRAMES = (1 << 16) - 1
#: What a build takes for them.
BITS, FLOOR = 5, 0.05
#: The arrays of a block, and the planes of each.
ARRAYS = {"frame_tracks": 3, "frame_classes": 1, "frame_runs": 1, "frame_gaps": 1, "frame_lengths": 1, "frame_codes": 1}

_FINE = 12  # bits of the angles that an encoder compares
_MOST_DENSE = 1 << 33  # bytes
_AT_ONCE = 1 << 20  # frames that are spread at a time, about


class FrameSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a store keeps frame probabilities: the manifest's ``frames``.

    ``hop_ms``: from the start of one frame to the start of the next, in milliseconds; frame t stands for
    [t, t + 1) * hop. ``count``: frames T of a view, the last of which may reach beyond its end. ``bits`` of a
    probability on the angle scale. ``floor``: the probability below which nothing is kept.
    """

    hop_ms: int
    count: int
    bits: int
    floor: float

    @property
    def hop(self) -> float:
        """From the start of one frame to the start of the next, in seconds."""
        return self.hop_ms / 1000

    @property
    def quantizer(self) -> Quantizer:
        """How probabilities become codes, of sigmoid and softmax scores alike."""
        return Quantizer("angle", self.bits)

    def check(self, clip_samples: int, sample_rate: int) -> None:
        """:raises ValueError: no such frames can be stored of views of so many samples."""
        fine = LEAST_HOP_MS <= self.hop_ms <= MOST_HOP_MS and LEAST_BITS <= self.bits <= MOST_BITS
        if not fine or not (math.isfinite(self.floor) and 0 < self.floor < 1):
            raise ValueError(f"frames {self!r} are none that this format has")
        count = frame_count(self.hop_ms, clip_samples, sample_rate)
        if self.count != count or count > MOST_FRAMES:
            raise ValueError(f"frames {self!r} are not the {count} that cover a view, at most {MOST_FRAMES}")


def frame_count(hop_ms: int, clip_samples: int, sample_rate: int) -> int:
    """Frames T that cover a view of so many samples."""
    return -(-1000 * clip_samples // (sample_rate * hop_ms))


def even_centers(count: int, seconds: float) -> F64:
    """The centres of frames that share a stretch of time evenly, float64 (count,)."""
    return np.asarray((np.arange(count) + 0.5) * (seconds / count), dtype=np.float64)


def frame_bounds(count: int, hop_ms: int, seconds: float) -> F64:
    """Where so many frames of a store begin and end, float64 (count + 1,), none beyond the view's seconds."""
    return np.asarray(np.minimum(np.arange(count + 1) * hop_ms / 1000, seconds), dtype=np.float64)


def bounds_around(centers: F64, seconds: float) -> F64:
    """Where frames begin and end that stand for what is nearest to their centres, float64 (T + 1,).

    :param centers: float64 (T,), seconds, not falling. :param seconds: of the view, all of which they share.
    """
    middles = (centers[1:] + centers[:-1]) / 2
    return np.asarray(np.clip(np.concatenate([[0.0], middles, [seconds]]), 0.0, seconds), dtype=np.float64)


def shares(bounds: F64, others: F64) -> F32:
    """How much each of some frames counts in each of others that cut the same time, by how long it lies in it.

    :param bounds: where T frames begin and end, float64 (T + 1,); ``others``, those that count in them, (S + 1,).
    :returns: float32 (T, S), rows that sum to 1; to 0 of a frame that takes no time.
    """
    begun = np.maximum(bounds[:-1, None], others[None, :-1])
    ended = np.minimum(bounds[1:, None], others[None, 1:])
    overlap = np.maximum(ended - begun, 0.0)
    return np.asarray(overlap / np.maximum(overlap.sum(axis=1, keepdims=True), 1e-12), dtype=np.float32)


def common_spec(specs: Sequence[FrameSpec | None]) -> FrameSpec | None:
    """How stores say when that can be asked as one: with one hop, in the most bits, above the highest floor."""
    kept = [spec for spec in specs if spec is not None]
    if len(kept) < len(specs) or len({spec.hop_ms for spec in kept}) > 1:
        return None
    return msgspec.structs.replace(
        kept[0], bits=max(each.bits for each in kept), floor=max(each.floor for each in kept)
    )


@dataclass(frozen=True)
class Runs:
    """The runs of n views, r of them in all, by view, then class, then start.

    ``counts`` int64 (n,): how many each view has. ``classes``, ``starts`` and ``stops``, frames [start, stop), uint16
    (r,); ``codes`` uint8 (r,).
    """

    counts: I64
    classes: U16
    starts: U16
    stops: U16
    codes: U8

    @property
    def nbytes(self) -> int:
        """Bytes that they take in memory."""
        return sum(array.nbytes for array in vars(self).values())

    def take(self, views: I64) -> Runs:
        """The runs of some views, int64 (m,), in any order."""
        ends = np.cumsum(self.counts)
        counts = self.counts[views]
        at = np.repeat(ends[views] - self.counts[views] - (np.cumsum(counts) - counts), counts) + np.arange(
            counts.sum()
        )
        return Runs(counts, self.classes[at], self.starts[at], self.stops[at], self.codes[at])

    @classmethod
    def joined(cls, parts: Sequence[Runs]) -> Runs:
        """Those of some views, one after the other."""
        none = np.zeros(0, np.uint16)
        first = cls(np.zeros(0, np.int64), none, none, none, np.zeros(0, np.uint8))
        every = [first, *parts]
        return cls(
            np.concatenate([each.counts for each in every]),
            np.concatenate([each.classes for each in every]),
            np.concatenate([each.starts for each in every]),
            np.concatenate([each.stops for each in every]),
            np.concatenate([each.codes for each in every]),
        )


@dataclass(frozen=True)
class Frames:
    """What a store says of when, of one view of n clips: r runs, by clip, then class, then start.

    ``clips`` int64 (r,): positions among the n; ``classes`` uint16 (r,); ``starts`` and ``stops`` uint16 (r,), frames
    [start, stop) of ``hop`` seconds; ``probabilities`` float32 (r,), in (0, 1). ``shape`` is (n, T, C).
    """

    clips: I64
    classes: U16
    starts: U16
    stops: U16
    probabilities: F32
    hop: float
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.clips)

    def dense(self) -> F32:
        """Probabilities of every frame and class, float32 (n, T, C); 0 where nothing is kept.

        :raises UsageError: that would take more than 8 GiB.
        """
        if 4 * math.prod(self.shape) > _MOST_DENSE:
            raise UsageError(
                f"the frames of {self.shape[0]:,} views would take {4 * math.prod(self.shape) / 2**30:,.1f} GiB; ask "
                "for fewer clips at a time, or use the runs"
            )
        dense = np.zeros(self.shape, dtype=np.float32)
        lengths = self.stops.astype(np.int64) - self.starts
        parts = np.cumsum(lengths) // _AT_ONCE  # of which part each run is, by its end
        for some in np.split(np.arange(len(lengths)), np.flatnonzero(np.diff(parts)) + 1):
            where, frames = spread(lengths[some])
            where = some[where]
            dense[self.clips[where], self.starts[where] + frames, self.classes[where]] = self.probabilities[where]
        return dense


def frame_bytes(sizes: Mapping[str, int]) -> int:
    """Bytes of what says when among the objects of a store, by their names and sizes."""
    return sum(
        size for name, size in sizes.items() if name.startswith("blocks/") and name.split("/")[2:3] == ["frames"]
    )


def spread(lengths: I64) -> tuple[I64, I64]:
    """For every frame of some runs, int64 (sum of lengths,) each: which run it is of, and its place in it."""
    run = np.repeat(np.arange(len(lengths)), lengths)
    return run, np.arange(len(run)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def decode_frames(runs: Runs, spec: FrameSpec, classes: int) -> Frames:
    """The runs of n views with their probabilities."""
    return Frames(
        np.repeat(np.arange(len(runs.counts)), runs.counts), runs.classes, runs.starts, runs.stops,
        spec.quantizer.table()[runs.codes], spec.hop, (len(runs.counts), spec.count, classes),
    )  # fmt: skip


def joined_frames(parts: Sequence[tuple[I64, Frames]], count: int) -> Frames:
    """The frames of n views, of parts of them: the places of each part's clips among the n, and its frames."""
    frames = [part for _, part in parts]
    clips = np.concatenate([where[part.clips] for where, part in parts])
    order = np.argsort(clips, kind="stable")
    return Frames(
        clips[order],
        np.concatenate([each.classes for each in frames])[order],
        np.concatenate([each.starts for each in frames])[order],
        np.concatenate([each.stops for each in frames])[order],
        np.concatenate([each.probabilities for each in frames])[order],
        frames[0].hop,
        (count, *frames[0].shape[1:]),
    )


def encode_frames(probabilities: Any, spec: FrameSpec) -> Runs:
    """The runs of n views, of their probabilities float32 (n, T, C) in [0, 1].

    A run goes on while its angles, and the next, lie within one step of the scale of each other; its code is that of
    the middle between the smallest and the largest.
    """
    said = np.asarray(probabilities, dtype=np.float32)
    view, label = np.nonzero((said >= np.float32(spec.floor)).any(axis=1))
    tracks = said[view, :, label]  # (m, T)
    kept = tracks >= np.float32(spec.floor)
    angles = np.floor(np.arcsin(np.sqrt(tracks.astype(np.float64))) / (np.pi / 2) * (1 << _FINE)).astype(np.int32)
    step = 1 << (_FINE - spec.bits)
    going = np.zeros(len(tracks), dtype=bool)
    low, high, begun = (np.zeros(len(tracks), dtype=np.int32) for _ in range(3))
    closed = [np.zeros((4, 0), dtype=np.int64)]  # track, start, stop, code of each run
    for frame in range(spec.count + 1):
        here = kept[:, frame] if frame < spec.count else np.zeros_like(going)
        angle = angles[:, min(frame, spec.count - 1)]
        lower, higher = np.minimum(low, angle), np.maximum(high, angle)
        goes_on = going & here & (higher - lower <= step)
        ended = np.flatnonzero(going & ~goes_on)
        if len(ended):
            codes = np.minimum((low[ended] + high[ended]) // 2 // step, (1 << spec.bits) - 1)
            closed.append(np.stack([ended, begun[ended], np.full(len(ended), frame), codes]))
        low, high = np.where(goes_on, lower, angle), np.where(goes_on, higher, angle)
        begun = np.where(goes_on, begun, frame)
        going = here
    found = np.concatenate(closed, axis=1)
    track, start, stop, code = found[:, np.lexsort((found[1], found[0]))]
    alike = (track[1:] == track[:-1]) & (start[1:] == stop[:-1]) & (code[1:] == code[:-1])  # as the run before
    first, last = np.append(True, ~alike)[: len(track)], np.append(~alike, True)[: len(track)]
    track, start, stop, code = track[first], start[first], stop[last], code[first]
    return Runs(
        np.bincount(view[track], minlength=len(said)), label[track].astype(np.uint16), start.astype(np.uint16),
        stop.astype(np.uint16), code.astype(np.uint8),
    )  # fmt: skip


def to_arrays(runs: Runs) -> dict[str, U8]:
    """The arrays of a block, of the runs of its views."""
    view, label = np.repeat(np.arange(len(runs.counts)), runs.counts), runs.classes.astype(np.int64)
    opens = np.append(True, (np.diff(view) != 0) | (np.diff(label) != 0))[: len(label)]  # the first run of its class
    first_of_view = np.append(True, np.diff(view) != 0)[: len(label)]
    tracks = np.flatnonzero(opens)
    before = np.where(first_of_view[tracks], -1, np.append(-1, label[tracks][:-1])[: len(tracks)])
    starts, stops, codes = (values.astype(np.int64) for values in (runs.starts, runs.stops, runs.codes))
    gaps = starts - np.where(opens, 0, np.append(0, stops[:-1])[: len(stops)])
    counts = np.bincount(view[tracks], minlength=len(runs.counts))
    return {
        "frame_tracks": np.stack([counts >> 8 * plane for plane in range(3)]).astype(np.uint8),
        "frame_classes": encode_gaps(label[tracks] - before - 1)[None],
        "frame_runs": encode_gaps(np.diff(np.append(tracks, len(label))) - 1)[None],
        "frame_gaps": encode_gaps(gaps)[None],
        "frame_lengths": encode_gaps(stops - starts - 1)[None],
        "frame_codes": (codes - np.where(opens, 0, np.append(0, codes[:-1])[: len(codes)])).astype(np.uint8)[None],
    }


def from_arrays(spec: FrameSpec, arrays: Mapping[str, U8], views: int, classes: int) -> Runs:
    """The inverse of :func:`to_arrays`: the runs of so many views.

    :raises ValueError: the arrays do not fit each other, or say what no view has: another class, frame or code.
    """
    tracks = arrays["frame_tracks"]
    if tracks.shape[1] != views:
        raise ValueError(f"frame_tracks has {tracks.shape[1]} columns, not {views}")
    counts = sum(plane.astype(np.int64) << 8 * place for place, plane in enumerate(tracks))
    steps, lengths_of = (decode_gaps(arrays[name][0]) for name in ("frame_classes", "frame_runs"))
    if not len(steps) == len(lengths_of) == counts.sum():
        raise ValueError(f"{len(steps)} classes and {len(lengths_of)} counts of runs for {counts.sum()} tracks")
    per_track = lengths_of + 1
    gaps, lengths = (decode_gaps(arrays[name][0]) for name in ("frame_gaps", "frame_lengths"))
    changes = arrays["frame_codes"][0]
    if not len(gaps) == len(lengths) == len(changes) == per_track.sum():
        raise ValueError(f"{len(gaps)} gaps, {len(lengths)} lengths and {len(changes)} codes, not {per_track.sum()}")
    label = _sums(steps + 1, counts) - 1
    stops = _sums(gaps + lengths + 1, per_track)
    starts = stops - lengths - 1
    codes = _sums(changes.astype(np.int64), per_track) & 0xFF
    for name, values, most in (
        ("class", label, classes),
        ("frame", stops, spec.count + 1),
        ("code", codes, 1 << spec.bits),
    ):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < most:
            raise ValueError(f"frames have the {name} {int(values.max())}, and {most} is beyond the last")
    of_view = np.repeat(np.arange(views), counts)
    runs = np.bincount(of_view, weights=per_track, minlength=views).astype(np.int64)
    return Runs(
        runs, np.repeat(label, per_track).astype(np.uint16), starts.astype(np.uint16), stops.astype(np.uint16),
        codes.astype(np.uint8),
    )  # fmt: skip


def _sums(values: I64, lengths: I64) -> I64:
    """Running sums of values within stretches of these lengths, which are at least 1 or stand for none."""
    total = np.cumsum(values)
    ends = np.cumsum(lengths)
    before = np.append(0, total)[ends - lengths]
    sums: I64 = total - np.repeat(before, lengths)
    return sums
