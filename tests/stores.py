"""A small store for tests: real audio files, a fast teacher of known behaviour, the real build job."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

RATE = 16_000
TONES = (300, 500, 800, 1300, 2100, 3400, 5500, 7000)

TONE_TEACHER = '''
"""Teachers for tests: class c is present as far as the view holds the tone of TONES[c]."""
import torch

TONES = (300, 500, 800, 1300, 2100, 3400, 5500, 7000)


class Tones(torch.nn.Module):
    classes = [f"tone {hz} Hz" for hz in TONES]
    sample_rate = 16_000
    scores = "sigmoid"

    def __init__(self, slope=4.0):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(slope))

    def forward(self, waveforms, masks=None):
        samples = waveforms.shape[1]
        if masks is not None:
            time = torch.arange(samples) / self.sample_rate
            hidden = (time >= masks.time_start[:, None]) & (time < masks.time_end[:, None])
            waveforms = torch.where(hidden, 0.0, waveforms)
        tones = torch.tensor(TONES)
        level = torch.fft.rfft(waveforms).abs()[:, tones * samples // self.sample_rate] / samples
        if masks is not None:
            level = torch.where((masks.freq_low[:, None] <= tones) & (tones < masks.freq_high[:, None]), 0.0, level)
        return torch.sigmoid(self.slope * (torch.log10(level + 1e-4) + 2))


def plain():
    return Tones()


def steep():
    return Tones(6.0)


class Broken(Tones):
    """Gives something else than probabilities from its third batch on: the first is asked thrice."""

    def __init__(self, fault):
        super().__init__()
        self.fault, self.calls = fault, 0

    def forward(self, waveforms, masks=None):
        self.calls += 1
        said = super().forward(waveforms, masks)
        if self.calls < 5:
            return said
        if self.fault == "nan":
            said[0, 0] = float("nan")
        if self.fault == "shape":
            said = said[:, :-1]
        if self.fault == "range":
            said = said + 1
        if self.fault == "raises":
            raise RuntimeError("out of memory, say")
        return said


def nan():
    return Broken("nan")


def shape():
    return Broken("shape")


def out_of_range():
    return Broken("range")


def raises():
    return Broken("raises")


def deaf():
    """Takes only waveforms."""
    class Deaf(torch.nn.Module):
        classes, sample_rate, scores = Tones.classes, 16_000, "sigmoid"

        def forward(self, waveforms):
            return torch.full((len(waveforms), 8), 0.5)

    return Deaf()


def reversed_classes():
    class Reversed(Tones):
        classes = Tones.classes[::-1]

        def forward(self, waveforms, masks=None):
            return super().forward(waveforms, masks).flip(1)

    return Reversed()


def others():
    class Others(Tones):
        classes = [*Tones.classes[:-1], "a siren"]

    return Others()


def softmax():
    class Softmax(Tones):
        scores = "softmax"

        def forward(self, waveforms, masks=None):
            said = super().forward(waveforms, masks)
            return said / said.sum(dim=1, keepdim=True)

    return Softmax()
'''


def write_audio(folder: Path, clips: int, seconds: float = 1.0, rate: int = RATE) -> None:
    """``clips`` WAV files, each with two of the tones at random levels, in noise."""
    random = np.random.default_rng(11)
    for number in range(clips):
        time = np.arange(int(seconds * rate * (0.6 + 0.4 * random.random()))) / rate
        wave = 0.01 * random.standard_normal(len(time))
        for hz in random.choice(TONES, 2, replace=False):
            wave += random.uniform(0.02, 0.4) * np.sin(2 * np.pi * hz * time)
        target = folder / f"{'ab'[number % 2]}" / f"{number:03d}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, wave.astype(np.float32), rate, subtype="PCM_16")


def options(root: Path, **changes: Any) -> Any:
    """Build options over ``root/audio`` to ``root/store`` with the two tone teachers (their module is put in root)."""
    from logitstore.jobs.build.job import BuildOptions

    (root / "tones.py").write_text(TONE_TEACHER)
    values: dict[str, Any] = {
        "source": str(root / "audio"),
        "out": str(root / "store"),
        "teachers": ["python:tones:plain", "python:tones:steep"],
        "views": 3,
        "topk": 4,
        "clip_seconds": 2.0,
        "batch_size": 8,
        "workers": 2,
        "device": "cpu",
        "shard_clips": 8,
    }
    return BuildOptions(**(values | changes))


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder from which specs `python:MODULE:…` are imported, anew: others' modules of that name are gone."""
    _forget_modules(folder.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        yield
    _forget_modules(folder.parent)


def _forget_modules(folder: Path) -> None:
    """Modules whose file lies in a folder; their names are asked, for a lazy module may import for an attribute."""
    below = f"{folder}{os.sep}"
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__dict__", {}).get("__file__")).startswith(below):
            del sys.modules[name]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its relative name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
