"""What a teacher states of itself, known before it hears anything: shown to people, kept in the manifest, held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from logitstore.store.format.manifest import LICENCE, NON_COMMERCIAL, NOT_COVERED, ORIGIN, POOLING, WINDOW

#: How window or frame outputs become one answer.
POOLINGS = ("mean", "max")


@dataclass(frozen=True, kw_only=True)
class Window:
    """The length that a model takes, where it takes no other: longer sound is heard window by window.

    :param samples: length, at the teacher's rate. :param hop: samples from start to start.
    :param pooling: "mean" or "max" of what is said of a view's windows.
    :param least: a last window with fewer samples of the view in it is left out, a first one never; other ends are
        filled up with zeros.
    """

    samples: int
    hop: int
    pooling: str = "mean"
    least: int = 1

    def starts(self, samples: int) -> list[int]:
        """Where the windows of a view of so many samples start: one at least, and as many as are needed to its end."""
        starts = [0]
        while starts[-1] + self.samples < samples and samples - (starts[-1] + self.hop) >= self.least:
            starts.append(starts[-1] + self.hop)
        return starts


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a teacher is, takes and gives.

    Attributes:
        name: kind and architecture, free of paths. classes: names, in the order of its outputs.
        mids: AudioSet's machine ids of the classes, None for one that has none; None where the names say it.
        scores: "sigmoid" or "softmax". output: what the model itself gives: "probabilities", or "logits", which are
            made probabilities here.
        sample_rate: Hz of the waveforms that it takes.
        takes_masks: whether what it hears can be masked in time and frequency, beside the waveform.
        front_end: its parameters, as plain JSON values. fill: stage and value of a masked cell; or words.
        window: of a model with a length of its own. pooling: "mean" or "max" over time, of a model that answers frame
            by frame.
        max_seconds: the longest view that it hears whole; None for any. trained_seconds: length of the clips that it
            learnt from; None where that is not known.
        has_features: whether it gives activations over time, which relations need.
        has_frames: whether it says when, by frame probabilities, which frame targets need.
        licence: SPDX name, or words; non_commercial: whether it forbids commercial use. origin: where it is from.
        digest: BLAKE2b-128, hex, of the weights and whatever else decides what it says. not_covered: what that cannot
            tell apart, in words.
        arguments: what else decides what it says, under keys of its own, as plain JSON values.
    """

    name: str
    classes: tuple[str, ...]
    scores: str
    sample_rate: int
    digest: str
    mids: tuple[str | None, ...] | None = None
    output: str = "probabilities"
    takes_masks: bool = False
    front_end: Mapping[str, Any] | None = None
    fill: Mapping[str, Any] | str | None = None
    window: Window | None = None
    pooling: str | None = None
    max_seconds: float | None = None
    trained_seconds: float | None = None
    has_features: bool = False
    has_frames: bool = False
    licence: str | None = None
    non_commercial: bool = False
    origin: str | None = None
    not_covered: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def stored(self) -> dict[str, Any]:
        """What a manifest keeps of it beside name, digest, scores and rate, as plain JSON values."""
        said: dict[str, Any] = {
            "front_end": None if self.front_end is None else dict(self.front_end),
            "fill": self.fill if self.fill is None or isinstance(self.fill, str) else dict(self.fill),
            WINDOW: None if self.window is None else asdict(self.window),
            POOLING: self.pooling,
            LICENCE: self.licence,
            NON_COMMERCIAL: self.non_commercial or None,
            ORIGIN: self.origin,
            NOT_COVERED: list(self.not_covered) or None,
        }
        return {key: value for key, value in said.items() if value is not None} | dict(self.arguments)
