"""A net of your own, registered by its name as timm does it, and trained by logitstore: checkpoints, resume, agreement.

    python examples/own_student.py STORE AUDIO [STEPS]

is the same as ``train-student STORE --audio-root AUDIO --student python:own_student:separable_tiny`` in this folder.
What the net gives is logits a class, from log-mels that it asks its front end for; masks are filled by ``self.masked``.
"""

import sys
from collections.abc import Callable

import torch
from torch import nn

import logitstore
from logitstore.models.tagger import AFTER_NORM, Scores, Tagger, stated_front_end
from logitstore.views.recipe import Masks

REGISTRY: dict[str, Callable[..., "Separable"]] = {}


def register_model(make: Callable[..., "Separable"]) -> Callable[..., "Separable"]:
    """Makes a net of your own known by its name."""
    REGISTRY[make.__name__] = make
    return make


class Separable(Tagger):
    """Depthwise-separable convolutions over time; ``width`` channels, ``depth`` blocks."""

    fill_stage, head_name = AFTER_NORM, "output"

    def __init__(self, classes: int, *, scores: Scores = "sigmoid", width: int = 64, depth: int = 3) -> None:
        front_end = stated_front_end(
            sample_rate=16_000, mels=64, hop_ms=10, window_ms=32, f_min=0, f_max=None, least_mels=8
        )
        super().__init__(front_end, classes, scores)
        self.norm = nn.BatchNorm1d(64)
        self.stem = nn.Conv1d(64, width, kernel_size=3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, width, kernel_size=9, padding=4, groups=width),
                nn.Conv1d(width, width, kernel_size=1),
                nn.BatchNorm1d(width),
                nn.ReLU(),
            )
            for _ in range(depth)
        )
        self.output = nn.Linear(width, classes)

    def frame_features(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        hidden = self.stem(self.masked(self.norm(self.log_mel(waveforms)), masks, mix))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return hidden.transpose(1, 2)  # (B, T, D)

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        return self.output(frames.mean(dim=1))  # (B, C)


@register_model
def separable_tiny(classes: int, **arguments) -> Separable:
    """8 k parameters beside the classes."""
    return Separable(classes, width=32, depth=2, **arguments)


@register_model
def separable_small(classes: int, **arguments) -> Separable:
    """60 k parameters beside the classes."""
    return Separable(classes, width=96, depth=4, **arguments)


if __name__ == "__main__":
    trained = logitstore.train_student(
        store=sys.argv[1],
        audio_root=sys.argv[2],
        student="python:own_student:separable_tiny",
        steps=int(sys.argv[3]) if len(sys.argv) > 3 else 300,
        out="runs/separable_tiny",
    )
    print(f"{trained.parameters:,} parameters, loss {trained.result.loss:.4f}")
