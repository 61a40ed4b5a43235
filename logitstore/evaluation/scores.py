"""What models say of labelled clips, unaugmented: the one place where scores are taken and measured.

:func:`score_rows` asks any models; :class:`Evaluator` measures one while it trains, and keeps its clips in memory from
one time to the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.arrays import F32, I64, Bool
from logitstore.audio.ahead import decoded_ahead
from logitstore.audio.cache import AudioCache
from logitstore.audio.clips import ClipAudio
from logitstore.audio.lengths import clip_samples
from logitstore.errors import AudioError, SourceError
from logitstore.evaluation.labelled import Labelled, label_matrix
from logitstore.evaluation.metrics import measure
from logitstore.notes import doing

if TYPE_CHECKING:
    import torch

    from logitstore.models.tagger import Tagger


def score_rows(
    labelled: Labelled,
    audio: ClipAudio,
    said: Callable[[torch.Tensor], F32],
    shape: tuple[int, int],
    sample_rate: int,
    batch_size: int,
    pool: ThreadPoolExecutor,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[F32, Bool, dict[int, str]]:
    """What models say of every row: the mean over its clips, unaugmented and padded to one length.

    :param said: waveforms float32 (B, S) to scores float32 (M, B, C). :param shape: (M, C).
    :param sample_rate: Hz of the waveforms. :param progress: told (clips done, clips).
    :returns: float32 (M, rows, C); bool (rows,), which rows were heard, the others being zero; and why clips failed.
    :raises SourceError: none of the clips can be decoded.
    """
    from logitstore.views.render import pad

    samples = max(1, clip_samples(labelled.clip_seconds, sample_rate))
    scores = np.zeros((shape[0], len(audio), shape[1]), dtype=np.float32)
    failures: dict[int, str] = {}
    for done, clips, waveforms in decoded(audio, batch_size, pool, failures):
        if len(clips):
            scores[:, clips] = said(pad(waveforms, samples)[0])
        (progress or partial(doing, "scoring labelled clips"))(done, len(audio))
    heard = np.ones(len(audio), dtype=np.bool_)
    heard[list(failures)] = False
    if failures and not heard.any():
        clip = min(failures)
        raise SourceError(
            f"none of {len(audio)} clips can be decoded, the first ({audio.place(clip)}): {failures[clip]}"
        )
    return *labelled.by_row(scores, heard), failures


class Evaluator:
    """Metrics of a model on labelled clips.

    :param classes: of the model; labels are matched to them. :param whose: what they are of, for messages.
    :param sample_rate: Hz that clips are decoded at. :param heard_at: Hz that the model takes.
    :param cache_bytes: decoded audio to keep in memory. :param disk: keeps what is dear to decode.
    :param official: what else is to be measured, of the file names of the rows that were heard and their scores.
    :raises TeacherError: a label that is none of the classes.
    """

    def __init__(
        self,
        labelled: Labelled,
        classes: tuple[str, ...],
        *,
        whose: str,
        sample_rate: int,
        heard_at: int,
        batch_size: int,
        pool: ThreadPoolExecutor,
        cache_bytes: int,
        official: Callable[[list[str], F32], dict[str, Any]] | None = None,
        disk: AudioCache | None = None,
    ) -> None:
        self.labelled, self.official = labelled, official
        self.labels = label_matrix(labelled.labels, classes, whose=whose, source=labelled.manifest)
        self.audio = ClipAudio(labelled.source, labelled.table, sample_rate, cache_bytes, disk)
        self.sample_rate, self.heard_at = sample_rate, heard_at
        self.batch_size, self.pool = batch_size, pool

    def __call__(self, model: Tagger) -> dict[str, Any]:
        """``mAP``, ``micro_auprc``, and how many rows and classes they are over.

        :raises SourceError: none of the clips can be decoded, or none has a label.
        """
        import torch

        from logitstore.models.tagger import probabilities
        from logitstore.views.render import resample

        device = next(model.parameters()).device

        @torch.inference_mode()
        def said(waveforms: torch.Tensor) -> F32:
            heard = resample(waveforms, self.sample_rate, self.heard_at).to(device)
            scores: F32 = probabilities(model(heard), model.scores)[None].cpu().numpy()
            return scores

        shape = (1, self.labels.shape[1])
        rows, there, failures = score_rows(
            self.labelled, self.audio, said, shape, self.sample_rate, self.batch_size, self.pool
        )
        metrics = measure(self.labels[there], rows[0][there])
        return {
            "mAP": metrics.mAP,
            "micro_auprc": metrics.micro_auprc,
            "eval_rows": metrics.rows,
            "eval_classes": metrics.classes,
            "eval_classes_left_out": metrics.left_out,
            "eval_clips_failed": len(failures),
            **({} if self.official is None else self.official(self.labelled.files(there), rows[0][there])),
        }


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
