"""Views as batches: clips decoded, replayed and put together with what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from logitstore.arrays import F32, I64, Bool
from logitstore.audio.clips import ClipAudio
from logitstore.errors import AudioError, MismatchError
from logitstore.views.recipe import Draws, Masks, Recipe, masks
from logitstore.views.render import pad, replay, resample


@dataclass(frozen=True)
class Views:
    """n views to learn from.

    ``clips`` int64 (n,), rows of the clip table; ``draws`` their n draws; ``partners`` int64 (n,), the clip that each
    is mixed with and -1 for none, or None under a recipe without mixup. The others give arrays for positions int64 (B,)
    in [0, n): ``targets`` float32 (B, C); ``relations`` the frame grams float32 (B, T, T) and the clip vectors float32
    (B, N), each perhaps None; ``labels`` float32 (B, C) and bool (B,), which of the clips have any.
    """

    clips: I64
    draws: Draws
    partners: I64 | None
    targets: Callable[[I64], F32]
    relations: Callable[[I64], tuple[F32 | None, F32 | None]] | None = None
    labels: Callable[[I64], tuple[F32, Bool]] | None = None

    def __len__(self) -> int:
        return len(self.clips)


@dataclass(frozen=True)
class Batch:
    """B views: ``waveforms`` float32 (B, S), ``masks`` of torch tensors or None, ``targets`` float32 (B, C), ``clips``
    int64 (B,).

    Where they were asked for: ``frame_grams`` float32 (B, T, T) and ``clip_vectors`` float32 (B, N), the teachers'
    relations; ``labels`` float32 (B, C), and ``labelled`` bool (B,), which clips have labels at all.
    """

    waveforms: torch.Tensor
    masks: Masks | None
    targets: torch.Tensor
    clips: I64
    frame_grams: torch.Tensor | None = None
    clip_vectors: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    labelled: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        if device.type == "cpu":
            return self
        spans = None if self.masks is None else self.masks.to(device)
        return self._with(spans, lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU can copy from by itself."""
        return self._with(self.masks, torch.Tensor.pin_memory)

    def part(self, positions: I64) -> Batch:
        """The views at some positions of the batch, which is on the CPU."""
        spans = None if self.masks is None else self.masks[positions]
        rows = torch.from_numpy(positions)
        return replace(self._with(spans, lambda tensor: tensor[rows]), clips=self.clips[positions])

    def _with(self, spans: Masks | None, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        found: dict[str, Any] = {
            name: change(tensor) for name, tensor in vars(self).items() if isinstance(tensor, torch.Tensor)
        }
        return replace(self, masks=spans, **found)


class Replayer:
    """Makes batches of views: decode, pad, replay, resample to the rate of the model that listens.

    :param audio: the clips, at the rate of the draws. :param names: the path of a clip, for messages.
    :param recipe: what the draws are of. :param clip_samples: samples of a view at the rate of the draws.
    :param sample_rate: Hz of the draws. :param heard_at: Hz of the waveforms given; the same by default.
    :param strict: whether a clip that cannot be decoded is an error; otherwise its views are left out of their batches
        and the reason is kept in ``failures``, by clip.
    :param pool: decodes the clips of a batch side by side; one after the other without one.
    """

    def __init__(
        self,
        audio: ClipAudio,
        names: Callable[[int], str],
        recipe: Recipe,
        clip_samples: int,
        sample_rate: int,
        *,
        heard_at: int | None = None,
        strict: bool = True,
        pool: Executor | None = None,
    ) -> None:
        self.audio = audio
        self.names = names
        self.recipe = recipe
        self.clip_samples = clip_samples
        self.sample_rate = sample_rate
        self.heard_at = sample_rate if heard_at is None else heard_at
        self.strict = strict
        self.pool = pool
        self.failures: dict[int, str] = {}

    def batch(self, views: Views, positions: I64) -> Batch:
        """The views at some positions; without ``strict``, fewer where clips cannot be decoded.

        :raises MismatchError: with ``strict``, a clip that cannot be decoded, by name.
        """
        wanted = views.clips[positions]
        partners = np.full(len(positions), -1) if views.partners is None else views.partners[positions]
        heard = self._decode(np.unique(np.concatenate([wanted, partners[partners >= 0]])))
        kept = np.array([clip in heard and (other < 0 or other in heard) for clip, other in _pairs(wanted, partners)])
        positions, wanted, partners = (part[kept.astype(bool)] for part in (positions, wanted, partners))
        draws = views.draws[positions]
        padded, lengths = pad([heard[int(clip)] for clip in wanted], self.clip_samples)
        others = None if views.partners is None else [heard.get(int(other)) for other in partners]
        waveforms = replay(padded, lengths, self.recipe, draws, partners=others)
        spans = masks(self.recipe, draws)
        grams, vectors = (None, None) if views.relations is None else views.relations(positions)
        labels, labelled = (None, None) if views.labels is None else views.labels(positions)
        return Batch(
            resample(waveforms, self.sample_rate, self.heard_at),
            None if spans is None else spans.to("cpu"),
            torch.from_numpy(views.targets(positions)),
            wanted,
            *(None if values is None else torch.from_numpy(values) for values in (grams, vectors, labels, labelled)),
        )

    def _decode(self, clips: I64) -> dict[int, F32]:
        rows = clips.tolist()
        results = map(self._attempt, rows) if self.pool is None else self.pool.map(self._attempt, rows)
        heard: dict[int, F32] = {}
        for row, result in zip(rows, results, strict=True):
            if not isinstance(result, AudioError):
                heard[row] = result
            elif self.strict:
                raise MismatchError(
                    f"clip {row} ({self.names(row)}) is not what the teachers heard: {result}; give the audio root "
                    "that the store was built from, or leave the clip out with --where"
                )
            else:
                self.failures[row] = str(result)
        return heard

    def _attempt(self, row: int) -> F32 | AudioError:
        try:
            return self.audio[row]
        except AudioError as error:
            return error


def _pairs(clips: I64, partners: I64) -> Iterator[tuple[int, int]]:
    return zip(clips.tolist(), partners.tolist(), strict=True)
