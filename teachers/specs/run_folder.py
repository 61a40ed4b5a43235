"""Run folders as teachers."""

from __future__ import annotations

from typing import Any, Self

import torch

from logitstore.models.tagger import Tagger, probabilities
from logitstore.plugins import PYTHON
from logitstore.store.format.manifest import ARGUMENTS, CODE
from logitstore.training.runs import load_run
from logitstore.views.recipe import Masks
from teachers.contract import Contract
from teachers.frames import Answer, Frames
from teachers.identity import code_digest
from teachers.teacher import Teacher

#: Its form, and what it is; see :mod:`teachers.registry`.
SPEC = ("FOLDER", "a run folder of train-teacher or train-student; of your own architecture, FOLDER?student=python:…")


class TaggerTeacher(Teacher):
    """A teacher around one of this project's own models."""

    def __init__(
        self, spec: str, name: str, model: Tagger, classes: tuple[str, ...], digest: str, **stated: Any
    ) -> None:
        """A net behind its contract; ``stated`` are further words of it, such as its licence."""
        self.spec = spec
        self.model = model.eval()
        self._outputs: Any = None  # those of the model, compiled
        says = model.contract()
        self.contract = Contract(
            name=name,
            classes=classes,
            scores=model.scores,
            sample_rate=model.front_end.sample_rate,
            digest=digest,
            output="logits",
            takes_masks=True,
            has_features=True,
            has_frames=model.has_frames,
            front_end=says.pop("front_end"),
            fill=says.pop("fill"),
            **({"arguments": says} | stated),
        )

    @torch.inference_mode()
    def probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        return probabilities(self._asked(waveforms, masks)[0], self.scores)

    @torch.inference_mode()
    def features(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        return self.model.frame_features(waveforms, masks)

    @torch.inference_mode()
    def outputs(self, waveforms: torch.Tensor, masks: Masks | None) -> tuple[torch.Tensor, torch.Tensor]:
        logits, frames = self._asked(waveforms, masks)
        return probabilities(logits, self.scores), frames

    @torch.inference_mode()
    def answers(
        self, waveforms: torch.Tensor, masks: Masks | None, *, features: bool = False, frames: bool = False
    ) -> Answer:
        logits, activations = self._asked(waveforms, masks)
        when = None
        if frames:
            said = probabilities(self.model.frame_logits(activations), self.scores)
            when = Frames(said, self.model.frame_centers(said.shape[1], waveforms.shape[1] / self.sample_rate))
        return Answer(probabilities(logits, self.scores), activations if features else None, when)

    def compile(self) -> None:
        log_mel: Any = self.model.log_mel  # whose complex numbers the compiler only slows down
        log_mel.forward = torch.compiler.disable(log_mel.forward)  # type: ignore[no-untyped-call]
        self._outputs = torch.compile(self.model.outputs)

    def _asked(self, waveforms: torch.Tensor, masks: Masks | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C) and frame features (B, T, D)."""
        if self._outputs is None:
            return self.model.outputs(waveforms, masks)
        given = None if masks is None else masks.to("cpu")  # tensors, as the compiler knows no arrays in inference mode
        both: tuple[torch.Tensor, torch.Tensor] = self._outputs(waveforms, given)
        return both

    def to(self, device: str | torch.device) -> Self:
        layout = torch.channels_last if torch.device(device).type == "cpu" else torch.contiguous_format
        self.model.to(device, memory_format=layout)  # type: ignore[call-overload]  # convolutions are faster so
        return self


def load(spec: str, folder: str) -> TaggerTeacher:
    """The teacher of a run folder, or of ``FOLDER?student=python:MODULE:FACTORY``.

    :raises RunError: not a run, or a damaged one.
    """
    run = load_run(folder)
    teacher = TaggerTeacher(
        spec, run.config["model"], run.model, run.classes, run.digest, trained_seconds=run.clip_seconds
    )
    arguments = dict(teacher.contract.arguments)
    if run.config["model_args"]:
        arguments[ARGUMENTS] = run.config["model_args"]
    not_covered: tuple[str, ...] = ()
    if run.config["model"].startswith(PYTHON):
        arguments[CODE], not_covered = code_digest(run.config["model"].split(":")[1])
    return teacher.restate(arguments=arguments, not_covered=not_covered)
