"""What a teacher is: a model that states its classes, score kind, rate and whether it takes masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import torch

from logitstore.errors import TeacherError
from logitstore.views.recipe import Masks


class Teacher(ABC):
    """One model. An adapter sets the attributes and defines :meth:`probabilities`.

    Attributes:
        spec: the spec that it was loaded from; for messages, never stored.
        name: kind and architecture, free of paths; stored.
        classes: names, in the order of its outputs. scores: "sigmoid" or "softmax".
        sample_rate: Hz of the waveforms it takes. max_seconds: the longest view that it hears whole; None for any.
        exact_seconds: the only length of a view that it takes; None for any.
        trained_seconds: length of the clips that it learnt from; None where that is not known.
        takes_masks: whether it has a front end of its own that masks can act on.
        has_features: whether :meth:`features` and :meth:`outputs` can be called.
        digest: BLAKE2b-128, hex, of the weights and whatever else decides what it says.
        not_covered: what its digest cannot tell apart, in words; such as a library that it asks.
        contract: front end, stage and value of the fill, as plain JSON values.
        own_code: whether it runs somebody's own code, of which nothing is known.
        if_logits: what to do where its scores are no probabilities; for messages.
    """

    spec: str
    name: str
    classes: tuple[str, ...]
    scores: str
    sample_rate: int
    takes_masks: bool
    digest: str
    contract: dict[str, Any]
    has_features: bool = False
    max_seconds: float | None = None
    exact_seconds: float | None = None
    trained_seconds: float | None = None
    own_code: bool = False
    if_logits: str = (
        "let its forward end with torch.sigmoid (scores = 'sigmoid') or with torch.softmax over the classes (scores = "
        "'softmax')"
    )
    not_covered: tuple[str, ...] = ()

    @abstractmethod
    def probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        """Probabilities (B, C) of waveforms float32 (B, S) at ``sample_rate``, under B masks or none."""

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

    def earlier_digests(self) -> tuple[str, ...]:
        """The digests by which earlier releases, whose rule covered less, knew this very teacher."""
        return ()

    @abstractmethod
    def to(self, device: str | torch.device) -> Self:
        """Move the weights to a device; the waveforms are expected there too."""
