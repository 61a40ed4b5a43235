"""What a store keeps of when: for every view the ensemble's probabilities frame by frame. Pure NumPy."""

from __future__ import annotations

import math

import msgspec

MOST_FRAMES = 1 << 16
LEAST_HOP_MS, MOST_HOP_MS = 10, 60_000
LEAST_BITS, MOST_BITS = 3, 8


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
