"""Views as batches: clips decoded, replayed and put together with what is known of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from logitstore.arrays import F32, I64, Bool
from logitstore.audio.clips import ClipAudio
from logitstore.errors import AudioError, MismatchError
from logitstore.views.ops import Place
from logitstore.views.recipe import Draws, Masks, Recipe
from logitstore.views.render import Renderer, resample

Known = TypeVar("Known", covariant=True)


class ByPosition(Protocol[Known]):
    """What is known of n views: an array of n, or what gives the part of such an array."""

    def __getitem__(self, positions: I64) -> Known:
        """Of the views at some positions, int64 (B,) in [0, n)."""


@dataclass(frozen=True)
class Views:
    """n views to learn from.

    ``clips`` int64 (n,), their numbers; ``draws`` their n draws; ``partners`` int64 (n,), the clip that each
    is mixed with and -1 for none, or None under a recipe without mixup. The others give arrays for positions int64 (B,)
    in [0, n): ``targets`` float32 (B, C); ``relations`` the frame grams float32 (B, T, T) and the clip vectors float32
    (B, N), each perhaps None; ``labels`` float32 (B, C) and bool (B,), which of the clips have any; ``frame_targets``
    float32 (B, T, C), probabilities over the time of the view.
    """

    clips: I64
    draws: ByPosition[Draws]
    partners: ByPosition[I64] | None
    targets: Callable[[I64], F32]
    relations: Callable[[I64], tuple[F32 | None, F32 | None]] | None = None
    labels: Callable[[I64], tuple[F32, Bool]] | None = None
    frame_targets: Callable[[I64], F32] | None = None

    def __len__(self) -> int:
        return len(self.clips)


@dataclass(frozen=True)
class Batch:
    """B views: ``waveforms`` float32 (B, S), ``masks`` of torch tensors or None, ``targets`` float32 (B, C), ``clips``
    int64 (B,).

    Where they were asked for: ``frame_grams`` float32 (B, T, T) and ``clip_vectors`` float32 (B, N), the teachers'
    relations; ``labels`` float32 (B, C), and ``labelled`` bool (B,), which clips have labels at all;
    ``frame_targets`` float32 (B, T, C), what the teachers said of every frame of the view.
    """

    waveforms: torch.Tensor
    masks: Masks | None
    targets: torch.Tensor
    clips: I64
    frame_grams: torch.Tensor | None = None
    clip_vectors: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    labelled: torch.Tensor | None = None
    frame_targets: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        if device.type == "cpu":
            return self
        masks = None if self.masks is None else self.masks.to(device)
        return self._with(masks, lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU can copy from by itself."""
        return self._with(self.masks, torch.Tensor.pin_memory)

    def part(self, positions: I64) -> Batch:
        """The views at some positions of the batch, which is on the CPU."""
        masks = None if self.masks is None else self.masks[positions]
        chosen = torch.from_numpy(positions)
        return replace(self._with(masks, lambda tensor: tensor[chosen]), clips=self.clips[positions])

    def _with(self, masks: Masks | None, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        changed: dict[str, Any] = {
            name: change(tensor) for name, tensor in vars(self).items() if isinstance(tensor, torch.Tensor)
        }
        return replace(self, masks=masks, **changed)


class Replayer:
    """Makes batches of views: renders them, at the rate of the model that listens, beside what is known of them.

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
        self.heard_at = sample_rate if heard_at is None else heard_at
        self.strict = strict
        self.failures: dict[int, str] = {}
        self._renderer = Renderer(audio, recipe, Place(clip_samples, sample_rate), pool=pool)

    def batch(self, views: Views, positions: I64) -> Batch:
        """The views at some positions; without ``strict``, fewer where clips cannot be decoded.

        :raises MismatchError: with ``strict``, a clip that cannot be decoded, by name.
        """
        clips = views.clips[positions]
        partners = None if views.partners is None else views.partners[positions]
        rendered = self._renderer.batch(clips, views.draws[positions], partners)
        waveforms, masks = rendered.waveforms, rendered.masks
        if rendered.failures:
            self._note(rendered.errors)
            kept = np.flatnonzero(rendered.readable)
            positions, clips, waveforms = positions[kept], clips[kept], waveforms[torch.from_numpy(kept)]
            masks = None if masks is None else masks[kept]
        grams, vectors = (None, None) if views.relations is None else views.relations(positions)
        labels, labelled = (None, None) if views.labels is None else views.labels(positions)
        by_frame = None if views.frame_targets is None else views.frame_targets(positions)
        known = (grams, vectors, labels, labelled, by_frame)
        return Batch(
            resample(waveforms, self._renderer.place.sample_rate, self.heard_at),
            None if masks is None else masks.to("cpu"),
            torch.from_numpy(views.targets(positions)),
            clips,
            *(None if values is None else torch.from_numpy(values) for values in known),
        )

    def _note(self, errors: dict[int, AudioError]) -> None:
        for clip, error in errors.items():
            if self.strict:
                raise MismatchError(
                    f"clip {clip} ({self.names(clip)}) is not what the teachers heard: {error}; give the audio root "
                    "that the store was built from, or leave the clip out with --where"
                )
            self.failures[clip] = str(error)
