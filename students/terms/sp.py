"""``sp``: the clips of a batch are to be as alike to each other as the teachers find them (Tung & Mori, ICCV 2019).

F holds a batch's clips as rows, G = F Fᵀ, every row divided by its L2 norm; the loss is ‖G_teacher - G_student‖²_F /
batch².
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from logitstore.models.grams import pooled, require_same_clips, row_normalised
from students.terms import Pass, Term

TERM = ("Sp", "Relate the clips of a batch to each other as the teachers do (a store with --relations clips).")


class Sp(Term):
    """:func:`sp` of the whole batch, in each of several processes too.

    It is small, at most 4 / B, and so is its gradient: hence the weight, which ``benchmarks/iusp.py`` measures at B of
    32.
    """

    weight = 30.0
    relations = ("clips",)
    whole_batch = True

    def __call__(self, said: Pass) -> torch.Tensor:
        if self.setting.frames is None:
            raise ValueError("the term 'sp' was made without the teachers' number of frames")
        student = pooled(said.given("frames"), self.setting.frames)
        teacher = said.given("clip_vectors")
        if said.gather is not None:
            student, teacher = said.gather(student), said.gather(teacher)
        return sp(student, teacher, self.setting.frames)


def sp(student_frames: torch.Tensor, teacher_vectors: torch.Tensor, frames: int) -> torch.Tensor:
    """The SP loss of a batch, on features over time instead of a layer's activations.

    A clip's vector is its features pooled to ``frames`` frames, flattened and divided by their norm (the paper does
    not divide; without it the loudest clips make every row).

    :param student_frames: (B, Ts, D), any float dtype.
    :param teacher_vectors: (B, N), one vector a clip, whose inner products are the teachers'; as stored. A clip's
        product with itself is 1, whatever the basis of a store left out of it, and so it is taken to be (0 of a vector
        of zeros); that alone halves the error of the matrix.
    :param frames: the frames that the teachers' features were pooled to; a student with fewer has some repeated.
    :returns: float32 scalar, >= 0: ‖G_teacher - G_student‖²_F / B².
    :raises UsageError: the two do not have the same number of clips.
    """
    require_same_clips(len(student_frames), len(teacher_vectors))
    with torch.autocast(student_frames.device.type, enabled=False):
        vectors = F.normalize(pooled(student_frames, frames).flatten(1), dim=1)
        given = teacher_vectors.float()
        itself = given.any(dim=1).float()
        products = given @ given.T
        products = products - torch.diag(products.diagonal() - itself)
        teacher, student = row_normalised(products), row_normalised(vectors @ vectors.T)
        return (teacher - student).square().sum() / len(vectors) ** 2
