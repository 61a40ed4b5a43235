"""``iusp``: the frames of a clip are to be as alike to each other as the teachers find them (arXiv 2009.01759).

F holds a clip's frames as rows, G = F Fᵀ, every row divided by its L2 norm; the loss is ‖G_teacher - G_student‖²_F /
frames², SP's with the frames of one clip in the place of the clips of a batch.
"""

from __future__ import annotations

import torch

from logitstore.models.grams import gram, pooled, pooled_gram, require_same_clips, row_normalised
from students.terms import Pass, Term

TERM = ("Iusp", "Relate the frames of a clip to each other as the teachers do (a store with --relations frames).")


class Iusp(Term):
    """:func:`iusp` of every clip, their mean.

    It is at most 4 / t, so the best weight is about t: ``benchmarks/iusp.py`` finds 1 to 3 at 3 frames, 30 at 31.
    """

    weight = 10.0
    relations = ("frames",)

    def __call__(self, said: Pass) -> torch.Tensor:
        return iusp(said.given("frames"), said.given("frame_grams")).mean()


def iusp(student_frames: torch.Tensor, teacher_gram: torch.Tensor) -> torch.Tensor:
    """The IUSP loss of each clip; its mean over the batch is the paper's.

    Both sides are pooled to the smaller number of frames t = min(T, Ts), and only then row-normalised.

    :param student_frames: (B, Ts, D), any float dtype.
    :param teacher_gram: (B, T, T), as stored or of :func:`gram`; its scale is of no account.
    :returns: float32 (B,), >= 0: ‖G_teacher - G_student‖²_F / t².
    :raises UsageError: the two do not have the same number of clips.
    """
    require_same_clips(len(student_frames), len(teacher_gram))
    count = min(student_frames.shape[1], teacher_gram.shape[1])
    with torch.autocast(student_frames.device.type, enabled=False):
        student = row_normalised(gram(pooled(student_frames, count)))
        teacher = row_normalised(pooled_gram(teacher_gram, count))
        return (teacher - student).square().sum(dim=(1, 2)) / count**2
