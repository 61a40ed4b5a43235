"""Measuring a model while it trains: labelled clips, unaugmented, kept in memory from one time to the next."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from logitstore.audio.clips import ClipAudio
from logitstore.errors import SourceError
from logitstore.evaluation.labelled import Labelled, label_matrix
from logitstore.evaluation.metrics import measure
from logitstore.evaluation.scores import score_clips
from logitstore.models.tagger import Tagger, probabilities
from logitstore.views.render import resample


class Evaluator:
    """Metrics of a model on labelled clips.

    :param classes: of the model; labels are matched to them. :param whose: what they are of, for messages.
    :param sample_rate: Hz that clips are decoded at. :param heard_at: Hz that the model takes.
    :param cache_bytes: decoded audio to keep.
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
    ) -> None:
        self.labelled = labelled
        self.labels = label_matrix(labelled.labels, classes, whose=whose, source=labelled.manifest)
        self.audio = ClipAudio(labelled.source, labelled.table, sample_rate, cache_bytes)
        self.sample_rate, self.heard_at = sample_rate, heard_at
        self.batch_size, self.pool = batch_size, pool

    def __call__(self, model: Tagger) -> dict[str, Any]:
        """``mAP``, ``micro_auprc``, and how many rows and classes they are over.

        :raises SourceError: none of the clips can be decoded, or none has a label.
        """
        device = next(model.parameters()).device

        @torch.inference_mode()
        def said(waveforms: torch.Tensor) -> np.ndarray:
            heard = resample(waveforms, self.sample_rate, self.heard_at).to(device)
            return probabilities(model(heard), model.scores)[None].cpu().numpy()

        shape = (1, self.labels.shape[1])
        scores, failures = score_clips(
            self.labelled, self.audio, said, shape, self.sample_rate, self.batch_size, self.pool
        )  # fmt: skip
        heard = np.ones(len(self.audio), dtype=bool)
        heard[list(failures)] = False
        if failures and not heard.any():
            clip = min(failures)
            raise SourceError(f"no clip to evaluate can be decoded; {self.labelled.name(clip)}: {failures[clip]}")
        rows, there = self.labelled.by_row(scores, heard)
        metrics = measure(self.labels[there], rows[0][there])
        return {
            "mAP": metrics.mAP,
            "micro_auprc": metrics.micro_auprc,
            "eval_rows": metrics.rows,
            "eval_classes": metrics.classes,
            "eval_classes_left_out": metrics.left_out,
            "eval_clips_failed": len(failures),
        }
