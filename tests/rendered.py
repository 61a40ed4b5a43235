"""Views of a store, rendered from its audio, for tests that compare them with what the store says."""

from __future__ import annotations

import numpy as np
import torch

from logitstore.audio.clips import ClipAudio
from logitstore.store.reader import Store
from logitstore.views.fingerprint import compare
from logitstore.views.recipe import Masks
from logitstore.views.render import Renderer


def rendered_view(store: Store, audio: ClipAudio, clip: int, view: int) -> tuple[torch.Tensor, Masks | None]:
    """The waveform, float32 (S,), and masks of one stored view."""
    draws = store.draws(view, [clip])
    partners = store.partners(np.array([clip]), draws)
    return renderer(store, audio).view(clip, draws, -1 if partners is None else int(partners[0]))


def compared(store: Store, audio: ClipAudio, count: int) -> tuple[int, list[str]]:
    """How many of the fingerprinted views were rendered again, and a line for each that is another sound."""
    recorded = store.fingerprinted(count)
    return len(recorded), compare(renderer(store, audio), recorded)


def renderer(store: Store, audio: ClipAudio) -> Renderer:
    """A renderer of a store's views."""
    return Renderer(audio, store.manifest.recipe, store.manifest.place)
