"""What a teacher is: a model behind a contract, which says what it takes and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, Self

import torch

from logitstore.errors import TeacherError
from logitstore.views.recipe import Masks
from teachers.contract import Contract
from teachers.frames import Answer, Frames


class Teacher(ABC):
    """One model. An adapter sets ``spec`` and ``contract``, and defines :meth:`probabilities`.

    Attributes:
        spec: the spec that it was loaded from; for messages, never stored.
        contract: what it states of itself; what is asked most can be asked of the teacher too.
        own_code: whether it runs somebody's own code, of which nothing is known.
        if_logits: what to do where its scores are no probabilities; for messages.
    """

    spec: str
    contract: Contract
    own_code: bool = False
    if_logits: str = (
        "let its forward end with torch.sigmoid (scores = 'sigmoid') or with torch.softmax over the classes (scores = "
        "'softmax')"
    )

    @property
    def name(self) -> str:
        """Kind and architecture."""
        return self.contract.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of its outputs."""
        return self.contract.classes

    @property
    def scores(self) -> str:
        """``sigmoid`` or ``softmax``."""
        return self.contract.scores

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms that it takes."""
        return self.contract.sample_rate

    @property
    def takes_masks(self) -> bool:
        """Whether masks can act on what it hears."""
        return self.contract.takes_masks

    @property
    def has_features(self) -> bool:
        """Whether :meth:`features` and :meth:`outputs` can be called."""
        return self.contract.has_features

    @property
    def has_frames(self) -> bool:
        """Whether :meth:`frame_probabilities` can be called."""
        return self.contract.has_frames

    @property
    def digest(self) -> str:
        """Of the weights and whatever else decides what it says."""
        return self.contract.digest

    def restate(self, **changes: Any) -> Self:
        """This teacher, with other words in its contract."""
        self.contract = replace(self.contract, **changes)
        return self

    @abstractmethod
    def probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        """Probabilities (B, C) of waveforms float32 (B, S) at ``sample_rate``, under B masks or none.

        Of any S up to ``contract.max_seconds``: a model with a length of its own hears windows, see
        :func:`teachers.windows.in_windows`.
        """

    def features(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        """Activations over time, (B, T, D), of the same arguments.

        :raises TeacherError: a teacher that has none.
        """
        raise TeacherError(f"teacher {self.spec!r} has no features over time; similarity losses need another teacher")

    def outputs(self, waveforms: torch.Tensor, masks: Masks | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities (B, C) and features (B, T, D) of the same arguments; of one pass where a teacher can.

        :raises TeacherError: a teacher that has no features.
        """
        said = self.probabilities(waveforms.clone(), None if masks is None else masks.copy())
        return said, self.features(waveforms, masks)

    def frame_probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> Frames:
        """Probabilities (B, T, C) of T moments of the same views, and which moments these are.

        :raises TeacherError: a teacher that does not say when.
        """
        answer = self.answers(waveforms, masks, frames=True) if self.has_frames else None
        if answer is None or answer.frames is None:
            raise TeacherError(f"teacher {self.spec!r} does not say when; frame targets need another teacher")
        return answer.frames

    def answers(
        self, waveforms: torch.Tensor, masks: Masks | None, *, features: bool = False, frames: bool = False
    ) -> Answer:
        """Probabilities (B, C) of the same arguments, and of one pass, where a teacher can, what else is asked for.

        A teacher that says when defines this, or :meth:`frame_probabilities`.

        :raises TeacherError: it has not what is asked for.
        """
        own, own_masks = waveforms.clone(), None if masks is None else masks.copy()
        if features:
            said, activations = self.outputs(own, own_masks)
        else:
            said, activations = self.probabilities(own, own_masks), None
        if frames and type(self).frame_probabilities is Teacher.frame_probabilities:
            raise TeacherError(f"teacher {self.spec!r} does not say when; frame targets need another teacher")
        return Answer(said, activations, self.frame_probabilities(waveforms, masks) if frames else None)

    def compile(self) -> None:
        """Have torch's compiler make the net faster, at its first batches, which take longer; it then rounds otherwise.

        :raises TeacherError: a teacher that is no net of torch, or whose net is not this project's.
        """
        raise TeacherError(
            f"teacher {self.spec!r} cannot be compiled; run folders, ced: and the other published nets can. Leave "
            "--compile out, or that teacher"
        )

    def earlier_digests(self) -> tuple[str, ...]:
        """The digests by which earlier releases, whose rule covered less, knew this very teacher."""
        return ()

    @abstractmethod
    def to(self, device: str | torch.device) -> Self:
        """Move the weights to a device; the waveforms are expected there too."""
