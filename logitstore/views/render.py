"""Render: a clip and a draw give the view that teachers and students hear, its waveform and what of it is masked.

A pure function of its arguments, batched. The other views of a batch cannot change a result, for every op works on each
clip alone. Spectrogram ops are not applied here: each front end applies the :class:`~logitstore.views.recipe.Masks`.
:func:`render` is that function, of clips that are decoded; :class:`Renderer` decodes them first, and their partners.
"""

from __future__ import annotations

import time
import weakref
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from logitstore.arrays import F32, I64, Bool
from logitstore.audio.ahead import DECODE, decoded_ahead
from logitstore.audio.clips import ClipAudio, put
from logitstore.audio.decode import resample_clip
from logitstore.errors import AudioError
from logitstore.stages import Stages
from logitstore.views.ops import Op, Place, WaveformOp
from logitstore.views.recipe import Draws, Masks, Recipe, masks

if TYPE_CHECKING:
    import torch

RENDER = "render"  # a stage
_TASK = 4  # clips that a thread of a pool puts into their rows at a time
_MOST_KEPT = 8  # buffers of batches


def pad(clips: Sequence[F32], clip_samples: int) -> tuple[torch.Tensor, I64]:
    """Clips of any lengths as one batch: float32 (B, clip_samples), zeros at the end, and their int64 (B,) lengths."""
    import torch

    batch = np.empty((len(clips), clip_samples), dtype=np.float32)
    lengths = [put(clip, row) for row, clip in zip(batch, clips, strict=True)]
    return torch.from_numpy(batch), np.array(lengths, dtype=np.int64)


def render(
    clips: Sequence[F32],
    draws: Draws,
    recipe: Recipe,
    clip_samples: int,
    *,
    sample_rate: int,
    partners: Sequence[F32 | None] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[torch.Tensor, Masks | None]:
    """The waveforms of B views, and what of them is masked.

    :param clips: B decoded clips at the store's rate, float32 (n,); the ops act on these samples alone.
    :param draws: of B views.
    :param recipe: its waveform ops act in their order.
    :param clip_samples: length of a view in samples.
    :param partners: for a recipe with mixup, the decoded partner of every view, or None where it has none.
    :param device: where the waveforms go.
    :param sample_rate: of the clips and the views, in Hz.
    :returns: float32 (B, clip_samples), zero after each clip's own length, and masks of NumPy arrays (B,), or None
        under a recipe without spectrogram ops.
    """
    waveforms, lengths = pad(clips, clip_samples)
    _augment(waveforms.numpy(), lengths, recipe.ops, draws, partners, sample_rate)
    return waveforms.to(device), masks(recipe, draws)


def _augment(
    waveforms: F32,
    lengths: I64,
    ops: Sequence[Op],
    draws: Draws,
    partners: Sequence[F32 | None] | None,
    sample_rate: int,
) -> None:
    for op in ops:
        if isinstance(op, WaveformOp):
            op.apply(waveforms, lengths, draws.columns, partners, sample_rate)


@dataclass(frozen=True)
class Rendered:
    """B views of clips that were decoded for them.

    ``waveforms`` float32 (B, S) and ``masks`` as :func:`render` gives them; ``draws`` as they were rendered. A view
    that could not be rendered is silence: ``failures`` has the clip that is to blame by the view's position in [0, B),
    its own or its partner, and ``errors`` why each such clip cannot be decoded, by the clip's number and rising.
    """

    waveforms: torch.Tensor
    masks: Masks | None
    draws: Draws
    failures: dict[int, int]
    errors: dict[int, AudioError]

    @property
    def readable(self) -> Bool:
        """Which views were rendered, bool (B,)."""
        readable = np.ones(len(self.waveforms), dtype=bool)
        readable[list(self.failures)] = False
        return readable


class Renderer:
    """Renders views from the clips that they are of.

    :param audio: the clips, at the rate of ``place``.
    :param recipe: what the draws are of.
    :param place: length and rate of a view.
    :param pool: decodes clips side by side; one after the other without one.
    :param mix_without: what becomes of a view whose partner cannot be decoded. True where draws are made: it is
        rendered without, and its draws say so. False where draws are given: the view cannot be rendered.
    :param stages: told what decoding and rendering take, as ``decode`` and ``render``.
    """

    def __init__(
        self,
        audio: ClipAudio,
        recipe: Recipe,
        place: Place,
        *,
        pool: Executor | None = None,
        mix_without: bool = False,
        stages: Stages | None = None,
    ) -> None:
        self.audio = audio
        self.recipe = recipe
        self.place = place
        self.pool = pool
        self.mix_without = mix_without
        self.stages = Stages() if stages is None else stages
        self._buffers = _Buffers()

    def view(self, clip: int, draws: Draws, partner: int = -1) -> tuple[torch.Tensor, Masks | None]:
        """One view: its waveform, float32 (S,), and its masks, of one row.

        :param draws: of this one view. :param partner: the clip that it is mixed with, -1 for none.
        :raises AudioError: the clip or its partner cannot be decoded.
        """
        rendered = self.batch(np.array([clip]), draws, np.array([partner]))
        for error in rendered.errors.values():
            raise error
        return rendered.waveforms[0], rendered.masks

    def batch(
        self, clips: I64, draws: Draws, partners: I64 | None = None, known: dict[int, F32 | AudioError] | None = None
    ) -> Rendered:
        """B views of any clips.

        :param clips: int64 (B,). :param draws: of the B views.
        :param partners: int64 (B,), the clip that each is mixed with, -1 for none; None where none is.
        :param known: clips that are decoded already.
        """
        import torch

        others = np.full(len(clips), -1) if partners is None else partners
        heard = dict(known or {})
        counts = Counter(clips.tolist())
        often = {clip for clip, count in counts.items() if count > 1} | set(others[others >= 0].tolist())
        missing = sorted(often - heard.keys())
        heard |= decoded_ahead(self.audio, missing, self.pool, len(missing), self.stages)
        turns, ops = self._turns(draws, len(clips))
        waveforms, lengths, broken = self._placed(clips, turns, heard)
        errors = broken | {clip: sound for clip, sound in heard.items() if isinstance(sound, AudioError)}
        sounds = {clip: sound for clip, sound in heard.items() if not isinstance(sound, AudioError)}
        mixed = [None if other < 0 else sounds.get(other) for other in others.tolist()]
        failures: dict[int, int] = {}
        if errors:
            for position, (clip, other) in enumerate(zip(clips.tolist(), others.tolist(), strict=True)):
                if clip in errors:
                    failures[position] = clip
                elif other in errors and not self.mix_without:
                    failures[position] = other
            alone = [partner is None or position in failures for position, partner in enumerate(mixed)]
            draws = self.recipe.without_partner(draws, np.array(alone, dtype=bool))
            lengths[list(failures)] = 0
            waveforms[list(failures)] = 0
        with self.stages.of(RENDER):
            _augment(waveforms, lengths, ops, draws, mixed, self.place.sample_rate)
            hidden = masks(self.recipe, draws)
        blamed = {clip: errors[clip] for clip in sorted(set(failures.values()))}
        return Rendered(torch.from_numpy(waveforms), hidden, draws, failures, blamed)

    def _turns(self, draws: Draws, count: int) -> tuple[list[int], Sequence[Op]]:
        """By how many samples to turn each clip as it is put into its row, and the ops that are left to do then."""
        ops = self.recipe.ops
        turns = ops[0].turns(draws.columns) if ops and isinstance(ops[0], WaveformOp) else None
        return ([0] * count, ops) if turns is None else (turns.tolist(), ops[1:])

    def _placed(
        self, clips: I64, turns: Sequence[int], heard: Mapping[int, F32 | AudioError]
    ) -> tuple[F32, I64, dict[int, AudioError]]:
        """The clips in a batch, float32 (B, S), their lengths, int64 (B,), and why some are not there.

        What is not among the clips that are decoded already is written where it belongs.
        """
        rows = self._buffers.take(len(clips), self.place.clip_samples)
        lengths = np.zeros(len(clips), dtype=np.int64)
        broken: dict[int, AudioError] = {}

        def write(positions: Sequence[int]) -> None:
            began, busy = time.perf_counter(), time.thread_time()
            written = any(numbers[position] not in heard for position in positions)
            for position in positions:
                clip, row, turn = numbers[position], rows[position], turns[position]
                sound = heard.get(clip)
                if isinstance(sound, AudioError):
                    row[:] = 0
                elif sound is not None:
                    lengths[position] = put(sound, row, turn)
                else:
                    try:
                        lengths[position] = self.audio.write(clip, row, turn)
                    except AudioError as error:
                        row[:] = 0
                        broken[clip] = error
            stage = DECODE if written else RENDER
            self.stages.add(stage, time.perf_counter() - began, time.thread_time() - busy)

        numbers = clips.tolist()
        parts = [range(start, min(start + _TASK, len(numbers))) for start in range(0, len(numbers), _TASK)]
        for _ in map(write, parts) if self.pool is None else self.pool.map(write, parts):
            pass
        return rows, lengths, broken

    def batches(
        self, clips: I64, draws: Draws, partners: I64 | None, size: int, ahead: int
    ) -> Generator[Rendered, None, None]:
        """Views in order, ``size`` at a time; each clip is decoded once, ahead of its use.

        :param clips: int64 (n,); the views of a clip follow each other. :param draws: of the n views.
        :param partners: as in :meth:`batch`. :param ahead: how many clips to decode before they are used, at most.
        """
        order = clips[np.flatnonzero(np.diff(clips, prepend=-1))].tolist()
        with closing(decoded_ahead(self.audio, order, self.pool, ahead, self.stages)) as decoding:
            held: dict[int, F32 | AudioError] = {}
            for start in range(0, len(clips), size):
                here = slice(start, start + size)
                now = dict.fromkeys(clips[here].tolist())
                held = {clip: held[clip] if clip in held else next(decoding)[1] for clip in now}
                yield self.batch(clips[here], draws[here], None if partners is None else partners[here], held)


class _Buffers:
    """Memory of batches that is used again once nobody has any part of them: fresh memory costs more than reading PCM.

    Safe to share between threads.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[F32, weakref.ref[F32]]] = []
        self._lock = Lock()

    def take(self, count: int, samples: int) -> F32:
        """Float32 (count, samples), of any values; a tensor made of it keeps it, as all that is made of that does."""
        size = count * samples
        with self._lock:
            free = [number for number, (_, used) in enumerate(self._kept) if used() is None]
            fitting = [number for number in free if size <= len(self._kept[number][0])]
            if fitting:
                memory = self._kept.pop(min(fitting, key=lambda number: len(self._kept[number][0])))[0]
            else:
                for number in free[:1]:  # too small, and what grows goes on growing
                    del self._kept[number]
                memory = np.empty(size, np.float32)
            taken: F32 = memory[:size].reshape(count, samples)
            if len(self._kept) < _MOST_KEPT:
                self._kept.append((memory, weakref.ref(taken)))
            return taken


def resample(waveforms: torch.Tensor, rate: int, new_rate: int) -> torch.Tensor:
    """A batch at ``new_rate`` (Hz), one clip after the other on the CPU.

    :param waveforms: float32 (B, S) at ``rate`` (Hz), on any device.
    :returns: float32 (B, S') on the same device; the same tensor where the rates are equal.
    """
    import torch

    if rate == new_rate:
        return waveforms
    clips = waveforms.detach().to("cpu", torch.float32).numpy()
    return torch.from_numpy(np.stack([resample_clip(clip, rate, new_rate) for clip in clips])).to(waveforms.device)
