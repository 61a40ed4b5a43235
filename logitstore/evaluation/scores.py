"""What models say of labelled clips, unaugmented: the scores that every measure is taken of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from logitstore.arrays import F32, I64
from logitstore.audio.ahead import decoded_ahead
from logitstore.audio.clips import ClipAudio
from logitstore.audio.lengths import clip_samples
from logitstore.errors import AudioError
from logitstore.evaluation.labelled import Labelled


def score_clips(
    labelled: Labelled,
    audio: ClipAudio,
    said: Callable[[Any], F32],
    shape: tuple[int, int],
    sample_rate: int,
    batch_size: int,
    pool: ThreadPoolExecutor,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[F32, dict[int, str]]:
    """What models say of every clip, unaugmented and padded to one length.

    :param said: waveforms, a float32 tensor (B, S), to scores float32 (M, B, C). :param shape: (M, C).
    :returns: float32 (M, n, C), zero for clips that failed, and the reasons of those.
    """
    from logitstore.views.render import pad

    samples = max(1, clip_samples(labelled.clip_seconds, sample_rate))
    scores = np.zeros((shape[0], len(audio), shape[1]), dtype=np.float32)
    failures: dict[int, str] = {}
    for done, clips, waveforms in decoded(audio, batch_size, pool, failures):
        if len(clips):
            scores[:, clips] = said(pad(waveforms, samples)[0])
        if progress is not None:
            progress(done, len(audio))
    return scores, failures


def decoded(
    audio: ClipAudio, batch_size: int, pool: ThreadPoolExecutor, failures: dict[int, str]
) -> Iterator[tuple[int, I64, list[F32]]]:
    """Batches of clips in order, the next one decoded while one is used: how far it is, the clips, their waveforms."""
    ahead = decoded_ahead(audio, range(len(audio)), pool, batch_size)
    for start in range(0, len(audio), batch_size):
        stop = min(start + batch_size, len(audio))
        clips, waveforms = [], []
        for clip, result in itertools.islice(ahead, stop - start):
            if isinstance(result, AudioError):
                failures[clip] = str(result)
            else:
                clips.append(clip)
                waveforms.append(result)
        yield stop, np.array(clips, dtype=np.int64), waveforms
