"""Replaying a store's views from its audio, and comparing them with what was heard when it was built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from logitstore.errors import AudioError
from logitstore.views.fingerprint import difference, fingerprint
from logitstore.views.recipe import Masks, masks
from logitstore.views.render import pad, replay

if TYPE_CHECKING:
    import torch

    from logitstore.audio.clips import ClipAudio
    from logitstore.store.reader import Store


def replay_view(store: Store, audio: ClipAudio, clip: int, view: int) -> tuple[torch.Tensor, Masks | None]:
    """The waveform, float32 (S,), and masks of one stored view, from its clip and its stored draw.

    :raises AudioError: the clip, or the partner it is mixed with, cannot be decoded.
    """
    recipe, place = store.manifest.recipe, store.manifest.place
    draws = store.draws(view, [clip])
    partners = None
    if recipe.has_mixup and int(draws.columns["mixup_weight"][0]):
        partners = [audio[store.partner_clip(clip, int(draws.columns["mixup_partner"][0]))]]
    batch, lengths = pad([audio[clip]], place.clip_samples)
    return replay(batch, lengths, recipe, draws, partners=partners)[0], masks(recipe, draws)


def check(store: Store, audio: ClipAudio, count: int) -> tuple[int, list[str]]:
    """Replay up to ``count`` of the fingerprinted views, spread over the store, and compare.

    :returns: how many were compared, and one line for each that is not the sound that the teachers heard.
    """
    known = [(commit, mark) for commit in store.commits for mark in commit.fingerprints]
    chosen = [known[i] for i in np.unique(np.linspace(0, len(known) - 1, min(count, len(known))).astype(int))]
    problems = []
    for commit, mark in chosen:
        clip = commit.first_clip + mark.row
        path = store.clips["path"][clip].as_py()
        try:
            waveform, spans = replay_view(store, audio, clip, mark.view)
        except AudioError as error:
            problems.append(f"clip {clip} ({path}): {error}")
            continue
        different = difference(mark, fingerprint(mark.row, mark.view, waveform, spans, store.manifest.sample_rate))
        if different:
            problems.append(f"clip {clip} ({path}), view {mark.view}: {different}")
    return len(chosen), problems
